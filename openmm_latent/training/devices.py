"""Where training runs."""

from __future__ import annotations

import torch

from openmm_latent.errors import require


def resolve_device(device: str) -> str:
    """Return "cpu" or "cuda" for "auto", "cpu" or "cuda".

    Raises
    ------
    LatentError
        The word is none of these, or there is no CUDA device.
    """
    require(device in ("auto", "cpu", "cuda"), f"device must be 'auto', 'cpu' or 'cuda', got {device!r}")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    require(
        device == "cpu" or torch.cuda.is_available(),
        "device 'cuda' was asked for, but torch sees no CUDA device; give 'cpu' or 'auto'",
    )
    return device


def is_first_process(n_processes: int) -> bool:
    """Return whether this process, of several that train together, is the one that writes files."""
    if n_processes == 1:
        return True
    from lightning.pytorch.utilities import rank_zero_only

    return rank_zero_only.rank == 0
