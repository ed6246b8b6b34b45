"""Do reweighting's 95 % intervals cover? Many data sets of a double well of known populations, from end to end.

A particle hops in a tilted double well in detailed balance (tests/analysis/chains.py; the right well holds 25 %, the
exchange takes 361 frames). Half of the segments start in each well, as a bad network would have them. Each data set
goes through all of `reweight`: dropping, TICA, microstates, choice of lag, checks, posterior. Counted are the sets
that get a number, those whose interval covers, and those that get a sentence, for much data and for little.

`python benchmarks/reweight_coverage.py` (3 s a data set on one core)
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from results import write_results
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "analysis"))
from chains import DoubleWell
from openmm_latent.analysis import ReweightConfig, make_segments, reweight

CONFIG = ReweightConfig(temperature=300.0, n_microstates=14, n_replicas=20, n_draws=100)
REASONS = {
    "are needed: run longer": "too few transitions",
    "is uncertain by": "too wide",
    "changes by a factor": "drift with the lag",
    "Chapman-Kolmogorov": "Chapman-Kolmogorov",
    "second halves": "halves differ",
    "still differ from late": "not settled",
    "never": "never left or entered",
}


def reason(sentence: str) -> str:
    return next((name for words, name in REASONS.items() if words in sentence), sentence)


def trial(well: DoubleWell, n_segments: int, seed: int) -> tuple[bool | None, float, list[str]]:
    """Return whether the interval covers (None: no number), the error in kT and the reasons of a refusal."""
    positions = well.positions(n_segments, 60, 0.5, seed)
    segments = make_segments(positions, 1.0, is_in=[part > 0 for part in positions])
    (right,) = reweight(segments, 1.0, ["right"], CONFIG).populations
    if right.refusals:
        return None, np.nan, [reason(one) for one in right.refusals]
    kt = 0.00831446261815324 * CONFIG.temperature
    return bool(right.low < well.population < right.high), right.free_energy_sd / kt, []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=60)
    parser.add_argument("--first-seed", type=int, default=10_000, help="not those of the tests")
    options = parser.parse_args()
    well, found = DoubleWell(), {}
    for n_segments in (400, 40):
        started = time.process_time()
        seeds = range(options.first_seed, options.first_seed + options.sets)
        trials = [trial(well, n_segments, seed) for seed in seeds]
        told = [covers for covers, _, _ in trials if covers is not None]
        found[str(n_segments)] = {
            "data_sets": options.sets,
            "with_a_number": len(told),
            "covering": sum(told),
            "band_99_percent_if_coverage_is_95_percent": [
                int(binom.ppf(0.005, len(told), 0.95)),
                int(binom.ppf(0.995, len(told), 0.95)),
            ],
            "median_error_kt": float(np.nanmedian([error for _, error, _ in trials])) if told else None,
            "refusals": dict(Counter(one for _, _, reasons in trials for one in reasons)),
            "cpu_seconds": round(time.process_time() - started),
        }
        print(n_segments, "segments", json.dumps(found[str(n_segments)], indent=1), flush=True)
    setting = {"frames_a_segment": 60, "share_started_right": 0.5, "population_right": well.population}
    write_results("reweight_coverage", {"setting": setting | {"timescale": well.timescale}, "by_segments": found})


if __name__ == "__main__":
    main()
