"""Print the table of `openmm_latent/nn/residue_geometry.py`: what hangs on what in the 20 residues, and how.

Connectivity is that of ff14SB's templates in OpenMM; lengths, angles and fixed torsions are means over short MD at
300 K (amber14, OBC2): of ACE-X-NME from three values of chi1, and of ACE-ALA-ALA for a chain's end. Torsions that turn
freely get a common rotamer by rule, since their mean means nothing. Proline's ring is averaged over the pucker with
chi1 > 0, and its chi2 closes it.

Run: python benchmarks/ideal_geometry.py (minutes on one core) > table.txt
"""

import math
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit
from scipy.optimize import brentq
from scipy.spatial.transform import Rotation

from openmm_latent.data.backbone import RESIDUE_NAMES
from openmm_latent.data.forcefields import build_system
from openmm_latent.data.prepare import prepare
from openmm_latent.data.residues import standard_residues
from openmm_latent.geometry import dihedrals, torsion_quadruples
from openmm_latent.topology import describe_atoms

N_FRAMES, N_STEPS_BETWEEN = 400, 50
#: A mean torsion with a smaller sine is that of a flat group, and short MD has not averaged it out.
_FLAT = 0.15
_BACKBONE = ("N", "CA", "C", "O")
_REMOTENESS = "BGDEZH"
#: chi whose last atom starts a flat group: a right angle is as good as any, and common.
_FLAT_ENDS = {("ASN", 2), ("ASP", 2), ("GLN", 3), ("GLU", 3), ("HIS", 2), ("PHE", 2), ("TRP", 2), ("TYR", 2)}
#: ACE-ALA-NME: residue, name, positions [nm]; the rest of each side chain is added by pdbfixer.
_START = [
    ("ACE", "CH3", (0.2000, 0.2090, 0.0000)),
    ("ACE", "C", (0.3427, 0.2641, 0.0000)),
    ("ACE", "O", (0.4391, 0.1877, 0.0000)),
    ("ALA", "N", (0.3555, 0.3970, 0.0000)),
    ("ALA", "CA", (0.4853, 0.4614, 0.0000)),
    ("ALA", "CB", (0.5661, 0.4221, -0.1232)),
    ("ALA", "C", (0.4713, 0.6129, 0.0000)),
    ("ALA", "O", (0.3601, 0.6653, 0.0000)),
    ("NME", "N", (0.5846, 0.6835, 0.0000)),
    ("NME", "C", (0.5846, 0.8284, 0.0000)),
]


def start(name, is_end):
    """Return a Prepared ACE-X-NME, or ACE-ALA-ALA whose last residue is named `name`."""
    topology = app.Topology()
    chain, residues, positions = topology.addChain(), {}, []
    for residue, atom, xyz in _START:
        if (is_end and atom == "C" and residue == "NME") or (name == "GLY" and atom == "CB"):
            continue
        label = {"ALA": "ALA" if is_end else name, "NME": "ALA" if is_end else "NME"}.get(residue, residue)
        if residue not in residues:
            residues[residue] = topology.addResidue(label, chain)
        topology.addAtom(atom, app.Element.getBySymbol(atom[0]), residues[residue])
        positions.append(openmm.Vec3(*xyz))
    if is_end:
        for atom, xyz in (("CA", (0.5846, 0.8284, 0.0)), ("C", (0.7260, 0.8860, 0.0)), ("CB", (0.51, 0.88, -0.1232))):
            topology.addAtom(atom, app.element.carbon, residues["NME"])
            positions.append(openmm.Vec3(*xyz))
        for atom, xyz in (("O", (0.82, 0.81, 0.0)), ("OXT", (0.74, 1.01, 0.0))):
            topology.addAtom(atom, app.element.oxygen, residues["NME"])
            positions.append(openmm.Vec3(*xyz))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "start.pdb"
        with open(file, "w") as handle:
            app.PDBFile.writeFile(topology, positions * unit.nanometer, handle)
        return prepare(file)


def turned(prepared, angle):
    """Return the positions with the middle residue's side chain turned about CA-CB [rad]; PRO stays as it is."""
    residue = list(prepared.topology.residues())[1]
    atoms = {atom.name: atom.index for atom in residue.atoms()}
    positions = np.array(prepared.positions)
    if residue.name in ("GLY", "PRO"):
        return positions
    moved = [atoms[name] for name in atoms if name not in (*_BACKBONE, "CB", "H", "HA")]
    axis = positions[atoms["CB"]] - positions[atoms["CA"]]
    turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis))
    positions[moved] = turn.apply(positions[moved] - positions[atoms["CB"]]) + positions[atoms["CB"]]
    return positions


def trajectory(prepared):
    """Return (3 n_frames, n_atoms, 3) [nm] at 300 K, from three rotamers."""
    frames = []
    for seed, angle in enumerate((0.0, 2 * math.pi / 3, -2 * math.pi / 3), start=1):
        integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 2 / unit.picosecond, 2 * unit.femtosecond)
        integrator.setRandomNumberSeed(seed)
        system = build_system(prepared.topology)
        context = openmm.Context(system, integrator, openmm.Platform.getPlatform("Reference"))
        context.setPositions(turned(prepared, angle))
        openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
        context.setVelocitiesToTemperature(300 * unit.kelvin, seed)
        integrator.step(1000)
        for _ in range(N_FRAMES):
            integrator.step(N_STEPS_BETWEEN)
            state = context.getState(getPositions=True)
            frames.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    return np.array(frames)


def side_chain(name):
    """Return the side chain's z-matrix, (atom, bonded, then angle's, then torsion's reference), and ring closures."""
    template = standard_residues()[{"HIS": "HIE"}.get(name, name)]
    near = {atom: set() for atom in template.atoms}
    for a, b in template.bonds:
        near[template.atoms[a]].add(template.atoms[b])
        near[template.atoms[b]].add(template.atoms[a])
    elements = dict(zip(template.atoms, template.elements, strict=True))
    atoms = [atom for atom in template.atoms if elements[atom] != "H" and atom not in _BACKBONE]
    atoms.sort(key=lambda atom: (_REMOTENESS.index(atom[1]), atom[2:]))
    parent = {"CA": "N"}
    rows, closures = [], []
    for atom in atoms:
        bonded = [other for other in ("CA", *atoms) if other in near[atom] and other in parent]
        parent[atom] = bonded[0]
        closures += [(atom, other) for other in bonded[1:]]
        siblings = [row[0] for row in rows if row[1] == bonded[0]]
        second = parent[bonded[0]]
        rows.append((atom, bonded[0], second, "C" if atom == "CB" else siblings[0] if siblings else parent[second]))
    if name == "PRO":
        closures.append(("CD", "N"))
    return rows, closures


def chi_number(records, quadruple):
    """Return 1 to 4 where four atom indices are a side-chain torsion, else 0."""
    for number in range(1, 5):
        if list(quadruple) in torsion_quadruples(records, f"chi{number}").tolist():
            return number
    return 0


def angle(frames, a, b, c):
    u, v = frames[:, a] - frames[:, b], frames[:, c] - frames[:, b]
    return np.arctan2(np.linalg.norm(np.cross(u, v), axis=1), (u * v).sum(1)).mean()


def circular_mean(angles):
    return math.atan2(np.sin(angles).mean(), np.cos(angles).mean())


def means(frames, d, c, b, a):
    """Return the mean length [nm], angle and torsion [rad] of atom d on c, b and a."""
    length = np.linalg.norm(frames[:, d] - frames[:, c], axis=1).mean()
    torsion = circular_mean(dihedrals(frames, np.array([[a, b, c, d]]))[:, 0])
    if abs(math.sin(torsion)) < _FLAT:
        torsion = 0.0 if math.cos(torsion) > 0 else math.pi
    return length, angle(frames, d, c, b), torsion


def numbers(values):
    return f"{values[0]:.5f} {values[1]:.4f} {values[2]:.4f}"


def residue_lines(name):
    prepared = start(name, is_end=False)
    frames = trajectory(prepared)
    residue = list(prepared.topology.residues())[1]
    records = describe_atoms(prepared.topology, range(frames.shape[1]))
    index = {atom.name: atom.index for atom in residue.atoms()}
    if name == "PRO":
        chi1 = dihedrals(frames, torsion_quadruples(records, "chi1"))[:, 0]
        frames = frames[chi1 > 0]
    rows, closures = side_chain(name)
    ring_torsion = closing_torsion(frames, index) if name == "PRO" else 0.0
    n_ca_c = angle(frames, index["N"], index["CA"], index["C"])
    oxygen = means(frames, index["O"], index["C"], index["CA"], index["N"])
    lengths = [np.linalg.norm(frames[:, index[a]] - frames[:, index["CA"]], axis=1).mean() for a in ("N", "C")]
    lines = [f"{name} {lengths[0]:.5f} {lengths[1]:.5f} {n_ca_c:.4f} {oxygen[0]:.5f} {oxygen[1]:.4f}"]
    for atom, c, b, a in rows:
        quadruple = [index[a], index[b], index[c], index[atom]]
        values = means(frames, *quadruple[::-1])
        chi = chi_number(records, quadruple)
        if name == "PRO" and atom == "CD":
            values = (*values[:2], ring_torsion)
        elif chi and name != "PRO":
            values = (*values[:2], math.radians(90 if (name, chi) in _FLAT_ENDS else -60 if chi == 1 else 180))
        lines.append(f"  {atom} {c} {b} {a} {chi} {numbers(values)}")
    for a, b in closures:
        length = np.linalg.norm(frames[:, index[a]] - frames[:, index[b]], axis=1).mean()
        lines.append(f"  ring {a} {b} {length:.5f}")
    return lines, frames, prepared.topology


def end_lines():
    """Return the lines for O and OXT of a chain's last residue."""
    prepared = start("ALA", is_end=True)
    frames = trajectory(prepared)
    index = {atom.name: atom.index for atom in list(prepared.topology.residues())[-1].atoms()}
    lines = []
    for atom, last in (("O", "N"), ("OXT", "O")):
        values = means(frames, *(index[x] for x in (atom, "C", "CA", last)))
        lines.append(f"END {atom} {numbers((*values[:2], math.pi))}")
    return lines


def link_lines(frames, topology):
    """Return the lines of the peptide bond: its length and the angles on both sides of it."""
    index = {(atom.residue.name, atom.name): atom.index for atom in topology.atoms()}
    ca, c, n = (index[("ALA", name)] for name in ("CA", "C", "N"))
    n_next, c_before = index[("NME", "N")], index[("ACE", "C")]
    lengths = [np.linalg.norm(frames[:, a] - frames[:, b], axis=1).mean() for a, b in ((c, n_next), (c_before, n))]
    return [f"LINK {np.mean(lengths):.5f} {angle(frames, ca, c, n_next):.4f} {angle(frames, c_before, n, ca):.4f}"]


def disulphide_line():
    """Return the line of ff14SB's equilibrium length of a disulphide bond."""
    file = Path(app.__file__).parent / "data" / "amber14" / "protein.ff14SB.xml"
    for bond in ElementTree.parse(file).getroot().iterfind("HarmonicBondForce/Bond"):
        if (bond.get("type1"), bond.get("type2")) == ("protein-S", "protein-S"):
            return f"DISULPHIDE {float(bond.get('length')):.5f}"
    raise LookupError("no bond S-S")


def place(a, b, c, length, angle, torsion):
    """Return the point at a length from c, an angle with b and a torsion with a."""
    axis = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal)
    across = np.cross(normal, axis) * math.cos(torsion) + normal * math.sin(torsion)
    return c - length * math.cos(angle) * axis + length * math.sin(angle) * across


def closing_torsion(frames, index):
    """Return the chi2 that closes proline's ring, which the mean of chi2 does not quite."""
    atoms = ("N", "CA", "C", "CB", "CG", "CD")
    n, ca, c, cb, cg, cd = (index[atom] for atom in atoms)
    n_ca, ca_c = (np.linalg.norm(frames[:, a] - frames[:, ca], axis=1).mean() for a in (n, c))
    bend = angle(frames, n, ca, c)
    points = {n: np.array([n_ca, 0, 0]), ca: np.zeros(3), c: ca_c * np.array([math.cos(bend), math.sin(bend), 0])}
    points[cb] = place(points[c], points[n], points[ca], *means(frames, cb, ca, n, c))
    points[cg] = place(points[n], points[ca], points[cb], *means(frames, cg, cb, ca, n))
    length, bend, _ = means(frames, cd, cg, cb, ca)
    wanted = np.linalg.norm(frames[:, cd] - frames[:, n], axis=1).mean()

    def gap(torsion):
        return np.linalg.norm(place(points[ca], points[cb], points[cg], length, bend, torsion) - points[n]) - wanted

    return brentq(gap, -1.2, -0.3)


def peptide(link, residue, phi, psi, n_residues=7):
    """Return N, CA, C and O of a chain of alanines, (n_residues, 4, 3) [nm], from the printed numbers."""
    (c_n, ca_c_n, c_n_ca), (n_ca, ca_c, n_ca_c, c_o, ca_c_o) = link, residue
    atoms = [np.zeros(3), np.array([n_ca, 0, 0])]
    atoms.append(atoms[1] + ca_c * np.array([-math.cos(n_ca_c), math.sin(n_ca_c), 0]))
    for _ in range(n_residues):
        atoms.append(place(*atoms[-3:], c_n, ca_c_n, psi))
        atoms.append(place(*atoms[-3:], n_ca, c_n_ca, math.pi))
        atoms.append(place(*atoms[-3:], ca_c, n_ca_c, phi))
    chain = np.array(atoms[: 3 * n_residues]).reshape(-1, 3, 3)
    oxygen = [place(*residue, c_o, ca_c_o, psi + math.pi) for residue in chain]
    return np.concatenate([chain, np.array(oxygen)[:, None]], axis=1)


def trace_lines(link, residue):
    """Return the lines of N, C and O on the Cα trace: means of an alpha helix and a beta strand."""
    n, ca, c, o = range(4)
    chains = [peptide(link, residue, *np.radians(turn)) for turn in ((-63, -43), (-120, 130))]
    frames = np.array(chains).reshape(len(chains), -1, 3)
    lines = []
    for place_in_chain, i, before, beyond_n, after, beyond_c in (
        ("first", 0, 1, 2, 1, 2),
        ("inner", 3, 2, 4, 4, 2),
        ("last", 6, 5, 4, 5, 4),
    ):
        for name, atom, bonded, near, far in (
            ("N", 4 * i + n, 4 * i + ca, 4 * before + ca, 4 * beyond_n + ca),
            ("C", 4 * i + c, 4 * i + ca, 4 * after + ca, 4 * beyond_c + ca),
            ("O", 4 * i + o, 4 * i + c, 4 * i + ca, 4 * after + ca),
        ):
            _, angle_there, torsion = means(frames, atom, bonded, near, far)
            lines.append(f"TRACE {place_in_chain} {name} {angle_there:.4f} {torsion:.4f}")
    return lines


def main():
    for name in RESIDUE_NAMES:
        lines, frames, topology = residue_lines(name)
        if name == "ALA":
            links, alanine = link_lines(frames, topology), lines[0]
        print("\n".join(lines), flush=True)
    link, residue = ([float(word) for word in line.split()[1:]] for line in (links[0], alanine))
    print("\n".join([*links, disulphide_line(), *end_lines(), *trace_lines(link, residue)]))


if __name__ == "__main__":
    main()
