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
