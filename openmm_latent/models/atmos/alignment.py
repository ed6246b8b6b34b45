"""Superposition of each frame on its own target, with weights."""

from __future__ import annotations

import torch
from torch import Tensor

from openmm_latent.nn.superposition import Superposition


def superpose_each(superposition: Superposition, mobile: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return each mobile frame moved and turned onto its target, without a gradient through the rotation.

    Parameters
    ----------
    superposition : Superposition
    mobile, target : Tensor
        (b, n_atoms, 3) [nm]
    weights : Tensor
        (n_atoms,) positive

    Returns
    -------
    Tensor
        (b, n_atoms, 3) [nm], of the dtype of `mobile`

    Source: AlphaFold 3, supplement, algorithm 28.
    """
    weight = (weights.double() / weights.double().sum()).view(1, -1, 1)
    moved, goal = mobile.double(), target.double()
    moved = moved - (weight * moved).sum(1, keepdim=True)
    centre = (weight * goal).sum(1, keepdim=True)
    products = torch.bmm((weight * moved).transpose(1, 2), goal - centre)
    rotation = superposition.best(products.data.reshape(-1, 9))
    return (torch.bmm(moved, rotation) + centre).to(mobile.dtype)
