"""A thousand steered jumps of alanine dipeptide in TIP3P water under a barostat, beside plain MD of the same box.

Density, potential energy and temperature of the relaxations must be those of plain MD, and no constraint may fail.
Jumps with examples/data/adp.latent.pt, guarded, realisation "steer"; hydrogens of 3 amu and 4 fs. Resumable is not
needed: about 15 minutes on one core of the CPU platform.

    python benchmarks/steered_water.py [--jumps 1000]
"""

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np
import openmm as mm
from openmm import app, unit
from results import write_results

from openmm_latent import LatentModel
from openmm_latent.geometry import dihedrals

DATA = Path(__file__).parents[1] / "examples" / "data"
TEMPERATURE = 300.0  # [K]
TIMESTEP = 0.004  # [ps]
RELAXATION = 100  # MD steps between jumps
BOX = 2.0  # nm
N_EQUILIBRATION = 100  # blocks of relaxation before the first that counts
PHI, PSI = [4, 6, 8, 14], [6, 8, 14, 16]


def make_box(seed: int) -> tuple[app.Topology, np.ndarray, mm.System]:
    """Return alanine dipeptide in a small box of water with its barostat."""
    pdb = app.PDBFile(str(DATA / "adp.pdb"))
    modeller = app.Modeller(pdb.topology, pdb.positions)
    force_field = app.ForceField("amber14-all.xml", "amber14/tip3p.xml")
    modeller.addSolvent(force_field, boxSize=mm.Vec3(BOX, BOX, BOX) * unit.nanometer)
    system = force_field.createSystem(
        modeller.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.8 * unit.nanometer,
        constraints=app.HBonds,
        hydrogenMass=3 * unit.amu,
    )
    barostat = mm.MonteCarloBarostat(1 * unit.bar, TEMPERATURE * unit.kelvin)
    barostat.setRandomNumberSeed(seed)
    system.addForce(barostat)
    return modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer)), system


def relaxation(seed: int) -> mm.LangevinMiddleIntegrator:
    integrator = mm.LangevinMiddleIntegrator(TEMPERATURE * unit.kelvin, 5 / unit.picosecond, TIMESTEP * unit.picosecond)
    integrator.setRandomNumberSeed(seed)
    return integrator


def simulate(topology, positions, system, integrator, n_blocks: int, n_equilibration: int, seed: int) -> dict:
    """Run blocks of RELAXATION steps and average what is seen at their ends."""
    platform = mm.Platform.getPlatformByName("CPU")
    simulation = app.Simulation(topology, system, integrator, platform, {"Threads": "1"})
    context = simulation.context
    context.setPositions(positions)
    simulation.minimizeEnergy()
    context.setVelocitiesToTemperature(TEMPERATURE * unit.kelvin, seed)
    constraints = [system.getConstraintParameters(i) for i in range(system.getNumConstraints())]
    first, second = (np.array([c[k] for c in constraints]) for k in (0, 1))
    lengths = np.array([c[2].value_in_unit(unit.nanometer) for c in constraints])
    mass = sum(system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(system.getNumParticles()))
    n_freedom = (
        3 * sum(system.getParticleMass(i)._value > 0 for i in range(system.getNumParticles())) - len(lengths) - 3
    )
    rows, angles = [], []
    largest = 0.0
    began = time.process_time()
    for block in range(n_equilibration + n_blocks):
        simulation.step(RELAXATION)
        if block < n_equilibration:
            continue
        state = context.getState(positions=True, energy=True)
        volume = state.getPeriodicBoxVolume().value_in_unit(unit.nanometer**3)
        kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
        potential = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        rows.append((1.66053907 * mass / volume / 1000, potential, 2 * kinetic / (n_freedom * 0.00831446261815324)))
        place = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        distance = np.linalg.norm(place[first] - place[second], axis=1)
        largest = max(largest, float(np.abs(distance / lengths - 1).max()))
        angles.append(dihedrals(place[None].astype(np.float32), np.array([PHI, PSI]))[0])
    rows = np.array(rows)
    parts = rows[: len(rows) // 10 * 10].reshape(10, -1, 3).mean(axis=1)  # ten blocks for the error
    means, errors = rows.mean(axis=0), parts.std(axis=0, ddof=1) / np.sqrt(10)
    names = ("density_g_per_cm3", "potential_kj_per_mol", "temperature_kelvin")
    figures = {name: [float(m), float(e)] for name, m, e in zip(names, means, errors, strict=True)}
    psi = np.degrees(np.array(angles)[:, 1])
    helix = (psi > -90) & (psi < 30)
    return figures | {
        "largest_constraint_error": largest,
        "psi_crossings": int((np.diff(helix.astype(int)) != 0).sum()),
        "cpu_seconds": time.process_time() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jumps", type=int, default=1000)
    parser.add_argument("--driven-steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    topology, positions, system = make_box(options.seed)
    plain = simulate(
        topology, positions, system, relaxation(options.seed), options.jumps, N_EQUILIBRATION, options.seed
    )
    print("plain MD", plain, flush=True)
    topology, positions, system = make_box(options.seed)
    model = LatentModel(DATA / "adp.latent.pt")
    model.addRestraint(system, topology)
    integrator = model.createIntegrator(
        topology,
        relaxation(options.seed + 1),
        jumpInterval=RELAXATION,
        mode="guarded",
        realisation="steer",
        seed=options.seed,
        drivenSteps=options.driven_steps,
        stepsPerPerturbation=2,
        sigma=0.2,
    )
    steered = simulate(topology, positions, system, integrator, options.jumps, N_EQUILIBRATION, options.seed + 1)
    records = integrator.getJumpRecords(N_EQUILIBRATION)
    distances = [np.linalg.norm(np.array(r.reached) - np.array(r.to)) for r in records if r.reached]
    write_results(
        "steered_water",
        {
            "settings": vars(options) | {"timestep_ps": TIMESTEP, "relaxation_steps": RELAXATION, "box_nm": BOX},
            "particles": system.getNumParticles(),
            "plain MD (mean, error)": plain,
            "steered (mean, error)": steered,
            "jumps": integrator.getNumJumps(),
            "refused": dict(Counter(r.reason for r in records if not r.accepted)),
            "median_work_kj_per_mol": float(np.median([r.work for r in records])),
            "median_distance_from_target": float(np.median(distances)),
        },
    )


if __name__ == "__main__":
    main()
