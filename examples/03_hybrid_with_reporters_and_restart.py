"""A hybrid run with OpenMM's own reporters and a checkpoint, then a restart that continues it bit for bit."""

from pathlib import Path

import numpy as np
from openmm import LangevinMiddleIntegrator, Platform
from openmm.app import CheckpointReporter, DCDReporter, PDBFile, Simulation, StateDataReporter
from openmm.unit import femtosecond, kelvin, nanometer, picosecond

from openmm_latent import LatentModel, LatentReporter
from openmm_latent.data.forcefields import build_system

DATA = Path(__file__).parent / "data"
JUMP_INTERVAL = 500  # a report at this interval sees the end of each relaxation

pdb = PDBFile(str(DATA / "adp.pdb"))
model = LatentModel(DATA / "adp.latent.pt")


def make_simulation() -> Simulation:
    relaxation = LangevinMiddleIntegrator(300 * kelvin, 1 / picosecond, 2 * femtosecond)
    relaxation.setRandomNumberSeed(1)
    integrator = model.createIntegrator(pdb.topology, relaxation, jumpInterval=JUMP_INTERVAL, mode="guarded", seed=1)
    platform = Platform.getPlatform("Reference")  # the fastest for 22 atoms, and the same bits every time
    return Simulation(pdb.topology, build_system(pdb.topology), integrator, platform)


def positions(simulation: Simulation) -> np.ndarray:
    return simulation.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(nanometer)


first = make_simulation()
first.context.setPositions(pdb.positions)
first.minimizeEnergy()
first.context.setVelocitiesToTemperature(300 * kelvin, 1)
first.reporters += [
    DCDReporter("hybrid.dcd", JUMP_INTERVAL),
    StateDataReporter("hybrid.csv", JUMP_INTERVAL, step=True, time=True, potentialEnergy=True, temperature=True),
    LatentReporter("hybrid.latent.csv", JUMP_INTERVAL, model),
    CheckpointReporter("hybrid.chk", 10 * JUMP_INTERVAL),
]
first.step(10 * JUMP_INTERVAL)
first.reporters.clear()
first.step(2345)  # goes on without reports, and ends between two jumps

# Another process, another day: the checkpoint holds the phase, the jump number and the model's memory.
second = make_simulation()
second.loadCheckpoint("hybrid.chk")
second.reporters.append(LatentReporter("hybrid.latent.csv", JUMP_INTERVAL, model, append=True))
second.step(2345)

print(f"{len(Path('hybrid.latent.csv').read_text().splitlines()) - 1} jumps in hybrid.latent.csv")
print(f"restart equals the run that went on: {np.array_equal(positions(first), positions(second))}")
