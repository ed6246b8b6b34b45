"""Frames in pieces: no score holds all frames in double precision at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from openmm_latent.errors import require
from openmm_latent.geometry import superpose

#: Numbers a piece holds: 4 MB in double precision.
CHUNK_VALUES = 500_000


def checked_frames(positions: np.ndarray, name: str = "positions", n_atoms: int | None = None) -> np.ndarray:
    """Return `positions` as an array, after checking its shape (n_frames, n_atoms, 3) without copying it.

    Raises
    ------
    LatentError
        Another shape, no frames, or another number of atoms than `n_atoms`.
    """
    frames = np.asarray(positions)
    require(
        frames.ndim == 3 and frames.shape[2] == 3 and frames.size > 0,
        f"{name} must have shape (n_frames, n_atoms, 3) [nm] with at least one frame, got {frames.shape}; "
        "pass Cartesian positions",
    )
    require(
        n_atoms is None or frames.shape[1] == n_atoms,
        f"{name} must hold the {n_atoms} atoms of what they are compared with, got {frames.shape[1]}; "
        "choose the same atoms in the same order",
    )
    return frames


def frame_chunks(
    positions: np.ndarray, structure: np.ndarray | None = None, name: str = "positions", values_a_frame: int = 0
) -> Iterator[np.ndarray]:
    """Yield all frames in order, a piece at a time.

    Parameters
    ----------
    positions : array, (n_frames, n_atoms, 3) [nm]
    structure : array, (n_atoms, 3) [nm], or None
        Each piece is superposed on it; None takes the frames as they lie.
    values_a_frame : int
        How many numbers the caller makes of a frame, if more than its coordinates.

    Yields
    ------
    array of float64, (n_frames of the piece, n_atoms, 3) [nm]; a copy, free to change

    Raises
    ------
    LatentError
        A frame holds NaN or infinity.
    """
    frames = checked_frames(positions, name, None if structure is None else len(structure))
    size = max(1, CHUNK_VALUES // max(values_a_frame, 3 * frames.shape[1]))
    for start in range(0, len(frames), size):
        piece = np.array(frames[start : start + size], dtype=np.float64)
        if not np.isfinite(piece).all():
            frame = start + int(np.flatnonzero(~np.isfinite(piece).all(axis=(1, 2)))[0])
            require(False, f"{name} must be finite, got NaN or infinity in frame {frame}; leave such frames out")
        yield piece if structure is None else superpose(piece, structure)


def frame_subset(n_frames: int, n_wanted: int, seed: int) -> np.ndarray:
    """Return the indices of `n_wanted` different frames drawn at random, in order; all frames if there are fewer."""
    if n_frames <= n_wanted:
        return np.arange(n_frames)
    return np.sort(np.random.default_rng(seed).choice(n_frames, n_wanted, replace=False))


def subset(positions: np.ndarray, n_wanted: int, seed: int, structure: np.ndarray | None) -> np.ndarray:
    """Return at most `n_wanted` frames, drawn at random, superposed: (n_wanted, n_atoms, 3) [nm] float64."""
    frames = checked_frames(positions)
    if len(frames) > n_wanted:
        frames = frames[frame_subset(len(frames), n_wanted, seed)]
    chosen, start = np.empty(frames.shape), 0
    for piece in frame_chunks(frames, structure):
        chosen[start : start + len(piece)] = piece
        start += len(piece)
    return chosen
