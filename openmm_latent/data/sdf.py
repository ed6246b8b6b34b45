"""Molecules of SDF files: what a topology does not tell of a ligand, its bond orders and formal charges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from openmm import app

from openmm_latent.errors import LatentError, require

#: Bond order that stands for an aromatic bond; 0 is an order that nobody tells.
AROMATIC = 4
#: Codes of charges in the atom lines of old files.
_CHARGES = {1: 3, 2: 2, 3: 1, 5: -1, 6: -2, 7: -3}


@dataclass(frozen=True)
class Molecule:
    """The first molecule of a file.

    Attributes
    ----------
    name : str
    elements : tuple of str
        (n_atoms,) symbols
    bonds : ndarray of int
        (n_bonds, 2) atoms
    orders : ndarray of int
        (n_bonds,) 1 to 3, or `AROMATIC`
    charges : ndarray of int
        (n_atoms,) formal charges [e]
    """

    name: str
    elements: tuple[str, ...]
    bonds: np.ndarray
    orders: np.ndarray
    charges: np.ndarray


def read_sdf(path: str | Path) -> Molecule:
    """Read the first molecule of an SDF or MOL file, version V2000.

    Raises
    ------
    LatentError
        The file is absent, of another version, or damaged.

    Source: CTfile formats, BIOVIA (2020), chapter 4.
    """
    path = Path(path)
    require(path.is_file(), f"ligand file {path} does not exist; check the name")
    lines = path.read_text(errors="replace").splitlines()
    require(
        len(lines) > 4 and "V2000" in lines[3],
        f"ligand file {path} is no SDF or MOL file of version V2000, which is the one that is read; convert it",
    )
    try:
        return _parse(path.stem if not lines[0].strip() else lines[0].strip(), lines)
    except (ValueError, IndexError, KeyError) as error:
        raise LatentError(f"ligand file {path} is damaged ({error}); write it again") from error


def _parse(name: str, lines: list[str]) -> Molecule:
    n_atoms, n_bonds = int(lines[3][:3]), int(lines[3][3:6])
    atoms, rest = lines[4 : 4 + n_atoms], lines[4 + n_atoms :]
    elements = tuple(app.Element.getBySymbol(line[31:34].strip()).symbol for line in atoms)
    charges = np.array([_CHARGES.get(int(line[36:39] or 0), 0) for line in atoms], dtype=np.int64)
    bonds = np.array([(int(line[:3]), int(line[3:6])) for line in rest[:n_bonds]], dtype=np.int64).reshape(-1, 2) - 1
    orders = np.array([int(line[6:9]) for line in rest[:n_bonds]], dtype=np.int64)
    if len(atoms) < n_atoms or len(bonds) < n_bonds or (n_bonds and (bonds.min() < 0 or bonds.max() >= n_atoms)):
        raise ValueError("fewer atoms or bonds than its counts say")
    told = [line for line in rest[n_bonds:] if line.startswith("M  CHG")]
    if told:
        charges[:] = 0
    for line in told:
        numbers = [int(word) for word in line[9:].split()]
        for atom, charge in zip(numbers[::2], numbers[1::2], strict=True):
            charges[atom - 1] = charge
    return Molecule(name, elements, bonds, np.where((orders >= 1) & (orders <= AROMATIC), orders, 0), charges)


def match_molecule(molecule: Molecule, elements: list[str], bonds: np.ndarray) -> list[int] | None:
    """Find a molecule's heavy atoms among others with the same elements and bonds.

    Parameters
    ----------
    molecule : Molecule
    elements : list of str
        (n_atoms,) of heavy atoms
    bonds : ndarray of int
        (n_bonds, 2) between these

    Returns
    -------
    list of int or None
        For each of `elements` the atom of the molecule; None where the two are not alike.
    """
    import networkx  # comes with torch; most structures have no such file

    def graph(symbols: list[str] | tuple[str, ...], pairs: np.ndarray) -> networkx.Graph:
        found = networkx.Graph()
        found.add_nodes_from((i, {"element": symbol}) for i, symbol in enumerate(symbols) if symbol != "H")
        found.add_edges_from((int(a), int(b)) for a, b in pairs if "H" not in (symbols[a], symbols[b]))
        return found

    ours, theirs = graph(elements, bonds), graph(molecule.elements, molecule.bonds)
    if sorted(elements) != sorted(symbol for symbol in molecule.elements if symbol != "H"):
        return None
    matcher = networkx.isomorphism.GraphMatcher(ours, theirs, lambda a, b: a["element"] == b["element"])
    return [matcher.mapping[i] for i in range(len(elements))] if matcher.is_isomorphic() else None
