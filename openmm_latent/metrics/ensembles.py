"""Fluctuations of an ensemble, atom by atom and frame by frame, against a reference.

All take `structure`, on which every frame is superposed first; None takes the frames as they lie (superposed before,
perhaps on other atoms). Source of the definitions: METRICS; B. Jing et al., AlphaFlow (2024), whose code superposes on
the crystal structure.
"""

from __future__ import annotations

import numpy as np

from openmm_latent.errors import require
from openmm_latent.metrics.chunks import checked_frames, frame_chunks, subset

#: Frames of each set that mean pairwise RMSDs are taken over.
PAIRWISE_FRAMES = 500
#: Added to the diagonal of covariances before they are inverted: 1e-6 Å², as in DynaProt [nm^2].
COVARIANCE_FLOOR = 1e-8


def atom_moments(positions: np.ndarray, structure: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return each atom's mean position and covariance (divided by the number of frames).

    Parameters
    ----------
    positions : array, (n_frames, n_atoms, 3) [nm]
    structure : array, (n_atoms, 3) [nm], or None

    Returns
    -------
    mean : array, (n_atoms, 3) [nm]
    covariance : array, (n_atoms, 3, 3) [nm^2]
    """
    frames = checked_frames(positions)
    # Sums about a frame, not about the origin: squares of small numbers lose no digits.
    origin = next(frame_chunks(frames[:1], structure))[0]
    total, squares = np.zeros((len(origin), 3)), np.zeros((len(origin), 3, 3))
    for piece in frame_chunks(frames, structure):
        by_atom = (piece - origin).transpose(1, 0, 2)  # (n_atoms, n_frames, 3)
        total += by_atom.sum(axis=1)
        squares += by_atom.transpose(0, 2, 1) @ by_atom
    mean = total / len(frames)
    return origin + mean, squares / len(frames) - mean[:, :, None] * mean[:, None, :]


def rmsf(positions: np.ndarray, structure: np.ndarray | None) -> np.ndarray:
    """Return each atom's root mean square fluctuation about its mean position.

    Parameters
    ----------
    positions : array, (n_frames, n_atoms, 3) [nm]
        Cα, all heavy atoms (AlphaFlow's code), or ligand and pocket.
    structure : array, (n_atoms, 3) [nm], or None

    Returns
    -------
    array, (n_atoms,) [nm]
    """
    return rmsf_of_covariances(atom_moments(positions, structure)[1])


def rmsf_of_covariances(covariances: np.ndarray) -> np.ndarray:
    """Return each atom's fluctuation, from `atom_moments`: (n_atoms, 3, 3) [nm^2] -> (n_atoms,) [nm]."""
    return np.sqrt(np.clip(np.trace(covariances, axis1=1, axis2=2), 0.0, None))


def mean_pairwise_rmsd(
    positions: np.ndarray,
    structure: np.ndarray | None,
    *,
    seed: int,
    n_frames: int = PAIRWISE_FRAMES,
    superposes_pairs: bool = False,
) -> float:
    """Return the mean RMSD over all pairs of two different frames.

    Parameters
    ----------
    positions : array, (n_frames, n_atoms, 3) [nm]
    structure : array, (n_atoms, 3) [nm], or None
    seed : int
        Draws the frames when there are more than `n_frames`.
    superposes_pairs : bool
        True superposes each pair anew (the smallest RMSD); False takes both as they lie on `structure`, as
        AlphaFlow's code does.

    Returns
    -------
    float [nm]

    Raises
    ------
    LatentError
        Fewer than two frames.
    """
    frames = subset(positions, n_frames, seed, structure)
    require(len(frames) > 1, f"positions must hold at least two frames, got {len(frames)}; pairs need two")
    if superposes_pairs:
        import mdtraj

        trajectory = mdtraj.Trajectory(frames.astype(np.float32), topology=None)
        trajectory.center_coordinates()
        rows = [mdtraj.rmsd(trajectory, trajectory, i, precentered=True)[i + 1 :] for i in range(len(frames) - 1)]
        return float(np.concatenate(rows).astype(np.float64).mean())
    return float(_rmsds_of_pairs(frames).mean())


def pairwise_rmsds(
    positions: np.ndarray, structure: np.ndarray | None, *, seed: int, n_frames: int = PAIRWISE_FRAMES
) -> np.ndarray:
    """Return the RMSD of each pair of the frames, in time order, that `mean_pairwise_rmsd` is the mean of.

    Parameters
    ----------
    positions : array, (n_frames, n_atoms, 3) [nm]
    structure : array, (n_atoms, 3) [nm], or None
    seed : int
        Draws the frames when there are more than `n_frames`.

    Returns
    -------
    array, (n, n) [nm], n <= n_frames; both as they lie on `structure`
    """
    from scipy.spatial.distance import squareform

    return squareform(_rmsds_of_pairs(subset(positions, n_frames, seed, structure)))


def _rmsds_of_pairs(frames: np.ndarray) -> np.ndarray:
    """Return the RMSD of each pair as they lie, (n (n - 1) / 2,) [nm]: (n, n_atoms, 3) [nm]."""
    from scipy.spatial.distance import pdist

    return pdist(frames.reshape(len(frames), -1)) / np.sqrt(frames.shape[1])


def rmwd(positions: np.ndarray, reference: np.ndarray, structure: np.ndarray | None) -> dict[str, float]:
    """Return the root mean Wasserstein distance between the Gaussians of all atoms, and its two parts.

    Parameters
    ----------
    positions, reference : array, (n_frames, n_atoms, 3) [nm]
    structure : array, (n_atoms, 3) [nm], or None

    Returns
    -------
    dict of float [nm]: rmwd, translation, variance; rmwd^2 = translation^2 + variance^2, where translation^2 is the
    mean over atoms of |mu1 - mu2|^2 and variance^2 that of tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2)

    Source: METRICS "RMWD"; AlphaFlow (2024), appendix.
    """
    return rmwd_of_moments(atom_moments(positions, structure), atom_moments(reference, structure))


def rmwd_of_moments(
    moments: tuple[np.ndarray, np.ndarray], reference: tuple[np.ndarray, np.ndarray]
) -> dict[str, float]:
    """Return `rmwd` of ensembles whose means (n_atoms, 3) and covariances (n_atoms, 3, 3) are known [nm, nm^2]."""
    (mean_1, covariance_1), (mean_2, covariance_2) = moments, reference
    require(
        mean_1.shape == mean_2.shape,
        f"positions must hold the {len(mean_2)} atoms of reference, got {len(mean_1)}; choose the same atoms",
    )
    translation = ((mean_1 - mean_2) ** 2).sum(axis=1).mean()
    spread = np.trace(covariance_1 + covariance_2, axis1=1, axis2=2) - 2.0 * _coupling(covariance_1, covariance_2)
    variance = np.clip(spread, 0.0, None).mean()
    return {
        "rmwd": float(np.sqrt(translation + variance)),
        "translation": float(np.sqrt(translation)),
        "variance": float(np.sqrt(variance)),
    }


def _coupling(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return tr (A^1/2 B A^1/2)^1/2 of symmetric matrices: (n, 3, 3), (n, 3, 3) -> (n,)."""
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.clip(values, 0.0, None))[:, None, :]) @ vectors.transpose(0, 2, 1)
    return np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0.0, None)).sum(axis=1)


def symmetric_kl(positions: np.ndarray, reference: np.ndarray, structure: np.ndarray | None) -> float:
    """Return the mean over atoms of the symmetric Kullback-Leibler divergence of 3 x 3 covariances, at equal means.

    Parameters
    ----------
    positions, reference : array, (n_frames, n_atoms, 3) [nm]
        Usually the Cα, one a residue.
    structure : array, (n_atoms, 3) [nm], or None

    Returns
    -------
    float [nats]: 1/2 [KL(S1, S2) + KL(S2, S1)] = 1/4 tr(S1^-1 S2 + S2^-1 S1 - 2 I), each S + 1e-6 Å^2 I

    Source: METRICS "symmetric KL var"; DynaProt (2025).
    """
    return symmetric_kl_of_covariances(*(atom_moments(frames, structure)[1] for frames in (positions, reference)))


def symmetric_kl_of_covariances(covariances: np.ndarray, reference: np.ndarray) -> float:
    """Return `symmetric_kl` of ensembles whose covariances are known: (n_atoms, 3, 3) twice [nm^2] -> [nats]."""
    first, second = (one + COVARIANCE_FLOOR * np.eye(3) for one in (covariances, reference))
    require(
        first.shape == second.shape,
        f"positions must hold the {len(second)} atoms of reference, got {len(first)}; choose the same atoms",
    )
    ratios = np.linalg.solve(first, second) + np.linalg.solve(second, first)
    return float((np.trace(ratios, axis1=1, axis2=2) - 6.0).mean() / 4.0)
