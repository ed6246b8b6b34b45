"""Exchanged side chains: backbones stay, side chains are those of others of the kind, and none overlap."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from backmapped import load_l_peptides
from openmm_latent.data.residue_slots import protein_frames
from openmm_latent.errors import LatentError
from openmm_latent.models.codlad.losses import LossTables
from openmm_latent.nn.internal_coordinates import Chirality, TraceCoordinates
from openmm_latent.nn.residue_geometry import CA, CB, INTERNAL_SLOTS, OXT, RESIDUE_NAMES, C, N, O
from openmm_latent.training.codlad_side_chains import NEAREST, exchange_side_chains
from trace_peptides import peptide_frames

SEQUENCE = "ARNDCQEGHILKMFPSTWYVLKLK"


@pytest.fixture(scope="module")
def examples():
    """Two proteins of the same residues in other orders, and torsions at random."""
    first = peptide_frames(SEQUENCE, 3, 1, chains=np.zeros(len(SEQUENCE), dtype=int))
    second = peptide_frames(SEQUENCE[::-1], 1, 2, chains=np.zeros(len(SEQUENCE), dtype=int))
    return [first, second]


def internal_of(example):
    return TraceCoordinates(example.residues).to_internal(torch.as_tensor(example.positions)).numpy()


def test_backbones_stay_and_side_chains_are_those_of_others(examples):
    found = exchange_side_chains(examples, 6, seed=2)
    assert [len(one) for one in found] == [6, 6]
    columns = [i for i, slot in enumerate(INTERNAL_SLOTS) if slot > CB and slot != OXT]
    known = {}
    for example in examples:
        for kind in np.unique(example.residues.types):
            rows = internal_of(example)[:, example.residues.types == kind][:, :, columns]
            known.setdefault(kind, []).append(rows.reshape(-1, len(columns), 3))
    n_changed = 0
    for example, other in zip(examples, found, strict=True):
        places = np.linspace(0, len(example) - 1, 6).round().astype(int)
        kept = [N, CA, C, O, CB, OXT]
        np.testing.assert_allclose(other.positions[:, :, kept], example.positions[places][:, :, kept], atol=2e-6)
        internal = internal_of(other)
        for residue, kind in enumerate(example.residues.types):
            rows = np.concatenate(known[kind])
            for frame in range(6):
                gap = internal[frame, residue, columns][None] - rows
                gap[..., 2] = np.sin(0.5 * gap[..., 2])
                assert np.abs(gap).max((1, 2)).min() < 1e-3, (residue, RESIDUE_NAMES[kind])
        n_changed += int((np.abs(other.positions - example.positions[places]).max((2, 3)) > 0.02).sum())
    assert n_changed > 20
    assert bool(Chirality(found[0].residues)(torch.as_tensor(found[0].positions)).all())


def test_what_would_overlap_is_put_back(examples):
    for example, other in zip(examples, exchange_side_chains(examples, 8), strict=True):
        tables = LossTables(example.residues, example.disulphides)
        places = np.linspace(0, len(example) - 1, 8).round().astype(int)
        before = len(tables.near_pairs(torch.as_tensor(example.positions[places]), NEAREST - 1e-4))
        after = len(tables.near_pairs(torch.as_tensor(other.positions), NEAREST - 1e-4))
        assert after <= before


def test_prolines_and_disulphides_keep_theirs(examples):
    # the first and the last cysteine are taken for a disulphide: all that matters is that they stay
    sequence = "GCPCG"
    example = peptide_frames(sequence, 4, 3, chains=np.zeros(5, dtype=int))
    assert exchange_side_chains([replace(example, disulphides=np.array([[1, 3]]))], 4) == []
    free = exchange_side_chains([replace(example, disulphides=np.zeros((0, 2), dtype=int))], 4)[0]
    np.testing.assert_allclose(free.positions[:, 2], example.positions[:, 2], atol=2e-6)


def test_a_seed_gives_one_result(examples):
    first, again, other = (exchange_side_chains(examples, 4, seed=seed) for seed in (3, 3, 4))
    assert all(np.array_equal(one.positions, two.positions) for one, two in zip(first, again, strict=True))
    assert any(not np.array_equal(one.positions, two.positions) for one, two in zip(first, other, strict=True))


def test_no_frames_are_refused(examples):
    with pytest.raises(LatentError, match="n_frames must be at least 1, got 0"):
        exchange_side_chains(examples, 0)


def test_learned_peptides_have_hands_after_exchange():
    topology, positions = load_l_peptides()
    example = protein_frames(topology, [positions[None]])
    for other in exchange_side_chains([example], 3):
        assert bool(Chirality(other.residues)(torch.as_tensor(other.positions)).all())
