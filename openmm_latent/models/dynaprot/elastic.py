"""An elastic network of Cα atoms, from whose Gaussian a small network starts.

| symbol | variable |
|---|---|
| k_ij | `springs` [1/Å^2], in units of kT |
| H, the Hessian | `hessian` (b, 3 n, 3 n) |
| P, Q: what is left of motions, and rigid ones | `rigid` (b, 3 n, 6) is Q |
| Sigma = P (P H P + Q Q^T)^-1 P | `covariance` [Å^2] |

DISCREPANCY(DynaProt, sections 3.2 and 3.3): the paper's networks start from nothing. With a dozen proteins to learn
from they stay behind an elastic network, so those of `CONFIGS["tiny"]` learn what such a network gets wrong: factors
multiplied to its Cholesky factors (M), and factors of its springs instead of a lower triangular L (J), positive
definite all the same. `uses_elastic_network=False`, as in `CONFIGS["paper"]`, is the published way.

Source: Atilgan et al., Biophys. J. 80, 505 (2001), for the Hessian; Hinsen et al., Chem. Phys. 261, 25 (2000), for
springs that fall with the sixth power of the distance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openmm_latent.models.dynaprot.surroundings import Structure

#: Spring of two atoms 0.6 nm apart [1/Å^2]; networks learn a factor to it.
_SPRING = 4.0
_DISTANCE = 6.0  # [Å]
#: Nearer atoms count as this far apart [Å].
_LEAST_DISTANCE = 3.0
#: Share of a spring that holds against motion across it, too, so that few or flat residues have no free motion.
_ACROSS = 0.01
#: Added to variances: a residue that cannot move but with all others [Å^2].
_LEAST_VARIANCE = 1e-4


def springs(shape: Structure) -> Tensor:
    """Return spring constants of all pairs, (b, n, n) [1/Å^2], double precision; none for padding."""
    distances = torch.cdist(10.0 * shape.positions.double(), 10.0 * shape.positions.double())
    constants = _SPRING * (distances.clamp(min=_LEAST_DISTANCE) / _DISTANCE) ** -6
    others = shape.mask.unsqueeze(1) & shape.mask.unsqueeze(2)
    return constants * others * (1.0 - torch.eye(shape.mask.shape[1], dtype=torch.float64, device=distances.device))


def elastic_covariance(shape: Structure, constants: Tensor) -> Tensor:
    """Return the covariance of Cα atoms on springs, without rigid motions.

    Parameters
    ----------
    shape : Structure
    constants : Tensor
        (b, n, n) [1/Å^2] symmetric, double precision, zero for padding; differentiable in these.

    Returns
    -------
    Tensor
        (b, n, n, 3, 3) [Å^2], double precision, zero for padding
    """
    positions = 10.0 * shape.positions.double()
    n_batch, n, _ = positions.shape
    identity = torch.eye(3, dtype=torch.float64, device=positions.device)
    away = positions.unsqueeze(1) - positions.unsqueeze(2)
    units = away / away.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    along = units.unsqueeze(-1) * units.unsqueeze(-2)
    blocks = constants[..., None, None] * ((1.0 - _ACROSS) * along + _ACROSS / 3.0 * identity)  # (b, n, n, 3, 3)
    own = torch.diag_embed(blocks.sum(2).permute(0, 2, 3, 1)).permute(0, 3, 4, 1, 2)
    hessian = (own - blocks).transpose(2, 3).reshape(n_batch, 3 * n, 3 * n)

    rigid = _rigid_motions(positions, shape.mask)
    kept = shape.mask.double().repeat_interleave(3, dim=1)
    projector = torch.diag_embed(kept) - rigid @ rigid.transpose(1, 2)
    whole = torch.eye(3 * n, dtype=torch.float64, device=positions.device)
    covariance = projector @ torch.linalg.inv(projector @ hessian @ projector + whole - projector) @ projector
    return covariance.view(n_batch, n, 3, n, 3).transpose(2, 3)


def elastic_marginals(shape: Structure) -> Tensor:
    """Return Cholesky factors of each residue's covariance in its local frame, (b, n, 3, 3) [Å], double precision."""
    covariance = elastic_covariance(shape, springs(shape))
    own = covariance.diagonal(dim1=1, dim2=2).permute(0, 3, 1, 2)  # (b, n, 3, 3)
    turns = shape.rotations.double()
    local = turns.transpose(-1, -2) @ own @ turns
    return torch.linalg.cholesky(local + _LEAST_VARIANCE * torch.eye(3, dtype=torch.float64, device=local.device))


def _rigid_motions(positions: Tensor, mask: Tensor) -> Tensor:
    """Return an orthonormal basis of rigid motions, (b, 3 n, 6), zero for padding; (b, n, 3) [Å] about the origin."""
    n_batch, n, _ = positions.shape
    axes = torch.eye(3, dtype=positions.dtype, device=positions.device).expand(n_batch, n, 3, 3)
    turns = torch.linalg.cross(axes, positions.unsqueeze(2), dim=-1)
    turns = turns / positions.square().sum((1, 2))[:, None, None, None].clamp(min=1e-6).sqrt()
    motions = torch.cat([axes / n**0.5, turns], dim=2) * mask[..., None, None]  # (b, n, 6, 3)
    return torch.linalg.qr(motions.transpose(2, 3).reshape(n_batch, 3 * n, 6))[0]
