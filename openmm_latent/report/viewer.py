"""What the 3-D viewer plays: one PDB for atoms and bonds, and the coordinates of frames as packed integers."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from openmm_latent.report.molecule import Molecule, mdtraj_topology

#: Molecules with more atoms than this are shown by backbone and what is no protein.
MAX_ATOMS = 1000
#: From this many residues on the backbone is drawn as a ribbon.
RIBBON_RESIDUES = 10
_BACKBONE = ("N", "CA", "C", "O")
#: Integers an Å: frames are exact to 0.005 Å within 327 Å of the centre.
_PER_ANGSTROM = 100.0


def viewer_payload(molecule: Molecule, structure: np.ndarray, frames: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return what the page's script reads.

    Parameters
    ----------
    molecule : Molecule
    structure : array, (n_atoms, 3) [nm]
        Bonds are found in it.
    frames : dict of str to array, (n_frames, n_atoms, 3) [nm]

    Returns
    -------
    dict: pdb, n_atoms, is_ribbon, per_angstrom, and frames: name -> {n_frames, data (base64 of int16)}
    """
    shown = _shown(molecule)
    centre = structure[shown].mean(axis=0)
    packed = {}
    for name, positions in frames.items():
        scaled = np.round((positions[:, shown] - centre) * 10.0 * _PER_ANGSTROM)
        numbers = np.clip(scaled, -32768, 32767).astype("<i2")
        packed[name] = {"n_frames": len(positions), "data": base64.b64encode(numbers.tobytes()).decode()}
    n_calpha = sum(molecule.records[i].name == "CA" for i in shown)
    has_backbone = sum(molecule.records[i].name in _BACKBONE for i in shown) >= 4 * n_calpha
    return {
        "pdb": _pdb(molecule, shown, structure - centre),
        "n_atoms": len(shown),
        "is_ribbon": n_calpha >= RIBBON_RESIDUES and has_backbone,
        "is_backbone_only": len(shown) < len(molecule.atoms),
        "per_angstrom": _PER_ANGSTROM,
        "frames": packed,
    }


def _shown(molecule: Molecule) -> list[int]:
    """Return the atoms that are shown."""
    every = list(range(len(molecule.atoms)))
    if len(every) <= MAX_ATOMS or not molecule.is_calpha:
        return every
    protein = {(molecule.records[i].chain, molecule.records[i].residue_index) for i in molecule.trace}
    return [
        i
        for i in every
        if molecule.records[i].name in _BACKBONE
        or (molecule.records[i].chain, molecule.records[i].residue_index) not in protein
    ]


def _pdb(molecule: Molecule, shown: list[int], structure: np.ndarray) -> str:
    """Return some atoms of a structure [nm] as PDB text."""
    import mdtraj

    topology = mdtraj_topology(molecule).subset(shown)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "structure.pdb")
        mdtraj.Trajectory(structure[shown].astype(np.float32), topology).save_pdb(str(path))
        return path.read_text()
