"""Slurm without Slurm: the job script as it is, and jobs that a stand-in for sbatch runs on this machine."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ensembles import contents, make_config, make_tasks, shaking_bundle
from openmm_latent.ensemble import ClusterConfig, Report, SlurmConfig, cluster, connect, run_walker, run_walkers
from openmm_latent.errors import LatentError

SLURM = SlurmConfig(
    queue="long",
    account="chem",
    walltime="01:30:00",
    memory="3GB",
    workers_per_job=2,
    cores_per_worker=4,
    gpus_per_job=1,
    setup=["module load cuda"],
    directives=["--qos=low"],
)

SBATCH = """#!/bin/bash
script=$(mktemp {folder}/script.XXXX)
cp "$1" "$script"  # dask removes its own as soon as it is submitted
setsid bash "$script" > "$script.log" 2>&1 &
echo $! >> {folder}/jobs
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/bash
kill -9 -- -"$1" 2> /dev/null
exit 0
"""


def test_the_job_script_says_what_the_file_asks_for(tmp_path: Path) -> None:
    config = ClusterConfig(kind="slurm", dashboard=0, workers=3, slurm=SLURM)
    with cluster.slurm_cluster(replace(config, workers=0), 0, tmp_path) as made:
        script = made.job_script()
    for line in (
        "#SBATCH -p long",
        "#SBATCH -A chem",
        "#SBATCH -t 01:30:00",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=3G",
        "#SBATCH --gpus=1",
        "#SBATCH --qos=low",
        "module load cuda",
        "export OPENMM_CPU_THREADS=4",
        f"{tmp_path / 'logs'}",
    ):
        assert line in script, line
    assert "--nthreads 1 " in script
    assert "--nworkers 2 " in script
    assert script.index("module load cuda") < script.index("distributed.cli.dask_worker")


def test_absent_dask_jobqueue_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with (
        pytest.raises(LatentError, match=r"needs dask-jobqueue, .*pip install openmm-latent\[slurm\]"),
        connect(ClusterConfig(kind="slurm"), 1, tmp_path),
    ):
        pass


@pytest.mark.slow
def test_a_job_that_ends_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text.format(folder=tmp_path))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(cluster, "_LOOK", 1.0)
    monkeypatch.setattr(cluster, "_GRACE", 2.0)
    config = make_config(shaking_bundle(tmp_path), tmp_path / "store", 1, 2.0)
    n_killed = 0

    def kill_the_job(report: Report) -> None:
        nonlocal n_killed
        if report.kind == "frames" and report.n_done > 20 and not n_killed:
            os.killpg(int((tmp_path / "jobs").read_text().split()[-1]), signal.SIGKILL)
            n_killed += 1

    tasks = [replace(task, report_every=0.05) for task in make_tasks(config)]
    with connect(ClusterConfig(kind="slurm", dashboard=0, slurm=SlurmConfig(memory="1GB")), 1, config.out) as client:
        run_walkers(tasks, client, config.out, kill_the_job)
    assert n_killed == 1
    assert len((tmp_path / "jobs").read_text().split()) == 2
    for task in make_tasks(replace(config, out=tmp_path / "alone")):
        run_walker(task, lambda kind, n: None, lambda: False)
    assert contents(config.out, 1) == contents(tmp_path / "alone", 1)
