"""Umbrella windows along a learned slow coordinate: the restraint as a collective variable, without any jump."""

from pathlib import Path

import numpy as np
from openmm import LangevinMiddleIntegrator
from openmm.app import PDBFile, Simulation
from openmm.unit import femtosecond, kelvin, picosecond

from openmm_latent import LatentModel
from openmm_latent.data.forcefields import build_system

DATA = Path(__file__).parent / "data"
STIFFNESS = 60.0  # kJ/mol: slow coordinates have unit variance and no dimension

pdb = PDBFile(str(DATA / "adp.pdb"))
system = build_system(pdb.topology)
model = LatentModel(DATA / "adp.latent.pt")
restraint = model.addRestraint(system, pdb.topology)  # before the Context; it costs nothing while k is 0
restraint.setWeights([1.0] + [0.0] * (restraint.getNumSlow() - 1))  # the slowest coordinate alone

integrator = LangevinMiddleIntegrator(300 * kelvin, 1 / picosecond, 2 * femtosecond)
integrator.setRandomNumberSeed(1)
simulation = Simulation(pdb.topology, system, integrator)
context = simulation.context
context.setPositions(pdb.positions)
simulation.minimizeEnergy()
context.setVelocitiesToTemperature(300 * kelvin, 2)
context.setParameter(restraint.getStiffnessParameter(), STIFFNESS)

here = restraint.getSlow(context)[0]
means, slopes = [], []
print("target    mean   width")
for target in here + np.linspace(0.0, 1.0, 6):
    context.setParameter(restraint.getTargetParameter(0), target)
    simulation.step(500)  # move there
    samples = []
    for _ in range(100):
        simulation.step(10)
        samples.append(restraint.getSlow(context)[0])
    means.append(np.mean(samples))
    slopes.append(STIFFNESS * (target - means[-1]))  # the restraint's mean force balances the free energy's slope
    print(f"{target:6.3f}  {means[-1]:6.3f}  {np.std(samples):6.3f}")

rise = np.trapezoid(slopes, means)
print(f"free energy from {means[0]:.2f} to {means[-1]:.2f}: {rise:.1f} kJ/mol (a sketch: each window has 2 ps)")
