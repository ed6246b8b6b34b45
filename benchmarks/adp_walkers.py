"""Walkers of the exact mode on alanine dipeptide, shared by the benchmarks that need them."""

import time
from dataclasses import dataclass
from pathlib import Path

import mdtraj
import numpy as np
import openmm as mm
import torch
from adp_comparators import KT_KCAL, PHI, PSI, TEMPERATURE, TIMESTEP, read_system
from openmm import app, unit
from results import shared_data

from openmm_latent import LatentModel
from openmm_latent.analysis.exchange import Attempts, populations_from_attempts
from openmm_latent.compiling import compile_bundle
from openmm_latent.data.trajectories import load_trajectories
from openmm_latent.geometry import dihedrals
from openmm_latent.metrics import effective_sample_size
from openmm_latent.openmmlatent import LatentRestraintForce
from openmm_latent.training import train_gldp
from openmm_latent.tuning import Tuning, tune_driving

WORK = Path(__file__).parents[1] / "benchmark_output" / "exact_adp"
RELAXATION = 125  # MD steps between two jumps, 0.5 ps
FRICTION = 5.0  # [1/ps] of the relaxation
COOLING = 2500  # MD steps of equilibration, 10 ps
BORDER = 1.5  # of the first slow coordinate: -0.3 (0.2 wide) at phi < 0, 3.4 (0.5 wide) at phi > 0
LAG_TIME = 40.0  # [ps] of the trained model


def learned_bundle(seed: int = 1) -> tuple[Path, float]:
    """Train GLDP on all of the 400 K data and compile it, once; return the bundle and the seconds that took."""
    data = shared_data("adp_md")
    path = WORK / "gldp_400K.latent.pt"
    WORK.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    trajectories = load_trajectories(data / "adp.pdb", data / "adp_400K.xtc")
    train_gldp(trajectories, lag_time=LAG_TIME, out=path, work_directory=WORK / "training", seed=seed, progress=False)
    compile_bundle(path, path)
    return path, time.perf_counter() - began


@dataclass
class Walk:
    """What one walker did.

    Attributes
    ----------
    angles : array, (n_jumps, 2) [rad]
        phi and psi at the end of each relaxation.
    attempts : Attempts
        Its jumps: states 0 (phi < 0) and 1 (phi > 0) by the first slow coordinate.
    cpu_seconds : float
    """

    angles: np.ndarray
    attempts: Attempts
    cpu_seconds: float


def make_simulation(bundle: Path, seed: int, **driving) -> app.Simulation:
    """Return an exact-mode simulation at 300 K on the Reference platform, from a frame of the MD at phi < 0."""
    data = shared_data("adp_md")
    topology = app.PDBFile(str(data / "adp.pdb")).topology
    system = read_system()
    model = LatentModel(bundle)
    model.addRestraint(system, topology)
    relaxation = mm.LangevinMiddleIntegrator(
        TEMPERATURE * unit.kelvin, FRICTION / unit.picosecond, TIMESTEP * unit.picosecond
    )
    relaxation.setRandomNumberSeed(seed)
    integrator = model.createIntegrator(
        topology, relaxation, jumpInterval=RELAXATION, mode="exact", seed=seed, **driving
    )
    simulation = app.Simulation(topology, system, integrator, mm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(mdtraj.load_frame(data / "adp_300K.xtc", 0, top=data / "adp.pdb").xyz[0])
    simulation.context.setVelocitiesToTemperature(TEMPERATURE * unit.kelvin, seed)
    return simulation


def enter_rare_state(simulation: app.Simulation) -> None:
    """Put the molecule at phi > 0, from a frame of the 400 K data, and let it cool there."""
    data = shared_data("adp_md")
    frames = mdtraj.load(data / "adp_400K.xtc", top=data / "adp.pdb")
    phi, psi = np.degrees(dihedrals(frames.xyz, np.array([PHI, PSI]))).T
    inside = np.flatnonzero((phi > 40) & (phi < 80) & (psi > 0) & (psi < 60))
    simulation.context.setPositions(frames.xyz[inside[len(inside) // 2]])
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(TEMPERATURE * unit.kelvin, 1)
    simulation.integrator.getIntegrator(0).step(COOLING)


def tune(bundle: Path, seed: int) -> Tuning:
    """Find one setting for all walkers; what it is found on is in no sample."""
    torch.set_num_threads(1)
    simulation = make_simulation(bundle, seed)
    simulation.integrator.step(RELAXATION)
    # Confined walkers undo a relaxation and draw velocities anew, which takes velocities drawn before it, too: at every
    # jump, and not only where something is driven.
    return tune_driving(simulation, least_distances=(0.0,))


def walk(bundle: Path, seed: int, cpu_seconds: float, *, confined_to: int | None = None, **driving) -> Walk:
    """Jump until the CPU time of this process is spent.

    A walker `confined_to` a state samples the equilibrium inside it: whatever jump or relaxation leads out of it, as
    the first slow coordinate tells, is undone, which is a Metropolis step for the density that is zero outside.
    """
    torch.set_num_threads(1)
    began = time.process_time()
    simulation = make_simulation(bundle, seed, **driving)
    integrator, context = simulation.integrator, simulation.context
    if confined_to == 1:
        enter_rare_state(simulation)
    relaxation = integrator.getIntegrator(0)
    relaxation.step(COOLING)
    frames, records = [], []
    # By hand, so that a confined walker can go back: jump, then relax, as step() does it.
    while time.process_time() - began < cpu_seconds:
        before = context.getState(positions=True).getPositions(asNumpy=True)
        was_accepted = integrator.jump()
        record = integrator.getJumpRecords(integrator.getNumJumps() - 1)[0]
        end = -1 if len(record.reached) == 0 else int(record.reached[0] > BORDER)
        records.append((int(record.start[0] > BORDER), end, _generalised_work(record)))
        if confined_to is not None and was_accepted and end != confined_to:
            _return_to(simulation, before, seed + integrator.getNumJumps())
        before = context.getState(positions=True).getPositions(asNumpy=True)
        relaxation.step(RELAXATION)
        if confined_to is not None and int(integrator_slow(simulation)[0] > BORDER) != confined_to:
            _return_to(simulation, before, -seed - integrator.getNumJumps())
        frames.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    angles = dihedrals(np.array(frames, dtype=np.float32), np.array([PHI, PSI]))
    start, end, works = np.array(records).T
    protocol = tuple(integrator.getDriving().values())
    attempts = Attempts(start.astype(int), end.astype(int), works, protocol)
    return Walk(angles, attempts, time.process_time() - began)


def integrator_slow(simulation: app.Simulation) -> np.ndarray:
    """Return the slow coordinates of the present frame by way of the restraint."""
    forces = simulation.system.getForces()
    restraint = next(LatentRestraintForce.cast(f) for f in forces if LatentRestraintForce.isinstance(f))
    return np.array(restraint.getSlow(simulation.context))


def _generalised_work(record) -> float:
    return record.work / (4.184 * KT_KCAL) - record.logProposalRatio


def _return_to(simulation: app.Simulation, positions, seed: int) -> None:
    simulation.context.setPositions(positions)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE * unit.kelvin, abs(seed))


def from_visits(walks: list[Walk]) -> dict:
    """Return F of phi > 0 [kcal/mol] and its standard error, from the frames of walkers that went where they liked."""
    inside = [walk.angles[:, 0] > 0 for walk in walks]
    p = float(np.concatenate(inside).mean())
    visits = sum(int((np.diff(series.astype(int)) == 1).sum()) for series in inside)
    if p in (0.0, 1.0) or visits == 0:
        return {"free_energy_kcal": None, "sentence": "phi > 0 was not entered and left often enough"}
    n_effective = sum(effective_sample_size(series.astype(float)) for series in inside)
    return {
        "free_energy_kcal": float(-KT_KCAL * np.log(p / (1 - p))),
        "error_kcal": float(KT_KCAL / np.sqrt(n_effective * p * (1 - p))),  # dF = kT dp / (p (1 - p))
        "n_visits": visits,
        "effective_samples": float(n_effective),
    }


def from_attempts(walks: list[Walk]) -> dict:
    """Return F of phi > 0 [kcal/mol] and its standard error, from the work of all attempts between the two states."""
    found = populations_from_attempts([walk.attempts for walk in walks], 2)
    # The border is in the slow coordinate: what the walkers saw of phi on either side of it makes the difference.
    sides = [np.concatenate([walk.angles[_sides(walk) == side, 0] > 0 for walk in walks]).mean() for side in (0, 1)]
    p = float(found.populations @ np.array(sides))
    return {
        "free_energy_kcal": float(-KT_KCAL * np.log(p / (1 - p))),
        "error_kcal": float(KT_KCAL * found.free_energy_errors[1]),
        "share_of_phi_positive_by_side": [float(side) for side in sides],
        "n_attempts": found.n_attempts.tolist(),
        "n_ways": found.n_ways.tolist(),
    }


def _sides(walk: Walk) -> np.ndarray:
    """State of each frame: the one from which the next jump began, and for the last frame that of its phi."""
    return np.append(walk.attempts.start[1:], int(walk.angles[-1, 0] > 0))
