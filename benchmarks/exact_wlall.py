"""Independent samples per CPU-second on the pentapeptide WLALL: the exact mode against plain MD of the same System.

GLDP is trained on the public trajectories (files 00-15 of ../shared/data/wlall, another force field: exactness does
not mind). System: amber14 + OBC2, charged termini, hydrogens of 3 amu, 4 fs. The series is the slowest TICA coordinate
of the backbone torsions, fitted once on the public trajectories; its independent samples are N / (-1 + 2 sum rho), and
none where one of its two states is never visited: a run that stays in one of them samples its fluctuations alone.
Plain MD is what `openmm-latent generate` made in benchmark_output/wlall_md (resumable, as long as it has run), its cost
measured beside the exact run.

    python benchmarks/exact_wlall.py [--cpu-seconds 600]
"""

import argparse
import multiprocessing
import time
from pathlib import Path

import mdtraj
import numpy as np
import openmm as mm
import torch
from deeptime.decomposition import TICA
from gldp_wlall import LAG_TIME, PROPAGATORS
from openmm import app, unit
from results import shared_data, write_results

from openmm_latent import LatentModel
from openmm_latent.compiling import compile_bundle
from openmm_latent.data.forcefields import build_system
from openmm_latent.data.trajectories import load_trajectories
from openmm_latent.metrics import cluster_centres, effective_sample_size
from openmm_latent.training import train_gldp
from openmm_latent.tuning import tune_driving

OUTPUT = Path(__file__).parents[1] / "benchmark_output"
WORK = OUTPUT / "exact_wlall"
MD = OUTPUT / "wlall_md"
TEMPERATURE, TIMESTEP, HYDROGEN_MASS = 300.0, 0.004, 3.0
RELAXATION = 250  # MD steps between jumps, 1 ps
SPACING = 0.01  # ns between frames of the MD


def trained_bundle() -> Path:
    """Train on the public trajectories and compile, once."""
    path = WORK / "wlall.latent.pt"
    folder = shared_data("wlall")
    files = sorted(folder.glob("*.xtc"))[:16]
    train_gldp(
        load_trajectories(folder / "pentapeptide-impl-solv.pdb", files),
        lag_time=LAG_TIME,
        propagator_config=PROPAGATORS["autoregressive"],
        out=path,
        work_directory=WORK / "training",
        seed=1,
        progress=False,
    )
    compile_bundle(path, path)
    return path


def backbone_features(trajectory: mdtraj.Trajectory) -> np.ndarray:
    """Return cosines and sines of phi and psi, (n_frames, n_features)."""
    angles = np.concatenate([mdtraj.compute_phi(trajectory)[1], mdtraj.compute_psi(trajectory)[1]], axis=1)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def slowest_coordinate():
    """Fit the slowest TICA coordinate of the public trajectories at 1 ns; return features -> coordinate."""
    folder = shared_data("wlall")
    runs = [mdtraj.load(file, top=folder / "pentapeptide-impl-solv.pdb") for file in sorted(folder.glob("*.xtc"))]
    model = TICA(lagtime=10, dim=1).fit([backbone_features(run) for run in runs]).fetch_model()
    series = [model.transform(backbone_features(run))[:, 0] for run in runs]
    ns = sum(len(s) for s in series) * 0.1
    border = float(cluster_centres(np.concatenate(series)[:, None], 2, seed=1).mean())
    return model, {
        "border_of_its_states": border,
        "share_of_the_rarer_state": float(
            min((np.concatenate(series) > border).mean(), (np.concatenate(series) < border).mean())
        ),
        "timescale_ns": float(model.timescales()[0] * 0.1),
        "independent_samples_per_ns": float(sum(effective_sample_size(s) for s in series) / ns),
    }


def independent_samples(runs: list[np.ndarray], border: float) -> float:
    """Return how many the runs together are worth; 0 if they never cross the border."""
    sides = np.concatenate(runs) > border
    return 0.0 if sides.all() or not sides.any() else float(effective_sample_size(runs))


def make_simulation(bundle: Path | None, start: np.ndarray, seed: int) -> app.Simulation:
    """Return an exact-mode simulation, or plain MD without a bundle, on the Reference platform."""
    topology = app.PDBFile(str(MD / "wlall_a.pdb")).topology
    system = build_system(topology, hydrogen_mass=HYDROGEN_MASS)
    integrator = mm.LangevinMiddleIntegrator(TEMPERATURE * unit.kelvin, 1 / unit.picosecond, TIMESTEP * unit.picosecond)
    integrator.setRandomNumberSeed(seed)
    if bundle is not None:
        model = LatentModel(bundle)
        model.addRestraint(system, topology)
        integrator = model.createIntegrator(
            topology,
            integrator,
            jumpInterval=RELAXATION,
            mode="exact",
            seed=seed,
            sigma=0.1,
            drivenSteps=500,
            stepsPerPerturbation=1,
        )
    simulation = app.Simulation(topology, system, integrator, mm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(start)
    simulation.minimizeEnergy(maxIterations=200)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE * unit.kelvin, seed)
    return simulation


def walk(bundle: Path, start: np.ndarray, seed: int, cpu_seconds: float) -> dict:
    """Tune, equilibrate and jump for so long; measure the speed of plain MD beside it."""
    torch.set_num_threads(1)
    plain = make_simulation(None, start, seed)
    plain.step(1000)
    began = time.process_time()
    plain.step(5000)
    seconds_per_ns = (time.process_time() - began) / (5000 * TIMESTEP / 1000)
    began = time.process_time()
    simulation = make_simulation(bundle, start, seed)
    integrator = simulation.integrator
    integrator.step(RELAXATION)
    tuning = tune_driving(simulation, n_jumps=20, sigmas=(0.1, 0.15, 0.2), steps=(250, 500, 1000), blocks=(1, 2))
    tuned = time.process_time() - began
    first = integrator.getNumJumps()
    frames, acceptance = [], []
    began = time.process_time()
    while time.process_time() - began < cpu_seconds - tuned:
        simulation.step(RELAXATION)
        frames.append(simulation.context.getState(positions=True).getPositions(asNumpy=True)._value.astype(np.float32))
        for record in integrator.getJumpRecords(first):
            first = record.number
            acceptance.append(record.acceptance)
    return {
        "frames": np.array(frames),
        "acceptance": float(np.mean(acceptance)),
        "cpu_seconds": time.process_time() - began,
        "tuning_cpu_seconds": tuned,
        "setting": tuning.chosen.setting,
        "md_cpu_seconds_per_ns": seconds_per_ns,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cpu-seconds", type=float, default=600.0, help="of each of two walkers")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bundle = trained_bundle()
    coordinate, public = slowest_coordinate()
    reference = [mdtraj.load(file, top=MD / "wlall_a.pdb") for file in sorted(MD.glob("*.xtc"))]
    md = [coordinate.transform(backbone_features(run))[:, 0] for run in reference]
    starts = [reference[0].xyz[len(reference[0]) // 4], reference[-1].xyz[-1]]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        walks = pool.starmap(
            walk, [(bundle, starts[i], options.seed + i, options.cpu_seconds) for i in range(2)], chunksize=1
        )
    topology = reference[0].topology
    exact = [coordinate.transform(backbone_features(mdtraj.Trajectory(w["frames"], topology)))[:, 0] for w in walks]
    exact_samples = independent_samples(exact, public["border_of_its_states"])
    seconds_per_ns = float(np.mean([w["md_cpu_seconds_per_ns"] for w in walks]))
    md_ns = sum(len(series) for series in md) * SPACING
    md_samples = independent_samples(md, public["border_of_its_states"])
    per_second = exact_samples / sum(w["cpu_seconds"] for w in walks)
    md_per_second = md_samples / (md_ns * seconds_per_ns)
    bins = np.linspace(min(map(np.min, exact + md)), max(map(np.max, exact + md)), 11)
    write_results(
        "exact_wlall",
        {
            "settings": vars(options),
            "MD": {
                "ns": md_ns,
                "cpu_seconds_per_ns": seconds_per_ns,
                "independent_samples": md_samples,
                "per_cpu_second": md_per_second,
            },
            "public MD (another force field)": public
            | {"per_cpu_second_at_this_cost": public["independent_samples_per_ns"] / seconds_per_ns},
            "exact": {
                "jumps": [len(series) for series in exact],
                "acceptance": [w["acceptance"] for w in walks],
                "independent_samples": exact_samples,
                "per_cpu_second": per_second,
                "settings": [w["setting"] for w in walks],
                "tuning_cpu_seconds": [w["tuning_cpu_seconds"] for w in walks],
            },
            "gain over this MD": per_second / md_per_second if md_per_second > 0 else None,
            "gain over the public MD's rate": per_second / (public["independent_samples_per_ns"] / seconds_per_ns),
            "histogram of the coordinate": {
                "edges": bins.round(3).tolist(),
                **{f"exact {i + 1}": np.histogram(s, bins)[0].tolist() for i, s in enumerate(exact)},
                "MD": np.histogram(np.concatenate(md), bins)[0].tolist(),
            },
        },
    )


if __name__ == "__main__":
    main()
