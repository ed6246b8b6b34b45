"""ATMOS's trajectories from many starts at once; the library draws one, from a bundle.

The noise of a frame between two key frames is named by its place alone, so all intervals can be drawn in any order.
"""

import numpy as np
import torch
from torch import Tensor

from openmm_latent.models.atmos.module import BoundComplex


@torch.no_grad()
def draw(
    module: BoundComplex, starts: np.ndarray, n_frames: int, is_filled: bool, seed: int, n_parallel: int = 64
) -> np.ndarray:
    """Draw one trajectory from each start, all at once.

    Parameters
    ----------
    module : BoundComplex
    starts : ndarray
        (n_starts, n_atoms, 3) [nm]
    n_frames : int
        After the start; where `is_filled` the interpolator makes all but each `upsampling`-th.
    is_filled : bool
    seed : int
    n_parallel : int
        Intervals of one trajectory to fill at once.

    Returns
    -------
    ndarray
        (n_starts, n_frames + 1, n_atoms, 3) [nm]
    """
    generator = torch.Generator().manual_seed(seed)
    positions = torch.tensor(starts, dtype=torch.float32)
    state, keys = module.initial_state(positions), [positions]
    n_noise = module.noise_sizes()["jump"]
    for _ in range(n_frames // (module.upsampling if is_filled else 1)):
        positions, state = module.jump(positions, state, torch.randn(len(starts), n_noise, generator=generator))
        keys.append(positions)
    frames = torch.stack(keys, dim=1)
    if is_filled:
        frames = torch.stack([_filled(module, one, 1000 * seed + i, n_parallel) for i, one in enumerate(frames)])
    return frames.numpy()


def _filled(module: BoundComplex, keys: Tensor, seed: int, n_parallel: int) -> Tensor:
    """Return key frames with what is between them: (n_keys, n_atoms, 3) -> (n_frames, n_atoms, 3) [nm]."""
    parts = []
    for first in range(0, len(keys) - 1, n_parallel):
        ends = keys[first + 1 : first + 1 + n_parallel]
        begun = keys[first : first + len(ends)]
        noise = torch.stack([_interval_noise(module, seed, first + i) for i in range(len(ends))])
        parts.append(torch.cat([begun[:, None], module.fill(begun, ends, noise)], dim=1).flatten(0, 1))
    return torch.cat([*parts, keys[-1:]])


def _interval_noise(module: BoundComplex, seed: int, number: int) -> Tensor:
    """Return the noise of all frames of one interval, (n_noise,)."""
    n_between = int(module.upsampling) - 1
    size = module.noise_sizes()["fill"] // n_between
    parts = []
    for step in range(1, n_between + 1):
        mixed = np.random.SeedSequence([seed, step, number]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(mixed) & 0x7FFFFFFFFFFFFFFF)
        parts.append(torch.randn(size, generator=generator))
    return torch.cat(parts)
