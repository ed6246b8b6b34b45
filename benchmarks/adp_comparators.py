"""What has no learned part, given the same CPU time: plain MD and OpenMM's own Metadynamics on alanine dipeptide.

Each function takes CPU seconds (`time.process_time`, setting up included) and a seed, and estimates

    F = -kT ln [P(0 < phi < 180 deg) / P(-180 < phi < 0 deg)]   [kcal/mol] at 300 K

of the System of ../shared/data/adp_md, whose hydrogens weigh 3 amu here: masses do not change the density in space, and
allow 4 fs. Both step with LangevinMiddleIntegrator at 1/ps on the Reference platform, the fastest here for 22 atoms,
and start from one frame of the MD at phi < 0. The half phi > 0 counts as visited once its core (20 to 120 degrees) is:
extended structures spill over 180 degrees (1.7 in 10 000 frames of plain MD), and a run that saw only those would print
a free energy of 5 kcal/mol without having been there.

    python benchmarks/adp_comparators.py --cpu-seconds 60
"""

import argparse
import json
import time

import mdtraj
import numpy as np
import openmm as mm
from openmm import app, unit
from openmm.app.metadynamics import BiasVariable, Metadynamics
from results import shared_data

from openmm_latent import metrics
from openmm_latent.geometry import dihedrals

TEMPERATURE = 300.0  # [K]
KT_KCAL = 0.00831446261815324 * TEMPERATURE / 4.184
PHI, PSI = [4, 6, 8, 14], [6, 8, 14, 16]
HYDROGEN_MASS = 3.0  # [amu]
TIMESTEP = 0.004  # [ps]
BLOCK_STEPS = 250  # between two frames, and between two Gaussians: 1 ps
# Of well-tempered metadynamics: the customary ones for this molecule.
HILL_HEIGHT = 1.2  # [kJ/mol]
HILL_WIDTH = 0.35  # [rad]
BIAS_FACTOR = 10.0
GRID = 91  # points an axis, the last being the first again: 4 degrees apart
N_READINGS = 100  # of the metadynamics estimate along a run, at most


def free_energy(populations: np.ndarray) -> float:
    """Return F [kcal/mol] from the populations of phi > 0 and phi < 0."""
    return float(-KT_KCAL * np.log(populations[0] / populations[1]))


def make_simulation(system: mm.System, seed: int) -> app.Simulation:
    """Return a simulation at 300 K, its seed in the integrator and the velocities."""
    data = shared_data("adp_md")
    integrator = mm.LangevinMiddleIntegrator(TEMPERATURE * unit.kelvin, 1 / unit.picosecond, TIMESTEP * unit.picosecond)
    integrator.setRandomNumberSeed(seed)
    topology = app.PDBFile(str(data / "adp.pdb")).topology
    simulation = app.Simulation(topology, system, integrator, mm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(mdtraj.load_frame(data / "adp_300K.xtc", 0, top=data / "adp.pdb").xyz[0])
    simulation.context.setVelocitiesToTemperature(TEMPERATURE * unit.kelvin, seed)
    return simulation


def read_system() -> mm.System:
    """Return the System of the data with heavy hydrogens, their mass taken from the atoms they are bound to."""
    system = mm.XmlSerializer.deserialize((shared_data("adp_md") / "adp_system.xml").read_text())
    for bond in app.PDBFile(str(shared_data("adp_md") / "adp.pdb")).topology.bonds():
        light, heavy = sorted(bond, key=lambda atom: atom.element.mass)
        if light.element is app.element.hydrogen:
            taken = HYDROGEN_MASS * unit.amu - system.getParticleMass(light.index)
            system.setParticleMass(light.index, HYDROGEN_MASS * unit.amu)
            system.setParticleMass(heavy.index, system.getParticleMass(heavy.index) - taken)
    return system


def torsion_states(phi: np.ndarray) -> np.ndarray:
    """Return whether phi > 0 is where the molecule is, without spills and recrossings: (n_frames,) [rad] -> bool."""
    degrees = np.degrees(phi)
    return metrics.core_states((degrees > 20) & (degrees < 120), (degrees > -160) & (degrees < -40))


def outcome(estimate: float | None, error: float | None, sentence: str, **more: object) -> dict:
    return {"free_energy_kcal": estimate, "error_kcal": error, "sentence": sentence} | more


def plain_md(cpu_seconds: float, seed: int) -> dict:
    """Run plain MD for so long; return F with the error of a two-state process.

    Parameters
    ----------
    cpu_seconds : float
        Of this process, from the call on.
    seed : int

    Returns
    -------
    dict: free_energy_kcal and error_kcal (one standard error), or None; sentence; what was run
    """
    began = time.process_time()
    simulation = make_simulation(read_system(), seed)
    frames = []
    while time.process_time() - began < cpu_seconds:
        simulation.step(BLOCK_STEPS)
        frames.append(simulation.context.getState(positions=True).getPositions(asNumpy=True)._value.astype(np.float32))
    phi = dihedrals(np.array(frames), np.array([PHI]))[:, 0]
    spent = time.process_time() - began
    return judge_md(phi) | {"nanoseconds": len(phi) * BLOCK_STEPS * TIMESTEP / 1000, "cpu_seconds": spent}


def judge_md(phi: np.ndarray) -> dict:
    """Return F from a series of phi: (n_frames,) [rad], one frame a picosecond."""
    states = torsion_states(phi)
    steps = np.diff(states.astype(int))
    crossings = {"n_entries": int((steps > 0).sum()), "n_exits": int((steps < 0).sum())}
    if not states.any():
        return outcome(None, None, "phi > 0 was never visited", **crossings)
    is_positive = phi > 0
    estimate = free_energy(np.array([is_positive.sum(), (~is_positive).sum()]))
    if 0 in crossings.values():
        return outcome(estimate, None, "phi > 0 was not both entered and left, so there is no error bar", **crossings)
    # Rates given counts of crossings are Gamma distributed; the error is half the central 68 % of F.
    spacing = BLOCK_STEPS * TIMESTEP
    interval = metrics.two_state_interval(states, spacing, seed=1, confidence=0.683)
    low, high = (free_energy(np.array([p, 1 - p])) for p in (interval["high"], interval["low"]))
    return outcome(estimate, 0.5 * (high - low), "both halves were visited and left", **crossings)


def metadynamics(cpu_seconds: float, seed: int) -> dict:
    """Run OpenMM's well-tempered Metadynamics on phi and psi for so long; return F from its free-energy grid.

    Parameters
    ----------
    cpu_seconds : float
        Of this process, from the call on.
    seed : int

    Returns
    -------
    dict: free_energy_kcal and error_kcal, or None; sentence; what was run

    Notes
    -----
    F is read while the run goes on. The estimate is the last reading; the error is the larger of the standard deviation
    of the readings of the second half and of half the difference between the middle and the end.
    """
    began = time.process_time()
    system = read_system()
    meta = make_metadynamics(system)
    simulation = make_simulation(system, seed)
    readings, visits = [], []
    while (spent := time.process_time() - began) < cpu_seconds:
        meta.step(simulation, BLOCK_STEPS)
        visits.append(meta.getCollectiveVariables(simulation)[0])
        if spent * N_READINGS > len(readings) * cpu_seconds:
            readings.append(grid_free_energy(meta))
    readings.append(grid_free_energy(meta))
    states = torsion_states(np.array(visits))
    steps = np.diff(states.astype(int))
    run = {
        "n_entries": int((steps > 0).sum()),
        "n_exits": int((steps < 0).sum()),
        "nanoseconds": len(visits) * BLOCK_STEPS * TIMESTEP / 1000,
        "cpu_seconds": time.process_time() - began,
    }
    if not states.any():
        return outcome(None, None, "phi > 0 was never visited", **run)
    half = np.array(readings[len(readings) // 2 :])
    error = float(max(half.std(), 0.5 * abs(half[-1] - half[0])))
    return outcome(float(half[-1]), error, "both halves were visited", **run)


def make_metadynamics(system: mm.System) -> Metadynamics:
    """Add the bias to the System."""
    variables = []
    for quadruple in (PHI, PSI):
        torsion = mm.CustomTorsionForce("theta")
        torsion.addTorsion(*quadruple, [])
        variables.append(BiasVariable(torsion, -np.pi, np.pi, HILL_WIDTH, periodic=True, gridWidth=GRID))
    return Metadynamics(
        system,
        variables,
        TEMPERATURE * unit.kelvin,
        BIAS_FACTOR,
        HILL_HEIGHT * unit.kilojoules_per_mole,
        BLOCK_STEPS,
    )


def grid_free_energy(meta: Metadynamics) -> float:
    """Integrate the estimated (phi, psi) surface over the two halves of phi."""
    # (psi, phi); the last point of an axis is the first again
    surface = meta.getFreeEnergy()._value[:-1, :-1]
    density = np.exp(-(surface - surface.min()) / (KT_KCAL * 4.184)).sum(axis=0)
    n_half = (GRID - 1) // 2
    # Points 0 (phi = -180 degrees) and n_half (phi = 0) lie on the borders: half of each to either side.
    border = 0.5 * (density[0] + density[n_half])
    return free_energy(np.array([density[n_half + 1 :].sum() + border, density[1:n_half].sum() + border]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-seconds", type=float, default=60.0, help="of each method and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for method in (plain_md, metadynamics):
            print(f"{method.__name__}, seed {seed}:", json.dumps(method(arguments.cpu_seconds, seed)), flush=True)


if __name__ == "__main__":
    main()
