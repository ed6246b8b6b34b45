"""Walkers of an ensemble without another process: store, starts, lock, running and stopping."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from distributed import Client

from ensembles import contents, make_config, make_tasks, shaking_bundle
from openmm_latent.ensemble import (
    ClusterConfig,
    Report,
    StartsConfig,
    cluster,
    connect,
    open_store,
    run_walker,
    run_walkers,
)
from openmm_latent.ensemble.lock import FolderLock
from openmm_latent.errors import LatentError
from openmm_latent.hybrid import HybridRun
from toys import ADP_PDB

XTC = ADP_PDB.with_name("adp_400K.xtc")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shaking_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """One worker in a thread of this process."""
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0") as found:
        yield found


def never() -> bool:
    return False


def test_a_walker_is_a_hybrid_run(bundle: Path, tmp_path: Path) -> None:
    task = make_tasks(make_config(bundle, tmp_path / "store", 1, 0.4))[0]
    told: list[tuple[str, int]] = []
    result = run_walker(task, lambda kind, n: told.append((kind, n)), never)
    assert (result.n_done, result.is_complete) == (20, True)
    assert told[0] == ("began", 0)
    assert told[-1] == ("frames", 20)
    alone = HybridRun(bundle, ADP_PDB, tmp_path / "alone", task.config, "Reference")
    assert alone.run() == result.jumps
    assert alone.trajectory.read_bytes() == (task.folder / "adp.xtc").read_bytes()


def test_all_walkers_run_on_a_worker_one_by_one_as_each_alone(bundle: Path, tmp_path: Path, client: Client) -> None:
    tasks = make_tasks(make_config(bundle, tmp_path / "store", 3, 0.4))
    reports: list[Report] = []
    results = run_walkers(tasks, client, tmp_path / "store", reports.append)
    assert sorted(results) == [0, 1, 2]
    assert {one.walker for one in reports if one.kind == "done"} == {0, 1, 2}
    for task in reversed(make_tasks(make_config(bundle, tmp_path / "alone", 3, 0.4))):
        run_walker(task, lambda kind, n: None, never)
    assert contents(tmp_path / "store", 3) == contents(tmp_path / "alone", 3)
    assert run_walkers(tasks, client, tmp_path / "store") == {}  # complete walkers are left alone


def test_ctrl_c_saves_every_walker_and_the_same_call_goes_on(bundle: Path, tmp_path: Path, client: Client) -> None:
    tasks = make_tasks(make_config(bundle, tmp_path / "store", 2, 1.0))

    def interrupt(report: Report) -> None:
        if report.kind == "began":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"walkers saved in .*, 2 of 2 not yet complete"):
        run_walkers([replace(task, report_every=0.0) for task in tasks], client, tmp_path / "store", interrupt)
    assert tasks[0].n_saved < tasks[0].config.n_blocks
    run_walkers(tasks, client, tmp_path / "store")
    for task in make_tasks(make_config(bundle, tmp_path / "alone", 2, 1.0)):
        run_walker(task, lambda kind, n: None, never)
    assert contents(tmp_path / "store", 2) == contents(tmp_path / "alone", 2)


def test_a_walker_that_fails_is_named_and_the_others_finish(bundle: Path, tmp_path: Path, client: Client) -> None:
    tasks = make_tasks(make_config(bundle, tmp_path / "store", 2, 0.4))
    wrong = replace(tasks[0], structure=tmp_path / "absent.pdb")
    with pytest.raises(LatentError, match=r"1 of 2 walkers failed, walker_000 first: structure file .* does not exist"):
        run_walkers([wrong, tasks[1]], client, tmp_path / "store")
    assert tasks[1].n_saved == tasks[1].config.n_blocks


def test_a_scheduler_that_runs_already_is_used(bundle: Path, tmp_path: Path, client: Client) -> None:
    # By hand: dask's write_scheduler_file also writes statistics of finished tasks, whose keys JSON cannot hold.
    (tmp_path / "scheduler.json").write_text(json.dumps({"address": client.scheduler.address}))
    places = {"address": client.scheduler.address}, {"scheduler_file": tmp_path / "scheduler.json"}
    for number, place in enumerate(places):
        tasks = make_tasks(make_config(bundle, tmp_path / f"store_{number}", 1, 0.4))
        with connect(ClusterConfig(kind="address", **place), 1, tmp_path) as found:
            assert run_walkers(tasks, found, tmp_path / f"store_{number}")[0].is_complete


def test_an_absent_scheduler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_PATIENCE", 0.5)
    absent = ClusterConfig(kind="address", scheduler_file=tmp_path / "absent.json")
    with pytest.raises(LatentError, match=r"cluster\.scheduler_file: .*absent\.json does not exist; start"):
        connect(absent, 1, tmp_path).__enter__()
    silent = ClusterConfig(kind="address", address="tcp://127.0.0.1:1")
    with pytest.raises(LatentError, match=r"cluster\.address: no scheduler answers at tcp://127\.0\.0\.1:1"):
        connect(silent, 1, tmp_path).__enter__()


def test_a_worker_with_threads_is_refused(bundle: Path, tmp_path: Path) -> None:
    tasks = make_tasks(make_config(bundle, tmp_path / "store", 1, 0.4))
    with (
        Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0") as client,
        pytest.raises(LatentError, match=r"has 2 threads, .* start workers with --nthreads 1"),
    ):
        run_walkers(tasks, client, tmp_path / "store")


def test_walkers_start_from_frames_of_a_trajectory(bundle: Path, tmp_path: Path) -> None:
    starts = StartsConfig(XTC, [5, 70])
    tasks = make_tasks(make_config(bundle, tmp_path / "store", 2, 0.4, starts=starts))
    frames = mdtraj.load(str(XTC), top=str(ADP_PDB))
    for task, frame in zip(tasks, (5, 70), strict=True):
        found = mdtraj.load(str(task.structure)).xyz[0]
        np.testing.assert_allclose(found, frames.xyz[frame], atol=1e-4)  # a PDB file's last digit
    spread = make_config(bundle, tmp_path / "spread", 3, 0.4, starts=StartsConfig(XTC))
    said = [one["start"] for one in json.loads(_opened(spread).read_text())["walkers"]]
    assert said[0].startswith("frame 0 of")
    assert said[2].startswith(f"frame {len(frames) - 1} of")


def _opened(config) -> Path:
    open_store(config)
    return config.out / "ensemble.json"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"temperature": 310.0}, "holds an ensemble whose walker_000 has temperature 300.0, and 310.0 is asked for"),
        ({"seed": 4}, "walker_000 has seed 1, and 4 is asked for"),
        ({"walkers": 1}, "holds 2 walkers, and config key walkers asks for 1"),
        ({"structure": Path("absent.pdb")}, "config key structure: file absent.pdb does not exist"),
        ({"starts": StartsConfig(Path("absent.xtc"))}, "config key starts.trajectory: file absent.xtc does not exist"),
        ({"starts": StartsConfig(XTC, [0, 10**9])}, "config key starts.frames must lie between 0 and"),
    ],
)
def test_another_ensemble_in_the_folder_is_refused(bundle: Path, tmp_path: Path, changes, sentence: str) -> None:
    config = make_config(bundle, tmp_path, 2, 0.4)
    open_store(config)
    with pytest.raises(LatentError) as caught:
        open_store(replace(config, **changes))
    assert sentence in str(caught.value)


def test_an_ensemble_may_get_more_walkers_and_longer_ones(bundle: Path, tmp_path: Path) -> None:
    config = make_config(bundle, tmp_path, 2, 0.4)
    open_store(config)
    longer = replace(config, walkers=3, run={**config.run, "duration": 0.8})
    assert [task.config.n_blocks for task in open_store(longer)] == [40, 40, 40]


def test_a_second_writer_waits_for_the_first(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with FolderLock(tmp_path, pause=0.01):
            order.append("second")

    with FolderLock(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
    with FolderLock(tmp_path), pytest.raises(KeyboardInterrupt, match="another process is still running"):
        FolderLock(tmp_path, is_stopped=lambda: True).__enter__()
