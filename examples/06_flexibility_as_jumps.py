"""A protein's own fluctuations as jumps: Cα covariance of a short MD run -> Gaussian bundle -> guarded hybrid run."""

from pathlib import Path

import numpy as np
from openmm import LangevinMiddleIntegrator, Platform
from openmm.app import ForceField, HBonds, PDBFile, Simulation
from openmm.unit import femtosecond, kelvin, nanometer, picosecond

from openmm_latent import LatentModel
from openmm_latent.data.backbone import read_backbone
from openmm_latent.geometry import superpose
from openmm_latent.training.dynaprot_binding import export_gaussian

DATA = Path(__file__).parent / "data"
JUMP_INTERVAL = 50  # relaxation steps

pdb = PDBFile(str(DATA / "two_chains.pdb"))  # two made-up peptides, 13 residues
cas = read_backbone(pdb.topology).ca
system = ForceField("amber14-all.xml").createSystem(pdb.topology, constraints=HBonds)
platform = Platform.getPlatform("Reference")


def start(integrator) -> Simulation:
    simulation = Simulation(pdb.topology, system, integrator, platform)
    simulation.context.setPositions(pdb.positions)
    simulation.context.setVelocitiesToTemperature(300 * kelvin, 1)
    return simulation


def positions(simulation: Simulation) -> np.ndarray:
    return simulation.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(nanometer)


def langevin(seed: int) -> LangevinMiddleIntegrator:
    integrator = LangevinMiddleIntegrator(300 * kelvin, 1 / picosecond, 2 * femtosecond)
    integrator.setRandomNumberSeed(seed)
    return integrator


simulation, frames = start(langevin(1)), []
for _ in range(100):
    simulation.step(20)
    frames.append(positions(simulation)[cas])
frames = superpose(np.array(frames), frames[-1])
frames = superpose(frames, frames.mean(axis=0))
mean = frames.mean(axis=0)
covariance = np.cov((frames - mean).reshape(len(frames), -1), rowvar=False)  # nm^2
reference = np.array(pdb.positions.value_in_unit(nanometer))
bundle = export_gaussian(
    pdb.topology, reference, covariance, "two_chains.latent.pt", mean=mean, lag_time=10.0, relaxation_time=10.0
)  # `openmm-latent bind` makes one from a trained network and a structure, without any MD
model = LatentModel(bundle)
integrator = model.createIntegrator(pdb.topology, langevin(2), JUMP_INTERVAL, mode="guarded", seed=1)
simulation = start(integrator)
simulation.step(20 * JUMP_INTERVAL + 1)
print(f"{integrator.getNumAccepted()} of {integrator.getNumJumps()} jumps accepted (guarded: sound, not Boltzmann)")
