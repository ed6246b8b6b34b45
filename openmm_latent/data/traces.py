"""Cα traces: what a file of them says of a protein's residues, and the topology of its heavy atoms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from openmm import app

from openmm_latent.data.backbone import UNKNOWN, residue_type
from openmm_latent.data.caps import CAP_ATOMS, CAP_NAMES
from openmm_latent.data.disulphides import Label, bonded_sulphurs
from openmm_latent.errors import require
from openmm_latent.nn.residue_geometry import (
    CYSTEINE,
    N_SLOTS,
    RESIDUE_NAMES,
    C,
    N,
    Residues,
    bond_pairs,
    describe_residues,
)
from openmm_latent.topology import CAPS, SOLVENT

#: Cα atoms of neighbours farther apart than this are not joined by a peptide bond [nm]; a trans bond spans 0.38.
_LONGEST_LINK = 0.45
#: Cα atoms of a disulphide lie 0.38 to 0.75 nm apart; farther than this none can be meant [nm].
_LONGEST_BRIDGE = 1.0
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
    disulphides : ndarray of int
        (n_disulphides, 2) residues whose SG are bonded
    caps : tuple of (str, str)
        Of each residue: "ACE" where that comes before it, "NME" or "NH2" where that comes after it, else "".
    """

    residues: Residues
    cas: np.ndarray
    labels: tuple[tuple[str, str], ...]
    disulphides: np.ndarray
    caps: tuple[tuple[str, str], ...]

    def topology(self) -> app.Topology:
        """Return all heavy atoms with their bonds, residue by residue in the order of slots, caps among them."""
        return heavy_topology(self.residues, self.labels, self.disulphides, self.caps)

    def bridged(self, pairs: Sequence[tuple[Label, Label]], positions: np.ndarray) -> Trace:
        """Return the trace with other disulphides.

        Parameters
        ----------
        pairs : sequence of ((str, str), (str, str))
            Chain and number of both residues; a chain of "" is the only one.
        positions : ndarray
            (n_residues, 3) [nm] of one frame's Cα

        Raises
        ------
        LatentError
            A residue is absent, no cysteine, in two bridges, or much too far from its partner.
        """
        names = [[f"{chain}:{number}".lstrip(":") for chain, number in pair] for pair in pairs]
        found = np.array([[self._place(*end) for end in pair] for pair in pairs], dtype=np.int64).reshape(-1, 2)
        for ends, name in zip(found.tolist(), names, strict=True):
            for end, label in zip(ends, name, strict=True):
                kind = self.residues.types[end]
                require(
                    kind == CYSTEINE,
                    f"disulphides must join CYS residues, got {RESIDUE_NAMES[kind]} {label}; check the numbers",
                )
            apart = float(np.linalg.norm(positions[ends[0]] - positions[ends[1]]))
            require(
                ends[0] != ends[1] and apart < _LONGEST_BRIDGE,
                f"disulphides must span less than {_LONGEST_BRIDGE:g} nm from Cα to Cα, got {'-'.join(name)} with "
                f"{apart:.2f} nm in the first frame; check the numbers",
            )
        require(
            len(np.unique(found)) == found.size,
            f"disulphides must have each CYS in one bridge, got one twice in {', '.join(map('-'.join, names))}",
        )
        return replace(self, disulphides=found)

    def _place(self, chain: str, number: str) -> int:
        """Return which residue has a label."""
        places = [i for i, label in enumerate(self.labels) if label[1] == number and chain in ("", label[0])]
        require(
            len(places) == 1,
            f"disulphides name residue {number} of chain {chain or 'any'}, which the trace has {len(places)} times; "
            f"give chain and number as the trace's file has them, such as A:3-A:40",
        )
        return places[0]


def read_trace(topology: app.Topology, positions: np.ndarray) -> Trace:
    """Find the Cα atoms of a protein; of all other atoms, if there are any, only SG and caps are read.

    Disulphides are those that the topology has as bonds, or whose SG lie near each other.

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
    types, chains, cas, labels, caps, sulphurs = [], [], [], [], [], {}
    for number, chain in enumerate(topology.chains()):
        before = ""
        for residue in chain.residues():
            if residue.name == "ACE":
                before = CAP_NAMES[residue.name]
                continue
            if residue.name in CAPS:
                if chains and chains[-1] == number:
                    caps[-1] = (caps[-1][0], CAP_NAMES[residue.name])
                continue
            atoms = {atom.name: atom.index for atom in residue.atoms()}
            if "CA" not in atoms or residue.name in SOLVENT or residue.name == "CA":  # calcium
                continue
            kind = residue_type(residue.name)
            require(
                kind != UNKNOWN,
                f"trace has residue {residue.name} {residue.id} of chain {chain.id}, which is none of the 20 amino "
                f"acids; name its parent in the file, or leave it out",
            )
            if kind == CYSTEINE and "SG" in atoms:
                sulphurs[atoms["SG"]] = len(types)
            types.append(kind)
            chains.append(number)
            cas.append(atoms["CA"])
            labels.append((chain.id, residue.id))
            caps.append((before, ""))
            before = ""
    require(
        len(cas) > 0,
        f"trace has no Cα atoms among {topology.getNumAtoms()} atoms; give a file whose residues have an atom CA",
    )
    places, chain = np.asarray(positions, dtype=np.float64)[cas], np.array(chains)
    residues = _described(np.array(types), chain, places, np.array(caps) != "")
    bridges = bonded_sulphurs(topology, sulphurs, positions)
    return Trace(residues, np.array(cas), tuple(labels), bridges, tuple(caps))


def _described(types: np.ndarray, chains: np.ndarray, cas: np.ndarray, is_capped: np.ndarray) -> Residues:
    """Tell from a trace which residues are joined, and which end in OXT.

    Types and chains are (n_residues,), Cα (n_residues, 3) [nm], and whether caps come before and after (n_residues, 2).
    """
    steps = np.linalg.norm(np.diff(cas, axis=0), axis=1)
    is_joined = (np.diff(chains) == 0) & (steps < _LONGEST_LINK) & ~is_capped[1:, 0] & ~is_capped[:-1, 1]
    is_last = np.append(np.diff(chains) != 0, True)
    return describe_residues(types, chains, np.append(False, is_joined), is_last & ~is_capped[:, 1])


def heavy_topology(
    residues: Residues,
    labels: Sequence[tuple[str, str]],
    disulphides: np.ndarray | None = None,
    caps: Sequence[tuple[str, str]] | None = None,
) -> app.Topology:
    """Return a topology of all heavy atoms with their bonds, residue by residue in the order of slots.

    Parameters
    ----------
    residues : Residues
    labels : sequence of (str, str)
        Of each residue: chain and number.
    disulphides : ndarray of int, optional
        (n_disulphides, 2) residues whose SG are bonded
    caps : sequence of (str, str), optional
        Of each residue: names of the caps before and after it, "" for none.
    """
    topology = app.Topology()
    atoms = {}
    chain, last = None, None
    for place, names in enumerate(residues.atom_names):
        if chain is None or residues.chains[place] != last:
            chain, last = topology.addChain(labels[place][0]), residues.chains[place]
        before, after = caps[place] if caps else ("", "")
        carbon = _add_cap(topology, chain, before, labels[place][1], -1)
        residue = topology.addResidue(RESIDUE_NAMES[residues.types[place]], chain, labels[place][1])
        for slot, name in enumerate(names):
            if name:
                atoms[N_SLOTS * place + slot] = topology.addAtom(name, _ELEMENTS[name[0]], residue)
        nitrogen = _add_cap(topology, chain, after, labels[place][1], 1)
        if carbon is not None:
            topology.addBond(carbon, atoms[N_SLOTS * place + N])
        if nitrogen is not None:
            topology.addBond(atoms[N_SLOTS * place + C], nitrogen)
    for first, second in bond_pairs(residues, disulphides)[0].tolist():
        topology.addBond(atoms[first], atoms[second])
    return topology


def _add_cap(
    topology: app.Topology, chain: app.topology.Chain, name: str, number: str, step: int
) -> app.topology.Atom | None:
    """Add a cap, numbered on from its neighbour; return the atom that is bonded to that. Under the name "" nothing."""
    if not name:
        return None
    residue = topology.addResidue(name, chain, str(int(number) + step) if number.lstrip("-").isdigit() else None)
    atoms = [topology.addAtom(atom, _ELEMENTS[atom[0]], residue) for atom in CAP_ATOMS[name]]
    for other in atoms[1:]:
        topology.addBond(atoms[0], other)
    return atoms[0]
