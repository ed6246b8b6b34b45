"""The commands on a peptide with a ligand: bind, sample in time order, simulate with what lies within jumps."""

import re

import mdtraj
import numpy as np
import openmm as mm
import pytest
from openmm import app, unit
from typer.testing import CliRunner

from atmos_models import random_model
from complexes import SDF, complex_frames, complex_system, load_complex
from openmm_latent.bundle import load_bundle
from openmm_latent.cli import app as command
from openmm_latent.models.atmos.weights import save_weights

TOPOLOGY, _ = load_complex()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Structure, System, ligand, weights that know charges and move atoms by 2 pm, and a bundle of all these."""
    folder = tmp_path_factory.mktemp("complex")
    with open(folder / "complex.pdb", "w") as file:
        app.PDBFile.writeFile(TOPOLOGY, complex_frames(2, seed=4)[-1] * unit.nanometer, file, keepIds=True)
    (folder / "complex.xml").write_text(mm.XmlSerializer.serialize(complex_system(TOPOLOGY)))
    (folder / "held.xml").write_text(mm.XmlSerializer.serialize(held_system(folder / "complex.pdb")))
    (folder / "ligand.sdf").write_text(SDF)
    (folder / "other.sdf").write_text(SDF.replace(" O   0", " S   0"))
    model = random_model(turns=True, data_scale=0.002, fine_data_scale=0.002, level_least=0.1, churn_above=0.0005)
    save_weights(folder / "c.weights.pt", model, {"knows_charges": True})
    told = run("bind", *bound(folder), "--system", folder / "complex.xml", "--ligand", folder / "ligand.sdf")
    assert "14 model atoms, of them ACE (3 atoms), NME (2 atoms), LIG (4 atoms)" in told
    return folder


def bound(folder):
    return folder / "c.weights.pt", "--top", folder / "complex.pdb", "--out", folder / "c.latent.pt"


def run(*words, code=0):
    """Run a command and return what it told, in one line."""
    result = CliRunner().invoke(command, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == code, f"{result.output} {result.exception!r}"
    return re.sub(r"\s+", " ", result.output)


def test_a_trajectory_has_the_ligand_and_the_interpolators_times(folder, tmp_path):
    out = tmp_path / "traj.xtc"
    model, start = folder / "c.latent.pt", folder / "complex.pdb"
    told = run("sample", "--model", model, "--trajectory", "-n", 7, "--start", start, "--out", out)
    assert "7 frames of 14 atoms in time order, 2 ps apart" in told
    frames = mdtraj.load(str(out), top=str(tmp_path / "traj.pdb"))
    np.testing.assert_allclose(frames.time, 2.0 * np.arange(7), rtol=1e-6)
    assert [atom.name for atom in frames.topology.atoms if atom.residue.name == "LIG"] == ["C1", "C2", "O1", "N1"]
    assert 1e-4 < np.abs(np.diff(frames.xyz, axis=0)).max() < 0.1


def test_drawn_structures_name_the_ligands_bonds_where_the_complex_is_given(folder, tmp_path):
    out = tmp_path / "traj.pdb"
    run("sample", "--model", folder / "c.latent.pt", "--trajectory", "-n", 2, "--out", out, "--no-fill")
    assert ligand_bonds(out) == set()
    run("sample", "--model", folder / "c.latent.pt", "--trajectory", "-n", 2, "--out", out, "--no-fill",
        "--top", folder / "complex.pdb")  # fmt: skip
    assert ligand_bonds(out) == {frozenset(pair) for pair in (("C1", "C2"), ("C2", "O1"), ("C2", "N1"))}


def ligand_bonds(path):
    bonds = app.PDBFile(str(path)).topology.bonds()
    return {frozenset((a.name, b.name)) for a, b in bonds if a.residue.name == "LIG"}


def held_system(pdb):
    """Return the complex with one of its atoms held by a spring to where the file has it."""
    system, spring = complex_system(TOPOLOGY), mm.CustomExternalForce("500*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
    for name in ("x0", "y0", "z0"):
        spring.addPerParticleParameter(name)
    spring.addParticle(8, app.PDBFile(str(pdb)).positions[8].value_in_unit(unit.nanometer))
    system.addForce(spring)
    return system


def test_relaxed_frames_lie_where_the_system_wants_them(folder, tmp_path):
    out = tmp_path / "held.xtc"
    run("sample", "--model", folder / "c.latent.pt", "--trajectory", "-n", 2, "--no-fill", "--out", out, "--relax",
        "--top", folder / "complex.pdb", "--system", folder / "held.xml", "--platform", "Reference")  # fmt: skip
    frames = mdtraj.load(str(out), top=str(tmp_path / "held.pdb")).xyz
    there = app.PDBFile(str(folder / "complex.pdb")).getPositions(asNumpy=True)._value
    assert np.linalg.norm(frames[:, 8] - there[8], axis=1).max() < 0.05


def test_relaxed_frames_are_of_the_users_system(folder, tmp_path):
    out = tmp_path / "relaxed.xtc"
    words = ("sample", "--model", folder / "c.latent.pt", "--trajectory", "-n", 4, "--no-fill", "--out", out)
    told = run(*words, "--relax", "--top", folder / "complex.pdb", "--system", folder / "complex.xml",
               "--platform", "Reference")  # fmt: skip
    assert "energy after minimisation" in told
    assert "not sound" not in told
    frames = mdtraj.load(str(out), top=str(tmp_path / "relaxed.pdb"))
    assert frames.n_atoms == 31
    assert len(ligand_bonds(tmp_path / "relaxed.pdb")) == 8
    context = mm.Context(complex_system(TOPOLOGY), mm.VerletIntegrator(0.001), mm.Platform.getPlatform("Reference"))
    energies = []
    for positions in (*frames.xyz, app.PDBFile(str(folder / "complex.pdb")).positions):
        context.setPositions(positions)
        energies.append(context.getState(energy=True).getPotentialEnergy()._value)
    assert max(energies[:-1]) < energies[-1] - 20.0  # far below a frame of MD at 300 K
    told_energy = float(re.search(r"most (-?\d+) kJ/mol", told).group(1))
    assert max(energies[:-1]) == pytest.approx(told_energy, abs=2.0)  # the file keeps picometres


def test_a_system_with_atoms_that_the_model_does_not_see_is_refused(folder, tmp_path):
    topology, positions = load_complex()
    residue = topology.addResidue("HOH", topology.addChain())
    oxygen, *hydrogens = [topology.addAtom(n, app.Element.getBySymbol(n[0]), residue) for n in ("O", "H1", "H2")]
    for hydrogen in hydrogens:
        topology.addBond(oxygen, hydrogen)
    water = positions[:1] + np.array([[1.0, 0.0, 0.0], [1.1, 0.0, 0.0], [1.0, 0.1, 0.0]])
    with open(tmp_path / "wet.pdb", "w") as file:
        app.PDBFile.writeFile(topology, np.concatenate([positions, water]) * unit.nanometer, file, keepIds=True)
    system = complex_system(TOPOLOGY)
    for _ in range(3):
        system.addParticle(1.0)
    (tmp_path / "wet.xml").write_text(mm.XmlSerializer.serialize(system))
    told = run("sample", "--model", folder / "c.latent.pt", "--trajectory", "-n", 2, "--out", tmp_path / "x.xtc",
               "--relax", "--top", tmp_path / "wet.pdb", "--system", tmp_path / "wet.xml", code=2)  # fmt: skip
    assert "knows nothing of O of residue HOH and 0 other heavy atoms of --top" in told


def test_simulate_runs_the_users_system_and_fills_jumps(folder, tmp_path):
    words = ("simulate", folder / "c.latent.pt", "--top", folder / "complex.pdb", "--out", tmp_path / "run")
    words += ("--temperature", 300, "--duration", 0.06, "--jump-interval", 10, "--platform", "Reference", "--fill")
    told = run(*words, "--system", folder / "complex.xml")
    assert "drawn by the model within jumps, not physical" in told
    whole = mdtraj.load(str(tmp_path / "run" / "complex.xtc"), top=str(tmp_path / "run" / "complex.pdb"))
    assert whole.n_atoms == 31
    filled = mdtraj.load(str(tmp_path / "run" / "complex.filled.xtc"), top=str(tmp_path / "run" / "complex.filled.pdb"))
    assert filled.n_atoms == 14
    assert len(filled) in (6, 12)  # of each accepted jump of two: its ends, and four drawn
    told = run(*words, code=2)
    assert "holds a run with solvent 'that of complex.xml', and 'obc2' is asked for" in told
    told = run(*words[:4], "--out", tmp_path / "other", "--temperature", 300, "--hydrogen-mass", 3,
               "--system", folder / "complex.xml", code=2)  # fmt: skip
    assert "hydrogen_mass (--hydrogen-mass) 3.0 is for Systems that are made here" in told


def test_what_does_not_fit_the_complex_is_told_in_a_sentence(folder):
    told = run("bind", *bound(folder), "--system", folder / "complex.xml", "--ligand", folder / "other.sdf", code=2)
    assert re.search(r"ligand file .*other.sdf \(acetamide, 4 atoms\) fits no residue of the topology", told)
    told = run("bind", *bound(folder), code=2)
    assert "trained with charges of a System; pass system (--system), so that the model sees what it knows" in told
    told = run("bind", *bound(folder), "--coordinates", folder / "no.rst7", code=2)
    assert "no.rst7 does not exist; check the name given to --coordinates" in told
    told = run("bind", "dynaprot", *bound(folder)[1:], "--ligand", folder / "ligand.sdf", code=2)
    assert "--ligand means nothing to family 'dynaprot'; leave it out" in told
    out = folder / "r.xtc"
    sample = ("sample", "--model", folder / "c.latent.pt", "--trajectory", "-n", 2, "--out", out)
    told = run(*sample, "--relax", code=2)
    assert "hydrogens cannot be added (No template found for residue" in told
    assert "give the whole complex and its forces" in told
    told = run(*sample, "--relax", "--system", folder / "complex.xml", code=2)
    assert "--system is of all atoms of a complex; give its structure by --top, too" in told
    told = run(*sample, "--top", folder / "complex.pdb", "--system", folder / "complex.xml", code=2)
    assert "--system) is what --relax minimises with; give --relax, too" in told
    assert not out.exists()
    assert not out.with_suffix(".pdb").exists()
    assert load_bundle(folder / "c.latent.pt").manifest.family == "ATMOS"


def test_training_wants_one_system_for_each_complex(folder, tmp_path):
    data = tmp_path / "data"
    for name in ("one", "two"):
        (data / name).mkdir(parents=True)
        (data / name / f"{name}.pdb").write_text((folder / "complex.pdb").read_text())
        mdtraj.load(str(folder / "complex.pdb")).save(str(data / name / f"{name}_1.dcd"))
    words = ("train", "atmos", "--data", data, "--lag-time", 1, "--frame-spacing", 1, "--out", tmp_path / "w.pt")
    told = run(*words, "--system", folder / "complex.xml", code=2)
    assert "complex.xml is one file for 2 complexes; give a folder with one each, named one.xml" in told
    told = run(*words, "--system", folder, code=2)
    assert "one.xml does not exist; check the name given to system (--system)" in told
    told = run(*words, "--ligand", folder / "other.sdf", code=2)
    assert "other.sdf fits no residue of one, two; give the ligand that is in one of them" in told
