"""Slow coordinates of the reference and what ensembles do along them."""

from dataclasses import replace

import numpy as np
import pytest

from ensembles_of import adp_ensemble, chain_ensemble
from openmm_latent import metrics
from openmm_latent.errors import LatentError
from openmm_latent.report import slow
from openmm_latent.report.error_bars import block_edges

N_FRAMES = 4000


def two_state(seed: int, n_runs: int = 2, p_leave: tuple[float, float] = (0.01, 0.03)):
    """Alanine dipeptide's record with torsions of a two-state Markov chain: population 1/4, t = -1/ln(0.96) frames."""
    random = np.random.default_rng(seed)
    base = adp_ensemble((0, N_FRAMES))
    state, states = 0, np.empty(N_FRAMES, dtype=int)
    for frame, draw in enumerate(random.random(N_FRAMES)):
        state = 1 - state if draw < p_leave[state] else state
        states[frame] = state
    centre = np.where(states[:, None] == 1, np.array([1.0, 1.0]), np.array([-1.0, 2.0]))
    angles = (centre + 0.2 * random.standard_normal((N_FRAMES, 2))).astype(np.float32)
    lengths = (N_FRAMES // n_runs,) * n_runs
    one = replace(base, angles=angles, lengths=lengths, frame_spacing=1.0)
    return replace(one, features=slow.choose_features(one).make(one)), states


def fitted(reference, lag_time: float = 5.0) -> slow.SlowCoordinates:
    return slow.SlowCoordinates.fit(reference, lag_time, seed=1)


def test_population_crossings_and_timescale_of_a_known_chain():
    """Oracle: the chain that made it. Lag 5, -1 / ln 0.96 = 24.5 frames; binomial noise of about 10 %."""
    one, states = two_state(1)
    found = slow.own_numbers(one, fitted(one))
    assert found["slow_population"] == pytest.approx(states.mean(), abs=0.005)
    assert found["slow_timescale"] == pytest.approx(24.5, rel=0.3)
    assert found["t1"] == pytest.approx(found["slow_timescale"], rel=0.1)
    n_passages = np.abs(np.diff(states)).sum()
    assert found["slow_crossings"] * N_FRAMES * 1e-6 == pytest.approx(n_passages, rel=0.1)


def test_the_rarer_state_is_the_one_that_is_counted():
    one, _ = two_state(2, p_leave=(0.03, 0.01))
    assert slow.own_numbers(one, fitted(one))["slow_population"] < 0.5


def test_independent_draws_of_the_right_frames_fail_the_lagged_pairs():
    """A shuffle keeps every marginal; 36 x 36 states of 4000 frames have a floor that it must exceed twice."""
    one, _ = two_state(1)
    other, _ = two_state(3)
    coordinates = fitted(one)
    order = np.random.default_rng(1).permutation(N_FRAMES)
    shuffled = replace(one, angles=one.angles[order], features=one.features[order])
    key = "lagged_pairs_jsd@5"
    fresh = slow.slow_scores(other, one, coordinates, [5.0])[key]
    assert slow.slow_scores(shuffled, one, coordinates, [5.0])[key] > 1.3 * fresh
    assert slow.own_numbers(shuffled, coordinates)["slow_timescale"] < 5.0


def test_intervals_hold_what_they_are_of():
    one, _ = two_state(1)
    coordinates = fitted(one)
    values = slow.own_numbers(one, coordinates)
    found = slow.slow_intervals(one, coordinates, seed=1, n_blocks=20)
    for key in ("slow_population", "slow_crossings", "slow_timescale", "t1"):
        low, high = found[key]
        assert low < values[key] < high, key


def test_lagged_pairs_have_intervals_about_their_scores():
    one, _ = two_state(1)
    other, _ = two_state(3)
    coordinates = fitted(one)
    values = slow.slow_scores(other, one, coordinates, [5.0, 20.0, 150.0])
    found = slow.pair_intervals(other, one, coordinates, values, seed=1, n_blocks=20)
    assert set(found) == {"lagged_pairs_jsd@5", "lagged_pairs_jsd@20"}  # blocks of 200 frames do not bear a lag of 150
    for key, (low, high) in found.items():
        assert low < values[key] < high


def test_blocks_add_up_to_the_timescale_of_the_whole():
    """Oracle: metrics.tica_timescales of deeptime; pairs across the blocks' ends make the difference."""
    one, _ = two_state(1)
    moments = [slow._lagged_moments(one.features[a:b], 5) for a, b in block_edges(one.lengths, 10)]
    expected = metrics.tica_timescales(one.runs(one.features), 5, 1.0, 1)[0]
    assert slow._slowest_timescale(moments) * 5 == pytest.approx(expected, rel=0.05)


def test_an_ensemble_without_time_has_a_population_only():
    one, _ = two_state(1)
    assert set(slow.own_numbers(replace(one, frame_spacing=None), fitted(one))) == {"slow_population"}


def test_many_features_are_reduced_and_coordinates_stand_in_for_torsions():
    wide = chain_ensemble(80, 300, seed=1)
    features = slow.choose_features(wide)
    assert "200 largest principal components" in features.words
    assert features.make(wide).shape == (300, 200)
    narrow = chain_ensemble(6, 50, seed=1)
    assert slow.choose_features(narrow).make(narrow).shape == (50, 18)
    assert not features.uses_torsions


def test_lags_are_whole_frames_of_both():
    reference, _ = two_state(1)
    assert slow.choose_lag(reference, reference, None) == 8.0  # 2000 frames a run, over 250
    coarse = replace(reference, frame_spacing=5.0)
    assert slow.choose_lag(reference, coarse, None) == 10.0
    assert slow.frames_at(7.0, coarse) is None
    assert slow.choose_lag(reference, coarse, 7.0) == 7.0
    with pytest.raises(LatentError, match=r"multiple of the reference's frame spacing \(1 ps\)"):
        slow.choose_lag(reference, coarse, 1.5)
    with pytest.raises(LatentError, match="shorter than half a run"):
        slow.choose_lag(reference, coarse, 1000.0)


@pytest.mark.parametrize("shape", [(30, 50), (80, 50)])
def test_the_largest_directions_are_those_of_the_covariance(shape):
    """Oracle: all eigenvectors of numpy's covariance; up to a sign."""
    centred = np.random.default_rng(1).standard_normal(shape) * np.linspace(3.0, 1.0, shape[1])
    centred -= centred.mean(axis=0)
    expected = np.linalg.eigh(np.cov(centred, rowvar=False))[1][:, ::-1][:, :8]
    found = slow._largest_directions(centred, 8)
    assert found.shape == (50, 8)
    assert np.abs((found * expected).sum(axis=0)) == pytest.approx(1.0, abs=1e-9)
