"""Heavy atoms of proteins in slots, residue by residue: what networks that build side chains learn from.

`openmm_latent.nn.residue_geometry` has the slots. This is the one place that decides what becomes of other residues:

| residue | what becomes of it |
|---|---|
| one of the 20 | its slots |
| a protonation state, or a modified residue with the atoms of its parent | its parent |
| a modified residue with other atoms, a ligand | refused, or left out with `others="leave out"` |
| a cap (ACE, NME, NH2), water, ions | left out |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from openmm import app

from openmm_latent.data.backbone import UNKNOWN, residue_type
from openmm_latent.data.datasets import DataSet, Entry, Run, runs_to_learn_from
from openmm_latent.data.disulphides import bonded_sulphurs
from openmm_latent.data.trajectories import TrajectorySet
from openmm_latent.errors import LatentError, require
from openmm_latent.geometry import dihedrals
from openmm_latent.nn.residue_geometry import (
    CA,
    CYSTEINE,
    N_SLOTS,
    OXT,
    RESIDUE_NAMES,
    SG,
    SYMMETRIC_ATOMS,
    C,
    N,
    Residues,
    describe_residues,
    residue_tables,
)
from openmm_latent.topology import CAPS, SOLVENT, heavy_atoms

#: What to do with residues that are none of the 20.
OTHERS = ("refuse", "leave out")
#: Names of other force fields.
_SAME = {"OT1": "O", "OT2": "OXT", "OC1": "O", "OC2": "OXT", "O1": "O", "O2": "OXT"}
#: C and N of two residues farther apart are not bonded [nm].
_LONGEST_PEPTIDE = 0.25


@dataclass(frozen=True)
class ResidueSlots:
    """Where the atoms of each residue's slots are in a topology.

    Attributes
    ----------
    residues : Residues
    atoms : ndarray of int
        (n_residues, 15) atom indices, -1 where a slot is empty
    disulphides : ndarray of int
        (n_disulphides, 2) residues
    """

    residues: Residues
    atoms: np.ndarray
    disulphides: np.ndarray

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Return slots of frames, an empty one on its Cα: (..., n_atoms, 3) [nm] -> (..., n_residues, 15, 3)."""
        filled = np.where(self.atoms < 0, self.atoms[:, CA : CA + 1], self.atoms)
        return np.asarray(positions)[..., filled, :]

    def in_order(self) -> tuple[np.ndarray, list[int]]:
        """Return the filled slots, counted as 15 residue + slot, and their atoms, both in the topology's order."""
        flat = self.atoms.reshape(-1)
        slots = np.flatnonzero(flat >= 0)
        slots = slots[np.argsort(flat[slots])]
        return slots, flat[slots].tolist()


@dataclass(frozen=True)
class ProteinFrames:
    """One protein's frames, in slots; a static structure is one frame.

    Attributes
    ----------
    name : str
    residues : Residues
    disulphides : ndarray of int
        (n_disulphides, 2) residues whose SG are bonded
    positions : ndarray
        (n_frames, n_residues, 15, 3) [nm] float32, an empty slot on its Cα; names that may be exchanged (OD1 and OD2 of
        ASP, say) are those with the smaller torsion
    """

    name: str
    residues: Residues
    disulphides: np.ndarray
    positions: np.ndarray

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.positions)


def read_residue_slots(topology: app.Topology, positions: np.ndarray, *, others: str = "refuse") -> ResidueSlots:
    """Find the residues of a topology and what is bonded in a structure.

    Parameters
    ----------
    topology : openmm.app.Topology
        Any number of chains.
    positions : ndarray
        (n_atoms, 3) [nm] tell breaks of chains, and disulphides beside those that the topology has as bonds; those of
        hydrogens are not read.
    others : str
        "refuse" residues that are none of the 20, or "leave out"; caps are left out either way.

    Raises
    ------
    LatentError
        There is no protein, a residue is none of the 20, or it lacks heavy atoms.
    """
    require(others in OTHERS, f"others must be one of {', '.join(map(repr, OTHERS))}, got {others!r}")
    types, chains, atoms = [], [], []
    for number, chain in enumerate(topology.chains()):
        for residue in chain.residues():
            if residue.name in SOLVENT | CAPS:
                continue
            kind, slots = residue_type(residue.name), None
            if kind != UNKNOWN:
                slots = _slots_of(
                    residue, kind, may_differ=others == "leave out" and residue.name != RESIDUE_NAMES[kind]
                )
            if slots is not None:
                types.append(kind)
                chains.append(number)
                atoms.append(slots)
            else:
                require(
                    others == "leave out",
                    f"topology has residue {residue.name} {residue.id} of chain {residue.chain.id}, which is none of "
                    f"the 20 amino acids; choose others='leave out' to do without it",
                )
    require(len(types) > 0, "topology has no protein residues with all their heavy atoms; give that of a protein")
    places = np.asarray(positions, dtype=np.float64)
    residues = _connected(np.array(types), np.array(chains), np.stack(atoms), places)
    sulphurs = {int(atoms[place][SG]): int(place) for place in np.flatnonzero(residues.types == CYSTEINE)}
    return ResidueSlots(residues, np.stack(atoms), bonded_sulphurs(topology, sulphurs, places))


def _slots_of(residue: app.topology.Residue, kind: int, may_differ: bool) -> np.ndarray | None:
    """Return atom indices by slot, (15,), -1 where empty; None where a residue that may differ has other atoms."""
    names = residue_tables().atom_names[kind]
    slots = np.full(N_SLOTS, -1)
    strange = []
    for atom in residue.atoms():
        if atom.element is not None and atom.element.symbol == "H":
            continue
        name = standard_name(atom.name, kind)
        if name in names:
            slots[names.index(name)] = atom.index
        elif atom.element is not None:  # virtual sites have none
            strange.append(atom.name)
    absent = [name for name, slot in zip(names, slots, strict=True) if name and name != "OXT" and slot < 0]
    if may_differ and (strange or absent):
        return None
    what = f"residue {residue.name} {residue.id} of chain {residue.chain.id}"
    require(
        not absent,
        f"topology has {what} without {', '.join(absent)}; build what is absent (pdbfixer does), or leave the entry "
        f"out",
    )
    require(
        not strange,
        f"topology has {what} with {', '.join(strange)}, which {RESIDUE_NAMES[kind]} does not have; choose "
        f"others='leave out' to do without modified residues",
    )
    return slots


def standard_name(name: str, kind: int) -> str:
    """Return what `RESIDUE_NAMES[kind]` calls a heavy atom that other force fields name otherwise."""
    same = _SAME.get(name, name)
    return "CD1" if (same, RESIDUE_NAMES[kind]) == ("CD", "ILE") else same


def _connected(types: np.ndarray, chains: np.ndarray, atoms: np.ndarray, positions: np.ndarray) -> Residues:
    """Tell from a structure which residues are joined: types and chains (n,), atoms (n, 15), positions (n_atoms, 3)."""
    gap = np.linalg.norm(positions[atoms[1:, N]] - positions[atoms[:-1, C]], axis=1)
    is_joined = np.concatenate([[False], (chains[1:] == chains[:-1]) & (gap < _LONGEST_PEPTIDE)])
    return describe_residues(types, chains, is_joined, atoms[:, OXT] >= 0)


def require_nothing_hangs_on(found: ResidueSlots, topology: app.Topology, family: str) -> None:
    """Refuse a protein on which heavy atoms other than caps hang by bonds: they would stay behind when it moves.

    Raises
    ------
    LatentError
        There are such atoms; the sentence names residues and the family that cannot move them.
    """
    inside = set(found.atoms[found.atoms >= 0].tolist())
    atoms = list(topology.atoms())
    outside = {atom for atom in heavy_atoms(topology) if atoms[atom].residue.name not in CAPS} - inside
    for bond in topology.bonds():
        for here, there in ((bond[0], bond[1]), (bond[1], bond[0])):
            require(
                here.index not in inside or there.index not in outside,
                f"topology has {there.residue.name} {there.residue.id} of chain {there.residue.chain.id} bonded to "
                f"{here.residue.name} {here.residue.id}, and {family} builds only the 20 amino acids; cut off modified "
                f"residues and covalent ligands, or use another family",
            )


def exchange_symmetric(residues: Residues, positions: np.ndarray) -> np.ndarray:
    """Name atoms that may be exchanged so that the first has the smaller torsion, between -90 and 90 degrees.

    Parameters
    ----------
    residues : Residues
    positions : ndarray
        (n_frames, n_residues, 15, 3) [nm]

    Returns
    -------
    ndarray
        (n_frames, n_residues, 15, 3) [nm]
    """
    tables = residue_tables()
    firsts = {
        RESIDUE_NAMES.index(name): tables.atom_names[RESIDUE_NAMES.index(name)].index(pairs[0][0])
        for name, pairs in SYMMETRIC_ATOMS.items()
    }
    where = np.flatnonzero(np.isin(residues.types, list(firsts)))
    if len(where) == 0:
        return positions
    kinds = residues.types[where]
    slot = np.array([firsts[kind] for kind in kinds])
    corners = np.concatenate([tables.references[kinds, slot, ::-1], slot[:, None]], axis=1)
    flat = positions.reshape(len(positions), -1, 3)
    torsions = dihedrals(flat, corners + N_SLOTS * where[:, None])  # (n_frames, n_symmetric)
    exchanged = positions[:, where[:, None], tables.renamed[kinds]]
    result = positions.copy()
    result[:, where] = np.where((np.cos(torsions) < 0)[:, :, None, None], exchanged, positions[:, where])
    return result


def protein_frames(
    topology: app.Topology,
    trajectories: Sequence[np.ndarray],
    *,
    name: str = "protein",
    atoms: Sequence[int] | np.ndarray | None = None,
    others: str = "refuse",
) -> ProteinFrames:
    """Put the frames of one protein into slots.

    Parameters
    ----------
    topology : openmm.app.Topology
    trajectories : sequence of ndarray
        Each (n_frames, n_atoms, 3) [nm], whole molecules; the first frame tells what is bonded.
    name : str
    atoms : sequence of int, optional
        (n_atoms,) which of the topology's atoms the arrays hold, in order; all unless given. All heavy ones are needed.
    others : str
        See `read_residue_slots`.

    Raises
    ------
    LatentError
        As `read_residue_slots`, or the arrays do not hold the atoms they should.
    """
    n_all = topology.getNumAtoms()
    held = np.arange(n_all) if atoms is None else np.asarray(atoms, dtype=np.int64)
    require(len(trajectories) > 0, "trajectories must hold at least one, got none; give one array a run")
    for number, frames in enumerate(trajectories):
        require(
            np.ndim(frames) == 3 and np.shape(frames)[1:] == (len(held), 3) and len(frames) > 0,
            f"trajectory {number} of {name} must have shape (n_frames, n_atoms={len(held)}, 3) [nm], got "
            f"{np.shape(frames)}; say by atoms which atoms it holds",
        )
    place = np.full(n_all, -1)
    place[held] = np.arange(len(held))
    whole = np.zeros((n_all, 3))
    whole[held] = trajectories[0][0]
    slots = read_residue_slots(topology, whole, others=others)
    inside = np.where(slots.atoms < 0, -1, place[slots.atoms])
    absent = slots.atoms[(slots.atoms >= 0) & (inside < 0)]
    require(
        len(absent) == 0, f"atoms lack {len(absent)} heavy atoms of {name}, such as {absent[:1]}; give all heavy ones"
    )
    slots = ResidueSlots(slots.residues, inside, slots.disulphides)
    positions = np.concatenate([slots.take(np.asarray(frames, dtype=np.float32)) for frames in trajectories])
    return ProteinFrames(name, slots.residues, slots.disulphides, exchange_symmetric(slots.residues, positions))


def frames_of(trajectories: TrajectorySet, *, name: str = "protein", others: str = "refuse") -> ProteinFrames:
    """Put what `load_trajectories` read into slots; its model atoms must hold all heavy atoms."""
    return protein_frames(
        trajectories.topology, trajectories.positions, name=name, atoms=trajectories.model_atoms, others=others
    )


def read_protein_frames(
    dataset: DataSet,
    names: Iterable[str] | None = None,
    *,
    temperature: float | None = None,
    stride: int = 1,
    others: str = "refuse",
) -> list[ProteinFrames]:
    """Put the frames of each protein of a data set into slots, all its runs joined.

    Parameters
    ----------
    dataset : DataSet
        From `open_dataset`.
    names : iterable of str, optional
        Which entries; all unless given.
    temperature : float, optional
        [K] Only runs at this one.
    stride : int
        Keep every stride-th frame.
    others : str
        See `read_residue_slots`.

    Raises
    ------
    LatentError
        An entry has no runs, or its residues cannot be put into slots; the sentence names it.
    """
    require(stride >= 1, f"stride must be a positive whole number, got {stride}")
    chosen = dataset.names if names is None else names
    entries = (dataset[name] for name in chosen)
    return [read_runs(one, runs_to_learn_from(one, temperature), stride, others)[0] for one in entries]


def read_runs(entry: Entry, runs: Sequence[Run], stride: int, others: str) -> tuple[ProteinFrames, list[int]]:
    """Put runs of an entry into slots, one after the other; return how many frames each has, too."""
    try:
        atoms = entry.model_atoms("heavy")
        frames = [np.concatenate(list(entry.stream(run, stride=stride, atoms=atoms))) for run in runs]
        found = protein_frames(entry.topology, frames, name=entry.name, atoms=atoms, others=others)
        return found, [len(part) for part in frames]
    except LatentError as error:
        raise LatentError(f"entry {entry.name}: {error}") from error
