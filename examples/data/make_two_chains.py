"""Make two_chains.pdb: two made-up peptides, one with a proline and a disulphide bridge, side by side and minimised.

A backbone is built from torsions, pdbfixer adds side chains and hydrogens, and MD pulls the two sulphurs together.

    python examples/data/make_two_chains.py
"""

import tempfile
from pathlib import Path

import numpy as np
import openmm as mm
from openmm import app, unit

from openmm_latent.data.forcefields import build_system
from openmm_latent.data.prepare import prepare

CHAINS = ("CYS GLY ALA PRO THR ILE LYS CYS", "ALA TRP ALA VAL GLU")
OUT = Path(__file__).parent / "two_chains.pdb"


def place(a, b, c, length, angle, torsion):
    """Return the atom at a distance [A] from c, an angle and a torsion [degrees] from b and a."""
    angle, torsion = np.radians(angle), np.radians(torsion)
    axis = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal)
    across = np.cross(normal, axis)
    turn = [-np.cos(angle), np.sin(angle) * np.cos(torsion), np.sin(angle) * np.sin(torsion)]
    return c + length * (turn[0] * axis + turn[1] * across + turn[2] * normal)


def backbone(names, phi, psi):
    """Return (residue name, atom name, position [A]) of N, CA, C and O of a chain."""
    atoms = [np.array([0.0, 0.0, 0.0]), np.array([1.458, 0.0, 0.0])]
    atoms.append(place(np.array([0.0, 1.0, 0.3]), *atoms, 1.525, 111.0, phi))
    found = []
    for number, name in enumerate(names):
        n, ca, c = atoms[3 * number : 3 * number + 3]
        found += [(name, atom, at) for atom, at in zip(("N", "CA", "C"), (n, ca, c), strict=True)]
        found.append((name, "O", place(n, ca, c, 1.231, 120.5, psi + 180)))
        atoms.append(place(n, ca, c, 1.329, 116.6, psi))
        atoms.append(place(ca, c, atoms[-1], 1.458, 121.7, 180.0))
        atoms.append(place(c, atoms[-2], atoms[-1], 1.525, 111.0, -65.0 if name == "GLY" else phi))
    return found


def write_backbones(path):
    lines, serial = [], 0
    for letter, names, (phi, psi), shift in zip(
        "AB", CHAINS, ((-75.0, -20.0), (-63.0, -42.0)), (0.0, 14.0), strict=True
    ):
        chain = backbone(names.split(), phi, psi)
        for i, (name, atom, at) in enumerate(chain):
            serial += 1
            x, y, z = at + np.array([0.0, shift, 0.0])
            lines.append(
                f"ATOM  {serial:5d}  {atom:<3s} {name} {letter}{i // 4 + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
                f"  1.00  0.00           {atom[0]}"
            )
        lines.append("TER")
    path.write_text("\n".join([*lines, "END", ""]))


def relaxed(topology, positions, sulphurs=(), steps=0):
    """Minimise, and run MD with the sulphurs pulled to 2.05 A; return positions."""
    system = build_system(topology)
    if len(sulphurs):
        pull = mm.HarmonicBondForce()
        pull.addBond(*sulphurs, 0.205, 20000.0)
        system.addForce(pull)
    integrator = mm.LangevinMiddleIntegrator(300, 5, 0.002)
    integrator.setRandomNumberSeed(1)
    context = mm.Context(system, integrator, mm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    mm.LocalEnergyMinimizer.minimize(context)
    context.setVelocitiesToTemperature(300, 1)
    integrator.step(steps)
    mm.LocalEnergyMinimizer.minimize(context, 1.0)
    return context.getState(positions=True).getPositions()


def main():
    with tempfile.TemporaryDirectory() as folder:
        write_backbones(Path(folder) / "backbones.pdb")
        made = prepare(Path(folder) / "backbones.pdb")
    sulphurs = [atom.index for atom in made.topology.atoms() if atom.name == "SG"]
    positions = relaxed(made.topology, made.positions * unit.nanometer, sulphurs, steps=3000)
    modeller = app.Modeller(made.topology, positions)
    modeller.delete([atom for atom in modeller.topology.atoms() if atom.residue.name == "CYS" and atom.name == "HG"])
    modeller.topology.createDisulfideBonds(modeller.positions)
    positions = relaxed(modeller.topology, modeller.positions)
    with open(OUT, "w") as file:
        app.PDBFile.writeFile(modeller.topology, positions, file, keepIds=True)
    print(modeller.topology)


if __name__ == "__main__":
    main()
