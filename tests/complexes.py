"""A peptide with a ligand: alanine dipeptide beside acetamide, whose force field is written here."""

import io

import numpy as np
import openmm as mm
from openmm import app

import toys

#: Acetamide in the atom types of amber14: an acetyl and an amide cap in one residue.
LIGAND_XML = """
<ForceField><Residues><Residue name="LIG">
 <Atom name="H1" type="protein-HC" charge="0.1123"/><Atom name="C1" type="protein-CT" charge="-0.3662"/>
 <Atom name="H2" type="protein-HC" charge="0.1123"/><Atom name="H3" type="protein-HC" charge="0.1123"/>
 <Atom name="C2" type="protein-C" charge="0.5972"/><Atom name="O1" type="protein-O" charge="-0.5679"/>
 <Atom name="N1" type="protein-N" charge="-0.463"/>
 <Atom name="H4" type="protein-H" charge="0.2315"/><Atom name="H5" type="protein-H" charge="0.2315"/>
 <Bond atomName1="H1" atomName2="C1"/><Bond atomName1="H2" atomName2="C1"/><Bond atomName1="H3" atomName2="C1"/>
 <Bond atomName1="C1" atomName2="C2"/><Bond atomName1="C2" atomName2="O1"/><Bond atomName1="C2" atomName2="N1"/>
 <Bond atomName1="N1" atomName2="H4"/><Bond atomName1="N1" atomName2="H5"/>
</Residue></Residues></ForceField>
"""
_NAMES = "H1 C1 H2 H3 C2 O1 N1 H4 H5".split()
_BONDS = ((0, 1), (2, 1), (3, 1), (1, 4), (4, 5), (4, 6), (6, 7), (6, 8))
#: Acetamide as an SDF file would have it; hydrogens left out, as often.
SDF = """acetamide
  made by hand

  4  3  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 N   0  0
    0.0000    0.0000    1.3000 C   0  0
    1.0000    0.0000    2.0000 O   0  0
   -1.2000    0.0000    2.0000 C   0  0
  2  1  1  0
  2  3  2  0
  4  2  1  0
M  END
$$$$
"""


def ligand_positions(peptide):
    """Return acetamide built on the acetyl of a peptide's positions, (9, 3) [nm]."""
    acetyl, nitrogen, hydrogen, carbon = peptide[:6], peptide[6], peptide[7], peptide[8]
    second = nitrogen + 0.101 * (carbon - nitrogen) / np.linalg.norm(carbon - nitrogen)
    return np.concatenate([acetyl, [nitrogen, hydrogen, second]])


def load_complex():
    """Return topology and positions (31, 3) [nm] of the peptide and the ligand, in contact."""
    topology, positions = toys.load_adp()
    residue = topology.addResidue("LIG", topology.addChain())
    atoms = [topology.addAtom(name, app.Element.getBySymbol(name[0]), residue) for name in _NAMES]
    for a, b in _BONDS:
        topology.addBond(atoms[a], atoms[b])
    return topology, np.concatenate([positions, ligand_positions(positions) + np.array([0.0, 0.0, 0.42])])


def complex_system(topology):
    """Return the complex in vacuum, amber14, with a weak pull that keeps the two together."""
    system = app.ForceField("amber14-all.xml", io.StringIO(LIGAND_XML)).createSystem(topology, constraints=app.HBonds)
    pull = mm.CustomCentroidBondForce(2, "20*max(0, distance(g1,g2)-0.6)^2")
    pull.addGroup(range(22))
    pull.addGroup(range(22, 31))
    pull.addBond([0, 1], [])
    system.addForce(pull)
    return system


def complex_frames(n_frames, seed=1, interval=50):
    """Return (n_frames, 31, 3) [nm] of MD at 300 K, `interval` steps of 2 fs apart."""
    topology, positions = load_complex()
    context = mm.Context(complex_system(topology), toys.langevin(seed), mm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    mm.LocalEnergyMinimizer.minimize(context, maxIterations=200)
    context.setVelocitiesToTemperature(300, seed)
    frames = []
    for _ in range(n_frames):
        context.getIntegrator().step(interval)
        frames.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    return np.array(frames)
