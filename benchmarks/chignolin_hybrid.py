"""A guarded GLDP hybrid on a real mini-protein, chignolin CLN025 (PDB 5AWL, 166 atoms).

`generate` makes 6 ns of MD (amber14 + OBC2, 300 K, 4 fs with heavy hydrogens; half an hour on one core), `train gldp`
makes a tiny model of it, and a guarded hybrid run alternates its jumps with MD. Checked: temperature, constraints, and
that the fold stays. Reads ../shared/data/pdb/CLN025.pdb, writes results/chignolin_hybrid.json and
docs/figures/chignolin.png. Every stage stays in the work folder, so the same command goes on after Ctrl-C.

    python benchmarks/chignolin_hybrid.py
"""

import argparse
import csv
import time
from pathlib import Path

import mdtraj
import numpy as np
import openmm as mm
import torch
from openmm import unit
from results import shared_data, write_results

from openmm_latent.cli.hybrid import HybridConfig, HybridRun
from openmm_latent.data.generate import GenerateConfig, generate
from openmm_latent.data.trajectories import load_trajectories
from openmm_latent.training import train_gldp

ROOT = Path(__file__).parents[1]
FIGURE = ROOT / "docs" / "figures" / "chignolin.png"
MD = GenerateConfig(
    duration=6000.0, frame_spacing=1.0, equilibration=50.0, timestep=0.004, hydrogen_mass=3.0, temperature=300.0
)
LAG_TIME = 20.0  # [ps]
JUMP_INTERVAL = 500  # steps of 4 fs: 2 ps
FRICTION = 5.0  # [1/ps]: a jump ends in a minimisation, and 2 ps must suffice to warm the molecule up again


class ConstraintReporter:
    """Keep the largest relative error of any constraint, from double-precision positions, and the temperatures."""

    def __init__(self, simulation, interval: int) -> None:
        system = simulation.system
        rows = [system.getConstraintParameters(i) for i in range(system.getNumConstraints())]
        self.pairs = np.array([[a, b] for a, b, _ in rows])
        self.lengths = np.array([d.value_in_unit(unit.nanometer) for _, _, d in rows])
        self.interval, self.errors = interval, []

    def describeNextReport(self, simulation) -> dict:
        steps = self.interval - simulation.currentStep % self.interval
        return {"steps": steps, "periodic": False, "include": ["positions"]}

    def report(self, simulation, state) -> None:
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        distances = np.linalg.norm(positions[self.pairs[:, 0]] - positions[self.pairs[:, 1]], axis=1)
        self.errors.append(float(np.max(np.abs(distances / self.lengths - 1))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "benchmark_output" / "chignolin")
    parser.add_argument("--jumps", type=int, default=500)
    parser.add_argument("--propagator", default="autoregressive")
    options = parser.parse_args()
    torch.set_num_threads(1)
    crystal = shared_data("pdb") / "CLN025.pdb"
    print("MD by generate ...", flush=True)
    xtc = generate(crystal, options.work / "md", MD, progress=tell)[0]
    top = options.work / "md" / "CLN025.pdb"
    trajectories = load_trajectories(top, xtc)
    train, test = trajectories.split_chronological(0.9)

    print("training ...", flush=True)
    bundle = options.work / f"chignolin-{options.propagator}.latent.pt"
    started = time.monotonic()
    model = train_gldp(
        train, lag_time=LAG_TIME, propagator=options.propagator, out=bundle, work_directory=options.work / "training"
    )
    training_seconds = time.monotonic() - started

    print("hybrid run ...", flush=True)
    config = HybridConfig(
        temperature=300.0, timestep=0.004, hydrogen_mass=3.0, friction=FRICTION, jump_interval=JUMP_INTERVAL,
        duration=(options.jumps + 1) * JUMP_INTERVAL * 0.004, report_interval=JUMP_INTERVAL, save_every=1e9,
    )  # fmt: skip
    out = options.work / f"hybrid-{options.propagator}"
    for old in out.glob("CLN025*"):  # the check of constraints needs the whole run in this process
        old.unlink()
    run = HybridRun(bundle, top, out, config, platform="CPU")
    watch = ConstraintReporter(run.simulation, JUMP_INTERVAL)
    run.simulation.reporters.append(watch)
    started = time.monotonic()
    tally = run.run(lambda done, total: tell(0, done, total))
    seconds = time.monotonic() - started

    made = analyse(run, xtc, top, model, test)
    results = {
        "propagator": options.propagator, "lag_time_ps": LAG_TIME, "jump_interval_steps": JUMP_INTERVAL,
        "md_ps": MD.duration, "hybrid_md_ps": config.duration, "friction_per_ps": FRICTION,
        "jumps": tally, "acceptance": tally["accepted"] / tally["jumps"],
        "accepted_jumps_x_lag_time_ps": tally["accepted"] * LAG_TIME,
        "largest_constraint_error": max(watch.errors),
        "seconds": {"training": round(training_seconds), "hybrid": round(seconds)},
        **made["numbers"],
    }  # fmt: skip
    write_results("chignolin_hybrid", results)
    draw(made, results)


def tell(replica: int, done: int, total: int) -> None:
    if done % max(1, total // 10) == 0:
        print(f"  {done} of {total}", flush=True)


def analyse(run: HybridRun, xtc: Path, top: Path, model, test) -> dict:
    """Compare MD and hybrid run: Calpha RMSD to the crystal structure, temperature, slow coordinates, autoencoder."""
    crystal = mdtraj.load(str(shared_data("pdb") / "CLN025.pdb"))
    md, hybrid = mdtraj.load(str(xtc), top=str(top)), mdtraj.load(str(run.trajectory), top=str(top))
    atoms, atoms_crystal = md.topology.select("name CA"), crystal.topology.select("name CA")
    rmsd = {
        name: 10 * mdtraj.rmsd(frames.atom_slice(atoms), crystal.atom_slice(atoms_crystal))
        for name, frames in (("MD", md), ("hybrid", hybrid))
    }
    with open(run.path("csv")) as handle:
        rows = list(csv.DictReader(handle))
    temperatures = np.array([float(row["Temperature (K)"]) for row in rows])
    n_dof = 3 * run.simulation.system.getNumParticles() - run.simulation.system.getNumConstraints() - 3
    # Frames a relaxation apart are nearly independent: standard error of a mean of chi-squared temperatures.
    standard_error = 300.0 * np.sqrt(2 / n_dof / len(temperatures))
    heavy = load_trajectories(top, [xtc]).model_atoms
    with torch.inference_mode():
        held_out = torch.from_numpy(test.concatenated())
        decoded = model.decode(model.encode(held_out), held_out, torch.zeros(len(held_out), 0))
        slow = {
            name: model.slow(model.encode(torch.from_numpy(frames.xyz[:, heavy]))).numpy()
            for name, frames in (("MD", md), ("hybrid", hybrid))
        }
    numbers = {
        "mean_temperature_kelvin": float(temperatures.mean()),
        "temperature_standard_error_kelvin": float(standard_error),
        "ca_rmsd_to_crystal_angstrom": {k: {"mean": float(v.mean()), "max": float(v.max())} for k, v in rmsd.items()},
        "autoencoder_rmsd_angstrom_held_out": float(10 * (decoded - held_out).pow(2).sum(2).mean().sqrt()),
        "openmm": mm.version.version,
    }
    return {"numbers": numbers, "rmsd": rmsd, "temperatures": temperatures, "slow": slow,
            "traces": {"MD": md.atom_slice(atoms), "hybrid": hybrid.atom_slice(atoms)}}  # fmt: skip


def draw(made: dict, results: dict) -> None:
    """Draw Calpha traces, RMSD to the crystal structure, slow coordinates, temperature and outcomes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "axes.edgecolor": "#9aa5b1", "axes.spines.top": False,
                         "axes.spines.right": False})  # fmt: skip
    ink, colours = "#1f2933", {"MD": "#6b7280", "hybrid": "#0b6e99"}
    figure = plt.figure(figsize=(13.5, 6.6), facecolor="white")
    grid = figure.add_gridspec(2, 4, left=0.04, right=0.98, top=0.83, bottom=0.09, wspace=0.34, hspace=0.5)
    figure.text(0.04, 0.945, "Guarded latent jumps on chignolin CLN025", fontsize=17, weight="bold", color=ink)
    tally = results["jumps"]
    words = (
        f"{tally['jumps']} jumps of {results['lag_time_ps']:g} ps, {100 * results['acceptance']:.0f} % accepted, 2 ps "
        f"of MD after each. Temperature {results['mean_temperature_kelvin']:.1f} ± "
        f"{results['temperature_standard_error_kelvin']:.1f} K at 300 K; largest constraint error "
        f"{results['largest_constraint_error']:.0e}."
    )
    figure.text(0.04, 0.9, words, fontsize=11, color="#52606d")
    plane = draw_chain(figure, grid, made["traces"])
    axes = figure.add_subplot(grid[0, 2:])
    for name in ("MD", "hybrid"):
        steps = np.arange(len(made["rmsd"][name])) / len(made["rmsd"][name])
        span = MD.duration if name == "MD" else results["hybrid_md_ps"]
        axes.plot(steps, made["rmsd"][name], color=colours[name], lw=0.8, label=f"{name}, {span / 1000:g} ns of MD")
    axes.set_title("Cα RMSD to the crystal structure / Å", loc="left", weight="bold", color=ink)
    axes.set_xlabel("part of the run")
    axes.set_ylim(0, None)
    axes.legend(frameon=False, ncols=2, loc="upper right", fontsize=9)
    axes = figure.add_subplot(grid[1, 2])
    for name, size in (("MD", 2), ("hybrid", 5)):
        axes.scatter(*made["slow"][name][:, :2].T, s=size, color=colours[name], alpha=0.5, linewidths=0, label=name)
    axes.set_title("slow coordinates 1, 2", loc="left", weight="bold", color=ink)
    axes.legend(frameon=False, fontsize=9, markerscale=3)
    axes = figure.add_subplot(grid[1, 3])
    axes.hist(made["temperatures"], bins=24, color=colours["hybrid"], alpha=0.85)
    axes.axvline(300, color=ink, ls="--", lw=1)
    axes.set_title("temperature after each relaxation / K", loc="left", weight="bold", color=ink)
    axes.set_yticks([])
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=110)
    print(f"wrote docs/figures/{FIGURE.name}; the chain is drawn along its first two axes, {plane} of its spread")


def draw_chain(figure, grid, traces: dict) -> str:
    """Draw the Calpha traces, superposed, in the plane of the mean fold; return that plane's share of its spread."""
    reference = traces["MD"][0]
    mean = traces["MD"].superpose(reference).xyz.mean(axis=0)
    _, values, axes_of_chain = np.linalg.svd(mean - mean.mean(axis=0))
    for column, name in enumerate(("MD", "hybrid")):
        frames = traces[name].superpose(reference).xyz
        picked = frames[np.linspace(0, len(frames) - 1, 60).astype(int)]
        flat = 10 * (picked - mean.mean(axis=0)) @ axes_of_chain[:2].T
        axes = figure.add_subplot(grid[:, column])
        n_residues = flat.shape[1]
        for chain in flat:
            for i in range(n_residues - 1):
                axes.plot(*chain[i : i + 2].T, color=_colour(i / (n_residues - 2)), lw=1.1, alpha=0.28)
        centre = 10 * (mean - mean.mean(axis=0)) @ axes_of_chain[:2].T
        for i, point in enumerate(centre):
            axes.plot(*point, "o", ms=5, color=_colour(min(1.0, i / (n_residues - 2))), mec="white", mew=0.8)
        axes.set_aspect("equal")
        axes.axis("off")
        axes.set_title(f"60 frames, {name}", loc="left", weight="bold", color="#1f2933")
    return f"{100 * (values[:2] ** 2).sum() / (values**2).sum():.0f} %"


def _colour(part: float):
    import matplotlib

    return matplotlib.colormaps["viridis"](0.05 + 0.85 * part)


if __name__ == "__main__":
    main()
