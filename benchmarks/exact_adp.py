"""The free energy of phi > 0 on alanine dipeptide by the exact mode, beside plain MD and OpenMM's Metadynamics.

    F = -kT ln [P(0 < phi < 180 deg) / P(-180 < phi < 0 deg)]   at 300 K

GLDP is trained on the 400 K data. Two walkers, one a core: one begins at phi < 0 and goes where it likes, and its
frames are Boltzmann; the other is confined to phi > 0. All attempted jumps between the two halves, refused ones
included, give F by Bennett's acceptance ratio (`openmm_latent.analysis.exchange`); the free walker's visits give it,
too, less sharply.
Plain MD and Metadynamics get the same CPU time, training included. The reference is results/adp_umbrella.json.

    python benchmarks/exact_adp.py [--cpu-seconds 600]
"""

import argparse
import json
import multiprocessing
import pickle
import time
from dataclasses import asdict

from adp_comparators import metadynamics, plain_md
from adp_walkers import WORK, from_attempts, from_visits, learned_bundle, tune, walk
from results import FOLDER, write_results


def in_two_processes(jobs: list) -> list:
    """Run (function, arguments, keywords) side by side, each in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pending = [pool.apply_async(function, arguments, keywords) for function, arguments, keywords in jobs]
        return [result.get() for result in pending]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--cpu-seconds", type=float, default=600.0, help="of each walker, tuning and training not included"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    bundle, _ = learned_bundle()
    seconds, seed = options.cpu_seconds, options.seed
    # What is done stays in the work directory: the same command goes on with what is left.
    kept = WORK / f"walks_{seconds:g}s_seed{seed}.pickle"
    began = time.perf_counter()
    tuning, walks, exact_wall = pickle.loads(kept.read_bytes()) if kept.exists() else (None, None, 0.0)
    if walks is None:
        tuning = tune(bundle, seed + 100)
        setting = tuning.chosen.setting
        walks = in_two_processes(
            [
                (walk, (bundle, seed, seconds), setting),
                (walk, (bundle, seed + 1, seconds), setting | {"confined_to": 1}),
            ]
        )
        exact_wall = time.perf_counter() - began
        kept.write_bytes(pickle.dumps((tuning, walks, exact_wall)))
        print("exact:", from_attempts(walks), from_visits(walks[:1]), flush=True)
    began = time.perf_counter()
    peers = in_two_processes([(plain_md, (2 * seconds, seed), {}), (metadynamics, (2 * seconds, seed), {})])
    peers_wall = time.perf_counter() - began
    reference = (
        json.loads((FOLDER / "adp_umbrella.json").read_text()) if (FOLDER / "adp_umbrella.json").exists() else {}
    )
    write_results(
        "exact_adp",
        {
            "settings": vars(options),
            "reference": reference.get("reference"),
            "exact, from attempts": from_attempts(walks),
            "exact, from the free walker's visits": from_visits(walks[:1]),
            "exact, jumps": [len(w.attempts.start) for w in walks],
            "exact, tuning": asdict(tuning),
            "plain MD": peers[0],
            "Metadynamics": peers[1],
            "wall_seconds": {"exact": exact_wall, "plain MD beside Metadynamics": peers_wall},
        },
    )


if __name__ == "__main__":
    main()
