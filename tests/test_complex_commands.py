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
    told = run("sample", "--model", folder / "c.latent.pt", "--n", 1, "--relax", "--out", out, code=2)
    assert "LIG" in told
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
