"""Make l_peptides.pdb: two made-up chains of natural hand, a helix and an extended one, with hydrogens, minimised.

Heavy atoms are built on Cα traces with ideal lengths, angles and torsions, minimised, and led out of strain by MD.

    python tests/data/make_l_peptides.py
"""

from pathlib import Path

import numpy as np
import openmm
import torch
from openmm import app, unit

from openmm_latent.data.restrained import RestrainedMinimiser
from openmm_latent.data.traces import heavy_topology
from openmm_latent.nn.internal_coordinates import TraceCoordinates
from openmm_latent.nn.residue_geometry import RESIDUE_NAMES, describe_residues

CHAINS = ("ALA GLU THR ILE LYS GLY CYS ASP", "TRP PRO VAL ARG TYR")
OUT = Path(__file__).parent / "l_peptides.pdb"


def main():
    turn = np.radians(100.0) * np.arange(8)
    helix = np.stack([0.23 * np.cos(turn), 0.23 * np.sin(turn), 0.15 * np.arange(8)], axis=1)
    strand = np.stack([1.3 + 0.09 * (-1.0) ** np.arange(5), np.zeros(5), 0.335 * np.arange(5)], axis=1)
    names = [name for chain in CHAINS for name in chain.split()]
    lengths = [len(chain.split()) for chain in CHAINS]
    residues = describe_residues(np.array([RESIDUE_NAMES.index(name) for name in names]), np.repeat([0, 1], lengths))
    coordinates = TraceCoordinates(residues)
    trace = torch.tensor(np.concatenate([helix, strand]))[None]
    built = coordinates.to_cartesian(trace, coordinates.bounded(torch.zeros(1, len(names), 14, 3)))[0].numpy()
    labels = [(chain, str(i + 1)) for chain, length in zip("AB", lengths, strict=True) for i in range(length)]
    topology = heavy_topology(residues, labels)
    minimiser = RestrainedMinimiser(topology, built[residues.has_atom], "vacuum", "Reference", n_iterations=2000)
    positions, energy = minimiser(built[residues.has_atom])
    integrator = openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.002)
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(minimiser.context.getSystem(), integrator, platform)
    context.setPositions(positions)
    context.setParameter("stiffness", 0.0)  # traces made by hand strain the peptide bonds
    openmm.LocalEnergyMinimizer.minimize(context, 10.0)
    integrator.step(15_000)
    openmm.LocalEnergyMinimizer.minimize(context, 1.0)
    state = context.getState(positions=True, energy=True)
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    print(f"{energy:.1f} kJ/mol, then {state.getPotentialEnergy()}")
    with open(OUT, "w") as handle:
        app.PDBFile.writeFile(minimiser.topology, positions * unit.nanometer, handle, keepIds=True)


if __name__ == "__main__":
    main()
