"""Populations from attempted jumps, against chains whose populations and works are known."""

from dataclasses import replace

import numpy as np
import pytest

from openmm_latent.analysis.exchange import Attempts, populations_from_attempts
from openmm_latent.errors import LatentError

PROTOCOL = (0.1, 500, 2)
#: Of three states; the last is rare.
POPULATIONS = np.array([0.7, 0.28, 0.02])


def attempts(rng, state, n_jumps, spread, populations=POPULATIONS):
    """One walker that stays in its state: works are Gaussian and obey Crooks' relation exactly.

    An attempt leads to any state with its probability of being proposed, the same for all; then w, from i to j, has
    mean f_j - f_i + spread²/2 and standard deviation spread, f = -ln population.
    """
    n = len(populations)
    free = -np.log(populations)
    start = np.full(n_jumps, state)
    end = rng.integers(n, size=n_jumps)
    works = free[end] - free[start] + 0.5 * spread**2 + spread * rng.normal(size=n_jumps)
    return Attempts(start, end, works, PROTOCOL)


def test_populations_and_their_errors_are_right_though_no_walker_ever_leaves_its_state():
    # 100 data sets; 95 % intervals of the rare state must cover it in 88 to 100 of them (a correct estimator misses
    # that band once in 500 times).
    covered, estimates = 0, []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        walkers = [attempts(rng, state, 300, 3.0) for state in range(3)]
        found = populations_from_attempts(walkers, 3, n_bootstrap=60, seed=seed)
        error = found.free_energy_errors[2]
        covered += abs(found.free_energies[2] - np.log(POPULATIONS[0] / POPULATIONS[2])) < 1.96 * error
        estimates.append(found.populations)
    assert 88 <= covered <= 100
    # ten data sets' worth of noise on the mean of a hundred
    np.testing.assert_allclose(np.mean(estimates, axis=0), POPULATIONS, rtol=0.1)


def test_more_attempts_from_one_state_do_not_shift_the_balance():
    rng = np.random.default_rng(1)
    walkers = [attempts(rng, 0, 6000, 1.5), attempts(rng, 1, 300, 1.5), attempts(rng, 2, 300, 1.5)]
    found = populations_from_attempts(walkers, 3)
    assert abs(found.free_energies[2] - np.log(35)) < 4 * found.free_energy_errors[2]
    assert found.free_energy_errors[2] < 0.25
    assert found.n_attempts.tolist() == [6000, 300, 300]


def test_a_reversed_sign_of_the_work_would_be_noticed():
    rng = np.random.default_rng(2)
    walkers = [attempts(rng, state, 2000, 1.5) for state in range(3)]
    wrong = [replace(walker, works=-walker.works) for walker in walkers]
    assert abs(populations_from_attempts(wrong, 3).free_energies[2] - np.log(35)) > 3


def test_a_drive_that_blew_up_counts_as_an_attempt_that_led_nowhere():
    rng = np.random.default_rng(3)
    walkers = [attempts(rng, state, 2000, 1.5) for state in range(3)]
    lost = rng.random(2000) < 0.3
    walkers[0].end[lost] = -1
    walkers[0].works[lost] = np.nan
    with pytest.raises(LatentError, match="began in state"):
        populations_from_attempts(walkers[:2], 3)
    assert populations_from_attempts(walkers, 3).n_ways.sum() == 6000 - lost.sum()


def test_states_without_ways_between_them_are_refused():
    rng = np.random.default_rng(4)
    walkers = [attempts(rng, state, 100, 1.0) for state in range(3)]
    for walker in walkers:
        walker.end[walker.end == 2] = -1
    with pytest.raises(LatentError, match="fall apart"):
        populations_from_attempts(walkers, 3)


def test_walkers_that_were_driven_differently_are_refused():
    rng = np.random.default_rng(5)
    walkers = [attempts(rng, state, 100, 1.0) for state in range(3)]
    walkers[2] = replace(walkers[2], protocol=(0.2, 200, 5))
    with pytest.raises(LatentError, match=r"driven alike.*\(0\.1, 500, 2\), \(0\.2, 200, 5\)"):
        populations_from_attempts(walkers, 3)
