"""The molecules of the benchmark suite, and untrained GLDP bundles of them: made in seconds, at any size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm as mm
import torch
from openmm import app, unit
from results import SHARED_DATA

from openmm_latent.bundle import export_bundle
from openmm_latent.data.forcefields import build_system
from openmm_latent.models.gldp.config import CONFIGS
from openmm_latent.models.gldp.module import GLDP
from openmm_latent.topology import describe_atoms, heavy_atoms

ADP_PDB = Path(__file__).parents[1] / "examples" / "data" / "adp.pdb"

#: A residue of the chain: name, element, ideal position [nm], and the atom of the residue that it is bonded to.
_RESIDUE = [
    ("N", "N", (0.000, 0.000, 0.000), None),
    ("H", "H", (-0.060, 0.080, 0.000), 0),
    ("CA", "C", (0.140, 0.000, 0.040), 0),
    ("HA", "H", (0.150, 0.000, 0.149), 2),
    ("CB", "C", (0.200, -0.130, -0.020), 2),
    ("HB1", "H", (0.150, -0.210, 0.035), 4),
    ("HB2", "H", (0.307, -0.140, 0.000), 4),
    ("HB3", "H", (0.180, -0.140, -0.127), 4),
    ("C", "C", (0.210, 0.125, -0.015), 2),
    ("O", "O", (0.150, 0.200, -0.092), 8),
]
#: Between residues, which lie on a lattice that the chain fills to and fro [nm].
_SPACING = 0.55
_BOND, _ANGLE = 2.5e5, 400.0  # [kJ/mol/nm^2], [kJ/mol/rad^2]
#: How far an untrained decoder moves an atom [nm]: little, as a good one does beyond the motion that it learned.
_DISPLACEMENT = 0.002


@dataclass
class Molecule:
    """What a benchmark simulates: topology, System, positions (n_atoms, 3) [nm], and its bundle if it has one."""

    name: str
    topology: app.Topology
    system: mm.System
    positions: np.ndarray
    bundle: Path | None = None

    def context(self, integrator: mm.Integrator, platform: str, threads: int = 1) -> mm.Context:
        """Bind an integrator to this molecule, at its positions and 300 K."""
        properties = {"Threads": str(threads)} if platform == "CPU" else {}
        context = mm.Context(self.system, integrator, mm.Platform.getPlatformByName(platform), properties)
        context.setPositions(self.positions)
        context.applyConstraints(1e-6)
        context.setVelocitiesToTemperature(300, 1)
        return context


def chain(n_atoms: int) -> Molecule:
    """Return a chain of alanine residues with bonds and angles alone: forces that cost least an atom.

    Nothing is constrained: OpenMM takes minutes to prepare the constraints of so long a chain, before any jump.
    """
    topology, positions, bonds = _chain_topology(n_atoms)
    system = mm.System()
    masses = {"H": 1.008, "C": 12.011, "N": 14.007, "O": 15.999}
    for atom in topology.atoms():
        system.addParticle(masses[atom.element.symbol])
    stretch, bend = mm.HarmonicBondForce(), mm.HarmonicAngleForce()
    neighbours: list[list[int]] = [[] for _ in range(n_atoms)]
    for first, second in bonds:
        length = float(np.linalg.norm(positions[first] - positions[second]))
        neighbours[first].append(second)
        neighbours[second].append(first)
        stretch.addBond(first, second, length, _BOND)
    for centre, others in enumerate(neighbours):
        for i, first in enumerate(others):
            for second in others[:i]:
                a, b = positions[first] - positions[centre], positions[second] - positions[centre]
                cosine = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
                bend.addAngle(first, centre, second, float(np.arccos(cosine)), _ANGLE)
    system.addForce(stretch)
    system.addForce(bend)
    return Molecule(f"chain of {n_atoms} atoms", topology, system, positions)


def _chain_topology(n_atoms: int) -> tuple[app.Topology, np.ndarray, list[tuple[int, int]]]:
    """Topology, positions (n_atoms, 3) [nm] and bonded pairs of the first `n_atoms` atoms of a chain."""
    topology = app.Topology()
    one_chain = topology.addChain()
    n_residues = -(-n_atoms // len(_RESIDUE))
    corners = _SPACING * _to_and_fro(n_residues)
    atoms, positions, bonds = [], [], []
    for i in range(n_residues):
        residue, first = topology.addResidue("ALA", one_chain), len(atoms)
        for name, element, place, parent in _RESIDUE[: n_atoms - first]:
            index = len(atoms)
            atoms.append(topology.addAtom(name, app.Element.getBySymbol(element), residue))
            positions.append(corners[i] + place)
            if parent is not None:
                bonds.append((first + parent, index))
            elif i > 0:
                bonds.append((first - 2, index))  # C of the residue before
    for a, b in bonds:
        topology.addBond(atoms[a], atoms[b])
    return topology, np.array(positions), bonds


def _to_and_fro(n_points: int) -> np.ndarray:
    """Return the first points, (n_points, 3), of a walk through a cube of unit cells, each a neighbour of the last."""
    side = int(np.ceil(n_points ** (1 / 3)))
    index = np.arange(n_points)
    layer, row, column = index // side**2, index // side % side, index % side
    column = np.where((index // side) % 2 == 1, side - 1 - column, column)
    row = np.where(layer % 2 == 1, side - 1 - row, row)
    return np.stack([column, row, layer], axis=1).astype(float)


def with_untrained_bundle(molecule: Molecule, folder: Path) -> Molecule:
    """Add a bundle of GLDP, `tiny` and with blind pooling, that has learned nothing but its reference structure."""
    atoms = heavy_atoms(molecule.topology)
    records = describe_atoms(molecule.topology, atoms)
    reference = molecule.positions[atoms]
    torch.manual_seed(1)
    module = GLDP(CONFIGS["tiny"], records, reference)
    module.displacement_scale.fill_(_DISPLACEMENT)
    module.eval()
    module.set_reference_embedding()
    module.fold()
    everything = list(molecule.topology.atoms())
    molecule.bundle = export_bundle(
        module,
        folder / f"{molecule.name.replace(' ', '_')}.latent.pt",
        family="GLDP",
        atoms=records,
        masses=[everything[i].element.mass._value for i in atoms],
        lag_time=1.0,
        config={"config": "tiny"},
        training={},
        reference_positions=reference,
    )
    return molecule


def alanine_dipeptide() -> Molecule:
    """Return alanine dipeptide in implicit solvent."""
    return _implicit("ADP", *_read(ADP_PDB))


def chignolin() -> Molecule:
    """Return chignolin CLN025 in implicit solvent, prepared as `generate` does."""
    from openmm_latent.data.prepare import prepare

    ready = prepare(SHARED_DATA / "pdb" / "CLN025.pdb")
    return _implicit("chignolin", ready.topology, ready.positions)


def dhfr(solvent: str) -> Molecule:
    """Return dihydrofolate reductase with its water (solvent "tip3p") or without ("obc2")."""
    topology, positions = _read(SHARED_DATA / "omm" / "5dfr_solv-cube_equil.pdb")
    if solvent == "tip3p":
        return Molecule("DHFR in water", topology, build_system(topology, "tip3p"), positions)
    modeller = app.Modeller(topology, positions * unit.nanometer)
    modeller.delete([r for r in topology.residues() if r.name in ("HOH", "NA", "CL", "Na+", "Cl-")])
    modeller.topology.setPeriodicBoxVectors(None)
    return _implicit("DHFR", modeller.topology, nanometres(modeller.positions))


def _implicit(name: str, topology: app.Topology, positions: np.ndarray) -> Molecule:
    return Molecule(name, topology, build_system(topology), positions)


def _read(path: Path) -> tuple[app.Topology, np.ndarray]:
    pdb = app.PDBFile(str(path))
    return pdb.topology, nanometres(pdb.positions)


def nanometres(positions) -> np.ndarray:
    return np.array(positions.value_in_unit(unit.nanometer))
