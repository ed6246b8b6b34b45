"""Cα traces: what a file of them says of a protein's residues, and the topology of its heavy atoms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from openmm import app

from openmm_latent.data.backbone import UNKNOWN, residue_type
from openmm_latent.errors import require
from openmm_latent.nn.residue_geometry import N_SLOTS, RESIDUE_NAMES, Residues, bond_pairs, describe_residues
from openmm_latent.topology import SOLVENT

#: Cα atoms of neighbours farther apart than this are not joined by a peptide bond [nm]; a trans bond spans 0.38.
_LONGEST_LINK = 0.45
_ELEMENTS = {"N": app.element.nitrogen, "C": app.element.carbon, "O": app.element.oxygen, "S": app.element.sulfur}


@dataclass(frozen=True)
class Trace:
    """The residues of a Cα trace.

    Attributes
    ----------
    residues : Residues
        In the file's order.
    cas : ndarray of int
        (n_residues,) atoms of the file's topology
    labels : tuple of (str, str)
        Of each residue: chain and number, as the file has them.
    """

    residues: Residues
    cas: np.ndarray
    labels: tuple[tuple[str, str], ...]

    def topology(self, residues: Residues | None = None) -> app.Topology:
        """Return all heavy atoms with their bonds, residue by residue in the order of slots.

        Parameters
        ----------
        residues : Residues, optional
            The same residues with other ends of chains (`has_oxt`).
        """
        return heavy_topology(self.residues if residues is None else residues, self.labels)


def read_trace(topology: app.Topology, positions: np.ndarray) -> Trace:
    """Find the Cα atoms of a protein; all other atoms, if there are any, are passed over.

    Parameters
    ----------
    topology : openmm.app.Topology
        Any number of chains.
    positions : ndarray
        (n_atoms, 3) [nm] of one frame: they tell breaks of chains.

    Raises
    ------
    LatentError
        There is no Cα atom, or a residue with one is none of the 20 amino acids.
    """
    types, chains, cas, labels = [], [], [], []
    for number, chain in enumerate(topology.chains()):
        for residue in chain.residues():
            found = [atom.index for atom in residue.atoms() if atom.name == "CA"]
            if not found or residue.name in SOLVENT or residue.name == "CA":  # calcium
                continue
            kind = residue_type(residue.name)
            types.append(kind)
            chains.append(number)
            cas.append(found[0])
            labels.append((chain.id, residue.id))
            require(
                kind != UNKNOWN,
                f"trace has residue {residue.name} {residue.id} of chain {chain.id}, which is none of the 20 amino "
                f"acids; name its parent in the file, or leave it out",
            )
    require(
        len(cas) > 0,
        f"trace has no Cα atoms among {topology.getNumAtoms()} atoms; give a file whose residues have an atom CA",
    )
    places, chain = np.asarray(positions, dtype=np.float64)[cas], np.array(chains)
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    is_joined = np.concatenate([[False], (np.diff(chain) == 0) & (steps < _LONGEST_LINK)])
    return Trace(describe_residues(np.array(types), chain, is_joined), np.array(cas), tuple(labels))


def heavy_topology(residues: Residues, labels: Sequence[tuple[str, str]]) -> app.Topology:
    """Return a topology of all heavy atoms with their bonds, residue by residue in the order of slots.

    Cysteines have no disulphide bonds.

    Parameters
    ----------
    residues : Residues
    labels : sequence of (str, str)
        Of each residue: chain and number.
    """
    topology = app.Topology()
    atoms = {}
    chain, last = None, None
    for place, names in enumerate(residues.atom_names):
        if chain is None or residues.chains[place] != last:
            chain, last = topology.addChain(labels[place][0]), residues.chains[place]
        residue = topology.addResidue(RESIDUE_NAMES[residues.types[place]], chain, labels[place][1])
        for slot, name in enumerate(names):
            if name:
                atoms[N_SLOTS * place + slot] = topology.addAtom(name, _ELEMENTS[name[0]], residue)
    for first, second in bond_pairs(residues)[0].tolist():
        topology.addBond(atoms[first], atoms[second])
    return topology
