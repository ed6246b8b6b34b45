"""Principal components of superposed positions: W2, similarity, and states on them.

All take `structure`, on which every frame is superposed first; None takes the frames as they lie. Components are those
of at most `PCA_FRAMES` frames, drawn at random; all other frames are only projected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openmm_latent.errors import require
from openmm_latent.metrics.chunks import checked_frames, frame_chunks, frame_subset, subset
from openmm_latent.metrics.divergence import jsd

#: Frames that components are fitted on, at most.
PCA_FRAMES = 2000
#: Frames of each set that W2 is taken over, at most: AlphaFlow's 1000.
W2_FRAMES = 1000
#: Even bins along each component, over the reference's range.
STATE_BINS = 10


@dataclass(frozen=True)
class PrincipalComponents:
    """Orthogonal directions of largest variance.

    Attributes
    ----------
    mean : array, (n_atoms, 3) [nm]
    directions : array, (n_components, n_atoms, 3)
        Orthonormal over all coordinates.
    variances : array, (n_components,) [nm^2]
    structure : array, (n_atoms, 3) [nm], or None
        Frames are superposed on it before they are projected.
    """

    mean: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    structure: np.ndarray | None

    def project(self, positions: np.ndarray) -> np.ndarray:
        """Return the frames' coordinates along the directions.

        Parameters
        ----------
        positions : array, (n_frames, n_atoms, 3) [nm]

        Returns
        -------
        array, (n_frames, n_components) [nm]
        """
        flat = self.directions.reshape(len(self.directions), -1).T
        pieces = frame_chunks(positions, self.structure)
        return np.concatenate([(piece - self.mean).reshape(len(piece), -1) @ flat for piece in pieces])


def principal_components(
    positions: np.ndarray, structure: np.ndarray | None, n_components: int = 2, *, seed: int, n_frames: int = PCA_FRAMES
) -> PrincipalComponents:
    """Find the directions of largest variance.

    Parameters
    ----------
    positions : array, (n_frames, n_atoms, 3) [nm]
    structure : array, (n_atoms, 3) [nm], or None
    n_components : int
    seed : int
        Draws the frames when there are more than `n_frames`.

    Raises
    ------
    LatentError
        Too few frames, or nothing moves.
    """
    return _fitted(subset(positions, n_frames, seed, structure), structure, n_components)


def _fitted(frames: np.ndarray, structure: np.ndarray | None, n_components: int) -> PrincipalComponents:
    """Return the components of superposed frames, (n_frames, n_atoms, 3) [nm]."""
    from scipy.linalg import eigh

    mean = frames.mean(axis=0)
    flat = (frames - mean).reshape(len(frames), -1)  # (n_frames, n_coordinates)
    n_frames, n_coordinates = flat.shape
    require(
        n_frames > n_components,
        f"positions must hold more than {n_components} frames for {n_components} components, got {n_frames}",
    )
    # The smaller of the two Gram matrices has the same eigenvalues.
    is_wide = n_coordinates > n_frames
    gram = (flat @ flat.T if is_wide else flat.T @ flat) / n_frames
    last = len(gram) - 1
    variances, vectors = eigh(gram, subset_by_index=[max(0, last + 1 - n_components), last])
    variances, vectors = variances[::-1], vectors[:, ::-1]
    require(
        len(variances) == n_components and variances[-1] > 1e-12 * max(variances[0], 1e-12),
        f"positions must vary in at least {n_components} directions, got fewer; a frozen ensemble has no components",
    )
    directions = (flat.T @ vectors / np.sqrt(n_frames * variances) if is_wide else vectors).T
    return PrincipalComponents(mean, directions.reshape(n_components, -1, 3), variances, structure)


def wasserstein_2(points: np.ndarray, reference: np.ndarray) -> float:
    """Return the exact 2-Wasserstein distance of two equally large sets of points.

    Parameters
    ----------
    points, reference : array, (n_points, n_dimensions)

    Returns
    -------
    float, in the unit of the points

    Source: R. Flamary et al., POT, J. Mach. Learn. Res. 22, 78 (2021).
    """
    import ot

    first, second = np.asarray(points, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    require(
        first.ndim == 2 and first.shape == second.shape and len(first) > 0,
        f"points must have the shape of reference {second.shape}, got {first.shape}; take equally many frames",
    )
    uniform = np.full(len(first), 1.0 / len(first))
    cost = ot.emd2(uniform, uniform, ot.dist(first, second), numItermax=10_000_000)
    return float(np.sqrt(max(float(cost), 0.0)))


def pca_w2(
    positions: np.ndarray,
    reference: np.ndarray,
    structure: np.ndarray | None,
    *,
    is_joint: bool,
    seed: int,
    n_frames: int = W2_FRAMES,
) -> float:
    """Return W2 between the two ensembles on two principal components, divided by sqrt(n_atoms).

    Parameters
    ----------
    positions, reference : array, (n_frames, n_atoms, 3) [nm]
        Cα atoms in the papers.
    structure : array, (n_atoms, 3) [nm], or None
    is_joint : bool
        False: components of the reference ("MD PCA"). True: of both, with equal weight ("joint PCA").
    seed : int
        Draws equally many frames of each, at most `n_frames`.

    Returns
    -------
    float [nm]

    Source: METRICS "MD / joint PCA W2"; AlphaFlow (2024).
    """
    sample, target = checked_frames(positions), checked_frames(reference, "reference", np.shape(positions)[1])
    n_fit = min(len(sample), len(target), PCA_FRAMES // 2) if is_joint else PCA_FRAMES
    fit = subset(target, n_fit, seed, structure)
    if is_joint:
        fit = np.concatenate([fit, subset(sample, n_fit, seed + 1, structure)])
    components = _fitted(fit, structure, 2)
    n_points = min(len(sample), len(target), n_frames)
    projected = [
        components.project(frames[frame_subset(len(frames), n_points, seed + 2 + k)])
        for k, frames in enumerate((sample, target))
    ]
    return wasserstein_2(*projected) / float(np.sqrt(sample.shape[1]))


def pc_similarity(positions: np.ndarray, reference: np.ndarray, structure: np.ndarray | None, *, seed: int) -> float:
    """Return the absolute cosine between the first principal components of both ensembles.

    Parameters
    ----------
    positions, reference : array, (n_frames, n_atoms, 3) [nm]
    structure : array, (n_atoms, 3) [nm], or None
    seed : int
        Draws the frames that components are fitted on.

    Returns
    -------
    float, 0 to 1; the papers give the share of targets above 0.5 (`share_above`)

    Source: METRICS "PC-sim"; AlphaFlow (2024).
    """
    first, second = (principal_components(p, structure, 1, seed=seed).directions[0] for p in (positions, reference))
    require(
        first.shape == second.shape,
        f"positions must hold the {len(second)} atoms of reference, got {len(first)}; choose the same atoms",
    )
    return float(min(1.0, abs((first * second).sum())))


def state_recovery(projections: np.ndarray, reference: np.ndarray, bins: int = STATE_BINS) -> dict[str, float]:
    """Return how well the occupied states of the reference are found.

    A state is a bin of a grid: `bins` even ones along each component over the reference's range, and one more at each
    end for what lies outside, so that an outlier of the sample neither widens the bins nor goes unseen.

    Parameters
    ----------
    projections, reference : array, (n_frames, n_components)
        Both on the reference's components (`PrincipalComponents.project`), two of them.

    Returns
    -------
    dict: jsd [nats]; precision, recall, f1 (0 to 1) of occupied bins; n_states of the reference

    Raises
    ------
    LatentError
        The shapes do not match, or the reference does not vary along a component.

    Source: METRICS "state recovery"; ConfRover (2025).
    """
    first, second = np.asarray(projections, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    require(
        first.ndim == second.ndim == 2 and first.shape[1] == second.shape[1] and len(first) > 0 and len(second) > 0,
        f"projections must have shape (n_frames, {second.shape[-1]}) as reference, got {first.shape}",
    )
    low, high = second.min(axis=0), second.max(axis=0)
    require(bool((high > low).all()), "reference must vary along each component, got a constant; give more frames")
    counts = []
    for points in (first, second):
        cells = np.clip(np.floor((points - low) / (high - low) * bins), -1, bins)
        # The reference's largest value belongs to its last bin, not outside.
        cells = (np.where(points == high, bins - 1, cells) + 1).astype(np.int64)
        flat = np.ravel_multi_index(tuple(cells.T), (bins + 2,) * cells.shape[1])
        counts.append(np.bincount(flat, minlength=(bins + 2) ** cells.shape[1]))
    found, true = counts[0] > 0, counts[1] > 0
    shared = float((found & true).sum())
    return {
        "jsd": jsd(*counts),
        "precision": shared / float(found.sum()),
        "recall": shared / float(true.sum()),
        "f1": 2.0 * shared / float(found.sum() + true.sum()),
        "n_states": int(true.sum()),
    }
