"""Scores against closed forms and SciPy."""

from pathlib import Path

import numpy as np
import pytest
from scipy.cluster.vq import kmeans2
from scipy.signal import lfilter
from scipy.spatial.distance import jensenshannon

from openmm_latent import geometry, metrics
from openmm_latent.errors import LatentError


def test_jsd_agrees_with_scipy_and_its_limits():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 9, 40), random.integers(0, 9, 40)
    assert np.isclose(metrics.jsd(a, b), jensenshannon(a, b) ** 2)
    assert np.isclose(metrics.jsd(a, 7 * a), 0.0)
    assert np.isclose(metrics.jsd([1, 0], [0, 5]), np.log(2))
    with pytest.raises(LatentError, match="counts must have the shape"):
        metrics.jsd([1, 2], [1, 2, 3])
    with pytest.raises(LatentError, match="counts must not be empty"):
        metrics.jsd([0, 0], [1, 2])


def test_torsion_scores_are_periodic_and_use_the_stated_bins():
    random = np.random.default_rng(1)
    angles = random.uniform(-np.pi, np.pi, (4000, 2))
    assert np.allclose(metrics.dihedral_jsd(angles, angles + 2 * np.pi), 0.0, atol=1e-3)
    assert metrics.ramachandran_counts(angles).shape == (50, 50)
    assert metrics.ramachandran_counts(angles).sum() == 4000
    corner = np.full((10, 2), [-3.1, 3.1])
    assert metrics.ramachandran_counts(corner)[0, 49] == 10
    assert np.isclose(metrics.ramachandran_jsd(corner, -corner), np.log(2))
    assert metrics.dihedral_jsd(corner, corner[::-1])[0] == 0.0
    with pytest.raises(LatentError, match=r"angles must have shape \(n_frames, 2\)"):
        metrics.ramachandran_counts(np.zeros((5, 3)))


def test_ramachandran_bias_of_independent_halves():
    # Two samples of N from K equal cells: expected JSD is (K - 1) / (4 N) nats to leading order; its spread here is
    # about 2 %, so 10 % is five standard deviations (false alarm below 1e-5).
    random = np.random.default_rng(2)
    floor = metrics.halves_floor(metrics.ramachandran_jsd, random.uniform(-np.pi, np.pi, (200_000, 2)))
    assert np.isclose(floor, (2500 - 1) / (4 * 100_000), rtol=0.1)


def test_coordinate_jsd_ignores_rigid_motion():
    random = np.random.default_rng(3)
    structure = random.standard_normal((6, 3))
    frames = structure + 0.05 * random.standard_normal((400, 6, 3))
    turned = frames @ np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]) + 4.0
    assert metrics.coordinate_jsd(turned, frames, structure) < 1e-6
    assert metrics.coordinate_jsd(frames[:1] + 0 * frames, frames, structure) > 0.3


def test_product_of_marginals_keeps_marginals_and_drops_coupling():
    random = np.random.default_rng(4)
    one = random.choice([-1.0, 1.0], 20_000)
    drawn = metrics.product_of_marginals(np.stack([one, one], axis=1), 20_000, seed=1)
    # Standard error 0.007: five of them.
    assert abs(drawn.mean(axis=0)).max() < 0.035
    assert abs((drawn[:, 0] * drawn[:, 1]).mean()) < 0.035


def test_cartesian_gaussian_has_the_moments_of_the_superposed_frames():
    random = np.random.default_rng(5)
    structure = random.standard_normal((5, 3))
    frames = structure + 0.1 * random.standard_normal((3000, 5, 3)) * random.uniform(0.5, 2, (5, 3))
    fitted = metrics.superpose(frames, structure).reshape(3000, -1)
    drawn = metrics.cartesian_gaussian(frames, structure, 60_000, seed=1).reshape(60_000, -1)
    assert np.allclose(drawn.mean(axis=0), fitted.mean(axis=0), atol=5 * 0.2 / np.sqrt(60_000))
    assert np.allclose(np.cov(drawn.T), np.cov(fitted.T), atol=5 * 0.04 * np.sqrt(2 / 60_000))


def test_tica_timescale_of_an_autoregression():
    # x' = a x + noise: timescale -1 / ln a frames. Standard error of a is sqrt((1 - a^2) / n) = 0.0007, which is 0.7 %
    # in the timescale (dt = t^2 da / a); 5 % is seven of them.
    random = np.random.default_rng(6)
    decay = np.array([0.9, 0.5])
    segments = []
    for _ in range(4):
        noise = random.standard_normal((100_000, 2)) * np.sqrt(1 - decay**2)
        series = np.zeros((100_000, 2))
        for i in range(1, len(series)):
            series[i] = decay * series[i - 1] + noise[i]
        segments.append(series @ np.array([[1.0, 0.3], [-0.5, 2.0]]) + 7.0)
    for lag in (1, 3):
        found = metrics.tica_timescales(segments, lag, frame_spacing=0.5, n=2)
        assert np.allclose(found, -0.5 / np.log(decay), rtol=0.05)
    with pytest.raises(LatentError, match="lag_frames must be shorter"):
        metrics.tica_timescales([segments[0][:5]], 10, 0.5)


def test_cluster_centres_reach_scipys_inertia():
    random = np.random.default_rng(7)
    points = np.concatenate([random.normal(c, 0.2, (200, 2)) for c in ([0, 0], [4, 0], [0, 4], [4, 4])])
    centres = metrics.cluster_centres(points, 4, seed=1)
    expected, _ = kmeans2(points, np.array([[0, 0], [4, 0], [0, 4], [4, 4.0]]), minit="matrix")
    nearest = metrics.assign_states(expected, centres)
    assert sorted(nearest) == [0, 1, 2, 3]
    assert np.allclose(centres[nearest], expected, atol=1e-6)


def test_lagged_pairs_see_kinetics_that_populations_do_not():
    random = np.random.default_rng(8)
    stay = random.uniform(size=20_000) > 0.05
    slow = np.cumsum(~stay) % 2
    independent = random.permutation(slow)
    exact = metrics.lagged_pair_counts([np.array([0, 1, 1, 2]), np.array([2, 0])], 1, 3)
    assert exact.tolist() == [[0, 1, 0], [0, 1, 1], [1, 0, 0]]
    assert metrics.jsd(np.bincount(slow), np.bincount(independent)) == 0.0
    halves = metrics.lagged_pair_jsd([slow[:10_000]], [slow[10_000:]], 1, 2)
    # Joint distributions (0.475, 0.025, 0.025, 0.475) and (0.25 x 4): 0.142 nats.
    assert np.isclose(metrics.lagged_pair_jsd([slow], [independent], 1, 2), 0.142, atol=0.01)
    assert halves < 0.01


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


def test_core_states_ignore_recrossings():
    position = np.array([0.5, -1.0, 0.2, -0.1, 0.3, 1.0, -0.5, 0.4, -1.2])
    states = metrics.core_states(position > 0.9, position < -0.9)
    assert states.astype(int).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0]
    with pytest.raises(LatentError, match="must not share a frame"):
        metrics.core_states(position > 0, position > 0.4)


def test_metrics_need_no_torch():
    # The package may import torch; this module and what it stands on must not.
    for module in (metrics, geometry):
        source = Path(module.__file__).read_text(encoding="utf-8")
        assert "import torch" not in source
        assert "from torch" not in source
