"""Invariant point attention: residues attend to one another by features and by points in their local frames.

| symbol | variable |
|---|---|
| T_i = (R_i, t_i) | `rotations`, `translations` |
| s_i | `single` |
| q, k, v (scalars) | `queries`, `keys`, `values` |
| q, k, v (points) | `query_points`, `key_points`, `value_points` |
| b_ij, z_ij | `pair_bias`, `pair` |
| gamma^h | `point_weight`, before its softplus |
| w_L, w_C | `1 / sqrt(n_terms)`, `_point_scale` |

Source: Jumper et al., Nature 596, 583 (2021), supplement, algorithm 22.
"""

from __future__ import annotations

import math
from typing import Optional

import torch
from torch import Tensor, nn

from openmm_latent.errors import require

#: softplus of this is 1: where the weights of points start.
_INVERSE_SOFTPLUS_OF_ONE = 0.541324854612918


class InvariantPointAttention(nn.Module):
    """One layer of it; the result changes with neither rotation nor translation of all frames.

    Parameters
    ----------
    width : int
        Features a residue, in and out.
    n_heads, n_scalar, n_query_points, n_value_points : int
        Heads, and what each has: dimensions of scalar queries, keys and values; points of queries and keys; of values.
    n_pair : int
        Features a pair, which bias the attention and are gathered by it; 0 is none.
    """

    def __init__(
        self, width: int, n_heads: int, n_scalar: int, n_query_points: int, n_value_points: int, n_pair: int = 0
    ):
        super().__init__()
        sizes = (width, n_heads, n_scalar, n_query_points, n_value_points)
        require(
            min(sizes) >= 1,
            f"width, n_heads, n_scalar, n_query_points and n_value_points must be at least 1, got {sizes}",
        )
        self.n_heads, self.n_scalar, self.n_pair = n_heads, n_scalar, n_pair
        self.n_query_points, self.n_value_points = n_query_points, n_value_points
        n_terms = 3 if n_pair > 0 else 2  # of a logit: scalars, points, pairs
        self._scalar_scale = 1.0 / math.sqrt(n_terms * n_scalar)
        self._point_scale = 1.0 / math.sqrt(n_terms * 4.5 * n_query_points)
        self._pair_scale = 1.0 / math.sqrt(n_terms)
        self.to_queries = nn.Linear(width, n_heads * n_scalar)
        self.to_keys_values = nn.Linear(width, 2 * n_heads * n_scalar)
        self.to_query_points = nn.Linear(width, 3 * n_heads * n_query_points)
        self.to_key_value_points = nn.Linear(width, 3 * n_heads * (n_query_points + n_value_points))
        self.to_pair_bias = nn.Linear(n_pair, n_heads) if n_pair > 0 else nn.Identity()
        self.point_weight = nn.Parameter(torch.full((n_heads,), _INVERSE_SOFTPLUS_OF_ONE))
        self.to_out = nn.Linear(n_heads * (n_scalar + 4 * n_value_points + n_pair), width)

    def _points(self, flat: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
        """Take (b, n, 3 n_heads n_points) from local frames to the common one: (b, n_heads, n, n_points, 3) [nm]."""
        n_batch, n, _ = flat.shape
        local = flat.view(n_batch, n, -1, 3)
        placed = torch.matmul(local, rotations.transpose(-1, -2)) + translations.unsqueeze(-2)
        return placed.view(n_batch, n, self.n_heads, -1, 3).transpose(1, 2)

    def _point_logits(self, query_points: Tensor, key_points: Tensor) -> Tensor:
        """Return minus half the weighted squared distances of points, summed over them: (b, n_heads, n, n)."""
        queries, keys = query_points.flatten(-2), key_points.flatten(-2)  # (b, n_heads, n, 3 n_query_points)
        squares = (queries**2).sum(-1).unsqueeze(-1) + (keys**2).sum(-1).unsqueeze(-2)
        squares = squares - 2.0 * torch.matmul(queries, keys.transpose(-1, -2))
        weight = nn.functional.softplus(self.point_weight).view(1, -1, 1, 1)
        return -0.5 * self._point_scale * weight * squares

    def forward(
        self,
        single: Tensor,
        rotations: Tensor,
        translations: Tensor,
        mask: Tensor,
        pair: Optional[Tensor] = None,  # noqa: UP045  TorchScript reads these annotations
    ) -> Tensor:
        """Attend.

        Parameters
        ----------
        single : Tensor
            (b, n, width)
        rotations : Tensor
            (b, n, 3, 3), columns are the axes
        translations : Tensor
            (b, n, 3) [nm], near the origin: squares of large coordinates lose digits
        mask : Tensor
            (b, n) of bool, False for padding
        pair : Tensor, optional
            (b, n, n, n_pair)

        Returns
        -------
        Tensor
            (b, n, width)
        """
        n_batch, n, _ = single.shape
        n_heads, n_scalar = self.n_heads, self.n_scalar
        queries = self.to_queries(single).view(n_batch, n, n_heads, n_scalar).transpose(1, 2)
        keys, values = self.to_keys_values(single).view(n_batch, n, n_heads, 2 * n_scalar).transpose(1, 2).chunk(2, -1)
        query_points = self._points(self.to_query_points(single), rotations, translations)
        both = self._points(self.to_key_value_points(single), rotations, translations)
        key_points, value_points = both[..., : self.n_query_points, :], both[..., self.n_query_points :, :]

        logits = self._scalar_scale * torch.matmul(queries, keys.transpose(-1, -2))  # (b, n_heads, n, n)
        logits = logits + self._point_logits(query_points, key_points)
        if pair is not None:
            logits = logits + self._pair_scale * self.to_pair_bias(pair).permute(0, 3, 1, 2)
        logits = logits.masked_fill(mask.logical_not().view(n_batch, 1, 1, n), -1e9)
        attention = torch.softmax(logits, dim=-1)

        scalars = torch.matmul(attention, values).transpose(1, 2)  # (b, n, n_heads, n_scalar)
        gathered = torch.matmul(attention, value_points.flatten(-2)).transpose(1, 2)
        away = gathered.reshape(n_batch, n, -1, 3) - translations.unsqueeze(-2)
        local = torch.matmul(away, rotations)  # R^T v, as rows; (b, n, n_heads * n_value_points, 3)
        lengths = torch.sqrt((local**2).sum(-1) + 1e-8)
        parts = [scalars.flatten(-2), local.flatten(-2), lengths]
        if pair is not None:
            parts.append(torch.einsum("bhij,bijc->bihc", attention, pair).flatten(-2))
        return self.to_out(torch.cat(parts, dim=-1))
