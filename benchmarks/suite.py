"""The benchmark suite: what a jump costs, against atoms, against Python, against plain MD; and training.

    python benchmarks/suite.py                 all of it, on the CPU within 15 minutes (`make bench`)
    python benchmarks/suite.py --quick         tiny sizes and few repeats: to see that it runs
    python benchmarks/suite.py --parts jumps   one part

1. jumps: a chain molecule of 22 to 250 000 atoms under an untrained GLDP; latency by part, beside the module alone, the
   same jump in Python, a PythonForce that only reads positions, and an MD step. 2. with it, loops at 22 atoms.
3. hybrid: alanine dipeptide, 100 steps a jump, beside the sum of its parts timed alone.
4. wrapping: MD beside the same MD in a LatentIntegrator; molecules whose files are not here are left out.
5. training: frames a second of the autoencoder.
6. batches: jumps of several walkers, or proposals, in one module call.

Every part runs in a process of its own, cases in turn; medians with quartiles. What lasts longer than a scheduler's
slice is measured in CPU time, which with one thread is the wall time of an idle core. Writes
results/suite_<platform>.json and .md.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, in every process of the suite

import argparse
import time

import suite_batches
import suite_jumps
import suite_runs
from results import FOLDER, SHARED_DATA, write_results
from suite_tables import markdown

PARTS = ("jumps", "hybrid", "wrapping", "training", "batches")
SIZES = [22, 250, 2500, 25_000, 250_000]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--platform", default="Reference", help="of parts 1 to 3; part 4 names its own")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="atoms of the chain")
    parser.add_argument("--rounds", type=int, default=9, help="turns that each case gets")
    parser.add_argument("--quick", action="store_true", help="see that it runs: tiny sizes, results/ left as it is")
    options = parser.parse_args()
    begun = time.perf_counter()
    sizes = options.sizes[:2] if options.quick else options.sizes
    n_rounds = 2 if options.quick else options.rounds
    found, bars = {}, []
    for part in options.parts:
        found[part], met = measure(part, options, sizes, n_rounds)
        bars += met
        minutes = round((time.perf_counter() - begun) / 60, 1)
        content = {"platform": options.platform, "rounds": n_rounds, "minutes": minutes, "bars": bars, **found}
        for figure in met:
            verdict = "met" if figure["is_met"] else "NOT met"
            print(f"{figure['what']}: {figure['value']} ({figure['limit']} {figure['unit']}), {verdict}")
        if not options.quick:  # after each part: what is cut short leaves what it found
            path = write_results(f"suite_{options.platform}", content)
            (FOLDER / f"suite_{options.platform}.md").write_text(markdown(options.platform, content, path))
    print(f"{minutes} minutes")
    if options.quick:
        print(markdown(options.platform, content))


def measure(part: str, options: argparse.Namespace, sizes: list[int], n_rounds: int) -> tuple[dict, list[dict]]:
    """Run one part; figures, and bars."""
    is_quick = options.quick
    if part == "jumps":
        return suite_jumps.run(sizes, options.platform, n_rounds, 0.02 if is_quick else 0.2)
    if part == "hybrid":
        runners = ["torchscript"] if is_quick else ["torchscript", "aoti"]
        return suite_runs.run_hybrid(options.platform, runners, n_rounds)
    if part == "wrapping":
        names = [name for name in suite_runs.MOLECULES if name.startswith("ADP") or SHARED_DATA.is_dir()]
        return suite_runs.run_wrapping(names[:1] if is_quick else names, n_rounds, 3)
    if part == "batches":
        atoms = suite_batches.N_ATOMS[:1] if is_quick else suite_batches.N_ATOMS
        return suite_batches.run(options.platform, atoms, n_rounds, 0.02 if is_quick else 0.1), []
    return suite_runs.run_training(20 if is_quick else 300, 1 if is_quick else 3), []


if __name__ == "__main__":
    main()
