"""The whole road on alanine dipeptide: train three propagators on hot MD, export them, and jump with them at 300 K.

`make demo` (or `python examples/demo.py [--quick]`) writes everything into demo_output/ and ends with a table and one
figure. At 300 K plain MD shows no phi crossing in 129 ns, so the training data is 30.7 ns at 400 K.
"""

import argparse
import datetime
import json
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import openmm as mm
import torch
from openmm import app, unit
from rich.console import Console
from rich.table import Table

from openmm_latent import LatentModel, LatentReporter
from openmm_latent.bundle import load_bundle
from openmm_latent.data.forcefields import build_system
from openmm_latent.data.trajectories import TrajectorySet, load_trajectories
from openmm_latent.geometry import dihedrals, torsion_quadruples
from openmm_latent.metrics import jsd, ramachandran_counts, ramachandran_jsd
from openmm_latent.models.gldp import CONFIGS, GLDPConfig
from openmm_latent.propagators.autoregressive import AutoregressiveConfig
from openmm_latent.propagators.koopman import KoopmanConfig
from openmm_latent.propagators.langevin import LangevinConfig
from openmm_latent.topology import describe_atoms
from openmm_latent.training import train_autoencoder, train_gldp

DATA = Path(__file__).parent / "data"
PROPAGATORS = ("autoregressive", "koopman", "langevin")
HOT, COLD = 400.0, 300.0  # [K] of the training data and of the hybrid runs
TIMESTEP = 0.002  # [ps]
FRICTION = 5.0  # [1/ps]: a jump ends in a minimisation, and 1 ps must suffice to warm the molecule up again
CELL_BINS = 72  # of the maps and of the shipped 300 K counts
COLD_BINS = 36  # of the score at 300 K, whose runs are short


@dataclass(frozen=True)
class Plan:
    """How much to do."""

    lag_time: float = 40.0  # [ps]
    stride: int = 1  # of the training data
    config: GLDPConfig = CONFIGS["tiny"]
    propagators: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(PROPAGATORS))  # None: the "tiny" one
    n_rollout: int = 10_000  # frames of each free rollout, by 20 walkers
    jump_interval: int = 500  # MD steps between jumps
    n_jumps: int = 2500


QUICK_FITS = {
    "autoregressive": AutoregressiveConfig(n_epochs=1, n_components=4),
    "koopman": KoopmanConfig(),
    "langevin": LangevinConfig(n_epochs=1),
}
QUICK = Plan(
    stride=10,
    config=replace(CONFIGS["tiny"], encoder_steps=60, decoder_steps=60),
    propagators=QUICK_FITS,
    n_rollout=400,
    n_jumps=25,
)
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo_output"))
    parser.add_argument("--quick", action="store_true", help="a minute instead of ten; the models are then of no use")
    options = parser.parse_args()
    plan, out = QUICK if options.quick else Plan(), options.out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # two processes of one thread each are faster than one of two
    started = time.monotonic()

    console.rule("1. the data: alanine dipeptide, 400 K")
    trajectories = load_trajectories(DATA / "adp.pdb", DATA / "adp_400K.xtc", stride=plan.stride)
    # Every fifth nanosecond is held out: phi flips every few ns, so one block at the end would see too little.
    train, test = trajectories.split_blocks(30, range(4, 30, 5))
    console.print(f"{train.n_frames} frames to train on, {test.n_frames} held out, {train.frame_spacing:g} ps apart")

    console.rule("2. one autoencoder, three propagators")
    clock = time.monotonic()
    train_autoencoder(train, plan.config, work_directory=out / "work")
    seconds = {"autoencoder": time.monotonic() - clock}
    with two_processes() as pool:
        seconds |= dict(
            zip(PROPAGATORS, pool.map(train_one, PROPAGATORS, [train] * 3, [plan] * 3, [out] * 3), strict=True)
        )
    console.print(", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))

    console.rule("3. free rollouts in latent space, against the held-out data")
    results = {
        "lag_time": plan.lag_time,
        "jump_interval": plan.jump_interval,
        "training_seconds": seconds,
        "rollouts": {},
        "hybrid": {},
    }
    maps = {"reference": counts_of(phi_psi(trajectories))}
    for name in PROPAGATORS:
        angles = rollout(out / f"adp-{name}.latent.pt", train, plan.n_rollout)
        maps[name] = counts_of(angles)
        results["rollouts"][name] = score(angles, test)
    results["rollouts"] |= baselines(train, test, plan.n_rollout)

    console.rule(f"4. hybrid simulations at {COLD:g} K, and plain MD of the same length")
    jobs = [*PROPAGATORS, "plain"]
    with two_processes() as pool:
        traces = dict(zip(jobs, pool.map(simulate, jobs, [plan] * 4, [out] * 4), strict=True))
    with np.load(DATA / "adp_300K_ramachandran.npz") as shipped:
        halves = shipped["counts"]
    maps["cold"] = halves.sum(axis=0)
    results["cold_floor"] = jsd(coarse(halves[0]), coarse(halves[1]))
    for name, trace in traces.items():
        maps[f"hybrid {name}"] = counts_of(trace["angles"])
        trace["jsd"] = jsd(coarse(maps[f"hybrid {name}"]), coarse(maps["cold"]))
        results["hybrid"][name] = {key: value for key, value in trace.items() if key != "angles"}

    results |= {"total_seconds": time.monotonic() - started, "made": provenance()}
    (out / "demo.json").write_text(json.dumps(results, indent=2) + "\n")
    print_tables(results)
    from demo_figure import draw

    figure = out / "demo.png"
    draw(figure, maps, traces, results, plan)
    console.print(f"figure: {figure}   numbers: {out / 'demo.json'}   {results['total_seconds']:.0f} s in all")


def provenance() -> dict:
    """Return what a reader needs to judge or repeat the numbers."""
    return {
        "command": "make demo",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_at_the_end": round(os.getloadavg()[0], 1),  # of all programs; above the cores, wall times are too long
        "versions": {name: version(name) for name in ("openmm", "torch", "numpy", "mdtraj", "openmm-latent")},
    }


def train_one(propagator: str, train: TrajectorySet, plan: Plan, out: Path) -> float:
    """Fit one propagator to the autoencoder in the work directory, export, and return the seconds it took."""
    torch.set_num_threads(1)
    started = time.monotonic()
    train_gldp(
        train,
        lag_time=plan.lag_time,
        propagator=propagator,
        propagator_config=plan.propagators[propagator],
        out=out / f"adp-{propagator}.latent.pt",
        work_directory=out / "work",
        config=plan.config,
        progress=False,
    )
    return time.monotonic() - started


def two_processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


def phi_psi(trajectories: TrajectorySet, positions: np.ndarray | None = None) -> np.ndarray:
    """Return (n_frames, 2) [rad] of a set's frames, or of other frames of its model atoms."""
    atoms = describe_atoms(trajectories.topology, trajectories.model_atoms)
    quadruples = np.concatenate([torsion_quadruples(atoms, "phi"), torsion_quadruples(atoms, "psi")])
    return dihedrals(trajectories.concatenated() if positions is None else positions, quadruples)


def counts_of(angles: np.ndarray) -> np.ndarray:
    return ramachandran_counts(angles, CELL_BINS)


def coarse(counts: np.ndarray) -> np.ndarray:
    """Join cells: (72, 72) -> (36, 36)."""
    return counts.reshape(COLD_BINS, 2, COLD_BINS, 2).sum(axis=(1, 3))


def rollout(bundle: Path, train: TrajectorySet, n_frames: int) -> np.ndarray:
    """Let 20 walkers jump freely from training frames; return their (n_frames, 2) [rad]."""
    module, manifest = load_bundle(bundle).module, load_bundle(bundle).manifest
    generator = torch.Generator().manual_seed(1)
    frames = train.concatenated()
    start = torch.from_numpy(frames[np.linspace(0, len(frames) - 1, 20).astype(int)])
    made = []
    with torch.inference_mode():
        latent, state = module.encode(start), module.initial_state(start)
        for _ in range(n_frames // 20):
            noise = torch.randn(20, manifest.noise_sizes["propagate"], generator=generator)
            latent, state = module.propagate(latent, state, noise)
            made.append(module.decode(latent, start, torch.zeros(20, manifest.noise_sizes["decode"])))
    return phi_psi(train, torch.cat(made).double().numpy())


def score(angles: np.ndarray, test: TrajectorySet) -> dict[str, float]:
    return {"jsd": ramachandran_jsd(angles, phi_psi(test)), "p_phi_positive": float(np.mean(is_left(angles)))}


def is_left(angles: np.ndarray) -> np.ndarray:
    """Whether phi lies in the left-handed half, 0 to 130 degrees; beyond that it is the edge of the beta region."""
    return (angles[:, 0] > 0) & (angles[:, 0] < np.radians(130))


def baselines(train: TrajectorySet, test: TrajectorySet, n_frames: int) -> dict[str, dict[str, float]]:
    """Score what any model must be read beside: held-out halves, and training frames of the rollouts' number."""
    held_out = phi_psi(test)
    first, second = np.array_split(held_out, 2)
    picked = np.random.default_rng(1).permutation(train.n_frames)[:n_frames]
    return {
        "held-out halves": {
            "jsd": ramachandran_jsd(first, second),
            "p_phi_positive": float(np.mean(is_left(held_out))),
            "n_frames": len(first),
        },
        "training frames": score(phi_psi(train)[picked], test),
    }


def simulate(name: str, plan: Plan, out: Path) -> dict:
    """Run one hybrid simulation, or plain MD, with everything a user would attach; return angles, times and tally."""
    torch.set_num_threads(1)
    pdb = app.PDBFile(str(DATA / "adp.pdb"))
    relaxation = mm.LangevinMiddleIntegrator(COLD * unit.kelvin, FRICTION / unit.picosecond, TIMESTEP * unit.picosecond)
    relaxation.setRandomNumberSeed(1)
    integrator, reporters, stem = relaxation, [], str(out / f"run-{name}")
    if name != "plain":
        model = LatentModel(out / f"adp-{name}.latent.pt")
        integrator = model.createIntegrator(
            pdb.topology, relaxation, jumpInterval=plan.jump_interval, mode="guarded", seed=1
        )
        reporters = [LatentReporter(f"{stem}.latent.csv", plan.jump_interval, model)]
    reference = mm.Platform.getPlatform("Reference")  # the fastest for 22 atoms
    simulation = app.Simulation(pdb.topology, build_system(pdb.topology), integrator, reference)
    simulation.context.setPositions(pdb.positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(COLD * unit.kelvin, 1)
    simulation.reporters += [
        *reporters,
        app.DCDReporter(f"{stem}.dcd", plan.jump_interval),
        app.StateDataReporter(
            f"{stem}.csv", plan.jump_interval, step=True, time=True, potentialEnergy=True, temperature=True
        ),
        app.CheckpointReporter(f"{stem}.chk", 100 * plan.jump_interval),
    ]
    wall, processor = time.monotonic(), time.process_time()
    simulation.step(plan.jump_interval * (plan.n_jumps + 1))
    seconds, cpu_seconds = time.monotonic() - wall, time.process_time() - processor
    simulation.reporters.clear()
    return {"seconds": seconds, "cpu_seconds": cpu_seconds} | summary(name, plan, out, integrator)


def summary(name: str, plan: Plan, out: Path, integrator: mm.Integrator) -> dict:
    """Collect what one run gave: angles from its DCD, temperature from its state data, and the tally of jumps."""
    frames = load_trajectories(DATA / "adp.pdb", out / f"run-{name}.dcd", frame_spacing=plan.jump_interval * TIMESTEP)
    angles = phi_psi(frames)
    # a crossing counts when the other side's core is reached: phi in (40, 80) or below -40 degrees
    core = np.where((angles[:, 0] > 0.7) & (angles[:, 0] < 1.4), 1, np.where(angles[:, 0] < -0.7, -1, 0))
    visited = core[core != 0]
    data = np.genfromtxt(out / f"run-{name}.csv", delimiter=",", skip_header=1)
    is_hybrid = name != "plain"
    return {
        "angles": angles,
        "md_ps": float(frames.n_frames * frames.frame_spacing),
        "temperature": float(data[:, 3].mean()),
        "phi_crossings": int(np.count_nonzero(np.diff(visited))),
        "p_phi_positive": float(np.mean(is_left(angles))),
        "jumps": integrator.getNumJumps() if is_hybrid else 0,
        "accepted": integrator.getNumAccepted() if is_hybrid else 0,
        "refused": {k: n for k, n in integrator.getRefusals().items() if n} if is_hybrid else {},
    }


def print_tables(results: dict) -> None:
    """Print both tables: free rollouts at 400 K, hybrid runs at 300 K."""
    table = Table(title=f"Free rollouts at {HOT:g} K: (phi, psi) JSD against held-out MD, 50 x 50 bins, nats")
    for column, justify in (("", "left"), ("JSD", "right"), ("sqrt", "right"), ("P(phi > 0)", "right")):
        table.add_column(column, justify=justify)
    for name in ("held-out halves", "training frames", *PROPAGATORS):
        row = results["rollouts"][name]
        table.add_row(name, f"{row['jsd']:.3f}", f"{row['jsd'] ** 0.5:.2f}", f"{row['p_phi_positive']:.3f}")
    console.print(table)
    plain = results["hybrid"]["plain"]
    table = Table(
        title=f"Guarded hybrid runs at {COLD:g} K (physically sound, not Boltzmann) beside plain MD, "
        f"{plain['md_ps']:.0f} ps of MD each"
    )
    for column in ("", "wall s", "T / K", "jumps accepted", "refused for", "phi crossings", "JSD to 70 ns MD"):
        table.add_column(column, justify="left" if column in ("", "refused for") else "right")
    for name, run in results["hybrid"].items():
        accepted = f"{run['accepted']} of {run['jumps']}" if run["jumps"] else "-"
        reasons = ", ".join(f"{reason} {n}" for reason, n in run["refused"].items()) or "-"
        row = [f"{run['seconds']:.0f}", f"{run['temperature']:.0f}", accepted, reasons]
        table.add_row(name, *row, str(run["phi_crossings"]), f"{run['jsd']:.3f}")
    console.print(table)
    console.print(
        f"{COLD_BINS} x {COLD_BINS} bins, nats; two halves of the 70 ns: {results['cold_floor']:.3f}; the run of plain "
        f"MD shows what so short a run can reach"
    )


if __name__ == "__main__":
    main()
