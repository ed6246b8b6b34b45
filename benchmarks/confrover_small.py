"""ConfRover trained small: jumps, independent conformations and interpolation, beside MD and two baselines.

WLALL (../shared/data/wlall, five residues, 0.1 ns a frame): files 00-15 train, 16-19 test. Four networks of one size:
"both" learned trajectories and single frames; "with interpolation" went on from it with all three objectives, "as long
without" as long without the third; "trajectory alone" learned trajectories as long as "both". In the same run: MD
itself (what followed the training frame nearest to a start), GLDP's autoregressive propagator, and training frames at
random, which know no time. Small proteins (small_proteins.py, 60 ps each): five train, two others test.

Every finished stage stays in benchmark_output/confrover_small, so that the same command goes on after Ctrl-C.

    python benchmarks/confrover_small.py [--stages "ways between two frames"] [--anew]
"""

from collections.abc import Callable
from functools import cache, partial
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
from results import run_stages, stage_options, write_results

from openmm_latent.data.frame_windows import runs_of


def wlall_stages() -> dict[str, Callable[[], Any]]:
    """Return the stages on WLALL: each trains what it needs and scores it; data is read by the first that runs."""
    data = cache(confrover_wlall.Data)

    def stage(score: Callable, needed: tuple[str, ...]) -> Any:
        train = [runs_of(wlall()[0], name="wlall")]
        models = {one: trained(one, train) for one in needed}
        return score(models, data())

    return {name: partial(stage, *one) for name, one in confrover_wlall.STAGES.items()}


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
    options = stage_options(__doc__.split("\n")[0])
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    found = run_stages(OUT, wlall_stages() | confrover_proteins.STAGES, options)
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
