"""Whole trajectories: key frames one after the other, then all intervals between them at once.

Source: ATMOS, section 3.5 and algorithm 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from openmm_latent.errors import require

#: Intervals filled at once unless said otherwise; memory grows with it, the result does not change.
N_PARALLEL = 64


@torch.no_grad()
def sample_trajectory(
    module: Any,
    start: np.ndarray,
    n_keyframes: int,
    *,
    upsampling: int = 1,
    seed: int = 1,
    n_parallel: int = N_PARALLEL,
) -> np.ndarray:
    """Draw a trajectory.

    Parameters
    ----------
    module : BoundComplex
        Or a bundle's module, which does the same.
    start : ndarray
        (n_atoms, 3) [nm], the first frame.
    n_keyframes : int
        Key frames to draw after it.
    upsampling : int
        Frames a key frame: 1 leaves out the interpolator, any other number must be the model's.
    seed : int
        Noise of a frame depends on it and on the frame's place alone.
    n_parallel : int
        Intervals to fill at once.

    Returns
    -------
    ndarray
        (n_keyframes * upsampling + 1, n_atoms, 3) [nm] float32, superposed on nothing: each lies on the one before.

    Raises
    ------
    LatentError
        An argument is out of range, or the model has no interpolator of that upsampling.
    """
    start = np.asarray(start, dtype=np.float32)
    require(
        start.ndim == 2 and start.shape[1] == 3 and bool(np.isfinite(start).all()),
        f"start must be finite and of shape (n_atoms, 3) [nm], got {start.shape}; give the model atoms of one frame",
    )
    require(
        n_keyframes >= 1 and n_parallel >= 1,
        f"n_keyframes and n_parallel must be at least 1, got {n_keyframes} and {n_parallel}",
    )
    keys = key_frames(module, torch.from_numpy(start).to(module.reference.device), n_keyframes, seed)
    if upsampling == 1:
        return keys.cpu().numpy()
    require(
        hasattr(module, "towards") and module.upsampling == upsampling and module.uses_interpolator,
        f"upsampling must be 1, or that of the model's interpolator, got {upsampling}; train one, or leave it out",
    )
    filled = torch.empty([n_keyframes, upsampling, *keys.shape[1:]])  # kept on the CPU
    for first in range(0, n_keyframes, n_parallel):
        last = min(first + n_parallel, n_keyframes)
        filled[first:last] = fill_intervals(module, keys[first : last + 1], upsampling, seed, first)
    return torch.cat([filled.flatten(0, 1), keys[-1:].cpu()]).numpy()


def key_frames(module: Any, start: Tensor, n_keyframes: int, seed: int) -> Tensor:
    """Draw key frames one after the other: (n_atoms, 3) [nm] -> (n_keyframes + 1, n_atoms, 3) [nm], the start first."""
    kept = torch.empty([n_keyframes + 1, *start.shape], device=start.device)
    kept[0] = start
    state = module.initial_state(start.unsqueeze(0))
    n_noise = 3 * len(start) * int(module.keyframes.sampler.n_draws)
    for number in range(n_keyframes):
        noise = _normals(n_noise, seed, 0, number).unsqueeze(0).to(start.device)
        frame, state = module.jump(kept[number : number + 1], state, noise)
        kept[number + 1] = frame[0]
    return kept


def fill_intervals(module: Any, keys: Tensor, upsampling: int, seed: int, first: int = 0) -> Tensor:
    """Fill the intervals between key frames, all at once.

    Parameters
    ----------
    module : BoundComplex
    keys : Tensor
        (n_intervals + 1, n_atoms, 3) [nm]
    upsampling : int
    seed : int
    first : int
        Number of the first interval, which names its noise.

    Returns
    -------
    Tensor
        (n_intervals, upsampling, n_atoms, 3) [nm], each interval's first frame its key frame
    """
    frames, ends = keys[:-1], keys[1:]
    n_noise = 3 * keys.shape[1] * int(module.finer.sampler.n_draws)
    state = module.finer.initial_state(len(frames))
    kept = [frames]
    for step in range(1, upsampling):
        noise = torch.stack([_normals(n_noise, seed, step, first + i) for i in range(len(frames))])
        left = torch.full([len(frames)], float(upsampling - step + 1), device=keys.device)
        frames, state = module.towards(frames, ends, left, state, noise.to(keys.device))
        kept.append(frames)
    return torch.stack(kept, dim=1)


def _normals(n_noise: int, seed: int, step: int, number: int) -> Tensor:
    """Return the noise of one frame, (n_noise,): counted, so that frames can be drawn in any order."""
    mixed = np.random.SeedSequence([seed, step, number]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(mixed) & 0x7FFFFFFFFFFFFFFF)
    return torch.randn(n_noise, generator=generator)
