"""The tables of residues against OpenMM's bonds, pdbfixer's template structures and the project's own torsions."""

from pathlib import Path

import numpy as np
import pdbfixer
import pytest
from openmm import app, unit

from openmm_latent.data import backbone
from openmm_latent.errors import LatentError
from openmm_latent.geometry import dihedrals, torsion_quadruples
from openmm_latent.nn.residue_geometry import (
    N_SLOTS,
    OXT,
    RESIDUE_NAMES,
    UNKNOWN,
    angle_pairs,
    bond_pairs,
    describe_residues,
    residue_tables,
)
from openmm_latent.topology import describe_atoms

TABLES = residue_tables()
ALL = np.arange(20)


def template(name):
    """Return pdbfixer's structure of a residue: its topology and (n_atoms, 3) [nm]."""
    pdb = app.PDBFile(str(Path(pdbfixer.__file__).parent / "templates" / f"{name}.pdb"))
    return pdb.topology, np.array(pdb.positions.value_in_unit(unit.nanometer))


def in_slots(name):
    """Return a residue's template structure by slot, (15, 3) [nm]; NaN where there is no atom."""
    topology, positions = template(name)
    slots = np.full((N_SLOTS, 3), np.nan)
    for atom in topology.atoms():
        slots[TABLES.atom_names[RESIDUE_NAMES.index(name)].index(atom.name)] = positions[atom.index]
    return slots


def bonds_of_openmm(types, has_oxt):
    """Return the bonds that OpenMM knows for a chain, as sets of (residue, atom name)."""
    topology = app.Topology()
    chain = topology.addChain()
    for place, names in enumerate(describe_residues(types, has_oxt=has_oxt).atom_names):
        residue = topology.addResidue(RESIDUE_NAMES[types[place]], chain)
        for name in filter(None, names):
            topology.addAtom(name, app.Element.getBySymbol(name[0]), residue)
    topology.createStandardBonds()
    return {frozenset((atom.residue.index, atom.name) for atom in bond) for bond in topology.bonds()}


def test_names_are_those_of_the_backbone():
    assert RESIDUE_NAMES == backbone.RESIDUE_NAMES
    assert UNKNOWN == backbone.UNKNOWN


@pytest.mark.parametrize("name", RESIDUE_NAMES)
def test_atoms_are_those_of_the_template_structure(name):
    names = {atom.name for atom in template(name)[0].atoms()}
    assert names == set(filter(None, TABLES.atom_names[RESIDUE_NAMES.index(name)][:OXT]))


def test_bonds_are_those_of_openmm():
    has_oxt = np.arange(20) == 19
    residues = describe_residues(ALL)
    names = residues.atom_names
    pairs, _ = bond_pairs(residues)
    found = {frozenset((atom // N_SLOTS, names[atom // N_SLOTS][atom % N_SLOTS]) for atom in pair) for pair in pairs}
    assert found == bonds_of_openmm(ALL, has_oxt)
    assert len(found) == len(pairs)


def test_a_disulphide_is_a_bond_of_two_sulphurs():
    cysteine = RESIDUE_NAMES.index("CYS")
    residues = describe_residues(np.array([cysteine, 0, cysteine]))
    without, _ = bond_pairs(residues)
    pairs, lengths = bond_pairs(residues, np.array([[0, 2]]))
    assert len(pairs) == len(without) + 1
    assert [residues.atom_names[atom // N_SLOTS][atom % N_SLOTS] for atom in pairs[-1]] == ["SG", "SG"]
    assert lengths[-1] == pytest.approx(0.2038, abs=1e-4)


def test_a_break_has_no_bond_and_no_oxt():
    whole = describe_residues(np.zeros(4, dtype=int))
    broken = describe_residues(np.zeros(4, dtype=int), is_joined=np.array([False, True, False, True]))
    assert len(bond_pairs(whole)[0]) == len(bond_pairs(broken)[0]) + 1
    assert whole.has_oxt.tolist() == broken.has_oxt.tolist() == [False, False, False, True]


def test_each_chain_ends_in_an_oxt_unless_told_otherwise():
    chains = np.array([5, 5, 2, 2, 2])
    assert describe_residues(np.zeros(5, dtype=int), chains).has_oxt.tolist() == [False, True, False, False, True]
    capped = describe_residues(np.zeros(5, dtype=int), chains, has_oxt=np.zeros(5, dtype=bool))
    assert not capped.has_atom[:, OXT].any()


def test_pairs_of_angles_are_the_squared_adjacency():
    pairs, _ = bond_pairs(describe_residues(ALL))
    adjacency = np.zeros((20 * N_SLOTS, 20 * N_SLOTS), dtype=int)
    adjacency[pairs[:, 0], pairs[:, 1]] = adjacency[pairs[:, 1], pairs[:, 0]] = 1
    expected = np.argwhere(np.triu((adjacency @ adjacency > 0) & (adjacency == 0), 1))
    np.testing.assert_array_equal(angle_pairs(pairs), expected)


@pytest.mark.parametrize("name", RESIDUE_NAMES)
def test_lengths_and_angles_are_near_those_of_the_template(name):
    kind, slots = RESIDUE_NAMES.index(name), in_slots(name)
    pairs, lengths = TABLES.bonds[kind], TABLES.bond_lengths[kind]
    found = np.linalg.norm(slots[pairs[:, 0]] - slots[pairs[:, 1]], axis=1)
    np.testing.assert_allclose(found, lengths, atol=0.008)  # the templates are drawn by another program
    for slot in range(3, OXT):
        third, second, first = TABLES.references[kind, slot]
        if third >= 0:
            arms = slots[[slot, second]] - slots[third]
            angle = np.arccos(arms[0] @ arms[1] / np.prod(np.linalg.norm(arms, axis=1)))
            assert abs(angle - TABLES.ideal[kind, slot, 1]) < np.radians(9), TABLES.atom_names[kind][slot]
            if TABLES.chi[kind, slot] == 0 and slot > 3:
                torsion = dihedrals(slots[None], np.array([[first, second, third, slot]]))[0, 0]
                difference = np.angle(np.exp(1j * (torsion - TABLES.ideal[kind, slot, 2])))
                assert abs(difference) < np.radians(12), TABLES.atom_names[kind][slot]


@pytest.mark.parametrize("name", RESIDUE_NAMES)
def test_chi_turn_the_atoms_that_the_torsions_of_the_project_name(name):
    kind = RESIDUE_NAMES.index(name)
    topology, _ = template(name)
    records = describe_atoms(topology, range(topology.getNumAtoms()))
    names = TABLES.atom_names[kind]
    for number in range(1, 5):
        expected = [[records[atom].name for atom in four] for four in torsion_quadruples(records, f"chi{number}")]
        found = [
            [names[place] for place in (*TABLES.references[kind, slot, ::-1], slot)]
            for slot in np.flatnonzero(TABLES.chi[kind] == number)
        ]
        assert found == expected


@pytest.mark.parametrize("name", RESIDUE_NAMES)
def test_the_template_has_the_handedness_of_the_table(name):
    kind, slots = RESIDUE_NAMES.index(name), in_slots(name)
    expected = 0 if name == "GLY" else 2 if name in ("ILE", "THR") else 1
    assert np.count_nonzero(TABLES.handedness[kind]) == expected
    for centre, sign in zip(TABLES.centres[kind], TABLES.handedness[kind], strict=True):
        if sign:
            arms = slots[centre[1:]] - slots[centre[0]]
            assert np.sign(np.linalg.det(arms)) == sign


def test_exchanging_names_twice_changes_nothing_and_keeps_the_bonds():
    for kind, name in enumerate(RESIDUE_NAMES):
        renamed = TABLES.renamed[kind]
        np.testing.assert_array_equal(renamed[renamed], np.arange(N_SLOTS))
        bonds = {frozenset(pair) for pair in TABLES.bonds[kind].tolist()}
        assert {frozenset(renamed[list(bond)].tolist()) for bond in bonds} == bonds
        assert (renamed != np.arange(N_SLOTS)).any() == (name in ("ARG", "ASP", "GLU", "PHE", "TYR"))
    half = {(RESIDUE_NAMES[kind], chi + 1) for kind, chi in np.argwhere(TABLES.is_half_turn)}
    assert half == {("ASP", 2), ("GLU", 3), ("PHE", 2), ("TYR", 2)}


def test_an_unknown_residue_is_a_backbone():
    residues = describe_residues(np.array([UNKNOWN, UNKNOWN, 0]))
    assert residues.atom_names[0] == ("N", "CA", "C", "O", *[""] * 11)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"types": np.array([0.0, 1.0])}, r"types must be integers of shape \(n_residues,\), got float64"),
        ({"types": np.array([0, 21])}, "types must lie between 0 and 20, got 0 to 21"),
        ({"types": np.zeros(3, int), "chains": np.array([0, 1, 0])}, "one after another, got 2 chains in 3 pieces"),
        ({"types": np.zeros(3, int), "chains": np.array([0, 1])}, r"chains must have shape \(n_residues=3,\), got \(2"),
        ({"types": np.zeros(2, int), "is_joined": np.ones(2, bool)}, "is_joined must be false for the first residue"),
        ({"types": np.zeros(2, int), "has_oxt": np.ones(3, bool)}, r"has_oxt must have shape \(n_residues=2,\)"),
    ],
)
def test_wrong_residues_are_refused_in_a_sentence(arguments, message):
    with pytest.raises(LatentError, match=message):
        describe_residues(**arguments)


@pytest.mark.parametrize("bridge", [[0, 1], [0, 7], [-1, 0]])
def test_a_disulphide_without_two_cysteines_is_refused(bridge):
    residues = describe_residues(np.array([RESIDUE_NAMES.index("CYS"), 0]))
    with pytest.raises(LatentError, match=r"disulphides must join two CYS residues, got \["):
        bond_pairs(residues, np.array([bridge]))
