"""Backmapping of a peptide with caps, a disulphide and forms of histidine: by weights, by a bundle, by the command."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from openmm import app, unit
from typer.testing import CliRunner

from backmapped import CONFIG, random_model, trace_topology
from openmm_latent import LatentError
from openmm_latent.backmapping import load_backmapper
from openmm_latent.cli import app as command
from openmm_latent.data.residue_slots import protein_frames
from openmm_latent.data.traces import read_trace
from openmm_latent.models.codlad.losses import LossTables
from openmm_latent.models.codlad.weights import save_weights
from openmm_latent.nn.residue_geometry import N_SLOTS, SG
from openmm_latent.training.codlad_binding import bind_codlad
from openmm_latent.training.codlad_diffusion import train_codlad

FILE = Path(__file__).parent / "data" / "capped_peptide.pdb"
PDB = app.PDBFile(str(FILE))
TOPOLOGY, POSITIONS = PDB.topology, np.array(PDB.positions.value_in_unit(unit.nanometer))
CA_TOPOLOGY, CAS = trace_topology(TOPOLOGY, POSITIONS)
TRACE = read_trace(TOPOLOGY, POSITIONS)
BRIDGE = "SSBOND   1 CYS A    1    CYS A    8                          1555   1555  2.04  \n"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_weights(tmp_path_factory.mktemp("weights") / "any.weights.pt", random_model(), {})


@pytest.fixture(scope="module")
def bound(weights):
    return bind_codlad(weights, TOPOLOGY, POSITIONS, weights.with_name("bound.latent.pt"))


def sulphur_distance(topology, positions):
    atoms = [atom.index for atom in topology.atoms() if atom.name == "SG"]
    return np.linalg.norm(positions[atoms[0]] - positions[atoms[1]])


def test_weights_and_bundle_build_caps_and_close_the_bridge(weights, bound):
    by_weights, by_bundle = load_backmapper(weights, TRACE, n_candidates=1), load_backmapper(bound, TRACE)
    for mapper in (by_weights, by_bundle):
        assert mapper.topology.getNumAtoms() == 67
        for drawn in mapper.draw(CAS[None], 4):
            assert drawn.shape == (67, 3)
            assert sulphur_distance(mapper.topology, drawn) == pytest.approx(0.2038, abs=2e-3)
    first, other = next(by_weights.draw(CAS[None])), next(by_bundle.draw(CAS[None]))
    np.testing.assert_allclose(first, other, atol=1e-5)


def test_a_bare_trace_of_a_bound_protein_gets_its_bridge_but_no_caps(bound):
    mapper = load_backmapper(bound, read_trace(CA_TOPOLOGY, CAS))
    drawn = next(mapper.draw(CAS[None]))
    assert drawn.shape == (62, 3)
    assert sulphur_distance(mapper.topology, drawn) == pytest.approx(0.2038, abs=2e-3)


def test_a_bundle_with_other_ends_or_bridges_is_refused(weights, bound, tmp_path):
    modeller = app.Modeller(TOPOLOGY, PDB.positions)
    modeller.delete([residue for residue in TOPOLOGY.residues() if residue.name == "NME"])
    last = list(modeller.topology.atoms())[-1].residue
    oxt = modeller.topology.addAtom("OXT", app.element.oxygen, last)
    modeller.topology.addBond(oxt, next(atom for atom in last.atoms() if atom.name == "C"))
    ended = np.vstack([np.array(modeller.positions.value_in_unit(unit.nanometer)), POSITIONS[-1]])
    free = bind_codlad(weights, modeller.topology, ended, tmp_path / "free.latent.pt")
    with pytest.raises(LatentError, match=r"trace has a cap after residue 8, where the protein that bundle 'f.* OXT"):
        load_backmapper(free, TRACE)
    bare = read_trace(CA_TOPOLOGY, CAS)
    load_backmapper(bound, bare.bridged([(("A", "1"), ("A", "8"))], CAS))
    bridged = bind_codlad(weights, *reduced(), tmp_path / "reduced.latent.pt")
    with pytest.raises(LatentError, match="trace has 1 disulphides, other ones than the 0 of the protein that bundle"):
        load_backmapper(bridged, TRACE)


def reduced():
    """Return the peptide with its sulphurs apart, and no bond between them."""
    topology = app.Topology()
    copies = {}
    for chain in TOPOLOGY.chains():
        new_chain = topology.addChain(chain.id)
        for residue in chain.residues():
            new = topology.addResidue(residue.name, new_chain, residue.id)
            copies |= {atom: topology.addAtom(atom.name, atom.element, new) for atom in residue.atoms()}
    for first, second in TOPOLOGY.bonds():
        if (first.name, second.name) != ("SG", "SG"):
            topology.addBond(copies[first], copies[second])
    positions = POSITIONS.copy()
    positions[next(atom.index for atom in TOPOLOGY.atoms() if atom.name == "SG")] += 0.2
    return topology, positions


def test_a_capped_peptide_teaches_and_is_built_by_what_it_taught(tmp_path):
    example = protein_frames(TOPOLOGY, [POSITIONS[None]], name="capped")
    assert example.disulphides.tolist() == [[0, 7]]
    tables = LossTables(example.residues, example.disulphides)
    assert [N_SLOTS * 0 + SG, N_SLOTS * 7 + SG] in tables.bonds.tolist()
    config = replace(CONFIG, steps_per_epoch=2, diffusion_warm_up=1)
    train_codlad([example], config=config, out=tmp_path / "own.weights.pt", n_epochs=1, n_steps=2)
    mapper = load_backmapper(tmp_path / "own.weights.pt", TRACE)
    assert np.isfinite(next(mapper.draw(CAS[None]))).all()
    assert mapper.topology.getNumAtoms() == 67


# ---- the command -----------------------------------------------------------------------------------------------------


def run(*args):
    return CliRunner().invoke(command, ["backmap", *map(str, args)])


@pytest.fixture
def bare_file(tmp_path):
    with open(tmp_path / "ca.pdb", "w") as handle:
        app.PDBFile.writeFile(CA_TOPOLOGY, CAS * unit.nanometer, handle, keepIds=True)
    return tmp_path / "ca.pdb"


def test_relaxed_samples_have_caps_a_bridge_and_a_table(weights, tmp_path):
    out = tmp_path / "all.pdb"
    result = run(
        "--trace", FILE, "--model", weights, "--out", out, "-n", 2, "--relax", "--solvent", "vacuum", "--platform",
        "Reference",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "1 frames of 8 residues with 1 disulphides, 2 samples of each" in result.output
    assert re.search(r"clashes a sample: \d+\.\d\d before, \d+\.\d\d after", result.output)
    made = mdtraj.load(str(out))
    assert [residue.name for residue in made.topology.residues][::9] == ["ACE", "NME"]
    one, other = made.topology.select("name SG")
    assert np.abs(np.linalg.norm(made.xyz[:, one] - made.xyz[:, other], axis=1) - 0.205).max() < 0.02
    with open(tmp_path / "all.relax.csv") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["sample"] for row in rows] == ["1", "2"]
    assert all(float(row["energy_kJ_mol"]) < float(row["energy_before_kJ_mol"]) for row in rows)
    assert all(float(row["largest_move_nm"]) > 0 and int(row["clashes"]) >= 0 for row in rows)


@pytest.mark.parametrize(("options", "is_bridged"), [((), True), (("--disulphides", "none"), False)])
def test_records_of_a_bare_trace_are_read(weights, bare_file, options, is_bridged):
    bare_file.write_text(BRIDGE + BRIDGE.replace(" A ", " B ") + bare_file.read_text())
    out = bare_file.with_name("all.pdb")
    result = run("--trace", bare_file, "--model", weights, "--out", out, *options)
    assert result.exit_code == 0, result.output
    assert ("with 1 disulphides" in result.output) == is_bridged
    made = app.PDBFile(str(out))
    if is_bridged:
        positions = np.array(made.positions.value_in_unit(unit.nanometer))
        assert sulphur_distance(made.topology, positions) == pytest.approx(0.2038, abs=2e-3)


def test_bridges_are_named_by_hand_or_refused_in_a_sentence(weights, bare_file):
    out = bare_file.with_name("all.pdb")
    words = ["--trace", bare_file, "--model", weights, "--out", out, "--disulphides"]
    assert "with 1 disulphides" in run(*words, "A:1-A:8").output
    result = run(*words, "A:1-A:2")
    assert result.exit_code == 2
    assert "disulphides must join CYS residues, got HIS A:2; check the numbers" in re.sub(r"\s+", " ", result.output)
