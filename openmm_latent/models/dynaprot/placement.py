"""From where the Cα atoms go to where all heavy atoms go: residues as rigid bodies, then repaired.

Each residue turns as its Cα neighbours do and keeps the conformation that its side chain has in the current frame; the
atoms of a peptide bond are carried by both its residues. What then does not fit - bonds, angles and the planes of
peptide bonds stretched by a Gaussian that knows none of them, and atoms that came too close - is put right by
`openmm_latent.nn.repair`, and so are Cα distances before.

| symbol | variable |
|---|---|
| distances of the Cα atoms of neighbours and next neighbours | `chain_pairs`, `chain_least`, `chain_most` |

DISCREPANCY(paper): the paper ends at Cα atoms; this is ours.

A second way to all atoms, the `backmap` of another bundle, takes what `chain_targets` returns; see `backmapped`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from openmm_latent.errors import require
from openmm_latent.nn.repair import Repair, contacts, corrections, flat_pairs, neighbours_of, own_lengths
from openmm_latent.nn.superposition import Superposition
from openmm_latent.topology import AtomRecord

#: Distances of the Cα atoms of next neighbours, from the tightest turn to the stretched strand, and of others [nm].
_NEXT_CA = (0.49, 0.735)
_LEAST_CA = 0.40
#: Weights of the first and second neighbours along the chain in a residue's rotation.
_WINDOW = {-2: 0.5, -1: 1.0, 1: 1.0, 2: 0.5}
#: Makes the rotation of too few neighbours the smallest one that fits [nm^2].
_STAY = 1e-4


class Placement(Repair):
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
        cas = np.array([residue["CA"] for residue in residues])
        super().__init__(atoms, bonds, cas, reference, n_sweeps)
        self.n_residues, self.n_chain_sweeps = len(residues), 40
        self.stay, self.least_ca = _STAY, _LEAST_CA
        bonds = np.asarray(bonds, dtype=np.int64).reshape(-1, 2)
        self.superposition = Superposition()
        follows = _followers(residues, bonds)  # (n_residues,)
        self._set_window(follows)
        self._set_carriers(residues, bonds, follows)
        self._set_chain(follows, np.asarray(reference, dtype=np.float64)[cas])

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
    neighbours = neighbours_of(bonds, n_atoms)
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
