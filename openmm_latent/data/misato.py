"""MISATO: protein-ligand complexes from the PDB, 100 frames each, all in one HDF5 file.

| path in the file | shape, unit | used |
|---|---|---|
| `<pdb>` | group, the PDB id in capitals | |
| `.../trajectory_coordinates` | (100, n_atoms, 3) [Å] | frames |
| `.../atoms_number` | (n_atoms,) atomic numbers | topology |
| `.../atoms_residue` | (n_atoms,) residue kinds, 0 the ligand | topology |
| `.../molecules_begin_atom_index` | (n_molecules,) the last one begins the ligand | topology |
| `.../atoms_coordinates_ref` | (n_atoms, 3) [Å] | reference, where there are no frames |
| `.../atoms_type`, `atoms_element` | (n_atoms,) | no |
| `.../frames_rmsd_ligand`, `frames_distance`, `frames_interaction_energy`, `frames_bSASA` | (100,) | no |

Names are recovered by `misato_topology`, which says what is lost. Water and ions were removed, and the file has neither
box nor times. ff14SB and GAFF in TIP3P at 300 K; 10 ns each, of which the last 8 ns are kept: a frame every 80 ps.
Source: `h5_to_pdb.py`, `preprocessing_db.py` and README of t7morgen/misato-dataset; Siebenmorgen et al., Nature
Computational Science 4 (2024) 367. Temperature and the 8 ns are from memory of the paper: `frame_spacing` overrides it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from openmm import app

from openmm_latent.data.datasets import Entry, Run
from openmm_latent.data.misato_topology import misato_topology
from openmm_latent.data.random_access import open_hdf5, read_dataset
from openmm_latent.data.readers import reading
from openmm_latent.errors import require

LICENCE = "CC BY 4.0 (MISATO, as its record at Zenodo says)"
FRAME_SPACING = 80.0  # [ps]
TEMPERATURE = 300.0  # [K]
#: What a group must hold to be a complex of MISATO.
MARKS = ("atoms_number", "atoms_residue", "molecules_begin_atom_index")
_FRAMES = "trajectory_coordinates"


@dataclass(frozen=True)
class MisatoEntry(Entry):
    """One complex of MISATO."""

    frame_spacing: float = FRAME_SPACING

    @property
    def protein(self) -> str:
        """The PDB id; the same protein with another ligand has another one: split by a table of clusters."""
        return self.name[:4].lower()

    @property
    def files(self) -> list[Path]:
        """The one file of all complexes."""
        return [self.path]

    @property
    def provenance(self) -> dict[str, str]:
        """What all of MISATO was made with."""
        return {"force_field": "ff14SB + GAFF2 + TIP3P"}

    @property
    def notes(self) -> list[str]:
        """What could not be recovered, and whether frames are absent."""
        notes = [f"{self.name}: {note}" for note in _recovered(self)[2]]
        with reading(self.path, "MISATO file"):
            if _FRAMES not in self._group():
                notes.append(f"{self.name}: the file holds no {_FRAMES}, only a reference structure")
        return notes

    @property
    def ligand(self) -> list[int]:
        """Atoms of residue kind 0, or else (a peptide) of the molecule that begins last, as in MISATO's MD.hdf5.

        A file made of proteins alone has no ligand, and then this is its last chain.
        """
        with reading(self.path, "MISATO file"):
            group = self._group()
            kinds, begins = group["atoms_residue"][()], group["molecules_begin_atom_index"][()]
        if np.any(kinds == 0):
            return [int(atom) for atom in np.flatnonzero(kinds == 0)]
        inside = [int(begin) for begin in begins if 0 < begin < len(kinds)]
        return list(range(max(inside), len(kinds))) if inside else []

    def read_structure(self) -> tuple[app.Topology, np.ndarray | None]:
        """Recover the topology; the reference is the first frame."""
        return _recovered(self)[:2]

    def list_runs(self) -> tuple[Run, ...]:
        """Return the one run, or none where the file holds only a reference structure."""
        n_atoms = self.topology.getNumAtoms()
        with reading(self.path, "MISATO file"):
            group = self._group()
            if _FRAMES not in group:
                return ()
            shape = group[_FRAMES].shape
        require(
            len(shape) == 3 and shape[1:] == (n_atoms, 3),
            f"MISATO file {self.path} has {_FRAMES} of shape {shape} in {self.name}, expected (n_frames, {n_atoms}, 3) "
            f"by its atoms_number; the file is damaged",
        )
        return (Run("md", int(shape[0]), self.frame_spacing, TEMPERATURE, self.path),)

    def read_frames(self, run: Run, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Read frames; there is no box."""
        with reading(self.path, "MISATO file"):
            return read_dataset(self._group()[_FRAMES], frames) / np.float32(10.0), None

    def read_tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Read atomic numbers, residue kinds, first atoms of molecules, and one frame (n_atoms, 3) [nm]."""
        with reading(self.path, "MISATO file"):
            group = self._group()
            numbers, kinds, begins = (np.asarray(group[mark][()]).astype(int) for mark in MARKS)
            require(
                len(numbers) == len(kinds),
                f"MISATO file {self.path} has {len(numbers)} atoms_number and {len(kinds)} atoms_residue in "
                f"{self.name}; the file is damaged",
            )
            source = group[_FRAMES][0] if _FRAMES in group else group["atoms_coordinates_ref"][()]
            positions = np.asarray(source, dtype=float) / 10.0
        require(
            positions.shape == (len(numbers), 3),
            f"MISATO file {self.path} has a frame of shape {positions.shape} in {self.name}, expected ({len(numbers)}, "
            f"3) by its atoms_number; the file is damaged",
        )
        return numbers, kinds, begins, positions

    def _group(self) -> Any:
        group = open_hdf5(self.path)[self.name]
        absent = [mark for mark in MARKS if mark not in group]
        require(not absent, f"MISATO file {self.path} has no {', '.join(absent)} in {self.name}; it is not MISATO's MD")
        return group


def misato_entries(path: Path, frame_spacing: float | None = None) -> tuple[MisatoEntry, ...]:
    """List the complexes of one file."""
    with reading(path, "MISATO file"):
        names = sorted(open_hdf5(path))
    return tuple(MisatoEntry(name, path, frame_spacing or FRAME_SPACING) for name in names)


@lru_cache(maxsize=16)
def _recovered(entry: MisatoEntry) -> tuple[app.Topology, np.ndarray, list[str]]:
    numbers, kinds, begins, positions = entry.read_tables()
    topology, notes = misato_topology(numbers, kinds, begins, positions)
    return topology, positions, notes
