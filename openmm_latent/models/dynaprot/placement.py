"""From where the Cα atoms go to where all heavy atoms go: residues as rigid bodies, then repaired.

Each residue turns as its Cα neighbours do and keeps the conformation that its side chain has in the current frame; the
atoms of a peptide bond are carried by both its residues. What then does not fit - bonds, angles and the planes of
peptide bonds stretched by a Gaussian that knows none of them, and atoms that came too close - is put right by sweeps
over all distances with bounds: every atom moves by the mean of what its distances ask for, with momentum. The number
of sweeps is fixed, and all is done for all atoms and frames at once.

| symbol | variable |
|---|---|
| distances of bonds, angles and peptide planes, as in the reference structure | `pairs`, `lengths` |
| distances of the Cα atoms of neighbours and next neighbours | `chain_pairs`, `chain_least`, `chain_most` |
| volumes that the bonds of an atom with three of them span, zero in a plane | `centres`, `volumes` |
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
#: What the distances over a peptide bond differ by, at least, between its cis and its trans form [nm].
_FLIPPED = 0.05


class Placement(nn.Module):
    """Move all heavy atoms of a protein with its Cα atoms.

    Parameters
    ----------
    atoms : sequence of AtomRecord
        (n_atoms,) the model atoms.
    bonds : array of int
        (n_bonds, 2) between model atoms.
    residues : sequence of dict
        For each Cα atom, in order, name -> model atom of its residue: "CA", and for what a chain should hold together
        "N" and "C", too.
    reference : array
        (n_atoms, 3) [nm], the structure whose bond lengths and angles are kept.
    n_sweeps : int
        Of the repair.

    Raises
    ------
    LatentError
        An atom hangs by no bonds on any residue, or the shapes disagree.
    """

    __constants__ = ("far", "flipped", "least_ca", "n_atoms", "n_chain_sweeps", "n_residues", "n_sweeps", "stay")

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
        self.far, self.stay, self.least_ca, self.flipped = _FAR, _STAY, _LEAST_CA, _FLIPPED
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
        """Note bounds on distances of Cα atoms linked over one or two bonds: (n_pairs, 2) and (n_pairs,) [nm]."""
        pairs, bounds = [], []
        for second in range(1, self.n_residues):
            for first in range(max(0, second - 2), second):
                if follows[first + 1 : second + 1].all():
                    length = float(np.linalg.norm(cas[first] - cas[second]))
                    pairs.append((first, second))
                    is_next = second == first + 1
                    bounds.append((length, length) if is_next else (min(_NEXT_CA[0], length), max(_NEXT_CA[1], length)))
        found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        limits = torch.tensor(np.array(bounds, dtype=np.float64).reshape(-1, 2))
        self.register_buffer("chain_pairs", torch.tensor(found))
        self.register_buffer("chain_least", limits[:, 0].clone())
        self.register_buffer("chain_most", limits[:, 1].clone())
        self.register_buffer("linked", torch.tensor(np.sort(found @ [self.n_residues, 1])))

    def _set_pairs(self, atoms: Sequence[AtomRecord], bonds: np.ndarray, reference: np.ndarray) -> None:
        """Note the distances that are kept, and the pairs too close in bonds to repel each other."""
        neighbours = _neighbours(bonds, self.n_atoms)
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
        targets = self.chain_targets(before, shifts)
        return self.repair(self.carry(positions, before, targets), targets, positions)

    def chain_targets(self, before: Tensor, shifts: Tensor) -> Tensor:
        """Return Cα atoms near `before + shifts` at distances that a chain can have: (b, n_residues, 3) [nm]."""
        n_batch = before.shape[0]
        linked = flat_pairs(self.chain_pairs, n_batch, self.n_residues)
        least, most = self.chain_least.repeat(n_batch), self.chain_most.repeat(n_batch)
        own = own_lengths(before.reshape(-1, 3), linked, least, self.flipped)
        least, most = torch.where(least == most, own, least), torch.where(least == most, own, most)
        reaches = torch.full_like(before[0, :, 0], 0.5 * self.least_ca)
        moved = (before + shifts).reshape(-1, 3)
        pairs, lowest, highest = linked, least, most
        for sweep in range(self.n_chain_sweeps):
            if sweep % 20 == 0:
                close, nearest = contacts(moved.view(n_batch, -1, 3), before, reaches, self.linked)
                pairs, lowest = torch.cat([linked, close]), torch.cat([least, nearest])
                highest = torch.cat([most, torch.full_like(nearest, self.far)])
            moved = moved + corrections(moved, pairs, lowest, highest)
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
        carbon, nitrogen = residues[residue - 1].get("C", -1), residues[residue].get("N", -1)
        follows[residue] = tuple(sorted((carbon, nitrogen))) in bonded
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
        f"every model atom must hang by bonds on a residue with a Cα atom, but {int((owner < 0).sum())} of {n_atoms} "
        f"do not; leave ligands and ions out of the model",
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
    """Return pairs (first, second), first < second, of atoms at most three bonds apart: (n_pairs, 2)."""
    found = set()
    for atom, near in enumerate(neighbours):
        second = set().union(*(neighbours[j] for j in near))
        third = set().union(*(neighbours[j] for j in second))
        found |= {(atom, other) for other in near | second | third if other > atom}
    return np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
