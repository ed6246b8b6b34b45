"""What an ensemble leaves: files that other programs read, and one store that the other commands read whole."""

from __future__ import annotations

import csv
import json
import re
import warnings
from pathlib import Path

import h5py
import mdtraj
import numpy as np
import pytest
from typer.testing import CliRunner

from ensembles import make_config, make_tasks
from openmm_latent.analysis import find_runs, trajectory_of
from openmm_latent.cli import app
from openmm_latent.ensemble import run_walker
from openmm_latent.ensemble.collect import collect
from openmm_latent.errors import LatentError
from toys import ADP_PDB, Identity, Shake, export_toy, load_adp

N_WALKERS, N_FRAMES = 2, 40


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose latent is the radius of gyration of the heavy atoms."""
    topology, positions = load_adp()
    return export_toy(Identity(10), tmp_path_factory.mktemp("bundle") / "rg.latent.pt", topology, positions)


@pytest.fixture(scope="module")
def store(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "store"
    run = {"duration": 0.8, "jump_interval": 20, "report_interval": 10}
    for task in make_tasks(make_config(bundle, out, N_WALKERS, 0.8, run=run)):
        run_walker(task, lambda kind, n: None, lambda: False)
    return out


def command(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == code, result.output
    return re.sub(r"\s+", " ", result.output)


def test_mdtraj_and_mdanalysis_read_the_trajectories(store: Path) -> None:
    for table in find_runs([store]):
        files = str(trajectory_of(table)), str(table.with_name("adp.pdb"))
        ours = mdtraj.load(files[0], top=files[1])
        assert (ours.n_frames, ours.n_atoms) == (N_FRAMES, 22)
        np.testing.assert_allclose(ours.time, 0.02 * np.arange(1, N_FRAMES + 1), rtol=1e-5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own imports, and of what our PDB file leaves out
            mdanalysis = pytest.importorskip("MDAnalysis")
            universe = mdanalysis.Universe(files[1], files[0])
            theirs = np.array([frame.positions.copy() for frame in universe.trajectory])
            assert universe.trajectory.dt == pytest.approx(0.02, rel=1e-4)
        np.testing.assert_allclose(0.1 * theirs, ours.xyz, atol=1e-5)


def test_the_file_of_all_runs_says_its_units(store: Path, bundle: Path, tmp_path: Path) -> None:
    tables = find_runs([store])
    weights = tmp_path / "adp.weights.csv"
    with open(weights, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["run", "frame", "weight"])
        for table in tables:
            writer.writerows([[table.with_name("adp"), frame, 1 / 60] for frame in range(10, N_FRAMES)])
    out = tmp_path / "store.h5"
    words = ["--model", bundle, "--out", out, "--weights", weights]
    assert "store.h5: 2 runs" in command("collect", store, *words)
    total = 0.0
    with h5py.File(out) as handle:
        assert set(handle["runs"]) == {"walker_000", "walker_001"}
        for name, group in handle["runs"].items():
            units = {key: dataset.attrs["units"] for key, dataset in group.items()}
            assert units == {"time": "ps", "since_jump": "ps", "latent": "1", "slow": "1", "weight": "1"}
            frames = mdtraj.load(str(store / name / group.attrs["trajectory"]), top=str(store / name / "adp.pdb"))
            heavy = frames.xyz[:, frames.topology.select("not element H")].astype(float)
            centred = heavy - heavy.mean(axis=1, keepdims=True)
            radius = np.sqrt((centred**2).sum(axis=2).mean(axis=1))  # (n_frames,) [nm]
            np.testing.assert_allclose(group["latent"][:, 0], radius, rtol=1e-5)
            np.testing.assert_allclose(group["time"][:], frames.time, rtol=1e-5)
            assert json.loads(group.attrs["provenance"])["mode"] == "guarded"
            assert group["weight"][:10].tolist() == [0.0] * 10
            total += float(group["weight"][:].sum())
    assert total == pytest.approx(1.0)


def test_a_missing_model_and_weights_of_other_runs_are_told(store: Path, bundle: Path, tmp_path: Path) -> None:
    topology, positions = load_adp()
    other = export_toy(Shake(10, 0.003), tmp_path / "other.latent.pt", topology, positions)
    with pytest.raises(LatentError, match=r"model \(--model\) is missing for .*walker_000: .* run with rg\.latent\.pt"):
        collect(store, [other], tmp_path / "a.h5")
    wrong = tmp_path / "w.csv"
    wrong.write_text("run,frame,weight\nelsewhere/adp,0,1\n")
    with pytest.raises(LatentError, match=r"names run elsewhere/adp, which is not in the store"):
        collect(store, [bundle], tmp_path / "a.h5", wrong)
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.slow
def test_evaluate_and_reweight_read_the_store(store: Path, tmp_path: Path) -> None:
    reference = ADP_PDB.with_name("adp_400K.xtc")
    words = ["--top", ADP_PDB, "--reference", reference, "--stride", 10, "--sample", store]
    command("evaluate", *words, "--independent", "--out", tmp_path / "report")
    told = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert (told["sample"]["n_runs"], told["sample"]["n_frames"]) == (N_WALKERS, N_WALKERS * N_FRAMES // 10)
    assert told["jumps"]["n_jumps"] == N_WALKERS * 19  # none before the first relaxation
    text = command("reweight", "--run", store, "--out", tmp_path / "eq", "--state", "phi>0", "--drop", 0)
    assert "no number" in text  # of less than a picosecond
    runs = json.loads((tmp_path / "eq" / "adp.json").read_text())["runs"]
    assert [Path(one["name"]).parent.name for one in runs] == ["walker_000", "walker_001"]


def test_help_has_examples_and_mistakes_their_sentence(tmp_path: Path) -> None:
    for name in ("ensemble", "collect"):
        assert f"openmm-latent {name} " in command(name, "--help").split("Example", 1)[1]
    config = tmp_path / "walkers.yaml"
    config.write_text("structure: a.pdb\nmodel: m\nout: o\nwalkers: none\n")
    assert "config key walkers is wrong" in command("ensemble", config, code=2)
