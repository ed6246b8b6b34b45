"""A guarded adaptive campaign on alanine dipeptide at 400 K from a cold start, beside one long round and plain MD.

Cold start: the first model sees the first nanosecond of one run of MD, which was never in the state phi > 0. Then
rounds of guarded walkers, reweighting and refitting follow, until the free energy of phi > 0 is known to 1 kJ/mol. The
same MD time goes into one round with the first model alone, and into plain MD. All three are reweighted alike. The
reference is the whole MD at 400 K. Some 20 minutes on two quiet cores. `ensemble_adaptive.py` has the exact campaign:
with two states, of which each must be entered and left within relaxations, a guarded one cannot beat plain MD.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

import mdtraj
import torch
from results import shared_data, write_results

from openmm_latent.analysis import (
    ReweightConfig,
    Run,
    State,
    TorsionTable,
    find_runs,
    read_hybrid_run,
    read_plain_md,
    reweight,
    to_segments,
)
from openmm_latent.ensemble import AdaptiveConfig, ClusterConfig, EnsembleConfig, connect, open_store, run_walkers
from openmm_latent.ensemble.adaptive import run_adaptive

WORK = Path(__file__).parents[1] / "benchmark_output" / "ensemble_adaptive_guarded"
TEMPERATURE = 400.0
STATE = State.parse("left=phi>0")
SPACING = 2.0  # [ps] of the walkers' frames
MD_SPACING = 1.0  # [ps] of the data's frames, of which every second is judged
STEPS = 500  # of 4 fs between two frames


def judged(runs: list[Run], torsions: TorsionTable, dropped_time: float | None = None) -> dict:
    """Return what reweighting says of the state; after jumps a test says how much to drop, plain MD loses nothing."""
    segments = to_segments(runs, torsions, [STATE], [])
    result = reweight(segments, SPACING, [STATE.name], ReweightConfig(TEMPERATURE, dropped_time=dropped_time))
    return asdict(result.populations[0]) | {"ns": sum(map(len, segments)) * SPACING / 1000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--walkers", type=int, default=8)
    parser.add_argument("--duration", type=float, default=2000.0, help="[ps] of each, a round")
    parser.add_argument("--rounds", type=int, default=4, help="at most")
    parser.add_argument("--training-ps", type=float, default=1000.0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    data = shared_data("adp_md")
    top, whole = data / "adp.pdb", data / "adp_400K.xtc"
    first = WORK / "first.xtc"
    mdtraj.load(str(whole), top=str(top))[: round(options.training_ps / MD_SPACING)].save(str(first))
    run = {
        "duration": options.duration,
        "jump_interval": 10 * STEPS,
        "report_interval": STEPS,
        "timestep": 0.004,
        "hydrogen_mass": 3.0,
        "friction": 1.0,
    }
    adaptive = AdaptiveConfig([f"{STATE.name}=phi>0"], rounds=options.rounds, training=[first], lag_time=2 * SPACING)
    cluster = ClusterConfig(workers=options.workers, dashboard=0)
    config = EnsembleConfig(
        top, WORK / "first.latent.pt", WORK / "campaign", options.walkers, TEMPERATURE, run=run, platform="Reference",
        cluster=cluster, adaptive=adaptive,
    )  # fmt: skip
    config.check()

    def run_round(tasks: list, folder: Path) -> None:
        with connect(cluster, len(tasks), folder) as client:
            run_walkers(tasks, client, folder)

    torsions = TorsionTable.from_topology(top)
    walls, found = {}, {}
    began = time.perf_counter()
    last = run_adaptive(config, run_round, print)
    walls["campaign"] = time.perf_counter() - began
    found["campaign"] = judged([read_hybrid_run(table, torsions) for table in find_runs([config.out])], torsions)
    md_time = options.walkers * options.duration * (last.number + 1)

    single = {**run, "duration": options.duration * (last.number + 1)}
    alone = replace(config, out=WORK / "single", run=single, adaptive=None)
    began = time.perf_counter()
    run_round(open_store(alone), alone.out)
    walls["single"] = time.perf_counter() - began
    found["single"] = judged([read_hybrid_run(table, torsions) for table in find_runs([alone.out])], torsions)

    reference = read_plain_md(whole, torsions, stride=round(SPACING / MD_SPACING))
    n_frames = min(len(reference.torsions), round(md_time / SPACING))
    found["plain MD of the same length"] = judged([part_of(reference, n_frames)], torsions, 0.0)
    found["reference MD"] = judged([reference], torsions, 0.0)
    for name, one in found.items():
        print(name, one)
    rounds = [str(path.name) for path in sorted(config.out.glob("round_*"))]
    write_results(
        "ensemble_adaptive_guarded",
        {"settings": vars(options), "rounds": rounds, "last_round": asdict(last), "found": found, "wall_s": walls},
    )


def part_of(run: Run, n_frames: int) -> Run:
    """Return the first frames of a run of plain MD."""
    names = ("torsions", "observables", "since_start")
    return replace(run, **{name: getattr(run, name)[:n_frames] for name in names})


if __name__ == "__main__":
    main()
