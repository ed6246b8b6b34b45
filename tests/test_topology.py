"""Model atoms by name, riders, trees and what the guard watches."""

import numpy as np
import pytest
from openmm import app

import toys
from openmm_latent import LatentError
from openmm_latent.topology import (
    describe_atoms,
    find_riders,
    find_structure,
    has_water,
    heavy_atoms,
    match_atoms,
    whole_parents,
)


@pytest.fixture
def topology():
    return toys.load_adp()[0]


def reordered(topology, order):
    """The same molecule with the atoms of each residue in another order."""
    twin = app.Topology()
    chain = twin.addChain()
    new = {}
    for residue in topology.residues():
        copy = twin.addResidue(residue.name, chain)
        for atom in order(list(residue.atoms())):
            new[atom] = twin.addAtom(atom.name, atom.element, copy)
    for first, second in topology.bonds():
        if first in new and second in new:
            twin.addBond(new[first], new[second])
    return twin


def test_atoms_in_another_order_are_mapped(topology):
    records = describe_atoms(topology, heavy_atoms(topology))
    twin = reordered(topology, lambda atoms: atoms[::-1])
    names = [atom.name for atom in twin.atoms()]
    assert [names[i] for i in match_atoms(records, twin)] == [record.name for record in records]


def test_a_missing_and_an_extra_atom_are_named(topology):
    records = describe_atoms(topology, heavy_atoms(topology))
    without = reordered(topology, lambda atoms: [a for a in atoms if a.name != "CB"])
    with pytest.raises(LatentError, match="lacks CB of residue ALA 2"):
        match_atoms(records, without)
    with pytest.raises(LatentError, match="extra atom CB of residue ALA 2"):
        match_atoms([record for record in records if record.name != "CB"], topology)


def test_a_model_of_ca_atoms_does_not_mind_the_others(topology):
    records = [r for r in describe_atoms(topology, heavy_atoms(topology)) if (r.residue_name, r.name) == ("ALA", "CA")]
    assert len(match_atoms(records, topology)) == 1


def test_every_hydrogen_rides_on_the_atom_it_is_bonded_to(topology):
    atoms = list(topology.atoms())
    heavy = heavy_atoms(topology)
    bonds = {frozenset((a.index, b.index)) for a, b in topology.bonds()}
    riders = find_riders(topology, heavy)
    assert sorted(rider[0] for rider in riders) == [a.index for a in atoms if a.element.symbol == "H"]
    for hydrogen, origin, axis, plane in riders:
        assert frozenset((hydrogen, heavy[origin])) in bonds
        assert len({origin, axis, plane}) == 3
        assert frozenset((heavy[origin], heavy[axis])) in bonds


def test_a_lone_model_atom_carries_its_hydrogens_without_turning(topology):
    alpha = next(a.index for a in topology.atoms() if (a.residue.name, a.name) == ("ALA", "CA"))
    assert [rider[1:] for rider in find_riders(topology, [alpha])] == [[0, -1, -1]]


def test_a_cap_that_the_model_does_not_see_rides_on_its_neighbour(topology):
    """ACE on the nitrogen of alanine, NME on its carbon, hydrogens and all, each with one frame."""
    atoms = list(topology.atoms())
    inner = [a.index for a in atoms if a.residue.name == "ALA" and a.element.symbol != "H"]
    riders = {rider[0]: rider[1:] for rider in find_riders(topology, inner)}
    assert len(riders) + len(inner) == len(atoms)
    for name, frame in (("ACE", ["N", "CA"]), ("NME", ["C", "CA", "O"])):
        found = {tuple(riders[a.index]) for a in atoms if a.residue.name == name}
        assert len(found) == 1
        corners = [atoms[inner[i]].name for i in found.pop()]
        assert corners[: len(frame)] == frame
        assert len(set(corners)) == 3
    alpha = [a.index for a in atoms if (a.residue.name, a.name) == ("ALA", "CA")]
    assert not {a.index for a in atoms if a.residue.name in ("ACE", "NME")} & {
        r[0] for r in find_riders(topology, alpha)
    }


def test_the_tree_follows_bonds_and_the_shortest_contact():
    twin = app.Topology()
    for _ in range(2):
        residue = twin.addResidue("TRI", twin.addChain())
        atoms = [twin.addAtom(f"C{k}", app.element.carbon, residue) for k in range(3)]
        twin.addBond(atoms[0], atoms[1])
        twin.addBond(atoms[1], atoms[2])
    reference = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [2, 5, 0], [2, 4, 0], [2, 3, 0]], dtype=float)
    # The second chain hangs by its last atom on the first chain's last.
    assert whole_parents(twin, [0, 1, 2, 3, 4, 5], reference) == [-1, 0, 1, 4, 5, 2]
    # Through an atom that the model does not see.
    assert whole_parents(twin, [0, 2], reference[[0, 2]]) == [-1, 0]


def test_the_guard_watches_the_right_atoms(topology):
    structure = find_structure(topology)
    names = [a.name for a in topology.atoms()]
    residues = [a.residue.name for a in topology.atoms()]
    assert [[names[i] for i in centre] for centre in structure.chiral_centres] == [["CA", "N", "C", "CB"]]
    assert [[residues[i] for i in omega] for omega in structure.omegas] == [
        ["ACE", "ACE", "ALA", "ALA"],
        ["ALA", "ALA", "NME", "NME"],
    ]
    assert len(structure.bonds) == 21
    assert len(structure.heavy_atoms) == 10


def test_water_is_found(topology):
    assert not has_water(topology)
    residue = topology.addResidue("HOH", topology.addChain())
    topology.addAtom("O", app.element.oxygen, residue)
    assert has_water(topology)
    assert len(heavy_atoms(topology)) == 10
