"""Accepted basin-to-basin moves per CPU-second on alanine dipeptide: learned coordinates against phi, psi by hand.

The same exact mode, at driven lengths from 50 to 1000 steps of 4 fs, with the GLDP bundle of examples/data (TICA modes
of all torsions), with GLDP's other choice of slow coordinates ("angles": the torsions that make up these modes most)
and with phi and psi by hand (torsion_model.py), all trained on the same data and compiled, each at its own best width
out of the same few, found beforehand with other seeds; and plain MD, whose moves are its crossings. Basins: beta and
alpha_R (phi < 0, psi above or below 60 degrees) and phi > 0. A move counts when a jump is accepted and its ends are in
different basins.

    python benchmarks/exact_moves_adp.py [--cpu-seconds 30]
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from adp_comparators import PHI, PSI, TIMESTEP, read_system
from adp_comparators import make_simulation as make_plain
from adp_walkers import RELAXATION, WORK, make_simulation
from results import write_results
from torsion_model import DATA, LAG_TIME
from torsion_model import OUT as TORSIONS
from torsion_model import make_bundle as make_torsion_bundle

from openmm_latent.compiling import compile_bundle
from openmm_latent.data.trajectories import load_trajectories
from openmm_latent.geometry import dihedrals
from openmm_latent.training import train_gldp

LENGTHS = (50, 100, 200, 500, 1000)
SIGMAS = (0.05, 0.1, 0.15, 0.2)
STEPS_PER_PERTURBATION = 1


def basin(positions: np.ndarray) -> int:
    """0 beta, 1 alpha_R, 2 phi > 0."""
    phi, psi = np.degrees(dihedrals(positions[None].astype(np.float32), np.array([PHI, PSI]))[0])
    return 2 if phi > 0 else int(-120 < psi < 60)


def moves(bundle, cpu_seconds: float, seed: int, **driving) -> dict:
    """Jump for so long and count the moves."""
    simulation = make_simulation(bundle, seed, stepsPerPerturbation=STEPS_PER_PERTURBATION, **driving)
    integrator, context = simulation.integrator, simulation.context
    relaxation = integrator.getIntegrator(0)
    relaxation.step(RELAXATION)
    count = phi_count = jumps = accepted = 0
    began = time.process_time()
    while (spent := time.process_time() - began) < cpu_seconds:
        before = basin(context.getState(positions=True).getPositions(asNumpy=True)._value)
        jumps += 1
        if integrator.jump():
            accepted += 1
            after = basin(context.getState(positions=True).getPositions(asNumpy=True)._value)
            count += after != before
            phi_count += (after == 2) != (before == 2)
        relaxation.step(RELAXATION)
    return {
        "moves_per_cpu_second": count / spent,
        "error": float(np.sqrt(max(count, 1)) / spent),
        "phi_moves_per_cpu_second": phi_count / spent,
        "acceptance": accepted / jumps,
        "jumps": jumps,
    }


def plain_moves(cpu_seconds: float, seed: int) -> dict:
    """Run plain MD for so long and count the changes of basin between frames 0.5 ps apart."""
    simulation = make_plain(read_system(), seed)
    seen = []
    began = time.process_time()
    while (spent := time.process_time() - began) < cpu_seconds:
        simulation.step(RELAXATION)
        seen.append(basin(simulation.context.getState(positions=True).getPositions(asNumpy=True)._value))
    seen = np.array(seen)
    count = int((np.diff(seen) != 0).sum())
    return {
        "moves_per_cpu_second": count / spent,
        "error": float(np.sqrt(max(count, 1)) / spent),
        "phi_moves_per_cpu_second": int((np.diff((seen == 2).astype(int)) != 0).sum()) / spent,
        "nanoseconds": len(seen) * RELAXATION * TIMESTEP / 1000,
    }


def train_on_angles() -> Path:
    """Train GLDP as examples/data/make_adp_bundle.py does, but for its slow coordinates."""
    out = WORK / "trained_on_angles.latent.pt"
    WORK.mkdir(parents=True, exist_ok=True)
    trajectories = load_trajectories(DATA / "adp.pdb", DATA / "adp_400K.xtc")
    train_gldp(
        trajectories,
        lag_time=LAG_TIME,
        slow_features="angles",
        out=out,
        work_directory=WORK / "training",
        progress=False,
    )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cpu-seconds", type=float, default=30.0, help="of each setting")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bundles = {name: WORK / f"{name.replace(', ', '_')}.latent.pt" for name in ("modes", "angles", "phi, psi")}
    compile_bundle(DATA / "adp.latent.pt", bundles["modes"])
    compile_bundle(train_on_angles(), bundles["angles"])
    compile_bundle(make_torsion_bundle(TORSIONS), bundles["phi, psi"])
    chosen = {}
    for name, bundle in bundles.items():  # widths with other seeds, at one length
        trials = {
            s: moves(bundle, options.cpu_seconds / 2, options.seed + 100, drivenSteps=200, sigma=s) for s in SIGMAS
        }
        chosen[name] = max(trials, key=lambda s: trials[s]["moves_per_cpu_second"])
        print(name, trials, flush=True)
    rows = {name: {} for name in bundles}
    for length in LENGTHS:
        for name, bundle in bundles.items():  # interleaved, so that both see the same machine
            found = moves(bundle, options.cpu_seconds, options.seed, drivenSteps=length, sigma=chosen[name])
            rows[name][str(length)] = found
            print(name, length, found, flush=True)
    write_results(
        "exact_moves_adp",
        {
            "settings": vars(options)
            | {"relaxation_steps": RELAXATION, "steps_per_perturbation": STEPS_PER_PERTURBATION},
            "sigma": chosen,
            "driven steps": rows,
            "plain MD": plain_moves(options.cpu_seconds, options.seed),
        },
    )


if __name__ == "__main__":
    main()
