"""Tokens of a complex: residues of proteins, single atoms of all else, and what chemistry tells of both.

| part of the topology | becomes |
|---|---|
| one of the 20 amino acids, protonated or not, with the atoms that it should have | one token |
| caps, modified residues, nucleotides, ligands, metal ions | a token for each heavy atom |
| water and the ions of `openmm_latent.topology.SOLVENT` | nothing |

Nothing else is left out: what cannot be understood is refused with a sentence.

Source: Abramson et al., Nature 630, 493 (2024), supplement, section 2.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import openmm
from openmm import app

from openmm_latent.data.backbone import residue_type
from openmm_latent.data.residue_slots import standard_name
from openmm_latent.data.sdf import AROMATIC, match_molecule, read_sdf
from openmm_latent.errors import LatentError, require
from openmm_latent.nn.residue_geometry import CA, CB, N_SLOTS, RESIDUE_NAMES, UNKNOWN, C, N, residue_tables
from openmm_latent.topology import SOLVENT, bonded_neighbours, heavy_atoms

#: Token type of a single atom; below it, places in `RESIDUE_NAMES`.
ATOM = UNKNOWN
N_TOKEN_TYPES = ATOM + 1
#: Slot of an atom that is a token by itself.
NO_SLOT = N_SLOTS
#: Bond orders: 0 is unknown, 1 to 3, and `AROMATIC`.
N_ORDERS = AROMATIC + 1
#: Mass of hydrogen, and the most that repartitioning leaves it with [amu].
_HYDROGEN, _HEAVIEST_HYDROGEN = 1.008, 4.5
_ORDERS = {"Single": 1, "Amide": 1, "Double": 2, "Triple": 3, "Aromatic": AROMATIC}


@dataclass(frozen=True)
class ComplexTokens:
    """A complex as networks see it, without positions.

    Attributes
    ----------
    atoms : ndarray of int
        (n_atoms,) heavy atoms, the topology's indices in its order: the model atoms
    token : ndarray of int
        (n_atoms,) token of each atom
    elements : ndarray of int
        (n_atoms,) atomic numbers
    slots : ndarray of int
        (n_atoms,) place in its residue, see `residue_geometry`; `NO_SLOT` for an atom that is a token
    hydrogens : ndarray of int
        (n_atoms,) bonded to it
    charges : ndarray
        (n_atoms,) partial charge, that of bonded hydrogens added [e]; formal charges where there is no System
    bonds : ndarray of int
        (n_bonds, 2) places in `atoms`
    orders : ndarray of int
        (n_bonds,) 0 unknown, 1 to 3, or 4 for aromatic
    types : ndarray of int
        (n_tokens,) place in `RESIDUE_NAMES`, or `ATOM`
    chains : ndarray of int
        (n_tokens,) counts molecules, and the topology's chains within them
    residues : ndarray of int
        (n_tokens,) place of the residue in the topology
    is_ligand : ndarray of bool
        (n_tokens,) of molecules without amino acids; a ligand with a covalent bond to a protein counts as its part
    centres : ndarray of int
        (n_tokens,) CB, CA of glycine, or the atom: places in `atoms`
    frames : ndarray of int
        (n_tokens, 3) N, CA and C, or two neighbours in bonds about the atom; three times the atom where there are none
    knows_charges : bool
        Whether `charges` come from a System.
    """

    atoms: np.ndarray
    token: np.ndarray
    elements: np.ndarray
    slots: np.ndarray
    hydrogens: np.ndarray
    charges: np.ndarray
    bonds: np.ndarray
    orders: np.ndarray
    types: np.ndarray
    chains: np.ndarray
    residues: np.ndarray
    is_ligand: np.ndarray
    centres: np.ndarray
    frames: np.ndarray
    knows_charges: bool

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.types)

    @property
    def n_atoms(self) -> int:
        """Number of model atoms."""
        return len(self.atoms)

    @property
    def knows_orders(self) -> bool:
        """Whether the order of a bond in a ligand is known; a structure file seldom tells, an SDF file does."""
        inside = self.is_ligand[self.token[self.bonds]].all(axis=1)
        return bool((self.orders[inside] > 0).any())

    @property
    def names(self) -> list[str]:
        """What each token is: a residue's name or an element's symbol."""
        symbols = [app.Element.getByAtomicNumber(int(self.elements[atom])).symbol for atom in self.centres]
        return [RESIDUE_NAMES[kind] if kind != ATOM else symbols[i] for i, kind in enumerate(self.types)]

    def select(self, tokens: Sequence[int] | np.ndarray) -> tuple[ComplexTokens, np.ndarray]:
        """Cut out some tokens.

        Parameters
        ----------
        tokens : sequence of int
            (n_kept,), rising.

        Returns
        -------
        part : ComplexTokens
            Its `atoms` are still the topology's indices.
        kept : ndarray of int
            (n_kept_atoms,) places in `self.atoms`: which columns of positions to take.
        """
        tokens = np.asarray(tokens, dtype=np.int64)
        require(
            tokens.ndim == 1 and len(tokens) > 0 and bool((np.diff(tokens) > 0).all()),
            f"tokens must rise and be at least one, got {tokens[:5]}; sort them and leave doubles out",
        )
        kept = np.flatnonzero(np.isin(self.token, tokens))
        place = np.full(self.n_atoms, -1)
        place[kept] = np.arange(len(kept))
        inside = (place[self.bonds] >= 0).all(axis=1)
        bonds = place[self.bonds[inside]]
        centres, frames = place[self.centres[tokens]], place[self.frames[tokens]]
        for i in np.flatnonzero((frames < 0).any(axis=1)):  # a neighbour was cut off
            frames[i] = _frame_of(int(centres[i]), bonds)
        by_atom = {name: getattr(self, name)[kept] for name in ("atoms", "elements", "slots", "hydrogens", "charges")}
        by_token = {name: getattr(self, name)[tokens] for name in ("types", "chains", "residues", "is_ligand")}
        part = ComplexTokens(
            token=np.searchsorted(tokens, self.token[kept]),
            bonds=bonds,
            orders=self.orders[inside],
            centres=centres,
            frames=frames,
            knows_charges=self.knows_charges,
            **by_atom,
            **by_token,
        )
        return part, kept

    def same_as(self, other: ComplexTokens) -> bool:
        """Tell whether both describe the same molecule, charges apart."""
        names = [entry.name for entry in fields(self) if entry.name not in ("charges", "knows_charges")]
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)


def read_tokens(
    topology: app.Topology, system: openmm.System | None = None, ligands: Sequence[str | Path] = ()
) -> ComplexTokens:
    """Read the tokens of a complex.

    Parameters
    ----------
    topology : openmm.app.Topology
        With its bonds, those inside ligands too: from a prmtop, a PDB with CONECT, an SDF, a force field's tool.
    system : openmm.System, optional
        Made from the topology; its NonbondedForce gives charges.
    ligands : sequence of path
        SDF files, whose bond orders and formal charges go to the residue with the same heavy atoms and bonds.

    Raises
    ------
    LatentError
        There is nothing to model, a residue lacks its backbone, a ligand has no bonds, the System is of another
        topology, or an SDF file fits no residue.
    """
    _require_elements(topology)
    atoms = np.array(heavy_atoms(topology), dtype=np.int64)
    require(len(atoms) > 0, "topology has no heavy atoms but those of water and ions; give a structure with a molecule")
    everything = list(topology.atoms())
    place = np.full(len(everything), -1)
    place[atoms] = np.arange(len(atoms))
    bonds, orders, hydrogens, carrier = _bonds_of(topology, place)
    token, slots, types, residues = _split(topology, place, len(atoms))
    _require_bonds(topology, types, residues, token, bonds, place)
    elements = np.array([everything[atom].element.atomic_number for atom in atoms], dtype=np.int64)
    charges = np.array([float(getattr(everything[atom], "formalCharge", None) or 0) for atom in atoms])
    owners = [everything[atom].residue.index for atom in atoms]
    for path in ligands:
        _take_orders(path, elements, bonds, orders, charges, np.array(owners))
    if system is not None:
        charges = _charges_of(system, atoms, carrier, place)
    molecule = _molecules(bonds, len(atoms))
    chain = np.array([everything[atom].residue.chain.index for atom in atoms])
    _, kinds = np.unique(np.stack([molecule, chain], axis=1), axis=0, return_inverse=True)
    first = np.array([int(np.flatnonzero(token == i)[0]) for i in range(len(types))])
    has_protein = np.isin(molecule, molecule[first[types != ATOM]])
    centres, frames = _places(token, slots, types, first, bonds)
    return ComplexTokens(
        atoms=atoms,
        token=token,
        elements=elements,
        slots=slots,
        hydrogens=hydrogens,
        charges=charges,
        bonds=bonds,
        orders=orders,
        types=types,
        chains=kinds.reshape(-1)[first],
        residues=residues,
        is_ligand=~has_protein[first],
        centres=centres,
        frames=frames,
        knows_charges=system is not None,
    )


def name_elements(topology: app.Topology, system: openmm.System) -> None:
    """Write elements into a topology, in place, where it has none but the System has a mass: some prmtop files.

    Mass that was moved to hydrogens is given back first, for which the topology must have its bonds.

    Raises
    ------
    LatentError
        The System is of another topology.
    """
    _require_fit(system, topology.getNumAtoms())
    masses = [system.getParticleMass(atom.index)._value for atom in topology.atoms()]
    near = bonded_neighbours(topology)
    for atom in topology.atoms():
        is_light = 0 < masses[atom.index] < _HEAVIEST_HYDROGEN and len(near[atom.index]) == 1
        if is_light if atom.element is None else atom.element == app.element.hydrogen:
            for parent in near[atom.index][:1]:
                masses[parent] += masses[atom.index] - _HYDROGEN
            masses[atom.index] = _HYDROGEN
    for atom, mass in zip(topology.atoms(), masses, strict=True):
        if atom.element is None and mass > 0:
            atom.element = app.Element.getByMass(mass)


def _require_elements(topology: app.Topology) -> None:
    """Refuse atoms without an element outside water: nothing tells them from virtual sites, and they would be lost."""
    for atom in topology.atoms():
        require(
            atom.element is not None or atom.residue.name in SOLVENT,
            f"topology has {atom.name} of residue {atom.residue.name} {atom.residue.id} without an element, as some "
            f"prmtop files; call name_elements(topology, system) first, which reads masses",
        )


def _require_fit(system: openmm.System, n_atoms: int) -> None:
    require(
        system.getNumParticles() == n_atoms,
        f"system has {system.getNumParticles()} particles, but the topology has {n_atoms} atoms; pass the topology "
        f"from which the System was made",
    )


def _bonds_of(topology: app.Topology, place: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[int, int]]:
    """Return bonds between heavy atoms and their orders, hydrogens an atom, and the heavy atom of each hydrogen."""
    bonds, orders, carrier = [], [], {}
    hydrogens = np.zeros(int((place >= 0).sum()), dtype=np.int64)
    for bond in topology.bonds():
        first, second = place[bond[0].index], place[bond[1].index]
        if first >= 0 and second >= 0:
            bonds.append((min(first, second), max(first, second)))
            orders.append(_ORDERS.get(str(bond.type), bond.order if bond.order in (1, 2, 3) else 0))
        elif first >= 0 or second >= 0:
            light = bond[1] if first >= 0 else bond[0]
            if light.element is not None and light.element.symbol == "H":
                carrier[light.index] = int(max(first, second))
                hydrogens[max(first, second)] += 1
    pairs = np.array(bonds, dtype=np.int64).reshape(-1, 2)
    unique, where = np.unique(pairs, axis=0, return_index=True)
    return unique, np.array(orders, dtype=np.int64)[where], hydrogens, carrier


def _split(
    topology: app.Topology, place: np.ndarray, n_atoms: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return each atom's token and slot, (n_atoms,), and each token's type and residue, (n_tokens,)."""
    token, slots = np.zeros(n_atoms, dtype=np.int64), np.full(n_atoms, NO_SLOT)
    types: list[int] = []
    residues: list[int] = []
    for residue in topology.residues():
        members = [atom for atom in residue.atoms() if place[atom.index] >= 0]
        found = _slots_of(residue, members)
        for number, atom in enumerate(members):
            if number == 0 or found is None:
                types.append(ATOM if found is None else found[0])
                residues.append(residue.index)
            token[place[atom.index]] = len(types) - 1
            if found is not None:
                slots[place[atom.index]] = found[1][number]
    return token, slots, np.array(types, dtype=np.int64), np.array(residues, dtype=np.int64)


def _slots_of(residue: app.topology.Residue, members: list[app.topology.Atom]) -> tuple[int, list[int]] | None:
    """Return a residue's type and its heavy atoms' slots; None for one that is to be split into atoms."""
    kind = residue_type(residue.name)
    if kind == UNKNOWN or not members:
        return None
    known = residue_tables().atom_names[kind]
    names = [standard_name(atom.name, kind) for atom in members]
    if any(name not in known for name in names):
        return None  # modified
    absent = [name for name in ("N", "CA", "C") if name not in names]
    require(
        not absent and len(set(names)) == len(names),
        f"topology has residue {residue.name} {residue.id} of chain {residue.chain.id} without "
        f"{', '.join(absent) or 'one name for each atom'}; build what is absent (pdbfixer does), or cut the residue "
        f"off",
    )
    return kind, [known.index(name) for name in names]


def _require_bonds(
    topology: app.Topology,
    types: np.ndarray,
    residues: np.ndarray,
    token: np.ndarray,
    bonds: np.ndarray,
    place: np.ndarray,
) -> None:
    """Refuse a residue of several single-atom tokens in which not every atom has a bond."""
    bonded = np.zeros(len(token), dtype=bool)
    bonded[bonds.reshape(-1)] = True
    split = {int(number) for number in residues[types == ATOM]}
    for residue in topology.residues():
        if residue.index not in split:
            continue
        members = [atom for atom in residue.atoms() if place[atom.index] >= 0]
        loose = [atom.name for atom in members if not bonded[place[atom.index]]]
        require(
            len(members) == 1 or not loose,
            f"topology has {', '.join(loose[:3])} of residue {residue.name} {residue.id} without any bond: a ligand's "
            f"bonds tell its chemistry; read it from a prmtop, an SDF or a PDB with CONECT records",
        )


def _charges_of(system: openmm.System, atoms: np.ndarray, carrier: dict[int, int], place: np.ndarray) -> np.ndarray:
    """Return partial charges of heavy atoms with their hydrogens, (n_atoms,) [e]."""
    _require_fit(system, len(place))
    forces = [force for force in system.getForces() if isinstance(force, openmm.NonbondedForce)]
    if not forces:
        raise LatentError(
            "system has no NonbondedForce to read charges from; leave system out to do without charges, or pass the "
            "System of a force field that has them"
        )
    charges = np.zeros(len(atoms))
    for particle in range(len(place)):
        heavy = int(place[particle]) if place[particle] >= 0 else carrier.get(particle, -1)
        if heavy >= 0:
            charges[heavy] += forces[0].getParticleParameters(particle)[0]._value
    return charges


def _take_orders(
    path: str | Path,
    elements: np.ndarray,
    bonds: np.ndarray,
    orders: np.ndarray,
    charges: np.ndarray,
    owners: np.ndarray,
) -> None:
    """Write the bond orders and formal charges of an SDF file to every residue that is this molecule, in place."""
    molecule = read_sdf(path)
    told = {(min(a, b), max(a, b)): order for (a, b), order in zip(molecule.bonds, molecule.orders, strict=True)}
    n_found = 0
    for owner in np.unique(owners):
        members = np.flatnonzero(owners == owner)
        inside = np.isin(bonds, members).all(axis=1)
        symbols = [app.Element.getByAtomicNumber(int(number)).symbol for number in elements[members]]
        match = match_molecule(molecule, symbols, np.searchsorted(members, bonds[inside]))
        if match is None:
            continue
        n_found += 1
        for number, atom in enumerate(members):
            charges[atom] = molecule.charges[match[number]]
        for number in np.flatnonzero(inside):
            a, b = (match[i] for i in np.searchsorted(members, bonds[number]))
            orders[number] = told[min(a, b), max(a, b)]
    require(
        n_found > 0,
        f"ligand file {path} ({molecule.name}, {len(molecule.elements)} atoms) fits no residue of the topology; give "
        f"the ligand that is in it, with the same heavy atoms and bonds",
    )


def _molecules(bonds: np.ndarray, n_atoms: int) -> np.ndarray:
    """Return which connected molecule each atom belongs to, (n_atoms,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(bonds)), (bonds[:, 0], bonds[:, 1])), shape=(n_atoms, n_atoms))
    return connected_components(graph, directed=False)[1]


def _places(
    token: np.ndarray, slots: np.ndarray, types: np.ndarray, first: np.ndarray, bonds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return centre, (n_tokens,), and frame, (n_tokens, 3), of each token, as places among the atoms."""
    at = np.full((len(types), N_SLOTS + 1), -1)
    at[token, slots] = np.arange(len(token))
    centres = np.where(at[:, CB] >= 0, at[:, CB], at[:, CA])
    centres = np.where(types == ATOM, first, centres)
    frames = at[:, [N, CA, C]]
    for i in np.flatnonzero(types == ATOM):
        frames[i] = _frame_of(int(first[i]), bonds)
    return centres, frames


def _frame_of(atom: int, bonds: np.ndarray) -> list[int]:
    """Return two atoms near in bonds with the atom between them; three times the atom where there are no two."""
    near = [int(b if a == atom else a) for a, b in bonds if atom in (a, b)]
    further = [
        int(b if a == other else a) for other in near for a, b in bonds if other in (a, b) and atom not in (a, b)
    ]
    found = list(dict.fromkeys([*sorted(near), *sorted(further)]))[:2]
    return [found[0], atom, found[1]] if len(found) == 2 else [atom] * 3
