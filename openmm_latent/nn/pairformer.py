"""Pairformer blocks: features of pairs updated by triangles, features of residues by attention that pairs bias.

| symbol | variable |
|---|---|
| s_i, z_ij | `single`, `pair` |
| q, k, v, b | `queries`, `keys`, `values`, `bias` |
| c | `condition` |

Source: Abramson et al., Nature 630, 493 (2024), supplement, algorithms 11, 17, 24 and 26.
"""

from __future__ import annotations

from typing import Optional, Tuple  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor, nn

from openmm_latent.errors import require
from openmm_latent.nn.pair_blocks import TriangleAttention, TriangleMultiplication


class AdaptiveNorm(nn.Module):
    """Layer norm whose scale and shift come from a condition; without one, an ordinary layer norm.

    Parameters
    ----------
    width : int
    n_condition : int
        Features of the condition; 0 is none. What is learned of it starts at zero: an ordinary norm.

    Source: AlphaFold 3, algorithm 26; the start at zero is that of Peebles and Xie, arXiv 2212.09748.
    """

    def __init__(self, width: int, n_condition: int = 0):
        super().__init__()
        self.is_conditioned = n_condition > 0
        self.norm = nn.LayerNorm(width, elementwise_affine=not self.is_conditioned)
        self.to_scale_shift = nn.Linear(n_condition, 2 * width) if self.is_conditioned else nn.Identity()
        if self.is_conditioned:
            nn.init.zeros_(self.to_scale_shift.weight)
            nn.init.zeros_(self.to_scale_shift.bias)

    def forward(
        self,
        features: Tensor,
        condition: Optional[Tensor] = None,  # noqa: UP045
    ) -> Tensor:
        """Normalise (..., width); `condition`, (..., n_condition), has as many axes, of the same size or 1."""
        normed = self.norm(features)
        if self.is_conditioned and condition is not None:
            scale, shift = self.to_scale_shift(condition).chunk(2, dim=-1)
            normed = normed * (1.0 + scale) + shift
        return normed


class Transition(nn.Module):
    """Norm, and a network of one gated hidden layer: the update of (..., width).

    Parameters
    ----------
    width, factor : int
        The hidden layer is `factor` times as wide.
    n_condition : int
        See `AdaptiveNorm`.

    Source: AlphaFold 3, algorithm 11.
    """

    def __init__(self, width: int, factor: int, n_condition: int = 0):
        super().__init__()
        self.norm = AdaptiveNorm(width, n_condition)
        self.to_hidden = nn.Linear(width, 2 * factor * width, bias=False)
        self.to_out = nn.Linear(factor * width, width, bias=False)

    def forward(
        self,
        features: Tensor,
        condition: Optional[Tensor] = None,  # noqa: UP045
    ) -> Tensor:
        """Return the update of (..., width)."""
        gate, hidden = self.to_hidden(self.norm(features, condition)).chunk(2, dim=-1)
        return self.to_out(nn.functional.silu(gate) * hidden)


class PairBiasAttention(nn.Module):
    """Gated attention among residues, biased by features of pairs: the update of (b, n, width).

    Parameters
    ----------
    width, n_heads : int
        `width` must be a multiple of `n_heads`.
    n_pair : int
    n_condition : int
        See `AdaptiveNorm`.

    Source: AlphaFold 3, algorithm 24.
    """

    def __init__(self, width: int, n_heads: int, n_pair: int, n_condition: int = 0):
        super().__init__()
        require(
            n_heads >= 1 and width % n_heads == 0,
            f"width must be a multiple of n_heads, got {width} and {n_heads}; change one of them",
        )
        self.n_heads = n_heads
        self.norm = AdaptiveNorm(width, n_condition)
        self.to_queries = nn.Linear(width, width)
        self.to_keys_values = nn.Linear(width, 2 * width, bias=False)
        self.norm_pair = nn.LayerNorm(n_pair)
        self.to_bias = nn.Linear(n_pair, n_heads, bias=False)
        self.to_gate = nn.Linear(width, width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        single: Tensor,
        pair: Tensor,
        mask: Tensor,
        condition: Optional[Tensor] = None,  # noqa: UP045
    ) -> Tensor:
        """Attend.

        Parameters
        ----------
        single : Tensor
            (b, n, width)
        pair : Tensor
            (b, n, n, n_pair)
        mask : Tensor
            (b, n) of bool, False for padding
        condition : Tensor, optional
            (b, 1 or n, n_condition)

        Returns
        -------
        Tensor
            (b, n, width)
        """
        n_batch, n, width = single.shape
        normed = self.norm(single, condition)
        queries = self.to_queries(normed).view(n_batch, n, self.n_heads, -1).transpose(1, 2)
        keys, values = self.to_keys_values(normed).view(n_batch, n, self.n_heads, -1).transpose(1, 2).chunk(2, dim=-1)
        bias = self.to_bias(self.norm_pair(pair)).permute(0, 3, 1, 2)  # (b, n_heads, n, n)
        bias = bias.masked_fill(mask.logical_not().view(n_batch, 1, 1, n), -1e9)
        gathered = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        gathered = gathered.transpose(1, 2).reshape(n_batch, n, width)
        return self.to_out(torch.sigmoid(self.to_gate(normed)) * gathered)


class PairformerBlock(nn.Module):
    """One block: pairs by triangles and a transition, then residues by attention and a transition, each a residual.

    A condition, such as an embedding of a time step, enters the norms of the attention and of both transitions; the
    triangles of the next block see it through the features of pairs.

    Parameters
    ----------
    n_single, n_pair : int
        Features a residue and a pair.
    n_heads : int
        Of the attention among residues, with n_single / n_heads dimensions each.
    n_triangle_heads, triangle_head_width : int
    transition_factor : int
        Hidden width of both transitions in units of their features.
    dropout : float
        Of the four updates by triangles, shared along rows, or along columns where attention is by columns.
    n_condition : int
        Features of the condition; 0 is none.

    Source: AlphaFold 3, algorithm 17. DISCREPANCY(AlphaFold 3, algorithm 17): triangles are those of
    `openmm_latent.nn.pair_blocks`, whose gates and edges are linear maps with biases, and hidden as wide as pairs.
    """

    def __init__(
        self,
        n_single: int,
        n_pair: int,
        n_heads: int,
        n_triangle_heads: int,
        triangle_head_width: int,
        transition_factor: int = 4,
        dropout: float = 0.25,
        n_condition: int = 0,
    ):
        super().__init__()
        self.multiply_outgoing = TriangleMultiplication(n_pair, True)
        self.multiply_incoming = TriangleMultiplication(n_pair, False)
        self.attend_starting = TriangleAttention(n_pair, n_triangle_heads, triangle_head_width, True)
        self.attend_ending = TriangleAttention(n_pair, n_triangle_heads, triangle_head_width, False)
        self.pair_transition = Transition(n_pair, transition_factor, n_condition)
        self.attention = PairBiasAttention(n_single, n_heads, n_pair, n_condition)
        self.single_transition = Transition(n_single, transition_factor, n_condition)
        self.dropout = nn.Dropout(dropout)

    def _drop(self, update: Tensor, by_rows: bool) -> Tensor:
        """Drop the same features of all edges in a column (`by_rows`: one draw serves all rows) or in a row."""
        if not self.training:
            return update
        return update * self.dropout(torch.ones_like(update[:, :1] if by_rows else update[:, :, :1]))

    def forward(
        self,
        single: Tensor,
        pair: Tensor,
        mask: Tensor,
        condition: Optional[Tensor] = None,  # noqa: UP045
    ) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Update.

        Parameters
        ----------
        single : Tensor
            (b, n, n_single)
        pair : Tensor
            (b, n, n, n_pair)
        mask : Tensor
            (b, n) of bool, False for padding
        condition : Tensor, optional
            (b, n_condition)

        Returns
        -------
        single, pair : Tensor
            Of the same shapes; what padding holds does not matter, and does not reach the rest.
        """
        of_single: Optional[Tensor] = None  # noqa: UP045
        of_pair: Optional[Tensor] = None  # noqa: UP045
        if condition is not None:
            of_single, of_pair = condition.unsqueeze(1), condition.unsqueeze(1).unsqueeze(1)
        pair_mask = (mask.unsqueeze(1) & mask.unsqueeze(2)).to(pair.dtype)
        pair = pair + self._drop(self.multiply_outgoing(pair, pair_mask), True)
        pair = pair + self._drop(self.multiply_incoming(pair, pair_mask), True)
        pair = pair + self._drop(self.attend_starting(pair, pair_mask), True)
        pair = pair + self._drop(self.attend_ending(pair, pair_mask), False)
        pair = pair + self.pair_transition(pair, of_pair)
        single = single + self.attention(single, pair, mask, of_single)
        return single + self.single_transition(single, of_single), pair
