"""The exact mode against densities known in closed form, at length; short: tests/simulation/test_exact.py.

For each setting: five seeds, Kolmogorov-Smirnov p-values (all seeds together, and each), correlation time, acceptance,
and beside it the acceptance of drives that stay where they are, which only the step's error refuses. Then the variances
of stiff harmonic modes, driven and standing by. `python benchmarks/exact_known_density.py`, about fifteen minutes.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from results import FOLDER, write_results

sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / inner) for inner in ("", "simulation")]

import known_density as kd  # noqa: E402

TARGETS = {
    "double well": kd.DOUBLE_WELL,
    "harmonic": kd.HARMONIC,
    "coupled": kd.COUPLED,
    "angle": kd.RING,
    "rod": kd.ROD,
}
CASES = [
    ("double well", kd.SMALL),
    ("double well", kd.LARGE),
    ("double well", kd.Setting(steps=24, block=1, sigma=0.1, step_size=0.01)),
    ("double well", kd.Setting(steps=48, block=2, sigma=0.15)),
    ("double well", kd.Setting(steps=40, block=10, sigma=0.4)),
    ("harmonic", kd.HUGE),
    ("harmonic", kd.BALLISTIC),
    ("coupled", kd.SMALL),
    ("coupled", kd.LARGE),
    ("angle", replace(kd.SMALL, steps=30)),
    ("angle", kd.LARGE),
    ("angle", kd.Setting(steps=24, block=4, sigma=0.4)),
    ("rod", kd.SMALL),
    ("rod", kd.LARGE),
]
STIFF = kd.Setting(
    steps=20, block=2, sigma=0.05, step_size=0.002, relax_steps=15, relax_step_size=0.001, relax_friction=5.0
)


def judge(target: kd.Target, chains: list[kd.Chain]) -> dict:
    """Return what a case has to show, per observable."""
    found = {}
    for name, (observe, cdf) in target.observables.items():
        runs = [observe(chain.displacements) for chain in chains]
        tau = kd.correlation_time(runs)
        found[name] = {
            "p": kd.ks_pvalue(runs, cdf),
            "p_of_each_seed": [kd.ks_pvalue([run], cdf) for run in runs],
            "correlation_time_frames": tau,
            "effective_samples": sum(len(run) for run in runs) / tau,
        }
    return found


def run_case(name: str, setting: kd.Setting, mode: str, folder: Path) -> dict:
    target = TARGETS[name]
    bundle = kd.export(target, folder / "bad.latent.pt")
    started = time.process_time()
    chains = kd.sample_seeds(target, bundle, setting, mode)
    seconds = time.process_time() - started
    case = {"target": name, "mode": mode, "setting": asdict(setting), "cpu_seconds": seconds}
    case["acceptance"] = float(np.mean([chain.acceptance for chain in chains]))
    if mode == "exact" and name == "double well":
        still = kd.export(target, folder / "stay.latent.pt", kd.Stay(2, 1))
        case["acceptance_of_staying"] = kd.sample(target, still, replace(setting, n_jumps=1000), seed=1).acceptance
    case["observables"] = judge(target, chains)
    case["passes"] = min(entry["p"] for entry in case["observables"].values()) > kd.LEVEL
    print(f"{name:12s} {mode:12s} acceptance {case['acceptance']:.3f} {seconds:5.0f} s", end=" ")
    print({key: round(entry["p"], 5) for key, entry in case["observables"].items()}, flush=True)
    return case


def stiff_variance(folder: Path, n_jumps: int) -> dict:
    """Return the variances of 3 driven modes and 285 that stand by, over kT / stiffness, with their standard errors."""
    target = kd.stiff(3, 96)
    bundle = kd.export(target, folder / "stiff.latent.pt")
    chains = kd.sample_seeds(target, bundle, replace(STIFF, n_jumps=n_jumps))
    squares = np.stack([chain.displacements for chain in chains]) ** 2 * kd.STIFFNESS / kd.KT  # (5, n, 96, 3)
    blocks = squares[:, : n_jumps // 100 * 100, 0].reshape(-1, 100, 3).mean(axis=1).ravel()  # of the driven modes
    bystanders = squares[:, :, 1:].mean(axis=(0, 1)).ravel()
    found = {"setting": asdict(STIFF), "n_jumps": 5 * n_jumps, "acceptance": chains[0].acceptance}
    for name, values in (("driven", blocks), ("bystanders", bystanders)):
        found[name] = {"ratio": float(values.mean()), "error": float(values.std() / np.sqrt(len(values)))}
        print(f"stiff modes, {name}: variance {values.mean():.4f} +- {found[name]['error']:.4f} of kT/k", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only-stiff", action="store_true", help="the stiff modes anew, beside the cases on file")
    parser.add_argument("--stiff-jumps", type=int, default=20_000, help="of each of five seeds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        if options.only_stiff:
            cases = json.loads((FOLDER / "exact_known_density.json").read_text())["cases"]
        else:
            cases = [run_case(name, replace(setting, n_jumps=2500), "exact", Path(folder)) for name, setting in CASES]
            cases += [run_case(name, replace(kd.SMALL, n_jumps=1000), "exploratory", Path(folder)) for name in TARGETS]
        stiff = stiff_variance(Path(folder), options.stiff_jumps)
    write_results("exact_known_density", {"level": kd.LEVEL, "seeds": kd.SEEDS, "cases": cases, "stiff": stiff})


if __name__ == "__main__":
    main()
