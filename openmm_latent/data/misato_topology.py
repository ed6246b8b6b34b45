"""A named topology for MISATO, whose atoms carry numbers only.

MISATO stores for each atom its atomic number and two integers (residue kind, Amber type), in the order in which Amber's
`tleap` wrote them. That order is fixed for each residue, so the run of elements names the residue and all its atoms.

| recovered | how |
|---|---|
| residues, their atom names and bonds | elements in Amber's order against ff14SB's residues |
| protonation (HID, HIE, HIP, ASH, ...) | the same: the hydrogens stand at other places |
| peptide bonds | neighbours in one chain |
| disulfides | sulfurs of CYX less than 0.25 nm apart in the reference frame |
| bonds of the ligand and of what matches nothing | distances in the reference frame, 1.3 times covalent radii |
| without hydrogens | residue kinds, by the table below, and heavy atoms in Amber's order |

Lost: chain letters and residue numbers of the PDB, the ligand's name, atom names, bond orders and charges, waters,
ions, the box, and times. Where the crystal has a gap, Amber's bond across it stays, long as it is.

The kinds are read off the public sample `inference_from_pdb.hdf5`, where 2 to 22 match ff14SB's residues without
exception in 4 500 residues; 0 is the ligand and 1 ACE by `preprocessing_db.py` of t7morgen/misato-dataset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from openmm import app

from openmm_latent.data.residues import PDB_NAMES, StandardResidue, standard_residues

#: Residue kind of the ligand, and the name it gets.
LIGAND_KIND, LIGAND_NAME = 0, "MOL"
_KINDS = dict(
    enumerate(
        "ACE ALA ARG ASN ASP CYS CYX GLN GLU GLY HIE ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL".split(), start=1
    )
)
_MAX_DISULFIDE = 0.25  # [nm]
#: Bonds are pairs nearer than this times the sum of covalent radii.
_BOND_FACTOR = 1.3
#: [nm] Cordero et al., Dalton Transactions (2008) 2832; elements of MISATO's ligands.
_RADII = {
    "H": 0.031, "B": 0.084, "C": 0.076, "N": 0.071, "O": 0.066, "F": 0.057, "Na": 0.166, "Mg": 0.141, "Al": 0.121,
    "Si": 0.111, "P": 0.107, "S": 0.105, "Cl": 0.102, "K": 0.203, "Ca": 0.176, "Se": 0.120, "Br": 0.120, "I": 0.139,
}  # fmt: skip
_DEFAULT_RADIUS = 0.12  # [nm]


@dataclass
class _Piece:
    """One residue found: its first atom, its atoms' names and its bonds, numbered in the residue."""

    start: int
    name: str
    names: tuple[str, ...]
    bonds: tuple[tuple[int, int], ...]
    standard: StandardResidue | None
    notes: list[str] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.start + len(self.names)


def misato_topology(
    numbers: np.ndarray, kinds: np.ndarray, begins: np.ndarray, positions: np.ndarray
) -> tuple[app.Topology, list[str]]:
    """Build the topology of one complex.

    Parameters
    ----------
    numbers : np.ndarray
        (n_atoms,) atomic numbers, `atoms_number`.
    kinds : np.ndarray
        (n_atoms,) residue kinds, `atoms_residue`.
    begins : np.ndarray
        (n_molecules,) first atom of each molecule, `molecules_begin_atom_index`; the number of atoms may follow.
    positions : np.ndarray
        (n_atoms, 3) [nm] a reference frame, for bonds that no template tells.

    Returns
    -------
    topology : openmm.app.Topology
        A chain a molecule, and a further one where one molecule holds several chains.
    notes : list of str
        What could not be recovered, a sentence each.
    """
    elements = [app.Element.getByAtomicNumber(int(number)) for number in numbers]
    symbols = [element.symbol for element in elements]
    topology, atoms, notes = app.Topology(), [], []
    cysteines, unbonded = [], []
    edges = sorted({0, *(int(b) for b in begins if 0 <= b < len(numbers)), len(numbers)})
    for first, last in pairwise(edges):
        chain, before = topology.addChain(), None
        for piece in _pieces(symbols, kinds, first, last):
            if before is not None and _is_new_chain(before, piece):
                chain, before = topology.addChain(), None
            residue = topology.addResidue(piece.name, chain)
            atoms += [
                topology.addAtom(name, element, residue)
                for name, element in zip(piece.names, elements[piece.start : piece.end], strict=True)
            ]
            for a, b in piece.bonds:
                topology.addBond(atoms[piece.start + a], atoms[piece.start + b])
            if before is not None:
                _join(topology, atoms, before, piece)
            if piece.standard is None:
                unbonded.append(range(piece.start, piece.end))
            elif piece.standard.name == "CYX":
                cysteines.append(piece.start + piece.names.index("SG"))
            notes += piece.notes
            before = piece
    _join_close(topology, atoms, cysteines, positions, lambda a, b: _MAX_DISULFIDE)
    for group in unbonded:
        _join_close(topology, atoms, list(group), positions, lambda a, b: _BOND_FACTOR * (_radius(a) + _radius(b)))
    return topology, notes


def _pieces(symbols: list[str], kinds: np.ndarray, first: int, last: int) -> list[_Piece]:
    """Cut one molecule into residues, longest match first."""
    has_hydrogens = "H" in symbols[first:last]
    found, start = [], first
    while start < last:
        stop = start  # a residue never holds two kinds
        while stop < last and kinds[stop] == kinds[start]:
            stop += 1
        standard = None
        if kinds[start] != LIGAND_KIND:
            standard = _match(symbols[start:stop], int(kinds[start]), has_hydrogens)
        if standard is None:
            found.append(_unknown(symbols, start, stop, int(kinds[start])))
        else:
            found.append(_known(standard, start, has_hydrogens))
        start = found[-1].end
    return found


def _match(symbols: list[str], kind: int, has_hydrogens: bool) -> StandardResidue | None:
    """Return the longest standard residue that the elements begin with, of the kind's name if there is a choice."""
    told = _KINDS.get(kind)
    fits = []
    for standard in standard_residues().values():
        elements = standard.elements if has_hydrogens else tuple(e for e in standard.elements if e != "H")
        # without hydrogens elements do not tell LEU from ILE: then the kind must
        if tuple(symbols[: len(elements)]) == elements and (has_hydrogens or standard.name == told):
            fits.append((len(elements), standard.name == told, standard))
    return max(fits, key=lambda fit: fit[:2])[2] if fits else None


def _known(standard: StandardResidue, start: int, has_hydrogens: bool) -> _Piece:
    kept = [i for i, element in enumerate(standard.elements) if has_hydrogens or element != "H"]
    place = {old: new for new, old in enumerate(kept)}
    bonds = tuple((place[a], place[b]) for a, b in standard.bonds if a in place and b in place)
    name = PDB_NAMES.get(standard.name, standard.name)
    return _Piece(start, name, tuple(standard.atoms[i] for i in kept), bonds, standard)


def _unknown(symbols: list[str], start: int, stop: int, kind: int) -> _Piece:
    """Return a residue of which only the elements are known: the ligand, or what is not in ff14SB."""
    counts: dict[str, int] = {}
    names = []
    for symbol in symbols[start:stop]:
        counts[symbol] = counts.get(symbol, 0) + 1
        names.append(f"{symbol}{counts[symbol]}")
    if kind == LIGAND_KIND:
        return _Piece(start, LIGAND_NAME, tuple(names), (), None)
    told = _KINDS.get(kind, "UNK")
    note = (
        f"atoms {start} to {stop - 1} (kind {kind}, {told}) match no residue of ff14SB: their names are elements with "
        f"numbers, their bonds from distances"
    )
    return _Piece(start, PDB_NAMES.get(told, told), tuple(names), (), None, [note])


def _is_new_chain(before: _Piece, piece: _Piece) -> bool:
    """Tell whether a molecule held together by disulfides starts its next chain here."""
    return (before.standard is not None and before.standard.ends) or (
        piece.standard is not None and piece.standard.starts
    )


def _join(topology: app.Topology, atoms: list[app.topology.Atom], before: _Piece, piece: _Piece) -> None:
    """Add the peptide bond between two residues that have one."""
    if "C" in before.names and "N" in piece.names:
        topology.addBond(atoms[before.start + before.names.index("C")], atoms[piece.start + piece.names.index("N")])


def _join_close(topology, atoms, chosen, positions, limit) -> None:  # type: ignore[no-untyped-def]
    """Bond those pairs of the chosen atoms that lie nearer than `limit` of the two."""
    from scipy.spatial import cKDTree

    if len(chosen) < 2 or not np.isfinite(positions[chosen]).all():
        return
    widest = max(limit(atoms[a], atoms[a]) for a in chosen)
    for i, j in sorted(cKDTree(positions[chosen]).query_pairs(widest)):
        a, b = chosen[i], chosen[j]
        if np.linalg.norm(positions[a] - positions[b]) < limit(atoms[a], atoms[b]):
            topology.addBond(atoms[a], atoms[b])


def _radius(atom: app.topology.Atom) -> float:
    return _RADII.get(atom.element.symbol, _DEFAULT_RADIUS)
