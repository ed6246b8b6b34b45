"""What a worker does: one walker, from where it was saved to its end."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from distributed import WorkerPlugin, get_worker

from openmm_latent.ensemble.lock import FolderLock
from openmm_latent.errors import require
from openmm_latent.hybrid import HybridConfig, HybridRun

#: Told (kind, frames done): "began" once with those of the save point, then "frames".
Tell = Callable[[str, int], None]


@dataclass(frozen=True)
class WalkerTask:
    """One walker: all that a worker has to know."""

    number: int
    folder: Path
    bundle: Path
    structure: Path
    name: str  # of its files
    config: HybridConfig
    platform: str | None = None  # of OpenMM; None chooses
    report_every: float = 1.0  # [s] of wall time between two reports

    @property
    def n_saved(self) -> int:
        """Frames at the last save point."""
        facts = self.folder / f"{self.name}.json"
        return int(json.loads(facts.read_text()).get("n_frames", 0)) if facts.is_file() else 0


@dataclass(frozen=True)
class WalkerResult:
    """What became of a walker."""

    number: int
    n_done: int  # frames
    n_frames: int  # of the whole run
    jumps: dict[str, int]  # tried, accepted, and refused by reason
    wall_seconds: float  # of this stay on a worker
    cpu_seconds: float  # of its thread
    place: str  # host and process

    @property
    def is_complete(self) -> bool:
        """Whether all frames are there."""
        return self.n_done >= self.n_frames


class StopFlag(WorkerPlugin):
    """Lies on every worker, and tells its walker to save and stop; a worker that joins later gets it, too."""

    def __init__(self, name: str, is_asked: bool) -> None:
        self.name, self.is_asked = name, is_asked


def run_walker(task: WalkerTask, tell: Tell, is_stopped: Callable[[], bool]) -> WalkerResult:
    """Run a walker to its end, or until `is_stopped`.

    Raises
    ------
    LatentError
        As `HybridRun`, or the file system has no locks.
    """
    wall, cpu = time.perf_counter(), time.thread_time()
    n_done, n_frames, jumps = task.n_saved, task.config.n_blocks, {}
    if not is_stopped():
        last = time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > task.report_every or done == total:
                last = time.monotonic()
                tell("frames", done)

        try:
            with FolderLock(task.folder, is_stopped):
                run = HybridRun(task.bundle, task.structure, task.folder, task.config, task.platform, task.name)
                tell("began", run.n_done)
                try:
                    run.run(progress, is_stopped)
                finally:
                    n_done, jumps = run.n_done, run.tally()
        except KeyboardInterrupt:
            require(is_stopped(), f"walker {task.number} was interrupted by a signal to its worker; run it again")
    place = f"{socket.gethostname()}:{os.getpid()}"
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    return WalkerResult(task.number, n_done, n_frames, jumps, wall, cpu, place)


def run_walker_on_worker(task: WalkerTask, topic: str) -> WalkerResult:
    """Run a walker on a dask worker: reports go to the topic, and the worker's `StopFlag` of that name stops it."""
    worker: Any = get_worker()
    require(
        worker.state.nthreads == 1,
        f"worker {worker.address} has {worker.state.nthreads} threads, and walkers that share a process would share "
        f"OpenMM's random numbers; start workers with --nthreads 1 and as many --nworkers",
    )

    # torch sums in another order with other threads, and a walker may go on elsewhere, bit for bit
    torch.set_num_threads(1)

    def tell(kind: str, n_done: int) -> None:
        worker.log_event(topic, {"walker": task.number, "kind": kind, "n_done": n_done})

    def is_stopped() -> bool:
        return bool(worker.plugins[topic].is_asked)

    return run_walker(task, tell, is_stopped)
