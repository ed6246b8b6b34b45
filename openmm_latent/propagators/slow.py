"""Slow coordinates: the leading TICA modes of the standardised latent, a linear and so smooth map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openmm_latent.errors import require
from openmm_latent.metrics import lagged_covariances

#: More slow coordinates than this make the exact mode's restraint useless.
MOST_SLOW = 8


def fit_slow(
    segments: Sequence[np.ndarray], lag_frames: int, n_slow: int = 2, epsilon: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    """Fit `slow(latent) = (latent - mean) @ matrix.T`, each coordinate of unit variance, the slowest first.

    Parameters
    ----------
    segments : list of array, (n_frames, n_latent)
        Standardised latents in time order; pairs cross none.
    lag_frames : int
    n_slow : int
        At most 8 and at most n_latent.
    epsilon : float
        Directions whose variance is below this fraction of the total are left out.

    Returns
    -------
    mean : array, (n_latent,), float32
    matrix : array, (n_slow, n_latent), float32; each row's largest entry is positive, so that a refit keeps signs

    Raises
    ------
    LatentError
        `n_slow` is out of range, no segment is longer than the lag, or the latents span too few directions.

    Source: G. Pérez-Hernández et al., J. Chem. Phys. 139, 015102 (2013); deeptime's TICA.
    """
    from deeptime.decomposition import TICA

    n_latent = np.asarray(segments[0]).shape[1]
    most = min(MOST_SLOW, n_latent)
    require(1 <= n_slow <= most, f"n_slow must lie between 1 and {most}, got {n_slow}; 2 is usual")
    covariances = lagged_covariances(segments, lag_frames)
    model = TICA(lagtime=lag_frames, scaling=None, epsilon=epsilon).fit(covariances).fetch_model()
    mean = np.asarray(model.cov.mean_0, dtype=np.float64)
    # (n_latent, n_kept): TICA's unscaled singular functions have unit variance
    directions = np.asarray(model.singular_vectors_left, dtype=np.float64)
    require(
        directions.shape[1] >= n_slow,
        f"n_slow={n_slow} needs as many independent latents, got {directions.shape[1]}; ask for fewer",
    )
    matrix = directions[:, :n_slow].T
    largest = np.take_along_axis(matrix, np.abs(matrix).argmax(axis=1)[:, None], axis=1)
    return mean.astype(np.float32), (matrix * np.sign(largest)).astype(np.float32)
