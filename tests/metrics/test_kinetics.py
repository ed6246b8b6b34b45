"""Slow processes against closed forms and SciPy."""

import numpy as np
import pytest
from scipy.cluster.vq import kmeans2
from scipy.signal import lfilter

from openmm_latent import metrics
from openmm_latent.errors import LatentError


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


def slow_and_fast(n_frames: int, seed: int) -> np.ndarray:
    """Two mixed autoregressions, of memory 0.95 and 0.3 a frame: (n_frames, 2)."""
    random = np.random.default_rng(seed)
    columns = [lfilter([np.sqrt(1 - m**2)], [1.0, -m], random.standard_normal(n_frames)) for m in (0.95, 0.3)]
    return np.stack(columns, axis=1) @ np.array([[1.0, 0.2], [0.7, 1.0]])


def test_timescales_along_the_reference_and_against_lag():
    """Closed form: -1 / ln 0.95 = 19.5 frames. It spreads by 2.3 % at this length: 12 % is five of that."""
    segments = [slow_and_fast(20_000, seed) for seed in range(4)]
    curve = metrics.timescale_curve(segments, [1, 5, 10, 20_000], 2.0, n=2)
    assert np.allclose(curve[:3, 0], -2.0 / np.log(0.95), rtol=0.12)
    assert np.isclose(curve[0, 1], -2.0 / np.log(0.3), rtol=0.12)
    assert np.isnan(curve[3]).all()
    tica = metrics.fit_tica(segments, 5, n_components=1)
    series = [tica.transform(segment)[:, 0] for segment in segments]
    assert np.isclose(metrics.timescale_along(series, 5, 2.0), curve[1, 0], rtol=0.02)


def test_shuffled_frames_have_no_timescale_along_the_reference():
    """A cheat: independent draws from the right distribution. Their autocorrelation at lag 5 is 0 +- 0.004."""
    segments = [slow_and_fast(20_000, seed) for seed in range(4)]
    tica = metrics.fit_tica(segments, 5, n_components=1)
    random = np.random.default_rng(0)
    shuffled = [random.permutation(tica.transform(segment)[:, 0]) for segment in segments]
    # -5 / ln 0.02 is 1.3 frames: five standard errors.
    assert metrics.timescale_along(shuffled, 5, 1.0) < 1.3
    for wrong, match in (([np.zeros(4)], "lag_frames must be shorter"), ([np.ones(50)], "series must vary")):
        with pytest.raises(LatentError, match=match):
            metrics.timescale_along(wrong, 5, 1.0)


def test_long_runs_are_taken_in_pieces(monkeypatch):
    """Oracle: the same in one piece."""
    segments = [slow_and_fast(3000, seed) for seed in range(2)]
    whole = metrics.tica_timescales(segments, 5, 1.0, n=2)
    monkeypatch.setattr("openmm_latent.metrics.kinetics._CHUNK_FEATURES", 500)
    assert np.allclose(metrics.tica_timescales(segments, 5, 1.0, n=2), whole, rtol=1e-9)


def test_cores_of_two_states():
    """Closed form: two narrow wells at -1 and 2, recrossed at the top; populations and rates follow from the cores."""
    random = np.random.default_rng(9)
    wells = np.repeat(np.tile([-1.0, 2.0], 20), 50)
    series = wells + 0.1 * random.standard_normal(2000)
    series[::50] = 0.5 + 0.01 * random.standard_normal(40)
    low, high = metrics.slow_cores([series[:1000], series[1000:]], seed=1)
    assert np.allclose([low, high], [-1.0, 2.0], atol=0.1)
    runs = [metrics.core_states(run > high, run < low) for run in (series[:1000], series[1000:])]
    found = metrics.two_state_interval(runs, 1.0, seed=1)
    # 39 crossings, of which one lies between the runs.
    assert (found["n_entries"], found["n_exits"]) == (20, 18)
    assert np.isclose(found["population"], 0.5, atol=0.01)


def test_what_has_no_slow_coordinate_is_told_in_a_sentence():
    for constant in (np.zeros((50, 2)), np.full((50, 2), 0.1)):
        with pytest.raises(LatentError, match="segments must vary, got constant features"):
            metrics.tica_timescales([constant], 5, 1.0)
    with pytest.raises(LatentError, match="segments must be finite"):
        metrics.tica_timescales([np.full((50, 2), np.nan)], 5, 1.0)
    with pytest.raises(LatentError, match="n_states must not exceed the different frames of features, got 3 for 2"):
        metrics.cluster_centres(np.array([[0.0], [1.0], [1.0]]), 3, seed=1)
