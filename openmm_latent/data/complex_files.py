"""Files that tell of a complex what its structure file does not - System, positions, ligands - and what was read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from openmm_latent.data.complex_tokens import ATOM, ComplexTokens
from openmm_latent.data.sdf import match_molecule, read_sdf
from openmm_latent.data.trajectories import load_topology
from openmm_latent.errors import LatentError, reason_of, require

#: Endings of Amber's files.
PRMTOP, INPCRD = (".prmtop", ".parm7", ".top"), (".inpcrd", ".rst7", ".restrt", ".crd", ".ncrst")


def read_system(path: str | Path, topology: app.Topology, solvent: str = "vacuum") -> openmm.System:
    """Read a System: bonds to hydrogen are constrained where an Amber file says what they are.

    Parameters
    ----------
    path : path
        XML of `openmm.XmlSerializer`, or an Amber prmtop.
    topology : openmm.app.Topology
        Its atoms, in this order.
    solvent : str
        Of a System made from a prmtop: "vacuum", "obc2", or "tip3p" (PME; the file holds the water).

    Raises
    ------
    LatentError
        The file is absent, unreadable, of another kind, or of another number of atoms.
    """
    path = Path(path)
    require(path.is_file(), f"system file {path} does not exist; check the name given to system (--system)")
    require(
        path.suffix.lower() in (".xml", *PRMTOP),
        f"system (--system) must be a System's .xml (openmm.XmlSerializer.serialize writes it) or an Amber .prmtop, "
        f"got {path.name!r}",
    )
    try:
        system = _from_xml(path) if path.suffix.lower() == ".xml" else _from_prmtop(path, solvent)
    except Exception as error:  # the readers raise whatever the broken line makes them raise
        raise LatentError(f"system file {path} cannot be read ({reason_of(error)}); write it again") from error
    require(
        system.getNumParticles() == topology.getNumAtoms(),
        f"system file {path} has {system.getNumParticles()} particles, but the structure has {topology.getNumAtoms()} "
        f"atoms; give the structure (--top) from which the System was made",
    )
    return system


def _from_xml(path: Path) -> openmm.System:
    system = openmm.XmlSerializer.deserialize(path.read_text())
    require(isinstance(system, openmm.System), f"it holds a {type(system).__name__}")
    return system


def _from_prmtop(path: Path, solvent: str) -> openmm.System:
    options = {
        "vacuum": {"nonbondedMethod": app.NoCutoff},
        "obc2": {"nonbondedMethod": app.NoCutoff, "implicitSolvent": app.OBC2},
        "tip3p": {"nonbondedMethod": app.PME, "nonbondedCutoff": 0.9 * unit.nanometer},
    }
    return app.AmberPrmtopFile(str(path)).createSystem(constraints=app.HBonds, **options[solvent])


def read_positions(path: str | Path, topology: app.Topology) -> np.ndarray:
    """Read positions, (n_atoms, 3) [nm], of a topology that came without: a prmtop's.

    Parameters
    ----------
    path : path
        An Amber inpcrd or restart, a gro, PDB or mmCIF file.
    topology : openmm.app.Topology

    Raises
    ------
    LatentError
        The file is absent, unreadable, without positions, or of another number of atoms.
    """
    path = Path(path)
    require(path.is_file(), f"coordinates file {path} does not exist; check the name given to --coordinates")
    positions: np.ndarray | None
    try:
        if path.suffix.lower() in INPCRD:
            positions = _plain(app.AmberInpcrdFile(str(path)).positions)
        elif path.suffix.lower() == ".gro":
            positions = _plain(app.GromacsGroFile(str(path)).positions)
        else:
            positions = load_topology(path)[1]
    except LatentError:
        raise
    except Exception as error:  # the readers raise whatever the broken line makes them raise
        raise LatentError(f"coordinates file {path} cannot be read ({reason_of(error)}); write it again") from error
    n_atoms = topology.getNumAtoms()
    require(
        positions is not None and len(positions) == n_atoms,
        f"coordinates (--coordinates) {path} must hold positions of the {n_atoms} atoms of the structure, got "
        f"{0 if positions is None else len(positions)}; give an inpcrd, rst7, gro, PDB or mmCIF file of the same atoms",
    )
    return np.asarray(positions)


def _plain(positions: unit.Quantity) -> np.ndarray:
    return np.array([list(position) for position in positions.value_in_unit(unit.nanometer)])


def ligands_in(topology: app.Topology, ligands: Sequence[str | Path]) -> list[Path]:
    """Return those SDF files whose molecule is a residue of the topology, by heavy atoms and bonds.

    Raises
    ------
    LatentError
        A file is absent or damaged.
    """
    graphs = [_graph_of(residue) for residue in topology.residues()]
    fitting = []
    for path in ligands:
        molecule = read_sdf(path)
        if any(match_molecule(molecule, *graph) is not None for graph in graphs):
            fitting.append(Path(path))
    return fitting


def describe_tokens(tokens: ComplexTokens) -> str:
    """Return in words what was read of a complex: residues, single atoms, ligands and what is known of their bonds."""
    n_single = int((tokens.types == ATOM).sum())
    sizes = np.unique(tokens.chains[tokens.is_ligand], return_counts=True)[1]
    words = f"residues: {len(tokens) - n_single}, single atoms: {n_single}"
    if len(sizes) == 0:
        return f"{words}, no ligand"
    inside = tokens.is_ligand[tokens.token[tokens.bonds]].all(axis=1)
    n_known = int((tokens.orders[inside] > 0).sum())
    which = f"ligand of {sizes[0]}" if len(sizes) == 1 else f"{len(sizes)} ligands of {', '.join(map(str, sizes))}"
    charges = "charges of the System" if tokens.knows_charges else "formal charges"
    return f"{words}; {which} heavy atoms, orders of {n_known} of {int(inside.sum())} bonds known, {charges}"


def _graph_of(residue: app.topology.Residue) -> tuple[list[str], np.ndarray]:
    """Return elements and bonds, (n_bonds, 2), of a residue's heavy atoms."""
    atoms = [atom for atom in residue.atoms() if atom.element is not None and atom.element.symbol != "H"]
    place = {atom.index: number for number, atom in enumerate(atoms)}
    bonds = {
        tuple(sorted((place[a.index], place[b.index])))
        for a, b in residue.internal_bonds()
        if a.index in place and b.index in place
    }
    return [atom.element.symbol for atom in atoms], np.array(sorted(bonds), dtype=np.int64).reshape(-1, 2)
