"""Make the shipped frames of alanine dipeptide with acetamide: python examples/data/make_complex.py.

Writes the folder complex: complex.xml (the System: amber14 in vacuum, acetamide in its atom types, a weak pull that
keeps the two together), 300 frames at 300 K, 0.1 ps apart, their provenance, and the ligand as an SDF file.
"""

import io
import json
from pathlib import Path

import mdtraj
import numpy as np
import openmm as mm
from openmm import app, unit

HERE = Path(__file__).parent
OUT = HERE / "complex"
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
NAMES = "H1 C1 H2 H3 C2 O1 N1 H4 H5".split()
BONDS = ((0, 1), (2, 1), (3, 1), (1, 4), (4, 5), (4, 6), (6, 7), (6, 8))
SDF_ATOMS = (("N", 0.0, 0.0), ("C", 0.0, 1.3), ("O", 1.0, 2.0), ("C", -1.2, 2.0))  # element, x, z [Å]
SDF_BONDS = ((2, 1, 1), (2, 3, 2), (4, 2, 1))


def molecule() -> tuple[app.Topology, np.ndarray]:
    """Return the two beside one another, acetamide built on the peptide's acetyl: (31, 3) [nm]."""
    pdb = app.PDBFile(str(HERE / "adp.pdb"))
    topology, peptide = pdb.topology, np.array(pdb.positions.value_in_unit(unit.nanometer))
    residue = topology.addResidue("LIG", topology.addChain())
    atoms = [topology.addAtom(name, app.Element.getBySymbol(name[0]), residue) for name in NAMES]
    for a, b in BONDS:
        topology.addBond(atoms[a], atoms[b])
    way = peptide[8] - peptide[6]
    ligand = np.concatenate([peptide[:8], [peptide[6] + 0.101 * way / np.linalg.norm(way)]])
    return topology, np.concatenate([peptide, ligand + np.array([0.0, 0.0, 0.42])])


def vacuum_system(topology: app.Topology) -> mm.System:
    """Return the two in vacuum, amber14, with a weak pull that keeps them together."""
    system = app.ForceField("amber14-all.xml", io.StringIO(LIGAND_XML)).createSystem(topology, constraints=app.HBonds)
    pull = mm.CustomCentroidBondForce(2, "20*max(0, distance(g1,g2)-0.6)^2")
    pull.addGroup(range(22))
    pull.addGroup(range(22, 31))
    pull.addBond([0, 1], [])
    system.addForce(pull)
    return system


def md_frames(n_frames: int, seed: int = 1, interval: int = 50) -> np.ndarray:
    """Return frames of MD at 300 K, so many steps of 2 fs apart: (n_frames, 31, 3) [nm]."""
    topology, positions = molecule()
    integrator = mm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond)
    integrator.setRandomNumberSeed(seed)
    context = mm.Context(vacuum_system(topology), integrator, mm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    mm.LocalEnergyMinimizer.minimize(context, maxIterations=200)
    context.setVelocitiesToTemperature(300, seed)
    frames = []
    for _ in range(n_frames):
        integrator.step(interval)
        frames.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    return np.array(frames)


def main() -> None:
    OUT.mkdir(exist_ok=True)
    topology, _ = molecule()
    (OUT / "complex.xml").write_text(mm.XmlSerializer.serialize(vacuum_system(topology)))
    frames = md_frames(300)
    with open(OUT / "complex.pdb", "w") as file:
        app.PDBFile.writeFile(topology, frames[0] * unit.nanometer, file, keepIds=True)
    top = mdtraj.load(str(OUT / "complex.pdb")).topology
    mdtraj.Trajectory(frames, top, time=0.1 * np.arange(300)).save_xtc(str(OUT / "complex.xtc"))
    facts = {"temperature": 300.0, "force_field": "amber14-all (ff14SB), vacuum", "frame_spacing": 0.1}
    (OUT / "complex.json").write_text(json.dumps(facts, indent=2) + "\n")
    atoms = [f"{x:10.4f}{0.0:10.4f}{z:10.4f} {element:<3} 0  0" for element, x, z in SDF_ATOMS]
    bonds = [f"{a:3d}{b:3d}{order:3d}  0" for a, b, order in SDF_BONDS]
    head = ["acetamide", "  made by make_complex.py", "", "  4  3  0  0  0  0  0  0  0  0999 V2000"]
    (OUT / "ligand.sdf").write_text("\n".join([*head, *atoms, *bonds, "M  END", "$$$$"]) + "\n")


if __name__ == "__main__":
    main()
