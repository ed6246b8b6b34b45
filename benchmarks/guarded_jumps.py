"""Ten thousand guarded jumps on alanine dipeptide for each of GLDP's propagators.

Counts acceptance and reasons of refusal, crossings of phi and psi both ways, failures, and memory at every thousandth
jump. The model is trained on ../shared/data/adp_md/adp_400K.xtc (hot data, which crosses phi) and jumps at 300 K.
Resumable: a finished propagator is not run again. `python benchmarks/guarded_jumps.py`
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import openmm as mm
import torch
from openmm import app, unit
from results import shared_data, write_results

from openmm_latent import LatentModel
from openmm_latent.data.forcefields import build_system
from openmm_latent.data.trajectories import load_trajectories
from openmm_latent.geometry import dihedrals
from openmm_latent.training import train_gldp

PROPAGATORS = ("autoregressive", "koopman", "langevin")
PHI, PSI = [4, 6, 8, 14], [6, 8, 14, 16]


def count_crossings(angle: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> tuple[int, int]:
    """Count entries into and exits from a basin with a core on either side, so that a flicker at its edge is none."""
    state, entries, exits = None, 0, 0
    for is_in, is_out in zip(inside, outside, strict=True):
        if is_in and state is not True:
            entries += state is False
            state = True
        elif is_out and state is not False:
            exits += state is True
            state = False
    return entries, exits


def crossings(angles: np.ndarray) -> dict:
    """Entries into and exits from phi > 0 (cores 20..120, -160..-40 degrees) and the helix (psi -80..0, 100..220)."""
    phi, psi = np.degrees(angles).T
    left = count_crossings(phi, (phi > 20) & (phi < 120), (phi > -160) & (phi < -40))
    helix = count_crossings(psi, (psi > -80) & (psi < 0), (psi > 100) | (psi < -140))
    return {"phi_entries": left[0], "phi_exits": left[1], "psi_entries": helix[0], "psi_exits": helix[1]}


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def run(model: LatentModel, pdb: app.PDBFile, n_jumps: int, interval: int, seed: int) -> dict:
    relaxation = mm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond)
    relaxation.setRandomNumberSeed(seed)
    integrator = model.createIntegrator(pdb.topology, relaxation, jumpInterval=interval, mode="guarded", seed=seed)
    platform = mm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(pdb.topology, build_system(pdb.topology), integrator, platform)
    simulation.context.setPositions(pdb.positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, seed)
    # Filled ahead, so that what grows in memory is not the benchmark's own.
    frames = np.ones((n_jumps, simulation.system.getNumParticles(), 3), dtype=np.float32)
    temperatures, memory, errors = np.ones(n_jumps), [], np.ones(n_jumps)
    n_dof = 3 * simulation.system.getNumParticles() - simulation.system.getNumConstraints() - 3
    seconds = {"module": 0.0, "minimize": 0.0, "whole_run": -time.perf_counter()}
    constraints = [simulation.system.getConstraintParameters(i) for i in range(simulation.system.getNumConstraints())]
    simulation.step(interval)  # the first jump comes before the next step
    for block in range(n_jumps):
        simulation.step(interval)
        state = simulation.context.getState(positions=True, energy=True)
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        frames[block] = positions
        temperatures[block] = 2 * state.getKineticEnergy()._value / (n_dof * 0.0083144626)
        errors[block] = max(
            abs(np.linalg.norm(positions[a] - positions[b]) - d._value) / d._value for a, b, d in constraints
        )
        record = integrator.getJumpRecords(integrator.getNumJumps() - 1)[0]
        seconds["module"] += record.moduleSeconds
        seconds["minimize"] += record.minimizeSeconds
        if (block + 1) % 1000 == 0:
            memory.append(round(resident_megabytes(), 1))
            print(f"  {block + 1} jumps, accepted {integrator.getNumAccepted()}, {memory[-1]} MB", flush=True)
    seconds["whole_run"] += time.perf_counter()
    angles = dihedrals(frames, np.array([PHI, PSI]))
    return {
        "jumps": integrator.getNumJumps(),
        "accepted": integrator.getNumAccepted(),
        "acceptance": integrator.getNumAccepted() / integrator.getNumJumps(),
        "refused": {reason: count for reason, count in integrator.getRefusals().items() if count},
        **crossings(angles),
        "fraction_phi_positive": float((angles[:, 0] > 0).mean()),
        "mean_temperature_kelvin": float(np.mean(temperatures)),
        "largest_constraint_error": float(np.max(errors)),
        "memory_megabytes_each_1000_jumps": memory,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jumps", type=int, default=10_000)
    parser.add_argument("--interval", type=int, default=200, help="relaxation steps of 2 fs between jumps")
    parser.add_argument("--work", type=Path, default=Path("benchmark_output/guarded_jumps"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = shared_data("adp_md")
    pdb = app.PDBFile(str(data / "adp.pdb"))
    arguments.work.mkdir(parents=True, exist_ok=True)
    results = {}
    trajectories = load_trajectories(data / "adp.pdb", [data / "adp_400K.xtc"])
    for propagator in PROPAGATORS:
        finished = arguments.work / f"{propagator}_{arguments.jumps}_{arguments.interval}.json"
        if not finished.exists():
            bundle = arguments.work / f"{propagator}.latent.pt"
            train_gldp(
                trajectories,
                lag_time=1.0,
                propagator=propagator,
                out=bundle,
                work_directory=arguments.work / "training",
                progress=False,
            )
            print(propagator, flush=True)
            outcome = run(LatentModel(bundle), pdb, arguments.jumps, arguments.interval, seed=1)
            finished.write_text(json.dumps(outcome))
        results[propagator] = json.loads(finished.read_text())
        print(propagator, json.dumps(results[propagator], indent=1), flush=True)
    write_results("guarded_jumps", {"jump_interval_steps": arguments.interval, "propagators": results})


if __name__ == "__main__":
    main()
