"""Optimal superposition as differentiable, scriptable tensor functions.

The rotation comes from the 4 x 4 quaternion matrix, not from a singular value decomposition: its top eigenvector is
always a proper rotation, so that a chiral molecule is never reflected, and its derivative stays finite for planar
molecules, for which that of a singular value decomposition does not.

Source: Horn, J. Opt. Soc. Am. A 4, 629 (1987); Theobald, Acta Cryst. A 61, 478 (2005).
"""

from __future__ import annotations

from typing import Tuple  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor


def optimal_rotation(mobile: Tensor, target: Tensor) -> Tensor:
    """Find the proper rotation R that brings each mobile frame closest to the target, as rows @ R.

    Parameters
    ----------
    mobile : Tensor
        (batch, n_points, 3), centred
    target : Tensor
        (n_points, 3), centred, the same dtype

    Returns
    -------
    Tensor
        (batch, 3, 3); `mobile @ R` lies on `target`, determinant +1
    """
    # s[b, i, j] = sum over points of mobile_i target_j   (batch, 3, 3)
    s = torch.matmul(mobile.transpose(1, 2), target)
    xx, xy, xz = s[:, 0, 0], s[:, 0, 1], s[:, 0, 2]
    yx, yy, yz = s[:, 1, 0], s[:, 1, 1], s[:, 1, 2]
    zx, zy, zz = s[:, 2, 0], s[:, 2, 1], s[:, 2, 2]
    rows = [
        torch.stack([xx + yy + zz, yz - zy, zx - xz, xy - yx], dim=1),
        torch.stack([yz - zy, xx - yy - zz, xy + yx, zx + xz], dim=1),
        torch.stack([zx - xz, xy + yx, yy - xx - zz, yz + zy], dim=1),
        torch.stack([xy - yx, zx + xz, yz + zy, zz - xx - yy], dim=1),
    ]
    quaternion_matrix = torch.stack(rows, dim=1)  # (batch, 4, 4), symmetric
    vectors = torch.linalg.eigh(quaternion_matrix)[1]
    w, x, y, z = vectors[:, 0, 3], vectors[:, 1, 3], vectors[:, 2, 3], vectors[:, 3, 3]
    rotation = [
        torch.stack([w * w + x * x - y * y - z * z, 2 * (x * y + w * z), 2 * (x * z - w * y)], dim=1),
        torch.stack([2 * (x * y - w * z), w * w - x * x + y * y - z * z, 2 * (y * z + w * x)], dim=1),
        torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), w * w - x * x - y * y + z * z], dim=1),
    ]
    return torch.stack(rotation, dim=1)


def superpose(positions: Tensor, reference: Tensor) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
    """Superpose frames on a reference structure, in double precision.

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
    precise = positions.to(torch.float64)
    centre = precise.mean(dim=1, keepdim=True)
    centred = precise - centre
    rotation = optimal_rotation(centred, reference.to(torch.float64))
    return torch.matmul(centred, rotation), rotation, centre
