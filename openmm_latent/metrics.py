"""Scores of an ensemble against a reference, in NumPy.

Divergences are Jensen-Shannon divergences of normalised histograms in nats (0 to ln 2). A score means little without
its floor, the same score between two halves of the reference: `halves_floor` gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from openmm_latent.errors import require
from openmm_latent.geometry import superpose

#: Bins of a 1-D torsion histogram over (-pi, pi).
DIHEDRAL_BINS = 100
#: Bins an axis of a (phi, psi) or (chi1, chi2) histogram.
RAMACHANDRAN_BINS = 50
#: Bins of one coordinate's histogram, over the joint range of both sets.
COORDINATE_BINS = 50


def jsd(counts: np.ndarray, reference_counts: np.ndarray) -> float:
    """Return the Jensen-Shannon divergence of two histograms.

    Parameters
    ----------
    counts, reference_counts : array, same shape
        Counts or weights, not negative; each is normalised to sum 1.

    Returns
    -------
    float [nats], from 0 to ln 2; its square root is the Jensen-Shannon distance

    Raises
    ------
    LatentError
        The shapes differ, or a histogram is empty.

    Source: J. Lin, IEEE Trans. Inf. Theory 37, 145 (1991).
    """
    p, q = np.asarray(counts, dtype=np.float64), np.asarray(reference_counts, dtype=np.float64)
    require(
        p.shape == q.shape, f"counts must have the shape of reference_counts {q.shape}, got {p.shape}; use equal bins"
    )
    require(p.sum() > 0 and q.sum() > 0, "counts must not be empty: one histogram sums to 0; were the frames in range?")
    p, q = p / p.sum(), q / q.sum()
    middle = 0.5 * (p + q)
    return float(0.5 * _kl(p, middle) + 0.5 * _kl(q, middle))


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    """Return the Kullback-Leibler divergence [nats]; cells where p is 0 add nothing."""
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / q[seen])).sum())


def _wrapped(angles: np.ndarray) -> np.ndarray:
    """Return angles [rad] in [-pi, pi)."""
    return (np.asarray(angles, dtype=np.float64) + np.pi) % (2 * np.pi) - np.pi


def dihedral_jsd(angles: np.ndarray, reference: np.ndarray, bins: int = DIHEDRAL_BINS) -> np.ndarray:
    """Return the divergence of each torsion's own distribution; the usual score is its mean.

    Parameters
    ----------
    angles, reference : array, (n_frames, n_torsions) [rad]
    bins : int
        Over (-pi, pi); 100 as in MDGen (LD-FPG uses 36).

    Returns
    -------
    array, (n_torsions,) [nats]

    Source: METRICS "dihedral JSD"; B. Jing et al., MDGen (2024).
    """
    edges = np.linspace(-np.pi, np.pi, bins + 1)
    pairs = zip(_wrapped(angles).T, _wrapped(reference).T, strict=True)
    return np.array([jsd(np.histogram(a, edges)[0], np.histogram(b, edges)[0]) for a, b in pairs])


def ramachandran_counts(angles: np.ndarray, bins: int = RAMACHANDRAN_BINS) -> np.ndarray:
    """Count frames in a square grid over (-pi, pi) x (-pi, pi).

    Parameters
    ----------
    angles : array, (n_frames, 2) [rad]

    Returns
    -------
    array, (bins, bins); first axis phi, second psi
    """
    edges = np.linspace(-np.pi, np.pi, bins + 1)
    wrapped = _wrapped(angles)
    require(
        wrapped.ndim == 2 and wrapped.shape[1] == 2,
        f"angles must have shape (n_frames, 2) [rad], got {wrapped.shape}; pass phi and psi of one residue",
    )
    return np.histogram2d(wrapped[:, 0], wrapped[:, 1], bins=(edges, edges))[0]


def ramachandran_jsd(angles: np.ndarray, reference: np.ndarray, bins: int = RAMACHANDRAN_BINS) -> float:
    """Return the divergence of two joint (phi, psi), or (chi1, chi2), distributions.

    Parameters
    ----------
    angles, reference : array, (n_frames, 2) [rad]
    bins : int
        An axis: 50 as in MDGen (LD-FPG uses 72).

    Returns
    -------
    float [nats]
    """
    return jsd(ramachandran_counts(angles, bins), ramachandran_counts(reference, bins))


def coordinate_jsd(positions: np.ndarray, reference: np.ndarray, structure: np.ndarray) -> float:
    """Return the mean divergence of single Cartesian coordinates after superposition on one structure.

    Parameters
    ----------
    positions, reference : array, (n_frames, n_atoms, 3) [nm]
    structure : array, (n_atoms, 3) [nm]

    Returns
    -------
    float [nats]; 50 bins over the joint range of each coordinate
    """
    first = superpose(positions, structure).reshape(len(positions), -1)
    second = superpose(reference, structure).reshape(len(reference), -1)
    scores = []
    for a, b in zip(first.T, second.T, strict=True):
        low, high = min(a.min(), b.min()), max(a.max(), b.max())
        edges = np.linspace(low, high if high > low else low + 1e-6, COORDINATE_BINS + 1)
        scores.append(jsd(np.histogram(a, edges)[0], np.histogram(b, edges)[0]))
    return float(np.mean(scores))


def halves_floor(score: Callable[[np.ndarray, np.ndarray], float], reference: np.ndarray) -> float:
    """Return a score between the first and the second half of the reference: the floor to print beside it.

    Parameters
    ----------
    score : callable
        Takes two arrays of frames, such as `ramachandran_jsd`.
    reference : array, (n_frames, ...)
        In time order.
    """
    middle = len(reference) // 2
    return float(score(reference[:middle], reference[middle : 2 * middle]))


# --- baselines -------------------------------------------------------------------------------------------------------


def product_of_marginals(angles: np.ndarray, n_samples: int, seed: int) -> np.ndarray:
    """Draw each torsion independently from its own marginal; whoever does not beat it has learned no coupling.

    Parameters
    ----------
    angles : array, (n_frames, n_torsions) [rad]

    Returns
    -------
    array, (n_samples, n_torsions) [rad]
    """
    random = np.random.default_rng(seed)
    columns = [random.choice(column, size=n_samples) for column in np.asarray(angles).T]
    return np.stack(columns, axis=1)


def cartesian_gaussian(positions: np.ndarray, structure: np.ndarray, n_samples: int, seed: int) -> np.ndarray:
    """Draw from the Gaussian with the mean and covariance of the superposed positions.

    Parameters
    ----------
    positions : array, (n_frames, n_atoms, 3) [nm]
        Of the training part.
    structure : array, (n_atoms, 3) [nm]
        That the frames are superposed on.

    Returns
    -------
    array, (n_samples, n_atoms, 3) [nm]
    """
    flat = superpose(np.asarray(positions, dtype=np.float64), structure).reshape(len(positions), -1)
    variances, directions = np.linalg.eigh(np.cov(flat, rowvar=False))
    normals = np.random.default_rng(seed).standard_normal((n_samples, flat.shape[1]))
    drawn = flat.mean(axis=0) + (normals * np.sqrt(np.clip(variances, 0.0, None))) @ directions.T
    return drawn.reshape(n_samples, -1, 3)


# --- slow processes --------------------------------------------------------------------------------------------------


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
        No segment is longer than the lag.
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
        series = np.asarray(segment, dtype=np.float64)
        estimator.partial_fit((series[:-lagtime], series[lagtime:]))
    return estimator.fetch_model()


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


def cluster_centres(features: np.ndarray, n_states: int, seed: int, n_iterations: int = 100) -> np.ndarray:
    """Place k-means centres (k-means++ start, Lloyd iterations).

    Parameters
    ----------
    features : array, (n_frames, n_features)

    Returns
    -------
    array, (n_states, n_features)

    Source: D. Arthur and S. Vassilvitskii, SODA 2007 (k-means++).
    """
    random = np.random.default_rng(seed)
    points = np.asarray(features, dtype=np.float64)
    centres = points[random.integers(len(points))][None]
    nearest = ((points - centres[0]) ** 2).sum(axis=1)
    while len(centres) < n_states:
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


# --- independent samples ---------------------------------------------------------------------------------------------


def effective_sample_size(series: np.ndarray | Sequence[np.ndarray]) -> float:
    """Return how many independent samples an equilibrium series is worth: N / (-1 + 2 sum rho).

    The sum starts at rho(0) = 1 and ends before the first rho <= 0. Several series of one process share one mean, so
    walkers that are each stuck in a state of their own count about one apiece, not as many as they have frames.

    Parameters
    ----------
    series : array, (n_frames,), or list of such
        One slow coordinate in time order; a list holds independent runs, with pairs that never cross from one to the
        next.

    Returns
    -------
    float, at most the number of frames

    Raises
    ------
    LatentError
        A series has another shape or fewer than two frames, holds NaN or infinity, or nothing varies.

    Source: METRICS "ESS"; L. Klein et al., Timewarp (2023), section 6.
    """
    one = isinstance(series, np.ndarray) and series.ndim == 1
    runs = [np.asarray(run, dtype=np.float64) for run in ([series] if one else series)]
    require(len(runs) > 0, "series must hold at least one run, got an empty list; give one coordinate in time order")
    for run in runs:
        require(
            run.ndim == 1 and len(run) >= 2 and bool(np.isfinite(run).all()),
            f"series must have shape (n_frames >= 2,) and finite values, got {run.shape}; give one slow coordinate",
        )
    mean = np.concatenate(runs).mean()
    longest = max(len(run) for run in runs)
    products = np.zeros(longest)  # sums of x(t) x(t + lag), by lag
    for run in runs:
        # Padded to twice the length: no product may wrap round the end.
        spectrum = np.fft.rfft(run - mean, 2 * len(run))
        products[: len(run)] += np.fft.irfft(np.abs(spectrum) ** 2, 2 * len(run))[: len(run)]
    require(
        products[0] > 1e-20 * (mean**2 + 1e-280) * longest,
        "series must vary, got a constant; a coordinate that never moves has no sample size",
    )
    correlations = products / products[0]
    below = np.flatnonzero(correlations <= 0)
    last = int(below[0]) if len(below) else longest
    return float(sum(len(run) for run in runs) / (-1.0 + 2.0 * correlations[:last].sum()))


# --- populations with intervals --------------------------------------------------------------------------------------


def block_bootstrap_interval(
    is_inside: np.ndarray, n_blocks: int, seed: int, confidence: float = 0.95, n_resamples: int = 4000
) -> tuple[float, float]:
    """Return a percentile interval of a population from resampled blocks of a time series.

    Parameters
    ----------
    is_inside : array of bool, (n_frames,)
        In time order.
    n_blocks : int
        Blocks must be longer than the slowest relaxation for the interval to hold.

    Returns
    -------
    (low, high), fractions

    Source: H. R. Künsch, Ann. Stat. 17, 1217 (1989).
    """
    size = len(is_inside) // n_blocks
    require(size > 0, f"n_blocks must not exceed the {len(is_inside)} frames, got {n_blocks}; take fewer blocks")
    means = np.asarray(is_inside[: size * n_blocks], dtype=np.float64).reshape(n_blocks, size).mean(axis=1)
    random = np.random.default_rng(seed)
    resampled = means[random.integers(n_blocks, size=(n_resamples, n_blocks))].mean(axis=1)
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(resampled, [tail, 100.0 - tail])
    return float(low), float(high)


def two_state_interval(
    is_inside: np.ndarray, frame_spacing: float, seed: int, confidence: float = 0.95, n_draws: int = 20000
) -> dict[str, float]:
    """Return population, mean dwell times and an interval from the dwell times of a two-state process.

    Dwell times are taken as exponential, so each rate given n exits in a total time T is Gamma(n, T) (the posterior
    under a scale-free prior), and the population is k_in / (k_in + k_out). It holds where a block bootstrap has too
    few crossings in a block. Recrossings inflate n: pass a series with short excursions removed (`core_states`).

    Parameters
    ----------
    is_inside : array of bool, (n_frames,)
    frame_spacing : float [ps]

    Returns
    -------
    dict: population, low, high; n_entries, n_exits; dwell_inside, dwell_outside [ps]; relaxation [ps]

    Raises
    ------
    LatentError
        The series has no entry or no exit.
    """
    inside = np.asarray(is_inside, dtype=bool)
    steps = np.diff(inside.astype(np.int64))
    n_entries, n_exits = int((steps > 0).sum()), int((steps < 0).sum())
    require(
        n_entries > 0 and n_exits > 0,
        f"is_inside must cross both ways, got {n_entries} entries and {n_exits} exits; give a longer series",
    )
    time_inside, time_outside = inside.sum() * frame_spacing, (~inside).sum() * frame_spacing
    random = np.random.default_rng(seed)
    rate_in = random.gamma(n_entries, 1.0 / time_outside, n_draws)
    rate_out = random.gamma(n_exits, 1.0 / time_inside, n_draws)
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(rate_in / (rate_in + rate_out), [tail, 100.0 - tail])
    dwell_inside, dwell_outside = time_inside / n_exits, time_outside / n_entries
    return {
        "population": float(inside.mean()),
        "low": float(low),
        "high": float(high),
        "n_entries": n_entries,
        "n_exits": n_exits,
        "dwell_inside": float(dwell_inside),
        "dwell_outside": float(dwell_outside),
        "relaxation": float(1.0 / (1.0 / dwell_inside + 1.0 / dwell_outside)),
    }


def core_states(is_core_inside: np.ndarray, is_core_outside: np.ndarray) -> np.ndarray:
    """Return a two-state series that changes only when the other state's core is reached (transition-based).

    Parameters
    ----------
    is_core_inside, is_core_outside : array of bool, (n_frames,)
        Frames surely inside, surely outside; never both. Frames before the first core count as that core.

    Returns
    -------
    array of bool, (n_frames,)

    Source: C. Schütte et al., J. Chem. Phys. 134, 204105 (2011).
    """
    inside, outside = np.asarray(is_core_inside, dtype=bool), np.asarray(is_core_outside, dtype=bool)
    require(
        not np.any(inside & outside), "is_core_inside and is_core_outside must not share a frame; make them disjoint"
    )
    cores = np.flatnonzero(inside | outside)
    require(len(cores) > 0, "is_core_inside and is_core_outside are empty; widen the cores")
    last = np.searchsorted(cores, np.arange(len(inside)), side="right") - 1
    return inside[cores[np.maximum(last, 0)]]
