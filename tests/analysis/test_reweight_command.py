"""`openmm-latent reweight` on real MD that is cut as if jumps had been made."""

import csv
import json
import re

import mdtraj
import numpy as np
import pytest
from typer.testing import CliRunner

from openmm_latent.cli import app
from toys import ADP_PDB

XTC = ADP_PDB.with_name("adp_400K.xtc")
N_FRAMES, CUT = 6000, 25  # of 2 ps: 12 ns, and 50 ps between cuts


def run(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == code, result.output
    return re.sub(r"\s+", " ", result.output)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The shipped 400 K trajectory in the shape of a hybrid run, every other jump refused."""
    out = tmp_path_factory.mktemp("hybrid")
    (out / "adp.pdb").write_bytes(ADP_PDB.read_bytes())
    mdtraj.load(str(XTC), top=str(ADP_PDB))[:N_FRAMES].save(str(out / "adp.xtc"))
    facts = {"mode": "guarded", "temperature": 400.0, "frame_spacing": 2.0, "timestep": 0.002, "bundle_sha256": "x"}
    (out / "adp.json").write_text(json.dumps(facts))
    with open(out / "adp.latent.csv", "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["jump", "step", "outcome"])
        for number in range(1, 2 * N_FRAMES // CUT):
            writer.writerow([number, number * CUT * 500, "refused" if number % 2 else "accepted"])
    return out


@pytest.fixture(scope="module")
def printed(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    words = ["--state", "up=psi>60 or psi<-120", "--drop", 0, "--microstates", 20]
    return out, run("reweight", "--run", folder, "--out", out, *words)


def test_a_fast_state_gets_its_number(printed):
    out, text = printed
    assert "0 ps dropped of each (given)" in text
    told = json.loads((out / "adp.json").read_text())["populations"]["up"]
    # Plain MD that is cut needs no reweighting, so that its own share is the truth but for its error.
    psi = np.degrees(mdtraj.compute_psi(mdtraj.load(str(XTC), top=str(ADP_PDB))[:N_FRAMES])[1][:, 0])
    share = ((psi > 60) | (psi < -120)).mean()
    low, high = told["interval"]
    assert low - 0.02 < share < high + 0.02
    assert high - low < 0.2
    assert f"up: {100 * told['population']:.2f} % [" in text


def test_the_files_say_where_they_come_from(folder, printed):
    out, _ = printed
    facts = json.loads((out / "adp.json").read_text())
    assert facts["runs"][0]["mode"] == "guarded"
    assert facts["runs"][0]["n_accepted"] == N_FRAMES // CUT - 1
    assert len(facts["runs"][0]["sha256"]) == 64
    assert facts["n_segments"] == N_FRAMES // CUT
    assert facts["states"] == {"up": "psi>60 or psi<-120"}
    assert facts["lag_time"] in [row["lag_time"] for row in facts["implied_timescales"]]
    assert (out / "adp.timescales.png").stat().st_size > 1000
    assert (out / "adp.ck.png").stat().st_size > 1000


def test_too_little_data_gives_a_sentence_and_no_number(folder, tmp_path):
    """phi flips a few times in 12 ns: far too seldom for a number, or for weights."""
    text = run(
        "reweight", "--run", folder, "--out", tmp_path, "--state", "left=phi>0", "--drop", 0, "--transitions", 20
    )
    assert re.search(r"left: no number, as .*(20 each are needed|is uncertain by|never left|never entered)", text)
    assert "no weights and no surface, as left is not known" in text
    facts = json.loads((tmp_path / "adp.json").read_text())
    assert list(facts["populations"]["left"]) == ["refused"]
    assert facts["slow_processes"] == []
    assert not (tmp_path / "adp.weights.csv").exists()
    assert not (tmp_path / "adp.fes.png").exists()


def test_weights_are_one_a_frame(folder, tmp_path):
    """Torsion psi alone, with phi < 0 in all frames kept: cut to a stretch of MD without a flip of phi."""
    frames = mdtraj.load(str(XTC), top=str(ADP_PDB))
    phi = np.degrees(mdtraj.compute_phi(frames)[1][:, 0])
    flips = np.flatnonzero((phi > 20) & (phi < 120))
    edges = np.concatenate([[-1], flips, [len(phi)]])
    longest = np.argmax(np.diff(edges))
    start, stop = edges[longest] + 1, edges[longest + 1]
    for name in ("adp.pdb", "adp.json", "adp.latent.csv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    frames[start : min(stop, start + N_FRAMES)].save(str(tmp_path / "adp.xtc"))
    out = tmp_path / "out"
    words = ["--state", "up=psi>60 or psi<-120", "--drop", 2, "--microstates", 20, "--fes", "psi"]
    text = run("reweight", "--run", tmp_path, "--out", out, *words)
    assert "adp.weights.csv" in text
    rows = list(csv.DictReader((out / "adp.weights.csv").read_text().splitlines()))
    weights = np.array([float(row["weight"]) for row in rows])
    assert weights.sum() == pytest.approx(1.0, abs=1e-4)
    numbers = np.array([int(row["frame"]) for row in rows])
    assert len(set(numbers)) == len(numbers)
    assert np.all(numbers % CUT != 0)  # the first frame of each segment was dropped
    surface = list(csv.DictReader((out / "adp.fes.csv").read_text().splitlines()))
    assert min(float(row["free_energy_kj_per_mol"]) for row in surface) == 0.0
    assert (out / "adp.fes.png").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--state phi", "is not understood: 'phi' is no comparison"),
        ("--state phi[7]>0", "torsion 'phi[7]' is unknown"),
        ("--fes chi1", "torsion 'chi1' is unknown"),
        ("--state a=phi>0 --state a=psi>0", "names must differ, got a, a"),
        ("--fes phi --fes psi --fes phi", "takes one or two torsions, got 3"),
        ("--lag-time 3", "lag_time must be a multiple of the frame spacing (2 ps), got 3 ps"),
        ("--md absent.xtc", "trajectory file absent.xtc does not exist"),
    ],
)
def test_mistakes_are_told_in_one_sentence(folder, tmp_path, words, sentence):
    text = run("reweight", "--run", folder, "--out", tmp_path, "--drop", 0, *words.split(), code=2)
    assert sentence in text
    assert "Traceback" not in text


def test_an_exact_run_is_refused(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    facts = json.loads((tmp_path / "adp.json").read_text()) | {"mode": "exact"}
    (tmp_path / "adp.json").write_text(json.dumps(facts))
    text = run("reweight", "--run", tmp_path, "--out", tmp_path / "out", code=2)
    assert "its frames are Boltzmann already and need no reweighting" in text


def test_help_has_an_example():
    text = run("reweight", "--help")
    assert "openmm-latent reweight --run hybrid" in text.split("Example", 1)[1]
