"""Slow processes: TICA, its timescales, states, and pairs of states one lag apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from openmm_latent.errors import require
from openmm_latent.metrics.divergence import jsd

#: Numbers that are taken to double precision at a time: 32 MB.
_CHUNK_FEATURES = 4_000_000


def torsion_features(angles: np.ndarray) -> np.ndarray:
    """Return cosines, then sines, of torsions: (n_frames, n_torsions) [rad] -> (n_frames, 2 n_torsions)."""
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)


def lagged_covariances(segments: Sequence[np.ndarray], lag_frames: int) -> Any:
    """Return the covariances that a reversible TICA is fitted on, means removed.

    Parameters
    ----------
    segments : list of array, (n_frames, n_features)
        Uninterrupted series; pairs never cross from one to the next.
    lag_frames : int

    Returns
    -------
    deeptime.covariance.CovarianceModel

    Raises
    ------
    LatentError
        No segment is longer than the lag, a feature is NaN or infinite, or nothing varies.
    """
    from deeptime.covariance import Covariance

    lagtime = int(lag_frames)
    estimator = Covariance(lagtime=lagtime, compute_c0t=True, compute_ctt=False, remove_data_mean=True, reversible=True)
    long_enough = [segment for segment in segments if len(segment) > lagtime]
    require(
        len(long_enough) > 0,
        f"lag_frames must be shorter than a segment, got {lag_frames}; shorten the lag time or give longer series",
    )
    for segment in long_enough:
        series = np.asarray(segment)
        size = max(1, _CHUNK_FEATURES // max(1, series.shape[1]))
        for start in range(0, len(series) - lagtime, size):
            stop = min(start + size, len(series) - lagtime)
            pairs = series[start:stop], series[start + lagtime : stop + lagtime]
            estimator.partial_fit(tuple(side.astype(np.float64) for side in pairs))
    model = estimator.fetch_model()
    variances = np.diag(model.cov_00)
    require(bool(np.isfinite(variances).all()), "segments must be finite, got NaN or infinity; leave such frames out")
    require(
        bool((variances > 1e-20 * (np.asarray(model.mean_0) ** 2 + 1e-280)).any()),
        "segments must vary, got constant features; what never moves has no slow coordinate",
    )
    return model


def tica_timescales(segments: Sequence[np.ndarray], lag_frames: int, frame_spacing: float, n: int = 4) -> np.ndarray:
    """Return implied timescales -lag / ln|lambda| of TICA (kinetic map, reversible), fitted on the segments given.

    Parameters
    ----------
    segments : list of array, (n_frames, n_features)
        Uninterrupted series; pairs never cross from one to the next.
    lag_frames : int
    frame_spacing : float [ps]
    n : int
        How many, slowest first.

    Returns
    -------
    array, (at most n,) [ps]; the first is t1

    Raises
    ------
    LatentError
        No segment is longer than the lag.
    """
    from deeptime.decomposition import TICA

    lagtime = int(lag_frames)
    covariances = lagged_covariances(segments, lagtime)
    model = TICA(lagtime=lagtime, scaling="kinetic_map").fit(covariances).fetch_model()
    return np.asarray(model.timescales(k=n, lagtime=lagtime)) * frame_spacing


def fit_tica(segments: Sequence[np.ndarray], lag_frames: int, n_components: int = 2) -> Any:
    """Fit TICA (kinetic map, reversible); its `transform` projects features on the slow coordinates.

    Parameters
    ----------
    segments : list of array, (n_frames, n_features)
        Of the reference, unless said otherwise: both ensembles are then looked at along the same coordinates.
    lag_frames : int
    n_components : int

    Returns
    -------
    deeptime.decomposition.CovarianceKoopmanModel; `.transform((n_frames, n_features))` gives (n_frames, n_components)

    Raises
    ------
    LatentError
        No segment is longer than the lag.
    """
    from deeptime.decomposition import TICA

    estimator = TICA(lagtime=int(lag_frames), dim=n_components, scaling="kinetic_map")
    return estimator.fit(lagged_covariances(segments, lag_frames)).fetch_model()


def timescale_curve(
    segments: Sequence[np.ndarray], lags: Sequence[int], frame_spacing: float, n: int = 1
) -> np.ndarray:
    """Return implied timescales against lag: a timescale means something where its curve is level.

    Parameters
    ----------
    segments : list of array, (n_frames, n_features)
    lags : list of int
        In frames; those longer than every segment give NaN.
    frame_spacing : float [ps]
    n : int

    Returns
    -------
    array, (n_lags, n) [ps]; NaN where a lag gives fewer
    """
    curve = np.full((len(lags), n), np.nan)
    longest = max((len(segment) for segment in segments), default=0)
    for row, lag in zip(curve, lags, strict=True):
        if lag < longest:
            found = tica_timescales(segments, lag, frame_spacing, n)
            row[: len(found)] = found
    return curve


def timescale_along(series: Sequence[np.ndarray], lag_frames: int, frame_spacing: float) -> float:
    """Return -lag / ln|autocorrelation| of one coordinate, such as the reference's slowest TICA coordinate.

    Unlike a fit to the sample, it cannot pick another coordinate that happens to be slow.

    Parameters
    ----------
    series : list of array, (n_frames,)
        Uninterrupted runs; pairs never cross from one to the next.
    lag_frames : int
    frame_spacing : float [ps]

    Returns
    -------
    float [ps]; 0 where the autocorrelation is not above 0: no memory is left at this lag

    Raises
    ------
    LatentError
        No run is longer than the lag, or nothing varies.
    """
    lag = int(lag_frames)
    runs = [np.asarray(run, dtype=np.float64) for run in series if len(run) > lag]
    require(
        len(runs) > 0,
        f"lag_frames must be shorter than a run, got {lag_frames}; shorten the lag time or give longer runs",
    )
    now, later = np.concatenate([run[:-lag] for run in runs]), np.concatenate([run[lag:] for run in runs])
    mean = 0.5 * (now.mean() + later.mean())
    variance = 0.5 * ((now - mean) ** 2 + (later - mean) ** 2).mean()
    require(variance > 1e-20 * (mean**2 + 1e-280), "series must vary, got a constant; it has no timescale")
    correlation = float(((now - mean) * (later - mean)).mean() / variance)
    if correlation <= 0.0:
        return 0.0
    return float("inf") if correlation >= 1.0 else float(-lag * frame_spacing / np.log(correlation))


def cluster_centres(features: np.ndarray, n_states: int, seed: int, n_iterations: int = 100) -> np.ndarray:
    """Place k-means centres (k-means++ start, Lloyd iterations).

    Parameters
    ----------
    features : array, (n_frames, n_features)

    Returns
    -------
    array, (n_states, n_features)

    Raises
    ------
    LatentError
        Fewer different frames than states.

    Source: D. Arthur and S. Vassilvitskii, SODA 2007 (k-means++).
    """
    random = np.random.default_rng(seed)
    points = np.asarray(features, dtype=np.float64)
    centres = points[random.integers(len(points))][None]
    nearest = ((points - centres[0]) ** 2).sum(axis=1)
    while len(centres) < n_states:
        require(
            nearest.sum() > 0,
            f"n_states must not exceed the different frames of features, got {n_states} for {len(centres)}; "
            "ask for fewer states",
        )
        chosen = points[random.choice(len(points), p=nearest / nearest.sum())]
        centres = np.concatenate([centres, chosen[None]])
        nearest = np.minimum(nearest, ((points - chosen) ** 2).sum(axis=1))
    for _ in range(n_iterations):
        labels = assign_states(points, centres)
        counts = np.bincount(labels, minlength=n_states)
        sums = np.stack([np.bincount(labels, column, n_states) for column in points.T], axis=1)
        moved = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
        if np.allclose(moved, centres, atol=1e-9):
            break
        centres = moved
    return centres


def assign_states(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the index of the nearest centre: (n_frames, n_features), (n_states, n_features) -> (n_frames,) int."""
    points, centres = np.asarray(features, dtype=np.float64), np.asarray(centres, dtype=np.float64)
    # |x - c|^2 without the |x|^2 that all centres share: (n_frames, n_states)
    return np.argmin((centres**2).sum(axis=1) - 2.0 * points @ centres.T, axis=1)


def slow_cores(series: Sequence[np.ndarray], seed: int) -> tuple[float, float]:
    """Return two thresholds on a slow coordinate: below the first and above the second lie the cores of two states.

    They are the centres of two clusters. `core_states(x > high, x < low)` gives the states of a run, the same for the
    reference and the sample, and `two_state_interval` their populations and rates.

    Parameters
    ----------
    series : list of array, (n_frames,)
        The slowest TICA coordinate of the reference.
    seed : int

    Returns
    -------
    (low, high), in the unit of the coordinate
    """
    points = np.concatenate([np.ravel(run) for run in series])[:, None]
    low, high = np.sort(cluster_centres(points, 2, seed)[:, 0])
    return float(low), float(high)


def lagged_pair_counts(state_segments: Sequence[np.ndarray], lag_frames: int, n_states: int) -> np.ndarray:
    """Count (state now, state one lag later): list of (n_frames,) int -> (n_states, n_states)."""
    counts = np.zeros((n_states, n_states))
    for states in state_segments:
        if len(states) > lag_frames:
            pairs = states[:-lag_frames] * n_states + states[lag_frames:]
            counts += np.bincount(pairs, minlength=n_states * n_states).reshape(n_states, n_states)
    return counts


def lagged_pair_jsd(
    state_segments: Sequence[np.ndarray], reference_segments: Sequence[np.ndarray], lag_frames: int, n_states: int
) -> float:
    """Return the divergence of the joint distributions of (state now, state one lag later).

    Sensitive to both populations and kinetics: independent draws from the right distribution fail it at lags where
    the reference still remembers. It carries a bias of about n_cells / (4 n_pairs) that shrinks with the sample, so
    compare numbers from equally long series only.

    Parameters
    ----------
    state_segments, reference_segments : list of array of int, (n_frames,)
        From `assign_states` with the same centres (36 of them, fitted on the reference); pairs cross no segment.
    lag_frames : int

    Returns
    -------
    float [nats]
    """
    counts = lagged_pair_counts(state_segments, lag_frames, n_states)
    return jsd(counts, lagged_pair_counts(reference_segments, lag_frames, n_states))
