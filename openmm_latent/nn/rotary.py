"""Causal attention over frames: rotary angles from times, and a memory of keys and values that is a ring.

| symbol | variable |
|---|---|
| q, k, v | `queries`, `keys`, `values` |
| t | `times`, in any unit; only differences count |
| theta_i = base^(-2i/d) | `rates` (d / 2,) |

Source: Touvron et al., arXiv 2302.13971 (layers); Su et al., arXiv 2104.09864 (rotary angles).
"""

from __future__ import annotations

from typing import Optional, Tuple  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor, nn

from openmm_latent.errors import require


class RotaryAngles(nn.Module):
    """Turn pairs of features by angles that grow with time, so that products tell how far two times are apart.

    Parameters
    ----------
    head_width : int
        Even.
    base : float
        The slowest angle grows by about 1 / base per unit of time.
    """

    def __init__(self, head_width: int, base: float):
        super().__init__()
        require(head_width % 2 == 0, f"head_width must be even, for features turn in pairs, got {head_width}")
        rates = base ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        self.register_buffer("rates", rates.float(), persistent=False)

    def forward(self, features: Tensor, times: Tensor) -> Tensor:
        """Turn (b, n_tokens, n_frames, n_heads, head_width) by the frames' times, (b, n_frames)."""
        angles = (times.unsqueeze(-1) * self.rates).unsqueeze(1).unsqueeze(3)  # (b, 1, n_frames, 1, head_width / 2)
        cosine, sine = torch.cos(angles), torch.sin(angles)
        first, second = features.chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class RootMeanSquareNorm(nn.Module):
    """Divide features by their root mean square. Source: Zhang and Sennrich, arXiv 1910.07467."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, features: Tensor) -> Tensor:
        """Normalise (..., width)."""
        return features * torch.rsqrt(features.square().mean(-1, keepdim=True) + 1e-6) * self.weight


class TemporalLayer(nn.Module):
    """One layer over frames, for each token by itself: attention and a gated network, each a residual.

    Parameters
    ----------
    width, hidden, n_heads : int
        `width` must be a multiple of twice `n_heads`.
    base : float
        Of the rotary angles.
    """

    def __init__(self, width: int, hidden: int, n_heads: int, base: float):
        super().__init__()
        require(
            n_heads >= 1 and width % (2 * n_heads) == 0,
            f"width must be a multiple of 2 n_heads, got {width} and {n_heads}; change one of them",
        )
        self.n_heads = n_heads
        self.norm = RootMeanSquareNorm(width)
        self.to_queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.angles = RotaryAngles(width // n_heads, base)
        self.to_out = nn.Linear(width, width, bias=False)
        self.norm_hidden = RootMeanSquareNorm(width)
        self.to_hidden = nn.Linear(width, 2 * hidden, bias=False)
        self.from_hidden = nn.Linear(hidden, width, bias=False)

    def _heads(self, features: Tensor) -> Tensor:
        """Part the heads of (b, n_tokens, n_frames, width): (b, n_tokens, n_frames, n_heads, head_width)."""
        n_batch, n_tokens, n_frames, _ = features.shape
        return features.view(n_batch, n_tokens, n_frames, self.n_heads, -1)

    def _attend(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        is_seen: Optional[Tensor],  # noqa: UP045
    ) -> Tensor:
        """Attend, causally unless `is_seen`, (b, 1, n_queries, n_keys), says what sees what; tokens apart.

        All are (b, n_tokens, n_frames, n_heads, head_width); the answer is (b, n_tokens, n_queries, width).
        """
        n_batch, n_tokens = queries.shape[0], queries.shape[1]
        # (b n_tokens, n_heads, n_frames, head_width), the shape that fused kernels take
        q, k = queries.flatten(0, 1).transpose(1, 2), keys.flatten(0, 1).transpose(1, 2)
        v = values.flatten(0, 1).transpose(1, 2)
        if is_seen is None:
            gathered = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            seen = is_seen.expand(-1, n_tokens, -1, -1).flatten(0, 1).unsqueeze(1)
            gathered = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return gathered.transpose(1, 2).reshape(n_batch, n_tokens, queries.shape[2], -1)

    def _finish(self, tokens: Tensor, gathered: Tensor) -> Tensor:
        """Return the tokens after both residuals: (b, n_tokens, n_frames, width)."""
        tokens = tokens + self.to_out(gathered)
        gate, hidden = self.to_hidden(self.norm_hidden(tokens)).chunk(2, dim=-1)
        return tokens + self.from_hidden(nn.functional.silu(gate) * hidden)

    def forward(
        self,
        tokens: Tensor,
        times: Tensor,
        is_seen: Optional[Tensor] = None,  # noqa: UP045
    ) -> Tensor:
        """Update all frames.

        Parameters
        ----------
        tokens : Tensor
            (b, n_tokens, n_frames, width)
        times : Tensor
            (b, n_frames)
        is_seen : Tensor of bool, optional
            (b, 1, n_frames, n_frames), true where the frame of a row sees that of a column; unless given, each sees
            itself and those before

        Returns
        -------
        Tensor
            (b, n_tokens, n_frames, width)
        """
        queries, keys, values = self.to_queries_keys_values(self.norm(tokens)).chunk(3, dim=-1)
        queries, keys = self.angles(self._heads(queries), times), self.angles(self._heads(keys), times)
        return self._finish(tokens, self._attend(queries, keys, self._heads(values), is_seen))

    def step(
        self, tokens: Tensor, keys: Tensor, values: Tensor, ages: Tensor, slot: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
        """Update one frame from the memory of those before, of which it becomes part.

        Parameters
        ----------
        tokens : Tensor
            (b, n_tokens, width)
        keys, values : Tensor
            (b, n_tokens, n_context, width), keys not turned; not changed
        ages : Tensor
            (b, n_context) times since each slot's frame; 0 for this frame's slot, negative for empty slots
        slot : Tensor of int64
            (b,) where this frame goes

        Returns
        -------
        tokens : Tensor
            (b, n_tokens, width)
        keys, values : Tensor
            The memory with this frame.
        """
        query, key, value = self.to_queries_keys_values(self.norm(tokens)).unsqueeze(2).chunk(3, dim=-1)
        here = slot.view(-1, 1, 1, 1) == torch.arange(keys.shape[2], device=keys.device).view(1, 1, -1, 1)
        keys, values = torch.where(here, key, keys), torch.where(here, value, values)
        turned = self.angles(self._heads(keys), -ages)
        is_seen = (ages >= 0).unsqueeze(1).unsqueeze(1)  # (b, 1, 1, n_context)
        gathered = self._attend(self._heads(query), turned, self._heads(values), is_seen)
        return self._finish(tokens.unsqueeze(2), gathered).squeeze(2), keys, values
