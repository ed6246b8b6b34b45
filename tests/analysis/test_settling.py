"""How much to drop after a jump."""

import numpy as np
import pytest
from scipy.stats import binom

from openmm_latent.analysis import find_dropped_time, make_segments


def warming(n_segments, n_frames, memory, seed, shift=1.5, observed=True):
    """Segments whose feature wanders and whose energy starts `shift` sd too low and forgets it in `memory` frames."""
    random = np.random.default_rng(seed)
    features, energies = [], []
    for _ in range(n_segments):
        noise = random.standard_normal((n_frames, 2))
        position = np.empty(n_frames)
        position[0] = random.uniform(-2, 2)  # where jumps put it: not where it would be at equilibrium
        for frame in range(1, n_frames):
            position[frame] = 0.98 * position[frame - 1] + 0.2 * noise[frame, 0]
        features.append(position)
        started = shift * np.exp(-np.arange(n_frames) / memory) if memory else 0.0
        energies.append(position + noise[:, 1] - started)
    return make_segments(features, 1.0, observables=energies if observed else None)


def test_what_is_settled_from_the_start_keeps_all_frames():
    """Of 60 sets at the 5 % level: up to 8 may fail at 0 ps, 1 % false alarm (the bound by Bonferroni is coarse)."""
    n_sets = 60
    refused = 0
    for seed in range(n_sets):
        found = find_dropped_time(
            warming(60, 30, memory=0, seed=seed), 1.0, level=0.05, n_permutations=400, seed=seed, n_regions=4
        )
        refused += not found.ladder[0]["passes"]
    assert binom.sf(8, n_sets, 0.05) < 0.011
    assert refused <= 8


@pytest.mark.parametrize("memory", [2.0, 6.0])
def test_memory_of_the_jump_is_dropped(memory):
    found = find_dropped_time(warming(500, 80, memory, seed=1), 1.0, seed=1)
    # What is left of the shift after the time chosen is 0.4 sd at most; before it, the test saw it.
    assert 1.5 * np.exp(-found.dropped_time / memory) < 0.4
    assert found.dropped_time < 8 * memory
    assert not found.ladder[0]["passes"]
    assert found.n_observables == 3


def test_a_memory_longer_than_the_relaxation_is_refused():
    found = find_dropped_time(warming(500, 30, memory=40.0, seed=1, shift=8.0), 1.0, seed=1)
    assert found.dropped_time is None
    assert "still differ from late ones 12 ps after it: make the relaxations longer" in found.problem()


def test_too_few_segments_are_refused():
    found = find_dropped_time(warming(10, 30, memory=0, seed=1), 1.0)
    assert found.dropped_time is None
    assert "fewer than 20 segments of 8 frames are there" in found.problem()


def test_features_alone_will_do():
    found = find_dropped_time(warming(100, 30, memory=0, seed=1, observed=False), 1.0)
    assert found.n_observables == 2
    assert found.dropped_time is not None
