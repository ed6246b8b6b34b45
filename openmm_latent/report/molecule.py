"""What of a molecule is scored: the atoms chosen, their torsions, one trace atom a residue, bonds and hands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from openmm import app

from openmm_latent.errors import require
from openmm_latent.geometry import torsion_quadruples
from openmm_latent.topology import AtomRecord, describe_atoms, find_structure

#: Torsions that scores and features are made of; omega hardly moves and is counted with the violations.
BACKBONE, SIDE_CHAIN = ("phi", "psi"), ("chi1", "chi2", "chi3", "chi4")
#: With fewer Cα atoms than this all chosen atoms stand in for them.
FEWEST_CALPHA = 4


@dataclass(frozen=True)
class Molecule:
    """The scored atoms and index groups over them.

    Attributes
    ----------
    topology : openmm.app.Topology
        Of the whole system.
    atoms : list of int
        Indices of the scored atoms in it; all other indices here count these.
    records : list of AtomRecord
    labels : list of str
        Residue of each atom, such as "ALA 2", with the chain where there are several.
    trace : array of int, (n_trace,)
        The Cα atoms, or all atoms where there are fewer than four.
    is_calpha : bool
        Whether `trace` holds Cα atoms.
    quadruples : array of int, (n_torsions, 4)
    torsions : list of str
        Their names, such as "phi ALA 2", backbone first.
    n_backbone : int
    phi_psi, chi1_chi2 : array of int, (n_pairs, 2)
        Columns of `quadruples` that belong to one residue.
    bonds, centres, omegas : array of int, (n, 2), (n, 4), (n, 4)
    is_heavy : array of bool, (n_atoms,)
    """

    topology: app.Topology
    atoms: list[int]
    records: list[AtomRecord]
    labels: list[str]
    trace: np.ndarray
    is_calpha: bool
    quadruples: np.ndarray
    torsions: list[str]
    n_backbone: int
    phi_psi: np.ndarray
    chi1_chi2: np.ndarray
    bonds: np.ndarray
    centres: np.ndarray
    omegas: np.ndarray
    is_heavy: np.ndarray

    @property
    def trace_name(self) -> str:
        """What the definitions call the trace atoms."""
        return "Cα" if self.is_calpha else "all atoms (fewer than four Cα)"

    def heavy_bonds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the heavy atoms (n_heavy,) and the bonds among them, (n_bonds, 2) in their own numbers."""
        heavy = np.flatnonzero(self.is_heavy)
        place = np.full(len(self.atoms), -1)
        place[heavy] = np.arange(len(heavy))
        bonds = place[self.bonds]
        return heavy, bonds[(bonds >= 0).all(axis=1)]

    def pair_label(self, pair: np.ndarray) -> str:
        """Return the residue of a pair of torsions."""
        return self.torsions[pair[0]].split(" ", 1)[1]


def choose_atoms(topology: app.Topology, atoms: str) -> str | list[int]:
    """Return what `load_trajectories` takes for "heavy", "all" or "ca".

    Raises
    ------
    LatentError
        Another word, or "ca" of a topology without Cα atoms.
    """
    if atoms in ("heavy", "all"):
        return atoms
    require(atoms == "ca", f"atoms (--atoms) must be heavy, all or ca, got {atoms!r}")
    chosen = [a.index for a in topology.atoms() if a.name == "CA" and a.element is not None and a.element.symbol == "C"]
    require(len(chosen) > 0, "atoms (--atoms) is ca, but the topology has no atom named CA; take heavy or all")
    return chosen


def make_molecule(topology: app.Topology, atoms: list[int]) -> Molecule:
    """Find all index groups over the chosen atoms.

    Parameters
    ----------
    topology : openmm.app.Topology
    atoms : list of int
        Indices of the scored atoms.
    """
    records = describe_atoms(topology, atoms)
    labels = _labels(topology, atoms)
    # a calcium ion is named CA, too
    calpha = np.array([i for i, r in enumerate(records) if r.name == "CA" and r.element == "C"], dtype=np.int64)
    quadruples, names, n_backbone = _torsions(records, labels)
    place = {atom: i for i, atom in enumerate(atoms)}
    structure = find_structure(topology)
    return Molecule(
        topology=topology,
        atoms=list(atoms),
        records=records,
        labels=labels,
        trace=calpha if len(calpha) >= FEWEST_CALPHA else np.arange(len(atoms)),
        is_calpha=len(calpha) >= FEWEST_CALPHA,
        quadruples=quadruples,
        torsions=names,
        n_backbone=n_backbone,
        phi_psi=_pairs(names, "phi", "psi"),
        chi1_chi2=_pairs(names, "chi1", "chi2"),
        bonds=_mapped(structure.bonds, place, 2),
        centres=_mapped(structure.chiral_centres, place, 4),
        omegas=_mapped(structure.omegas, place, 4),
        is_heavy=np.array([r.element not in ("H", "") for r in records]),
    )


def _labels(topology: app.Topology, atoms: list[int]) -> list[str]:
    """Return the residue of each atom in words."""
    every = list(topology.atoms())
    chains = {every[index].residue.chain.index for index in atoms}
    return [
        f"{r.name} {r.id}" + (f" ({r.chain.id or r.chain.index})" if len(chains) > 1 else "")
        for r in (every[index].residue for index in atoms)
    ]


def _torsions(records: list[AtomRecord], labels: list[str]) -> tuple[np.ndarray, list[str], int]:
    """Return torsions (n_torsions, 4), their names, and how many are of the backbone."""
    found, names, n_backbone = [], [], 0
    for kind in (*BACKBONE, *SIDE_CHAIN):
        for quadruple in torsion_quadruples(records, kind):
            found.append(quadruple)
            names.append(f"{kind} {labels[quadruple[1]]}")  # the second atom belongs to the residue itself
        if kind == BACKBONE[-1]:
            n_backbone = len(found)
    return np.array(found, dtype=np.int64).reshape(-1, 4), names, n_backbone


def _pairs(names: list[str], first: str, second: str) -> np.ndarray:
    """Return the columns of residues that have both torsions: (n_pairs, 2)."""
    columns = {name: i for i, name in enumerate(names)}
    pairs = [
        (i, columns[f"{second} {name.split(' ', 1)[1]}"])
        for name, i in columns.items()
        if name.split(" ", 1)[0] == first and f"{second} {name.split(' ', 1)[1]}" in columns
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _mapped(groups: list[list[int]], place: dict[int, int], size: int) -> np.ndarray:
    """Return the groups whose atoms are all scored, in the scored atoms' numbers."""
    kept = [[place[i] for i in group] for group in groups if all(i in place for i in group)]
    return np.array(kept, dtype=np.int64).reshape(-1, size)


def mdtraj_topology(molecule: Molecule) -> Any:
    """Return the scored atoms as an mdtraj.Topology."""
    import mdtraj

    return mdtraj.Topology.from_openmm(molecule.topology).subset(molecule.atoms)
