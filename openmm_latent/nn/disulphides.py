"""Bring the sulphurs of bonded cysteines together, whatever rotamers were drawn for them.

Both side chains are turned about CA-CB, in all combinations of even steps, to where the bridge fits best; then lengths
are put right, which bends angles a little. No other atom moves.

| term of what fits | unit of it |
|---|---|
| distance of the sulphurs | 0.01 nm |
| distances of each CB from the other sulphur, which give the angles at the sulphurs | 0.02 nm |
| overlap of a sulphur with atoms of other residues, nearer than 0.3 nm | 0.03 nm |
| chi1 from a staggered one, and from the one that was drawn | at most 1, at most 0.5 |
"""

from __future__ import annotations

import math
from typing import Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.nn.internal_coordinates import measure, place
from openmm_latent.nn.residue_geometry import CA, CB, CYSTEINE, N_SLOTS, SG, N, Residues, bond_pairs, residue_tables

#: Angle at a sulphur of a bridge [rad], and atoms that a sulphur overlaps with [nm].
_ANGLE, _ROOM = math.radians(104.0), 0.3


class Disulphides(nn.Module):
    """Close the bridges of one protein.

    Parameters
    ----------
    residues : Residues
    pairs : ndarray of int
        (n_bridges, 2) residues, each in one bridge at most
    n_turns : int
        Of a side chain that are tried.

    Raises
    ------
    LatentError
        A bridge ends at a residue that is no cysteine.
    """

    __constants__ = ("arm", "bond", "cross", "n_sweeps", "n_turns", "room")

    def __init__(self, residues: Residues, pairs: np.ndarray, n_turns: int = 72):
        super().__init__()
        pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
        bond_pairs(residues, pairs)  # refuses what is no cysteine
        tables = residue_tables()
        self.n_turns, self.n_sweeps, self.room = n_turns, 60, _ROOM
        self.arm, self.bond = float(tables.ideal[CYSTEINE, SG, 0]), tables.disulphide_length
        self.cross = math.sqrt(self.arm**2 + self.bond**2 - 2.0 * self.arm * self.bond * math.cos(_ANGLE))
        corners = N_SLOTS * pairs[:, :, None] + np.array([N, CA, CB, SG])
        held = np.flatnonzero(residues.has_atom.reshape(-1))
        owner = held[None] // N_SLOTS
        self.register_buffer("corners", torch.tensor(corners))  # (n_bridges, 2, 4)
        self.register_buffer("held", torch.tensor(held))
        self.register_buffer("is_other", torch.tensor((owner != pairs[:, :1]) & (owner != pairs[:, 1:])))
        self.register_buffer("turns", 2.0 * math.pi / n_turns * torch.arange(n_turns, dtype=torch.float64))

    def forward(self, positions: Tensor) -> Tensor:
        """Return positions whose bridges are closed: (batch, n_residues, 15, 3) [nm] -> the same.

        Where the CB lie too far apart, sulphurs come as near as they can.
        """
        flat = positions.double().flatten(1, 2)
        n_batch = flat.shape[0]
        corners = flat.index_select(1, self.corners.flatten()).view(n_batch, -1, 2, 4, 3)
        trials, cost = self.turned(flat, corners)
        cost = cost[:, :, 0].unsqueeze(3) + cost[:, :, 1].unsqueeze(2) + self.misfit(corners, trials)
        best = cost.flatten(2).argmin(dim=2)  # (batch, n_bridges)
        rows = torch.stack([torch.div(best, self.n_turns, rounding_mode="floor"), best % self.n_turns], dim=2)
        chosen = trials.gather(3, rows.view(n_batch, -1, 2, 1, 1).expand(-1, -1, -1, -1, 3)).squeeze(3)
        closed = self.pulled(corners[:, :, :, 2], chosen)
        sulphurs = self.corners[:, :, 3].flatten()
        moved = flat.index_copy(1, sulphurs, closed.flatten(1, 2))
        return moved.view(positions.shape).to(positions.dtype)

    def turned(self, flat: Tensor, corners: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Return each sulphur at all turns of its side chain, and what these cost by themselves.

        Parameters
        ----------
        flat : Tensor
            (batch, 15 n_residues, 3) [nm]
        corners : Tensor
            (batch, n_bridges, 2, 4, 3) [nm] N, CA, CB and SG

        Returns
        -------
        trials : Tensor
            (batch, n_bridges, 2, n_turns, 3) [nm]
        cost : Tensor
            (batch, n_bridges, 2, n_turns)
        """
        n_batch = flat.shape[0]
        drawn = measure(corners[..., 0, :], corners[..., 1, :], corners[..., 2, :], corners[..., 3, :])
        drawn = drawn.unsqueeze(3).expand(-1, -1, -1, self.n_turns, -1)  # length, angle, torsion
        chi = drawn[..., 2] + self.turns
        ends = corners.unsqueeze(3).expand(-1, -1, -1, self.n_turns, -1, -1)
        internal = torch.stack([torch.full_like(chi, self.arm), drawn[..., 1], chi], dim=-1)
        trials = place(ends[..., 0, :], ends[..., 1, :], ends[..., 2, :], internal)
        cost = 0.5 * (1.0 + torch.cos(3.0 * chi)) + 0.25 * (1.0 - torch.cos(self.turns))
        others = flat.index_select(1, self.held)
        between = torch.cdist(trials.view(n_batch, -1, 3), others, compute_mode="donot_use_mm_for_euclid_dist")
        overlap = (
            ((self.room - between).clamp(min=0.0) / 0.03).square().view(n_batch, len(self.is_other), -1, len(self.held))
        )
        return trials, cost + (overlap * self.is_other.unsqueeze(1)).sum(3).view(cost.shape)

    def misfit(self, corners: Tensor, trials: Tensor) -> Tensor:
        """Return how badly sulphurs meet: (batch, n_bridges, n_turns of the first, n_turns of the second)."""
        first, second = trials[:, :, 0].unsqueeze(3), trials[:, :, 1].unsqueeze(2)
        apart = (first - second).square().sum(-1).clamp(min=1e-12).sqrt()
        to_second = (corners[:, :, 0, 2].unsqueeze(2) - trials[:, :, 1]).square().sum(-1).sqrt().unsqueeze(2)
        to_first = (corners[:, :, 1, 2].unsqueeze(2) - trials[:, :, 0]).square().sum(-1).sqrt().unsqueeze(3)
        angles = ((to_second - self.cross) / 0.02).square() + ((to_first - self.cross) / 0.02).square()
        return ((apart - self.bond) / 0.01).square() + angles

    def pulled(self, carbons: Tensor, sulphurs: Tensor) -> Tensor:
        """Return sulphurs at their distances from each other and from their CB, both (batch, n_bridges, 2, 3) [nm]."""
        for _ in range(self.n_sweeps):
            between = sulphurs[:, :, 0] - sulphurs[:, :, 1]
            length = between.square().sum(-1, keepdim=True).clamp(min=1e-12).sqrt()
            step = 0.5 * (self.bond - length) * between / length
            sulphurs = sulphurs + torch.stack([step, -step], dim=2)
            arms = sulphurs - carbons
            sulphurs = carbons + self.arm * arms / arms.square().sum(-1, keepdim=True).clamp(min=1e-12).sqrt()
        return sulphurs
