"""Attention among atoms within windows along their order, biased by features of pairs.

A window of queries sees a wider window of keys about it, so that cost grows with the number of atoms, not its square.
Biases of all blocks are made at once: where the same pairs are looked at in many diffusion steps, they are made once.

| symbol | variable |
|---|---|
| q, k, v, b, g | `queries`, `keys`, `values`, `bias`, `gate` |
| beta_lm: 0 inside the window, minus infinity outside | in `AtomWindows.mask` |

Source: Abramson et al., Nature 630, 493 (2024), supplement, algorithms 7, 23, 24 and 25.
"""

from __future__ import annotations

from typing import List, NamedTuple  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor, nn

from openmm_latent.errors import require
from openmm_latent.nn.pairformer import AdaptiveNorm, Transition

#: Where gates of conditioned blocks start: almost shut, so that a deep stack begins as the identity.
_GATE_START = -2.0


class AtomWindows(NamedTuple):
    """Which atoms each window looks at.

    Attributes
    ----------
    queries : Tensor of int
        (n_windows, n_queries); the last window's surplus repeats the last atom
    keys : Tensor of int
        (n_windows, n_keys)
    mask : Tensor of bool
        (n_windows, n_keys), False beyond the first and the last atom
    """

    queries: Tensor
    keys: Tensor
    mask: Tensor


def atom_windows(n_atoms: int, n_queries: int, n_keys: int) -> AtomWindows:
    """Lay windows over atoms; up to `n_keys` atoms share one window, in which each sees all.

    Raises
    ------
    LatentError
        Sizes are not positive, or keys are fewer than queries.

    DISCREPANCY(AlphaFold 3, algorithm 7): small systems attend in full, whatever their order.
    """
    require(
        n_atoms >= 1 and 1 <= n_queries <= n_keys,
        f"n_atoms and n_queries must be positive and n_keys at least n_queries, got {n_atoms}, {n_queries} and "
        f"{n_keys}; 32 and 128 are usual",
    )
    if n_atoms <= n_keys:
        n_queries = n_keys = n_atoms
    starts = torch.arange(0, n_atoms, n_queries).unsqueeze(1)
    queries = starts + torch.arange(n_queries)
    keys = starts + (n_queries - n_keys) // 2 + torch.arange(n_keys)
    inside = (keys >= 0) & (keys < n_atoms)
    return AtomWindows(queries.clamp(max=n_atoms - 1), keys.clamp(0, n_atoms - 1), inside)


class WindowBiases(nn.Module):
    """Biases of several attentions from features of the pairs in windows.

    Parameters
    ----------
    n_pair : int
    n_blocks, n_heads : int
    """

    def __init__(self, n_pair: int, n_blocks: int, n_heads: int):
        super().__init__()
        self.n_blocks = n_blocks
        self.norm = nn.LayerNorm(n_pair, elementwise_affine=False)
        self.to_bias = nn.Linear(n_pair, n_blocks * n_heads, bias=False)

    def forward(self, pair: Tensor, mask: Tensor) -> List[Tensor]:  # noqa: UP006
        """Return a bias a block, each (b, n_windows, n_heads, n_queries, n_keys).

        Parameters
        ----------
        pair : Tensor
            (b, n_windows, n_queries, n_keys, n_pair)
        mask : Tensor of bool
            (n_windows, n_keys)
        """
        bias = self.to_bias(self.norm(pair)).permute(0, 1, 4, 2, 3)
        hidden = mask.logical_not().view(1, mask.shape[0], 1, 1, mask.shape[1])
        return list(bias.masked_fill(hidden, -1e9).chunk(self.n_blocks, dim=2))


class WindowAttention(nn.Module):
    """Gated attention within windows: the update of (b, n, width).

    Parameters
    ----------
    width, n_heads : int
        `width` must be a multiple of `n_heads`.
    n_condition : int
        Features by which norms and the gate on the result are set.
    """

    def __init__(self, width: int, n_heads: int, n_condition: int):
        super().__init__()
        require(
            n_heads >= 1 and width % n_heads == 0,
            f"width must be a multiple of n_heads, got {width} and {n_heads}; change one of them",
        )
        self.n_heads = n_heads
        self.norm = AdaptiveNorm(width, n_condition)
        self.to_queries = nn.Linear(width, width)
        self.to_keys_values = nn.Linear(width, 2 * width, bias=False)
        self.to_gate = nn.Linear(width, width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.to_last_gate = nn.Linear(n_condition, width)
        nn.init.zeros_(self.to_last_gate.weight)
        nn.init.constant_(self.to_last_gate.bias, _GATE_START)

    def forward(self, features: Tensor, bias: Tensor, condition: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """Attend.

        Parameters
        ----------
        features : Tensor
            (b, n, width)
        bias : Tensor
            (b, n_windows, n_heads, n_queries, n_keys); b may be a divisor: then each serves as many in a row
        condition : Tensor
            (b, n, n_condition)
        queries, keys : Tensor of int
            (n_windows, n_queries), (n_windows, n_keys)

        Returns
        -------
        Tensor
            (b, n, width)
        """
        n_batch, n, width = features.shape
        n_windows, n_queries = queries.shape
        n_keys = keys.shape[1]
        normed = self.norm(features, condition)
        asked = self.to_queries(normed).index_select(1, queries.flatten())
        asked = asked.view(n_batch * n_windows, n_queries, self.n_heads, -1).transpose(1, 2)
        offered = self.to_keys_values(normed).index_select(1, keys.flatten())
        offered = offered.view(n_batch * n_windows, n_keys, self.n_heads, -1).transpose(1, 2)
        shared = bias.repeat_interleave(n_batch // bias.shape[0], dim=0).flatten(0, 1)
        known, values = offered.chunk(2, dim=-1)
        gathered = nn.functional.scaled_dot_product_attention(asked, known, values, attn_mask=shared)
        gathered = gathered.transpose(1, 2).reshape(n_batch, n_windows * n_queries, width)[:, :n]
        update = self.to_out(torch.sigmoid(self.to_gate(normed)) * gathered)
        return torch.sigmoid(self.to_last_gate(condition)) * update


class WindowBlock(nn.Module):
    """Attention within windows, and a transition: the features updated.

    Parameters
    ----------
    width, n_heads, n_condition : int
        See `WindowAttention`.
    transition_factor : int
    """

    def __init__(self, width: int, n_heads: int, n_condition: int, transition_factor: int = 2):
        super().__init__()
        self.attention = WindowAttention(width, n_heads, n_condition)
        self.transition = Transition(width, transition_factor, n_condition)

    def forward(self, features: Tensor, bias: Tensor, condition: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """Update (b, n, width); for the arguments see `WindowAttention`."""
        features = features + self.attention(features, bias, condition, queries, keys)
        return features + self.transition(features, condition)


def of_pairs(values: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """Gather features of token or atom pairs: (b, n, n, c), (w, q), (w, k) -> (b, w, q, k, c)."""
    n_windows, n_queries = queries.shape
    n_keys = keys.shape[1]
    flat = queries.unsqueeze(2) * values.shape[2] + keys.unsqueeze(1)
    taken = values.flatten(1, 2).index_select(1, flat.flatten())
    return taken.view(values.shape[0], n_windows, n_queries, n_keys, values.shape[3])


def mean_by_token(atoms: Tensor, token: Tensor, n_tokens: int) -> Tensor:
    """Average atoms of each token: (b, n_atoms, c), (n_atoms,) -> (b, n_tokens, c)."""
    total = torch.zeros([atoms.shape[0], n_tokens, atoms.shape[2]], dtype=atoms.dtype, device=atoms.device)
    counts = torch.zeros([n_tokens], dtype=atoms.dtype, device=atoms.device)
    counts = counts.index_add(0, token, torch.ones_like(atoms[0, :, 0]))
    return total.index_add(1, token, atoms) / counts.view(1, -1, 1)
