"""Effective sample sizes against closed forms."""

import numpy as np
import pytest
from scipy.signal import lfilter

from openmm_latent import metrics
from openmm_latent.errors import LatentError


def autoregressive(n_frames: int, memory: float, seed: int) -> np.ndarray:
    """A stationary series with correlation memory^lag."""
    noise = np.random.default_rng(seed).standard_normal(n_frames)
    noise[1:] *= np.sqrt(1.0 - memory**2)
    return lfilter([1.0], [1.0, -memory], noise)


def test_effective_sample_size_of_an_autoregressive_series():
    # rho(lag) = a^lag, so N / (-1 + 2 sum rho) = N (1 - a) / (1 + a). At a = 0.9 the noise in rho's tail spreads it by
    # 3.6 %, with a long lower tail: the worst of 3000 other seeds was off by 21 %. At 0.5 and 0 the worst of 200 was
    # off by 5.5 and 3.5 %. False alarm below 1e-3 for the first bound, below 1e-2 for each of the others.
    for memory, tolerance in ((0.9, 0.3), (0.5, 0.12), (0.0, 0.08)):
        expected = 200_000 * (1 - memory) / (1 + memory)
        assert np.isclose(metrics.effective_sample_size(autoregressive(200_000, memory, 12)), expected, rtol=tolerance)
    # A scale or a shift changes nothing; alternating series are worth no more than their frames.
    series = autoregressive(5000, 0.8, 13)
    assert np.isclose(metrics.effective_sample_size(1e3 * series - 50.0), metrics.effective_sample_size(series))
    assert np.isclose(metrics.effective_sample_size(np.tile([1.0, -1.0], 50)), 100)


def test_effective_sample_size_of_several_runs():
    # Ten runs of 20 000 frames are worth one of 200 000 (the worst of 200 others was off by 17 %: false alarm below
    # 1e-2). Four walkers, each in a state of its own, are worth about one frame apiece, although each by itself looks
    # like hundreds of independent ones (271 at least in 1000 seeds).
    runs = [autoregressive(20_000, 0.9, seed) for seed in range(20, 30)]
    assert np.isclose(metrics.effective_sample_size(runs), 200_000 * 0.1 / 1.9, rtol=0.3)
    stuck = [np.random.default_rng(seed).standard_normal(500) + 20.0 * seed for seed in range(4)]
    assert metrics.effective_sample_size(stuck) < 8
    assert metrics.effective_sample_size(stuck[0]) > 200
    for wrong in (np.zeros((3, 4, 2)), [np.zeros(1)], np.array([1.0, np.nan])):
        with pytest.raises(LatentError, match="series must have shape"):
            metrics.effective_sample_size(wrong)
    for constant in (np.zeros(9), np.full(1000, 0.1)):
        with pytest.raises(LatentError, match="series must vary"):
            metrics.effective_sample_size(constant)
    with pytest.raises(LatentError, match="at least one run"):
        metrics.effective_sample_size([])


def test_weights_of_independent_frames_give_kishs_sample_size():
    """Closed form: (sum w)^2 / sum w^2, where weights and coordinate are independent.

    Over 300 other seeds the ratio to it spread by 2 %, the worst was off by 13 %: false alarm below 1e-2.
    """
    random = np.random.default_rng(14)
    series, weights = random.standard_normal(20_000), random.exponential(size=20_000)
    expected = weights.sum() ** 2 / (weights**2).sum()
    assert np.isclose(metrics.effective_sample_size(series, weights), expected, rtol=0.2)
    equal = metrics.effective_sample_size(series, np.full(20_000, 0.3))
    assert np.isclose(equal, metrics.effective_sample_size(series))


def test_weighted_sample_size_is_the_variance_of_repeated_estimates():
    """Oracle: 400 repeats of the estimate, x of an autoregression reweighted by exp(0.5 x), which has mean 0.5.

    The variance of 400 repeats is known to 7 %, the mean of 400 sample sizes better: 35 % is five of that.
    """
    sizes, estimates = [], []
    for seed in range(400):
        series = autoregressive(4000, 0.8, seed)
        weights = np.exp(0.5 * series)
        sizes.append(metrics.effective_sample_size(series, weights))
        estimates.append((weights * series).sum() / weights.sum())
    assert abs(np.mean(estimates) - 0.5) < 5 * np.std(estimates) / 20
    assert np.isclose(np.mean(sizes), 1.0 / np.var(estimates), rtol=0.35)


def test_sample_size_per_cost_needs_the_right_distribution():
    series, states = autoregressive(5000, 0.8, 15), np.arange(5000) % 3
    right = {"states": states, "reference_states": states, "divergence": 0.01, "floor": 0.006}
    found = metrics.sample_size_per_cost(series, **right, cpu_seconds=20.0, force_evaluations=1e6)
    assert found["sample_size"] == metrics.effective_sample_size(series)
    assert np.isclose(found["per_cpu_second"], found["sample_size"] / 20.0)
    assert np.isclose(found["per_force_evaluation"], found["sample_size"] / 1e6)
    assert found["reason"] == ""
    stuck = metrics.sample_size_per_cost(series, **(right | {"states": states % 2}), cpu_seconds=20.0)
    assert stuck["sample_size"] == stuck["per_cpu_second"] == 0.0
    assert stuck["reason"] == "1 states of the reference are never visited."
    assert np.isnan(stuck["per_force_evaluation"])
    for divergence in (0.0121, np.nan):
        wrong = metrics.sample_size_per_cost(series, **(right | {"divergence": divergence}), cpu_seconds=20.0)
        assert np.isnan(wrong["sample_size"])
        assert "more than 2 times its floor" in wrong["reason"]


def test_mistakes_in_costs_and_weights_are_told_in_a_sentence():
    series, states = autoregressive(100, 0.8, 16), np.zeros(100, dtype=int)
    with pytest.raises(LatentError, match="cpu_seconds must be positive, got 0"):
        metrics.sample_size_per_cost(
            series, states=states, reference_states=states, divergence=0.0, floor=1.0, cpu_seconds=0
        )
    for weights in (np.ones(99), -np.ones(100)):
        with pytest.raises(LatentError, match="weights must be as many"):
            metrics.effective_sample_size(series, weights)
    with pytest.raises(LatentError, match="weights must not all be 0"):
        metrics.effective_sample_size(series, np.zeros(100))
