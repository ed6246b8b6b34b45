"""Motion in time: RMSD to the first frame, changes from a start, and the residues that take part in slow modes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openmm_latent.errors import require
from openmm_latent.metrics.chunks import checked_frames, frame_chunks
from openmm_latent.metrics.kinetics import lagged_covariances
from openmm_latent.metrics.targets import pearson


def t_rmsd(positions: np.ndarray, *, is_superposed: bool = False) -> np.ndarray:
    """Return the RMSD of each frame to the first one.

    Parameters
    ----------
    positions : array, (n_frames, n_atoms, 3) [nm]
        In time order.
    is_superposed : bool
        True takes the frames as they lie (for a ligand: superposed on the protein before).

    Returns
    -------
    array, (n_frames,) [nm]; the first is 0
    """
    first = np.asarray(checked_frames(positions)[0], dtype=np.float64)
    squares = [
        ((piece - first) ** 2).sum(axis=2).mean(axis=1)
        for piece in frame_chunks(positions, None if is_superposed else first)
    ]
    return np.sqrt(np.concatenate(squares))


def t_rmsd_error(positions: np.ndarray, reference: np.ndarray, *, is_superposed: bool = False) -> float:
    """Return the root mean square difference between two series of RMSD to frame 0.

    Parameters
    ----------
    positions, reference : array, (n_frames, n_atoms, 3) [nm]
        Equally long, equally spaced, from the same start.

    Returns
    -------
    float [nm]

    Raises
    ------
    LatentError
        The lengths differ.

    Source: METRICS "t-RMSD error"; TEMPO, ATMOS.
    """
    require(
        len(positions) == len(reference),
        f"positions must be as long as reference ({len(reference)} frames), got {len(positions)}; cut the longer one",
    )
    difference = t_rmsd(positions, is_superposed=is_superposed) - t_rmsd(reference, is_superposed=is_superposed)
    return float(np.sqrt((difference**2).mean()))


def path_changes(path: np.ndarray) -> dict[str, np.ndarray]:
    """Return how far a path moves: from its start, from frame to frame, and in sum.

    Parameters
    ----------
    path : array, (n_frames, n_atoms, 3) [nm] or (n_frames, n_components) [nm]
        Cα positions, which lie on one structure already: d is the RMSD without superposing again. Or projections on two
        principal components: d is the Euclidean distance.

    Returns
    -------
    dict of array [nm]: frame, d(x0, xi) for i >= 1, (n_frames - 1,); step, d(x(i-1), xi), (n_frames - 1,); trajectory,
    the sum of the steps, (1,)

    Raises
    ------
    LatentError
        Fewer than two frames, or another shape.

    Source: METRICS "multi-start"; ConfRover (2025), which calls them Frame, Δframe and Trajectory.
    """
    points = np.asarray(path, dtype=np.float64)
    require(
        points.ndim in (2, 3) and len(points) > 1,
        "path must have shape (n_frames >= 2, n_atoms, 3) or (n_frames >= 2, n_components) [nm], "
        f"got {points.shape}; give one run in time order",
    )
    n_atoms = points.shape[1] if points.ndim == 3 else 1
    flat = points.reshape(len(points), -1)
    frame = np.linalg.norm(flat[1:] - flat[0], axis=1) / np.sqrt(n_atoms)
    step = np.linalg.norm(np.diff(flat, axis=0), axis=1) / np.sqrt(n_atoms)
    return {"frame": frame, "step": step, "trajectory": step.sum(keepdims=True)}


def multi_start_scores(paths: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """Compare changes from many starts: correlation and mean absolute error, pooled over all starts.

    Parameters
    ----------
    paths, references : list of array, (n_frames, n_atoms, 3) or (n_frames, n_components) [nm]
        One pair a start, equally long; as for `path_changes`.

    Returns
    -------
    dict: frame, step, trajectory -> dict: r (Pearson; NaN where it is not defined, as for fewer than three starts),
    mae [nm], n (how many values)

    Raises
    ------
    LatentError
        The numbers of starts or the lengths differ.

    Source: METRICS "multi-start"; ConfRover (2025).
    """
    require(
        len(paths) == len(references) and len(paths) > 0,
        f"paths must hold one for each of the {len(references)} references, got {len(paths)}",
    )
    for k, (path, reference) in enumerate(zip(paths, references, strict=True)):
        require(
            np.shape(path) == np.shape(reference),
            f"path {k} must have the shape of its reference {np.shape(reference)}, got {np.shape(path)}",
        )
    changes, expected = [path_changes(path) for path in paths], [path_changes(path) for path in references]
    scores = {}
    for name in ("frame", "step", "trajectory"):
        first, second = (np.concatenate([one[name] for one in side]) for side in (changes, expected))
        varies = len(first) >= 3 and np.ptp(first) > 0 and np.ptp(second) > 0
        scores[name] = {
            "r": pearson(first, second) if varies else float("nan"),
            "mae": float(np.abs(first - second).mean()),
            "n": len(first),
        }
    return scores


def mode_contributions(segments: Sequence[np.ndarray], lag_frames: int, n_modes: int = 1) -> np.ndarray:
    """Return how much each residue takes part in the slowest modes of TICA on its coordinates.

    Parameters
    ----------
    segments : list of array, (n_frames, n_residues, 3) [nm]
        Cα atoms, superposed, uninterrupted runs.
    lag_frames : int
    n_modes : int

    Returns
    -------
    array, (n_modes, n_residues): each row sums to 1; squared correlations of a mode with a residue's three coordinates,
    weighted by their variance

    Raises
    ------
    LatentError
        No segment is longer than the lag.
    """
    from deeptime.decomposition import TICA

    flat = [checked_frames(run, "segments").reshape(len(run), -1) for run in segments]
    covariances = lagged_covariances(flat, lag_frames)
    model = TICA(lagtime=int(lag_frames), dim=n_modes, scaling=None).fit(covariances).fetch_model()
    n_found = model.instantaneous_coefficients.shape[1]
    require(n_found >= n_modes, f"n_modes must not exceed the {n_found} modes of these segments, got {n_modes}")
    # Covariance of coordinate and mode: what moves with the mode, not how it is read off (n_coordinates, n_modes).
    moved = covariances.cov_00 @ model.instantaneous_coefficients[:, :n_modes]
    shares = (moved.T.reshape(n_modes, -1, 3) ** 2).sum(axis=2)
    return shares / shares.sum(axis=1, keepdims=True)


def mode_correlation(
    segments: Sequence[np.ndarray], reference_segments: Sequence[np.ndarray], lags: Sequence[int]
) -> np.ndarray:
    """Return the correlation of residues' contributions to the slowest mode, at several lags.

    Parameters
    ----------
    segments, reference_segments : list of array, (n_frames, n_residues, 3) [nm]
        Cα atoms, superposed, uninterrupted runs with equal frame spacing.
    lags : list of int
        In frames.

    Returns
    -------
    array, (n_lags,), from -1 to 1

    Source: METRICS "mode correlation"; ConfRover (2025).
    """
    return np.array(
        [pearson(mode_contributions(segments, lag)[0], mode_contributions(reference_segments, lag)[0]) for lag in lags]
    )
