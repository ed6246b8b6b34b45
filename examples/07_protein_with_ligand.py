"""ATMOS on a peptide with a ligand: train, bind, jump in a Simulation with filled jumps, and draw a trajectory.

It trains for some seconds, to show how: such a model is of no use. The System is an XML file, as any tool makes it.
"""

from pathlib import Path

import mdtraj
import numpy as np
from openmm import LangevinMiddleIntegrator, Platform, XmlSerializer
from openmm.app import PDBFile, Simulation
from openmm.unit import femtosecond, kelvin, nanometer, picosecond

from openmm_latent import FilledTrajectoryReporter, LatentModel, LatentReporter
from openmm_latent.bundle import load_bundle
from openmm_latent.conformations import fine_time, sample_trajectory
from openmm_latent.data.complex_files import describe_tokens
from openmm_latent.data.complex_frames import read_complex_frames
from openmm_latent.data.recognise import open_dataset
from openmm_latent.training.atmos import train_atmos
from openmm_latent.training.atmos_binding import bind_atmos

FOLDER = Path(__file__).parent / "data" / "complex"  # complex.pdb with CONECT records for the ligand, complex.xtc
LIGAND = FOLDER / "ligand.sdf"  # its bond orders

pdb = PDBFile(str(FOLDER / "complex.pdb"))
system = XmlSerializer.deserialize((FOLDER / "complex.xml").read_text())
positions = np.array(pdb.positions.value_in_unit(nanometer))

(frames,) = read_complex_frames(open_dataset(FOLDER), ligands=[LIGAND], systems={"complex": system})
print(f"{len(frames)} frames, {frames.frame_spacing:g} ps apart; {describe_tokens(frames.tokens)}")
train_atmos([frames], lag_time=0.5, config="tiny", out="complex.weights.pt", n_steps=15)
bind_atmos(
    "complex.weights.pt", pdb.topology, positions, "complex.latent.pt", system=system, ligands=[LIGAND], n_steps=8
)

model = LatentModel("complex.latent.pt")
relaxation = LangevinMiddleIntegrator(300 * kelvin, 5 / picosecond, 2 * femtosecond)
integrator = model.createIntegrator(pdb.topology, relaxation, jumpInterval=100, mode="exploratory", seed=1)
simulation = Simulation(pdb.topology, system, integrator, Platform.getPlatform("Reference"))
simulation.context.setPositions(pdb.positions)
simulation.context.setVelocitiesToTemperature(300 * kelvin, 1)
simulation.reporters.append(LatentReporter("complex.jumps.csv", 100, model))
simulation.reporters.append(FilledTrajectoryReporter("complex.filled.xtc", model))  # drawn within jumps, not physical
simulation.step(310)
filled = mdtraj.load("complex.filled.xtc", top="complex.filled.pdb")
print(f"{integrator.getNumAccepted()} of {integrator.getNumJumps()} jumps accepted, {len(filled)} frames of them")

bundle = load_bundle("complex.latent.pt")  # the same on the command line: openmm-latent sample --trajectory
atoms = model.modelAtoms(pdb.topology)
drawn = np.array(list(sample_trajectory(bundle, 11, positions[atoms], seed=1, is_filled=True)))
print(f"{len(drawn)} frames of {len(atoms)} atoms without MD, {fine_time(bundle.manifest):g} ps apart")
