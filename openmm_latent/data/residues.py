"""Standard residues: which atoms they have, in which order Amber writes them, and which ones a structure lacks."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from openmm import app

from openmm_latent.topology import SOLVENT

#: Names that other force fields and protonation states give to the residues of ff14SB.
_SAME = {"HIS": "HIE", "HSD": "HID", "HSE": "HIE", "HSP": "HIP", "CYSH": "CYS", "LSN": "LYN", "ASPP": "ASH"}
#: Amber's names of protonation states, and what the PDB calls the residue.
PDB_NAMES = {
    "HID": "HIS",
    "HIE": "HIS",
    "HIP": "HIS",
    "CYX": "CYS",
    "CYM": "CYS",
    "ASH": "ASP",
    "GLH": "GLU",
    "LYN": "LYS",
}


@dataclass(frozen=True)
class StandardResidue:
    """A residue of ff14SB.

    Attributes
    ----------
    name : str
        Without the N or C that marks the end of a chain.
    atoms : tuple of str
        Names in the order of Amber's libraries, which `tleap` writes.
    elements : tuple of str
        Symbols.
    bonds : tuple of (int, int)
        Inside the residue, as positions in `atoms`.
    starts, ends : bool
        Whether it is the form at the start or end of a chain.
    """

    name: str
    atoms: tuple[str, ...]
    elements: tuple[str, ...]
    bonds: tuple[tuple[int, int], ...]
    starts: bool
    ends: bool


@lru_cache(maxsize=1)
def standard_residues() -> dict[str, StandardResidue]:
    """Return ff14SB's residues by their names there (ALA, NALA, CALA, ACE, ...), read from OpenMM's file of it."""
    file = Path(app.__file__).parent / "data" / "amber14" / "protein.ff14SB.xml"
    root = ElementTree.parse(file).getroot()
    elements = {kind.get("name"): kind.get("element", "") for kind in root.iterfind("AtomTypes/Type")}
    found = {}
    names = {residue.get("name", "") for residue in root.iterfind("Residues/Residue")}
    for residue in root.iterfind("Residues/Residue"):
        key = residue.get("name", "")
        is_end = len(key) == 4 and key[1:] in names  # NALA and CALA, not NHE
        atoms = [atom.get("name", "") for atom in residue.iterfind("Atom")]
        bonds = [(atoms.index(b.get("atomName1")), atoms.index(b.get("atomName2"))) for b in residue.iterfind("Bond")]
        found[key] = StandardResidue(
            name=key[1:] if is_end else key,
            atoms=tuple(atoms),
            elements=tuple(elements[atom.get("type")] for atom in residue.iterfind("Atom")),
            bonds=tuple(bonds),
            starts=(is_end and key[0] == "N") or key == "ACE",
            ends=(is_end and key[0] == "C") or key in ("NME", "NHE"),
        )
    return found


def missing_heavy_atoms(topology: app.Topology) -> list[str]:
    """Return which heavy atoms of standard residues a topology lacks, a phrase a residue: "SER 5 of chain A lacks OG".

    The second oxygen at the end of a chain is not asked for, nor are atoms of residues that are not standard.
    """
    phrases = []
    for residue in topology.residues():
        standard = standard_residues().get(_SAME.get(residue.name, residue.name))
        if standard is None:
            continue
        heavy = {name for name, element in zip(standard.atoms, standard.elements, strict=True) if element != "H"}
        absent = sorted(heavy - {atom.name for atom in residue.atoms()})
        if absent:
            phrases.append(f"{residue.name} {residue.id} of chain {residue.chain.id} lacks {', '.join(absent)}")
    return phrases


def nonstandard_residues(topology: app.Topology) -> list[str]:
    """Return the sorted names of residues that are neither standard nor water or ions: ligands, modified residues."""
    known = set(standard_residues()) | set(_SAME) | SOLVENT
    return sorted({residue.name for residue in topology.residues()} - known)
