"""Workers that die: processes killed without warning, in the middle of their walkers."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import dask
import mdtraj
import numpy as np
import pytest
import yaml
from distributed import Client

from ensembles import contents, make_config, make_tasks, shaking_bundle
from openmm_latent.ensemble import ClusterConfig, Report, WalkerTask, connect, run_walker, run_walkers
from openmm_latent.errors import LatentError
from toys import ADP_PDB

pytestmark = pytest.mark.slow

N_WALKERS = 8
LOCAL = ClusterConfig(workers=2, dashboard=0)


class Killer:
    """Kills the worker that has just reported a frame, at each of these reports."""

    def __init__(self, client: Client, at: Sequence[int]) -> None:
        self.client, self.at = client, set(at)
        self.n_reports, self.n_killed = 0, 0
        self.reports: list[Report] = []

    def __call__(self, report: Report) -> None:
        self.reports.append(report)
        if report.kind != "frames":
            return
        self.n_reports += 1
        if self.n_reports in self.at:
            process = self.client.run(os.getpid, workers=[report.place], on_error="ignore").get(report.place)
            if process is not None:
                os.kill(process, signal.SIGKILL)
                self.n_killed += 1


def finish(tasks: list[WalkerTask], out: Path, at: Sequence[int] = ()) -> Killer:
    """Run all walkers on two workers, killing one of them at each of these reports."""
    with connect(LOCAL, len(tasks), out) as client:
        killer = Killer(client, at)
        run_walkers(tasks, client, out, killer)
    return killer


def test_eight_walkers_survive_three_kills_bit_for_bit(tmp_path: Path) -> None:
    bundle = shaking_bundle(tmp_path)
    config = make_config(bundle, tmp_path / "store", N_WALKERS, 4.0)
    undisturbed = make_tasks(replace(config, out=tmp_path / "undisturbed"))
    for task in undisturbed:
        run_walker(task, lambda kind, n: None, lambda: False)
    tasks = [replace(task, report_every=0.0) for task in make_tasks(config)]
    n_frames = tasks[0].config.n_blocks
    at = random.Random(20261121).sample(range(20, N_WALKERS * n_frames // 2), 3)
    killer = finish(tasks, config.out, at)
    assert killer.n_killed == 3
    # a walker that had begun begins again, unless the kill came just between two
    assert sum(one.kind == "began" for one in killer.reports) > N_WALKERS
    assert contents(config.out, N_WALKERS) == contents(tmp_path / "undisturbed", N_WALKERS)
    for task in tasks:
        times = mdtraj.load(str(task.folder / "adp.xtc"), top=str(task.folder / "adp.pdb")).time
        np.testing.assert_allclose(times, 0.02 * np.arange(1, n_frames + 1), rtol=1e-5)  # none lost, none twice


def test_a_walker_whose_workers_keep_dying_goes_on_as_long_as_it_gets_further(tmp_path: Path) -> None:
    config = make_config(shaking_bundle(tmp_path), tmp_path / "store", 1, 40.0)
    tasks = [replace(task, report_every=0.0) for task in make_tasks(config)]
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        killer = finish(tasks, config.out, [400, 1000])  # late enough to have been saved, early enough to go on
    assert [one.kind for one in killer.reports].count("resubmitted") == killer.n_killed > 0
    assert tasks[0].n_saved == tasks[0].config.n_blocks


def test_ctrl_c_of_a_terminal_reaches_all_processes_and_saves_all_walkers(tmp_path: Path) -> None:
    store, file = tmp_path / "store", tmp_path / "walkers.yaml"
    run = {"duration": 1000, "jump_interval": 20, "save_every": 1000}
    settings = {"structure": str(ADP_PDB), "model": str(shaking_bundle(tmp_path)), "walkers": 2, "out": str(store)}
    file.write_text(yaml.safe_dump(settings | {"run": run, "cluster": {"workers": 2, "dashboard": 0}}))
    command = [sys.executable, "-c", "from openmm_latent.cli import app; app()", "ensemble", str(file)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    frames = [store / f"walker_{i:03d}" / "adp.xtc" for i in range(2)]
    while process.poll() is None and not all(path.exists() and path.stat().st_size > 5000 for path in frames):
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, words = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "2 of 2 not yet complete); the same command goes on from there" in " ".join(words.split())
    assert "Traceback" not in words
    for path in frames:  # saved at the end: no frame after the save point
        n_frames = json.loads(path.with_name("adp.json").read_text())["n_frames"]
        assert mdtraj.load(str(path), top=str(path.with_name("adp.pdb"))).n_frames == n_frames > 0


def die(task: WalkerTask, topic: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_walker_that_kills_its_workers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openmm_latent.ensemble.running as running

    replaced: Callable[[WalkerTask, str], None] = die
    monkeypatch.setattr(running, "run_walker_on_worker", replaced)
    tasks = make_tasks(make_config(shaking_bundle(tmp_path), tmp_path / "store", 1, 0.4))
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        pytest.raises(LatentError, match="walker_000 first: several workers died with it before it was saved"),
    ):
        finish(tasks, tmp_path / "store")  # by workers that die before their nannies have seen them start
