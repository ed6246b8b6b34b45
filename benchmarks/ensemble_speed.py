"""What running walkers on dask costs: throughput on one and two workers, overhead a walker, messages, scheduler load.

The same walkers run in a plain process, then on one worker, then on two. Overhead is what one worker takes longer than
the plain process, from the first submission to the last result: by wall time, which asks for a quiet machine, and by
the CPU time of worker and scheduler. `--load-only` measures messages and scheduler alone, in a minute or two.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import pickle
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from distributed import Client, Worker, get_worker
from ensemble_kill import make_config
from results import write_results

from openmm_latent.ensemble import ClusterConfig, connect, open_store, run_walker, run_walkers
from openmm_latent.ensemble.walkers import WalkerResult, run_walker_on_worker

WORK = Path(__file__).parents[1] / "benchmark_output" / "ensemble_speed"


def plain(walkers: int, duration: float) -> dict:
    """Run all walkers one after the other in a fresh process, without dask."""
    command = [sys.executable, __file__, "--plain", "--walkers", str(walkers), "--duration", str(duration)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return {"wall_s": float(out[-2]), "cpu_s": float(out[-1])}


def run_plainly(walkers: int, duration: float) -> None:
    torch.set_num_threads(1)  # as on workers
    tasks = open_store(make_config(WORK / "plain", walkers, duration))
    wall, cpu = time.perf_counter(), time.process_time()
    for task in tasks:
        run_walker(task, lambda kind, n: None, lambda: False)
    print(time.perf_counter() - wall, time.process_time() - cpu)


def cpu_of_workers(client: Client) -> float:
    def seconds() -> float:
        times = psutil.Process().cpu_times()
        return times.user + times.system

    return sum(client.run(seconds).values())


def on_workers(k: int, walkers: int, duration: float) -> dict:
    """Run the walkers on k workers."""
    config = make_config(WORK / f"workers_{k}", walkers, duration)
    tasks = open_store(config)
    start = time.perf_counter()
    with connect(ClusterConfig(workers=k, dashboard=0), walkers, config.out) as client:
        client.run(lambda: __import__("openmm_latent.hybrid") and None)  # imports are once a worker, not a walker
        started = time.perf_counter()
        cpu, scheduler = cpu_of_workers(client), time.process_time()
        results = run_walkers(tasks, client, config.out)
        wall = time.perf_counter() - started
        cpu, scheduler = cpu_of_workers(client) - cpu, time.process_time() - scheduler
    assert all(one.is_complete for one in results.values())
    return {
        "start_s": started - start,
        "wall_s": wall,
        "workers_cpu_s": cpu,
        "scheduler_and_client_cpu_s": scheduler,
        "md_ns_per_day": 86400e-3 * walkers * duration / wall,
    }


def report_often(n: int) -> None:
    for i in range(n):
        get_worker().log_event("load", {"walker": 1, "kind": "frames", "n_done": i})


def nothing(task, topic: str) -> WalkerResult:
    return WalkerResult(task.number, 1, 1, {"jumps": 1}, 0.0, 0.0, "")


def load(n_tasks: int = 1000, n_events: int = 10_000) -> dict:
    """Measure messages, and the CPU time that scheduler and client together take a walker and a report."""
    task = open_store(make_config(WORK / "load", 1, 1.0))[0]
    result = nothing(task, "load")
    sizes = {
        "task_bytes": len(pickle.dumps((run_walker_on_worker, task, "openmm-latent-0123456789ab"))),
        "result_bytes": len(pickle.dumps(result)),
        "report_bytes": len(pickle.dumps({"walker": 999, "kind": "frames", "n_done": 123456})),
    }
    n_seen = 0

    def see(event: object) -> None:
        nonlocal n_seen
        n_seen += 1

    with connect(ClusterConfig(workers=2, dashboard=0), 2, WORK) as client:
        client.submit(nothing, task, "load", pure=False).result()
        time.sleep(1)
        idle, cpu = time.perf_counter(), time.process_time()
        time.sleep(5)
        idle_share = (time.process_time() - cpu) / (time.perf_counter() - idle)
        cpu = time.process_time()
        tasks = [replace(task, number=i) for i in range(n_tasks)]
        client.gather([client.submit(nothing, one, "load", pure=False, priority=-one.number) for one in tasks])
        per_task = (time.process_time() - cpu) / n_tasks
        client.subscribe_topic("load", see)
        cpu = time.process_time()
        client.submit(report_often, n_events).result()
        while n_seen < n_events:
            time.sleep(0.05)
        per_event = (time.process_time() - cpu) / n_events
    return {
        **sizes,
        "n_tasks": n_tasks,
        "n_reports": n_events,
        "scheduler_and_client_ms_per_walker": 1e3 * per_task,
        "scheduler_and_client_ms_per_report": 1e3 * per_event,
        "idle_share_of_a_core_with_two_workers": idle_share,
    }


async def heartbeats(address: str, process: psutil.Process, counts: tuple[int, ...], seconds: float) -> dict:
    """Return the share of a core that a scheduler takes while so many workers do nothing."""

    def cpu() -> float:
        times = process.cpu_times()
        return times.user + times.system

    logging.getLogger("distributed").setLevel(logging.ERROR)
    workers: list[Worker] = []
    shares = {}
    for n in counts:
        new = [Worker(address, nthreads=1, memory_limit=0, dashboard=False) for _ in range(n - len(workers))]
        workers += await asyncio.gather(*new)
        await asyncio.sleep(5)
        began, before = time.perf_counter(), cpu()
        await asyncio.sleep(seconds)
        shares[str(n)] = (cpu() - before) / (time.perf_counter() - began)
    await asyncio.gather(*(one.close(nanny=False) for one in workers))
    return shares


def idle_scheduler(counts: tuple[int, ...] = (2, 50, 100), seconds: float = 15.0) -> dict:
    """Start a scheduler in a process of its own, and many workers in this one, which only send heartbeats."""
    file = WORK / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"]
    with open(WORK / "scheduler.log", "w") as log:
        process = subprocess.Popen([*command, "--scheduler-file", str(file)], stdout=log, stderr=log)
    try:
        while not file.exists():
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        return asyncio.run(heartbeats(address, psutil.Process(process.pid), counts, seconds))
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--walkers", type=int, default=4)
    parser.add_argument("--duration", type=float, default=2000.0, help="[ps] of each")
    parser.add_argument("--load-only", action="store_true", help="messages and scheduler alone")
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        run_plainly(options.walkers, options.duration)
        return
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    if options.load_only:
        write_results("ensemble_load", load() | {"scheduler_share_of_a_core_by_idle_workers": idle_scheduler()})
        return
    alone = plain(options.walkers, options.duration)
    found = {f"workers_{k}": on_workers(k, options.walkers, options.duration) for k in (1, 2)}
    one, two = found["workers_1"], found["workers_2"]
    overhead = {
        "overhead_by_wall_time": one["wall_s"] / alone["wall_s"] - 1,
        "overhead_by_cpu_time": (one["workers_cpu_s"] + one["scheduler_and_client_cpu_s"]) / alone["cpu_s"] - 1,
        "speed_of_two_workers_over_one": one["wall_s"] / two["wall_s"],
    }
    print(overhead)
    settings = {"walkers": options.walkers, "duration_ps": options.duration}
    write_results("ensemble_speed", {"settings": settings, "plain": alone, **found, **overhead})


if __name__ == "__main__":
    main()
