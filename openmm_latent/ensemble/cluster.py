"""Workers: on this machine, at a scheduler that runs already, or as jobs of Slurm."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster, SpecCluster, Status
from tornado.ioloop import PeriodicCallback

from openmm_latent.ensemble.config import ClusterConfig
from openmm_latent.errors import LatentError, require

#: What a worker's process sees: one thread a walker, since more walkers gain more than more threads.
#: dask's profiler would stop the walker a hundred times a second to look where it is.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}
#: Run by each local worker. A terminal sends Ctrl-C to all processes; the first one tells workers when to stop.
_NO_INTERRUPT = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
#: [s] between two looks at which workers are there, and after which one that does not come back is replaced.
_LOOK, _GRACE = 5.0, 60.0
#: [s] that a running scheduler has to answer in.
_PATIENCE = 15.0


@contextmanager
def connect(config: ClusterConfig, n_walkers: int, out: Path) -> Iterator[Client]:
    """Start workers, or find them, and give a client; at the end stop what was started.

    Parameters
    ----------
    config : ClusterConfig
    n_walkers : int
        More workers than this are not started.
    out : Path
        Of the store: logs of Slurm's jobs lie in it.

    Raises
    ------
    LatentError
        There is no scheduler at the address, or dask-jobqueue is missing.
    """
    if config.kind == "address":
        with _client_of(config) as client:
            yield client
        return
    make = slurm_cluster if config.kind == "slurm" else _local_cluster
    with make(config, n_walkers, out) as cluster, Client(cluster) as client:
        keeper = PeriodicCallback(Keeper(cluster).look, 1000 * _LOOK)
        cluster.loop.add_callback(keeper.start)
        try:
            yield client
        finally:
            cluster.loop.add_callback(keeper.stop)


class Keeper:
    """Replaces workers that are gone for good: dask counts on them for ever.

    A process that dies is started anew by its nanny, but not one that dies while it starts; and a job of Slurm that has
    reached its walltime is followed by none.

    Parameters
    ----------
    cluster : distributed.SpecCluster
    """

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._looks_without: dict[Any, int] = {}  # of workers and jobs that were there once

    def look(self) -> None:
        """Compare what should be there with what is; called in the cluster's event loop."""
        here = [str(one["name"]) for one in self._cluster.scheduler_info["workers"].values()]
        for name, worker in list(self._cluster.workers.items()):
            # a job's workers are named after it, "job-0", "job-1"
            if any(one == str(name) or one.startswith(f"{name}-") for one in here):
                self._looks_without[name] = 0
            elif name in self._looks_without:
                self._looks_without[name] += 1
            is_dead = worker.status in (Status.closed, Status.failed)
            if is_dead or self._looks_without.get(name, 0) * _LOOK > _GRACE:
                del self._cluster.workers[name]
                self._looks_without.pop(name, None)
                self._closing = asyncio.ensure_future(worker.close())  # kept, or the task might be collected
        # as many as before: opens what is in the specification and not among the workers
        SpecCluster.scale(self._cluster, len(self._cluster.worker_spec))


def _client_of(config: ClusterConfig) -> Client:
    """Return a client of a scheduler that runs already."""
    file = config.scheduler_file
    require(
        file is None or file.is_file(),
        f"config key cluster.scheduler_file: {file} does not exist; start `dask scheduler` with this file first",
    )
    try:
        return Client(config.address, scheduler_file=file and str(file), timeout=_PATIENCE)
    except (OSError, ValueError) as error:
        key = "address" if file is None else "scheduler_file"
        raise LatentError(
            f"config key cluster.{key}: no scheduler answers at {config.address or file} "
            f"({' '.join(str(error).split())[:120]}); start one with `dask scheduler`"
        ) from error


def _local_cluster(config: ClusterConfig, n_walkers: int, out: Path) -> LocalCluster:
    n_cores = len(os.sched_getaffinity(0))
    n_workers = min(config.workers or n_cores, n_walkers)
    threads = {"OPENMM_CPU_THREADS": str(max(1, n_cores // n_workers))}
    with dask.config.set({"distributed.worker.profile.enabled": False}):
        settings = copy.deepcopy(dask.config.config)  # for workers that the keeper starts, too
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Port \d+ is already in use")
        return LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # a walker's memory is its system's: nothing to spill, and no reason to end it
            dashboard_address=f":{config.dashboard}",
            silence_logs=logging.CRITICAL,  # a lost worker is told by the walkers that move
            env=_ENVIRONMENT | threads,
            preload=[_NO_INTERRUPT],
            config=settings,
        )


def slurm_cluster(config: ClusterConfig, n_walkers: int, out: Path) -> Any:
    """Return a dask_jobqueue.SLURMCluster that keeps as many jobs as the workers need.

    Raises
    ------
    LatentError
        dask-jobqueue is not installed.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise LatentError(
            "config key cluster.kind slurm needs dask-jobqueue, which is not installed; run "
            "`pip install openmm-latent[slurm]`"
        ) from error
    slurm = config.slurm
    n_workers = min(config.workers or n_walkers, n_walkers)
    n_jobs = -(-n_workers // slurm.workers_per_job)
    environment = _ENVIRONMENT | {"OPENMM_CPU_THREADS": str(slurm.cores_per_worker)}
    directives = [*slurm.directives, *([f"--gpus={slurm.gpus_per_job}"] if slurm.gpus_per_job else [])]
    cluster = SLURMCluster(
        queue=slurm.queue,
        account=slurm.account,
        walltime=slurm.walltime,
        memory=slurm.memory,
        cores=slurm.workers_per_job,  # dask's word for threads: one a worker
        processes=slurm.workers_per_job,
        job_cpu=slurm.workers_per_job * slurm.cores_per_worker,
        job_extra_directives=directives,
        job_script_prologue=[*slurm.setup, *(f"export {key}={value}" for key, value in environment.items())],
        log_directory=slurm.logs or str(out / "logs"),
        interface=slurm.interface,
        scheduler_options={"dashboard_address": f":{config.dashboard}"},
    )
    cluster.scale(jobs=n_jobs)
    return cluster
