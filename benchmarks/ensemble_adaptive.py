"""An exact adaptive campaign on alanine dipeptide at 300 K from a cold start, beside its first model and plain MD.

    F = -kT ln [P(0 < phi < 150 deg) / P(elsewhere)]   [kcal/mol]

Cold start: the first model sees the first nanosecond of MD at 400 K, which was never in that state; its kernels are
told to propose boldly. Then rounds of exact walkers at 300 K, all starting at phi < 0, judging and refitting follow,
until F is known to the error asked for. The same CPU time - training, compiling, tuning and processes included - goes
into one long round with the first model, and into plain MD. The reference is results/adp_umbrella.json, for phi > 0:
what it counts beyond 150 degrees, extended frames that spill over 180, makes 0.005 kcal/mol.

    python benchmarks/ensemble_adaptive.py [--workers 1]

What is done stays in the work directory: the same command goes on. Some 30 core-minutes for each of the three, with
300 ps and ten rounds.
`ensemble_adaptive_guarded.py` has the guarded campaign.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import mdtraj
import torch
from adp_comparators import plain_md
from results import FOLDER, shared_data, write_results

from openmm_latent.ensemble import AdaptiveConfig, ClusterConfig, EnsembleConfig, connect, run_walkers
from openmm_latent.ensemble.adaptive import Round, run_adaptive

WORK = Path(__file__).parents[1] / "benchmark_output" / "ensemble_adaptive_exact"
TEMPERATURE = 300.0
KCAL = 4.184
STATE = "left=phi>0 and phi<150"
SPACING = 1.0  # [ps] of the data
JUMP_INTERVAL = 125  # steps of 4 fs between two jumps


class Spent:
    """Wall and CPU time of each part of a campaign, kept on disk: what was cut is counted up to its last entry."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.entries: list[dict] = json.loads(file.read_text()) if file.exists() else []
        self.last = self.clock()

    def clock(self) -> tuple[float, float]:
        times = os.times()  # of this process, and of workers and compilers that have ended
        return time.perf_counter(), times.user + times.system + times.children_user + times.children_system

    def add(self, what: str, **more: float) -> None:
        """Note what the time since the last entry went into."""
        now = self.clock()
        self.entries.append({"what": what, "wall_s": now[0] - self.last[0], "cpu_s": now[1] - self.last[1]} | more)
        self.last = now
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(self.entries, indent=1))
        print(f"   {what}: {self.entries[-1]['wall_s']:.0f} s, {self.entries[-1]['cpu_s']:.0f} CPU-s", flush=True)

    def total(self, key: str, *parts: str) -> float:
        """Return the sum over all entries, or over those of some names."""
        return sum(entry[key] for entry in self.entries if not parts or entry["what"] in parts)


def run_campaign(config: EnsembleConfig, spent: Spent) -> Round:
    """Run a campaign to its end, counting time."""

    def run_round(tasks: list, folder: Path) -> None:
        spent.add("models and judging")
        with connect(config.cluster, len(tasks), folder) as client:
            run_walkers(tasks, client, folder)
        spent.add(str(folder.relative_to(config.out)))

    last = run_adaptive(config, run_round, lambda line: print(line, flush=True))
    spent.add("models and judging")
    return last


def told(found: Round, spent: Spent) -> dict:
    """Return what a campaign says at its end, in kcal/mol."""
    name = STATE.split("=")[0]
    value, error = found.free_energies[name], found.errors[name]
    return {
        "free_energy_kcal": None if value is None else value / KCAL,
        "error_kcal": None if error is None else error / KCAL,
        "refusal": found.refusals.get(name, ""),
        "evidence": found.evidence.get(name, {}),
        "ns": found.md_time / 1000,
        "wall_s": spent.total("wall_s"),
        "cpu_s": spent.total("cpu_s"),
    }


def make_config(options: argparse.Namespace) -> EnsembleConfig:
    """Return the campaign; its first model sees the first frames of the 400 K data."""
    data, first = shared_data("adp_md"), options.work / "first.xtc"
    if not first.exists():
        options.work.mkdir(parents=True, exist_ok=True)
        whole = mdtraj.load(str(data / "adp_400K.xtc"), top=str(data / "adp.pdb"))
        whole[: round(options.training_ps / SPACING)].save(str(first))
    adaptive = AdaptiveConfig(
        [STATE], rounds=options.rounds, error=options.error, training=[first], lag_time=SPACING,
        slow_features="angles", proposal={"broad_weight": 0.2}, compiled_for="cpu",
    )  # fmt: skip
    run = {
        "mode": "exact", "is_tuned": True, "duration": options.duration, "jump_interval": JUMP_INTERVAL,
        "timestep": 0.004, "hydrogen_mass": 3.0, "friction": 5.0,
    }  # fmt: skip
    config = EnsembleConfig(
        data / "adp.pdb", options.work / "first.latent.pt", options.work / "campaign", options.walkers, TEMPERATURE,
        run=run, platform="Reference", cluster=ClusterConfig(workers=options.workers, dashboard=0), adaptive=adaptive,
    )  # fmt: skip
    config.check()
    return config


def run_alone(config: EnsembleConfig, spent: Spent, rounds: int) -> tuple[Round, Spent]:
    """Run one round with the campaign's first model for the CPU time that the campaign's rounds took."""
    assert config.adaptive is not None
    file = config.out.with_name("single.json")
    settled = json.loads(file.read_text()) if file.exists() else {}
    if settled.get("rounds") != rounds:  # of a campaign that has gone on since
        shutil.rmtree(config.out.with_name("single"), ignore_errors=True)
        training, tuning = spent.entries[0]["cpu_s"], spent.total("cpu_s", "round_00/tuning")
        of_a_round = spent.total("cpu_s", *(f"round_{number:02d}" for number in range(rounds))) / rounds
        duration = config.run["duration"] * (spent.total("cpu_s") - training - tuning) / of_a_round
        settled = {"rounds": rounds, "duration": duration, "training_cpu_s": training}
        file.with_name("single_spent.json").unlink(missing_ok=True)
        file.write_text(json.dumps(settled))
    run = {**config.run, "duration": settled["duration"]}
    once = replace(config.adaptive, rounds=1)
    alone = replace(config, out=config.out.with_name("single"), run=run, adaptive=once, seed=1001)
    own = Spent(file.with_name("single_spent.json"))
    return run_campaign(alone, own), own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--walkers", type=int, default=4)
    parser.add_argument("--duration", type=float, default=500.0, help="[ps] of each, a round")
    parser.add_argument("--rounds", type=int, default=3, help="at most")
    parser.add_argument("--error", type=float, default=1.0, help="[kJ/mol] at which rounds end")
    parser.add_argument("--training-ps", type=float, default=1000.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--work", type=Path, default=WORK)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = make_config(options)
    umbrella = json.loads((FOLDER / "adp_umbrella.json").read_text())["reference"]
    found = {"umbrella sampling, the reference": {key: umbrella[key] for key in ("free_energy_kcal", "error_kcal")}}
    settings = {key: value for key, value in vars(options).items() if key != "work"}
    spent = Spent(options.work / "campaign_spent.json")

    def add(name: str, part: dict) -> None:
        """Note a part that is done, so that it is there if the next one is cut."""
        found[name] = part
        print(name, part, flush=True)
        if options.work == WORK:
            rounds = json.loads((config.out / "ensemble.json").read_text())["rounds"]
            write_results(
                "ensemble_adaptive", {"settings": settings, "found": found, "rounds": rounds, "spent": spent.entries}
            )

    print("campaign", flush=True)
    last = run_campaign(config, spent)
    add("exact campaign", told(last, spent))
    print("first model alone", flush=True)
    alone = told(*run_alone(config, spent, last.number + 1))
    alone["cpu_s"] += json.loads((options.work / "single.json").read_text())["training_cpu_s"]
    add("first model alone", alone)
    print("plain MD", flush=True)
    kept = options.work / "plain_md.json"
    if not kept.exists():
        began = time.perf_counter()
        result = plain_md(found["exact campaign"]["cpu_s"], 1)
        kept.write_text(json.dumps(result | {"wall_s": time.perf_counter() - began}))
    add("plain MD", json.loads(kept.read_text()))


if __name__ == "__main__":
    main()
