"""Optimal superposition as differentiable, scriptable tensor functions.

The rotation comes from the 4 x 4 quaternion matrix, not from a singular value decomposition: its top eigenvector is
always a proper rotation, so that a chiral molecule is never reflected, and its derivative stays finite for planar
molecules, for which that of a singular value decomposition does not.

The eigenvector is found without a gradient. At the best rotation the torque sum_a y_a x r_a of the superposed frame y
on the reference r vanishes; a change of the frame makes a torque tau, which the rotation (tr(M) - M)^-1 tau undoes,
M = sum_a y_a r_a^T. That small rotation is zero in value and carries the whole gradient, in a few operations.

| symbol | variable |
|---|---|
| sum_a x_a r_a^T, x the centred frame, flattened | `products` (b, 9) |
| R | `rotation`, as rows @ R |
| d tau / d products | `lever` (b, 9, 3) |
| (tr(M) - M)^-1 | `compliance` (b, 3, 3) |

Source: Horn, J. Opt. Soc. Am. A 4, 629 (1987); Theobald, Acta Cryst. A 61, 478 (2005).
"""

from __future__ import annotations

from typing import Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import torch
from torch import Tensor, nn

#: Keeps the gradient finite where two orientations fit equally well [nm^2]; elsewhere it is rounding.
_TINY = 1e-12


def _quaternion_matrix() -> np.ndarray:
    """Return the map from the nine sums mobile_i target_j to the 4 x 4 quaternion matrix: (9, 16)."""
    matrix = np.zeros((3, 3, 4, 4))
    signs = ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))  # of xx, yy, zz on the diagonal
    for row, diagonal in enumerate(signs):
        for axis, sign in enumerate(diagonal):
            matrix[axis, axis, row, row] = sign
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        for row, column in ((0, k + 1), (k + 1, 0)):  # s_ij - s_ji
            matrix[i, j, row, column], matrix[j, i, row, column] = 1.0, -1.0
        for row, column in ((i + 1, j + 1), (j + 1, i + 1)):  # s_ij + s_ji
            matrix[i, j, row, column], matrix[j, i, row, column] = 1.0, 1.0
    return matrix.reshape(9, 16)


def _rotation_matrix() -> np.ndarray:
    """Return the map from the products q_m q_n of a unit quaternion to its rotation: (16, 9)."""
    # R_ij = sum_mn q_m q_n (quaternion matrix of s = e_i e_j)_mn: the form whose maximum the eigenvector is
    return _quaternion_matrix().T


def _levi_civita() -> np.ndarray:
    """Return epsilon_abc as (3, 9), row a, column 3 b + c."""
    epsilon = np.zeros((3, 3, 3))
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        epsilon[a, b, c], epsilon[a, c, b] = 1.0, -1.0
    return epsilon.reshape(3, 9)


def top_eigenvector(matrices: Tensor) -> Tensor:
    """Return unit eigenvectors of the largest eigenvalues: (b, 4, 4), symmetric and without trace -> (b, 4, 1).

    By squaring, 2^24-fold power iteration: only products, so that a GPU need not wait for the host, as it does in
    torch's eigh, and all can be recorded in a CUDA graph. Eigenvalues closer than 1e-6 of their size are not told
    apart.
    """
    size = torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-30
    powers = matrices / size + torch.eye(4, dtype=matrices.dtype, device=matrices.device)  # eigenvalues of 0 to 2
    for _ in range(6):
        for _ in range(4):
            powers = torch.bmm(powers, powers)
        powers = powers / powers.diagonal(dim1=1, dim2=2).sum(dim=1).view(-1, 1, 1)
    largest = powers.diagonal(dim1=1, dim2=2).argmax(dim=1).view(-1, 1, 1).expand(-1, 4, 1)
    column = powers.gather(2, largest)
    return column / torch.linalg.vector_norm(column, dim=1, keepdim=True)


class Superposition(nn.Module):
    """Superpose frames on a reference structure, in double precision; see `superpose`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("to_quaternions", torch.tensor(_quaternion_matrix()), persistent=False)
        self.register_buffer("to_rotation", torch.tensor(_rotation_matrix()), persistent=False)
        self.register_buffer("levi_civita", torch.tensor(_levi_civita()), persistent=False)
        identity = torch.eye(3, dtype=torch.float64).flatten()
        # M -> tr(M) - M, flattened
        stiffness = torch.outer(identity, identity) - torch.eye(9, dtype=torch.float64)
        self.register_buffer("to_stiffness", stiffness, persistent=False)
        self.register_buffer("least_stiffness", _TINY * identity, persistent=False)

    def best(self, products: Tensor) -> Tensor:
        """Return the best proper rotations, (b, 3, 3), for sums mobile_i target_j, (b, 9), without a gradient."""
        n_batch = products.shape[0]
        matrices = torch.mm(products, self.to_quaternions).view(n_batch, 4, 4)
        # of the largest eigenvalue, (b, 4, 1)
        quaternion = top_eigenvector(matrices) if matrices.is_cuda else torch.linalg.eigh(matrices)[1][:, :, 3:]
        pairs = torch.bmm(quaternion, quaternion.transpose(1, 2)).view(n_batch, 16)
        return torch.mm(pairs, self.to_rotation).view(n_batch, 3, 3)

    def response(self, products: Tensor, rotation: Tensor) -> Tensor:
        """Return d rotation / d products at the best rotation, (b, 9, 9), itself without a gradient."""
        n_batch = products.shape[0]
        rotated = torch.bmm(rotation.transpose(1, 2), products.view(n_batch, 3, 3))  # M
        stiffness = torch.addmm(self.least_stiffness, rotated.view(n_batch, 9), self.to_stiffness)
        compliance = torch.linalg.inv_ex(stiffness.view(n_batch, 3, 3))[0]
        lever = torch.mm(rotation.view(-1, 3), self.levi_civita).view(n_batch, 9, 3)
        return torch.bmm(torch.bmm(lever, compliance), lever.transpose(1, 2))

    def rotation(self, centred: Tensor, reference: Tensor) -> Tensor:
        """Return what `optimal_rotation` returns."""
        n_batch = centred.shape[0]
        products = torch.bmm(centred.transpose(1, 2), reference.unsqueeze(0).expand(n_batch, -1, -1))  # (b, 3, 3)
        # not detach(): freezing a TorchScript module takes it out, and the same gradient comes slowly, by eigenvectors
        fixed = products.data.view(n_batch, 9)
        rotation = self.best(fixed)
        if products.requires_grad:
            # products @ response is the small rotation that the torque asks for: zero, but not its derivative
            response = self.response(fixed, rotation)
            rotation = torch.baddbmm(rotation.view(n_batch, 1, 9), products.view(n_batch, 1, 9), response)
        return rotation.view(n_batch, 3, 3)

    def forward(self, positions: Tensor, reference: Tensor) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
        """Return what `superpose` returns."""
        precise = positions.to(torch.float64)
        centre = precise.mean(dim=1, keepdim=True)
        centred = precise - centre
        rotation = self.rotation(centred, reference.to(torch.float64))
        return torch.bmm(centred, rotation), rotation, centre


def optimal_rotation(mobile: Tensor, target: Tensor) -> Tensor:
    """Find the proper rotation R that brings each mobile frame closest to the target, as rows @ R.

    Parameters
    ----------
    mobile : Tensor
        (batch, n_points, 3), centred, double precision
    target : Tensor
        (n_points, 3), centred, double precision

    Returns
    -------
    Tensor
        (batch, 3, 3); `mobile @ R` lies on `target`, determinant +1
    """
    return Superposition().to(mobile.device).rotation(mobile, target)


def superpose(positions: Tensor, reference: Tensor) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
    """Superpose frames on a reference structure, in double precision. First derivatives are exact, second are not.

    Parameters
    ----------
    positions : Tensor
        (batch, n_atoms, 3) [nm], at any place and orientation
    reference : Tensor
        (n_atoms, 3) [nm], centred on the origin

    Returns
    -------
    superposed : Tensor
        (batch, n_atoms, 3) [nm], double precision, centred on the origin
    rotation : Tensor
        (batch, 3, 3), double precision, as rows @ rotation
    centre : Tensor
        (batch, 1, 3) [nm], double precision, the frames' centroids
    """
    return Superposition().to(positions.device)(positions, reference)


def orientation_gap(positions: Tensor, reference: Tensor) -> Tensor:
    """Return how well a reference fixes each frame's orientation: the gap to the next best one, as a share.

    At 0 two orientations fit equally well and a superposed frame jumps from one to the other; its derivative grows
    as 1 / gap.

    Parameters
    ----------
    positions : Tensor
        (batch, n_atoms, 3) [nm]
    reference : Tensor
        (n_atoms, 3) [nm]

    Returns
    -------
    Tensor
        (batch,), from 0 to 2/3
    """
    centred = positions.to(torch.float64) - positions.to(torch.float64).mean(dim=1, keepdim=True)
    target = reference.to(torch.float64) - reference.to(torch.float64).mean(dim=0)
    products = torch.matmul(centred.transpose(1, 2), target)
    values = torch.linalg.svdvals(products)
    handedness = torch.sign(torch.linalg.det(products))
    return (values[:, 1] + handedness * values[:, 2]) / values.sum(dim=1)
