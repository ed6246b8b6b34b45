"""Make capped_peptide.pdb: eight residues between ACE and NME, a disulphide, three forms of histidine, a proline.

The Cα trace is that of the first chain of two_chains.pdb; side chains have ideal lengths, angles and torsions, bridges
are closed, hydrogens added, and MD leads it out of strain.

    python tests/data/make_capped_peptide.py
"""

from pathlib import Path

import numpy as np
import openmm
import torch
from openmm import app, unit

from openmm_latent.data.caps import CapBuilder
from openmm_latent.data.forcefields import force_field
from openmm_latent.data.restrained import RestrainedMinimiser
from openmm_latent.data.traces import heavy_topology
from openmm_latent.nn.disulphides import Disulphides
from openmm_latent.nn.internal_coordinates import TraceCoordinates
from openmm_latent.nn.residue_geometry import RESIDUE_NAMES, describe_residues

SEQUENCE = "CYS HIS ALA PRO HIS ILE HIS CYS"
HISTIDINES = {1: "HID", 4: "HIP", 6: "HIE"}
ROOT = Path(__file__).parents[2]


def cas():
    pdb = app.PDBFile(str(ROOT / "examples" / "data" / "two_chains.pdb"))
    places = np.array(pdb.positions.value_in_unit(unit.nanometer))
    return places[[atom.index for atom in next(pdb.topology.chains()).atoms() if atom.name == "CA"]]


def heavy():
    """Return topology and positions (n_heavy, 3) [nm]."""
    names = SEQUENCE.split()
    types = np.array([RESIDUE_NAMES.index(name) for name in names])
    residues = describe_residues(types, has_oxt=np.zeros(len(types), dtype=bool))
    bridges, caps = np.array([[0, 7]]), [("ACE", ""), *[("", "")] * 6, ("", "NME")]
    coordinates = TraceCoordinates(residues)
    built = coordinates.to_cartesian(torch.tensor(cas())[None], coordinates.ideal[None].double())
    topology = heavy_topology(residues, [("A", str(i + 1)) for i in range(8)], bridges, caps)
    return topology, CapBuilder(topology)(Disulphides(residues, bridges)(built)[0].numpy()[residues.has_atom])


def protonated(topology, positions):
    """Return the peptide with the hydrogens of its histidines' forms."""
    modeller = app.Modeller(topology, positions * unit.nanometer)
    modeller.delete([atom for atom in topology.atoms() if atom.element == app.element.hydrogen])
    inner = {residue.index: HISTIDINES.get(residue.index - 1) for residue in modeller.topology.residues()}
    modeller.addHydrogens(force_field("obc2"), variants=list(inner.values()))
    return modeller


def settled(modeller):
    """Return positions [nm] after minimisation and 30 ps of MD."""
    system = force_field("obc2").createSystem(modeller.topology, constraints=app.HBonds)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.002)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform("Reference"))
    context.setPositions(modeller.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0)
    integrator.step(5000)
    openmm.LocalEnergyMinimizer.minimize(context, 1.0)
    state = context.getState(positions=True, energy=True)
    print(state.getPotentialEnergy())
    return state.getPositions()


def main():
    topology, positions = heavy()
    minimiser = RestrainedMinimiser(topology, positions, "obc2", "Reference", n_iterations=1000)
    relaxed, energy = minimiser(positions)
    print(f"{energy:.1f} kJ/mol")
    modeller = protonated(minimiser.topology, relaxed)
    with open(Path(__file__).parent / "capped_peptide.pdb", "w") as handle:
        app.PDBFile.writeFile(modeller.topology, settled(modeller), handle, keepIds=True)


if __name__ == "__main__":
    main()
