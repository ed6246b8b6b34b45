"""ATMOS trained small: trajectories of a peptide, of proteins and of a complex, beside MD, GLDP and ConfRover.

| part | learned from | tested on |
|---|---|---|
| WLALL | files 00-15 of ../shared/data/wlall, 0.1 ns a frame | 32 starts of files 16-19, 20 ns from each |
| 60 residues | the first 80 % of one trajectory of 100 ns | the rest of it, later in time |
| small proteins | five, 60 ps each (small_proteins.py) | three others |
| thrombin's pocket with its ligand | two replicas of 140 ps (atmos_pocket.py) | a third one |

Also: sampling by the ordinary instead of the stochastic differential equation, one level of frames instead of two,
clashes before and after relaxation, and 400 frames of 139 residues beside plain MD. Needs the data of
small_proteins.py and atmos_pocket.py, and what confrover_small.py trained. Every finished stage stays in
benchmark_output/atmos_small, so that the same command goes on after Ctrl-C.

    python benchmarks/atmos_small.py [--stages WLALL] [--anew]
"""

import ast
import json
from dataclasses import asdict

import atmos_complex
import atmos_pocket
import atmos_proteins
import atmos_speed
import atmos_wlall
import torch
from atmos_training import NOISE_SCALES, OUT, TIME_SPLIT, TRAINED_PROTEINS, UNSEEN_PROTEINS, VARIANTS
from results import run_stages, stage_options, write_results

from openmm_latent.models.atmos import CONFIGS
from openmm_latent.models.atmos.network import count_parameters
from openmm_latent.models.atmos.weights import load_weights

STAGES = atmos_speed.STAGES | atmos_wlall.STAGES | atmos_complex.STAGES | atmos_proteins.STAGES
#: Columns of table 1 that are printed, and of table 3.
TABLE_1 = ("pairwise RMSD r", "mean pairwise RMSD", "global RMSF r", "per-target RMSF r", "RMWD", "MD PCA W2")
TABLE_1 += ("joint PCA W2", "PC-sim above 0.5", "weak contacts", "transient contacts", "t-RMSD error")
TABLE_3 = ("RMSF r", "mean RMSF", "RMWD", "clashes a frame", "t-RMSD error")


def settings() -> dict:
    """Return what was trained, how long, and on what."""
    networks = {}
    for name, variant in VARIANTS.items():
        weights, seconds = OUT / f"{name}.weights.pt", OUT / f"{name}.seconds"
        if not weights.exists():
            continue
        model, training = load_weights(weights)
        changed = {k: v for k, v in asdict(model.config).items() if v != asdict(CONFIGS["tiny"])[k]}
        networks[name] = {
            "lag time of key frames [ps]": variant.lag_time,
            "time of the interpolator [ps]": model.fine_time,
            "parameters a network": count_parameters(model.keyframes),
            "unlike tiny": changed,
            "complexes": training["complexes"],
            "CPU seconds since the start": ast.literal_eval(seconds.read_text()) if seconds.exists() else None,
        }
    return {
        "networks": networks,
        "WLALL": "files 00-15 train, 16-19 test; " + json.dumps(atmos_wlall.facts()),
        "ConfRover and GLDP": "WLALL's networks as confrover_small.py left them, trained on the same files",
        "60-residue protein": f"first {TIME_SPLIT:g} of one trajectory trains, the rest tests",
        "small proteins": {"train": TRAINED_PROTEINS, "test": UNSEEN_PROTEINS},
        "noise scale of the sampler": NOISE_SCALES,
        "pocket": {
            "cutoff about the ligand [nm]": atmos_pocket.CUTOFF,
            "springs on N, CA, C at edges [kJ/mol/nm^2]": atmos_pocket.STIFFNESS,
            "MD": "Amber's parameters, OBC2, 300 K, 4 fs, hydrogens of 3 amu",
            "replicas": "seeds 1 and 2 train, 3 tests",
        },
        "intervals": "95 %, from drawing targets again",
    }


def print_tables(found: dict) -> None:
    """Print what was found as Markdown."""
    for stage in ("WLALL", *atmos_proteins.STAGES):
        if stage in found:
            print_table(stage, TABLE_1, found[stage]["table 1"])
    if "WLALL" in found:
        rows = found["WLALL"]["torsions and pairs"]
        columns = [key for key, value in rows["ATMOS"].items() if isinstance(value, float)]
        print_table("WLALL", columns, {n: {k: {"value": v} for k, v in row.items()} for n, row in rows.items()})
        for title in ("bi-level better than one level by", "SDE better than ODE by"):
            print_table(title, list(found["WLALL"][title]), {"": found["WLALL"][title]}, has_intervals=True)
    if "the pocket's third replica" in found:
        rows = {name: row for name, row in found["the pocket's third replica"].items() if isinstance(row, dict)}
        for part in ("ligand", "complex"):
            print_table(part, TABLE_3, {name: row[part] for name, row in rows.items()})
    for stage in (list(atmos_wlall.STAGES)[1], "guarded jumps in the pocket", "400 frames of 139 residues"):
        if stage in found:
            print(f"\n{stage}: {json.dumps(found[stage])}")


def print_table(title: str, columns: list | tuple, rows: dict, has_intervals: bool = False) -> None:
    """Print one table; a score that is not defined is left empty."""
    print(f"\n| {title} | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, row in rows.items():
        cells = [_cell(row.get(column) or {}, has_intervals) for column in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")


def _cell(score: dict, has_interval: bool) -> str:
    if score.get("value") is None:
        return ""
    low, high = score.get("interval") or (float("nan"),) * 2
    return f"{score['value']:.3f}" + (f" ({low:.3f} to {high:.3f})" if has_interval else "")


def main() -> None:
    options = stage_options(__doc__.split("\n")[0])
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    found = run_stages(OUT, STAGES, options)
    print_tables(found)
    write_results("atmos_small", {"settings": settings(), **found})


if __name__ == "__main__":
    main()
