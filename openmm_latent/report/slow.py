"""Slow processes: coordinates fitted on the reference, and what ensembles do along them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from openmm_latent import metrics
from openmm_latent.errors import LatentError, require
from openmm_latent.report.ensembles import Ensemble
from openmm_latent.report.error_bars import block_edges, jsd_interval
from openmm_latent.report.scores import defined

#: More torsion features than this are first reduced to as many principal components.
MAX_FEATURES = 200
#: States of the lagged pairs.
N_STATES = 36
#: Frames that clustering and the features' components are fitted on, evenly spread.
_FIT_FRAMES = 5000
#: The default lag is the shortest run of the reference over this.
_LAGS_A_RUN = 250
#: Of fewer residues a correlation of their shares in a mode says nothing.
FEWEST_RESIDUES = 10
#: Times agree if they differ by less than this fraction.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Features:
    """What TICA is fitted on.

    Attributes
    ----------
    words : str
        What the page calls them.
    make : callable
        Ensemble -> (n_frames, n_features) float32.
    uses_torsions : bool
    """

    words: str
    make: Callable[[Ensemble], np.ndarray]
    uses_torsions: bool

    def fits(self, ensemble: Ensemble) -> bool:
        """Tell whether an ensemble has what these features are made of."""
        return (ensemble.angles if self.uses_torsions else ensemble.trace) is not None


def choose_features(reference: Ensemble) -> Features:
    """Choose cosines and sines of torsions, or trace coordinates where there are no torsions."""
    uses_torsions = reference.angles is not None and reference.angles.shape[1] > 0
    if uses_torsions:
        words, raw, n_raw = "cos and sin of phi, psi and chi", _torsions, 2 * reference.angles.shape[1]
    else:
        words, raw = f"superposed coordinates of {reference.molecule.trace_name}", _coordinates
        n_raw = 3 * len(reference.molecule.trace)
    if n_raw <= MAX_FEATURES:
        return Features(words, lambda one: _in_pieces(one, raw, None, None), uses_torsions)
    sample = np.concatenate([raw(part) for part in _parts(reference.thinned(_FIT_FRAMES))]).astype(np.float64)
    mean = sample.mean(axis=0)
    directions = _largest_directions(sample - mean, min(MAX_FEATURES, len(sample) - 1))
    words = f"the {directions.shape[1]} largest principal components of {words}"
    return Features(words, lambda one: _in_pieces(one, raw, mean, directions), uses_torsions)


def _largest_directions(centred: np.ndarray, n: int) -> np.ndarray:
    """Return the `n` directions of largest variance, (n_features, n), of centred frames (n_frames, n_features)."""
    if len(centred) < centred.shape[1]:  # the matrix of frames is the smaller one
        return np.ascontiguousarray(np.linalg.svd(centred, full_matrices=False)[2][:n].T)
    from scipy.linalg import eigh

    last = centred.shape[1] - 1
    return np.ascontiguousarray(eigh(centred.T @ centred, subset_by_index=[last + 1 - n, last])[1][:, ::-1])


def _torsions(ensemble: Ensemble) -> np.ndarray:
    return metrics.torsion_features(ensemble.angles)


def _coordinates(ensemble: Ensemble) -> np.ndarray:
    return ensemble.trace.reshape(ensemble.n_frames, -1)


def _parts(ensemble: Ensemble) -> list[Ensemble]:
    """Cut an ensemble into pieces of 2000 frames: views."""
    starts = range(0, ensemble.n_frames, 2000)
    return [
        ensemble.taken(slice(a, a + 2000), (min(2000, ensemble.n_frames - a),), ensemble.frame_spacing) for a in starts
    ]


def _in_pieces(ensemble: Ensemble, raw: Callable, mean: Any, directions: Any) -> np.ndarray:
    pieces = [raw(part) if mean is None else (raw(part) - mean) @ directions for part in _parts(ensemble)]
    return np.concatenate([piece.astype(np.float32) for piece in pieces])


def frames_at(lag_time: float, ensemble: Ensemble) -> int | None:
    """Return how many of an ensemble's frames a lag [ps] is; None if not a whole number or longer than half a run."""
    if ensemble.frame_spacing is None:
        return None
    n_frames = round(lag_time / ensemble.frame_spacing)
    fits = n_frames >= 1 and abs(n_frames * ensemble.frame_spacing - lag_time) <= _TOLERANCE * lag_time
    return n_frames if fits and 2 * n_frames < max(ensemble.lengths) else None


def choose_lag(reference: Ensemble, sample: Ensemble, lag_time: float | None) -> float:
    """Return the lag [ps] of TICA: the one given, or one that is whole frames of both ensembles.

    Raises
    ------
    LatentError
        The lag given is not a multiple of the reference's frame spacing, or too long for its runs.
    """
    spacing = reference.frame_spacing or 1.0
    if lag_time is not None:
        require_lag(lag_time, reference, "lag_time (--lag-time)")
        return lag_time
    wanted = max(1, min(reference.lengths) // _LAGS_A_RUN)
    for n_frames in range(wanted, max(2, max(reference.lengths) // 4)):
        if frames_at(n_frames * spacing, sample) is not None:
            return n_frames * spacing
    return wanted * spacing


def require_lag(lag_time: float, reference: Ensemble, argument: str) -> None:
    """Raise `LatentError` unless a lag [ps] is whole frames of the reference and shorter than half a run."""
    spacing = reference.frame_spacing or 1.0
    require(
        frames_at(lag_time, reference) is not None,
        f"{argument} must be a multiple of the reference's frame spacing ({spacing:g} ps) and shorter than half a run "
        f"({max(reference.lengths) * spacing / 2:g} ps), got {lag_time:g} ps",
    )


@dataclass(frozen=True)
class SlowCoordinates:
    """TICA of the reference with states on it, along which every ensemble is looked at.

    Attributes
    ----------
    lag_time : float [ps]
    tica : deeptime model
    sign : float
        Makes the rarer state lie at positive values.
    states : array, (n_states, 2)
    cores : (float, float)
        Below the first a frame is surely in the common state, above the second in the rarer one.
    boundary : float
    """

    lag_time: float
    tica: Any
    sign: float
    states: np.ndarray
    cores: tuple[float, float]
    boundary: float

    @classmethod
    def fit(cls, reference: Ensemble, lag_time: float, seed: int) -> SlowCoordinates:
        """Fit everything on the reference."""
        segments = reference.runs(reference.features)
        tica = metrics.fit_tica(segments, frames_at(lag_time, reference) or 1, 2)
        projected = _transform(tica, np.concatenate(segments), 1.0)
        thin = projected[np.linspace(0, len(projected) - 1, min(len(projected), _FIT_FRAMES)).astype(int)]
        low, high = np.sort(metrics.cluster_centres(thin[:, :1], 2, seed)[:, 0])
        sign = 1.0 if (projected[:, 0] > 0.5 * (low + high)).mean() <= 0.5 else -1.0
        projected *= np.array([sign, 1.0])
        low, high = sorted((sign * low, sign * high))
        n_states = min(N_STATES, max(2, len(thin) // 10))
        states = metrics.cluster_centres(projected[:: max(1, len(projected) // _FIT_FRAMES)], n_states, seed)
        third = (high - low) / 3.0
        return cls(lag_time, tica, sign, states, (low + third, high - third), 0.5 * (low + high))

    def project(self, ensemble: Ensemble) -> np.ndarray:
        """Return the two slow coordinates of all frames, (n_frames, 2)."""
        return _transform(self.tica, ensemble.features, self.sign)


def _transform(tica: Any, features: np.ndarray, sign: float) -> np.ndarray:
    """Project in pieces; a second coordinate of zeros where TICA found one only."""
    pieces = [tica.transform(features[a : a + 5000].astype(np.float64)) for a in range(0, len(features), 5000)]
    found = np.concatenate(pieces)[:, :2]
    if found.shape[1] < 2:
        found = np.pad(found, ((0, 0), (0, 2 - found.shape[1])))
    return found * np.array([sign, 1.0])


def own_numbers(sample: Ensemble, slow: SlowCoordinates) -> dict[str, float]:
    """Return population and, of an ensemble with time, crossings and timescales."""
    projected = slow.project(sample)[:, 0]
    found = {"slow_population": float((projected > slow.boundary).mean())}
    if sample.frame_spacing is None:
        return found
    runs, spacing = sample.runs(projected), sample.frame_spacing
    found["slow_crossings"] = crossings(runs, slow) / (sample.n_frames * spacing * 1e-6)
    n_lag = frames_at(slow.lag_time, sample)
    if n_lag is not None:
        segments = sample.runs(sample.features)
        found["slow_timescale"] = defined(lambda: metrics.timescale_along(runs, n_lag, spacing))
        with np.errstate(divide="ignore"):  # of a process that does not relax at all: infinite, and then not told
            found["t1"] = defined(lambda: metrics.tica_timescales(segments, n_lag, spacing, 1)[0])
    return found


def slow_scores(sample: Ensemble, reference: Ensemble, slow: SlowCoordinates, lags: list[float]) -> dict[str, float]:
    """Return an ensemble's own slow numbers and its distances from the reference along the slow coordinates.

    Keys of the lagged pairs and modes end in `@lag`, in ps.
    """
    found = own_numbers(sample, slow)
    states = metrics.assign_states(slow.project(sample), slow.states)
    expected = metrics.assign_states(slow.project(reference), slow.states)
    for lag in lags:
        pair = frames_at(lag, sample), frames_at(lag, reference)
        if None in pair:
            continue
        counts = [
            metrics.lagged_pair_counts(one.runs(labels), n, len(slow.states))
            for one, labels, n in zip((sample, reference), (states, expected), pair, strict=True)
        ]
        found[f"lagged_pairs_jsd@{lag:g}"] = defined(lambda c=counts: metrics.jsd(*c))
        if reference.molecule.is_calpha and len(reference.molecule.trace) >= FEWEST_RESIDUES:
            modes = [_modes(one, n) for one, n in zip((sample, reference), pair, strict=True)]
            found[f"mode_r@{lag:g}"] = defined(lambda m=modes: metrics.pearson(*m))
    return found


def _modes(ensemble: Ensemble, lag_frames: int) -> np.ndarray:
    """Return residues' shares in the slowest mode of trace coordinates; NaN where it is not defined."""
    try:
        return metrics.mode_contributions(ensemble.runs(ensemble.trace), lag_frames)[0]
    except (LatentError, np.linalg.LinAlgError, ValueError):  # deeptime's way to say that nothing moves
        return np.full(ensemble.trace.shape[1], np.nan)


def crossings(runs: list[np.ndarray], slow: SlowCoordinates) -> int:
    """Count passages between the cores of the two slow states."""
    total = 0
    for run in runs:
        below, above = run < slow.cores[0], run > slow.cores[1]
        if (below | above).any():
            total += int(np.abs(np.diff(metrics.core_states(above, below).astype(int))).sum())
    return total


def slow_intervals(sample: Ensemble, slow: SlowCoordinates, seed: int, n_blocks: int) -> dict[str, tuple]:
    """Return bootstrap intervals of an ensemble's own slow numbers, over contiguous blocks."""
    first = slow.project(sample)[:, 0]
    blocks = [first[a:b] for a, b in block_edges(sample.lengths, n_blocks)]
    if len(blocks) < 3:
        return {}
    shares = [(int((b > slow.boundary).sum()), len(b)) for b in blocks]
    population = metrics.bootstrap_interval(lambda c: sum(n for n, _ in c) / sum(m for _, m in c), shares, seed=seed)
    found = {"slow_population": (max(0.0, population[0]), min(1.0, population[1]))}
    if sample.frame_spacing is None:
        return found
    microseconds = sample.frame_spacing * 1e-6
    passed = [(crossings([b], slow), len(b) * microseconds) for b in blocks]
    low, high = metrics.bootstrap_interval(lambda c: sum(n for n, _ in c) / sum(t for _, t in c), passed, seed=seed)
    found["slow_crossings"] = (max(0.0, low), high)
    n_lag = frames_at(slow.lag_time, sample)
    if n_lag is not None and min(len(b) for b in blocks) > 2 * n_lag:
        spacing = sample.frame_spacing
        low, high = metrics.bootstrap_interval(
            lambda c: defined(lambda: metrics.timescale_along(c, n_lag, spacing)), blocks, seed=seed, n_resamples=200
        )
        found["slow_timescale"] = (np.maximum(0.0, low), high)
        segments = [sample.features[a:b] for a, b in block_edges(sample.lengths, n_blocks)]
        moments = [_lagged_moments(segment, n_lag) for segment in segments]
        low, high = metrics.bootstrap_interval(
            lambda c: _slowest_timescale(c) * n_lag * spacing, moments, seed=seed, n_resamples=200
        )
        found["t1"] = (np.maximum(0.0, low), high)  # which keeps NaN
    return found


def pair_intervals(
    sample: Ensemble, reference: Ensemble, slow: SlowCoordinates, values: dict[str, float], seed: int, n_blocks: int
) -> dict[str, tuple]:
    """Return bootstrap intervals of the lagged pairs' divergences; `values` has the scores by key."""
    found = {}
    states = metrics.assign_states(slow.project(sample), slow.states)
    expected = reference.runs(metrics.assign_states(slow.project(reference), slow.states))
    for key in values:
        base, _, lag = key.partition("@")
        if base != "lagged_pairs_jsd":
            continue
        n_lag, n_expected = frames_at(float(lag), sample), frames_at(float(lag), reference)
        blocks = [states[a:b] for a, b in block_edges(sample.lengths, n_blocks)]
        if n_lag is None or n_expected is None or min(len(b) for b in blocks) <= 2 * n_lag:
            continue
        counts = [metrics.lagged_pair_counts([block], n_lag, len(slow.states)) for block in blocks]
        target = metrics.lagged_pair_counts(expected, n_expected, len(slow.states))
        found[key] = jsd_interval(counts, target, values[key], seed)
    return found


def _lagged_moments(segment: np.ndarray, lag_frames: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Return what blocks add up to a TICA: pairs, and sums of features, of their products, of lagged products."""
    now, later = segment[:-lag_frames].astype(np.float64), segment[lag_frames:].astype(np.float64)
    products = 0.5 * (now.T @ now + later.T @ later)
    lagged = 0.5 * (now.T @ later + later.T @ now)
    return len(now), 0.5 * (now.sum(axis=0) + later.sum(axis=0)), products, lagged


def _slowest_timescale(moments: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]) -> float:
    """Return -1 / ln|lambda1| of the reversible TICA of several blocks together [lags], as `tica_timescales` has it."""
    n = sum(one[0] for one in moments)
    mean, products, lagged = (sum(one[k] for one in moments) / n for k in (1, 2, 3))
    variances, vectors = np.linalg.eigh(products - np.outer(mean, mean))
    kept = variances > 1e-6
    if not kept.any():
        return float("nan")
    whitening = vectors[:, kept] / np.sqrt(variances[kept])
    largest = np.abs(np.linalg.eigvalsh(whitening.T @ (lagged - np.outer(mean, mean)) @ whitening)).max()
    return float(-1.0 / np.log(np.clip(largest, 1e-12, 1.0 - 1e-12)))


def timescale_curves(ensemble: Ensemble, n_lags: int = 9, n: int = 2) -> dict[str, np.ndarray]:
    """Return lags [ps] and implied timescales (n_lags, n) [ps] of an ensemble's own TICA; {} without time or motion."""
    if ensemble.frame_spacing is None:
        return {}
    longest = max(1, max(ensemble.lengths) // 8)
    lags = np.unique(np.geomspace(1, longest, n_lags).round().astype(int))
    segments = ensemble.runs(ensemble.features)
    try:
        with np.errstate(divide="ignore"):
            curve = metrics.timescale_curve(segments, lags.tolist(), ensemble.frame_spacing, n)
    except LatentError:
        return {}
    curve[~np.isfinite(curve)] = np.nan
    return {"lags": lags * ensemble.frame_spacing, "timescales": curve}
