"""The joint Gaussian of all Cα atoms, and what can be read from it; torch, in double precision.

| symbol | variable |
|---|---|
| L_i, in the frame of residue i | `cholesky` (n, 3, 3) [nm] |
| R_i, local to global: x = R_i x_local | `rotations` (n, 3, 3) |
| C, C̃ = C_ij / sqrt(C_ii C_jj) | `coupling`, `correlations` (n, n) |
| S_i, symmetric, S_i^2 = R_i L_i L_i^T R_i^T | `factors` (n, 3, 3) [nm] |
| Sigma_ij = S_i C̃_ij S_j | `covariance` (3 n, 3 n) [nm^2] |

Source: DynaProt, ICLR 2026 (openreview uKn9PdREBA), section 3.4 and proposition 3.1.
"""

from __future__ import annotations

from typing import Tuple  # noqa: UP035  as the other files of this family, which TorchScript reads

import torch
from torch import Tensor

from openmm_latent.errors import require

#: Singular values of the rigid motions below this share of the largest belong to motions that do nothing, such as the
#: turn of atoms on one line about that line.
_NO_MOTION = 1e-6


def joint_covariance(cholesky: Tensor, rotations: Tensor, coupling: Tensor) -> Tensor:
    """Assemble Sigma = L (C̃ x I3) L^T from marginals and couplings; positive definite by construction.

    Parameters
    ----------
    cholesky : Tensor
        (..., n_residues, 3, 3) [nm], each residue's factor in its own frame.
    rotations : Tensor
        (..., n_residues, 3, 3), local to global; their columns are the frames' axes.
    coupling : Tensor
        (..., n_residues, n_residues), positive definite, of any scale.

    Returns
    -------
    Tensor
        (..., 3 n_residues, 3 n_residues) [nm^2], double precision, in the axes in which `rotations` are given.

    Raises
    ------
    LatentError
        The shapes disagree, or a diagonal element of `coupling` is not positive.

    DISCREPANCY(paper, equation 5): the square roots are the symmetric ones, in common axes. Any square root gives the
    same marginals and a positive definite Sigma, but R_i L_i ties the local x of one residue to the local x of the
    next, which points elsewhere: residues that move as one come out uncorrelated. From MD of five proteins of 10 to 60
    residues (`coupling` a third of each block's trace in common axes) Sigma was rebuilt with a relative error of 0.53
    to 0.70 this way, of 0.81 to 1.02 by R_i L_i, and of 0.63 to 0.81 by R_i L_i with traces in local axes.
    """
    n_residues = cholesky.shape[-3] if cholesky.ndim >= 3 else -1
    require(
        cholesky.shape[-2:] == (3, 3)
        and rotations.shape[-3:] == (n_residues, 3, 3)
        and coupling.shape[-2:] == (n_residues, n_residues),
        f"cholesky, rotations and coupling must have shapes (..., n, 3, 3), (..., n, 3, 3) and (..., n, n), got "
        f"{tuple(cholesky.shape)}, {tuple(rotations.shape)} and {tuple(coupling.shape)}; give those of one protein",
    )
    coupling = coupling.double()
    variances = coupling.diagonal(dim1=-2, dim2=-1)
    require(
        bool((variances > 0).all()),
        f"coupling must have a positive diagonal, got {float(variances.min()):g}; give L L^T of the pair head",
    )
    scales = variances.rsqrt()
    correlations = coupling * scales.unsqueeze(-1) * scales.unsqueeze(-2)
    left, values, _ = torch.linalg.svd(rotations.double() @ cholesky.double())
    factors = (left * values.unsqueeze(-2)) @ left.transpose(-1, -2)  # (..., n, 3, 3)
    blocks = torch.einsum("...iab,...ij,...jbc->...iajc", factors, correlations, factors)
    return blocks.reshape(*blocks.shape[:-4], 3 * n_residues, 3 * n_residues)


def rigid_motions(positions: Tensor) -> Tensor:
    """Return an orthonormal basis of the six rigid motions of a structure.

    Parameters
    ----------
    positions : Tensor
        (n_points, 3) [nm]

    Returns
    -------
    Tensor
        (3 n_points, 6); fewer columns where points lie on one line or are one.
    """
    centred = positions.double() - positions.double().mean(dim=0)
    n_points = len(centred)
    axes = torch.eye(3, dtype=torch.float64, device=centred.device)
    shifts = axes.expand(n_points, 3, 3)  # (n_points, 3 axes, 3)
    turns = torch.linalg.cross(axes.expand(n_points, 3, 3), centred.unsqueeze(1))
    # as long as a shift, so that one threshold serves both
    turns = turns / centred.square().sum(dim=1).mean().sqrt().clamp(min=1e-12)
    motions = torch.cat([shifts, turns], dim=1).transpose(1, 2).reshape(3 * n_points, 6)
    left, values, _ = torch.linalg.svd(motions, full_matrices=False)
    return left[:, values > _NO_MOTION * values[0]]


def without_rigid_motions(covariance: Tensor, positions: Tensor) -> Tensor:
    """Project a covariance off the rigid motions of a structure: what is left after superposition.

    Parameters
    ----------
    covariance : Tensor
        (3 n_residues, 3 n_residues) [nm^2]
    positions : Tensor
        (n_residues, 3) [nm], the mean structure, on which Cα atoms are superposed with equal weights.

    Returns
    -------
    Tensor
        (3 n_residues, 3 n_residues) [nm^2], double precision

    Raises
    ------
    LatentError
        The shapes disagree.
    """
    _check(covariance, positions)
    basis = rigid_motions(positions)
    projected = covariance.double()
    for _ in range(2):  # P Sigma, then its transpose's
        projected = (projected - basis @ (basis.T @ projected)).T
    return 0.5 * (projected + projected.T)


def sample(mean: Tensor, covariance: Tensor, n_samples: int, seed: int) -> Tensor:
    """Draw conformations x = mean + S epsilon, S S^T = Sigma.

    Parameters
    ----------
    mean : Tensor
        (n_residues, 3) [nm]
    covariance : Tensor
        (3 n_residues, 3 n_residues) [nm^2], positive semidefinite.
    n_samples : int
    seed : int

    Returns
    -------
    Tensor
        (n_samples, n_residues, 3) [nm], double precision

    Raises
    ------
    LatentError
        The shapes disagree, `n_samples` is below 1, or `covariance` is not positive semidefinite.
    """
    _check(covariance, mean)
    require(n_samples >= 1, f"n_samples must be at least 1, got {n_samples}; ask for one conformation or more")
    noise = torch.randn(n_samples, 3 * len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    factor, failed = torch.linalg.cholesky_ex(covariance.double())
    if int(failed) != 0:  # singular, as every projected one
        factor = _symmetric_factor(covariance.double())
    return mean.double() + (noise.to(mean.device) @ factor.T).reshape(n_samples, len(mean), 3)


def _symmetric_factor(covariance: Tensor) -> Tensor:
    """Return S with S S^T = Sigma of a semidefinite matrix, (m, m)."""
    values, vectors = torch.linalg.eigh(covariance)
    largest = float(values[-1])
    require(
        float(values[0]) >= -1e-6 * abs(largest),
        f"covariance must be positive semidefinite, got eigenvalues from {float(values[0]):g} to {largest:g} nm^2; "
        f"assemble it by joint_covariance, or from superposed frames",
    )
    return vectors * values.clamp(min=0.0).sqrt()


def rmsf(covariance: Tensor) -> Tensor:
    """Return each residue's root mean square fluctuation, (n_residues,) [nm], of (3 n, 3 n) [nm^2]."""
    return marginals(covariance).diagonal(dim1=1, dim2=2).sum(dim=1).sqrt()


def ellipsoids(covariance: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Return the principal axes of each residue's fluctuation.

    Parameters
    ----------
    covariance : Tensor
        (3 n_residues, 3 n_residues) [nm^2]

    Returns
    -------
    lengths : Tensor
        (n_residues, 3) [nm], standard deviations along the axes, longest first.
    axes : Tensor
        (n_residues, 3, 3), unit vectors as rows, in the order of `lengths`; their signs mean nothing.
    """
    values, vectors = torch.linalg.eigh(marginals(covariance))
    return values.flip(1).clamp(min=0.0).sqrt(), vectors.flip(2).transpose(1, 2)


def couplings(covariance: Tensor, rotations: Tensor | None = None) -> Tensor:
    """Return one number for each pair of residues, from -1 to 1: tr(block_ij) / sqrt(tr(block_ii) tr(block_jj)).

    Parameters
    ----------
    covariance : Tensor
        (3 n_residues, 3 n_residues) [nm^2]
    rotations : Tensor, optional
        (n_residues, 3, 3), local to global. With them the blocks are those of displacements in local frames; without,
        the usual dynamic cross-correlation. Neither depends on the structure's orientation.

    Returns
    -------
    Tensor
        (n_residues, n_residues), double precision
    """
    n_residues = len(covariance) // 3
    blocks = covariance.double().reshape(n_residues, 3, n_residues, 3)
    if rotations is not None:
        turn = rotations.double()
        blocks = torch.einsum("iab,iajc,jcd->ibjd", turn, blocks, turn)
    traces = torch.einsum("iaja->ij", blocks)
    scales = traces.diagonal().rsqrt()
    return traces * scales[:, None] * scales[None, :]


def marginals(covariance: Tensor) -> Tensor:
    """Return the 3 x 3 blocks on the diagonal, (n_residues, 3, 3) [nm^2], double precision."""
    n_residues = len(covariance) // 3
    blocks = covariance.double().reshape(n_residues, 3, n_residues, 3)
    residues = torch.arange(n_residues, device=covariance.device)
    return blocks[residues, :, residues, :]


def _check(covariance: Tensor, positions: Tensor) -> None:
    n_residues = len(positions)
    require(
        positions.shape == (n_residues, 3) and covariance.shape == (3 * n_residues, 3 * n_residues),
        f"positions (or mean) and covariance must have shapes (n, 3) [nm] and (3 n, 3 n) [nm^2] of one protein, got "
        f"{tuple(positions.shape)} and {tuple(covariance.shape)}; one Cα atom a residue",
    )
