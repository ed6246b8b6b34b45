"""A guarded GLDP hybrid on a real mini-protein, chignolin CLN025 (PDB 5AWL, 166 atoms).

`generate` makes 6 ns of MD (amber14 + OBC2, 300 K, 4 fs with heavy hydrogens; half an hour on one core), `train gldp`
makes a tiny model of it, and a guarded hybrid run alternates its jumps with MD. Checked: temperature, constraints, and
that the fold stays. Reads ../shared/data/pdb/CLN025.pdb, writes results/chignolin_hybrid.json and
docs/figures/chignolin.png. Every stage stays in the work folder, so the same command goes on after Ctrl-C.

    python benchmarks/chignolin_hybrid.py
"""

import argparse
import csv
import json
import time
from pathlib import Path

import mdtraj
import numpy as np
import openmm as mm
import torch
from openmm import unit
from results import shared_data, write_results

from openmm_latent.bundle import load_bundle
from openmm_latent.data.generate import GenerateConfig, generate
from openmm_latent.data.trajectories import load_trajectories
from openmm_latent.hybrid import HybridConfig, HybridRun
from openmm_latent.training import train_gldp

ROOT = Path(__file__).parents[1]
FIGURE = ROOT / "docs" / "figures" / "chignolin.png"
MD = GenerateConfig(
    duration=6000.0, frame_spacing=1.0, equilibration=50.0, timestep=0.004, hydrogen_mass=3.0, temperature=300.0
)
LAG_TIME = 20.0  # [ps]
JUMP_INTERVAL = 500  # steps of 4 fs: 2 ps
INK, COLOURS = "#1f2933", {"MD": "#8a94a3", "hybrid": "#0b6e99"}
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
    timing = options.work / f"training-{options.propagator}.json"
    if not bundle.exists():
        clock = time.monotonic()
        train_gldp(
            train,
            lag_time=LAG_TIME,
            propagator=options.propagator,
            out=bundle,
            work_directory=options.work / "training",
        )
        timing.write_text(json.dumps(round(time.monotonic() - clock)))
    training_seconds = json.loads(timing.read_text())

    print("hybrid run ...", flush=True)
    config = HybridConfig(
        temperature=300.0, timestep=0.004, hydrogen_mass=3.0, friction=FRICTION, jump_interval=JUMP_INTERVAL,
        duration=(options.jumps + 1) * JUMP_INTERVAL * 0.004, report_interval=JUMP_INTERVAL, save_every=1e9,
    )  # fmt: skip
    out = options.work / f"hybrid-{options.propagator}-{options.jumps}"
    measured = hybrid_run(bundle, top, out, config)
    run = HybridRun(bundle, top, out, config, platform="CPU")  # finished: only its files and System are used

    made = analyse(run, xtc, top, load_bundle(bundle).module, test)
    results = {
        "propagator": options.propagator, "lag_time_ps": LAG_TIME, "jump_interval_steps": JUMP_INTERVAL,
        "md_ps": MD.duration, "hybrid_md_ps": config.duration, "friction_per_ps": FRICTION,
        **measured, "acceptance": measured["jumps"]["accepted"] / measured["jumps"]["jumps"],
        "accepted_jumps_x_lag_time_ps": measured["jumps"]["accepted"] * LAG_TIME,
        "training_seconds": training_seconds,
        **made["numbers"],
    }  # fmt: skip
    write_results("chignolin_hybrid", results)
    draw(made, results)


def hybrid_run(bundle: Path, top: Path, out: Path, config: HybridConfig) -> dict:
    """Make the run, watching constraints, or return what was measured when it was made."""
    measured = out / "measured.json"
    if measured.exists():
        return json.loads(measured.read_text())
    for old in out.glob("CLN025*"):  # the check of constraints needs the whole run in this process
        old.unlink()
    run = HybridRun(bundle, top, out, config, platform="CPU")
    watch = ConstraintReporter(run.simulation, JUMP_INTERVAL)
    run.simulation.reporters.append(watch)
    started = time.monotonic()
    tally = run.run(lambda done, total: tell(0, done, total))
    seconds = round(time.monotonic() - started)
    facts = {"jumps": tally, "largest_constraint_error": max(watch.errors), "hybrid_seconds": seconds}
    measured.write_text(json.dumps(facts))
    return facts


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
        "heavy_atom_rmsd_between_frames_angstrom": {
            "hybrid, a jump of 20 ps and 2 ps of MD": step_rmsd(hybrid, heavy, 1),
            "MD, 2 ps": step_rmsd(md, heavy, 2),
            "MD, 22 ps": step_rmsd(md, heavy, 22),
        },
        "autoencoder_rmsd_angstrom_held_out": float(10 * (decoded - held_out).pow(2).sum(2).mean().sqrt()),
        "openmm": mm.version.version,
    }
    return {"numbers": numbers, "rmsd": rmsd, "temperatures": temperatures, "slow": slow,
            "traces": {"MD": md.atom_slice(atoms), "hybrid": hybrid.atom_slice(atoms)}}  # fmt: skip


def step_rmsd(frames: mdtraj.Trajectory, atoms: list[int], n_frames: int) -> float:
    """Return the mean RMSD [Å] of the atoms between frames so far apart, after superposition of each pair."""
    starts = np.linspace(0, frames.n_frames - 1 - n_frames, 200).astype(int)
    pairs = [mdtraj.rmsd(frames[i + n_frames], frames[i], atom_indices=atoms)[0] for i in starts]
    return float(10 * np.mean(pairs))


def draw(made: dict, results: dict) -> None:
    """Draw Calpha traces, RMSD to the crystal structure, slow coordinates and temperature."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "axes.edgecolor": "#9aa5b1", "axes.spines.top": False,
                         "axes.spines.right": False, "axes.titleweight": "bold", "axes.titlelocation": "left",
                         "axes.titlecolor": INK})  # fmt: skip
    figure = plt.figure(figsize=(12.5, 7.2), facecolor="white")
    grid = figure.add_gridspec(2, 3, width_ratios=(1.45, 1, 1), left=0.03, right=0.98, top=0.82, bottom=0.08,
                               wspace=0.22, hspace=0.42)  # fmt: skip
    figure.text(0.03, 0.945, "Guarded latent jumps on chignolin CLN025", fontsize=17, weight="bold", color=INK)
    words = (
        f"{results['jumps']['jumps']} jumps of {results['lag_time_ps']:g} ps, {100 * results['acceptance']:.1f} % "
        f"accepted, 2 ps of MD after each. Temperature {results['mean_temperature_kelvin']:.1f} ± "
        f"{results['temperature_standard_error_kelvin']:.1f} K at 300 K; largest relative constraint error "
        f"{results['largest_constraint_error']:.0e}."
    )
    figure.text(0.03, 0.9, words, fontsize=11, color="#52606d")
    draw_chains(figure, grid, made["traces"])
    axes = figure.add_subplot(grid[0, 1:])
    for name, span in (("MD", MD.duration), ("hybrid", results["hybrid_md_ps"])):
        time_ns = np.linspace(0, span / 1000, len(made["rmsd"][name]))
        axes.plot(time_ns, made["rmsd"][name], color=COLOURS[name], lw=0.6, label=name)
    axes.set_title("Cα RMSD to the crystal structure / Å")
    axes.set_xlabel("MD time / ns, without what the jumps stand for", labelpad=2)
    axes.set_ylim(0, 2.1)
    axes.legend(frameon=False, ncols=2, loc="upper right", fontsize=10, borderaxespad=0)
    axes = figure.add_subplot(grid[1, 1])
    for name, size in (("MD", 2), ("hybrid", 5)):
        axes.scatter(*made["slow"][name][:, :2].T, s=size, color=COLOURS[name], alpha=0.5, linewidths=0, label=name)
    axes.set_title("slow coordinates 1 and 2")
    axes.legend(frameon=False, fontsize=10, markerscale=3, loc="best")
    axes = figure.add_subplot(grid[1, 2])
    axes.hist(made["temperatures"], bins=24, color=COLOURS["hybrid"], alpha=0.85)
    axes.axvline(300, color=INK, ls="--", lw=1)
    axes.set_title("temperature / K, hybrid")
    axes.set_yticks([])
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=110)
    print(f"wrote docs/figures/{FIGURE.name}")


def draw_chains(figure, grid, traces: dict) -> None:
    """Draw the Calpha traces of MD and hybrid run, superposed, in the plane of the mean fold."""
    reference = traces["MD"][0]
    mean = traces["MD"].superpose(reference).xyz.mean(axis=0)
    plane = np.linalg.svd(mean - mean.mean(axis=0))[2][:2]
    for row, name in enumerate(("MD", "hybrid")):
        frames = traces[name].superpose(reference).xyz
        picked = frames[np.linspace(0, len(frames) - 1, 80).astype(int)]
        flat = 10 * (picked - mean.mean(axis=0)) @ plane.T
        axes = figure.add_subplot(grid[row, 0])
        n_residues = flat.shape[1]
        for chain in flat:
            for i in range(n_residues - 1):
                axes.plot(*chain[i : i + 2].T, color=_colour(i / (n_residues - 1)), lw=1.2, alpha=0.25)
        for i, point in enumerate(flat.mean(axis=0)):
            axes.plot(*point, "o", ms=6, color=_colour(i / (n_residues - 1)), mec="white", mew=0.9)
        axes.set_aspect("equal")
        axes.axis("off")
        axes.set_title(f"Cα traces, 80 frames of {name}, N to C", color=INK)


def _colour(part: float):
    import matplotlib

    return matplotlib.colormaps["viridis"](0.05 + 0.85 * part)


if __name__ == "__main__":
    main()
