"""Protein residues as networks see them: backbone atoms, types, chains, and a local frame for each residue."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from openmm import app

from openmm_latent.data.residues import PDB_NAMES
from openmm_latent.errors import require
from openmm_latent.nn.residue_geometry import RESIDUE_NAMES, UNKNOWN

N_RESIDUE_TYPES = UNKNOWN + 1
#: Other force fields' names of protonation states, which neither Amber's list nor pdbfixer's has.
_PROTONATED = {"HSD": "HIS", "HSE": "HIS", "HSP": "HIS", "CYSH": "CYS", "ASPP": "ASP", "GLUP": "GLU", "LSN": "LYS"}


@dataclass(frozen=True)
class Backbone:
    """The residues of a topology that have N, CA and C, in its order.

    Attributes
    ----------
    n, ca, c : ndarray of int
        (n_residues,) atom indices
    residue_types : ndarray of int
        (n_residues,) place in `RESIDUE_NAMES`; a protonation state or modified residue counts as its parent, a residue
        without one as `UNKNOWN`
    chains : ndarray of int
        (n_residues,) which chain, from 0, counting the chains of the topology
    residue_index : ndarray of int
        (n_residues,) place of the residue in the topology, from 0; neighbours in it may be far apart at a gap
    """

    n: np.ndarray
    ca: np.ndarray
    c: np.ndarray
    residue_types: np.ndarray
    chains: np.ndarray
    residue_index: np.ndarray

    def __len__(self) -> int:
        """Return the number of residues."""
        return len(self.ca)

    @property
    def atoms(self) -> np.ndarray:
        """(3 n_residues,) atom indices: N, CA and C of the first residue, then of the next."""
        return np.stack([self.n, self.ca, self.c], axis=1).reshape(-1)

    def frames(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each residue's local frame and Cα; see `residue_frames`.

        Parameters
        ----------
        positions : ndarray
            (..., n_atoms, 3) [nm], all atoms of the topology

        Returns
        -------
        rotations : ndarray
            (..., n_residues, 3, 3)
        ca : ndarray
            (..., n_residues, 3) [nm]
        """
        positions = np.asarray(positions, dtype=np.float64)
        n_atoms = int(max(self.n.max(), self.ca.max(), self.c.max())) + 1
        require(
            positions.ndim >= 2 and positions.shape[-1] == 3 and positions.shape[-2] >= n_atoms,
            f"positions must have shape (..., n_atoms >= {n_atoms}, 3) [nm], got {positions.shape}; pass all atoms of "
            f"the topology that the backbone was read from",
        )
        n, ca, c = (positions[..., chosen, :] for chosen in (self.n, self.ca, self.c))
        return residue_frames(n, ca, c), ca


def residue_frames(n: np.ndarray, ca: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return right-handed frames whose columns are the axes: CA to C, N's part across it, and their cross product.

    Parameters
    ----------
    n, ca, c : ndarray
        (..., n_residues, 3) [nm]

    Returns
    -------
    ndarray
        (..., n_residues, 3, 3); a vector v of the local frame is R v in the common one

    Raises
    ------
    LatentError
        The three atoms of a residue lie on one line.

    Source: Jumper et al., Nature 596, 583 (2021), supplement, algorithm 21.
    """
    to_c, to_n = c - ca, n - ca
    length = np.linalg.norm(to_c, axis=-1, keepdims=True)
    first = to_c / np.maximum(length, 1e-12)
    across = to_n - (first * to_n).sum(axis=-1, keepdims=True) * first
    height = np.linalg.norm(across, axis=-1, keepdims=True)
    is_flat = ((length < 1e-6) | (height < 1e-6))[..., 0]
    require(
        not is_flat.any(),
        f"positions have N, CA and C on one line in residue {int(np.argwhere(is_flat)[0][-1]) if is_flat.any() else 0} "
        f"of the backbone, which then has no frame; repair the structure",
    )
    second = across / height
    return np.stack([first, second, np.cross(first, second)], axis=-1)


def read_backbone(topology: app.Topology) -> Backbone:
    """Find the protein residues of a topology; caps, ligands, ions, water and incomplete residues are left out.

    Parameters
    ----------
    topology : openmm.app.Topology
        Any number of chains.

    Returns
    -------
    Backbone

    Raises
    ------
    LatentError
        No residue has all of N, CA and C; the sentence tells a Cα trace from a system without protein.
    """
    found, n_traced = [], 0
    for number, chain in enumerate(topology.chains()):
        for residue in chain.residues():
            atoms = {atom.name: atom.index for atom in residue.atoms()}
            if atoms.keys() >= {"N", "CA", "C"}:
                found.append((atoms["N"], atoms["CA"], atoms["C"], residue_type(residue.name), number, residue.index))
            else:
                n_traced += residue_type(residue.name) != UNKNOWN and "CA" in atoms
    require(
        len(found) > 0 or n_traced == 0,
        f"topology has only the Cα atoms of {n_traced} residues, and a residue's frame needs N, CA and C; rebuild the "
        f"backbone, or give the file that has it",
    )
    require(len(found) > 0, "topology has no residue with atoms N, CA and C; give a structure of a protein")
    return Backbone(*np.array(found, dtype=np.int64).T)


def residue_type(name: str) -> int:
    """Return the place of a residue's name, or of its parent's, in `RESIDUE_NAMES`; `UNKNOWN` where there is none."""
    name = name.strip().upper()
    kind = _TYPES.get(PDB_NAMES.get(name, _PROTONATED.get(name, _parents().get(name, name))), UNKNOWN)
    # Amber's names at the ends of chains: NALA, CHIE
    return residue_type(name[1:]) if kind == UNKNOWN and len(name) == 4 and name[0] in "NC" else kind


_TYPES = {name: number for number, name in enumerate(RESIDUE_NAMES)}


@lru_cache(maxsize=1)
def _parents() -> dict[str, str]:
    """Return pdbfixer's list of modified residues and the standard ones that they were made from."""
    from pdbfixer.pdbfixer import substitutions

    return dict(substitutions)
