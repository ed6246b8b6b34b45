"""Internal coordinates against mdtraj and against atoms placed one by one in NumPy."""

import itertools
import math
from pathlib import Path

import mdtraj
import numpy as np
import pdbfixer
import pytest
import torch
from openmm import app, unit
from torch import nn

from openmm_latent.data import backbone
from openmm_latent.data.residue_slots import read_residue_slots
from openmm_latent.errors import LatentError
from openmm_latent.nn.frame_coordinates import FrameCoordinates, residue_frames
from openmm_latent.nn.internal_coordinates import Chirality, TraceCoordinates, trace_anchors
from openmm_latent.nn.residue_geometry import (
    CA,
    INTERNAL_SLOTS,
    N_SLOTS,
    RESIDUE_NAMES,
    SG,
    UNKNOWN,
    bond_pairs,
    describe_residues,
    residue_tables,
)

ALL = np.arange(20)
#: All residues inside one chain, and at both ends of short ones; each end has its OXT.
ENDS = np.array([(kind, 7, kind) for kind in ALL]).ravel()
RESIDUES = describe_residues(np.concatenate([ALL, ENDS]), np.concatenate([np.zeros(20), 1 + np.repeat(ALL, 3)]))


def random_structure(residues, n_frames, seed, dtype=torch.float32):
    """Return (n_frames, n_residues, 15, 3) [nm]: pdbfixer's templates turned at random on a bent trace, shaken."""
    rng = np.random.default_rng(seed)
    positions = np.zeros((n_frames, len(residues), N_SLOTS, 3))
    for place, names in enumerate(residues.atom_names):
        pdb = app.PDBFile(
            str(Path(pdbfixer.__file__).parent / "templates" / f"{RESIDUE_NAMES[residues.types[place]]}.pdb")
        )
        atoms = {atom.name: atom.index for atom in pdb.topology.atoms()}
        template = np.array(pdb.positions.value_in_unit(unit.nanometer))
        for slot, name in enumerate(names):
            if name:
                found = (
                    template[atoms[name]] if name in atoms else 1.7 * template[atoms["C"]] - template[atoms["CA"]] * 0.7
                )
                positions[:, place, slot] = found - template[atoms["CA"]]
    turns = np.linalg.qr(rng.normal(size=(n_frames, len(residues), 3, 3)))[0]
    turns *= np.linalg.det(turns)[..., None, None]
    # within 1 nm of the origin, three in a row never near a line: a helix of 3.6 residues a turn
    turn = np.arange(len(residues)) * 1.75
    trace = 0.23 * np.stack([np.cos(turn), np.sin(turn), 0.15 * (turn % 30) - 2], axis=1)
    positions = np.einsum("fnsk,fnjk->fnsj", positions, turns) + 0.01 * rng.normal(size=positions.shape)
    positions += (trace + 0.02 * rng.normal(size=(n_frames, len(residues), 3)))[:, :, None]
    there = residues.has_atom
    positions = np.where(there[:, :, None], positions, positions[:, :, CA : CA + 1])
    return torch.tensor(positions, dtype=dtype)


def hangs_on(residues):
    """Return (atom, bonded, angle's and torsion's atoms) as places in (n_residues, 15), by the documented rules."""
    tables, rows = residue_tables(), []
    starts = [0, *(np.flatnonzero(np.diff(residues.chains)) + 1), len(residues)]
    for first, end in itertools.pairwise(starts):
        for i in range(first, end):
            before, after = i - 1, i + 1
            beyond_n, beyond_c = i + 1, i - 1
            if i == first:
                before, beyond_n, beyond_c = i + 1, i + 2, i + 2
            if i == end - 1:
                after, beyond_n, beyond_c = i - 1, i - 2, i - 2
            names = residues.atom_names[i]
            for slot, name in enumerate(names):
                if name == "N":
                    rows.append([(i, slot), (i, 1), (before, 1), (beyond_n, 1)])
                elif name == "C":
                    rows.append([(i, slot), (i, 1), (after, 1), (beyond_c, 1)])
                elif name == "O":
                    rows.append([(i, slot), (i, 2), (i, 1), (after, 1)])
                elif name and name != "CA":
                    rows.append([(i, slot), *((i, place) for place in tables.references[residues.types[i], slot])])
    return np.array(rows)  # (n_atoms, 4, 2)


def difference(internal, other):
    """Return the largest difference of lengths [nm] and of angles [rad] the short way round."""
    gap = (internal - other).double()
    gap[..., 2] = torch.remainder(gap[..., 2] + math.pi, 2 * math.pi) - math.pi
    return float(gap.abs().max())


def placed_one_by_one(fourth, internal):
    """Return the atom on a, b and c as the point of a frame in which they lie at known places: a plain NumPy oracle."""
    a, b, c = fourth
    length, angle, torsion = internal
    x = (b - c) / np.linalg.norm(b - c)
    y = (a - b) - ((a - b) @ x) * x
    y /= np.linalg.norm(y)
    z = np.cross(x, y)
    # seen along b -> c, that is along -x, the torsion turns clockwise from y: towards -z
    return c + length * (math.cos(angle) * x + math.sin(angle) * (math.cos(torsion) * y - math.sin(torsion) * z))


def test_internal_coordinates_are_those_of_mdtraj():
    positions = random_structure(RESIDUES, 3, seed=1)
    internal = TraceCoordinates(RESIDUES).to_internal(positions)
    rows = hangs_on(RESIDUES)
    atoms = rows[..., 0] * N_SLOTS + rows[..., 1]  # (n_atoms, 4)
    frames = mdtraj.Trajectory(positions.reshape(3, -1, 3).numpy(), None)
    columns = [INTERNAL_SLOTS.index(slot) for slot in rows[:, 0, 1]]
    found = internal[:, rows[:, 0, 0], columns]
    expected = np.stack(
        [
            mdtraj.compute_distances(frames, atoms[:, :2], opt=False),
            mdtraj.compute_angles(frames, atoms[:, :3], opt=False),
            mdtraj.compute_dihedrals(frames, atoms[:, ::-1], opt=False),
        ],
        axis=-1,
    )
    assert len(rows) == RESIDUES.has_atom.sum() - len(RESIDUES)
    assert difference(found, torch.tensor(expected)) < 2e-4  # mdtraj takes the angle from its cosine in float32
    found[..., 1], expected[..., 1] = 0, 0
    assert difference(found, torch.tensor(expected)) < 2e-5


def test_positions_are_those_of_atoms_placed_one_by_one():
    rng = np.random.default_rng(2)
    coordinates = TraceCoordinates(RESIDUES)
    trace = random_structure(RESIDUES, 1, seed=2, dtype=torch.float64)[:, :, CA]
    shape = (1, len(RESIDUES), 14)
    internal = np.stack(
        [rng.uniform(0.1, 0.2, shape), rng.uniform(0.4, 2.7, shape), rng.uniform(-4, 4, shape)], axis=-1
    )
    built = coordinates.to_cartesian(trace, torch.tensor(internal)).numpy()[0]
    expected = np.repeat(trace.numpy()[0, :, None], N_SLOTS, axis=1)
    order = {"N": 0, "C": 0}
    rows = hangs_on(RESIDUES)
    names = RESIDUES.atom_names
    for row in sorted(rows.tolist(), key=lambda row: order.get(names[row[0][0]][row[0][1]], 1)):
        (residue, slot), *others = row
        corners = [expected[place, at] for place, at in reversed(others)]
        expected[residue, slot] = placed_one_by_one(corners, internal[0, residue, INTERNAL_SLOTS.index(slot)])
    np.testing.assert_allclose(built, expected, atol=1e-10)


def test_there_and_back_is_exact_from_positions():
    coordinates = TraceCoordinates(RESIDUES)
    positions = random_structure(RESIDUES, 4, seed=3)
    built = coordinates.to_cartesian(positions[:, :, CA], coordinates.to_internal(positions))
    assert built.dtype == torch.float32
    assert float((built - positions).abs().max()) < 1e-6


@pytest.mark.parametrize("file", ["tests/data/capped_peptide.pdb", "examples/data/two_chains.pdb"])
def test_there_and_back_is_exact_with_caps_and_bridges(file):
    """Real structures: nothing hangs on a bridge, so both sulphurs come back, and so do ends with and without OXT."""
    pdb = app.PDBFile(str(Path(__file__).parents[2] / file))
    places = np.array(pdb.positions.value_in_unit(unit.nanometer))
    slots = read_residue_slots(pdb.topology, places)
    assert slots.disulphides.tolist() == [[0, 7]]
    assert slots.residues.has_oxt.sum() == (0 if "capped" in file else 2)
    coordinates = TraceCoordinates(slots.residues)
    positions = torch.tensor(slots.take(places)[None])
    built = coordinates.to_cartesian(positions[:, :, CA], coordinates.to_internal(positions))
    assert float((built - positions).abs().max()) < 1e-10
    bridge = built[0, [0, 7], SG]
    assert float((bridge[0] - bridge[1]).norm()) == pytest.approx(0.2037, abs=1e-3)
    raw = 0.1 * torch.randn(2, len(slots.residues), 14, 3, generator=torch.Generator().manual_seed(12)).double()
    internal = coordinates.bounded(raw)
    again = coordinates.to_internal(coordinates.to_cartesian(positions[:, :, CA].expand(2, -1, -1), internal))
    assert difference(again, internal) < 1e-5


def test_there_and_back_is_exact_at_ends_without_oxt_and_at_breaks():
    """Every residue before and after a break in a chain, and at a capped end."""
    kinds = np.repeat(ALL, 6)
    joined = np.tile([True, True, True, False, True, True], len(ALL))
    joined[0] = False
    residues = describe_residues(kinds, is_joined=joined, has_oxt=np.zeros(len(kinds), dtype=bool))
    coordinates = TraceCoordinates(residues)
    positions = random_structure(residues, 2, seed=13, dtype=torch.float64)
    internal = coordinates.to_internal(positions)
    built = coordinates.to_cartesian(positions[:, :, CA], internal)
    assert float((built - positions).abs().max()) < 1e-10
    assert difference(coordinates.to_internal(built), internal) < 1e-10


def test_there_and_back_is_exact_from_internal_coordinates():
    coordinates = TraceCoordinates(RESIDUES)
    trace = random_structure(RESIDUES, 4, seed=4)[:, :, CA]
    raw = torch.randn(4, len(RESIDUES), 14, 3, generator=torch.Generator().manual_seed(4))
    raw[..., :2] *= 0.1
    internal = coordinates.bounded(raw)
    built = coordinates.to_cartesian(trace, internal)
    assert difference(coordinates.to_internal(built), internal) < 1e-5
    internal = internal.double()
    built = coordinates.to_cartesian(trace.double(), internal)
    assert difference(coordinates.to_internal(built), internal) < 1e-11


def test_turning_and_moving_changes_no_internal_coordinate_and_turns_what_is_built():
    coordinates = TraceCoordinates(RESIDUES)
    positions = random_structure(RESIDUES, 2, seed=5, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64))[0]
    turn = turn * torch.linalg.det(turn)
    moved = positions @ turn.T + torch.tensor([1.0, -2.0, 0.5])
    internal = coordinates.to_internal(positions)
    assert difference(coordinates.to_internal(moved), internal) < 1e-10
    built = coordinates.to_cartesian(moved[:, :, CA], internal)
    assert float((built - moved).abs().max()) < 1e-10
    mirrored = coordinates.to_internal(-positions)
    assert difference(mirrored * torch.tensor([1.0, 1.0, -1.0]), internal) < 1e-10


class Both(nn.Module):
    """Everything a model does with coordinates, as TorchScript sees it."""

    def __init__(self, residues):
        super().__init__()
        self.trace, self.frames, self.chirality = (
            TraceCoordinates(residues),
            FrameCoordinates(residues),
            Chirality(residues),
        )

    def forward(self, positions, raw):
        bounded = self.trace.bounded(raw)
        built = self.trace.to_cartesian(positions[:, :, 1], bounded)
        rotations, ca = residue_frames(built)
        torsions = self.frames.torsions(built)
        ideal = self.frames.to_cartesian(rotations, ca, torsions)
        return self.trace.to_internal(ideal), torsions, ideal, self.chirality(ideal)


def test_scripted_is_eager_and_a_batch_is_its_frames():
    both = Both(RESIDUES)
    scripted = torch.jit.script(both)
    positions = random_structure(RESIDUES, 3, seed=6)
    raw = 0.2 * torch.randn(3, len(RESIDUES), 14, 3, generator=torch.Generator().manual_seed(6))
    eager = both(positions, raw)
    for found, expected in zip(scripted(positions, raw), eager, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    for frame in range(3):
        single = both(positions[frame : frame + 1], raw[frame : frame + 1])
        for found, expected in zip(single, eager, strict=True):
            torch.testing.assert_close(found[0], expected[frame], rtol=0, atol=0)


def test_gradients_are_those_of_finite_differences():
    residues = describe_residues(np.array([RESIDUE_NAMES.index(name) for name in ("TRP", "PRO", "THR")]))
    coordinates = TraceCoordinates(residues)
    positions = random_structure(residues, 1, seed=7, dtype=torch.float64)
    internal = coordinates.to_internal(positions)
    there = residues.has_atom[:, list(INTERNAL_SLOTS)]

    def build(trace, values):
        filled = torch.zeros_like(internal).index_put((torch.tensor([0]), *map(torch.tensor, there.nonzero())), values)
        return coordinates.to_cartesian(trace, filled)

    trace = positions[:, :, CA].clone().requires_grad_()
    assert torch.autograd.gradcheck(build, (trace, internal[0][torch.tensor(there)].requires_grad_()))
    assert torch.autograd.gradcheck(coordinates.to_internal, (positions.requires_grad_(),))


def test_gradients_are_finite_where_atoms_lie_on_a_line_or_on_each_other():
    residues = describe_residues(np.array([1, 17, 14, 9]))
    coordinates, frames = TraceCoordinates(residues), FrameCoordinates(residues)
    line = torch.zeros(1, 4, 3)
    line[0, :, 0] = 0.38 * torch.arange(4)
    for trace in (line, torch.zeros(1, 4, 3)):
        trace.requires_grad_()
        internal = coordinates.ideal.clone()[None].requires_grad_()
        built = coordinates.to_cartesian(trace, internal)
        again = coordinates.to_internal(built)
        rotations, ca = residue_frames(built)
        ideal = frames.to_cartesian(rotations, ca, frames.torsions(built))
        for gradient in torch.autograd.grad(again.sum() + ideal.sum(), (trace, internal)):
            assert bool(torch.isfinite(gradient).all())


def test_whatever_a_network_says_residues_are_l():
    coordinates, chirality = TraceCoordinates(RESIDUES), Chirality(RESIDUES)
    trace = random_structure(RESIDUES, 8, seed=8)[:, :, CA]
    raw = 10 * torch.randn(8, len(RESIDUES), 14, 3, generator=torch.Generator().manual_seed(8))
    bounded = coordinates.bounded(raw)[:, RESIDUES.has_atom[:, list(INTERNAL_SLOTS)]]
    assert float(bounded[..., 0].min()) > 0.08
    assert 0.04 < float(bounded[..., 1].min()) < float(bounded[..., 1].max()) < math.pi - 0.04
    built = coordinates.to_cartesian(trace, coordinates.bounded(raw))
    assert bool(chirality(built).all())
    assert not bool((chirality(-built) & (chirality.handedness != 0)).any())


def test_chirality_sees_one_wrong_centre():
    positions = random_structure(RESIDUES, 1, seed=9)
    chirality = Chirality(RESIDUES)
    assert bool(chirality(positions).all())
    threonine = RESIDUE_NAMES.index("THR")
    positions[0, threonine, 5] = 2 * positions[0, threonine, 4] - positions[0, threonine, 5]  # OG1 through CB
    wrong = (~chirality(positions)).nonzero().tolist()
    assert wrong == [[0, threonine, 1]]


def test_zero_is_the_ideal_and_small_numbers_are_taken_as_they_are():
    coordinates = TraceCoordinates(RESIDUES)
    raw = torch.zeros(1, len(RESIDUES), 14, 3)
    torch.testing.assert_close(coordinates.bounded(raw)[0], coordinates.ideal)
    moved = coordinates.bounded(raw + 1e-3)[0] - coordinates.ideal
    there = coordinates.ideal[..., 0] > 0
    torch.testing.assert_close(moved[..., 2][there], torch.full_like(moved[..., 2][there], 1e-3), atol=1e-6, rtol=0)
    torch.testing.assert_close(moved[..., 0], 1e-3 * coordinates.ideal[..., 0], atol=1e-7, rtol=0)
    assert not moved[~there].any()


def test_absent_atoms_lie_on_their_alpha_carbon():
    residues = describe_residues(np.array([UNKNOWN, 7, 0]))
    coordinates = TraceCoordinates(residues)
    trace = torch.tensor([[[0.0, 0, 0], [0.38, 0, 0], [0.5, 0.36, 0]]])
    built = coordinates.to_cartesian(trace, coordinates.ideal[None])
    absent = ~coordinates.has_atom
    np.testing.assert_array_equal(built[0][absent], trace[0, :, None].expand(-1, N_SLOTS, -1)[absent])
    assert not coordinates.to_internal(built)[0][absent[:, list(INTERNAL_SLOTS)]].any()


def test_stretches_shorter_than_three_residues_look_across_a_break():
    joined = np.array([False, True, True, True, False, True, False, True, True])
    anchors, places = trace_anchors(describe_residues(np.zeros(9, dtype=int), is_joined=joined))
    assert places.tolist() == [0, 1, 1, 2, 1, 1, 0, 1, 2]
    assert anchors[3].tolist() == [[2, 1], [2, 1]]  # the end of a stretch
    assert anchors[4].tolist() == [[3, 5], [5, 3]]  # a short one
    assert anchors[6].tolist() == [[7, 8], [7, 8]]  # a start


@pytest.mark.parametrize("n_residues", [1, 2])
def test_chains_of_one_or_two_residues_are_refused_on_a_trace(n_residues):
    residues = describe_residues(np.zeros(3 + n_residues, dtype=int), np.repeat([0, 9], [3, n_residues]))
    with pytest.raises(LatentError, match=f"at least 3 residues in each chain .* got {n_residues} in chain 9; leave"):
        TraceCoordinates(residues)
    FrameCoordinates(residues)


def peptide(residues, seed):
    """Return positions (1, n_residues, 15, 3) [nm] built along the chain, phi, psi (n_residues,), chi (n_residues, 4).

    An oracle of its own: backbone by NumPy from the table's peptide bond, side chains by the references one by one.
    """
    rng, tables = np.random.default_rng(seed), residue_tables()
    phi, psi, chi = rng.uniform(-3, 3, len(residues)), rng.uniform(-3, 3, len(residues)), None
    chi = rng.uniform(-3, 3, (len(residues), 4))
    atoms = [np.zeros(3), np.array([0.1, 0, 0]), np.array([0.1, 0.1, 0])]
    positions = np.zeros((len(residues), N_SLOTS, 3))
    c_n, ca_c_n, c_n_ca = tables.peptide
    for i, kind in enumerate(residues.types):
        ideal = tables.ideal[kind]
        atoms.append(placed_one_by_one(atoms[-3:], (c_n, ca_c_n, psi[i - 1])))
        atoms.append(placed_one_by_one(atoms[-3:], (ideal[0, 0], c_n_ca, math.pi)))
        atoms.append(placed_one_by_one(atoms[-3:], (ideal[2, 0], ideal[0, 1], phi[i])))
        positions[i, :3] = atoms[-3:]
        for slot, name in enumerate(residues.atom_names[i]):
            if slot > 2 and name:
                values = tables.end[slot] if residues.has_oxt[i] and slot in (3, 14) else ideal[slot]
                torsion = psi[i] + math.pi if slot == 3 else values[2]
                if tables.chi[kind, slot]:
                    torsion = chi[i, tables.chi[kind, slot] - 1]
                corners = [positions[i, place] for place in tables.references[kind, slot][::-1]]
                positions[i, slot] = placed_one_by_one(corners, (*values[:2], torsion))
            elif not name:
                positions[i, slot] = positions[i, 1]
    return torch.tensor(positions[None]), phi, psi, chi


def test_frames_and_torsions_build_all_residues_and_are_read_back():
    residues = describe_residues(np.concatenate([ALL, ALL[::-1]]), np.repeat([0, 1], 20))
    expected, phi, psi, chi = peptide(residues, seed=10)
    coordinates = FrameCoordinates(residues)
    torsions = coordinates.torsions(expected)
    known = np.concatenate([np.full((40, 1), math.pi), phi[:, None], psi[:, None], chi], axis=1)
    gap = np.angle(np.exp(1j * (torsions.numpy()[0] - known)))
    has_torsion = coordinates.has_torsion.numpy()
    assert np.abs(gap[has_torsion]).max() < 1e-6
    assert not torsions.numpy()[0][~has_torsion].any()
    assert has_torsion.sum(axis=0)[:3].tolist() == [38, 38, 40]
    # what lies after psi is the next residue: O is opposite to its N
    next_n = placed_one_by_one(expected[0, 4, :3].numpy(), (*residue_tables().peptide[:2], psi[4]))
    np.testing.assert_allclose(expected[0, 5, 0], next_n, atol=1e-9)
    rotations, ca = residue_frames(expected)
    built = coordinates.to_cartesian(rotations, ca, torch.tensor(known)[None])
    np.testing.assert_allclose(built, expected, rtol=0, atol=5e-7)  # tables of modules are float32
    assert bool(Chirality(residues)(built).all())


def test_frames_of_built_residues_are_those_given():
    residues = describe_residues(ALL)
    coordinates = FrameCoordinates(residues)
    generator = torch.Generator().manual_seed(11)
    rotations = torch.linalg.qr(torch.randn(2, 20, 3, 3, generator=generator))[0]
    rotations = rotations * torch.linalg.det(rotations)[..., None, None]
    ca = torch.randn(2, 20, 3, generator=generator)
    torsions = 6 * torch.rand(2, 20, 7, generator=generator) - 3
    built = coordinates.to_cartesian(rotations, ca, torsions)
    again, ca_again = residue_frames(built)
    torch.testing.assert_close(again, rotations, rtol=0, atol=2e-6)
    torch.testing.assert_close(ca_again, ca, rtol=0, atol=0)
    slots = (0, 1, 2)
    expected = backbone.residue_frames(*(built.numpy()[:, :, slot] for slot in slots))
    np.testing.assert_allclose(again, expected, atol=2e-6)
    assert bool(Chirality(residues)(built).all())
    free = coordinates.has_torsion.clone()
    free[:, :2] = False  # they place nothing
    gap = (coordinates.torsions(built) - torsions)[:, free]
    assert float((torch.remainder(gap + math.pi, 2 * math.pi) - math.pi).abs().max()) < 1e-5


def test_ideal_residues_have_closed_rings():
    residues = describe_residues(ALL)
    coordinates = FrameCoordinates(residues)
    ideal = TraceCoordinates(residues).ideal
    torsions = torch.zeros(1, 20, 7)
    proline = RESIDUE_NAMES.index("PRO")
    torsions[0, proline, 3:5] = ideal[proline, [4, 5], 2]
    built = coordinates.to_cartesian(torch.eye(3).expand(1, 20, 3, 3), 2.0 * torch.arange(60).view(1, 20, 3), torsions)
    pairs, lengths = bond_pairs(describe_residues(ALL, is_joined=np.zeros(20, dtype=bool)))
    flat = built.reshape(-1, 3)
    found = (flat[pairs[:, 0]] - flat[pairs[:, 1]]).norm(dim=1)
    np.testing.assert_allclose(found, lengths, atol=3e-3)
