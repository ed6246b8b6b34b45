"""What a network is shown of a structure, and invariant features of it that a small network need not discover.

DISCREPANCY(DynaProt, section 3.2): the paper's network has residue types and frames alone, as `CONFIGS["paper"]` here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Within these distances neighbours are counted and their directions gathered [nm].
RADII = (0.7, 1.0, 1.4)
#: The counts' edges are this soft [nm], so that features are smooth in positions.
_SOFTNESS = 0.05
#: Centres and width of the functions that tell a distance [nm].
_CENTRES = (0.38, 0.55, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5)
_WIDTH = 0.15
#: Separations along the chain are told one by one up to this.
_LARGEST_SEPARATION = 6
#: Residues over which the nearness of an end of the chain fades.
_END_LENGTHS = (1.5, 5.0)

N_RESIDUE_FEATURES = len(RADII) * (1 + 3 + 6) + 2 * len(_END_LENGTHS)
N_PAIR_FEATURES = len(_CENTRES) + 3 + 3 + 9 + 2 * _LARGEST_SEPARATION + 2


class Structure(NamedTuple):
    """A batch of structures, centred; what padding holds does not matter.

    Attributes
    ----------
    residue_types, chains : Tensor
        (b, n) int64
    rotations : Tensor
        (b, n, 3, 3), columns are the axes
    positions : Tensor
        (b, n, 3) [nm] Cα
    mask : Tensor
        (b, n) of bool
    """

    residue_types: Tensor
    rotations: Tensor
    positions: Tensor
    chains: Tensor
    mask: Tensor


def centred_structure(
    residue_types: Tensor, rotations: Tensor, positions: Tensor, chains: Tensor, mask: Tensor
) -> Structure:
    """Return the structures with their Cα about the origin, and harmless values as padding."""
    weight = mask.to(positions.dtype).unsqueeze(-1)
    kept = torch.where(mask.unsqueeze(-1), positions, torch.zeros_like(positions))
    centre = kept.sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1.0)
    identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
    return Structure(
        residue_types.masked_fill(mask.logical_not(), 0),
        torch.where(mask[..., None, None], rotations, identity),
        (kept - centre) * weight,
        chains,
        mask,
    )


def residue_features(shape: Structure) -> Tensor:
    """Return how crowded each residue is, where and how widely its neighbours lie, and how near an end is.

    Returns
    -------
    Tensor
        (b, n, N_RESIDUE_FEATURES)
    """
    away, distances = _separated(shape)
    local = torch.einsum("bnac,bnma->bnmc", shape.rotations, away) / distances.unsqueeze(-1)  # unit vectors
    others = _pairs(shape.mask) & ~torch.eye(shape.mask.shape[1], dtype=torch.bool, device=shape.mask.device)
    rows, columns = torch.triu_indices(3, 3, device=local.device)
    squares = local[..., rows] * local[..., columns]  # (b, n, n, 6)
    features = []
    for radius in RADII:
        near = torch.sigmoid((radius - distances) / _SOFTNESS) * others  # (b, n, n)
        for part in (torch.ones_like(local[..., :1]), local, squares):
            # about as many neighbours as fit, times one
            features.append(torch.einsum("bnm,bnmk->bnk", near, part) * (0.05 / radius**2))
    return torch.cat([*features, _ends(shape).to(local.dtype)], dim=-1)


def pair_features(shape: Structure) -> Tensor:
    """Return distance, directions, relative orientation and separation along the chain of each pair.

    Returns
    -------
    Tensor
        (b, n, n, N_PAIR_FEATURES)
    """
    away, distances = _separated(shape)
    units = away / distances.unsqueeze(-1)
    centres = torch.tensor(_CENTRES, dtype=distances.dtype, device=distances.device)
    shells = torch.exp(-0.5 * ((distances.unsqueeze(-1) - centres) / _WIDTH) ** 2)
    from_first = torch.einsum("bnac,bnma->bnmc", shape.rotations, units)
    from_second = torch.einsum("bmac,bnma->bnmc", shape.rotations, -units)
    relative = torch.einsum("bnac,bmad->bnmcd", shape.rotations, shape.rotations).flatten(-2)
    features = torch.cat([shells, from_first, from_second, relative, _separations(shape).to(units.dtype)], dim=-1)
    return features * _pairs(shape.mask).unsqueeze(-1)


def _pairs(mask: Tensor) -> Tensor:
    return mask.unsqueeze(1) & mask.unsqueeze(2)


def _separated(shape: Structure) -> tuple[Tensor, Tensor]:
    """Return vectors from each residue to each other (b, n, n, 3) and their lengths (b, n, n) [nm], never zero."""
    away = shape.positions.unsqueeze(1) - shape.positions.unsqueeze(2)
    return away, torch.sqrt(away.square().sum(-1) + 1e-6)


def _is_same_chain(shape: Structure) -> Tensor:
    return (shape.chains.unsqueeze(1) == shape.chains.unsqueeze(2)) & _pairs(shape.mask)


def _ends(shape: Structure) -> Tensor:
    """Return how near the start and the end of its chain each residue is: (b, n, 2 * len(_END_LENGTHS))."""
    same = _is_same_chain(shape)
    before = same.tril(-1).sum(2).unsqueeze(-1)  # residues of the chain before this one
    after = same.triu(1).sum(2).unsqueeze(-1)
    lengths = torch.tensor(_END_LENGTHS, device=same.device)
    return torch.cat([torch.exp(-before / lengths), torch.exp(-after / lengths)], dim=-1)


def _separations(shape: Structure) -> Tensor:
    """Return which separation along the chain a pair has, one of 2 `_LARGEST_SEPARATION` + 2: other chains the last."""
    place = torch.arange(shape.mask.shape[1], device=shape.mask.device)
    apart = (place.unsqueeze(0) - place.unsqueeze(1)).clamp(-_LARGEST_SEPARATION, _LARGEST_SEPARATION)
    kind = torch.where(_is_same_chain(shape), apart + _LARGEST_SEPARATION, 2 * _LARGEST_SEPARATION + 1)
    return torch.nn.functional.one_hot(kind, 2 * _LARGEST_SEPARATION + 2)
