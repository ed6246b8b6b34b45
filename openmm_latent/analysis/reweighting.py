"""From segments to equilibrium: how much to drop, which lag, the model, its checks, and what it says of each state.

No number leaves this module for an observable that the checks refuse; a sentence does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from openmm_latent.analysis import checks, markov
from openmm_latent.analysis.ladder import (
    choose_rung,
    drift_of_state,
    drift_of_timescale,
    fit_rung,
    lag_ladder,
    log_odds,
    log_odds_of_halves,
)
from openmm_latent.analysis.results import EVERYTHING, GAS_CONSTANT, Population, ReweightConfig, Reweighting
from openmm_latent.analysis.segments import Segment
from openmm_latent.analysis.settling import Settling, find_dropped_time
from openmm_latent.errors import require


def reweight(
    segments: Sequence[Segment], frame_spacing: float, states: Sequence[str], config: ReweightConfig
) -> Reweighting:
    """Turn relaxation segments into equilibrium.

    Parameters
    ----------
    segments : list of Segment
        From `to_segments` or `make_segments`.
    frame_spacing : float [ps]
    states : list of str
        Names of the columns of `Segment.is_in`.
    config : ReweightConfig

    Returns
    -------
    Reweighting

    Raises
    ------
    LatentError
        The arguments do not fit. Data that do not suffice are no mistake: the result says what is missing.
    """
    config.check()
    require(len(segments) > 0, "segments is empty; give at least one run")
    require(
        all(part.is_in.shape[1] == len(states) for part in segments),
        f"states must name the {segments[0].is_in.shape[1]} columns of is_in, got {len(states)} names",
    )
    settling, dropped = None, config.dropped_time
    if dropped is None:
        settling = find_dropped_time(segments, frame_spacing, level=config.level, seed=config.seed)
        dropped = settling.dropped_time
    problem = None if settling is None else settling.problem()
    kept = [part.after(dropped or 0.0) for part in segments]
    kept = [part for part in kept if len(part)]
    lengths = np.array([len(part) for part in kept])
    if problem is None and (not len(lengths) or lengths.max() < 4):
        problem = "no segment has 4 frames left: write frames more often (--report-interval) or make relaxations longer"
    if problem is not None:
        return _refused(problem, segments, states, config, frame_spacing, settling, dropped)
    lags = lag_ladder(lengths, frame_spacing, config.lag_time)
    coordinates = markov.slow_coordinates(kept, lags[len(lags) // 2], config.n_dimensions)
    labels = markov.microstates(kept, coordinates, config.n_microstates, config.seed)
    is_in = _microstates_in(kept, labels, len(states))
    ladder = [
        rung for rung in (fit_rung(labels, lag, is_in, frame_spacing, config) for lag in lags) if rung is not None
    ]
    if not ladder:
        problem = "no two regions are connected both ways by relaxation MD: run longer, or make the relaxations longer"
        return _refused(problem, segments, states, config, frame_spacing, settling, dropped)
    base = Reweighting(config, frame_spacing, settling, dropped, None, kept, labels, ladder)
    return _judge(base, states, is_in, choose_rung(ladder, lengths, frame_spacing, config.lag_time))


def _refused(
    problem: str,
    segments: Sequence[Segment],
    states: Sequence[str],
    config: ReweightConfig,
    frame_spacing: float,
    settling: Settling | None,
    dropped: float | None,
) -> Reweighting:
    populations = [Population(name, [problem]) for name in states]
    return Reweighting(
        config, frame_spacing, settling, dropped, None, list(segments), populations=populations, refusals=[problem]
    )


def _microstates_in(segments: Sequence[Segment], labels: Sequence[np.ndarray], n_states: int) -> np.ndarray:
    """Return which microstates belong to each state, (n_states, n_microstates) bool."""
    everywhere, is_in = np.concatenate(labels), np.concatenate([part.is_in for part in segments])
    first = np.unique(everywhere, return_index=True)[1]
    return is_in[first].T.reshape(n_states, len(first))


def _judge(base: Reweighting, states: Sequence[str], is_in: np.ndarray, chosen: int) -> Reweighting:
    """Run all checks at the chosen lag and gather what may be told."""
    model = base.ladder[chosen].model
    processes = checks.slow_processes(model, base.labels, base.frame_spacing)
    # The common name stands for the slower of what weights and surfaces hang on: the sides of the slowest process.
    slowest = np.zeros(is_in.shape[1], dtype=bool)
    if processes:
        slowest[model.active[processes[0].side]] = True
    both = np.concatenate([is_in, slowest[None]])
    regions = np.array([*both[:, model.active], *(process.side for process in processes[1:3])])
    draws = markov.sample_posterior(model, regions, n_draws=base.config.n_draws, seed=base.config.seed)
    judged = replace(
        base,
        lag_time=model.lag_frames * base.frame_spacing,
        model=model,
        posterior=draws,
        processes=processes,
    )
    halves = log_odds_of_halves(base.labels, model.lag_frames, both, base.frame_spacing, base.config)
    tests: dict[str, checks.ChapmanKolmogorov] = {}
    populations = []
    for number, name in enumerate(states):
        memberships = [part.is_in[:, number] for part in base.segments]
        sentence = checks.check_connected(base.labels, memberships, model.active, name)
        here = is_in[number][model.active]
        if sentence is None and (here.all() or not here.any()):
            sentence = f"{name} lies outside of what relaxation MD connects both ways: run longer"
        refusals = [sentence] if sentence else _refusals_of(judged, name, is_in[number], chosen, halves, number, tests)
        populations.append(_population(name, refusals, here, judged))
    refusals = [f"{one.name} is not known" for one in populations if one.refusals]
    share = float(np.isin(np.concatenate(base.labels), model.active).mean())
    if share < checks.LEAST_CONNECTED:
        missing = f"{100 * (1 - share):.0f} % of all frames"
        refusals.append(f"{missing} lie where relaxation MD does not lead both in and out: run longer")
    if processes:
        refusals += _refusals_of(judged, EVERYTHING, slowest, chosen, halves, len(states), tests)
    return replace(judged, chapman_kolmogorov=tests, populations=populations, refusals=refusals)


def _refusals_of(
    judged: Reweighting,
    name: str,
    is_in: np.ndarray,
    chosen: int,
    halves: tuple[np.ndarray, np.ndarray] | None,
    column: int,
    tests: dict[str, checks.ChapmanKolmogorov],
) -> list[str]:
    """Return what is missing for one connected state, in the order in which it is to be mended.

    Parameters
    ----------
    is_in : array of bool, (n_microstates,)
    column : int
        Of the state in `halves`.
    tests : dict
        Gets the Chapman-Kolmogorov test.
    """
    model, posterior, config, ladder = judged.model, judged.posterior, judged.config, judged.ladder
    assert model is not None
    assert posterior is not None
    here = is_in[model.active]
    relevant = [one for one in judged.processes if one.share_of(here, model.stationary) >= checks.RELEVANT]
    found = [
        checks.check_transitions(relevant, config.fewest_transitions, name),
        checks.check_width(log_odds(posterior.stationary, here), config.largest_error, name),
        checks.check_draws(posterior.effective_draws, name),
    ]
    if any(found):
        return [one for one in found if one]  # the further tests compare what is too uncertain to compare
    if len(ladder) < 2:
        found.append(f"the segments are too short to compare lags for {name}: make the relaxations longer")
    if name != EVERYTHING:
        found.append(drift_of_state(ladder, chosen, column, name, judged.frame_spacing))
    if judged.processes and judged.processes[0] in relevant:
        found.append(drift_of_timescale(ladder, chosen, judged.frame_spacing))
    if halves is not None:
        found.append(checks.check_halves(name, *(half[:, column] for half in halves)))
    longer = [
        (rung.model, rung.replicas)
        for rung in ladder[chosen + 1 :]
        if rung.model.lag_frames % model.lag_frames == 0 and np.array_equal(rung.model.active, model.active)
    ]
    tests[name] = checks.chapman_kolmogorov(model, ladder[chosen].replicas, longer, is_in, judged.frame_spacing)
    found.append(checks.check_chapman_kolmogorov(tests[name], name))
    return [one for one in found if one]


def _population(name: str, refusals: list[str], here: np.ndarray, judged: Reweighting) -> Population:
    if refusals:
        return Population(name, refusals)
    model, posterior, config = judged.model, judged.posterior, judged.config
    assert model is not None
    assert posterior is not None
    kt = GAS_CONSTANT * config.temperature
    draws = log_odds(posterior.stationary, here)
    told = markov.summary(draws, config.confidence)
    best = float(log_odds(model.stationary[None], here)[0])

    def population(log_odds: float) -> float:
        return float(1.0 / (1.0 + np.exp(-log_odds)))

    return Population(
        name,
        [],
        population=population(best),
        low=population(told["low"]),
        high=population(told["high"]),
        free_energy=-kt * best,
        free_energy_sd=kt * told["sd"],
        free_energy_low=-kt * told["high"],
        free_energy_high=-kt * told["low"],
    )
