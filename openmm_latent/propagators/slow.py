"""Slow coordinates: leading TICA or VAMP modes of features, a linear and so smooth map; or the torsions they move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from openmm_latent.errors import require
from openmm_latent.metrics import lagged_covariances

#: More slow coordinates than this make the exact mode's restraint useless.
MOST_SLOW = 8

METHODS = ("tica", "vamp")


def fit_slow(
    segments: Sequence[np.ndarray],
    lag_frames: int,
    n_slow: int = 2,
    epsilon: float = 1e-6,
    method: str = "tica",
    least_memory: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit `slow(latent) = (latent - mean) @ matrix.T`, each coordinate of unit variance, the slowest first.

    Parameters
    ----------
    segments : list of array, (n_frames, n_latent)
        Standardised latents, or other features, in time order; pairs cross none.
    lag_frames : int
    n_slow : int
        At most 8 and at most n_latent.
    epsilon : float
        Directions whose variance is below this fraction of the total are left out.
    method : str
        "tica", for dynamics in equilibrium, or "vamp", which does not take the data to be reversible.
    least_memory : float
        Autocorrelation that every coordinate keeps over the lag. Where the last has less, the lag is halved until it
        has, down to one frame: at a lag that outlives a process, the coordinate fitted to it is noise.

    Returns
    -------
    mean : array, (n_latent,), float32
    matrix : array, (n_slow, n_latent), float32; each row's largest entry is positive, so that a refit keeps signs

    Raises
    ------
    LatentError
        `n_slow` or `method` is out of range, no segment is longer than the lag, or the latents span too few directions.

    Source: G. Pérez-Hernández et al., J. Chem. Phys. 139, 015102 (2013); H. Wu and F. Noé, J. Nonlinear Sci. 30, 23
    (2020); both as in deeptime.
    """
    n_latent = np.asarray(segments[0]).shape[1]
    most = min(MOST_SLOW, n_latent)
    require(1 <= n_slow <= most, f"n_slow must lie between 1 and {most}, got {n_slow}; 2 is usual")
    require(method in METHODS, f"method must be one of {', '.join(METHODS)}, got {method!r}")
    model = _fit(segments, lag_frames, epsilon, method)
    while lag_frames > 1 and len(model.singular_values) >= n_slow and model.singular_values[n_slow - 1] < least_memory:
        lag_frames //= 2
        model = _fit(segments, lag_frames, epsilon, method)
    mean = np.asarray(model.cov.mean_0, dtype=np.float64)
    # (n_latent, n_kept): unscaled singular functions have unit variance
    directions = np.asarray(model.singular_vectors_left, dtype=np.float64)
    require(
        directions.shape[1] >= n_slow,
        f"n_slow={n_slow} needs as many independent latents, got {directions.shape[1]}; ask for fewer",
    )
    matrix = directions[:, :n_slow].T
    largest = np.take_along_axis(matrix, np.abs(matrix).argmax(axis=1)[:, None], axis=1)
    return mean.astype(np.float32), (matrix * np.sign(largest)).astype(np.float32)


def leading_torsions(segments: Sequence[np.ndarray], matrix: np.ndarray) -> np.ndarray:
    """Pick a torsion for each slow mode: the one, not picked yet, that makes up most of its variance.

    Parameters
    ----------
    segments : list of array, (n_frames, 2 n_torsions)
        Cosines, then sines, which the modes are linear in.
    matrix : array, (n_slow, 2 n_torsions)
        Of `fit_slow`; the slowest mode picks first.

    Returns
    -------
    array of int, (n_slow,)

    Raises
    ------
    LatentError
        There are fewer torsions than modes.
    """
    n_torsions = matrix.shape[1] // 2
    require(
        len(matrix) <= n_torsions,
        f"n_slow must not exceed the {n_torsions} torsions where slow coordinates are angles, got {len(matrix)}",
    )
    shares = (matrix * np.concatenate(segments).std(axis=0)) ** 2  # (n_slow, 2 n_torsions)
    shares = shares[:, :n_torsions] + shares[:, n_torsions:]
    picked: list[int] = []
    for share in shares:
        order = np.argsort(-share, kind="stable")
        picked.append(next(int(torsion) for torsion in order if torsion not in picked))
    return np.array(picked)


def _fit(segments: Sequence[np.ndarray], lag_frames: int, epsilon: float, method: str) -> Any:
    """Return deeptime's model at one lag."""
    from deeptime.covariance import Covariance
    from deeptime.decomposition import TICA, VAMP

    if method == "tica":
        covariances = lagged_covariances(segments, lag_frames)
        return TICA(lagtime=lag_frames, scaling=None, epsilon=epsilon).fit(covariances).fetch_model()
    estimator = Covariance(lagtime=lag_frames, compute_c0t=True, compute_ctt=True, remove_data_mean=True)
    long = [np.asarray(segment, dtype=np.float64) for segment in segments if len(segment) > lag_frames]
    require(len(long) > 0, f"lag_frames must be shorter than a segment, got {lag_frames}; shorten the lag time")
    for series in long:
        estimator.partial_fit((series[:-lag_frames], series[lag_frames:]))
    return VAMP(lagtime=lag_frames, scaling=None, epsilon=epsilon).fit(estimator.fetch_model()).fetch_model()
