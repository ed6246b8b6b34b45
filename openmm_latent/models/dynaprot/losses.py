"""Distances between covariances: of their logarithms, as published, or of themselves, for comparison.

All are means over residues, so that proteins of all lengths weigh alike, and in powers of Å as in the paper.

| symbol | variable |
|---|---|
| Lambda, Q | `eigenvalues`, `vectors` |
| Gamma_ij, divided differences of f = log | `slopes` |

Source: DynaProt, section 3.3; Daleckii and Krein's formula as in Higham, "Functions of matrices" (2008), theorem 3.11.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from openmm_latent.errors import require
from openmm_latent.models.dynaprot.config import LOSSES
from openmm_latent.models.dynaprot.network import without_common_shift

#: Eigenvalues are taken to be no smaller in a logarithm [Å^2].
LEAST_EIGENVALUE = 1e-6


class _SymmetricLogarithm(torch.autograd.Function):
    """Q log(max(Lambda, floor)) Q^T, whose derivative stays finite where eigenvalues are equal."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor, floor: float) -> Tensor:
        """Return the logarithm of symmetric matrices (..., k, k)."""
        eigenvalues, vectors = torch.linalg.eigh(matrices)
        ctx.save_for_backward(eigenvalues, vectors)
        ctx.floor = floor
        logarithms = eigenvalues.clamp(min=floor).log()
        return (vectors * logarithms.unsqueeze(-2)) @ vectors.transpose(-1, -2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return Q (Gamma * (Q^T G Q)) Q^T."""
        eigenvalues, vectors = ctx.saved_tensors
        gradient = 0.5 * (gradients[0] + gradients[0].transpose(-1, -2))
        inside = vectors.transpose(-1, -2) @ gradient @ vectors
        inside = inside * _slopes(eigenvalues, ctx.floor)
        return vectors @ inside @ vectors.transpose(-1, -2), None


def _slopes(eigenvalues: Tensor, floor: float) -> Tensor:
    """Return (f(a) - f(b)) / (a - b) of f = log(max(., floor)), and f'(a) where a = b: (..., k) -> (..., k, k)."""
    first, second = eigenvalues.unsqueeze(-1), eigenvalues.unsqueeze(-2)
    high, low = torch.maximum(first, second), torch.minimum(first, second)
    ratio = (high - low) / low.clamp(min=floor)
    # log(high / low) / (high - low), by log1p: exact to rounding for neighbouring eigenvalues
    both_above = torch.where(ratio > 0, torch.log1p(ratio) / ratio.clamp(min=1e-300), 1.0) / low.clamp(min=floor)
    across = torch.log(high.clamp(min=floor) / floor) / (high - low).clamp(min=1e-300)
    return torch.where(low >= floor, both_above, torch.where(high > floor, across, torch.zeros_like(across)))


def symmetric_logarithm(matrices: Tensor, floor: float = LEAST_EIGENVALUE) -> Tensor:
    """Return the logarithm of symmetric positive definite matrices, differentiable also at equal eigenvalues.

    Parameters
    ----------
    matrices : Tensor
        (..., k, k); taken to double precision
    floor : float
        Smaller eigenvalues count as this one, and have no gradient.

    Returns
    -------
    Tensor
        (..., k, k), double precision
    """
    return _SymmetricLogarithm.apply(matrices.double(), floor)


def compared(matrices: Tensor, loss: str) -> Tensor:
    """Return what a loss compares by squared differences: the logarithms, or the matrices themselves.

    Computed once for labels.
    """
    require(loss in LOSSES, f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
    return symmetric_logarithm(matrices) if loss == "log_frobenius" else matrices.double()


def compared_coupling(coupling: Tensor, mask: Tensor, loss: str) -> Tensor:
    """Return what a loss compares of couplings, without the motion of all residues as one, and without padding.

    DISCREPANCY(DynaProt, section 3.3): superposed frames do not move as a whole, so the label's eigenvalue of that
    motion is zero, and the clamp alone would rule its logarithm. It is set alike in prediction and label.

    Parameters
    ----------
    coupling : Tensor
        (b, n, n) [Å^2]
    mask : Tensor
        (b, n) of bool

    Returns
    -------
    Tensor
        (b, n, n), zero for padding
    """
    both = mask.unsqueeze(1) & mask.unsqueeze(2)
    identity = torch.eye(mask.shape[1], dtype=torch.float64, device=mask.device)
    inside = torch.where(both, without_common_shift(coupling.double(), mask), identity)
    return compared(inside, loss) * both


def marginal_loss(factor: Tensor, label: Tensor, mask: Tensor, loss: str = "log_frobenius") -> Tensor:
    """Return the mean over residues of the squared distance between predicted and true marginals.

    Parameters
    ----------
    factor : Tensor
        (b, n, 3, 3) [Å] predicted L
    label : Tensor
        (b, n, 3, 3) what `compared` made of the true covariances [Å^2]
    mask : Tensor
        (b, n) of bool
    loss : str
        "log_frobenius" or "mse"
    """
    squares = (compared(factor @ factor.transpose(-1, -2), loss) - label).square().sum((-1, -2))  # (b, n)
    return torch.where(mask, squares, torch.zeros_like(squares)).sum() / mask.sum()


def coupling_loss(coupling: Tensor, label: Tensor, mask: Tensor, loss: str = "log_frobenius") -> Tensor:
    """Return the mean over residues of the squared distance between predicted and true couplings.

    Parameters
    ----------
    coupling : Tensor
        (b, n, n) [Å^2] predicted C
    label : Tensor
        (b, n, n) what `compared_coupling` made of the true ones
    mask : Tensor
        (b, n) of bool
    loss : str
        "log_frobenius" or "mse"
    """
    return (compared_coupling(coupling, mask, loss) - label).square().sum() / mask.sum()
