"""What Cα traces say beside their residues: caps, and which cysteines are bonded."""

from pathlib import Path

import numpy as np
import pytest
from openmm import app, unit

from backmapped import trace_topology
from openmm_latent.data.caps import CapBuilder
from openmm_latent.data.disulphides import read_bridges, ssbond_records
from openmm_latent.data.traces import read_trace
from openmm_latent.errors import LatentError
from openmm_latent.geometry import dihedrals
from openmm_latent.topology import CAPS, find_structure

PDB = app.PDBFile(str(Path(__file__).parent / "capped_peptide.pdb"))
TOPOLOGY, POSITIONS = PDB.topology, np.array(PDB.positions.value_in_unit(unit.nanometer))
CA_TOPOLOGY, CAS = trace_topology(TOPOLOGY, POSITIONS)
RING = ((("A", "1"), ("A", "8")),)


def heavy_names(topology):
    """Return (residue name, atom name) of all heavy atoms, in order."""
    return [(atom.residue.name, atom.name) for atom in topology.atoms() if atom.element.symbol != "H"]


def test_an_all_atom_file_tells_caps_and_bridges():
    trace = read_trace(TOPOLOGY, POSITIONS)
    assert trace.caps == (("ACE", ""), *[("", "")] * 6, ("", "NME"))
    assert trace.disulphides.tolist() == [[0, 7]]
    assert not trace.residues.has_oxt.any()
    assert trace.residues.is_joined.tolist() == [False] + [True] * 7
    topology = trace.topology()
    assert sorted(heavy_names(topology)) == sorted(heavy_names(TOPOLOGY))
    assert [residue.id for residue in topology.residues()] == [str(i) for i in range(10)]

    def bonds(of):
        ends = [tuple(sorted((atom.residue.index, atom.name) for atom in bond)) for bond in of.bonds()]
        known = {(atom.residue.index, atom.name) for atom in topology.atoms()}
        return {pair for pair in ends if set(pair) <= known}

    assert bonds(topology) == bonds(TOPOLOGY)


def test_a_bare_trace_has_neither():
    trace = read_trace(CA_TOPOLOGY, CAS)
    assert trace.caps == (("", ""),) * 8
    assert trace.disulphides.shape == (0, 2)
    assert trace.residues.has_oxt.tolist() == [False] * 7 + [True]
    bridged = trace.bridged(RING, CAS)
    assert bridged.disulphides.tolist() == [[0, 7]]
    sulphurs = [{atom.name for atom in bond} for bond in bridged.topology().bonds()]
    assert sulphurs.count({"SG"}) == 1


def test_caps_between_chains_of_one_letter_break_them():
    topology, places = app.Topology(), []
    chain = topology.addChain("A")
    for name in ("ACE", "GLY", "ALA", "NHE", "ACE", "GLY", "ALA", "NMA"):
        residue = topology.addResidue(name, chain)
        topology.addAtom("C" if name in CAPS else "CA", app.element.carbon, residue)
        places.append([0.38 * (residue.index % 4) + 0.1 * (residue.index // 4), 0.0, 0.0])
    trace = read_trace(topology, np.array(places))
    assert trace.caps == (("ACE", ""), ("", "NH2"), ("ACE", ""), ("", "NME"))
    assert trace.residues.is_joined.tolist() == [False, True, False, True]
    assert not trace.residues.has_oxt.any()


def test_caps_are_built_flat_trans_and_out_of_the_way():
    trace = read_trace(TOPOLOGY, POSITIONS)
    topology = trace.topology()
    places = {(atom.residue.index, atom.name): atom.index for atom in TOPOLOGY.atoms()}
    true = POSITIONS[[places[atom.residue.index, atom.name] for atom in topology.atoms()]]
    is_cap = np.array([atom.residue.name in CAPS for atom in topology.atoms()])
    built = CapBuilder(topology)(true[~is_cap])
    np.testing.assert_allclose(built[~is_cap], true[~is_cap], atol=1e-6)
    assert is_cap.sum() == 5
    of_nme = [atom.index for atom in topology.atoms() if atom.residue.name == "NME"]
    assert np.linalg.norm(built[of_nme] - true[of_nme], axis=1).max() < 0.06
    omegas = np.array([omega for omega in find_structure(topology).omegas if is_cap[omega].any()])
    assert len(omegas) == 2
    assert np.abs(np.cos(dihedrals(built[None], omegas)) + 1.0).max() < 1e-6
    bonds = np.array([(a.index, b.index) for a, b in topology.bonds()])
    lengths = np.linalg.norm(built[bonds[:, 0]] - built[bonds[:, 1]], axis=1)
    assert lengths[is_cap[bonds].any(axis=1)].min() > 0.12
    assert lengths[is_cap[bonds].any(axis=1)].max() < 0.155
    near = np.linalg.norm(built[:, None] - built[None], axis=2)[is_cap][:, ~is_cap]
    assert np.sort(near.ravel())[2:].min() > 0.2  # but for two bonds


def test_bridges_are_read_from_words_and_records(tmp_path):
    assert read_bridges("A:3-A:40, B:1-C:7B") == [(("A", "3"), ("A", "40")), (("B", "1"), ("C", "7B"))]
    assert read_bridges("3-40 A:5--2") == [(("", "3"), ("", "40")), (("A", "5"), ("A", "-2"))]
    with pytest.raises(LatentError, match=r"disulphides must be pairs of residues such as A:3-A:40.*, got 'CYS3'"):
        read_bridges("CYS3")
    (tmp_path / "x.pdb").write_text(
        "HEADER    X\nSSBOND   1 CYS A    3    CYS B   40                          1555   1555  2.04  \n"
    )
    assert ssbond_records(tmp_path / "x.pdb") == [(("A", "3"), ("B", "40"))]


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        ([(("", "1"), ("", "3"))], "disulphides must join CYS residues, got ALA 3; check the numbers"),
        ([(("A", "1"), ("A", "9"))], "disulphides name residue 9 of chain A, which the trace has 0 times; give chain"),
        ([(("A", "1"), ("A", "1"))], r"disulphides must span less than 1 nm .*, got A:1-A:1 with 0.00 nm"),
        ([(("A", "1"), ("A", "8")), (("A", "8"), ("A", "1"))], "each CYS in one bridge, got one twice in A:1-A:8, A:8"),
    ],
)
def test_bridges_that_cannot_be_are_refused(pairs, sentence):
    with pytest.raises(LatentError, match=sentence):
        read_trace(CA_TOPOLOGY, CAS).bridged(pairs, CAS)


def test_bridges_over_a_gap_are_refused():
    far = CAS.copy()
    far[7] += 2.0
    with pytest.raises(LatentError, match=r"must span less than 1 nm from Cα to Cα, got A:1-A:8 with [23]\.\d\d nm"):
        read_trace(CA_TOPOLOGY, CAS).bridged(RING, far)
