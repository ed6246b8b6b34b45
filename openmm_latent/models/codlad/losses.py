"""What the autoencoder is trained on: the structural terms of CODLAD, each of which can be left out.

| term | compares | weight |
|---|---|---|
| bond | lengths of internal coordinates [Å] | 5 |
| angle | their angles [rad] | 1 |
| torsion | their torsions, sqrt(2 (1 - cos)) | 1 |
| xyz | positions as they lie [Å] | 1 |
| graph | distances of bonded atoms, also across residues and of disulphides [Å] | 3 |
| clash | atoms that are not bonded and nearer than 2.0 Å, N and O of the backbone than 2.2 Å | 5, 10 after epoch 20 |

xyz and clash are off in epoch 0. All but torsion and clash are mean squares.

Source: CODLAD, equation 12.
DISCREPANCY(CODLAD, equation 12): the paper does not say over what terms are averaged; ours are over atoms (bonds for
graph), clash is the sum of overlaps by residue. Torsions weigh 1 a residue's atom; those of atoms that may exchange
names (OD1 and OD2 of ASP, say) count as the nearer of the two, as do positions.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from openmm_latent.models.codlad.config import CODLADConfig
from openmm_latent.models.codlad.graphs import Protein
from openmm_latent.nn.residue_geometry import (
    CA,
    INTERNAL_SLOTS,
    N_SLOTS,
    N,
    O,
    Residues,
    angle_pairs,
    bond_pairs,
    residue_tables,
)

ANGSTROM_PER_NM = 10.0


class LossTables(nn.Module):
    """Which atoms of one protein the terms compare; atoms are counted as 15 residue + slot.

    Parameters
    ----------
    residues : Residues
    disulphides : ndarray of int, optional
        (n_disulphides, 2) residues

    Attributes
    ----------
    bonds : Tensor
        (n_bonds, 2) int64
    renamed : Tensor
        (n_residues, 15) int64 slots after the exchange of equivalent atoms
    is_placed : Tensor
        (n_residues, 14) of bool, internal coordinates that there are
    """

    def __init__(self, residues: Residues, disulphides: np.ndarray | None = None):
        super().__init__()
        bonds, _ = bond_pairs(residues, disulphides)
        near = np.concatenate([bonds, angle_pairs(bonds)])
        n_atoms = N_SLOTS * len(residues)
        self.n_atoms = n_atoms
        #: numbers first * n_atoms + second, first < second, of pairs that may be near
        self.bonded_numbers = np.sort(near.min(axis=1) * n_atoms + near.max(axis=1))
        self.held = np.flatnonzero(residues.has_atom.reshape(-1))
        self.register_buffer("bonds", torch.tensor(bonds))
        self.register_buffer("renamed", torch.tensor(residue_tables().renamed[residues.types]))
        self.register_buffer("is_placed", torch.tensor(residues.has_atom[:, list(INTERNAL_SLOTS)]))

    def near_pairs(self, positions: Tensor, distance: float) -> Tensor:
        """Find pairs nearer than `distance` [nm] that are neither bonded nor bonded to a common atom.

        Parameters
        ----------
        positions : Tensor
            (batch, n_residues, 15, 3) [nm]
        distance : float
            [nm]

        Returns
        -------
        Tensor
            (n_pairs, 3) int64: frame, first and second atom
        """
        found = [np.zeros((0, 3), dtype=np.int64)]
        frames = positions.detach().flatten(1, 2).cpu().numpy()
        for number, frame in enumerate(frames):
            if not np.isfinite(frame).all():  # the other terms tell
                continue
            pairs = self.held[cKDTree(frame[self.held]).query_pairs(distance, output_type="ndarray")]
            numbers = pairs[:, 0] * self.n_atoms + pairs[:, 1]
            pairs = pairs[~np.isin(numbers, self.bonded_numbers)]
            found.append(np.concatenate([np.full((len(pairs), 1), number), pairs], axis=1))
        return torch.as_tensor(np.concatenate(found), device=positions.device)


def exchanged(positions: Tensor, tables: LossTables) -> Tensor:
    """Return positions with equivalent atoms exchanged, (batch, n_residues, 15, 3)."""
    return positions.gather(2, tables.renamed[None, :, :, None].expand_as(positions))


def nearer_names(found: Tensor, true: Tensor, tables: LossTables) -> Tensor:
    """Return the true positions under the names that lie nearer to those found, residue by residue.

    Parameters
    ----------
    found, true : Tensor
        (batch, n_residues, 15, 3) [nm]

    Returns
    -------
    Tensor
        (batch, n_residues, 15, 3) [nm]
    """
    other = exchanged(true, tables)
    with torch.no_grad():
        is_nearer = (found - other).square().sum((2, 3)) < (found - true).square().sum((2, 3))
    return torch.where(is_nearer[:, :, None, None], other, true)


def reconstruction_terms(
    protein: Protein, tables: LossTables, internal: Tensor, positions: Tensor, true: Tensor, config: CODLADConfig
) -> dict[str, Tensor]:
    """Return all terms, not yet weighted.

    Parameters
    ----------
    protein : Protein
    tables : LossTables
    internal : Tensor
        (batch, n_residues, 14, 3) decoded
    positions : Tensor
        (batch, n_residues, 15, 3) [nm] decoded
    true : Tensor
        (batch, n_residues, 15, 3) [nm]
    config : CODLADConfig

    Returns
    -------
    dict of str to Tensor
        () each, by the names of `config.TERMS`
    """
    true = nearer_names(positions, true, tables)
    target = protein.coordinates.to_internal(true)
    chosen, wanted = internal[:, tables.is_placed], target[:, tables.is_placed]  # (batch, n_placed, 3)
    apart = (positions - true).square().sum(-1)[:, protein.has_atom] * ANGSTROM_PER_NM**2
    return {
        "bond": ((chosen[..., 0] - wanted[..., 0]) * ANGSTROM_PER_NM).square().mean(),
        "angle": (chosen[..., 1] - wanted[..., 1]).square().mean(),
        "torsion": _chord(chosen[..., 2] - wanted[..., 2]).mean(),
        "xyz": apart.mean(),
        "graph": (_bond_lengths(positions, tables) - _bond_lengths(true, tables)).square().mean(),
        "clash": _clashes(positions, tables, config),
    }


def weighted_sum(terms: dict[str, Tensor], config: CODLADConfig, epoch: int) -> Tensor:
    """Return the loss, () , of terms by the weights of an epoch, counted from 0."""
    return torch.stack([weight * terms[name] for name, weight in term_weights(config, epoch).items()]).sum()


def term_weights(config: CODLADConfig, epoch: int) -> dict[str, float]:
    """Return the weights of the terms that count in an epoch, from 0; those left out are absent."""
    weights = {name: getattr(config, f"{name}_weight") for name in config.terms}
    if epoch < config.first_epoch_with_xyz:
        early = {name: weight for name, weight in weights.items() if name not in ("xyz", "clash")}
        weights = early or weights  # a loss of these two alone has no epoch without them
    if "clash" in weights and epoch > config.clash_doubles_after:
        weights["clash"] *= 2.0
    return weights


def _chord(differences: Tensor) -> Tensor:
    """Return sqrt(2 (1 - cos)) = 2 abs(sin of half), with a finite derivative at 0."""
    return (2.0 * (1.0 - torch.cos(differences)) + 1e-8).sqrt()


def _bond_lengths(positions: Tensor, tables: LossTables) -> Tensor:
    """Return distances of bonded atoms, (batch, n_bonds) [Å]."""
    flat = positions.flatten(1, 2)
    arms = flat[:, tables.bonds[:, 0]] - flat[:, tables.bonds[:, 1]]
    return arms.square().sum(-1).clamp(min=1e-12).sqrt() * ANGSTROM_PER_NM


def _clashes(positions: Tensor, tables: LossTables, config: CODLADConfig) -> Tensor:
    """Return the overlaps of atoms that are not bonded, summed and divided by frames and residues [Å]."""
    frame, first, second = tables.near_pairs(positions, max(config.clash_distance, config.clash_distance_n_o)).unbind(1)
    flat = positions.flatten(1, 2)
    apart = (flat[frame, first] - flat[frame, second]).square().sum(-1).clamp(min=1e-12).sqrt()
    slots = torch.stack([first % N_SLOTS, second % N_SLOTS], dim=1)
    is_n_o = ((slots == N).any(1)) & ((slots == O).any(1))
    least = torch.where(is_n_o, config.clash_distance_n_o, config.clash_distance).to(apart.dtype)
    overlap = (least - apart).clamp(min=0.0) * ANGSTROM_PER_NM
    return overlap.sum() / (positions.shape[0] * positions.shape[1])


def heavy_atom_rmsd(positions: Tensor, true: Tensor, protein: Protein, tables: LossTables) -> Tensor:
    """Return each frame's RMSD of all heavy atoms but the Cα, which are given, by the nearer names.

    Parameters
    ----------
    positions, true : Tensor
        (batch, n_residues, 15, 3) [nm], not superposed: both lie on the same trace

    Returns
    -------
    Tensor
        (batch,) [nm]
    """
    counted = protein.has_atom.clone()
    counted[:, CA] = False
    squares = (positions - nearer_names(positions, true, tables)).square().sum(-1)
    return squares[:, counted].mean(1).sqrt()
