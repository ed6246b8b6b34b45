"""Jump between the conformations of alanine dipeptide inside an ordinary OpenMM Simulation."""

from pathlib import Path

from openmm import LangevinMiddleIntegrator
from openmm.app import PDBFile, Simulation
from openmm.unit import femtosecond, kelvin, picosecond

from openmm_latent import LatentModel
from openmm_latent.data.forcefields import build_system

DATA = Path(__file__).parent / "data"

pdb = PDBFile(str(DATA / "adp.pdb"))
system = build_system(pdb.topology)  # amber14 in implicit solvent; any System without water will do

model = LatentModel(DATA / "adp.latent.pt")
relaxation = LangevinMiddleIntegrator(300 * kelvin, 1 / picosecond, 2 * femtosecond)
integrator = model.createIntegrator(pdb.topology, relaxation, jumpInterval=500, mode="guarded", seed=1)

simulation = Simulation(pdb.topology, system, integrator)
simulation.context.setPositions(pdb.positions)
simulation.minimizeEnergy()
simulation.step(20_000)

print(
    f"{integrator.getNumAccepted()} of {integrator.getNumJumps()} jumps accepted; refused: {integrator.getRefusals()}"
)
print(f"each stands for {model.lagTime}, and came after 500 steps of MD")
