"""Torsion angles as differentiable tensors, and losses on them that do give gradients.

DISCREPANCY(LD-FPG, dihedral losses): the public code takes histograms of detached angles, whose divergence has no
gradient; here every angle spreads over the bins by a von Mises kernel. Its squared angle difference jumps at +-180
degrees; here the difference enters as 1 - cos.
"""

from __future__ import annotations

import math
from typing import Tuple  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor


def torsion_angles(positions: Tensor, quadruples: Tensor) -> Tensor:
    """Return torsion angles in (-pi, pi], IUPAC sign.

    Parameters
    ----------
    positions : Tensor
        (batch, n_atoms, 3) [nm]
    quadruples : Tensor of int64
        (n_torsions, 4)

    Returns
    -------
    Tensor
        (batch, n_torsions) [rad]
    """
    cosine, sine = _cosine_and_sine(positions, quadruples)
    return torch.atan2(sine, cosine)


def torsion_features(positions: Tensor, quadruples: Tensor) -> Tensor:
    """Return cosines, then sines, of torsions, (batch, 2 n_torsions): smooth, where an angle jumps by a turn."""
    cosine, sine = _cosine_and_sine(positions, quadruples)
    length = (cosine * cosine + sine * sine).clamp(min=1e-20).sqrt()  # 0 where three atoms lie on a line
    return torch.cat([cosine / length, sine / length], dim=1)


def _cosine_and_sine(positions: Tensor, quadruples: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Return cosine and sine of each torsion times a length of its own, (batch, n_torsions) each."""
    # one gather, and so one scatter on the way back: (batch, n_torsions, 4, 3)
    corners = positions[:, quadruples.flatten()].view(positions.shape[0], -1, 4, 3)
    bond_1, bond_2, bond_3 = (corners[:, :, 1:] - corners[:, :, :3]).unbind(2)
    normal_1 = torch.linalg.cross(bond_1, bond_2)
    normal_2 = torch.linalg.cross(bond_2, bond_3)
    return (normal_1 * normal_2).sum(2), (bond_2 * bond_2).sum(2).sqrt() * (bond_1 * normal_2).sum(2)


def torsion_loss(angles: Tensor, reference: Tensor) -> Tensor:
    """Return the mean of 1 - cos(difference), (batch, n_torsions) [rad] each; half the square of small errors."""
    return (1.0 - torch.cos(angles - reference)).mean()


def soft_histogram(angles: Tensor, n_bins: int, concentration: float) -> Tensor:
    """Spread every angle over the bins of (-pi, pi) by a von Mises kernel.

    Parameters
    ----------
    angles : Tensor
        (batch, n_torsions) [rad]
    n_bins : int
        Even bins, each taken at its centre.
    concentration : float
        Of the kernel (kappa); its width is about 1 / sqrt(kappa) rad.

    Returns
    -------
    Tensor
        (n_torsions, n_bins), rows sum to 1
    """
    edges = torch.arange(n_bins, dtype=angles.dtype, device=angles.device)
    centres = (edges + 0.5) * (2 * math.pi / n_bins) - math.pi
    share = torch.softmax(concentration * torch.cos(angles[:, :, None] - centres), dim=2)
    return share.mean(dim=0)


def histogram_divergence(angles: Tensor, reference: Tensor, n_bins: int, concentration: float) -> Tensor:
    """Return the Jensen-Shannon divergence [nats] of two batches' soft histograms, mean over torsions."""
    p = soft_histogram(angles, n_bins, concentration)
    q = soft_histogram(reference, n_bins, concentration)
    middle = 0.5 * (p + q)
    tiny = 1e-12
    divergence = p * ((p + tiny) / (middle + tiny)).log() + q * ((q + tiny) / (middle + tiny)).log()
    return 0.5 * divergence.sum(dim=1).mean()
