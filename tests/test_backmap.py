"""Cα traces into heavy atoms: reading traces, drawing, minimising, and the command."""

import re

import mdtraj
import numpy as np
import pytest
import torch
from openmm import app, unit
from typer.testing import CliRunner

from backmapped import CONFIG, load_l_peptides, random_model, taught_model, trace_topology
from gaussian_proteins import load_two_chains
from openmm_latent import LatentError
from openmm_latent.backmapping import load_backmapper
from openmm_latent.cli import app as command
from openmm_latent.cli.backmap import read_frames
from openmm_latent.data.restrained import RestrainedMinimiser
from openmm_latent.data.traces import heavy_topology, read_trace
from openmm_latent.models.codlad.weights import save_weights
from openmm_latent.nn.residue_geometry import RESIDUE_NAMES, describe_residues
from openmm_latent.topology import find_structure
from openmm_latent.training.codlad_binding import bind_codlad

TOPOLOGY, POSITIONS = load_l_peptides()
CA_TOPOLOGY, CAS = trace_topology(TOPOLOGY, POSITIONS)
CENTRES = np.array(find_structure(TOPOLOGY).chiral_centres)
HANDS = np.sign(np.linalg.det(POSITIONS[CENTRES[:, 1:]] - POSITIONS[CENTRES[:, :1]]))
HEAVY = [atom.index for atom in TOPOLOGY.atoms() if atom.element.symbol != "H"]


def frames(n, seed=1):
    """Return the trace moved by 2 pm: (n, 13, 3) [nm]."""
    return CAS + 0.002 * np.random.default_rng(seed).normal(size=(n, *CAS.shape))


def write_pdb(path, topology, positions):
    with open(path, "w") as handle:
        app.PDBFile.writeFile(topology, positions * unit.nanometer, handle, keepIds=True)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_weights(tmp_path_factory.mktemp("weights") / "any.weights.pt", random_model(), {})


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """Weights of a model that builds the one structure."""
    model = taught_model(TOPOLOGY, POSITIONS)
    return save_weights(tmp_path_factory.mktemp("taught") / "taught.weights.pt", model, {})


@pytest.fixture(scope="module")
def bound(weights):
    return bind_codlad(weights, TOPOLOGY, POSITIONS, weights.with_name("bound.latent.pt"))


# ---- traces ----------------------------------------------------------------------------------------------------------


def test_a_trace_tells_the_residues_and_all_their_heavy_atoms():
    trace = read_trace(CA_TOPOLOGY, CAS)
    names = [residue.name for residue in TOPOLOGY.residues()]
    assert [RESIDUE_NAMES[kind] for kind in trace.residues.types] == names
    assert trace.residues.is_joined.tolist() == [False] + 7 * [True] + [False] + 4 * [True]
    topology = trace.topology()
    assert [len(list(chain.residues())) for chain in topology.chains()] == [8, 5]
    expected = {(atom.residue.index, atom.name) for atom in TOPOLOGY.atoms() if atom.element.symbol != "H"}
    assert {(atom.residue.index, atom.name) for atom in topology.atoms()} == expected

    def bonds(of):
        ends = ([(atom.residue.index, atom.name) for atom in bond] for bond in of.bonds())
        return {frozenset(pair) for pair in ends if set(pair) <= expected}

    assert bonds(topology) == bonds(TOPOLOGY)


def test_atoms_beside_the_trace_are_passed_over():
    trace = read_trace(TOPOLOGY, POSITIONS)
    np.testing.assert_array_equal(POSITIONS[trace.cas], CAS)
    np.testing.assert_array_equal(trace.residues.types, read_trace(CA_TOPOLOGY, CAS).residues.types)


def test_a_gap_breaks_the_chain():
    moved = CAS.copy()
    moved[4:8] += 1.0
    assert np.flatnonzero(~read_trace(CA_TOPOLOGY, moved).residues.is_joined).tolist() == [0, 4, 8]


def test_traces_that_cannot_be_built_are_refused():
    topology = app.Topology()
    residue = topology.addResidue("LIG", topology.addChain("X"), "7")
    topology.addAtom("C1", app.element.carbon, residue)
    with pytest.raises(LatentError, match="trace has no Cα atoms among 1 atoms; give a file whose residues have"):
        read_trace(topology, np.zeros((1, 3)))
    topology.addAtom("CA", app.element.carbon, residue)
    with pytest.raises(LatentError, match="trace has residue LIG 7 of chain X, which is none of the 20 amino acids"):
        read_trace(topology, np.zeros((2, 3)))


def test_an_mmcif_file_is_a_trace_and_so_are_models_of_a_pdb(tmp_path):
    with open(tmp_path / "ca.cif", "w") as handle:
        app.PDBxFile.writeFile(CA_TOPOLOGY, CAS * unit.nanometer, handle, keepIds=True)
    found, times, trace = read_frames(tmp_path / "ca.cif", None, 1)
    np.testing.assert_allclose(found, CAS[None], atol=1e-4)
    np.testing.assert_array_equal(trace.residues.types, read_trace(CA_TOPOLOGY, CAS).residues.types)
    with open(tmp_path / "ca.pdb", "w") as handle:
        for number, frame in enumerate(frames(5)):
            app.PDBFile.writeModel(CA_TOPOLOGY, frame * unit.nanometer, handle, modelIndex=number + 1)
    found, times, _ = read_frames(tmp_path / "ca.pdb", None, 2)
    np.testing.assert_allclose(found, frames(5)[::2], atol=1e-4)
    assert times.tolist() == [0.0, 2.0, 4.0]


# ---- drawing ---------------------------------------------------------------------------------------------------------


def test_samples_keep_their_traces_differ_and_depend_on_nothing_but_their_numbers(weights, monkeypatch):
    mapper = load_backmapper(weights, read_trace(CA_TOPOLOGY, CAS), n_candidates=1)
    traces = frames(3)
    drawn = np.stack(list(mapper.draw(traces, 2, seed=5)))
    assert drawn.shape == (6, len(HEAVY), 3)
    cas = [atom.index for atom in mapper.topology.atoms() if atom.name == "CA"]
    np.testing.assert_array_equal(drawn[:, cas], np.repeat(traces, 2, axis=0).astype(np.float32))
    assert np.abs(drawn[0] - drawn[1]).max() > 0.05
    monkeypatch.setattr("openmm_latent.backmapping._BATCH_ATOMS", 1)  # one by one
    np.testing.assert_allclose(np.stack(list(mapper.draw(traces, 2, seed=5))), drawn, atol=1e-5)
    np.testing.assert_allclose(np.stack(list(mapper.draw(traces[:1], 1, seed=5)))[0], drawn[0], atol=1e-5)
    assert np.abs(next(mapper.draw(traces, 2, seed=6)) - drawn[0]).max() > 0.05
    with pytest.raises(LatentError, match=r"frames must be finite and of shape \(n_frames, n_residues=13, 3\)"):
        next(mapper.draw(traces[:, 1:]))


def test_a_bundle_draws_as_the_weights_that_it_was_bound_from(weights, bound):
    trace = read_trace(CA_TOPOLOGY, CAS)
    by_weights, by_bundle = load_backmapper(weights, trace, n_candidates=1), load_backmapper(bound, trace)
    named = {}
    for mapper in (by_weights, by_bundle):
        drawn = next(mapper.draw(frames(1)))
        named[mapper] = {(atom.residue.index, atom.name): drawn[atom.index] for atom in mapper.topology.atoms()}
    assert named[by_weights].keys() == named[by_bundle].keys()
    for atom, place in named[by_weights].items():
        np.testing.assert_allclose(named[by_bundle][atom], place, atol=1e-5)
    assert len(list(by_bundle.topology.bonds())) == len(list(by_weights.topology.bonds()))
    with pytest.raises(LatentError, match="n_steps is fixed in a bundle, got 3 for 'bound"):
        load_backmapper(bound, trace, 3)


def test_a_bundle_of_another_protein_is_refused(bound):
    other, positions = load_two_chains()
    with pytest.raises(LatentError, match="trace has CYS as residue 1, where the protein that bundle"):
        load_backmapper(bound, read_trace(other, positions))
    shorter = describe_residues(read_trace(CA_TOPOLOGY, CAS).residues.types[:8])
    topology = heavy_topology(shorter, [("A", str(i)) for i in range(8)])
    with pytest.raises(LatentError, match=r"trace has 8 residues, and the protein that bundle .* was bound to has 13"):
        load_backmapper(bound, read_trace(topology, np.zeros((topology.getNumAtoms(), 3))))


# ---- minimisation ----------------------------------------------------------------------------------------------------


def test_minimised_samples_keep_trace_hands_and_bonds(taught):
    mapper = load_backmapper(taught, read_trace(CA_TOPOLOGY, CAS))
    drawn = list(mapper.draw(frames(2), 1))
    minimiser = RestrainedMinimiser(mapper.topology, drawn[0], "vacuum", "Reference", stiffness=1e5, n_iterations=100)
    assert minimiser.topology.getNumAtoms() == TOPOLOGY.getNumAtoms()
    centres = np.array(find_structure(minimiser.topology).chiral_centres)
    bonds = np.array([(a.index, b.index) for a, b in minimiser.topology.bonds()])
    for positions, trace in zip(drawn, frames(2), strict=True):
        relaxed, energy = minimiser(positions)
        assert np.isfinite(energy)
        assert energy < -500.0  # the structure that was taught has less than -2000 kJ/mol
        moved = np.linalg.norm(relaxed[minimiser.cas] - trace, axis=1)
        assert moved.max() < 0.02
        arms = relaxed[centres[:, 1:]] - relaxed[centres[:, :1]]
        assert (np.sign(np.linalg.det(arms)) == HANDS).all()
        lengths = np.linalg.norm(relaxed[bonds[:, 0]] - relaxed[bonds[:, 1]], axis=1)
        assert lengths.max() < 0.2


def test_minimisation_out_of_range_is_refused():
    topology, positions = read_trace(CA_TOPOLOGY, CAS).topology(), np.zeros((len(HEAVY), 3))
    with pytest.raises(LatentError, match="stiffness must be positive"):
        RestrainedMinimiser(topology, positions, stiffness=0.0)
    with pytest.raises(LatentError, match="solvent must be 'obc2' or 'vacuum' here, got 'tip3p'"):
        RestrainedMinimiser(topology, positions, solvent="tip3p")


# ---- the command -----------------------------------------------------------------------------------------------------


def run(*args):
    return CliRunner().invoke(command, ["backmap", *map(str, args)])


def mistake(*args):
    """Run the command, and return its one sentence."""
    result = run(*args)
    assert result.exit_code == 2, result.output
    text = re.sub(r"\s+", " ", result.output).strip()
    assert text.startswith("openmm-latent:"), text
    return text


def test_a_pdb_becomes_an_all_atom_pdb_of_several_samples(weights, tmp_path):
    trace, out = write_pdb(tmp_path / "ca.pdb", CA_TOPOLOGY, CAS), tmp_path / "all.pdb"
    result = run("--trace", trace, "--model", weights, "--out", out, "-n", 3, "--seed", 4)
    assert result.exit_code == 0, result.output
    assert "1 frames of 13 residues, 3 samples of each" in result.output
    made = mdtraj.load(str(out))
    assert made.n_frames == 3
    np.testing.assert_allclose(made.xyz[:, made.topology.select("name CA")], np.repeat(CAS[None], 3, 0), atol=1.1e-4)
    assert [chain.n_residues for chain in made.topology.chains] == [8, 5]
    assert np.abs(made.xyz[0] - made.xyz[1]).max() > 0.05
    again = tmp_path / "again.pdb"
    run("--trace", trace, "--model", weights, "--out", again, "-n", 3, "--seed", 4)
    assert again.read_text().split("ATOM", 1)[1] == out.read_text().split("ATOM", 1)[1]


def test_a_trajectory_becomes_an_xtc_with_its_topology_beside_it(taught, tmp_path):
    top = write_pdb(tmp_path / "ca.pdb", CA_TOPOLOGY, CAS)
    trace = mdtraj.Trajectory(frames(6), mdtraj.load(str(top)).topology, time=100.0 * np.arange(6))
    trace.save_xtc(str(tmp_path / "ca.xtc"))
    out = tmp_path / "all.xtc"
    args = ["--trace", tmp_path / "ca.xtc", "--top", top, "--model", taught, "--out", out, "-n", 2, "--stride", 3]
    result = run(*args, "--relax", "--solvent", "vacuum", "--platform", "Reference")
    assert result.exit_code == 0, result.output
    assert "energy after minimisation" in result.output
    made = mdtraj.load(str(out), top=str(tmp_path / "all.pdb"))
    assert (made.n_frames, made.n_atoms) == (4, TOPOLOGY.getNumAtoms())
    np.testing.assert_allclose(made.time, [0.0, 0.0, 300.0, 300.0])
    assert not list(tmp_path.glob("*.part"))


def test_mistakes_are_told_in_a_sentence(weights, tmp_path):
    trace, out = write_pdb(tmp_path / "ca.pdb", CA_TOPOLOGY, CAS), tmp_path / "all.pdb"
    assert "does not exist; check the name" in mistake("--trace", tmp_path / "no.pdb", "--model", weights, "--out", out)
    assert "must end in .xtc or .pdb, got 'all.dcd'" in mistake(
        "--trace", trace, "--model", weights, "--out", tmp_path / "all.dcd"
    )
    assert "must be at least 1 a frame, got 0" in mistake("--trace", trace, "--model", weights, "--out", out, "-n", 0)
    (tmp_path / "ca.xtc").write_bytes(b"")
    assert "which names no residues; give its structure by --top" in mistake(
        "--trace", tmp_path / "ca.xtc", "--model", weights, "--out", out
    )
    content = torch.load(weights, weights_only=True)
    other = tmp_path / "other.weights.pt"
    torch.save({**content, "family": "dynaprot"}, other)
    assert "must be of family 'codlad', got 'dynaprot'" in mistake("--trace", trace, "--model", other, "--out", out)
    assert f"n_levels={CONFIG.n_diffusion_steps}" in mistake(
        "--trace", trace, "--model", weights, "--out", out, "--steps", 2000
    )
    assert not out.exists()


def test_weights_are_bound_by_the_bind_command(weights, tmp_path):
    top, out = write_pdb(tmp_path / "all.pdb", TOPOLOGY, POSITIONS), tmp_path / "bound.latent.pt"
    result = CliRunner().invoke(command, ["bind", str(weights), "--top", str(top), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert out.exists()
    args = ["bind", str(weights), "--top", str(top), "--out", str(out), "--relaxation-time", "5"]
    result = CliRunner().invoke(command, args)
    assert result.exit_code == 2
    assert "--relaxation-time means nothing to family 'codlad'" in re.sub(r"\s+", " ", result.output)
