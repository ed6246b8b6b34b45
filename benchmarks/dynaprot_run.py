"""DynaProt in a Simulation: villin, which its network never saw, guarded and steered, with a report page each.

The network is trained on the other twelve proteins of small_proteins.py, bound to the prepared structure by the
function behind `openmm-latent bind`, run by the one behind `openmm-latent simulate`, and judged by `openmm-latent
evaluate` against villin's own MD. Jumps forget where they began after 1 ns and are taken to cover 100 ps; 0.4 ps of MD
at a friction of 5/ps lie between two. Sixty picoseconds of MD are a short reference: what the pages say is how far the
jumps leave it, and whether their frames are sound.

    python benchmarks/dynaprot_run.py [--protein villin] [--duration 60] [--jumps 100]
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import mdtraj
import numpy as np
import torch
from dynaprot_small import Data
from results import write_results
from small_proteins import PROTEINS

from openmm_latent.hybrid import HybridConfig, HybridRun
from openmm_latent.models.dynaprot import CONFIGS
from openmm_latent.training.dynaprot import train_dynaprot
from openmm_latent.training.dynaprot_binding import bind_dynaprot

WORK = Path(__file__).parents[1] / "benchmark_output" / "dynaprot_run"
TEMPERATURE, INTERVAL, TIMESTEP = 300.0, 100, 0.004


def bundle_without(name: str, duration: float) -> tuple[Path, Data]:
    """Train on all proteins but one and bind the weights to that one, once."""
    data = [Data(protein, duration) for protein in PROTEINS]
    (test,) = (one for one in data if one.name == name)
    weights, bundle = WORK / f"without_{name}.weights.pt", WORK / f"{name}.latent.pt"
    if not weights.exists():
        examples = [example for one in data if one.name != name for example in one.training_examples()]
        train_dynaprot(examples, config=CONFIGS["tiny"], out=weights, seed=1, facts={"temperature": TEMPERATURE})
    if not bundle.exists():
        bind_dynaprot(weights, test.topology, test.structure, bundle)
    return bundle, test


def hybrid(bundle: Path, top: Path, realisation: str, n_jumps: int) -> dict:
    """Run so many jumps and say what became of them."""
    config = HybridConfig(
        temperature=TEMPERATURE, duration=(n_jumps + 1) * INTERVAL * TIMESTEP, jump_interval=INTERVAL,
        realisation=realisation, driven_steps=200, timestep=TIMESTEP, hydrogen_mass=3.0, friction=5.0, seed=1,
    )  # fmt: skip
    folder = WORK / realisation
    tally = HybridRun(bundle, top, folder, config, "CPU").run()
    frames = mdtraj.load(str(folder / f"{top.stem}.xtc"), top=str(folder / f"{top.stem}.pdb"))
    ca = frames.topology.select("name CA")
    apart = mdtraj.rmsd(frames, mdtraj.load(str(folder / f"{top.stem}.pdb")), atom_indices=ca)  # [nm]
    with (folder / f"{top.stem}.csv").open() as file:
        kelvin = [float(row["Temperature (K)"]) for row in csv.DictReader(file)]
    return {
        "tally": tally,
        "mean temperature of the relaxations' ends [K]": float(np.mean(kelvin)),
        "its standard error [K]": float(np.std(kelvin) / np.sqrt(len(kelvin))),
        "Ca RMSD to the start [nm]: mean, last": [float(apart.mean()), float(apart[-1])],
    }


def report(name: str, test: Data, realisation: str) -> dict:
    """Make the page of a run beside the protein's MD; return every score with its floor and verdict."""
    folder, out = WORK / realisation, WORK / f"report_{realisation}"
    words = [
        "--top", test.top, "--reference", *test.files, "--sample", folder / f"{name}.xtc", "--jumps",
        folder / f"{name}.latent.csv", "--energies", folder / f"{name}.csv", "--lag-time", "2", "--peers",
        "anm,gaussian", "--name", f"{name}, {realisation}", "--out", out,
    ]  # fmt: skip
    command = [sys.executable, "-c", "from openmm_latent.cli import app; app()", "evaluate", *map(str, words)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    found = json.loads((out / "metrics.json").read_text())
    return {one["key"]: [one["value"], one["floor"], one["verdict"]] for one in found["metrics"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--protein", default="villin")
    parser.add_argument("--duration", type=float, default=60.0, help="[ps] of each protein's MD")
    parser.add_argument("--jumps", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("OPENMM_CPU_THREADS", "1")
    WORK.mkdir(parents=True, exist_ok=True)
    bundle, test = bundle_without(options.protein, options.duration)
    found = {}
    for realisation, share in (("decode", 1.0), ("steer", 0.3)):
        run = hybrid(bundle, test.top, realisation, round(share * options.jumps))
        found[realisation] = run | {"value, floor, verdict": report(options.protein, test, realisation)}
        print(realisation, run, flush=True)
    write_results("dynaprot_run", {"settings": vars(options), **found})


if __name__ == "__main__":
    main()
