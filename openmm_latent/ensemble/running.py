"""All walkers of a store on the workers of a cluster, until each is complete."""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import Client, Future
from distributed.scheduler import KilledWorker

from openmm_latent.data.interrupt import DelayedInterrupt
from openmm_latent.ensemble.walkers import StopFlag, WalkerResult, WalkerTask, run_walker_on_worker
from openmm_latent.errors import LatentError, require

#: [s] between two looks at whether the user has pressed Ctrl-C.
_PAUSE = 0.5


@dataclass(frozen=True)
class Report:
    """One thing that happened to a walker."""

    walker: int
    kind: str  # "began", "frames", "done", "stopped", "failed" or "resubmitted"
    n_done: int  # frames
    text: str = ""
    place: str = ""  # address of the worker


@dataclass
class _Campaign:
    """Who is still out."""

    tasks: dict[int, WalkerTask]
    results: dict[int, WalkerResult] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    n_saved: dict[int, int] = field(default_factory=dict)  # frames when the walker was last submitted
    futures: dict[int, Future] = field(default_factory=dict)


def run_walkers(
    tasks: Sequence[WalkerTask], client: Client, out: Path, report: Callable[[Report], None] = lambda one: None
) -> dict[int, WalkerResult]:
    """Run walkers until all are complete; those that are so already are left alone.

    Parameters
    ----------
    tasks : sequence of WalkerTask
    client : distributed.Client
    out : Path
        The store.
    report : callable
        Told what happens, in the calling thread.

    Returns
    -------
    dict of int to WalkerResult
        Of each walker that was not complete before.

    Raises
    ------
    LatentError
        A walker failed; the others have gone on to their ends.
    KeyboardInterrupt
        After Ctrl-C or SIGTERM, with all walkers saved.
    """
    topic = f"openmm-latent-{hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:12]}"
    happened: queue.Queue[Any] = queue.Queue()
    campaign = _Campaign({task.number: task for task in tasks if task.n_saved < task.config.n_blocks})
    client.register_plugin(StopFlag(topic, is_asked=False), name=topic)
    client.subscribe_topic(topic, happened.put)
    is_stopping = False
    with DelayedInterrupt() as interrupt:
        for task in campaign.tasks.values():
            _submit(campaign, task, client, topic, happened)
        while campaign.futures:
            if interrupt.is_asked and not is_stopping:
                is_stopping = _stop(campaign, client, topic)
                continue
            try:
                found = happened.get(timeout=_PAUSE)
            except queue.Empty:
                continue
            if isinstance(found, Future):
                _collect(campaign, found, client, topic, happened, report)
            else:
                event = found[1]
                report(Report(event["walker"], event["kind"], event["n_done"], place=event["worker"]))
    client.unsubscribe_topic(topic)
    _raise_failures(campaign, out)
    n_open = len(campaign.tasks) - sum(one.is_complete for one in campaign.results.values())
    if n_open:
        raise KeyboardInterrupt(f"walkers saved in {out}, {n_open} of {len(tasks)} not yet complete")
    return campaign.results


def _submit(campaign: _Campaign, task: WalkerTask, client: Client, topic: str, happened: queue.Queue[Any]) -> None:
    campaign.n_saved[task.number] = task.n_saved
    # the first in the list start first
    future = client.submit(run_walker_on_worker, task, topic, pure=False, priority=-task.number)
    campaign.futures[task.number] = future
    future.add_done_callback(happened.put)


def _stop(campaign: _Campaign, client: Client, topic: str) -> bool:
    """Ask all walkers to save and stop, and forget those that no worker has begun; false if it is to be asked again."""
    try:
        client.register_plugin(StopFlag(topic, is_asked=True), name=topic)
    except OSError:  # a worker that went just now
        return False
    # without a worker to begin them they would wait for ever
    keys = {key for held in client.processing().values() for key in held}
    waiting = {number: future for number, future in campaign.futures.items() if future.key not in keys}
    for number, future in waiting.items():
        del campaign.futures[number]
        future.release()
    return True


def _collect(
    campaign: _Campaign,
    future: Future,
    client: Client,
    topic: str,
    happened: queue.Queue[Any],
    report: Callable[[Report], None],
) -> None:
    """Take in what a finished task brings."""
    number = next((i for i, one in campaign.futures.items() if one is future), None)
    if number is None:  # dropped before
        return
    task = campaign.tasks[number]
    del campaign.futures[number]
    if future.status == "finished":
        result = future.result()
        campaign.results[number] = result
        report(Report(number, "done" if result.is_complete else "stopped", result.n_done, place=result.place))
        return
    require(
        future.status == "error",
        f"the scheduler has dropped walker {number} ({future.status}); the same command goes on, once it runs again",
    )
    error = future.exception()
    if isinstance(error, KilledWorker) and task.n_saved > campaign.n_saved[number]:
        # its workers have died again and again, as those of a long run do, and each time it had got further
        report(Report(number, "resubmitted", task.n_saved))
        _submit(campaign, task, client, topic, happened)
        return
    if isinstance(error, KilledWorker):
        text = "several workers died with it before it was saved; do they have the memory for it?"
    else:
        text = str(error) if isinstance(error, LatentError) else f"{type(error).__name__}: {error}"
    campaign.failures[number] = text
    report(Report(number, "failed", task.n_saved, text))


def _raise_failures(campaign: _Campaign, out: Path) -> None:
    if not campaign.failures:
        return
    number, text = min(campaign.failures.items())
    n_walkers = len(campaign.tasks)
    raise LatentError(
        f"{len(campaign.failures)} of {n_walkers} walkers failed, {campaign.tasks[number].folder.name} first: {text} "
        f"(the others are saved in {out}; the same command runs what is missing)"
    )
