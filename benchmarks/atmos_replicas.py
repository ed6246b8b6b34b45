"""A second run of each small protein that ATMOS never saw, from the very frame that the first one began with.

MD of small_proteins.py has one run a protein; what a perfect model would score comes from another one with the same
start. Same force field, temperature and time step, other velocities and noise.

    python benchmarks/atmos_replicas.py
"""

import time

import mdtraj
import numpy as np
import openmm
from atmos_training import OUT, UNSEEN_PROTEINS
from openmm import app, unit
from small_proteins import FRAME_SPACING
from small_proteins import OUT as PROTEINS_OUT

from openmm_latent.data.forcefields import build_system

N_FRAMES = 55  # after the start
TIMESTEP, SEED = 0.004, 77  # [ps]


def second_run(name: str) -> np.ndarray:
    """Return its frames, the start first: (n_frames + 1, n_atoms, 3) [nm], all atoms, run or as they were kept."""
    path = OUT / f"{name} second run.npy"
    if not path.exists():
        began = time.process_time()
        np.save(path, run_again(name, N_FRAMES))
        print(f"second run of {name}: {time.process_time() - began:.0f} CPU-s", flush=True)
    return np.load(path)


def run_again(name: str, n_frames: int) -> np.ndarray:
    """Run MD from the first frame of a protein's; return the start and what follows it, all atoms, as second_run."""
    folder = PROTEINS_OUT / name
    topology = app.PDBFile(str(folder / f"{name}.pdb")).topology
    first = mdtraj.load_frame(str(sorted(folder.glob("*.xtc"))[0]), 0, top=str(folder / f"{name}.pdb")).xyz[0]
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, TIMESTEP)
    integrator.setRandomNumberSeed(SEED)
    system = build_system(topology, "obc2", hydrogen_mass=3.0)
    platform = openmm.Platform.getPlatformByName("CPU")
    simulation = app.Simulation(topology, system, integrator, platform, {"Threads": "1"})
    simulation.context.setPositions(first)
    simulation.context.applyConstraints(1e-6)  # the file rounds to a picometre
    simulation.context.setVelocitiesToTemperature(300.0, SEED)
    frames = [first]
    for _ in range(n_frames):
        simulation.step(round(FRAME_SPACING / TIMESTEP))
        state = simulation.context.getState(positions=True)
        frames.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer).astype(np.float32))
    return np.stack(frames)


def main() -> None:
    for name in UNSEEN_PROTEINS:
        second_run(name)


if __name__ == "__main__":
    main()
