"""Heavy atoms in slots: which atom goes where, breaks, disulphides, other residues, names that may be exchanged."""

from pathlib import Path

import numpy as np
import pdbfixer
import pytest
from openmm import app, unit

from openmm_latent.data.residue_slots import (
    ProteinFrames,
    exchange_symmetric,
    frames_of,
    protein_frames,
    read_residue_slots,
)
from openmm_latent.data.trajectories import TrajectorySet
from openmm_latent.errors import LatentError
from openmm_latent.geometry import dihedrals
from openmm_latent.nn.residue_geometry import CA, OXT, RESIDUE_NAMES, C, N, residue_tables
from peptides import capped_alanine_topology
from trace_peptides import peptide_frames, types_of

TABLES = residue_tables()


def chain_topology(sequence, ends=True, names=None):
    """Return a topology of heavy atoms and one hydrogen a residue, and each atom's (residue, slot)."""
    topology, places = app.Topology(), []
    chain = topology.addChain("A")
    for place, kind in enumerate(types_of(sequence)):
        residue = topology.addResidue((names or {}).get(place, RESIDUE_NAMES[kind]), chain, str(place + 1))
        topology.addAtom("H", app.Element.getBySymbol("H"), residue)
        places.append((place, -1))
        slots = [slot for slot in range(OXT) if TABLES.atom_names[kind][slot]]
        slots += [OXT] if ends and place == len(sequence) - 1 else []
        for slot in reversed(slots):  # another order than that of the slots
            name = TABLES.atom_names[kind][slot]
            topology.addAtom(name, app.Element.getBySymbol(name[0]), residue)
            places.append((place, slot))
    return topology, places


def positions_of(frames, places):
    """Return positions of a topology's atoms from slots, (n_frames, n_atoms, 3) [nm]; hydrogens lie far away."""
    return np.stack([frames.positions[:, i, s] if s >= 0 else frames.positions[:, i, 0] + 9 for i, s in places], axis=1)


def template(name):
    pdb = app.PDBFile(str(Path(pdbfixer.__file__).parent / "templates" / f"{name}.pdb"))
    return pdb.topology, np.array(pdb.positions.value_in_unit(unit.nanometer))


def test_atoms_find_their_slots_in_any_order():
    sequence = "ARNDCQEGHILKMFPSTWYV"
    frames = peptide_frames(sequence, 3)
    topology, places = chain_topology(sequence)
    found = protein_frames(topology, [positions_of(frames, places)], name="all")
    assert np.array_equal(found.residues.types, frames.residues.types)
    np.testing.assert_array_equal(found.positions, frames.positions)
    assert found.residues.has_oxt.tolist() == [False] * 19 + [True]
    assert found.positions.dtype == np.float32
    assert len(found) == 3


def test_what_load_trajectories_read_is_put_into_slots():
    frames = peptide_frames("GAVLIM", 4)
    topology, places = chain_topology("GAVLIM")
    heavy = [atom for atom, (_, slot) in enumerate(places) if slot >= 0]
    positions = positions_of(frames, places)[:, heavy]
    read = TrajectorySet(topology, heavy, [positions[:1], positions[1:]], 1.0, ["a", "b"], "")
    np.testing.assert_array_equal(frames_of(read).positions, frames.positions)
    short = TrajectorySet(topology, heavy[:-1], [positions[:, :-1]], 1.0, ["a"], "")
    with pytest.raises(LatentError, match="atoms lack 1 heavy atoms of short, such as"):
        frames_of(short, name="short")


def test_every_residue_of_pdbfixer_is_put_into_slots():
    for name in RESIDUE_NAMES:
        topology, positions = template(name)
        slots = read_residue_slots(topology, positions)
        kind = RESIDUE_NAMES.index(name)
        assert slots.residues.types.tolist() == [kind]
        names = {atom.index: atom.name for atom in topology.atoms()}
        assert [names.get(atom, "") for atom in slots.atoms[0]][:OXT] == list(TABLES.atom_names[kind][:OXT])


def test_a_break_parts_and_a_near_sulphur_joins():
    frames = peptide_frames("CAAAC", 1)
    topology, places = chain_topology("CAAAC")
    positions = positions_of(frames, places)[0]
    sulphur = TABLES.atom_names[RESIDUE_NAMES.index("CYS")].index("SG")
    one, other = places.index((0, sulphur)), places.index((4, sulphur))
    positions[one] = positions[other] + np.array([0.0, 0.0, 0.204])
    nitrogen, carbon = places.index((3, N)), places.index((2, C))
    for place in range(1, 5):  # joined, but for residue 3
        positions[places.index((place, N))] = positions[places.index((place - 1, C))] + np.array([0.133, 0.0, 0.0])
    positions[nitrogen] = positions[carbon] + np.array([0.5, 0.0, 0.0])
    slots = read_residue_slots(topology, positions)
    assert slots.residues.is_joined.tolist() == [False, True, True, False, True]
    assert slots.disulphides.tolist() == [[0, 4]]


def test_protonation_states_and_other_names_are_their_parents():
    topology, places = chain_topology("AHIA", names={1: "HSD"})
    for atom in topology.atoms():
        atom.name = {(2, "CD1"): "CD", (3, "O"): "OT1", (3, "OXT"): "OT2"}.get(
            (atom.residue.index, atom.name), atom.name
        )
    frames = peptide_frames("AHIA", 1)
    found = protein_frames(topology, [positions_of(frames, places)])
    np.testing.assert_array_equal(found.positions, frames.positions)


def test_caps_are_passed_over_and_other_residues_refused_or_left_out():
    topology = capped_alanine_topology()
    positions = np.random.default_rng(1).normal(size=(topology.getNumAtoms(), 3))
    for others in ("refuse", "leave out"):
        slots = read_residue_slots(topology, positions, others=others)
        assert slots.residues.types.tolist() == [0]
        assert not slots.residues.has_oxt.any()
    next(topology.residues()).name = "LIG"
    with pytest.raises(LatentError, match="residue LIG 1 of chain 1, which is none of the 20 amino acids; choose"):
        read_residue_slots(topology, positions)
    assert len(read_residue_slots(topology, positions, others="leave out").residues) == 1
    with pytest.raises(LatentError, match="others must be one of 'refuse', 'leave out', got 'keep'"):
        read_residue_slots(topology, positions, others="keep")


def test_ends_of_chains_may_have_ambers_names():
    topology, places = chain_topology("ACHA", names={0: "NALA", 1: "CYX", 2: "HID", 3: "CALA"})
    positions = positions_of(peptide_frames("ACHA", 1), places)[0]
    assert [RESIDUE_NAMES[kind] for kind in read_residue_slots(topology, positions).residues.types] == [
        "ALA", "CYS", "HIS", "ALA",
    ]  # fmt: skip


def test_disulphides_are_the_topologys_bonds_and_then_the_nearest():
    topology, places = chain_topology("CACACAC")
    positions = 9.0 * np.arange(len(places))[:, None] * np.ones(3)
    slots = read_residue_slots(topology, positions)
    assert slots.disulphides.shape == (0, 2)
    sulphurs = [atom for atom in topology.atoms() if atom.name == "SG"]
    for place, where in zip(sulphurs, (0.0, 0.2, 0.43, 0.63), strict=True):
        positions[place.index] = where
    positions[sulphurs[1].index] = positions[sulphurs[0].index] + [0.2, 0.0, 0.0]
    positions[sulphurs[2].index] = positions[sulphurs[1].index] + [0.21, 0.0, 0.0]
    positions[sulphurs[3].index] = positions[sulphurs[2].index] + [0.24, 0.0, 0.0]
    assert read_residue_slots(topology, positions).disulphides.tolist() == [[0, 2], [4, 6]]
    topology.addBond(sulphurs[0], sulphurs[3])  # however far
    assert read_residue_slots(topology, positions).disulphides.tolist() == [[0, 6], [2, 4]]


def test_modified_residues_are_told_by_their_atoms():
    topology, places = chain_topology("AMAA", names={1: "MSE"})
    next(atom for atom in topology.atoms() if atom.name == "SD").name = "SE"
    positions = positions_of(peptide_frames("AMAA", 1), places)[0]
    with pytest.raises(LatentError, match="residue MSE 2 of chain A without SD; build what is absent"):
        read_residue_slots(topology, positions)
    assert len(read_residue_slots(topology, positions, others="leave out").residues) == 3


def test_residues_with_absent_or_strange_atoms_are_refused():
    topology, places = chain_topology("AFAA")
    next(atom for atom in topology.atoms() if atom.name == "CZ").name = "CX"
    positions = positions_of(peptide_frames("AFAA", 1), places)[0]
    for others in ("refuse", "leave out"):  # a standard residue is never left out
        with pytest.raises(LatentError, match="residue PHE 2 of chain A without CZ"):
            read_residue_slots(topology, positions, others=others)
    topology, places = chain_topology("AFAA", names={1: "TYR"})  # TYR, whose atoms are those of PHE
    next(atom for atom in topology.atoms() if atom.residue.index == 0 and atom.name == "CB").name = "CG"
    with pytest.raises(LatentError, match="residue ALA 1 of chain A without CB"):
        read_residue_slots(topology, positions)
    topology, places = chain_topology("AGAA", names={0: "GLY"})
    with pytest.raises(LatentError, match="residue GLY 1 of chain A with CB, which GLY does not have"):
        read_residue_slots(topology, positions)


def test_a_topology_without_protein_and_wrong_arrays_are_told():
    with pytest.raises(LatentError, match="topology has no protein residues"):
        read_residue_slots(app.Topology(), np.zeros((0, 3)))
    topology, _ = chain_topology("AAA")
    with pytest.raises(LatentError, match=r"trajectory 0 of it must have shape \(n_frames, n_atoms=19, 3\) \[nm\]"):
        protein_frames(topology, [np.zeros((2, 18, 3))], name="it")
    with pytest.raises(LatentError, match="trajectories must hold at least one, got none"):
        protein_frames(topology, [])


def test_exchanged_names_have_the_smaller_torsion_and_the_same_atoms():
    sequence = "AFDEYRVA"
    frames = peptide_frames(sequence, 5)
    tables, residues = TABLES, frames.residues
    swapped = frames.positions[:, np.arange(8)[:, None], tables.renamed[residues.types]]
    assert np.abs(swapped - frames.positions).max() > 0.1
    np.testing.assert_array_equal(exchange_symmetric(residues, swapped), frames.positions)
    for place, (third, first) in {1: ("CB", "CD1"), 2: ("CB", "OD1"), 4: ("CB", "CD1")}.items():
        names = tables.atom_names[residues.types[place]]
        four = np.array([[15 * place + names.index(name) for name in ("CA", third, "CG", first)]])
        torsion = dihedrals(frames.positions.reshape(5, -1, 3), four)
        assert np.abs(torsion).max() <= np.pi / 2 + 1e-6


def test_empty_slots_lie_on_the_alpha_carbon():
    frames = peptide_frames("GAW", 2)
    assert isinstance(frames, ProteinFrames)
    empty = ~frames.residues.has_atom
    topology, places = chain_topology("GAW")
    found = protein_frames(topology, [positions_of(frames, places)])
    where = np.argwhere(empty)
    np.testing.assert_array_equal(found.positions[:, where[:, 0], where[:, 1]], found.positions[:, where[:, 0], CA])
