"""Tokens of a complex: what becomes of residues, caps and ligands, and that nothing is dropped."""

import numpy as np
import openmm as mm
import pytest
from openmm import app

import toys
from complexes import SDF, complex_system, load_complex
from gaussian_proteins import load_two_chains
from openmm_latent import LatentError
from openmm_latent.data.complex_tokens import ATOM, NO_SLOT, name_elements, read_tokens
from openmm_latent.data.sdf import match_molecule, read_sdf

TOPOLOGY, POSITIONS = load_complex()
TOKENS = read_tokens(TOPOLOGY)


def test_residues_caps_and_ligands_become_tokens():
    assert TOKENS.names == ["C", "C", "O", "ALA", "N", "C", "C", "C", "O", "N"]
    assert (len(TOKENS), TOKENS.n_atoms) == (10, 14)
    assert TOKENS.is_ligand.tolist() == [False] * 6 + [True] * 4
    assert np.bincount(TOKENS.token).tolist() == [1, 1, 1, 5, 1, 1, 1, 1, 1, 1]
    assert (TOKENS.slots == NO_SLOT).sum() == 9
    assert TOKENS.chains.tolist() == [0] * 6 + [1] * 4
    assert TOKENS.hydrogens.tolist() == [3, 0, 0, 1, 1, 3, 0, 0, 1, 3, 3, 0, 0, 2]


def test_a_protein_is_a_token_a_residue():
    topology, _ = load_two_chains()
    tokens = read_tokens(topology)
    assert tokens.names == [residue.name for residue in topology.residues()]
    assert (tokens.types < ATOM).all()
    assert not tokens.is_ligand.any()
    atoms = list(topology.atoms())
    names = [atoms[tokens.atoms[i]].name for i in tokens.centres]
    assert set(names) == {"CA", "CB"}
    assert all((name == "CA") == (what == "GLY") for name, what in zip(names, tokens.names, strict=True))
    assert [[atoms[tokens.atoms[i]].name for i in frame] for frame in tokens.frames] == [["N", "CA", "C"]] * len(tokens)


def test_frames_of_atoms_are_their_neighbours_in_bonds():
    assert TOKENS.frames[6:].tolist() == [[11, 10, 12], [10, 11, 12], [11, 12, 10], [11, 13, 10]]
    assert TOKENS.frames[0].tolist() == [1, 0, 2]


def test_a_lone_ion_has_no_frame_and_is_there():
    topology, _ = toys.load_adp()
    topology.addAtom("ZN", app.element.zinc, topology.addResidue("ZN", topology.addChain()))
    tokens = read_tokens(topology)
    assert tokens.names[-1] == "Zn"
    assert tokens.is_ligand[-1]
    assert len(set(tokens.frames[-1].tolist())) == 1


def test_charges_of_the_system_are_those_of_atoms_with_their_hydrogens():
    tokens = read_tokens(TOPOLOGY, complex_system(TOPOLOGY))
    assert tokens.knows_charges
    np.testing.assert_allclose(tokens.charges[10:], [-0.0293, 0.5972, -0.5679, 0.0], atol=1e-6)
    assert abs(tokens.charges.sum()) < 1e-6
    assert tokens.same_as(TOKENS)


def test_bond_orders_come_from_an_sdf_file_or_the_topology(tmp_path):
    path = tmp_path / "acetamide.sdf"
    path.write_text(SDF)
    tokens = read_tokens(TOPOLOGY, ligands=[path])
    orders = {tuple(bond): int(order) for bond, order in zip(tokens.bonds, tokens.orders, strict=True)}
    assert {pair: order for pair, order in orders.items() if order} == {(10, 11): 1, (11, 12): 2, (11, 13): 1}
    topology = app.Topology()
    residue = topology.addResidue("CO", topology.addChain())
    pair = [topology.addAtom(name, app.Element.getBySymbol(name), residue) for name in ("C", "O")]
    topology.addBond(*pair, type=app.Triple)
    assert read_tokens(topology).orders.tolist() == [3]


def test_formal_charges_of_an_sdf_file_count_where_there_is_no_system(tmp_path):
    path = tmp_path / "charged.sdf"
    path.write_text(SDF.replace("M  END", "M  CHG  2   1   1   3  -1\nM  END"))
    assert read_sdf(path).charges.tolist() == [1, 0, -1, 0]
    assert read_tokens(TOPOLOGY, ligands=[path]).charges[10:].tolist() == [0.0, 0.0, -1.0, 1.0]


def test_molecules_match_by_elements_and_bonds(tmp_path):
    path = tmp_path / "acetamide.sdf"
    path.write_text(SDF)
    molecule = read_sdf(path)
    assert match_molecule(molecule, ["O", "C", "C", "N"], np.array([[0, 1], [1, 2], [1, 3]])) == [2, 1, 3, 0]
    assert match_molecule(molecule, ["O", "C", "C", "N"], np.array([[0, 1], [1, 2], [2, 3]])) is None
    assert match_molecule(molecule, ["O", "C", "C", "O"], np.array([[0, 1], [1, 2], [1, 3]])) is None


def test_tokens_can_be_cut_out():
    part, kept = TOKENS.select([3, 6, 7])
    assert part.names == ["ALA", "C", "C"]
    assert kept.tolist() == [3, 4, 5, 6, 7, 10, 11]
    assert part.atoms.tolist() == TOKENS.atoms[kept].tolist()
    assert part.token.tolist() == [0] * 5 + [1, 2]
    assert part.bonds.tolist() == [[0, 1], [1, 2], [1, 3], [3, 4], [5, 6]]
    assert part.frames.tolist() == [[0, 1, 3], [5, 5, 5], [6, 6, 6]]
    whole, kept = TOKENS.select(range(10))
    assert whole.same_as(TOKENS)
    assert kept.tolist() == list(range(14))
    with pytest.raises(LatentError, match="tokens must rise and be at least one"):
        TOKENS.select([3, 2])


def test_modified_residues_are_split_into_atoms():
    topology, _ = toys.load_adp()
    next(atom for atom in topology.atoms() if atom.name == "CB").name = "CX"
    tokens = read_tokens(topology)
    assert (tokens.types == ATOM).all()
    assert len(tokens) == tokens.n_atoms == 10


def test_what_cannot_be_understood_is_refused_in_a_sentence(tmp_path):
    topology, _ = toys.load_adp()
    residue = topology.addResidue("MOL", topology.addChain())
    for name in ("C1", "C2"):
        topology.addAtom(name, app.element.carbon, residue)
    with pytest.raises(LatentError, match="has C1, C2 of residue MOL 4 without any bond: a ligand's bonds tell"):
        read_tokens(topology)
    trace = app.Topology()
    trace.addAtom("CA", app.element.carbon, trace.addResidue("ALA", trace.addChain()))
    with pytest.raises(LatentError, match="residue ALA 1 of chain 1 without N, C; build what is absent"):
        read_tokens(trace)
    with pytest.raises(LatentError, match="topology has no heavy atoms but those of water and ions"):
        read_tokens(app.Topology())
    with pytest.raises(LatentError, match="system has 22 particles, but the topology has 31 atoms"):
        read_tokens(TOPOLOGY, toys.adp_system(toys.load_adp()[0]))
    empty = mm.System()
    for _ in range(31):
        empty.addParticle(1.0)
    with pytest.raises(LatentError, match="system has no NonbondedForce to read charges from"):
        read_tokens(TOPOLOGY, empty)


def test_atoms_without_element_get_it_from_their_mass_or_are_refused():
    topology, _ = load_complex()
    system = complex_system(topology)
    next(atom for atom in topology.atoms() if atom.name == "O1").element = None
    with pytest.raises(LatentError, match="has O1 of residue LIG 4 without an element, as some prmtop files"):
        read_tokens(topology)
    name_elements(topology, system)
    assert read_tokens(topology).same_as(TOKENS)
    with pytest.raises(LatentError, match="system has 31 particles, but the topology has 22 atoms"):
        name_elements(toys.load_adp()[0], system)


def test_mass_that_was_moved_to_hydrogens_does_not_make_other_elements():
    topology, _ = load_complex()
    system = complex_system(topology)
    for first, second in topology.bonds():
        light, heavy = sorted((first, second), key=lambda atom: atom.element.mass._value)
        if light.element.symbol == "H":
            for atom, more in ((light, 2.9), (heavy, -2.9)):
                system.setParticleMass(atom.index, system.getParticleMass(atom.index)._value + more)
    for atom in topology.atoms():
        atom.element = None  # of hydrogens, too
    name_elements(topology, system)
    assert [atom.element for atom in topology.atoms()] == [atom.element for atom in load_complex()[0].atoms()]


def test_bad_ligand_files_are_refused_in_a_sentence(tmp_path):
    path = tmp_path / "x.sdf"
    with pytest.raises(LatentError, match=r"ligand file .*x\.sdf does not exist"):
        read_sdf(path)
    path.write_text("hello")
    with pytest.raises(LatentError, match="is no SDF or MOL file of version V2000"):
        read_sdf(path)
    path.write_text("\n".join(SDF.splitlines()[:9]))
    with pytest.raises(LatentError, match=r"ligand file .* is damaged \(fewer atoms or bonds"):
        read_sdf(path)
    path.write_text(SDF.replace(" N ", " S "))
    with pytest.raises(LatentError, match=r"\(acetamide, 4 atoms\) fits no residue of the topology"):
        read_tokens(TOPOLOGY, ligands=[path])
