"""Do the data suffice? Each check gives None, or a sentence that says what is missing and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from openmm_latent.analysis.markov import MarkovModel, coarse, spectrum

#: Share of a state's frames, and of the others, that the connected set must hold.
LEAST_CONNECTED = 0.95
#: Share of a state's variance from which on a slow process matters to its population.
RELEVANT = 0.05
#: A microstate is in the core of its side if the eigenvector is at least so much of its mean there.
CORE = 0.75
#: Independent draws of the posterior that an error needs.
FEWEST_DRAWS = 30
#: Drift of ln(timescale) and of ln(p / (1 - p)) between the chosen lag and a longer one: what a lag is chosen by, and
#: what is refused. Each is let pass up to the first number, or up to so many standard deviations of the difference.
#: The choice is strict, as recrossings of a barrier bias short lags all the same way; few data then take the longest.
CHOICE, REFUSAL = (0.1, 0.5), (0.2, 3.0)
#: Relative deviation that the Chapman-Kolmogorov test lets pass, of the probability to have left a set.
CK_TOLERANCE = 0.1
#: Chance that a right model fails a Chapman-Kolmogorov test, all its comparisons together; or less, as both sides of
#: each comparison are made of the same data.
CK_LEVEL = 0.01


def check_connected(
    labels: Sequence[np.ndarray], is_in: Sequence[np.ndarray], active: np.ndarray, name: str
) -> str | None:
    """Return what is wrong if frames of a state, or the others, are not connected both ways by MD.

    Parameters
    ----------
    labels : list of array of int, (n_frames,)
        Microstates.
    is_in : list of array of bool, (n_frames,)
    active : array of int, (n_active,)
    """
    inside, everywhere = np.concatenate(is_in), np.concatenate(labels)
    n_inside = int(inside.sum())
    if n_inside == 0:
        return f"{name} was never visited: start runs there, or use a model whose jumps reach it"
    if n_inside == len(inside):
        return f"nothing but {name} was visited: start runs elsewhere, or use a model whose jumps leave it"
    n_left = sum(int((part[:-1] & ~part[1:]).sum()) for part in is_in)
    n_entered = sum(int((~part[:-1] & part[1:]).sum()) for part in is_in)
    n_segments = sum(bool(part.any()) for part in is_in)
    longer = "make the relaxations longer (--jump-interval), or start more of them there"
    if n_left == 0:
        return f"{name} was never left by relaxation MD in {n_inside} frames of {n_segments} segments: {longer}"
    if n_entered == 0:
        return (
            f"{name} was never entered by relaxation MD, only by jumps ({n_inside} frames): run longer, or start more "
            f"relaxations in the states beside it"
        )
    is_connected = np.isin(everywhere, active)
    for which, members in ((f"{name}'s frames", inside), (f"the frames outside {name}", ~inside)):
        share = float(is_connected[members].mean())
        if share < LEAST_CONNECTED:
            return (
                f"{100 * (1 - share):.0f} % of {which} lie where relaxation MD does not lead both in and out: run "
                f"longer, or make the relaxations longer (--jump-interval)"
            )
    return None


@dataclass(frozen=True)
class SlowProcess:
    """One slow process of a Markov model.

    Attributes
    ----------
    timescale : float
        [ps]
    side : np.ndarray
        (n,) bool: the microstates on the side of fewer frames at equilibrium.
    n_there, n_back : int
        Passages inside segments from the core of the common side to that of the rare one, and back; see `_passages`.
    eigenvector : np.ndarray
        (n,) of unit stationary variance.
    """

    timescale: float
    side: np.ndarray
    n_there: int
    n_back: int
    eigenvector: np.ndarray

    def share_of(self, is_in: np.ndarray, stationary: np.ndarray) -> float:
        """Return the share of a state's variance, (n,) bool, that the process explains."""
        weight = float(stationary[is_in].sum())
        overlap = float((stationary * is_in) @ self.eigenvector)
        return overlap**2 / max(weight * (1 - weight), 1e-300)


def slow_processes(
    model: MarkovModel, labels: Sequence[np.ndarray], frame_spacing: float, n: int = 5
) -> list[SlowProcess]:
    """Return the processes slower than the lag, at most n, slowest first."""
    values, vectors = spectrum(model.transition_matrix, model.stationary)
    lag_time = model.lag_frames * frame_spacing
    found = []
    for value, vector in zip(values[1 : n + 1], vectors.T[1 : n + 1], strict=True):
        if value < np.exp(-1.0):
            break
        positive = vector > 0
        rare = positive if model.stationary[positive].sum() < 0.5 else ~positive
        n_there, n_back = _passages(labels, model, vector, rare)
        timescale = -lag_time / np.log(min(value, 1 - 1e-15))
        found.append(SlowProcess(float(timescale), rare, n_there, n_back, vector))
    return found


def _passages(
    labels: Sequence[np.ndarray], model: MarkovModel, vector: np.ndarray, rare: np.ndarray
) -> tuple[int, int]:
    """Count passages between the cores of both sides, where the eigenvector is near its mean on the side.

    A visit counts if it lasts longer than the lag, or until the segment ends: a short one is a recrossing.
    """
    core = np.zeros(len(vector), dtype=int)
    for side, number in ((rare, 1), (~rare, -1)):
        mean = (model.stationary * vector)[side].sum() / model.stationary[side].sum()
        core[side & (vector / mean >= CORE)] = number
    table = np.zeros(1 + max(max(int(part.max()) for part in labels if len(part)), int(model.active.max())), dtype=int)
    table[model.active] = core
    n_there = n_back = 0
    for part in labels:
        visited = table[part]
        frames = np.flatnonzero(visited)
        starts = frames[np.diff(visited[frames], prepend=0) != 0]  # of each stay in a core
        lasts = np.diff(np.append(starts, len(part) + model.lag_frames)) > model.lag_frames
        stays = visited[starts[lasts]]
        steps = np.diff(stays)
        n_there += int((steps > 0).sum())
        n_back += int((steps < 0).sum())
    return n_there, n_back


def check_transitions(processes: Sequence[SlowProcess], fewest: int, name: str) -> str | None:
    """Return what is wrong if a slow process that matters was seen too seldom."""
    for process in processes:
        if min(process.n_there, process.n_back) < fewest:
            return (
                f"the process of {process.timescale:.3g} ps that {name} takes part in was seen {process.n_there} times "
                f"one way and {process.n_back} times the other inside relaxations, and {fewest} each are needed: run "
                f"longer, or start more relaxations on the side that is seldom left"
            )
    return None


def check_width(log_odds: np.ndarray, largest: float, name: str) -> str | None:
    """Return what is wrong if the error of ln(p / (1 - p)), from draws, is larger than `largest` [kT]."""
    width = float(np.std(log_odds))
    if width <= largest:
        return None
    return f"the free energy of {name} is uncertain by {width:.2g} kT, and {largest:g} is allowed: run longer"


def check_draws(effective_draws: float, name: str) -> str | None:
    """Return what is wrong if the posterior's draws are too much alike for an error."""
    if effective_draws >= FEWEST_DRAWS:
        return None
    return (
        f"the errors of {name} are not known: the posterior's draws are worth {effective_draws:.0f} independent ones, "
        f"and {FEWEST_DRAWS} are needed; give fewer microstates (--microstates) or more draws"
    )


def check_drift(
    what: str,
    values: np.ndarray,
    replicas: np.ndarray,
    lags: np.ndarray,
    chosen: int,
    allowed: tuple[float, float] = REFUSAL,
) -> str | None:
    """Return what is wrong if a logarithm still drifts between the chosen lag and longer ones.

    Parameters
    ----------
    values : array, (n_lags,)
        Logarithms; nan where there is no model.
    replicas : array, (n_replicas, n_lags)
        The same of the bootstrap's replicas, each of the same weights at all lags.
    lags : array, (n_lags,) [ps]
    chosen : int
        Index of the lag used.
    allowed : (float, float)
        Drift, and standard deviations of it, of which the larger is allowed.
    """
    for index in range(chosen + 1, len(lags)):
        drift = values[index] - values[chosen]
        if not np.isfinite(drift):
            continue
        error = float(np.nanstd(replicas[:, index] - replicas[:, chosen]))
        if abs(drift) > max(allowed[0], allowed[1] * error):
            return (
                f"{what} changes by a factor of {np.exp(abs(drift)):.2g} between lags of {lags[chosen]:g} and "
                f"{lags[index]:g} ps, beyond its error: make the relaxations longer (--jump-interval), or give "
                f"other features"
            )
    return None


def check_halves(name: str, early: np.ndarray, late: np.ndarray) -> str | None:
    """Return what is wrong if the first halves of segments tell another weight than the second halves.

    A model of what is seen does not care how long ago the jump was; it does if something slow is not seen.

    Parameters
    ----------
    early, late : array, (1 + n_replicas,)
        ln(p / (1 - p)), the model's first; replicas of the same weights. nan where a half does not connect the state:
        then nothing can be compared.
    """
    difference = late - early
    if not np.isfinite(difference).all():
        return None
    if abs(difference[0]) <= max(REFUSAL[0], REFUSAL[1] * float(np.std(difference[1:]))):
        return None
    return (
        f"the second halves of the relaxations give {name} {np.exp(difference[0]):.2g} times the weight that the first "
        f"halves give, beyond its error: something slow is not seen; make the relaxations longer (--jump-interval), "
        f"drop more (--drop), or give other features"
    )


@dataclass(frozen=True)
class ChapmanKolmogorov:
    """Prediction and estimate of the probability to be in each set again after k lags.

    Attributes
    ----------
    lags : np.ndarray
        (n_k,) [ps], the first is the model's own.
    predicted, estimated : np.ndarray
        (n_k, 2) for the set and its complement.
    predicted_sd, estimated_sd, difference_sd : np.ndarray
        (n_k, 2) by the bootstrap.
    passes : bool
    largest : float
        Largest deviation in standard deviations of the difference, after the tolerance is taken off.
    """

    lags: np.ndarray
    predicted: np.ndarray
    estimated: np.ndarray
    predicted_sd: np.ndarray
    estimated_sd: np.ndarray
    difference_sd: np.ndarray
    passes: bool
    largest: float


def chapman_kolmogorov(
    model: MarkovModel,
    replicas: Sequence[MarkovModel],
    longer: Sequence[tuple[MarkovModel, Sequence[MarkovModel]]],
    is_in: np.ndarray,
    frame_spacing: float,
) -> ChapmanKolmogorov:
    """Compare powers of a model with models of longer lags, for one set of microstates and its complement.

    Parameters
    ----------
    model, replicas
        Of the chosen lag, with the replicas of the bootstrap.
    longer : list of (MarkovModel, list of MarkovModel)
        At whole multiples of the model's lag; replicas of the same weights.
    is_in : array of bool, (n_microstates,)
        Over all microstates, connected or not.
    frame_spacing : float [ps]
    """
    columns: list[list[np.ndarray]] = [[], [], [], [], []]
    powers = []
    for other, others in [(model, replicas), *longer]:
        power = other.lag_frames // model.lag_frames
        powers.append(power)
        predicted, estimated = _stay(model, is_in, power), _stay(other, is_in, 1)
        first = np.array([_stay(one, is_in, power) for one in replicas])
        second = np.array([_stay(one, is_in, 1) for one in others])
        values = predicted, estimated, first.std(axis=0), second.std(axis=0), (second - first).std(axis=0)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    table = [np.array(column) for column in columns]
    excess = np.abs(table[1] - table[0]) - CK_TOLERANCE * (1.0 - table[0])
    scores = np.maximum(excess[1:], 0.0) / (table[4][1:] + 1e-12)
    largest = float(scores.max()) if scores.size else 0.0
    limit = float(norm.isf(0.5 * CK_LEVEL / max(1, scores.size)))
    lags = model.lag_frames * frame_spacing * np.array(powers)
    return ChapmanKolmogorov(lags, table[0], table[1], table[2], table[3], table[4], largest <= limit, largest)


def _stay(model: MarkovModel, is_in: np.ndarray, power: int) -> np.ndarray:
    """Return the probability to be in a set, and in its complement, again after some steps: (2,)."""
    inside = is_in[model.active]
    matrix = np.linalg.matrix_power(model.transition_matrix, power)
    return np.diagonal(coarse(matrix, model.stationary, np.stack([inside, ~inside]).astype(float)))


def check_chapman_kolmogorov(test: ChapmanKolmogorov, name: str) -> str | None:
    """Return what is wrong if the test fails."""
    if test.passes:
        return None
    return (
        f"the Chapman-Kolmogorov test of {name} fails by {test.largest:.1f} standard deviations: at a lag of "
        f"{test.lags[0]:g} ps the model is not Markovian; give a longer lag_time (--lag-time), longer relaxations "
        f"(--jump-interval) or other features"
    )
