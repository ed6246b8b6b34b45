"""Side chains that overlap are exchanged among samples on one trace: less overlap, and nothing else changes."""

import numpy as np
import pytest
import torch

from backmapped import load_l_peptides, random_model
from openmm_latent.backmapping import load_backmapper
from openmm_latent.data.residue_slots import read_residue_slots
from openmm_latent.errors import LatentError
from openmm_latent.models.codlad.losses import LossTables
from openmm_latent.models.codlad.module import BackmappedProtein
from openmm_latent.models.codlad.packing import NEAREST, Packing
from openmm_latent.nn.internal_coordinates import Chirality
from openmm_latent.nn.residue_geometry import CA

TOPOLOGY, POSITIONS = load_l_peptides()
SLOTS = read_residue_slots(TOPOLOGY, POSITIONS)
RESIDUES = SLOTS.residues
TRACE = torch.tensor(SLOTS.take(POSITIONS)[:, CA], dtype=torch.float32)
MODULE = BackmappedProtein(random_model(), RESIDUES, np.flatnonzero(RESIDUES.has_atom)).eval()
PACKING = Packing(MODULE, RESIDUES)


def noise(n_samples, seed=1):
    return torch.randn(n_samples, MODULE.n_noise, generator=torch.Generator().manual_seed(seed))


def as_slots(atoms):
    """Return slots of atoms (n, n_atoms, 3), (n, n_residues, 15, 3), an empty one on its Cα."""
    slots = TRACE.view(1, -1, 1, 3).repeat(len(atoms), 1, 15, 1)
    flat = slots.view(len(atoms), -1, 3)
    flat[:, MODULE.slots] = atoms
    return slots


def drawn(n_samples):
    with torch.no_grad():
        return MODULE.backmap(TRACE.expand(n_samples, -1, -1), noise(n_samples))


def test_overlaps_are_those_of_all_pairs():
    """By hand: every pair of atoms that is neither bonded nor bonded to a common atom."""
    slots = as_slots(drawn(1))
    tables = LossTables(RESIDUES)
    flat, expected = slots[0].reshape(-1, 3).double(), torch.zeros(len(RESIDUES), dtype=torch.float64)
    near = set(tables.bonded_numbers.tolist())
    for i, first in enumerate(tables.held):
        for second in tables.held[i + 1 :]:
            apart = float((flat[first] - flat[second]).norm())
            if apart < NEAREST and first * tables.n_atoms + second not in near:
                for atom in (first, second):
                    expected[atom // 15] += ((NEAREST - apart) / 0.1) ** 2
    assert float(expected.max()) > 0.1
    torch.testing.assert_close(PACKING.overlaps(slots)[0].double(), expected, atol=1e-4, rtol=1e-4)


def test_packed_samples_overlap_less_and_keep_trace_and_hands():
    before, after = drawn(8), PACKING.samples(TRACE, noise(8), [1])
    worse, better = (PACKING.overlaps(as_slots(atoms)).sum(1) for atoms in (before, after))
    assert bool((better <= worse + 1e-5).all())
    assert float(better.sum()) < 0.7 * float(worse.sum())
    assert torch.equal(after[:, MODULE.cas], TRACE.expand(8, -1, -1))
    assert bool(Chirality(RESIDUES)(as_slots(after)).all())


def test_samples_that_fit_are_as_drawn(monkeypatch):
    monkeypatch.setattr("openmm_latent.models.codlad.packing._TOLERATED", float("inf"))
    torch.testing.assert_close(PACKING.samples(TRACE, noise(3), [1]), drawn(3), atol=1e-5, rtol=0)


def test_the_first_samples_are_those_of_all():
    few, everything = (PACKING.samples(TRACE, noise(4), [1], n_wanted) for n_wanted in (2, 9))
    torch.testing.assert_close(few, everything[:2], atol=1e-6, rtol=0)
    assert len(everything) == 4


def test_a_seed_gives_one_result():
    one, again, other = (PACKING.samples(TRACE, noise(4), [seed]) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_no_candidates_are_refused(tmp_path):
    path = tmp_path / "any.weights.pt"
    path.touch()
    with pytest.raises(LatentError, match="n_candidates must be at least 1, got 0; 1 takes samples as drawn"):
        load_backmapper(path, None, n_candidates=0)
