"""Cheap samplers that a model has to beat."""

from __future__ import annotations

import numpy as np

from openmm_latent.geometry import superpose


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
