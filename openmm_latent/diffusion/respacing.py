"""Fewer steps than a diffusion model was trained on: which of its levels a sampler keeps."""

from __future__ import annotations

from typing import Tuple  # noqa: UP035  read beside TorchScript modules

import torch
from torch import Tensor

from openmm_latent.errors import require


def respaced_levels(n_levels: int, n_steps: int) -> Tensor:
    """Choose levels evenly, the first and the last among them; one step keeps the last alone.

    Parameters
    ----------
    n_levels : int
        Levels of the process that the network was trained on.
    n_steps : int
        Levels to keep, at most `n_levels`.

    Returns
    -------
    Tensor of int, (n_steps,), rising

    Raises
    ------
    LatentError
        There are more steps than levels, or none.
    """
    require(
        1 <= n_steps <= n_levels,
        f"n_steps must lie between 1 and the n_levels={n_levels} of the trained process, got {n_steps}; 100 of 1000 "
        f"is usual",
    )
    if n_steps == 1:
        return torch.tensor([n_levels - 1])
    return torch.linspace(0, n_levels - 1, n_steps, dtype=torch.float64).round().long()


def respaced_signals(signals: Tensor, n_steps: int) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
    """Return the process that visits only some levels: at these it has the noise of the full one.

    Parameters
    ----------
    signals : Tensor
        (n_levels,) signal variance of each level, falling; double precision keeps the first betas exact.
    n_steps : int

    Returns
    -------
    levels : Tensor of int
        (n_steps,) the levels kept
    kept : Tensor
        (n_steps,) signal variances there
    betas : Tensor
        (n_steps,) 1 - signal / signal one step before, which at the first step is 1

    Source: A. Nichol and P. Dhariwal, Improved Denoising Diffusion Probabilistic Models, equation 19 (2021).
    """
    levels = respaced_levels(len(signals), n_steps)
    kept = signals[levels]
    before = torch.cat([torch.ones_like(kept[:1]), kept[:-1]])
    return levels, kept, 1.0 - kept / before
