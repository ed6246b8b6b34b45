"""Judging exact rounds: free energies of two-state chains known in closed form, their error bars, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from openmm_latent.ensemble.judging import judge_visits

TEMPERATURE = 300.0
RT = 0.00831446261815324 * TEMPERATURE


def two_state_chains(n_chains: int, n_frames: int, p_in: float, p_out: float, seed: int, starts: float) -> np.ndarray:
    """Return chains (n_chains, n_frames) of bool that enter and leave with these chances a frame."""
    rng = np.random.default_rng(seed)
    is_in = np.empty((n_chains, n_frames), dtype=bool)
    is_in[:, 0] = rng.random(n_chains) < starts
    for i in range(1, n_frames):
        before = is_in[:, i - 1]
        is_in[:, i] = np.where(before, rng.random(n_chains) >= p_out, rng.random(n_chains) < p_in)
    return is_in


def free_energy(p_in: float, p_out: float) -> float:
    return -RT * float(np.log(p_in / p_out))


@pytest.mark.parametrize("p_in", [0.03, 0.0012])
def test_error_bars_hold_for_walkers_that_start_outside(p_in: float) -> None:
    # 150 campaigns of 8 walkers that all start outside. Right error bars of one sd leave out 32 % of them, and more
    # than two sd 5 %; at most 39 % and 11 % are let pass, which chance exceeds in fewer than 1 of 20 and 1 of 500.
    n_campaigns, n_walkers, p_out = 150, 8, 0.03
    chains = two_state_chains(n_campaigns * n_walkers, 2000, p_in, p_out, seed=1, starts=0.0)
    found = [judge_visits("a", list(walkers), 0.5, TEMPERATURE, 0.2) for walkers in np.split(chains, n_campaigns)]
    told = [one for one in found if not one.refusal]
    assert len(told) > 0.95 * n_campaigns
    off = np.array([(one.free_energy - free_energy(p_in, p_out)) / one.error for one in told])
    assert (np.abs(off) > 1).mean() < 0.39
    assert (np.abs(off) > 2).mean() < 0.11
    assert abs(np.mean([one.free_energy for one in told]) - free_energy(p_in, p_out)) < 0.15 * RT


def test_error_bars_hold_for_rounds_that_move_differently() -> None:
    # 150 campaigns of two rounds, the second ten times as quick, of the same equilibrium; limits as above
    n_campaigns, n_walkers, ratio = 150, 4, 0.05
    rounds = [
        np.split(two_state_chains(n_campaigns * n_walkers, 2000, ratio * p_out, p_out, seed, 0.0), n_campaigns)
        for seed, p_out in ((1, 0.03), (2, 0.3))
    ]
    found = [judge_visits("a", [*slow, *quick], 0.5, TEMPERATURE, 0.2) for slow, quick in zip(*rounds, strict=True)]
    off = np.array([(one.free_energy - free_energy(ratio, 1.0)) / one.error for one in found])
    assert (np.abs(off) > 1).mean() < 0.39
    assert (np.abs(off) > 2).mean() < 0.11


def test_what_starts_say_is_dropped() -> None:
    # all walkers start inside a rare state: without a burn-in the estimate would lie five error bars low
    chains = two_state_chains(40, 2000, 0.0006, 0.03, seed=3, starts=1.0)
    found = judge_visits("a", list(chains), 0.5, TEMPERATURE, 0.2)
    biased = judge_visits("a", list(chains), 0.5, TEMPERATURE, 0.0)
    assert found.free_energy == pytest.approx(free_energy(0.0006, 0.03), abs=3 * found.error)
    assert found.evidence["burn_in"] == 200.0
    exact = 0.5 * 1.9694 / 0.0306  # [ps] of a frame times (1 + rho) / (1 - rho); noise makes the found one longer
    assert 0.8 * exact < found.evidence["correlation_time"] < 3 * exact
    assert biased.free_energy is None  # nothing is forgotten in no time
    assert "walkers remember their starts for longer" in biased.refusal


def test_too_few_visits_are_refused() -> None:
    series = np.zeros((2, 1000), dtype=bool)
    series[0, 300:900:150] = True  # four visits of one frame
    series[1, 50] = True  # and one in the burn-in
    found = judge_visits("a", list(series), 0.5, TEMPERATURE, 0.2)
    assert found.free_energy is None
    assert found.refusal.startswith("after the burn-in it was entered 4 and left 4 times, fewer than 5 each")
    series[1, 999] = True  # entered, but not left
    again = judge_visits("a", list(series), 0.5, TEMPERATURE, 0.2)
    assert again.refusal.startswith("after the burn-in it was entered 5 and left 4 times")


def test_walkers_that_are_stuck_are_refused_though_one_moves() -> None:
    # one walker goes to and fro, three stay inside and four outside: that half of the frames are inside means nothing
    moving = two_state_chains(1, 1000, 0.05, 0.05, seed=4, starts=0.0)
    stuck = np.repeat([[True]] * 3 + [[False]] * 4, 1000, axis=1)
    found = judge_visits("a", list(np.concatenate([moving, stuck])), 0.5, TEMPERATURE, 0.2)
    assert found.free_energy is None
    assert "walkers remember their starts for longer" in found.refusal
