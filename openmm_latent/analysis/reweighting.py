"""From segments to equilibrium: how much to drop, which lag, the model, its checks, and what it says of each state.

No number leaves this module for an observable that the checks refuse; a sentence does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from openmm_latent.analysis import checks, markov
from openmm_latent.analysis.segments import Segment
from openmm_latent.analysis.settling import Settling, find_dropped_time
from openmm_latent.errors import require

#: [kJ/mol/K]
GAS_CONSTANT = 0.00831446261815324
#: Free energies of bins with fewer frames are left out.
_FEWEST_IN_BIN = 5
#: Name that sentences use for what belongs to no state: frame weights, surfaces, timescales.
EVERYTHING = "the ensemble as a whole"


@dataclass(frozen=True)
class ReweightConfig:
    """How to reweight."""

    temperature: float  # [K] of the relaxations
    lag_time: float | None = None  # [ps] of the Markov model; None chooses
    dropped_time: float | None = None  # [ps] after each accepted jump; None lets a test choose
    n_microstates: int = 40
    n_dimensions: int = 4  # of TICA, at most
    fewest_transitions: int = 5  # each way, of each slow process that matters
    largest_error: float = 1.0  # [kT] of a state's free energy that is still told
    level: float = 0.01  # of the test of how much to drop
    n_draws: int = 200  # of the posterior
    n_replicas: int = 40  # of the bootstrap that lags are compared by
    confidence: float = 0.95  # of intervals
    seed: int = 1

    def check(self) -> None:
        """Raise `LatentError` for values that make no sense."""
        require(self.temperature > 0, f"temperature must be positive, got {self.temperature} K")
        require(self.lag_time is None or self.lag_time > 0, f"lag_time must be positive, got {self.lag_time} ps")
        require(
            self.dropped_time is None or self.dropped_time >= 0,
            f"dropped_time must be zero or positive, got {self.dropped_time} ps",
        )
        require(self.n_microstates >= 2, f"n_microstates must be at least 2, got {self.n_microstates}")
        require(0 < self.confidence < 1, f"confidence must lie between 0 and 1, got {self.confidence}")
        require(self.n_draws >= 20, f"n_draws must be at least 20, got {self.n_draws}")


@dataclass(frozen=True)
class Population:
    """What is known of one state; all numbers are None where `refusals` tells why."""

    name: str
    refusals: list[str]
    population: float | None = None
    low: float | None = None
    high: float | None = None
    free_energy: float | None = None  # [kJ/mol] -RT ln(p / (1 - p)), of the state against all others
    free_energy_sd: float | None = None  # [kJ/mol]
    free_energy_low: float | None = None  # [kJ/mol]
    free_energy_high: float | None = None  # [kJ/mol]


@dataclass(frozen=True)
class LagResult:
    """One rung of the ladder of lags: a model, replicas of it, and what is compared between lags."""

    model: markov.MarkovModel
    replicas: list[markov.MarkovModel]  # of the bootstrap over segments
    timescales: np.ndarray  # (1 + n_replicas, n_processes) [ps], the model's first
    log_odds: np.ndarray  # (1 + n_replicas, n_states) ln(p / (1 - p)); nan for a state that is not connected


@dataclass(frozen=True)
class Reweighting:
    """The result.

    Attributes
    ----------
    config : ReweightConfig
    frame_spacing : float
        [ps]
    settling : Settling or None
        The test of how much to drop; None if the user gave the time.
    dropped_time, lag_time : float or None
        [ps] used.
    segments : list of Segment
        After dropping.
    labels : list of array of int
        Microstate of each kept frame.
    ladder : list of LagResult
    model, posterior : of the chosen lag, or None
    processes : list of SlowProcess
    chapman_kolmogorov : dict of str to ChapmanKolmogorov
        By state; `EVERYTHING` for the slowest process.
    populations : list of Population
    refusals : list of str
        Why weights and surfaces are not given; empty if they are.
    """

    config: ReweightConfig
    frame_spacing: float
    settling: Settling | None
    dropped_time: float | None
    lag_time: float | None
    segments: list[Segment]
    labels: list[np.ndarray] = field(default_factory=list)
    ladder: list[LagResult] = field(default_factory=list)
    model: markov.MarkovModel | None = None
    posterior: markov.Posterior | None = None
    processes: list[checks.SlowProcess] = field(default_factory=list)
    chapman_kolmogorov: dict[str, checks.ChapmanKolmogorov] = field(default_factory=dict)
    populations: list[Population] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def weights(self) -> list[np.ndarray]:
        """Return each kept frame's stationary weight, sum 1; raises `LatentError` if the data do not suffice."""
        require(not self.refusals, f"weights are not given: {'; '.join(self.refusals)}")
        assert self.model is not None
        return markov.frame_weights(self.labels, self.model.active, self.model.stationary)

    def surface(self, axes: Sequence[int], edges: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return a free-energy surface over one or two axes of the segments.

        Parameters
        ----------
        axes : sequence of int
            Columns of `Segment.axes`.
        edges : list of array
            Bin edges of each axis.

        Returns
        -------
        free_energy, error : np.ndarray
            [kJ/mol], lowest 0; nan in bins with fewer than 5 frames. The error joins the posterior's with that of
            the frames in the bin, of which each segment counts for one.
        """
        require(not self.refusals, f"the surface is not given: {'; '.join(self.refusals)}")
        assert self.model is not None
        assert self.posterior is not None
        values = np.concatenate([part.axes[:, list(axes)] for part in self.segments])
        everywhere = np.concatenate(self.labels)
        owner = np.repeat(np.arange(len(self.segments)), [len(part) for part in self.segments])
        shape = tuple(len(edge) - 1 for edge in edges)
        place = [
            np.clip(np.searchsorted(e, v, side="right") - 1, 0, len(e) - 2)
            for e, v in zip(edges, values.T, strict=True)
        ]
        bins = np.ravel_multi_index(place, shape)
        place_of = np.full(max(int(everywhere.max()), int(self.model.active.max())) + 1, -1)
        place_of[self.model.active] = np.arange(len(self.model.active))
        used = place_of[everywhere] >= 0
        rows, columns = place_of[everywhere[used]], bins[used]
        n_bins = int(np.prod(shape))
        within = np.bincount(rows * n_bins + columns, minlength=len(self.model.active) * n_bins)
        within = within.reshape(-1, n_bins).astype(float)  # (n, n_bins)
        n_frames = within.sum(axis=0)
        within /= within.sum(axis=1, keepdims=True)
        n_visitors = np.bincount(np.unique(owner[used] * n_bins + columns) % n_bins, minlength=n_bins)
        kt = GAS_CONSTANT * self.config.temperature
        with np.errstate(divide="ignore", invalid="ignore"):
            free_energy = -kt * np.log(self.model.stationary @ within)
            spread = np.std(np.log(self.posterior.stationary @ within), axis=0)
            error = kt * np.sqrt(spread**2 + 1.0 / n_visitors)
        is_blank = n_frames < _FEWEST_IN_BIN
        free_energy[is_blank], error[is_blank] = np.nan, np.nan
        return (free_energy - np.nanmin(free_energy)).reshape(shape), error.reshape(shape)


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
    lags = _ladder(lengths, frame_spacing, config.lag_time)
    coordinates = markov.slow_coordinates(kept, lags[len(lags) // 2], config.n_dimensions)
    labels = markov.microstates(kept, coordinates, config.n_microstates, config.seed)
    is_in = _microstates_in(kept, labels, len(states))
    ladder = [rung for rung in (_rung(labels, lag, is_in, frame_spacing, config) for lag in lags) if rung is not None]
    if not ladder:
        problem = "no two regions are connected both ways by relaxation MD: run longer, or make the relaxations longer"
        return _refused(problem, segments, states, config, frame_spacing, settling, dropped)
    base = Reweighting(config, frame_spacing, settling, dropped, None, kept, labels, ladder)
    return _judge(base, states, is_in, _choose(ladder, lengths, frame_spacing, config.lag_time))


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


def _ladder(lengths: np.ndarray, frame_spacing: float, lag_time: float | None) -> list[int]:
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


def _microstates_in(segments: Sequence[Segment], labels: Sequence[np.ndarray], n_states: int) -> np.ndarray:
    """Return which microstates belong to each state, (n_states, n_microstates) bool."""
    everywhere, is_in = np.concatenate(labels), np.concatenate([part.is_in for part in segments])
    first = np.unique(everywhere, return_index=True)[1]
    return is_in[first].T.reshape(n_states, len(first))


def _rung(
    labels: Sequence[np.ndarray], lag: int, is_in: np.ndarray, frame_spacing: float, config: ReweightConfig
) -> LagResult | None:
    n_microstates = is_in.shape[1]
    model = markov.fit_model(labels, lag, n_microstates)
    if model is None:
        return None
    replicas = markov.bootstrap(model, labels, n_microstates, config.n_replicas, config.seed)
    both = [model, *replicas]
    stationary = np.array([one.stationary for one in both])
    timescales = np.array([one.timescales(frame_spacing) for one in both])
    odds = [_log_odds(stationary, state) for state in is_in[:, model.active]]
    return LagResult(model, replicas, timescales, np.array(odds).reshape(len(is_in), len(both)).T)


def _log_odds(stationary: np.ndarray, is_in: np.ndarray) -> np.ndarray:
    """Return ln(p / (1 - p)) of a set of microstates: (n_draws, n), (n,) bool -> (n_draws,); nan if it is not there."""
    if not is_in.any() or is_in.all():
        return np.full(len(stationary), np.nan)
    return np.log(stationary[:, is_in].sum(axis=1) / stationary[:, ~is_in].sum(axis=1))


def _choose(ladder: Sequence[LagResult], lengths: np.ndarray, frame_spacing: float, lag_time: float | None) -> int:
    """Return the smallest lag after which timescale and populations drift no more; else the longest that may be used.

    At least one lag twice as long must be there to compare with.
    """
    if lag_time is not None:
        return int(np.argmin([abs(rung.model.lag_frames * frame_spacing - lag_time) for rung in ladder]))
    last = max(0, len(ladder) - 2)
    for index in range(last + 1):
        problems = [_drift_of_timescale(ladder, index, frame_spacing, checks.CHOICE)]
        n_states = ladder[0].log_odds.shape[1]
        problems += [_drift_of_state(ladder, index, k, "", frame_spacing, checks.CHOICE) for k in range(n_states)]
        if not any(problems):
            return index
    return last


def _lags(ladder: Sequence[LagResult], frame_spacing: float) -> np.ndarray:
    return np.array([rung.model.lag_frames for rung in ladder]) * frame_spacing


def _drift_of_timescale(
    ladder: Sequence[LagResult],
    chosen: int,
    frame_spacing: float,
    allowed: tuple[float, float] = checks.REFUSAL,
) -> str | None:
    lags = _lags(ladder, frame_spacing)
    if not ladder[chosen].timescales[0, 0] > lags[chosen]:
        return None  # nothing slow is there
    with np.errstate(invalid="ignore"):
        values = np.log([rung.timescales[:, 0] for rung in ladder]).T  # (1 + n_replicas, n_lags)
    return checks.check_drift("the slowest implied timescale", values[0], values[1:], lags, chosen, allowed)


def _drift_of_state(
    ladder: Sequence[LagResult],
    chosen: int,
    state: int,
    name: str,
    frame_spacing: float,
    allowed: tuple[float, float] = checks.REFUSAL,
) -> str | None:
    values = np.array([rung.log_odds[:, state] for rung in ladder]).T  # (1 + n_replicas, n_lags)
    what = f"the weight of {name} against all else"
    return checks.check_drift(what, values[0], values[1:], _lags(ladder, frame_spacing), chosen, allowed)


def _judge(base: Reweighting, states: Sequence[str], is_in: np.ndarray, chosen: int) -> Reweighting:
    """Run all checks at the chosen lag and gather what may be told."""
    config, frame_spacing, labels, ladder = base.config, base.frame_spacing, base.labels, base.ladder
    model, replicas = ladder[chosen].model, ladder[chosen].replicas
    lag_time = model.lag_frames * frame_spacing
    processes = checks.slow_processes(model, labels, frame_spacing)
    sides = [process.side for process in processes[:3]]
    regions = np.array([*is_in[:, model.active], *sides]).reshape(-1, len(model.active))
    posterior = markov.sample_posterior(model, regions, n_draws=config.n_draws, seed=config.seed)
    longer = [
        (rung.model, rung.replicas)
        for rung in ladder[chosen + 1 :]
        if rung.model.lag_frames % model.lag_frames == 0 and np.array_equal(rung.model.active, model.active)
    ]
    populations, tests = [], {}
    for number, name in enumerate(states):
        inside = is_in[number]
        refusals = _refusals_of(base, name, number, inside, model, posterior, processes, chosen)
        if not _is_whole(inside[model.active]) and not refusals:
            tests[name] = checks.chapman_kolmogorov(model, replicas, longer, inside, frame_spacing)
            refusals = [s for s in [checks.check_chapman_kolmogorov(tests[name], name)] if s]
        populations.append(_population(name, refusals, inside[model.active], model, posterior, config))
    refusals = [f"{one.name} is not known" for one in populations if one.refusals]
    share = np.isin(np.concatenate(labels), model.active).mean()
    if share < checks.LEAST_CONNECTED:
        refusals.append(
            f"{100 * (1 - share):.0f} % of all frames lie where relaxation MD does not lead both in and out"
        )
    if processes:
        slowest = np.zeros(is_in.shape[1], dtype=bool)
        slowest[model.active[processes[0].side]] = True
        tests[EVERYTHING] = checks.chapman_kolmogorov(model, replicas, longer, slowest, frame_spacing)
        refusals += [
            sentence
            for sentence in (
                checks.check_transitions(processes[:1], config.fewest_transitions, EVERYTHING),
                checks.check_width(
                    _log_odds(posterior.stationary, processes[0].side), config.largest_error, "the slowest process"
                ),
                _drift_of_timescale(ladder, chosen, frame_spacing),
                checks.check_chapman_kolmogorov(tests[EVERYTHING], EVERYTHING),
            )
            if sentence
        ]
    return replace(
        base,
        lag_time=lag_time,
        model=model,
        posterior=posterior,
        processes=processes,
        chapman_kolmogorov=tests,
        populations=populations,
        refusals=refusals,
    )


def _is_whole(inside: np.ndarray) -> bool:
    return bool(inside.all() or not inside.any())


def _refusals_of(
    base: Reweighting,
    name: str,
    number: int,
    inside: np.ndarray,
    model: markov.MarkovModel,
    posterior: markov.Posterior,
    processes: Sequence[checks.SlowProcess],
    chosen: int,
) -> list[str]:
    """Return what is missing for one state, in the order in which it is to be mended."""
    config, frame_spacing = base.config, base.frame_spacing
    memberships = [part.is_in[:, number] for part in base.segments]
    sentence = checks.check_connected(base.labels, memberships, model.active, name)
    here = inside[model.active]
    if sentence or _is_whole(here):
        return [sentence or f"{name} lies outside of what relaxation MD connects both ways: run longer"]
    relevant = [process for process in processes if process.share_of(here, model.stationary) >= checks.RELEVANT]
    found = [
        checks.check_transitions(relevant, config.fewest_transitions, name),
        checks.check_width(_log_odds(posterior.stationary, here), config.largest_error, name),
        _drift_of_state(base.ladder, chosen, number, name, frame_spacing),
        _drift_of_timescale(base.ladder, chosen, frame_spacing) if processes and processes[0] in relevant else None,
    ]
    if len(base.ladder) < 2:
        found.append(f"the segments are too short to compare lags for {name}: make the relaxations longer")
    return [one for one in found if one]


def _population(
    name: str,
    refusals: list[str],
    here: np.ndarray,
    model: markov.MarkovModel,
    posterior: markov.Posterior,
    config: ReweightConfig,
) -> Population:
    if refusals:
        return Population(name, refusals)
    kt = GAS_CONSTANT * config.temperature
    draws = _log_odds(posterior.stationary, here)
    told = markov.summary(draws, config.confidence)
    best = float(_log_odds(model.stationary[None], here)[0])

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
