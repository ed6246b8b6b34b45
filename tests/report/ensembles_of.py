"""Ensembles of alanine dipeptide and of a toy chain, for the tests of the report."""

from __future__ import annotations

from pathlib import Path

import mdtraj
import numpy as np
from openmm import app
from openmm.app.element import carbon

from openmm_latent.report.ensembles import Ensemble, make_ensemble
from openmm_latent.report.molecule import Molecule, make_molecule
from openmm_latent.topology import heavy_atoms
from toys import ADP_PDB

XTC = ADP_PDB.with_name("adp_400K.xtc")
SPACING = 2.0  # [ps] of the file


def adp_frames(start: int, stop: int) -> np.ndarray:
    """Frames of hot alanine dipeptide, all atoms: (n_frames, 22, 3) [nm]."""
    return mdtraj.load(str(XTC), top=str(ADP_PDB)).xyz[start:stop]


def write_runs(folder: Path, *bounds: tuple[int, int]) -> list[Path]:
    """Cut the file of alanine dipeptide into runs of its own."""
    whole = mdtraj.load(str(XTC), top=str(ADP_PDB))
    files = []
    for start, stop in bounds:
        files.append(folder / f"run_{start}_{stop}.xtc")
        part = whole[start:stop]
        part.time = SPACING * np.arange(stop - start)
        part.save_xtc(str(files[-1]))
    return files


def adp_molecule() -> Molecule:
    """The heavy atoms of alanine dipeptide."""
    topology = app.PDBFile(str(ADP_PDB)).topology
    return make_molecule(topology, heavy_atoms(topology))


def adp_ensemble(*bounds: tuple[int, int], name: str = "adp") -> Ensemble:
    """Runs of alanine dipeptide, superposed on the first frame."""
    molecule = adp_molecule()
    frames = adp_frames(0, max(stop for _, stop in bounds))[:, molecule.atoms]
    runs = [frames[a:b].copy() for a, b in bounds]
    return make_ensemble(name, molecule, runs, frames[0].astype(np.float64), SPACING)


def chain(n_residues: int) -> Molecule:
    """A chain of Cα atoms alone."""
    topology = app.Topology()
    one = topology.addChain()
    for number in range(n_residues):
        topology.addAtom("CA", carbon, topology.addResidue("GLY", one, str(number + 1)))
    return make_molecule(topology, list(range(n_residues)))


def chain_ensemble(
    n_residues: int, n_frames: int, seed: int, n_runs: int = 1, spread: float = 0.05, name: str = "chain"
) -> Ensemble:
    """Independent Gaussian wobble about a helix-like path, the ends more than the middle."""
    random = np.random.default_rng(seed)
    turn = np.arange(n_residues) * 1.7
    path = np.stack([0.23 * np.cos(turn), 0.23 * np.sin(turn), 0.15 * np.arange(n_residues)], axis=1)
    sizes = spread * (1.0 + np.linspace(-1, 1, n_residues) ** 2)
    lengths = [n_frames // n_runs] * n_runs
    runs = [(path + sizes[:, None] * random.standard_normal((n, n_residues, 3))).astype(np.float32) for n in lengths]
    return make_ensemble(name, chain(n_residues), runs, path, 1.0)
