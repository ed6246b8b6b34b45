"""Proteins' heavy atoms from backbone frames and seven torsions a residue, and back.

Positions are (batch, n_residues, 15, 3) in the slots of `residue_geometry`; a slot without atom lies on its Cα. All is
computed in double precision, whatever comes in.
"""

from __future__ import annotations

import math
from typing import Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.nn.internal_coordinates import AtomTree, measure, shared_tree, unit_vectors
from openmm_latent.nn.residue_geometry import CA, INTERNAL_SLOTS, N_SLOTS, C, N, O, Residues, residue_tables


def residue_frames(positions: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Return each residue's frame: axes along CA to C, N's part across it, and their cross product, as columns.

    Parameters
    ----------
    positions : Tensor
        (batch, n_residues, n_slots, 3) [nm], the slots N, CA and C first

    Returns
    -------
    rotations : Tensor
        (batch, n_residues, 3, 3); a vector v of the residue is R v in the common axes
    ca : Tensor
        (batch, n_residues, 3) [nm]

    Source: Jumper et al., Nature 596, 583 (2021), supplement, algorithm 21.
    """
    ca = positions[:, :, 1].double()
    first = unit_vectors(positions[:, :, 2].double() - ca)
    to_n = positions[:, :, 0].double() - ca
    second = unit_vectors(to_n - (to_n * first).sum(-1, keepdim=True) * first)
    rotations = torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)
    return rotations.to(positions.dtype), positions[:, :, 1]


class FrameCoordinates(nn.Module):
    """Heavy atoms from backbone frames and seven torsions, all other geometry ideal.

    N and C lie in the frame. O lies in the plane that psi gives, opposite to the next N, and OXT opposite to O. Omega
    and phi are measured, but place nothing: the next residue's N has a frame of its own. Flat groups are flat, amides
    of ASN and GLN among them: their OD1 and OE1 turn with the last chi, ND2 and NE2 lie opposite.

    Parameters
    ----------
    residues : Residues
        Chains of any length.

    Attributes
    ----------
    has_atom : Tensor of bool
        (n_residues, 15)
    has_torsion : Tensor of bool
        (n_residues, 7) in the order of `residue_geometry.TORSION_NAMES`

    Source: Jumper et al., Nature 596, 583 (2021), supplement, algorithm 24, which ConfRover follows.
    DISCREPANCY(AlphaFold, algorithm 24): lengths and angles are means of MD, not of crystals, and frames are not kept.
    """

    def __init__(self, residues: Residues):
        super().__init__()
        tables = residue_tables()
        references, ideal = shared_tree(residues)
        local = np.zeros((len(residues), 3, 3))  # N, CA, C
        length, angle = ideal[:, N, 0], ideal[:, N, 1]
        local[:, 0, 0], local[:, 0, 1] = length * np.cos(angle), length * np.sin(angle)
        local[:, 2, 0] = ideal[:, C, 0]
        chi = tables.chi[residues.types]
        source = np.where(chi > 0, chi + 2, 0)
        source[:, O] = 2
        inner = list(INTERNAL_SLOTS)
        self.tree = AtomTree(residues.has_atom, references)
        self.register_buffer("has_atom", torch.tensor(residues.has_atom))
        self.register_buffer("local", torch.tensor(local, dtype=torch.float32))
        self.register_buffer("ideal", torch.tensor(ideal[:, inner], dtype=torch.float32))
        self.register_buffer("source", torch.tensor(source[:, inner]))
        self._set_corners(residues, references)

    def _set_corners(self, residues: Residues, references: np.ndarray) -> None:
        """Note the four atoms of each torsion, counted as 15 residue + slot."""
        first = N_SLOTS * np.arange(len(residues))
        corners = np.zeros((len(residues), 7, 4), dtype=np.int64)
        has_torsion = np.zeros((len(residues), 7), dtype=bool)
        has_torsion[:, :2] = residues.is_joined[:, None]
        has_torsion[:, 2] = True
        before = first - N_SLOTS
        corners[:, 0] = np.stack([before + CA, before + C, first + N, first + CA], axis=1)
        corners[:, 1] = np.stack([before + C, first + N, first + CA, first + C], axis=1)
        corners[:, 2] = np.stack([first + N, first + CA, first + C, first + O], axis=1)
        place, slot = np.nonzero(residue_tables().chi[residues.types])
        number = residue_tables().chi[residues.types][place, slot] + 2
        corners[place, number, :3] = references[place, slot, ::-1]
        corners[place, number, 3] = first[place] + slot
        has_torsion[place, number] = True
        self.register_buffer("corners", torch.tensor(corners[has_torsion]))
        self.register_buffer("torsion_places", torch.tensor(np.flatnonzero(has_torsion)))
        self.register_buffer("has_torsion", torch.tensor(has_torsion))

    def to_cartesian(self, rotations: Tensor, ca: Tensor, torsions: Tensor) -> Tensor:
        """Build all heavy atoms.

        Parameters
        ----------
        rotations : Tensor
            (batch, n_residues, 3, 3)
        ca : Tensor
            (batch, n_residues, 3) [nm]
        torsions : Tensor
            (batch, n_residues, 7) omega, phi, psi, chi1 to chi4 [rad]; what a residue does not have is not read

        Returns
        -------
        Tensor
            (batch, n_residues, 15, 3) [nm]
        """
        n_batch = ca.shape[0]
        # (batch, n_residues, 3 atoms, 3)
        backbone = torch.matmul(self.local.double(), rotations.double().transpose(2, 3)) + ca.double().unsqueeze(2)
        turned = torch.cat([torsions[..., :2], torsions[..., 2:3] + math.pi, torsions[..., 3:]], dim=-1).double()
        ideal = self.ideal.double().unsqueeze(0).expand(n_batch, -1, -1, -1)
        torsion = turned.gather(2, self.source.unsqueeze(0).expand(n_batch, -1, -1))
        torsion = torch.where(self.source > 0, torsion, ideal[..., 2])
        internal = torch.cat([ideal[..., :2], torsion.unsqueeze(-1)], dim=-1)
        return self.tree.grow(backbone.reshape(n_batch, -1, 3), internal).to(ca.dtype)

    def torsions(self, positions: Tensor) -> Tensor:
        """Measure the seven torsions.

        Psi is read from O, so that the last residue has one, and so that `to_cartesian` puts O back where it was.

        Parameters
        ----------
        positions : Tensor
            (batch, n_residues, 15, 3) [nm]

        Returns
        -------
        Tensor
            (batch, n_residues, 7) [rad], in (-pi, pi]; 0 for those that a residue does not have
        """
        n_batch, n_residues = positions.shape[0], positions.shape[1]
        flat = positions.double().reshape(n_batch, -1, 3)
        corners = flat.index_select(1, self.corners.flatten()).view(n_batch, -1, 4, 3)
        measured = measure(corners[:, :, 0], corners[:, :, 1], corners[:, :, 2], corners[:, :, 3])[..., 2]
        empty = torch.zeros_like(flat[:, :1, 0]).expand(-1, 7 * n_residues)
        found = empty.index_copy(1, self.torsion_places, measured).view(n_batch, n_residues, 7)
        psi = found[..., 2:3]
        psi = torch.where(psi > 0, psi - math.pi, psi + math.pi)
        return torch.cat([found[..., :2], psi, found[..., 3:]], dim=-1).to(positions.dtype)
