"""Jumps between MD whose physics is a TorchForce: openmm-torch and openmm-latent in one process, on one libtorch.

openmm-torch wants an environment of its own; `make test-openmm-torch` makes one and runs this in it. Import torch
before openmm, which loads openmm-torch's plugin at once: that looks for libraries which torch brings along.
"""

from pathlib import Path

import torch
from openmm import Context, LangevinMiddleIntegrator, Platform, VerletIntegrator
from openmm.app import PDBFile, Simulation
from openmm.unit import femtosecond, kelvin, picosecond
from openmmtorch import TorchForce

from openmm_latent import LatentModel
from openmm_latent.data.forcefields import build_system
from torch_amber import Amber

DATA = Path(__file__).parent / "data"
REFERENCE = Platform.getPlatform("Reference")

pdb = PDBFile(str(DATA / "adp.pdb"))
system = build_system(pdb.topology, "vacuum")
amber = Context(system, VerletIntegrator(0.001), REFERENCE)  # OpenMM's own forces, to compare with
physics = torch.jit.script(Amber(system))  # any scripted module from positions [nm] to an energy [kJ/mol]
while system.getNumForces():
    system.removeForce(0)
system.addForce(TorchForce(physics))

model = LatentModel(DATA / "adp.latent.pt")
relaxation = LangevinMiddleIntegrator(300 * kelvin, 5 / picosecond, 2 * femtosecond)
relaxation.setRandomNumberSeed(1)
integrator = model.createIntegrator(pdb.topology, relaxation, jumpInterval=100, mode="guarded", seed=1)

simulation = Simulation(pdb.topology, system, integrator, REFERENCE)
simulation.context.setPositions(pdb.positions)
simulation.minimizeEnergy()
simulation.context.setVelocitiesToTemperature(300 * kelvin, 1)
simulation.step(1001)

state = simulation.context.getState(positions=True, energy=True)
amber.setPositions(state.getPositions())
print(f"{integrator.getNumAccepted()} of {integrator.getNumJumps()} jumps accepted; {integrator.getRefusals()}")
print(f"energy by the TorchForce: {state.getPotentialEnergy()}")
print(f"by OpenMM's own forces:   {amber.getState(energy=True).getPotentialEnergy()}")
