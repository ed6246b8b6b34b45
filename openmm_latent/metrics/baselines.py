"""Cheap samplers that a model has to beat."""

from __future__ import annotations

import numpy as np

from openmm_latent.metrics.chunks import subset

#: Coordinates that a Gaussian is fitted to, at most: 200 MB in double precision.
_MAX_COORDINATES = 25_000_000


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


def cartesian_gaussian(positions: np.ndarray, structure: np.ndarray | None, n_samples: int, seed: int) -> np.ndarray:
    """Draw from the Gaussian with the mean and covariance of the superposed positions.

    Parameters
    ----------
    positions : array, (n_frames, n_atoms, 3) [nm]
        Of the training part. Of a long run of a large molecule, as many frames are drawn as fill 200 MB.
    structure : array, (n_atoms, 3) [nm], or None
        That the frames are superposed on; None takes them as they lie.

    Returns
    -------
    array, (n_samples, n_atoms, 3) [nm]
    """
    random = np.random.default_rng(seed)
    frames = np.asarray(positions)
    n_wanted = _MAX_COORDINATES // max(1, 3 * frames.shape[1])
    flat = subset(frames, n_wanted, seed, structure).reshape(-1, 3 * frames.shape[1])
    mean = flat.mean(axis=0)
    if len(flat) <= flat.shape[1]:
        # A random combination of the frames' deviations has their covariance, which itself is never made.
        flat -= mean
        normals = random.standard_normal((n_samples, len(flat))) / np.sqrt(max(1, len(flat) - 1))
        return (mean + normals @ flat).reshape(n_samples, -1, 3)
    variances, directions = np.linalg.eigh(np.cov(flat, rowvar=False))
    normals = random.standard_normal((n_samples, flat.shape[1]))
    drawn = mean + (normals * np.sqrt(np.clip(variances, 0.0, None))) @ directions.T
    return drawn.reshape(n_samples, -1, 3)
