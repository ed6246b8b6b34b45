"""ConfRover trained small: jumps, independent conformations and interpolation, beside MD and two baselines.

WLALL (../shared/data/wlall, five residues, 0.1 ns a frame): files 00-15 train, 16-19 test. Four networks of one size:
"both" learned trajectories and single frames; "with interpolation" went on from it with all three objectives, "as long
without" as long without the third; "trajectory alone" learned trajectories as long as "both". In the same run: MD
itself (what followed the training frame nearest to a start), GLDP's autoregressive propagator, and training frames at
random, which know no time. Small proteins (small_proteins.py, 60 ps each): five train, two others test.

Every finished stage stays in benchmark_output/confrover_small, so that the same command goes on after Ctrl-C.

    python benchmarks/confrover_small.py [--stages "ways between two frames"] [--anew]
"""

import argparse
from collections.abc import Callable
from typing import Any

import confrover_proteins
import confrover_wlall
import torch
from confrover_training import (
    OUT,
    PROTEIN_PHASES,
    TRAINED_PROTEINS,
    UNSEEN_PROTEINS,
    VARIANTS,
    WLALL_CONFIG,
    trained,
    wlall,
)
from results import kept, write_results

from openmm_latent.data.frame_windows import runs_of


def wlall_stages(options: argparse.Namespace) -> dict:
    """Train what is needed, and score it."""
    found, data = {}, None
    for name, (score, needed) in confrover_wlall.STAGES.items():

        def make(score: Callable = score, needed: tuple[str, ...] = needed) -> Any:
            nonlocal data
            train = [runs_of(wlall()[0], name="wlall")]
            models = {one: trained(one, train) for one in needed}
            data = data or confrover_wlall.Data()
            return score(models, data)

        is_asked = not options.stages or name in options.stages
        if is_asked or (OUT / f"{name}.json").exists():
            found[name] = kept(OUT / f"{name}.json", make, options.anew and is_asked)
    return found


def print_tables(found: dict) -> None:
    """Print what was found as Markdown."""
    if "changes from many starts" in found:
        part = found["changes from many starts"]
        print("\n| changes, Cα | trajectory r | frame r | step r | trajectory MAE [nm] | frame | step |")
        print("|---|---|---|---|---|---|---|")
        names = [f"{name} {score}" for score in ("r", "mae") for name in ("trajectory", "frame", "step")]
        for row, scores in part["Cα"].items():
            if row != "by stride":
                print(f"| {row} | " + " | ".join(_with_interval(scores[name]) for name in names) + " |")
        print("\n| lagged pairs JSD | " + " | ".join(part["lagged pairs"]) + " |\n|---|---|---|---|")
        for row in next(iter(part["lagged pairs"].values())):
            print(f"| {row} | " + " | ".join(f"{of[row]:.3f}" for of in part["lagged pairs"].values()) + " |")
    for title, key in (("long runs", "states of long runs"), ("independent", "independent conformations")):
        if key in found:
            columns = [name for name, value in next(iter(found[key].values())).items() if isinstance(value, float)]
            print(f"\n| {title} | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
            for row, scores in found[key].items():
                print(f"| {row} | " + " | ".join(f"{scores[c]:.3f}" if c in scores else "" for c in columns) + " |")
    if "ways between two frames" in found:
        print("\n| ways | slope to start a frame | slope to end a frame |\n|---|---|---|")
        for row, scores in found["ways between two frames"].items():
            slopes = (scores[f"slope to {end}"] for end in ("start", "end"))
            print(f"| {row} | " + " | ".join(_with_interval({"value": s["mean"], **s}) for s in slopes) + " |")


def _with_interval(score: dict) -> str:
    low, high = score["interval"]
    return f"{score['value']:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stages", nargs="*", default=[], help="only these, by name; all unless given")
    parser.add_argument("--anew", action="store_true", help="score again what was scored; networks are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    found = wlall_stages(options)
    for name, make in confrover_proteins.STAGES.items():
        is_asked = not options.stages or name in options.stages
        if is_asked or (OUT / f"{name}.json").exists():
            found[name] = kept(OUT / f"{name}.json", make, options.anew and is_asked)
    print_tables(found)
    write_results(
        "confrover_small",
        {
            "settings": {
                "networks": {
                    name: {"objectives": one.objectives, "steps": one.n_steps, "after": one.start or "random weights"}
                    for name, one in VARIANTS.items()
                },
                "diffusion steps": confrover_wlall.N_STEPS,
                "starts": confrover_wlall.N_STARTS,
                "strides [frames of 0.1 ns]": confrover_wlall.STRIDES,
                "frames of a window": WLALL_CONFIG.n_frames,
                "GLDP": "tiny, autoregressive at 0.1 ns, the same training files",
                "small proteins": {"train": TRAINED_PROTEINS, "test": UNSEEN_PROTEINS, "phases": PROTEIN_PHASES},
            },
            **found,
        },
    )


if __name__ == "__main__":
    main()
