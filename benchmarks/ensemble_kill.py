"""Eight walkers on two local workers, one of which is killed without warning at a random moment: is anything lost?

Runs the walkers undisturbed once, then again and again with a SIGKILL to one of the workers, and compares all outputs
byte by byte: trajectories, state data, jump tables and provenance. Reference platform, alanine dipeptide.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import torch
from results import write_results

from openmm_latent.ensemble import ClusterConfig, EnsembleConfig, Report, connect, open_store, run_walker, run_walkers

ROOT = Path(__file__).parents[1]
DATA = ROOT / "examples" / "data"
WORK = ROOT / "benchmark_output" / "ensemble_kill"
OUTPUTS = ("adp.xtc", "adp.csv", "adp.latent.csv", "adp.json")


def make_config(out: Path, walkers: int, duration: float) -> EnsembleConfig:
    run = {"duration": duration, "jump_interval": 500, "report_interval": 100, "save_every": 1.0}
    return EnsembleConfig(
        structure=DATA / "adp.pdb",
        model=DATA / "adp.latent.pt",
        out=out,
        walkers=walkers,
        temperature=300.0,
        run=run,
        platform="Reference",
    )


def contents(out: Path, walkers: int) -> dict[str, bytes]:
    names = [f"walker_{i:03d}/{name}" for i in range(walkers) for name in OUTPUTS]
    return {name: (out / name).read_bytes() for name in names}


def disturbed(config: EnsembleConfig, moment: float, rng: random.Random) -> dict:
    """Run with one worker killed `moment` [s] after the first walker has begun."""
    tasks = open_store(config)
    began = threading.Event()
    n_begun = 0

    def report(one: Report) -> None:
        nonlocal n_begun
        n_begun += one.kind == "began"
        began.set()

    with connect(ClusterConfig(workers=2, dashboard=0), len(tasks), config.out) as client:
        victim = rng.choice(sorted(client.run(os.getpid).values()))

        def kill() -> None:
            began.wait()
            time.sleep(moment)
            os.kill(victim, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        start = time.perf_counter()
        results = run_walkers(tasks, client, config.out, report)
        wall = time.perf_counter() - start
        killer.join()
    return {
        "killed_after_s": round(moment, 2),
        "wall_s": round(wall, 2),
        "was_in_the_middle": moment < wall,
        "walkers_finished": sum(one.is_complete for one in results.values()),
        "stays_on_workers": n_begun,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--walkers", type=int, default=8)
    parser.add_argument("--duration", type=float, default=200.0, help="[ps] of each")
    parser.add_argument("--kills", type=int, default=3, help="runs, each with one kill")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as on workers: torch sums in another order with more
    rng = random.Random(options.seed)
    shutil.rmtree(WORK, ignore_errors=True)
    whole = make_config(WORK / "undisturbed", options.walkers, options.duration)
    start = time.perf_counter()
    n_frames = [run_walker(task, lambda kind, n: None, lambda: False).n_done for task in open_store(whole)]
    wall = time.perf_counter() - start
    expected = contents(whole.out, options.walkers)
    kills = []
    for number in range(options.kills):
        config = replace(whole, out=WORK / f"killed_{number}")
        # two workers take about half of the time of one
        found = disturbed(config, rng.uniform(0.1, 0.4) * wall, rng)
        now = contents(config.out, options.walkers)
        differing = [name for name, text in expected.items() if now[name] != text]
        times = [mdtraj.load(str(config.out / f"walker_{i:03d}/adp.xtc"), top=str(whole.structure)).time
                 for i in range(options.walkers)]  # fmt: skip
        found["frames_lost_or_twice"] = int(
            sum(abs(len(one) - n) + int((np.diff(one) <= 0).sum()) for one, n in zip(times, n_frames, strict=True))
        )
        found["files_that_differ"] = differing
        print(found)
        kills.append(found)
    settings = {"settings": vars(options), "frames_a_walker": n_frames[0], "undisturbed_one_process_wall_s": wall}
    write_results("ensemble_kill", {**settings, "runs": kills})


if __name__ == "__main__":
    main()
