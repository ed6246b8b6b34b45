"""The command line: the same words everywhere, one sentence a mistake, runs that stop and go on with nothing lost."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from typer.testing import CliRunner

from openmm_latent.cli import app
from openmm_latent.cli.common import spread
from openmm_latent.errors import LatentError
from openmm_latent.hybrid import HybridConfig, HybridRun
from toys import ADP_PDB, Shake, export_toy, load_adp

XTC = ADP_PDB.with_name("adp_400K.xtc")
SHORT = HybridConfig(temperature=300.0, duration=0.6, jump_interval=10, save_every=1e9)


def run(*words: object, code: int = 0) -> str:
    """Run the command in this process; return what it printed, in one line."""
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == code, result.output
    return re.sub(r"\s+", " ", result.output)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that shakes the heavy atoms of alanine dipeptide a little."""
    topology, positions = load_adp()
    return export_toy(Shake(10, 0.003), tmp_path_factory.mktemp("bundle") / "shake.latent.pt", topology, positions)


@pytest.mark.parametrize("words", [["generate"], ["train", "gldp"], ["inspect"], ["simulate"], ["reweight"], ["bind"]])
def test_help_has_examples(words: list[str]) -> None:
    text = run(*words, "--help")
    assert f"openmm-latent {' '.join(words)} " in text.split("Example", 1)[1]


def test_words_mean_the_same_everywhere() -> None:
    helps = {name: run(*name.split(), "--help") for name in ("generate", "train gldp", "simulate", "reweight", "bind")}
    for option, commands in {
        "--top": ("train gldp", "simulate", "bind"),
        "--out": ("generate", "train gldp", "simulate", "reweight", "bind"),
        "--temperature": ("generate", "simulate"),
        "--seed": ("generate", "train gldp", "simulate", "reweight"),
        "--platform": ("generate", "simulate"),
        "--traj": ("train gldp",),
        "--lag-time": ("train gldp",),
        "--config": ("train gldp",),
        "--propagator": ("train gldp",),
    }.items():
        for command in commands:
            assert option in helps[command], (option, command)


def test_several_files_after_one_option() -> None:
    assert spread(["--traj", "a", "b", "--out", "c", "d"], "--traj") == [
        "--traj",
        "a",
        "--traj",
        "b",
        "--out",
        "c",
        "d",
    ]
    assert spread(["--traj", "a", "--traj", "b"], "--traj") == ["--traj", "a", "--traj", "b"]


def test_generate(tmp_path: Path) -> None:
    words = ["generate", ADP_PDB, "--out", tmp_path, "--duration", 0.2, "--frame-spacing", 0.02, "--equilibration", 0]
    assert "2 trajectories of 10 frames, 0.02 ps apart" in run(*words, "--replicas", 2, "--platform", "Reference")
    assert mdtraj.load(str(tmp_path / "adp_01.xtc"), top=str(tmp_path / "adp.pdb")).n_frames == 10


def test_train_inspect_and_simulate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openmm_latent.models import gldp
    from openmm_latent.propagators import autoregressive

    small = replace(gldp.CONFIGS["tiny"], encoder_steps=20, decoder_steps=20, validate_every=20)
    monkeypatch.setitem(gldp.CONFIGS, "tiny", small)
    quick = replace(autoregressive.CONFIGS["tiny"], n_epochs=1, n_components=2)
    monkeypatch.setitem(autoregressive.CONFIGS, "tiny", quick)
    cut = tmp_path / "cut.xtc"
    mdtraj.load(str(XTC), top=str(ADP_PDB))[:400].save(str(cut))
    out = tmp_path / "adp.latent.pt"
    words = ["train", "gldp", "--top", ADP_PDB, "--traj", cut, cut, "--lag-time", 4, "--out", out]
    text = run(*words)
    assert "800 frames of 10 model atoms from 2 files, 2 ps apart" in text
    assert "next: openmm-latent simulate" in text
    assert "lag_time" in run("inspect", out)
    assert json.loads(run("inspect", out, "--json"))["lag_time"] == 4.0
    assert "needs --temperature" not in run(
        "simulate", out, "--top", ADP_PDB, "--out", tmp_path / "run", "--temperature", 300, "--duration", 0.1,
        "--jump-interval", 10,
    )  # fmt: skip
    assert "cannot be bound to another" in run("bind", out, "--top", ADP_PDB, "--out", tmp_path / "b.pt", code=2)


@pytest.mark.parametrize("trajectory_format", ["xtc", "dcd"])
def test_simulate_writes_everything(bundle: Path, tmp_path: Path, trajectory_format: str) -> None:
    text = run(
        "simulate", bundle, "--top", ADP_PDB, "--out", tmp_path, "--duration", 0.4, "--jump-interval", 10,
        "--format", trajectory_format, "--platform", "Reference",
    )  # fmt: skip
    assert "Reference: named by the user; 300 K, mode guarded" in text
    frames = mdtraj.load(str(tmp_path / f"adp.{trajectory_format}"), top=str(tmp_path / "adp.pdb"))
    assert frames.n_frames == 20
    if trajectory_format == "xtc":
        np.testing.assert_allclose(frames.time, 0.02 * np.arange(1, 21), rtol=1e-5)
    facts = json.loads((tmp_path / "adp.json").read_text())
    assert facts["mode"] == "guarded"
    assert "not Boltzmann" in facts["frames_are"]
    assert facts["jumps"]["jumps"] == 19  # none before the first relaxation
    assert facts["is_complete"] is True
    rows = list(csv.DictReader((tmp_path / "adp.latent.csv").read_text().splitlines()))
    assert len(rows) == 19
    assert len((tmp_path / "adp.csv").read_text().splitlines()) == 21


class InterruptAt:
    """Progress callback that sends Ctrl-C to its own process after some frames."""

    def __init__(self, *frames: int) -> None:
        self.frames = set(frames)

    def __call__(self, done: int, total: int) -> None:
        if done in self.frames:
            self.frames.remove(done)
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("trajectory_format", ["xtc", "dcd"])
def test_interrupted_hybrid_run_equals_whole_one(bundle: Path, tmp_path: Path, trajectory_format: str) -> None:
    config = replace(SHORT, trajectory_format=trajectory_format, report_interval=15)  # jumps between the frames, too
    whole = HybridRun(bundle, ADP_PDB, tmp_path / "whole", config, "Reference")
    tally = whole.run()
    assert tally["accepted"] > 0
    for frame in (4, 11):
        with pytest.raises(KeyboardInterrupt, match=f"saved after {frame + 1} of 20 frames"):
            HybridRun(bundle, ADP_PDB, tmp_path / "cut", config, "Reference").run(InterruptAt(frame))
    resumed = HybridRun(bundle, ADP_PDB, tmp_path / "cut", config, "Reference")
    assert resumed.run() == tally
    assert same_outputs(whole, resumed)


@pytest.mark.parametrize("trajectory_format", ["xtc", "dcd"])
def test_what_came_after_the_save_point_is_made_again(bundle: Path, tmp_path: Path, trajectory_format: str) -> None:
    config = replace(SHORT, trajectory_format=trajectory_format)
    whole = HybridRun(bundle, ADP_PDB, tmp_path / "whole", config, "Reference")
    whole.run()

    def die(done: int, total: int) -> None:
        if done == 9:
            raise RuntimeError("power cut")

    with pytest.raises(KeyboardInterrupt):
        HybridRun(bundle, ADP_PDB, tmp_path / "cut", config, "Reference").run(InterruptAt(3))
    with pytest.raises(RuntimeError, match="power cut"):
        HybridRun(bundle, ADP_PDB, tmp_path / "cut", config, "Reference").run(die)
    resumed = HybridRun(bundle, ADP_PDB, tmp_path / "cut", config, "Reference")
    resumed.run()
    assert same_outputs(whole, resumed)


def same_outputs(first: HybridRun, second: HybridRun) -> bool:
    """Compare all outputs byte by byte, but for the date in a DCD file's title."""
    pairs = [(a.read_bytes(), b.read_bytes()) for a, b in zip(first.outputs, second.outputs, strict=True)]
    if first.trajectory.suffix == ".dcd":
        pairs[0] = tuple(content[:180] + content[260:] for content in pairs[0])
    return all(a == b for a, b in pairs)


def test_another_run_in_the_folder_is_refused(bundle: Path, tmp_path: Path) -> None:
    HybridRun(bundle, ADP_PDB, tmp_path, SHORT, "Reference").run()
    with pytest.raises(LatentError, match=r"run with temperature 300.0, and 310.0 is asked for; give another folder"):
        HybridRun(bundle, ADP_PDB, tmp_path, replace(SHORT, temperature=310.0), "Reference")


def test_ctrl_c_in_a_real_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from openmm_latent.cli import app; app()", "generate", str(ADP_PDB)]
    command += ["--out", str(tmp_path), "--duration", "100000", "--frame-spacing", "0.1", "--platform", "Reference"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    xtc = tmp_path / "adp_00.xtc"
    while not (xtc.exists() and xtc.stat().st_size > 2000) and process.poll() is None:
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted (saved after" in re.sub(r"\s+", " ", words)
    assert "the same command goes on from there" in re.sub(r"\s+", " ", words)
    assert "Traceback" not in words
    n_frames = json.loads((tmp_path / "adp_00.json").read_text())["n_frames"]
    assert mdtraj.load(str(xtc), top=str(tmp_path / "adp.pdb")).n_frames == n_frames > 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("generate absent.pdb --out OUT", "PDB file absent.pdb does not exist"),
        ("generate ADP --out OUT --timestep 2", "timestep 2.0 ps needs heavier hydrogens"),
        ("generate ADP --out OUT --platform Abacus", "platform 'Abacus' is not available"),
        ("train gldp --top ADP --traj XTC --lag-time 3 --out OUT", "multiple of the frame spacing (2 ps), got 3 ps"),
        ("train gldp --top ADP --traj ADP --lag-time 3 --out OUT", "stores no time between frames"),
        ("train gldp --top absent.pdb --traj XTC --lag-time 2 --out OUT", "topology file absent.pdb does not exist"),
        ("train gldp --top ADP --traj XTC --lag-time 2 --out OUT --config big", "config must be one of"),
        ("train gldp --top ADP --traj XTC --lag-time 2 --out OUT --propagator magic", "propagator must be one of"),
        ("inspect absent.latent.pt", "does not exist"),
        ("inspect ADP", "no openmm-latent bundle"),
        ("simulate BUNDLE --top absent.pdb --out OUT", "structure file absent.pdb does not exist"),
        ("simulate BUNDLE --top ADP --out OUT --solvent tip3p", "solvent tip3p needs jumps that steer"),
        ("simulate BUNDLE --top ADP --out OUT --mode exact", "needs a model with propose and log_density"),
        ("simulate BUNDLE --top ADP --out OUT --tune", "tuning is for mode 'exact', got mode 'guarded'"),
        (
            "simulate BUNDLE --top ADP --out OUT --least-driven-distance 1",
            "least_driven_distance is for mode 'exact', got",
        ),
        (
            "simulate BUNDLE --top ADP --out OUT --mode exact --least-driven-distance -1",
            "least_driven_distance must be zero or a distance",
        ),
        ("simulate BUNDLE --top ADP --out OUT --jump-interval 0", "jump_interval must be at least 1 step, got 0"),
        ("simulate BUNDLE --top ADP --out OUT --format trr", "format must be xtc or dcd, got 'trr'"),
        ("simulate BUNDLE --top ADP --out OUT --duration 0.1", "shorter than one report interval of 500 steps"),
        ("simulate BUNDLE --top TRIPEPTIDE --out OUT", "which bundle 'shake.latent.pt' expects"),
        ("bind BUNDLE --top ADP --out OUT", "family 'toy', which this version cannot bind"),
        ("bind ADP --top ADP --out OUT", "neither a family's weights nor a bundle"),
    ],
)
def test_mistakes_are_told_in_one_sentence(bundle: Path, tmp_path: Path, words: str, sentence: str) -> None:
    paths = {
        "ADP": ADP_PDB,
        "XTC": XTC,
        "OUT": tmp_path / "out",
        "BUNDLE": bundle,
        "TRIPEPTIDE": Path(__file__).parent / "data" / "thr_trp_tyr_neutral.pdb",
    }
    text = run(*(paths.get(word, word) for word in words.split()), code=2)
    assert sentence in text
    assert "openmm-latent: " in text
    assert "Traceback" not in text


def test_flexibility_and_bind_by_shipped_weights(tmp_path: Path) -> None:
    pdb = Path(__file__).parent / "data" / "l_peptides.pdb"
    text = run("flexibility", pdb, "--out", tmp_path / "peptide")
    assert "RMSF / nm" in text
    assert "LYS" in text
    assert {path.name for path in tmp_path.iterdir()} == {
        "peptide.csv", "peptide.pdb", "peptide.couplings.csv", "peptide.svg"
    }  # fmt: skip
    out = tmp_path / "peptide.latent.pt"
    assert f"wrote {out}" in run("bind", "dynaprot", "--top", pdb, "--out", out)
    told = json.loads(run("inspect", out, "--json"))
    assert told["family"] == "DynaProt"
    assert told["training"]["temperature"] == 300.0
    assert "does not exist; create it first" in run("flexibility", pdb, "--out", tmp_path / "no" / "x", code=2)
