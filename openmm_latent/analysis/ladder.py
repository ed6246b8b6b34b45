"""One Markov model a lag, and the smallest lag after which nothing drifts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openmm_latent.analysis import checks, markov
from openmm_latent.analysis.results import LagResult, ReweightConfig
from openmm_latent.errors import require

#: [kT] Uncertainty from which on a state's drift says nothing.
HOPELESS = 1.0


def lag_ladder(lengths: np.ndarray, frame_spacing: float, lag_time: float | None) -> list[int]:
    """Return lags in frames, rising, up to half of the segment length that half of all frames lie in."""
    order = np.sort(lengths)
    typical = int(order[np.searchsorted(np.cumsum(order), 0.5 * order.sum())])
    longest = max(2, typical // 2)
    if lag_time is not None:
        asked = round(lag_time / frame_spacing)
        require(
            asked >= 1 and abs(asked * frame_spacing - lag_time) <= 1e-3 * frame_spacing,
            f"lag_time must be a multiple of the frame spacing ({frame_spacing:g} ps), got {lag_time:g} ps",
        )
        require(
            asked < order[-1],
            f"lag_time {lag_time:g} ps is not shorter than the longest segment ({order[-1] * frame_spacing:g} ps)",
        )
        return sorted({asked, *(k * asked for k in (2, 3, 4) if k * asked <= longest)})
    rungs = [1, 2]
    while rungs[-1] < longest:
        rungs.append(2 * rungs[-1])
    return [rung for rung in rungs if rung <= longest]


def fit_rung(
    labels: Sequence[np.ndarray], lag: int, is_in: np.ndarray, frame_spacing: float, config: ReweightConfig
) -> LagResult | None:
    """Return the model of one lag with its replicas; None where nothing is connected."""
    n_microstates = is_in.shape[1]
    model = markov.fit_model(labels, lag, n_microstates)
    if model is None:
        return None
    replicas = markov.bootstrap(model, labels, n_microstates, config.n_replicas, config.seed)
    both = [model, *replicas]
    stationary = np.array([one.stationary for one in both])
    timescales = np.array([one.timescales(frame_spacing) for one in both])
    odds = [log_odds(stationary, state) for state in is_in[:, model.active]]
    return LagResult(model, replicas, timescales, np.array(odds).reshape(len(is_in), len(both)).T)


def log_odds(stationary: np.ndarray, is_in: np.ndarray) -> np.ndarray:
    """Return ln(p / (1 - p)) of a set of microstates: (n_draws, n), (n,) bool -> (n_draws,); nan if it is not there."""
    if not is_in.any() or is_in.all():
        return np.full(len(stationary), np.nan)
    return np.log(stationary[:, is_in].sum(axis=1) / stationary[:, ~is_in].sum(axis=1))


def choose_rung(ladder: Sequence[LagResult], lengths: np.ndarray, frame_spacing: float, lag_time: float | None) -> int:
    """Return the smallest lag after which timescale and populations drift no more; else the longest that may be used.

    At least one lag twice as long must be there to compare with.
    """
    if lag_time is not None:
        return int(np.argmin([abs(rung.model.lag_frames * frame_spacing - lag_time) for rung in ladder]))
    last = max(0, len(ladder) - 2)
    for index in range(last + 1):
        problems = [drift_of_timescale(ladder, index, frame_spacing, checks.CHOICE)]
        # A state of which nothing is known cannot choose; it will be refused.
        spread = np.std(ladder[index].log_odds[1:], axis=0)
        n_states = ladder[0].log_odds.shape[1]
        problems += [
            drift_of_state(ladder, index, k, "", frame_spacing, checks.CHOICE)
            for k in range(n_states)
            if spread[k] < HOPELESS
        ]
        if not any(problems):
            return index
    return last


def _lags(ladder: Sequence[LagResult], frame_spacing: float) -> np.ndarray:
    return np.array([rung.model.lag_frames for rung in ladder]) * frame_spacing


def drift_of_timescale(
    ladder: Sequence[LagResult],
    chosen: int,
    frame_spacing: float,
    allowed: tuple[float, float] = checks.REFUSAL,
) -> str | None:
    """Return what is wrong if the slowest timescale drifts with the lag."""
    lags = _lags(ladder, frame_spacing)
    if not ladder[chosen].timescales[0, 0] > lags[chosen]:
        return None  # nothing slow is there
    with np.errstate(invalid="ignore"):
        values = np.log([rung.timescales[:, 0] for rung in ladder]).T  # (1 + n_replicas, n_lags)
    return checks.check_drift("the slowest implied timescale", values[0], values[1:], lags, chosen, allowed)


def drift_of_state(
    ladder: Sequence[LagResult],
    chosen: int,
    state: int,
    name: str,
    frame_spacing: float,
    allowed: tuple[float, float] = checks.REFUSAL,
) -> str | None:
    """Return what is wrong if the weight of a state drifts with the lag."""
    values = np.array([rung.log_odds[:, state] for rung in ladder]).T  # (1 + n_replicas, n_lags)
    what = f"the weight of {name} against all else"
    return checks.check_drift(what, values[0], values[1:], _lags(ladder, frame_spacing), chosen, allowed)


def log_odds_of_halves(
    labels: Sequence[np.ndarray], lag: int, is_in: np.ndarray, frame_spacing: float, config: ReweightConfig
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return ln(p / (1 - p)) of all states, (1 + n_replicas, n_states), from first and from second halves."""
    middles = [len(part) // 2 for part in labels]
    early = [part[:middle] for part, middle in zip(labels, middles, strict=True)]
    late = [part[middle:] for part, middle in zip(labels, middles, strict=True)]
    first, second = (fit_rung(parts, lag, is_in, frame_spacing, config) for parts in (early, late))
    return None if first is None or second is None else (first.log_odds, second.log_odds)
