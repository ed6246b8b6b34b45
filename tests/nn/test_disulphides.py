"""Bridges that are closed after side chains were drawn."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from gaussian_proteins import load_two_chains
from openmm_latent.data.residue_slots import read_residue_slots
from openmm_latent.errors import LatentError
from openmm_latent.nn.disulphides import Disulphides
from openmm_latent.nn.internal_coordinates import TraceCoordinates
from openmm_latent.nn.residue_geometry import CA, CB, INTERNAL_SLOTS, SG, residue_tables

TOPOLOGY, POSITIONS = load_two_chains()
SLOTS = read_residue_slots(TOPOLOGY, POSITIONS)
BRIDGES = Disulphides(SLOTS.residues, SLOTS.disulphides)
FRAME = torch.tensor(SLOTS.take(POSITIONS)[None])
ENDS = SLOTS.disulphides[0]


def turned_frames(n, seed=1):
    """Return the structure with both cysteines' chi1 anywhere: (n, 13, 15, 3) [nm], double precision."""
    coordinates = TraceCoordinates(SLOTS.residues)
    internal = coordinates.to_internal(FRAME).repeat(n, 1, 1, 1)
    chi = 2 * torch.pi * torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    internal[:, ENDS, INTERNAL_SLOTS.index(SG), 2] = chi
    return coordinates.to_cartesian(FRAME[:, :, CA].expand(n, -1, -1), internal)


def bridge_of(frames):
    """Return S-S and both C-S distances [nm], and the angles C-S-S and CA-C-S [rad] at both ends."""
    alphas, carbons, sulphurs = (frames[:, ENDS, slot] for slot in (CA, CB, SG))  # (n, 2, 3)
    bond = sulphurs[:, 1] - sulphurs[:, 0]
    across = torch.stack([bond, -bond], dim=1)
    to_carbon, to_alpha = carbons - sulphurs, alphas - carbons

    def angle(first, second):
        cosine = (first * second).sum(-1) / (first.norm(dim=-1) * second.norm(dim=-1))
        return torch.rad2deg(torch.arccos(cosine))

    return bond.norm(dim=-1), to_carbon.norm(dim=-1), angle(to_carbon, across), angle(to_alpha, -to_carbon)


def test_bridges_close_from_any_rotamer():
    """The bridge of the first chain, from 50 random pairs of chi1: lengths as in the tables, angles as in proteins."""
    assert SLOTS.disulphides.tolist() == [[0, 7]]
    before = turned_frames(50)
    assert float(bridge_of(before)[0].median()) > 0.3
    after = BRIDGES(before)
    bond, arms, at_sulphur, at_carbon = bridge_of(after)
    assert float((bond - 0.2038).abs().max()) < 1e-4
    assert float((arms - residue_tables().ideal[SLOTS.residues.types[ENDS[0]], SG, 0]).abs().max()) < 1e-6
    assert float((at_sulphur - 104).abs().max()) < 8
    assert float((at_carbon - 114).abs().max()) < 8
    moved = (after - before).norm(dim=-1) > 0
    assert moved.sum(dim=(1, 2)).tolist() == [2] * 50
    assert bool(moved[:, ENDS, SG].all())


def test_a_bridge_that_is_closed_stays():
    after = BRIDGES(FRAME)
    assert float((after - FRAME).norm(dim=-1).max()) < 0.02


def test_closing_turns_with_the_frame_and_is_the_same_in_a_batch_and_scripted():
    before = turned_frames(4)
    after = BRIDGES(before)
    turn = torch.tensor(Rotation.random(random_state=3).as_matrix())
    torch.testing.assert_close(BRIDGES(before @ turn.T + 2.0), after @ turn.T + 2.0, atol=1e-9, rtol=0)
    torch.testing.assert_close(BRIDGES(before[2:3]), after[2:3], atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.jit.script(BRIDGES)(before), after, atol=1e-12, rtol=0)
    assert BRIDGES(before.float()).dtype == torch.float32


def test_sulphurs_keep_away_from_others():
    """An atom where the bridge would lie, drawn or not, makes it take another way."""
    plain = BRIDGES(turned_frames(1))
    blocked = turned_frames(1)
    blocked[0, 4, CB] = plain[0, ENDS[0], SG] + 0.01
    after = BRIDGES(blocked)
    assert float((after[0, ENDS[0], SG] - blocked[0, 4, CB]).norm()) > 0.15


def test_ends_too_far_apart_stay_whole():
    frame = FRAME.clone()
    frame[:, 7] += 3.0
    bond, arms, _, _ = bridge_of(BRIDGES(frame))
    assert float(bond) > 1.0
    np.testing.assert_allclose(arms, BRIDGES.arm, atol=1e-9)


def test_other_residues_are_refused():
    with pytest.raises(LatentError, match=r"disulphides must join two CYS residues, got \[0, 1\]; count residues from"):
        Disulphides(SLOTS.residues, np.array([[0, 1]]))
