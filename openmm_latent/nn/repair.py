"""Repair all-atom structures that a network drew: bonds, angles, peptide planes, hands, and contacts, by fixed sweeps.

What does not fit - bonds, angles and the planes of peptide bonds that a network stretched, and atoms that came too
close - is put right by sweeps over all distances with bounds: every atom moves by the mean of what its distances ask
for, with momentum. The number of sweeps is fixed, and all is done for all atoms and frames at once.

| symbol | variable |
|---|---|
| distances of bonds, angles and peptide planes, as in the reference structure | `pairs`, `lengths` |
| volumes that the bonds of an atom with three of them span, zero in a plane | `centres`, `volumes` |
| least distance of two atoms more than three bonds apart: the sum of their radii | `radii` [nm] |

Source of the sweeps: position-based dynamics, M. Müller et al., J. Vis. Commun. Image Represent. 18, 109 (2007), there
one distance after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.errors import require
from openmm_latent.topology import AtomRecord

#: Half the least distance of heavy atoms that are not bonded, their hydrogens included [nm]: N and O may share one.
#: Of sums of two, MD at 300 K goes below in one pair per 30 residues or fewer: larger ones would move sound frames.
_RADII = {"C": 0.158, "N": 0.132, "O": 0.128, "S": 0.163, "SE": 0.168}
_OTHER_RADIUS = 0.15
FAR = 1e3  # nm: no bound
#: What the distances over a peptide bond differ by, at least, between its cis and its trans form [nm].
FLIPPED = 0.05


class Repair(nn.Module):
    """Put distances of a protein's heavy atoms right.

    Parameters
    ----------
    atoms : sequence of AtomRecord
        (n_atoms,) the model atoms.
    bonds : array of int
        (n_bonds, 2) between model atoms.
    cas : array of int
        (n_residues,) the Cα atoms, which stay near where they should go.
    reference : array
        (n_atoms, 3) [nm], the structure whose bond lengths and angles are kept.
    n_sweeps : int

    Raises
    ------
    LatentError
        The shapes disagree.
    """

    __constants__ = ("far", "flipped", "n_atoms", "n_sweeps")

    def __init__(
        self, atoms: Sequence[AtomRecord], bonds: np.ndarray, cas: np.ndarray, reference: np.ndarray, n_sweeps: int = 80
    ):
        super().__init__()
        self.n_atoms, self.n_sweeps = len(atoms), n_sweeps
        self.far, self.flipped = FAR, FLIPPED
        reference = np.asarray(reference, dtype=np.float64)
        bonds = np.asarray(bonds, dtype=np.int64).reshape(-1, 2)
        require(
            reference.shape == (self.n_atoms, 3),
            f"reference must have shape (n_atoms={self.n_atoms}, 3) [nm], got {reference.shape}; give the model atoms",
        )
        self.register_buffer("cas", torch.tensor(np.asarray(cas)))
        self._set_pairs(atoms, bonds, reference)
        radii = [_RADII.get(atom.element.upper(), _OTHER_RADIUS) for atom in atoms]
        self.register_buffer("radii", torch.tensor(radii, dtype=torch.float64))

    def _set_pairs(self, atoms: Sequence[AtomRecord], bonds: np.ndarray, reference: np.ndarray) -> None:
        """Note the distances that are kept, and the pairs too close in bonds to repel each other."""
        neighbours = neighbours_of(bonds, self.n_atoms)
        kept = {tuple(sorted(bond)) for bond in bonds.tolist()}
        kept |= {tuple(sorted(pair)) for near in neighbours for pair in _all_pairs(near)}
        centres = [(atom, *sorted(near)[:3]) for atom, near in enumerate(neighbours) if len(near) >= 3]
        for carbon, nitrogen in _peptide_bonds(atoms, bonds):
            for a in sorted(neighbours[carbon] - {nitrogen}):
                for b in sorted(neighbours[nitrogen] - {carbon, a}):
                    kept.add((min(a, b), max(a, b)))
                    centres.append((carbon, a, nitrogen, b))
        pairs = np.array(sorted(kept), dtype=np.int64).reshape(-1, 2)
        lengths = np.linalg.norm(reference[pairs[:, 0]] - reference[pairs[:, 1]], axis=1)
        self.register_buffer("pairs", torch.tensor(pairs))
        self.register_buffer("lengths", torch.tensor(lengths))
        self.register_buffer("centres", torch.tensor(np.array(centres, dtype=np.int64).reshape(-1, 4)))
        volumes, _ = spanned(torch.tensor(reference), self.centres)
        self.register_buffer("volumes", volumes)
        bonded = _within_three_bonds(neighbours)
        self.register_buffer("bonded", torch.tensor(np.sort(bonded @ [self.n_atoms, 1])))

    def repair(self, placed: Tensor, targets: Tensor, positions: Tensor) -> Tensor:
        """Return atoms at distances that bonds, angles, peptide planes and contacts allow.

        Parameters
        ----------
        placed : Tensor
            (b, n_atoms, 3) [nm], double precision
        targets : Tensor
            (b, n_residues, 3) [nm] where the Cα atoms should go
        positions : Tensor
            (b, n_atoms, 3) [nm], the frame before: what is cis there stays so, and what is close may stay as close

        Returns
        -------
        Tensor
            (b, n_atoms, 3) [nm]
        """
        n_batch = placed.shape[0]
        kept, centres = flat_pairs(self.pairs, n_batch, self.n_atoms), flat_pairs(self.centres, n_batch, self.n_atoms)
        lengths = own_lengths(positions.reshape(-1, 3), kept, self.lengths.repeat(n_batch), self.flipped)
        volumes = self.volumes.repeat(n_batch)
        moved, previous = placed.reshape(-1, 3), placed.reshape(-1, 3)
        cas = (self.cas + self.n_atoms * torch.arange(n_batch, device=placed.device).unsqueeze(1)).flatten()
        goal = targets.reshape(-1, 3)
        pairs, least, most = kept, lengths, lengths
        for sweep in range(self.n_sweeps):
            if sweep % 20 == 0:
                close, nearest = contacts(moved.view(n_batch, -1, 3), positions, self.radii, self.bonded)
                pairs, least = torch.cat([kept, close]), torch.cat([lengths, nearest])
                most = torch.cat([lengths, torch.full_like(nearest, self.far)])
            step = corrections(moved, pairs, least, most) + reshaped(moved, centres, volumes)
            ahead = moved + 0.7 * (moved - previous) + step
            if 2 * sweep < self.n_sweeps:  # then bonds have the last word
                ahead = ahead.index_add(0, cas, 0.2 * (goal - moved.index_select(0, cas)))
            previous = moved
            moved = ahead
        return moved.view(n_batch, self.n_atoms, 3)


def contacts(points: Tensor, before: Tensor, reaches: Tensor, apart: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Return pairs of the flattened points that are, or may come, too close, and how close they may be.

    What was closer in the frame before may stay as close.

    Parameters
    ----------
    points, before : Tensor, (b, n_points, 3) [nm]
    reaches : Tensor, (n_points,) [nm]
        A pair may be as close as the sum of two.
    apart : Tensor of int, sorted
        first * n_points + second, first < second, of pairs that do not count.

    Returns
    -------
    pairs : Tensor of int, (n_pairs, 2)
    nearest : Tensor, (n_pairs,) [nm]
    """
    n_points = points.shape[1]
    most = 2.0 * float(reaches.max()) + 0.05
    pairs: List[Tensor] = []  # noqa: UP006
    nearest: List[Tensor] = []  # noqa: UP006
    for frame in range(points.shape[0]):
        for start in range(0, n_points, 256):  # so that memory stays linear in the points
            rows = points[frame, start : start + 256]
            found = torch.nonzero(torch.cdist(rows, points[frame], compute_mode="donot_use_mm_for_euclid_dist") < most)
            first, second = found[:, 0] + start, found[:, 1]
            counts = (first < second) & ~torch.isin(first * n_points + second, apart)
            first, second = first[counts], second[counts]
            now = torch.linalg.vector_norm(before[frame, first] - before[frame, second], dim=1)
            nearest.append(torch.minimum(reaches[first] + reaches[second], now))
            pairs.append(torch.stack([first, second], dim=1) + frame * n_points)
    return torch.cat(pairs), torch.cat(nearest)


def flat_pairs(pairs: Tensor, n_batch: int, n_points: int) -> Tensor:
    """Return pairs (or fours), (n_pairs, 2), of every frame's points in one row: (n_batch n_pairs, 2)."""
    offsets = n_points * torch.arange(n_batch, device=pairs.device).view(-1, 1, 1)
    return (pairs.unsqueeze(0) + offsets).view(-1, pairs.shape[1])


def own_lengths(points: Tensor, pairs: Tensor, lengths: Tensor, flipped: float) -> Tensor:
    """Return lengths of pairs, (n_pairs,) [nm], but those that points have where these differ by more than `flipped`.

    No bond or angle does; a peptide bond does that is cis in one and trans in the other.
    """
    between = points.index_select(0, pairs[:, 0]) - points.index_select(0, pairs[:, 1])
    found = torch.linalg.vector_norm(between, dim=1)
    return torch.where((found - lengths).abs() > flipped, found, lengths)


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
    # a bound counts by and by once it is passed by 1 pm: rounding must not decide which ones do
    share = torch.where(least == most, torch.ones_like(excess), (1e3 * excess.abs()).clamp(max=1.0))
    counts = torch.zeros_like(points[:, 0]).index_add(0, first, share).index_add(0, second, share)
    return 1.5 * moves / counts.clamp(min=1.5).unsqueeze(1)


def spanned(points: Tensor, centres: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Return the volume that the arms of a centre span, with its sign, and how it changes with each end.

    Parameters
    ----------
    points : Tensor, (n_points, 3) [nm]
    centres : Tensor of int, (n_centres, 4)
        A point, and the ends of its three arms.

    Returns
    -------
    volumes : Tensor, (n_centres,) [nm^3]
    slopes : Tensor, (n_centres, 4, 3) [nm^2]
    """
    corners = points.index_select(0, centres.flatten()).view(-1, 4, 3)
    arms = corners[:, 1:] - corners[:, :1]
    slopes = torch.linalg.cross(arms.roll(-1, dims=1), arms.roll(-2, dims=1))
    volumes = (arms[:, 0] * slopes[:, 0]).sum(dim=1)
    return volumes, torch.cat([-slopes.sum(dim=1, keepdim=True), slopes], dim=1)


def reshaped(points: Tensor, centres: Tensor, volumes: Tensor) -> Tensor:
    """Return how each point moves, half way, to give centres their volumes: no hand changes, and planes stay planes.

    Parameters
    ----------
    points : Tensor, (n_points, 3) [nm]
    centres : Tensor of int, (n_centres, 4)
    volumes : Tensor, (n_centres,) [nm^3]

    Returns
    -------
    Tensor, (n_points, 3) [nm]
    """
    found, slopes = spanned(points, centres)
    pull = (volumes - found) / slopes.square().sum(dim=2).sum(dim=1).clamp(min=1e-12)
    return torch.zeros_like(points).index_add(0, centres.flatten(), (0.3 * pull.view(-1, 1, 1) * slopes).view(-1, 3))


def neighbours_of(bonds: np.ndarray, n_atoms: int) -> list[set[int]]:
    """Return the atoms that each is bonded to."""
    neighbours: list[set[int]] = [set() for _ in range(n_atoms)]
    for first, second in bonds.tolist():
        neighbours[first].add(second)
        neighbours[second].add(first)
    return neighbours


def _all_pairs(atoms: set[int]) -> list[tuple[int, int]]:
    return [(a, b) for a in atoms for b in atoms if a < b]


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
    """Return pairs (first, second), first < second, of atoms at most three bonds apart: (n_pairs, 2)."""
    found = set()
    for atom, near in enumerate(neighbours):
        second = set().union(*(neighbours[j] for j in near))
        third = set().union(*(neighbours[j] for j in second))
        found |= {(atom, other) for other in near | second | third if other > atom}
    return np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
