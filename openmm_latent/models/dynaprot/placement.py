"""From where the Cα atoms go to where all heavy atoms go: residues as rigid bodies, then repaired.

Each residue turns as its Cα neighbours do and keeps the conformation that its side chain has in the current frame; the
atoms of a peptide bond are carried by both its residues. What then does not fit - bonds, angles and the planes of
peptide bonds stretched by a Gaussian that knows none of them, and atoms that came too close - is put right by sweeps
over all distances with bounds: every atom moves by the mean of what its distances ask for, with momentum. The number
of sweeps is fixed, and all is done for all atoms and frames at once.

| symbol | variable |
|---|---|
| distances of bonds, angles and peptide planes, as in the reference structure | `pairs`, `lengths` |
| distances of Cα atoms: neighbours, next neighbours, others | `chain_pairs`, `chain_least`, `chain_most` |
| least distance of two atoms more than three bonds apart: the sum of their radii | `radii` [nm] |

DISCREPANCY(paper): the paper ends at Cα atoms; this is ours. Source of the sweeps: position-based dynamics, M. Müller
et al., J. Vis. Commun. Image Represent. 18, 109 (2007), there one distance after another.

A second way to all atoms, the `backmap` of a CODLAD bundle, would take what `chain_targets` returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.errors import require
from openmm_latent.nn.superposition import Superposition
from openmm_latent.topology import AtomRecord

#: Half the least distance of heavy atoms that are not bonded, their hydrogens included [nm]: N and O may share one.
_RADII = {"C": 0.170, "N": 0.142, "O": 0.138, "S": 0.175, "SE": 0.18}
_OTHER_RADIUS = 0.16
#: Distances of the Cα atoms of next neighbours, from the tightest turn to the stretched strand, and of others [nm].
_NEXT_CA = (0.49, 0.735)
_LEAST_CA = 0.40
#: Weights of the first and second neighbours along the chain in a residue's rotation.
_WINDOW = {-2: 0.5, -1: 1.0, 1: 1.0, 2: 0.5}
#: Makes the rotation of too few neighbours the smallest one that fits [nm^2].
_STAY = 1e-4
_FAR = 1e3  # nm: no bound


class Placement(nn.Module):
    """Move all heavy atoms of a protein with its Cα atoms.

    Parameters
    ----------
    atoms : sequence of AtomRecord
        (n_atoms,) the model atoms.
    bonds : array of int
        (n_bonds, 2) between model atoms.
    residues : sequence of dict
        For each Cα atom, in order, name -> model atom of its residue; "N", "CA" and "C" among them.
    reference : array
        (n_atoms, 3) [nm], the structure whose bond lengths and angles are kept.
    n_sweeps : int
        Of the repair.

    Raises
    ------
    LatentError
        An atom hangs by no bonds on any residue, or the shapes disagree.
    """

    __constants__ = ("far", "n_atoms", "n_chain_sweeps", "n_residues", "n_sweeps", "stay")

    def __init__(
        self,
        atoms: Sequence[AtomRecord],
        bonds: np.ndarray,
        residues: Sequence[dict[str, int]],
        reference: np.ndarray,
        n_sweeps: int = 80,
    ):
        super().__init__()
        self.n_atoms, self.n_residues = len(atoms), len(residues)
        self.n_sweeps, self.n_chain_sweeps = n_sweeps, 40
        self.far, self.stay = _FAR, _STAY
        reference = np.asarray(reference, dtype=np.float64)
        bonds = np.asarray(bonds, dtype=np.int64).reshape(-1, 2)
        require(
            reference.shape == (self.n_atoms, 3),
            f"reference must have shape (n_atoms={self.n_atoms}, 3) [nm], got {reference.shape}; give the model atoms",
        )
        self.superposition = Superposition()
        cas = np.array([residue["CA"] for residue in residues])
        self.register_buffer("cas", torch.tensor(cas))
        follows = _followers(residues, bonds)  # (n_residues,)
        self._set_window(follows)
        self._set_carriers(residues, bonds, follows)
        self._set_chain(follows, reference[cas])
        self._set_pairs(atoms, bonds, reference)
        radii = [_RADII.get(atom.element.upper(), _OTHER_RADIUS) for atom in atoms]
        self.register_buffer("radii", torch.tensor(radii, dtype=torch.float64))

    def _set_window(self, follows: np.ndarray) -> None:
        """Note each residue's neighbours along the chain and their weights: (n_residues, 4)."""
        window = np.tile(np.arange(self.n_residues)[:, None], (1, len(_WINDOW)))
        weights = np.zeros(window.shape)
        for column, (offset, weight) in enumerate(_WINDOW.items()):
            for residue in range(self.n_residues):
                other = residue + offset
                low, high = min(residue, other), max(residue, other)
                if low >= 0 and high < self.n_residues and follows[low + 1 : high + 1].all():
                    window[residue, column], weights[residue, column] = other, weight
        self.register_buffer("window", torch.tensor(window))
        self.register_buffer("window_weights", torch.tensor(weights))

    def _set_carriers(self, residues: Sequence[dict[str, int]], bonds: np.ndarray, follows: np.ndarray) -> None:
        """Note the two residues that carry each atom, and the share of the second: (n_atoms, 2), (n_atoms,)."""
        owner = _owners(residues, bonds, self.n_atoms)
        carriers = np.stack([owner, owner], axis=1)
        share = np.zeros(self.n_atoms)
        for residue in np.flatnonzero(follows):
            before = residues[residue - 1]
            for name in ("C", "O", "OXT"):
                if name in before:
                    carriers[before[name], 1], share[before[name]] = residue, 1 / 3
            here = residues[residue]["N"]
            carriers[here, 1], share[here] = residue - 1, 1 / 3
        self.register_buffer("carriers", torch.tensor(carriers))
        self.register_buffer("second_share", torch.tensor(share))

    def _set_chain(self, follows: np.ndarray, cas: np.ndarray) -> None:
        """Note bounds on distances of Cα atoms: all pairs, (n_pairs, 2) and (n_pairs,) [nm]."""
        pairs, bounds = [], []
        for first in range(self.n_residues):
            for second in range(first + 1, self.n_residues):
                length = float(np.linalg.norm(cas[first] - cas[second]))
                is_linked = bool(follows[first + 1 : second + 1].all())
                if is_linked and second == first + 1:
                    bounds.append((length, length))
                elif is_linked and second == first + 2:
                    bounds.append((min(_NEXT_CA[0], length), max(_NEXT_CA[1], length)))
                else:
                    bounds.append((min(_LEAST_CA, length), _FAR))
                pairs.append((first, second))
        self.register_buffer("chain_pairs", torch.tensor(np.array(pairs, dtype=np.int64).reshape(-1, 2)))
        limits = torch.tensor(np.array(bounds, dtype=np.float64).reshape(-1, 2))
        self.register_buffer("chain_least", limits[:, 0].clone())
        self.register_buffer("chain_most", limits[:, 1].clone())

    def _set_pairs(self, atoms: Sequence[AtomRecord], bonds: np.ndarray, reference: np.ndarray) -> None:
        """Note the distances that are kept, and the pairs too close in bonds to repel each other."""
        neighbours = _neighbours(bonds, self.n_atoms)
        kept = {tuple(sorted(bond)) for bond in bonds.tolist()}
        kept |= {tuple(sorted(pair)) for near in neighbours for pair in _all_pairs(near)}
        for carbon, nitrogen in _peptide_bonds(atoms, bonds):
            kept |= {
                tuple(sorted((a, b)))
                for a in neighbours[carbon] - {nitrogen}
                for b in neighbours[nitrogen] - {carbon}
                if a != b
            }
        pairs = np.array(sorted(kept), dtype=np.int64).reshape(-1, 2)
        lengths = np.linalg.norm(reference[pairs[:, 0]] - reference[pairs[:, 1]], axis=1)
        self.register_buffer("pairs", torch.tensor(pairs))
        self.register_buffer("lengths", torch.tensor(lengths))
        excluded = _within_three_bonds(neighbours)
        self.register_buffer("excluded", torch.tensor(excluded))

    def forward(self, shifts: Tensor, positions: Tensor) -> Tensor:
        """Move a frame's atoms with its Cα atoms.

        Parameters
        ----------
        shifts : Tensor
            (b, n_residues, 3) [nm], how far the Cα atoms should go; double precision.
        positions : Tensor
            (b, n_atoms, 3) [nm], the current frame, in the same axes; double precision.

        Returns
        -------
        Tensor
            (b, n_atoms, 3) [nm], double precision
        """
        before = positions.index_select(1, self.cas)
        targets = self.chain_targets(before + shifts)
        placed = self.carry(positions, before, targets)
        return self.repair(placed, targets, positions)

    def chain_targets(self, targets: Tensor) -> Tensor:
        """Return Cα atoms near those asked for at distances that a chain can have: (b, n_residues, 3) [nm]."""
        n_batch = targets.shape[0]
        pairs = flat_pairs(self.chain_pairs, n_batch, self.n_residues)
        least, most = self.chain_least.repeat(n_batch), self.chain_most.repeat(n_batch)
        moved = targets.reshape(-1, 3)
        for _ in range(self.n_chain_sweeps):
            moved = moved + corrections(moved, pairs, least, most)
        return moved.view(n_batch, self.n_residues, 3)

    def carry(self, positions: Tensor, before: Tensor, targets: Tensor) -> Tensor:
        """Return the atoms carried by their residues as rigid bodies: (b, n_atoms, 3) [nm]."""
        n_batch, n_residues = before.shape[0], self.n_residues
        arms = before.index_select(1, self.window.flatten()).view(n_batch, n_residues, -1, 3) - before.unsqueeze(2)
        ends = targets.index_select(1, self.window.flatten()).view(n_batch, n_residues, -1, 3) - targets.unsqueeze(2)
        products = torch.matmul((arms * self.window_weights.unsqueeze(2)).transpose(2, 3), ends)
        products = products + self.stay * torch.eye(3, dtype=products.dtype, device=products.device)
        rotations = self.superposition.best(products.reshape(-1, 9)).view(n_batch, n_residues, 3, 3)
        first = self.carried_by(self.carriers[:, 0], positions, before, targets, rotations)
        second = self.carried_by(self.carriers[:, 1], positions, before, targets, rotations)
        return first + self.second_share.unsqueeze(1) * (second - first)

    def carried_by(
        self, residues: Tensor, positions: Tensor, before: Tensor, targets: Tensor, rotations: Tensor
    ) -> Tensor:
        """Return each atom as one residue, (n_atoms,), carries it: (b, n_atoms, 3) [nm]."""
        arms = (positions - before.index_select(1, residues)).unsqueeze(2)  # (b, n_atoms, 1, 3)
        turned = torch.matmul(arms, rotations.index_select(1, residues)).squeeze(2)
        return turned + targets.index_select(1, residues)

    def repair(self, placed: Tensor, targets: Tensor, positions: Tensor) -> Tensor:
        """Return the atoms at distances that bonds, angles, peptide planes and contacts allow: (b, n_atoms, 3) [nm]."""
        n_batch = placed.shape[0]
        kept = flat_pairs(self.pairs, n_batch, self.n_atoms)
        lengths = self.lengths.repeat(n_batch)
        moved, previous = placed.reshape(-1, 3), placed.reshape(-1, 3)
        cas = (self.cas + self.n_atoms * torch.arange(n_batch, device=placed.device).unsqueeze(1)).flatten()
        goal = targets.reshape(-1, 3)
        pairs, least, most = kept, lengths, lengths
        for sweep in range(self.n_sweeps):
            if sweep % 20 == 0:
                close, nearest = self.contacts(moved.view(n_batch, self.n_atoms, 3), positions)
                pairs = torch.cat([kept, close])
                least = torch.cat([lengths, nearest])
                most = torch.cat([lengths, torch.full_like(nearest, self.far)])
            step = corrections(moved, pairs, least, most)
            ahead = moved + 0.7 * (moved - previous) + step
            if 2 * sweep < self.n_sweeps:  # then bonds have the last word
                ahead = ahead.index_add(0, cas, 0.2 * (goal - moved.index_select(0, cas)))
            previous = moved
            moved = ahead
        return moved.view(n_batch, self.n_atoms, 3)

    def contacts(self, placed: Tensor, positions: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Return pairs of the flattened atoms that are, or may come, too close, and how close they may be.

        What was closer in the current frame may stay as close.
        """
        pairs: List[Tensor] = []  # noqa: UP006
        nearest: List[Tensor] = []  # noqa: UP006
        sums = self.radii.unsqueeze(1) + self.radii
        sums = sums.index_put((self.excluded[:, 0], self.excluded[:, 1]), torch.zeros_like(self.radii[:1]))
        for frame in range(placed.shape[0]):
            distances = torch.cdist(placed[frame : frame + 1], placed[frame : frame + 1])[0]
            found = torch.nonzero(torch.triu(distances < sums + 0.05 * (sums > 0).to(sums.dtype), 1))
            first, second = found[:, 0], found[:, 1]
            allowed = sums[first, second]
            between = positions[frame].index_select(0, first) - positions[frame].index_select(0, second)
            now = torch.linalg.vector_norm(between, dim=1)
            keep = allowed > 0
            pairs.append(found[keep] + frame * self.n_atoms)
            nearest.append(torch.minimum(allowed, now)[keep])
        return torch.cat(pairs), torch.cat(nearest)


def flat_pairs(pairs: Tensor, n_batch: int, n_points: int) -> Tensor:
    """Return pairs, (n_pairs, 2), of every frame's points in one row: (n_batch n_pairs, 2)."""
    offsets = n_points * torch.arange(n_batch, device=pairs.device).view(-1, 1, 1)
    return (pairs.unsqueeze(0) + offsets).view(-1, 2)


def corrections(points: Tensor, pairs: Tensor, least: Tensor, most: Tensor) -> Tensor:
    """Return how each point moves to bring the distances of pairs within bounds: the mean of what they ask for.

    Parameters
    ----------
    points : Tensor, (n_points, 3) [nm]
    pairs : Tensor of int, (n_pairs, 2)
    least, most : Tensor, (n_pairs,) [nm]

    Returns
    -------
    Tensor, (n_points, 3) [nm]
    """
    first, second = pairs[:, 0], pairs[:, 1]
    between = points.index_select(0, first) - points.index_select(0, second)
    distances = torch.linalg.vector_norm(between, dim=1).clamp(min=1e-6)
    excess = distances - torch.minimum(torch.maximum(distances, least), most)
    pull = between * (0.5 * excess / distances).unsqueeze(1)
    moves = torch.zeros_like(points).index_add(0, first, -pull).index_add(0, second, pull)
    is_active = (excess != 0).to(points.dtype)
    counts = torch.zeros_like(points[:, 0]).index_add(0, first, is_active).index_add(0, second, is_active)
    return 1.5 * moves / counts.clamp(min=1.5).unsqueeze(1)


def _neighbours(bonds: np.ndarray, n_atoms: int) -> list[set[int]]:
    neighbours: list[set[int]] = [set() for _ in range(n_atoms)]
    for first, second in bonds.tolist():
        neighbours[first].add(second)
        neighbours[second].add(first)
    return neighbours


def _all_pairs(atoms: set[int]) -> list[tuple[int, int]]:
    return [(a, b) for a in atoms for b in atoms if a < b]


def _followers(residues: Sequence[dict[str, int]], bonds: np.ndarray) -> np.ndarray:
    """Tell which residues hang by a peptide bond on the one before: (n_residues,)."""
    bonded = {tuple(sorted(bond)) for bond in bonds.tolist()}
    follows = np.zeros(len(residues), dtype=bool)
    for residue in range(1, len(residues)):
        follows[residue] = tuple(sorted((residues[residue - 1]["C"], residues[residue]["N"]))) in bonded
    return follows


def _owners(residues: Sequence[dict[str, int]], bonds: np.ndarray, n_atoms: int) -> np.ndarray:
    """Return the residue of each atom; for those of caps and the like, the residue nearest in bonds: (n_atoms,)."""
    neighbours = _neighbours(bonds, n_atoms)
    owner = np.full(n_atoms, -1)
    front = []
    for residue, atoms in enumerate(residues):
        for atom in atoms.values():
            owner[atom] = residue
            front.append(atom)
    while front:
        ahead = []
        for atom in front:
            for other in sorted(neighbours[atom]):
                if owner[other] < 0:
                    owner[other] = owner[atom]
                    ahead.append(other)
        front = ahead
    require(
        bool((owner >= 0).all()),
        f"every model atom must hang by bonds on a residue with N, CA and C, but {int((owner < 0).sum())} of "
        f"{n_atoms} do not; leave ligands and ions out of the model",
    )
    return owner


def _peptide_bonds(atoms: Sequence[AtomRecord], bonds: np.ndarray) -> list[tuple[int, int]]:
    """Return carbon and nitrogen of every bond of the two between residues, caps included."""
    found = []
    for bond in bonds.tolist():
        first, second = sorted(bond, key=lambda atom: atoms[atom].element)  # C before N
        one, other = atoms[first], atoms[second]
        is_between = (one.chain, one.residue_index) != (other.chain, other.residue_index)
        if is_between and (one.element, other.element) == ("C", "N"):
            found.append((first, second))
    return found


def _within_three_bonds(neighbours: list[set[int]]) -> np.ndarray:
    """Return pairs (first, second), both ways, of atoms at most three bonds apart: (n_pairs, 2)."""
    found = set()
    for atom, near in enumerate(neighbours):
        second = set().union(*(neighbours[j] for j in near)) if near else set()
        third = set().union(*(neighbours[j] for j in second)) if second else set()
        found |= {(atom, other) for other in near | second | third | {atom}}
    return np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
