"""Error bars against their coverage, and floors."""

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import norm

from openmm_latent import metrics
from openmm_latent.errors import LatentError


def test_block_bootstrap_interval_of_independent_frames():
    # Blocks of a Bernoulli series: the interval must be p +- 1.96 sqrt(p q / n), here 0.0057, within 30 %.
    inside = np.random.default_rng(9).uniform(size=20_000) < 0.2
    low, high = metrics.block_bootstrap_interval(inside, 50, seed=1)
    assert low < inside.mean() < high
    assert np.isclose(high - low, 2 * 1.96 * np.sqrt(0.16 / 20_000), rtol=0.3)
    with pytest.raises(LatentError, match="n_blocks must not exceed"):
        metrics.block_bootstrap_interval(inside[:5], 10, seed=1)


def test_two_state_interval_covers_a_known_population():
    # 200 telegraph processes with population 0.2: 95 % intervals miss 5 % +- 1.5 % of them; more than 12 % has a false
    # alarm rate below 1e-4.
    random = np.random.default_rng(10)
    missed = 0
    for _ in range(200):
        dwell = np.stack([random.exponential(400.0, 20), random.exponential(100.0, 20)], axis=1).ravel()
        series = np.repeat(np.tile([False, True], 20), np.maximum(1, dwell.round().astype(int)))[:6000]
        found = metrics.two_state_interval(series, 1.0, seed=1, n_draws=2000)
        missed += not found["low"] < 0.2 < found["high"]
    assert missed < 24
    assert set(found) >= {"population", "dwell_inside", "dwell_outside", "relaxation", "n_entries", "n_exits"}
    with pytest.raises(LatentError, match="must cross both ways"):
        metrics.two_state_interval(np.zeros(10, dtype=bool), 1.0, seed=1)


def test_runs_are_not_joined_into_crossings():
    """Closed form: two runs with one entry and one exit each; end to end they would have one more of each."""
    run = np.array([0, 0, 1, 1, 1, 0], dtype=bool)
    found = metrics.two_state_interval([run, ~run], 2.0, seed=1)
    assert (found["n_entries"], found["n_exits"]) == (2, 2)
    assert found["population"] == 0.5
    assert found["dwell_inside"] == 6.0
    joined = metrics.two_state_interval(np.concatenate([run, ~run]), 2.0, seed=1)
    assert (joined["n_entries"], joined["n_exits"]) == (3, 2)


def test_core_states_ignore_recrossings():
    position = np.array([0.5, -1.0, 0.2, -0.1, 0.3, 1.0, -0.5, 0.4, -1.2])
    states = metrics.core_states(position > 0.9, position < -0.9)
    assert states.astype(int).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0]
    with pytest.raises(LatentError, match="must not share a frame"):
        metrics.core_states(position > 0, position > 0.4)


def autoregressive(n_frames: int, seed: int) -> np.ndarray:
    """A stationary series with correlation 0.9^lag, worth one independent sample in 19 frames."""
    noise = np.random.default_rng(seed).standard_normal(n_frames)
    noise[1:] *= np.sqrt(1 - 0.9**2)
    return lfilter([1.0], [1.0, -0.9], noise)


def test_bootstrap_interval_of_a_mean_covers_at_its_rate():
    """Oracle: the known mean. Of 200 intervals at 90 %, 180 +- 4 hold it.

    Blocks of 400 frames are worth 21 samples each, so that some correlation is lost: 88 to 90 % of 300 others held it.
    Fewer than 160 or more than 194 has a false alarm rate below 1e-3.
    """
    held = 0
    for seed in range(200):
        blocks = metrics.contiguous_blocks([autoregressive(4000, seed), autoregressive(4000, seed + 1000)], 20)
        low, high = metrics.bootstrap_interval(
            lambda chosen: float(np.mean(chosen)), [block.mean() for block in blocks], seed=seed, n_resamples=200
        )
        held += low < 0.0 < high
    assert 160 <= held <= 194


def test_bootstrap_interval_of_a_divergence_covers_its_expectation():
    """Oracle: the mean JSD of 100 independent samples of this length, against a shifted reference.

    88 % of 300 others held it: fewer than 74 or more than 99 of 100 has a false alarm rate below 1e-3.
    """
    edges = np.array([-9.0, -1.5, -0.7, 0.0, 0.7, 1.5, 9.0])
    reference = np.diff(norm.cdf(edges - 1.0))
    scores, intervals = [], []
    for seed in range(100):
        blocks = metrics.contiguous_blocks([autoregressive(8000, seed)], 10)
        counts = [np.histogram(block, edges)[0] for block in blocks]
        scores.append(metrics.jsd(sum(counts), reference))
        intervals.append(
            metrics.bootstrap_interval(lambda c: metrics.jsd(sum(c), reference), counts, seed=seed, n_resamples=200)
        )
    held = sum(low < np.mean(scores) < high for low, high in intervals)
    assert 74 <= held <= 99


def test_few_blocks_get_wide_intervals():
    """Closed form: 4 equal steps; Student's t widens a 90 % interval beyond what the bootstrap alone gives."""
    blocks = [0.0, 1.0, 2.0, 3.0]
    low, high = metrics.bootstrap_interval(lambda c: float(np.mean(c)), blocks, seed=1, n_resamples=4000)
    naive = 1.645 * np.std(blocks) / 2
    assert low < 1.5 - 1.2 * naive
    assert high > 1.5 + 1.2 * naive
    assert metrics.bootstrap_interval(np.mean, blocks, seed=1) == metrics.bootstrap_interval(np.mean, blocks, seed=1)
    with pytest.raises(LatentError, match="blocks must be at least three, got 2"):
        metrics.bootstrap_interval(np.mean, blocks[:2], seed=1)
    with pytest.raises(LatentError, match="confidence must lie between 0 and 1"):
        metrics.bootstrap_interval(np.mean, blocks, seed=1, confidence=90)


def test_blocks_cover_every_frame_once_and_cross_no_run():
    runs = [np.arange(0, 100), np.arange(100, 137), np.arange(137, 140)]
    blocks = metrics.contiguous_blocks(runs, 14)
    assert np.array_equal(np.concatenate(blocks), np.arange(140))
    assert len(blocks) == 15
    for block in blocks:
        assert np.shares_memory(block, next(run for run in runs if block[0] in run))
    assert [len(block) for block in blocks[-1:]] == [3]
    with pytest.raises(LatentError, match="n_blocks must be from 1 to the 140 frames, got 141"):
        metrics.contiguous_blocks(runs, 141)


def test_floor_of_halves_and_of_replicas():
    """Closed form: the score is the difference of two means."""
    score = lambda a, b: abs(float(a.mean() - b.mean()))  # noqa: E731
    assert metrics.halves_floor(score, np.array([0.0, 2.0, 10.0, 12.0, 99.0])) == 10.0
    assert metrics.halves_floor(score, [np.array([0.0, 2.0, 10.0, 12.0])]) == 10.0
    one, two, six = np.zeros(4), np.full(4, 1.0), np.full(4, 5.0)
    assert metrics.halves_floor(score, [one, six]) == 5.0
    # Three: each against each.
    assert np.isclose(metrics.halves_floor(score, [one, two, six]), (1 + 5 + 4) / 3)
    # Four: 01|23, 02|13, 03|12.
    assert np.isclose(metrics.halves_floor(score, [one, two, six, six]), (4.5 + 0.5 + 0.5) / 3)
    assert metrics.halves_floor(score, [np.ones(3)] * 9) == 0.0
    with pytest.raises(LatentError, match="at least two frames"):
        metrics.halves_floor(score, np.zeros(1))
    with pytest.raises(LatentError, match="at least one run"):
        metrics.halves_floor(score, [])
