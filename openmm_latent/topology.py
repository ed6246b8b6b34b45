"""Model atoms, matched by name, and what the rest of the System has to do with them.

Everything here works on `openmm.app.Topology`; nothing needs positions, a System or torch.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from openmm.app import Atom, Residue, Topology

from openmm_latent.errors import LatentError, require

#: Residue names of water and ions; models never see them unless their atoms are named one by one.
SOLVENT = frozenset("HOH WAT H2O TIP3 TP3 SOL NA NA+ SOD CL CL- CLA K K+ POT LI MG CS RB".split())

#: Residues that close a chain's ends without being amino acids: ACE before its first, the others after its last.
CAPS = frozenset({"ACE", "NME", "NMA", "NHE", "NH2"})

#: Chiral centres besides each residue's CA: residue name -> centre and three of its neighbours.
_SIDE_CHAIN_CENTRES = {"ILE": ("CB", "CA", "CG1", "CG2"), "THR": ("CB", "CA", "OG1", "CG2")}

#: Elements whose four neighbours never lie in a plane.
_TETRAHEDRAL = frozenset({"C", "N", "Si", "P", "S"})


@dataclass(frozen=True)
class AtomRecord:
    """What identifies an atom in a bundle.

    Attributes
    ----------
    chain : str
        Position of the chain in the topology ("0", "1", ...): chain letters differ from program to program.
    residue_name, name, element : str
        As in the topology; the element's symbol, "" for a virtual site.
    residue_index : int
        0-based position of the residue in its chain: residue numbers differ from program to program, too.
    """

    chain: str
    residue_name: str
    residue_index: int
    name: str
    element: str

    def __str__(self) -> str:
        return f"{self.name} of residue {self.residue_name} {self.residue_index + 1} in chain {int(self.chain) + 1}"


@dataclass
class Structure:
    """Index groups that the guard compares before and after a jump; atom indices of the topology.

    Attributes
    ----------
    bonds : list of list of int
        Pairs.
    chiral_centres : list of list of int
        Centre and three of its neighbours.
    omegas : list of list of int
        The four atoms of each peptide bond's torsion.
    heavy_atoms : list of int
    """

    bonds: list[list[int]] = field(default_factory=list)
    chiral_centres: list[list[int]] = field(default_factory=list)
    omegas: list[list[int]] = field(default_factory=list)
    heavy_atoms: list[int] = field(default_factory=list)


def _is_hydrogen(atom: Atom) -> bool:
    return atom.element is not None and atom.element.symbol == "H"


def bonded_neighbours(topology: Topology) -> dict[int, list[int]]:
    """Return the atoms bonded to each atom, by index; one without bonds gives an empty list when it is asked for."""
    neighbours: dict[int, list[int]] = defaultdict(list)
    for first, second in topology.bonds():
        neighbours[first.index].append(second.index)
        neighbours[second.index].append(first.index)
    return neighbours


def heavy_atoms(topology: Topology) -> list[int]:
    """Return the indices of all atoms but hydrogens, virtual sites, water and ions."""
    return [
        atom.index
        for atom in topology.atoms()
        if atom.element is not None and not _is_hydrogen(atom) and atom.residue.name not in SOLVENT
    ]


def whole_positions(topology: Topology, positions: np.ndarray) -> np.ndarray:
    """Return positions of a whole topology in double precision, (n_particles, 3) [nm], if they are that."""
    positions = np.asarray(positions, dtype=np.float64)
    n_particles = topology.getNumAtoms()
    require(
        positions.shape == (n_particles, 3) and bool(np.isfinite(positions).all()),
        f"positions must be finite and of shape (n_particles={n_particles}, 3) [nm], got {positions.shape}; give those "
        f"of the whole topology",
    )
    return positions


def describe_atoms(topology: Topology, indices: Iterable[int]) -> list[AtomRecord]:
    """Return the record of each atom, in the order given."""
    first_residue = {chain.index: next(chain.residues()).index for chain in topology.chains() if len(chain)}
    atoms = list(topology.atoms())
    records = []
    for index in indices:
        require(0 <= index < len(atoms), f"indices must lie in [0, {len(atoms)}), the topology's atoms, got {index}")
        atom = atoms[index]
        residue = atom.residue
        records.append(
            AtomRecord(
                chain=str(residue.chain.index),
                residue_name=residue.name,
                residue_index=residue.index - first_residue[residue.chain.index],
                name=atom.name,
                element="" if atom.element is None else atom.element.symbol,
            )
        )
    return records


def match_atoms(records: Sequence[AtomRecord], topology: Topology, bundle: str = "the bundle") -> list[int]:
    """Find a bundle's model atoms in a topology, whatever the order there.

    Parameters
    ----------
    records : sequence of AtomRecord
        The model atoms, in manifest order.
    topology : openmm.app.Topology
        The System's topology.
    bundle : str
        What messages call the bundle.

    Returns
    -------
    list of int
        The topology's index of each model atom.

    Raises
    ------
    LatentError
        An atom is missing, appears twice, or heavy atoms of the model's residues are unknown to the model.
    """
    described = describe_atoms(topology, range(topology.getNumAtoms()))
    residues: dict[tuple[str, int], list[AtomRecord]] = defaultdict(list)
    for record in records:
        residues[record.chain, record.residue_index].append(record)
    found: dict[AtomRecord, int] = {}
    for index, record in enumerate(described):
        if (record.chain, record.residue_index) not in residues:
            continue
        require(record not in found, f"topology has the atom {record} twice; give each atom of a residue its own name")
        found[record] = index
    places = {(record.chain, record.residue_index, record.name): record for record in described}
    for record in records:
        if record in found:
            continue
        other = places.get((record.chain, record.residue_index, record.name))
        if other is not None:
            raise LatentError(
                f"topology has {other} where {bundle} expects {record}; "
                f"use the molecule for which the bundle was exported, or train on this one"
            )
        raise LatentError(
            f"topology lacks {record}, which {bundle} expects; use the molecule for which the bundle was exported, "
            f"with the same atom names, or train on this one"
        )
    for record in found:
        require(
            not _is_extra(record, residues[record.chain, record.residue_index]),
            f"topology has the extra atom {record}, unknown to {bundle}; "
            f"use the molecule for which the bundle was exported, or train on this one",
        )
    return [found[record] for record in records]


def _is_extra(record: AtomRecord, known: Sequence[AtomRecord]) -> bool:
    """Tell whether an atom should not be there, given what the model sees of its residue.

    A hydrogen is one only where the model sees hydrogens, and nothing is where the model sees the CA alone.
    """
    if record in known or record.element == "" or {other.name for other in known} == {"CA"}:
        return False
    return record.element != "H" or any(other.element == "H" for other in known)


def find_riders(topology: Topology, model_atoms: Sequence[int]) -> list[list[int]]:
    """Find what the model does not see but carries along, and the three model atoms whose local frame carries each.

    These are hydrogens bonded to a model atom, and all atoms of caps (`CAPS`) of which the model sees none.

    Parameters
    ----------
    topology : openmm.app.Topology
    model_atoms : sequence of int
        Topology indices, in manifest order.

    Returns
    -------
    list of list of int
        For each such atom its topology index, then the positions in `model_atoms` of the atom that it, or its cap, is
        bonded to, of one neighbour of that atom and of a second neighbour (its own or the first one's); -1, -1 where
        there are no two.
    """
    place = {index: i for i, index in enumerate(model_atoms)}
    neighbours = bonded_neighbours(topology)
    holders = {}  # what is carried -> the model atom that it hangs on
    for atom in topology.atoms():
        if atom.index not in place and _is_hydrogen(atom):
            holders[atom.index] = next((j for j in neighbours[atom.index] if j in place), None)
    for residue in topology.residues():
        members = [atom.index for atom in residue.atoms()]
        if residue.name in CAPS and not any(atom in place for atom in members):
            holder = next((j for atom in members for j in neighbours[atom] if j in place), None)
            holders |= dict.fromkeys(members, holder)
    riders = []
    for atom, holder in sorted(holders.items()):
        if holder is None:
            continue
        near = [j for j in neighbours[holder] if j in place]
        next_nearest = [k for j in near for k in neighbours[j] if k in place and k != holder and k not in near]
        frame = (near + next_nearest)[:2]
        corners = [place[j] for j in frame] if len(frame) == 2 else [-1, -1]
        riders.append([atom, place[holder], *corners])
    return riders


def whole_parents(topology: Topology, model_atoms: Sequence[int], reference: np.ndarray) -> list[int]:
    """Return, for each model atom, the model atom whose nearest periodic image it takes; -1 at the one root.

    The tree follows bonds (through atoms that the model does not see, where it must). A further molecule hangs on by
    the contact that is shortest in the reference structure, so that a complex arrives in the image it was exported in.

    Parameters
    ----------
    topology : openmm.app.Topology
    model_atoms : sequence of int
        Topology indices, in manifest order.
    reference : np.ndarray
        (n_model_atoms, 3) [nm] of the reference structure.
    """
    place = {index: i for i, index in enumerate(model_atoms)}
    neighbours = bonded_neighbours(topology)
    parents = [-1] * len(model_atoms)
    molecule = np.full(len(model_atoms), -1)

    def hang(root: int, number: int) -> None:
        """Give the molecule of a model atom its number, and each of its atoms but the root a parent."""
        molecule[root] = number
        seen, queue = {model_atoms[root]}, deque([(model_atoms[root], root)])
        while queue:
            atom, nearest = queue.popleft()
            for other in neighbours[atom]:
                if other in seen:
                    continue
                seen.add(other)
                if other in place:
                    parents[place[other]] = nearest
                    molecule[place[other]] = number
                queue.append((other, place.get(other, nearest)))

    n_molecules = 0
    for atom in range(len(model_atoms)):
        if molecule[atom] < 0:
            hang(atom, n_molecules)
            n_molecules += 1
    if n_molecules > 1:
        for contact, root in _shortest_contacts(molecule, reference):
            hang(root, molecule[root])
            parents[root] = contact
    return parents


#: Up to so many model atoms all pairs are looked at; beyond, those that may be shortest.
_MOST_PAIRED = 1000


def _shortest_contacts(molecule: np.ndarray, reference: np.ndarray) -> list[tuple[int, int]]:
    """Join molecules by the tree of their shortest contacts.

    The shortest contact between any two groups of atoms is an edge of their Delaunay triangulation, which has as many
    edges as there are atoms, about eightfold; their pairs grow with the square.

    Parameters
    ----------
    molecule : np.ndarray of int
        (n_atoms,) of each atom, from 0.
    reference : np.ndarray
        (n_atoms, 3) [nm]

    Returns
    -------
    list of (int, int)
        For each molecule but the first an atom nearer to the first molecule and the atom that is in contact with it.
    """
    from scipy import sparse  # half a second that most models never need
    from scipy.sparse import csgraph
    from scipy.spatial import Delaunay

    n_atoms, n_molecules = len(molecule), int(molecule.max()) + 1
    if n_atoms <= _MOST_PAIRED:
        pairs = np.stack(np.triu_indices(n_atoms, 1), axis=1)
    else:  # joggled (QJ), so that atoms on a lattice or at one place are no exception
        corners = Delaunay(reference, qhull_options="QJ").simplices  # (n_tetrahedra, 4)
        pairs = np.concatenate([corners[:, [i, j]] for i in range(4) for j in range(i)])
    pairs = np.where((molecule[pairs[:, 0]] < molecule[pairs[:, 1]])[:, None], pairs, pairs[:, ::-1])
    pairs = pairs[molecule[pairs[:, 0]] != molecule[pairs[:, 1]]]
    pairs = pairs[np.linalg.norm(reference[pairs[:, 0]] - reference[pairs[:, 1]], axis=1).argsort(kind="stable")]
    first, second = molecule[pairs].T
    _, shortest = np.unique(first.astype(np.int64) * n_molecules + second, return_index=True)
    # ranks in place of lengths: a length of zero would be no edge
    entries = (shortest + 1.0, (first[shortest], second[shortest]))
    tree = csgraph.minimum_spanning_tree(sparse.csr_array(entries, shape=(n_molecules, n_molecules)))
    order, before = csgraph.breadth_first_order(tree, 0, directed=False)
    joined = {(int(first[i]), int(second[i])): (int(pairs[i, 0]), int(pairs[i, 1])) for i in shortest}
    contacts = []
    for other in order[1:].tolist():
        nearer = int(before[other])
        atoms = joined[min(nearer, other), max(nearer, other)]
        contacts.append(atoms if nearer < other else atoms[::-1])
    return contacts


def find_structure(topology: Topology) -> Structure:
    """Collect what the guard watches: bonds, chiral centres, peptide torsions, and heavy atoms.

    Chiral centres are each amino acid's CA (its N, C and CB) and the CB of isoleucine and threonine; of ligands, and
    whatever else has no backbone, all atoms with four neighbours of which three or more are heavy, whether or not two
    of these are alike: nothing short of a broken bond turns them over. A peptide torsion is found by its bond: a carbon
    that carries an oxygen, bonded to a nitrogen of another residue.
    """
    atoms = list(topology.atoms())
    neighbours = bonded_neighbours(topology)
    structure = Structure(bonds=[[first.index, second.index] for first, second in topology.bonds()])
    structure.heavy_atoms = heavy_atoms(topology)
    for residue in topology.residues():
        named = {atom.name: atom.index for atom in residue.atoms()}
        if not {"N", "CA", "C"} <= named.keys():
            structure.chiral_centres += _tetrahedral_centres(residue, neighbours, atoms)
            continue
        centres = [("CA", "N", "C", "CB")]
        if residue.name in _SIDE_CHAIN_CENTRES:
            centres.append(_SIDE_CHAIN_CENTRES[residue.name])
        structure.chiral_centres += [[named[n] for n in names] for names in centres if all(n in named for n in names)]
    for first, second in topology.bonds():
        for carbon, nitrogen in ((first, second), (second, first)):
            if carbon.residue is nitrogen.residue or (carbon.name, nitrogen.name) != ("C", "N"):
                continue
            before = [j for j in neighbours[carbon.index] if atoms[j].element.symbol == "C"]
            after = [j for j in neighbours[nitrogen.index] if atoms[j].element.symbol == "C" and j != carbon.index]
            after.sort(key=lambda j: atoms[j].name != "CA")  # proline's ring nitrogen has CD, too
            if before and after:
                structure.omegas.append([before[0], carbon.index, nitrogen.index, after[0]])
    return structure


def _tetrahedral_centres(residue: Residue, neighbours: dict[int, list[int]], atoms: Sequence[Atom]) -> list[list[int]]:
    """Return atoms of a residue with four neighbours, three or more of them heavy: each with three heavy ones.

    Metals are left out: four ligands may lie in a plane.
    """
    centres = []
    for atom in residue.atoms():
        around = neighbours.get(atom.index, [])
        heavy = [j for j in around if atoms[j].element is not None and not _is_hydrogen(atoms[j])]
        is_tetrahedral = atom.element is not None and atom.element.symbol in _TETRAHEDRAL
        if is_tetrahedral and len(around) == 4 and len(heavy) >= 3:
            centres.append([atom.index, *heavy[:3]])
    return centres


def has_water(topology: Topology) -> bool:
    """Tell whether the topology is one of explicit solvent: any residue of one oxygen and two hydrogens is water."""
    return any(
        sorted(atom.element.symbol for atom in residue.atoms() if atom.element is not None) in (["H", "H", "O"], ["O"])
        for residue in topology.residues()
    )
