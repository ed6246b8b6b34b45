"""Blocks that update features of pairs by triangles: multiplication, attention and a transition.

| symbol | variable |
|---|---|
| z_ij | `pair` |
| a_ij, b_ij | `left`, `right` |
| g_ij | `gate` |
| q, k, v, b | `queries`, `keys`, `values`, `bias` |

Source: Jumper et al., Nature 596, 583 (2021), supplement, algorithms 11 to 15.
"""

from __future__ import annotations

from typing import List  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor, nn

#: Logits of triangle attention that are worked on at a time, 512 MB of them: they grow as the cube of the residues.
MOST_LOGITS = 2**27


class TriangleMultiplication(nn.Module):
    """Update edge ij by the products of edges ik and jk (outgoing), or ki and kj (incoming).

    Parameters
    ----------
    n_pair : int
        Features a pair, inside as well.
    is_outgoing : bool
    """

    def __init__(self, n_pair: int, is_outgoing: bool):
        super().__init__()
        self.is_outgoing = is_outgoing
        self.norm = nn.LayerNorm(n_pair)
        self.to_edges = nn.Linear(n_pair, 2 * n_pair)
        self.to_edge_gates = nn.Linear(n_pair, 2 * n_pair)
        self.norm_out = nn.LayerNorm(n_pair)
        self.to_out = nn.Linear(n_pair, n_pair)
        self.to_gate = nn.Linear(n_pair, n_pair)

    def forward(self, pair: Tensor, pair_mask: Tensor) -> Tensor:
        """Return the update of (b, n, n, n_pair); `pair_mask` (b, n, n), zero for padding."""
        normed = self.norm(pair)
        edges = torch.sigmoid(self.to_edge_gates(normed)) * self.to_edges(normed) * pair_mask.unsqueeze(-1)
        left, right = edges.permute(0, 3, 1, 2).chunk(2, dim=1)  # (b, n_pair, n, n)
        if self.is_outgoing:
            product = torch.matmul(left, right.transpose(-1, -2))
        else:
            product = torch.matmul(left.transpose(-1, -2), right)
        product = self.norm_out(product.permute(0, 2, 3, 1))
        return torch.sigmoid(self.to_gate(normed)) * self.to_out(product)


class TriangleAttention(nn.Module):
    """Update edge ij by attention over the edges that start at i, or (by columns) over those that end at j.

    Parameters
    ----------
    n_pair, n_heads, head_width : int
    is_starting : bool
        False attends to edges with the same end.
    """

    def __init__(self, n_pair: int, n_heads: int, head_width: int, is_starting: bool):
        super().__init__()
        self.is_starting, self.n_heads, self.most_logits = is_starting, n_heads, MOST_LOGITS
        self.norm = nn.LayerNorm(n_pair)
        self.to_queries_keys_values = nn.Linear(n_pair, 3 * n_heads * head_width, bias=False)
        self.to_bias = nn.Linear(n_pair, n_heads, bias=False)
        self.to_gate = nn.Linear(n_pair, n_heads * head_width)
        self.to_out = nn.Linear(n_heads * head_width, n_pair)

    def forward(self, pair: Tensor, pair_mask: Tensor) -> Tensor:
        """Return the update of (b, n, n, n_pair); `pair_mask` (b, n, n), the product of two residues' masks."""
        if not self.is_starting:
            pair, pair_mask = pair.transpose(1, 2), pair_mask.transpose(1, 2)
        n_batch, n, _, _ = pair.shape
        normed = self.norm(pair)
        shaped = self.to_queries_keys_values(normed).view(n_batch, n, n, 3, self.n_heads, -1)
        queries, keys, values = shaped.flatten(0, 1).permute(2, 0, 3, 1, 4).unbind(0)  # (b n, n_heads, n, head_width)
        bias = self.to_bias(normed).permute(0, 3, 1, 2)  # (b, n_heads, n, n), the same for each row
        hidden = (pair_mask.amax(1) == 0).view(n_batch, 1, 1, n)
        bias = bias.masked_fill(hidden, -1e9)
        n_at_once = max(1, self.most_logits // (self.n_heads * n * n))
        parts: List[Tensor] = []  # noqa: UP006
        for first in range(0, n_batch * n, n_at_once):
            rows = torch.arange(first, min(n_batch * n, first + n_at_once), device=pair.device)
            some = bias.index_select(0, torch.div(rows, n, rounding_mode="floor"))
            last = first + n_at_once
            parts.append(
                nn.functional.scaled_dot_product_attention(
                    queries[first:last], keys[first:last], values[first:last], attn_mask=some
                )
            )
        gathered = torch.cat(parts).transpose(1, 2).reshape(n_batch, n, n, -1)
        update = self.to_out(torch.sigmoid(self.to_gate(normed)) * gathered)
        return update if self.is_starting else update.transpose(1, 2)


class PairBlock(nn.Module):
    """The pair half of an Evoformer block: two multiplications, two attentions, a transition, each a residual.

    Parameters
    ----------
    n_pair : int
    n_heads, head_width : int
        Of the triangle attentions.
    transition_factor : int
        Width of the transition in units of `n_pair`.
    dropout : float
        Shared along rows (along columns where attention is by columns), as published.
    """

    def __init__(self, n_pair: int, n_heads: int, head_width: int, transition_factor: int, dropout: float):
        super().__init__()
        self.multiply_outgoing = TriangleMultiplication(n_pair, True)
        self.multiply_incoming = TriangleMultiplication(n_pair, False)
        self.attend_starting = TriangleAttention(n_pair, n_heads, head_width, True)
        self.attend_ending = TriangleAttention(n_pair, n_heads, head_width, False)
        self.transition = nn.Sequential(
            nn.LayerNorm(n_pair),
            nn.Linear(n_pair, transition_factor * n_pair),
            nn.ReLU(),
            nn.Linear(transition_factor * n_pair, n_pair),
        )
        self.dropout = nn.Dropout(dropout)

    def _drop(self, update: Tensor, by_rows: bool) -> Tensor:
        """Drop the same features of all edges in a column (`by_rows`: one draw serves all rows) or in a row."""
        shared = torch.ones_like(update[:, :1] if by_rows else update[:, :, :1])
        return update * self.dropout(shared)

    def forward(self, pair: Tensor, pair_mask: Tensor) -> Tensor:
        """Update (b, n, n, n_pair); `pair_mask` (b, n, n), zero for padding."""
        pair = pair + self._drop(self.multiply_outgoing(pair, pair_mask), True)
        pair = pair + self._drop(self.multiply_incoming(pair, pair_mask), True)
        pair = pair + self._drop(self.attend_starting(pair, pair_mask), True)
        pair = pair + self._drop(self.attend_ending(pair, pair_mask), False)
        return pair + self.transition(pair)
