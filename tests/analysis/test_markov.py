"""The Markov model against closed forms and a chain of known populations."""

import numpy as np
import pytest
from scipy.stats import binom

from chains import DoubleWell
from openmm_latent.analysis import checks, make_segments, markov


def two_state_counts(stays=(90.0, 95.0), crossings=(10.0, 5.0)):
    return np.array([[stays[0], crossings[0]], [crossings[1], stays[1]]])


def model_of(counts, lag_frames=1):
    matrix, stationary = markov.maximum_likelihood(counts)
    return markov.MarkovModel(lag_frames, np.arange(len(counts)), counts, matrix, stationary)


def test_two_states_have_their_closed_form():
    model = model_of(two_state_counts())
    assert model.stationary[0] == pytest.approx(0.05 / 0.15)
    assert model.timescales(2.0)[0] == pytest.approx(-2.0 / np.log(0.85))


def test_posterior_of_two_states_is_that_of_two_beta_distributions():
    """Of 4000 draws; each mean and sd is right within 5 standard errors: false alarm below 1e-5."""
    model = model_of(two_state_counts())
    posterior = markov.sample_posterior(model, np.array([[True, False]]), n_draws=4000, seed=1)
    random = np.random.default_rng(2)
    # With the prior 1/x_ij each row is Beta(counts), independently, as two states are always reversible.
    leave_0, leave_1 = random.beta(10, 90, 400_000), random.beta(5, 95, 400_000)
    expected = np.log(leave_1 / leave_0)
    drawn = np.log(posterior.stationary[:, 0] / posterior.stationary[:, 1])
    error = expected.std() / np.sqrt(posterior.effective_draws)
    assert posterior.effective_draws > 500
    assert abs(drawn.mean() - expected.mean()) < 5 * error
    assert abs(drawn.std() - expected.std()) < 5 * error


def test_moves_of_whole_regions_leave_the_posterior_as_it_is():
    """Against deeptime's sampler alone, long enough to mix; 5 standard errors: false alarm below 1e-5."""
    from deeptime.markov.tools.estimation.dense.tmat_sampling.sampler_rev import SamplerRev

    well = DoubleWell(barrier=2.0, n_bins=6)
    visited = list(well.bins(60, 40, 0.5, np.random.default_rng(3)))
    model = markov.fit_model(visited, 2, 6)
    right = well.x > 0
    drawn = markov.sample_posterior(model, right[None], n_draws=2000, seed=1)
    odds = np.log(drawn.stationary[:, right].sum(1) / drawn.stationary[:, ~right].sum(1))
    sampler, plain = SamplerRev(model.counts, P0=model.transition_matrix, seed=7), []
    for _ in range(4000):
        sampler.update(25)
        rows = sampler.V.sum(axis=1)
        plain.append(np.log(rows[right].sum() / rows[~right].sum()))
    plain = np.array(plain)
    sizes = drawn.effective_draws, markov._effective_size(plain)
    assert min(sizes) > 300
    error = plain.std() * np.sqrt(1 / sizes[0] + 1 / sizes[1])
    assert abs(odds.mean() - plain.mean()) < 5 * error
    assert abs(odds.std() - plain.std()) < 5 * error


@pytest.mark.parametrize("lag_frames", [1, 4])
def test_newton_steps_find_the_maximum_that_deeptime_finds(lag_frames):
    well = DoubleWell(n_bins=10)
    counts = markov.count_transitions(list(well.bins(100, 60, 0.5, np.random.default_rng(1))), lag_frames, 10)
    active = np.flatnonzero(counts.sum(axis=0) * counts.sum(axis=1))
    counts = counts[np.ix_(active, active)]
    matrix, stationary = markov.maximum_likelihood(counts)
    for start in (stationary, np.full(len(active), 1 / len(active))):
        again = markov.likelihood_from(counts, start)
        np.testing.assert_allclose(again[0], matrix, atol=1e-6)
        np.testing.assert_allclose(again[1], stationary, rtol=1e-4)
        np.testing.assert_allclose(again[1] @ again[0], again[1], atol=1e-12)


def test_counts_never_cross_a_segment():
    labels = [np.array([0, 0, 1]), np.array([2, 2, 0]), np.array([1])]
    counts = markov.count_transitions(labels, 1, 3)
    np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 0, 0], [1, 0, 1]])
    weighted = markov.WeightedCounts(labels, 1, 3)
    np.testing.assert_array_equal(weighted.counts(np.ones(weighted.n_blocks)), counts)
    assert markov.count_transitions(labels, 3, 3).sum() == 0


def test_a_sliding_window_is_worth_its_length_over_the_lag():
    labels = [np.array([0, 1] * 20)]
    weighted = markov.WeightedCounts(labels, 4, 2)
    for counts in (markov.count_transitions(labels, 4, 2), weighted.counts(np.ones(weighted.n_blocks))):
        assert counts.sum() == pytest.approx((40 - 4) / 4)


def test_weights_of_segments_multiply_counts():
    labels = [np.array([0, 0, 1]), np.array([1, 0, 0])] * 50
    assert [set(block) for block in markov.blocks_of(labels)] == [{number} for number in range(100)]
    counts = markov.WeightedCounts(labels, 1, 2).counts(np.array([2.0, 0.5] * 50) / 50)
    np.testing.assert_allclose(counts, [[2.5, 2], [0.5, 0]])


def test_long_series_are_blocks_too():
    (blocks,) = markov.blocks_of([np.zeros(10_000, dtype=int)])
    assert len(np.unique(blocks)) == 50


def test_bootstrap_replicas_share_their_weights_between_lags():
    """The same seed gives the same weights, so that replicas of two lags can be subtracted."""
    well = DoubleWell(barrier=2.0, n_bins=6)
    visited = list(well.bins(200, 40, 0.5, np.random.default_rng(3)))
    models = [markov.fit_model(visited, lag, 6) for lag in (2, 4)]
    odds = []
    for model in models:
        replicas = markov.bootstrap(model, visited, 6, 40, seed=1)
        odds.append([np.log(one.stationary[well.x > 0].sum()) for one in replicas])
    assert np.corrcoef(odds)[0, 1] > 0.8


def test_no_microstate_straddles_a_state():
    positions = DoubleWell().positions(50, 40, 0.5, seed=1)
    inside = [part > 0.3 for part in positions]
    segments = make_segments(positions, 1.0, is_in=inside)
    labels = np.concatenate(markov.microstates(segments, [part[:, None] for part in positions], 12, seed=1))
    members = np.concatenate(inside)
    assert all(len(set(members[labels == label])) == 1 for label in np.unique(labels))
    assert np.bincount(labels).min() >= 20


def test_frame_weights_are_stationary():
    labels = [np.array([0, 0, 1, 2]), np.array([0, 1])]
    weights = markov.frame_weights(labels, np.array([0, 2]), np.array([0.75, 0.25]))
    np.testing.assert_allclose(np.concatenate(weights), [0.25, 0.25, 0, 0.25, 0.25, 0])


def fit_right_well(well, n_segments, seed, lag=8):
    positions = well.positions(n_segments, 60, 0.5, seed)
    segments = make_segments(positions, 1.0, is_in=[part > 0 for part in positions])
    labels = markov.microstates(segments, [part[:, None] for part in positions], 14, seed=1)
    everywhere = np.concatenate(labels)
    first = np.unique(everywhere, return_index=True)[1]
    is_right = np.concatenate(positions)[first] > 0
    model = markov.fit_model(labels, lag, len(first))
    posterior = markov.sample_posterior(model, is_right[model.active][None], n_draws=150, seed=seed)
    slowest = checks.slow_processes(model, labels, 1.0)[0]
    return np.sort(posterior.stationary[:, is_right[model.active]].sum(axis=1)), slowest


@pytest.mark.slow
def test_intervals_cover_the_known_population():
    """95 % intervals over 120 data sets that start half and half, although the truth is 25 %.

    As `reweight` does, sets in which the exchange was seen fewer than 5 times one way give no interval. With 95 %
    coverage the hits lie outside of the band in at most 1 % of cases, 0.5 % a side.
    """
    well, n_sets = DoubleWell(), 120
    hits = told = 0
    for seed in range(n_sets):
        draws, slowest = fit_right_well(well, 500, seed)
        if min(slowest.n_there, slowest.n_back) >= 5:
            low, high = np.percentile(draws, [2.5, 97.5])
            hits += low < well.population < high
            told += 1
    assert told >= 100
    assert binom.ppf(0.005, told, 0.95) <= hits <= binom.ppf(0.995, told, 0.95), (hits, told)


def test_passages_are_counted_between_cores():
    matrix = np.array([[0.98, 0.02, 0.0], [0.4, 0.2, 0.4], [0.0, 0.02, 0.98]])
    stationary = np.array([20.0, 1.0, 20.0]) / 41
    model = markov.MarkovModel(1, np.arange(3), matrix, matrix, stationary)
    labels = [np.array([0, 0, 1, 0, 0, 1, 2, 2, 1, 2]), np.array([2, 2, 1, 0]), np.array([0, 1])]
    (slowest, *_) = checks.slow_processes(model, labels, 1.0)
    assert sorted([slowest.n_there, slowest.n_back]) == [1, 1]


def test_short_visits_are_no_passages():
    matrix = np.array([[0.98, 0.02], [0.04, 0.96]])
    model = markov.MarkovModel(3, np.arange(2), matrix, matrix, np.array([2.0, 1.0]) / 3)
    visits = {2: 0, 3: 0, 4: 2}  # frames -> passages, there and back, with a lag of 3
    for n_frames, expected in visits.items():
        labels = [np.array([0] * 6 + [1] * n_frames + [0] * 6)]
        (slowest,) = checks.slow_processes(model, labels, 1.0)
        assert slowest.n_there + slowest.n_back == expected
    (slowest,) = checks.slow_processes(model, [np.array([0] * 6 + [1])], 1.0)  # nobody knows how long it would stay
    assert slowest.n_there == 1
