"""The trajectory module: within a frame residues and pairs update one another, over frames each feature by itself.

DISCREPANCY(ConfRover, section 3.2): rotary angles grow with the frames' times, not with their numbers, and each token
is told how far ahead the frame lies that it predicts: else one frame does not tell which stride comes next.
DISCREPANCY(ConfRover, section 3.2): frames do not see a mask token before them, which knows the protein alone; so a
window needs none, wherever it begins in a trajectory.
"""

from __future__ import annotations

from typing import List, Optional, Tuple  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor, nn

from openmm_latent.models.confrover.config import ConfRoverConfig
from openmm_latent.models.confrover.encoder import MOST_PAIRS, waves
from openmm_latent.nn.pairformer import PairformerBlock
from openmm_latent.nn.rotary import TemporalLayer

_GAP_WIDTH = 16


def tokens_of(single: Tensor, pair: Tensor) -> Tensor:
    """Put residues and pairs in one row, frames inside: (b, f, n, c), (b, f, n, n, c) -> (b, n + n^2, f, c)."""
    return torch.cat([single, pair.flatten(2, 3)], dim=2).transpose(1, 2)


def parts_of(tokens: Tensor, n: int) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Undo `tokens_of`."""
    n_batch, _, n_frames, width = tokens.shape
    frames = tokens.transpose(1, 2)
    return frames[:, :, :n], frames[:, :, n:].reshape(n_batch, n_frames, n, n, width)


class TrajectoryBlock(nn.Module):
    """A Pairformer block on each frame, then layers over frames."""

    def __init__(self, config: ConfRoverConfig, n_layers: int):
        super().__init__()
        self.pairformer = PairformerBlock(
            config.width,
            config.width,
            config.n_single_heads,
            config.n_triangle_heads,
            config.triangle_head_width,
            config.transition_factor,
            config.dropout,
        )
        self.most_pairs = MOST_PAIRS
        self.layers = nn.ModuleList(
            TemporalLayer(config.width, config.temporal_hidden, config.n_temporal_heads, config.rotary_base)
            for _ in range(n_layers)
        )

    def within_frames(self, single: Tensor, pair: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Update frames one by one: (b, n, c), (b, n, n, c)."""
        mask = torch.ones_like(single[..., 0], dtype=torch.bool)
        n_at_once = max(1, self.most_pairs // (single.shape[1] * single.shape[1]))
        if single.shape[0] <= n_at_once:
            return self.pairformer(single, pair, mask)
        singles: List[Tensor] = []  # noqa: UP006
        pairs: List[Tensor] = []  # noqa: UP006
        for first in range(0, single.shape[0], n_at_once):
            last = min(single.shape[0], first + n_at_once)
            one, two = self.pairformer(single[first:last], pair[first:last], mask[first:last])
            singles.append(one)
            pairs.append(two)
        return torch.cat(singles), torch.cat(pairs)

    def forward(
        self,
        single: Tensor,
        pair: Tensor,
        times: Tensor,
        is_seen: Optional[Tensor],  # noqa: UP045
    ) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Update windows: (b, f, n, c), (b, f, n, n, c), (b, f), (b, 1, f, f) or none."""
        n_batch, n_frames, n, width = single.shape
        single, pair = self.within_frames(single.flatten(0, 1), pair.flatten(0, 1))
        tokens = tokens_of(single.view(n_batch, n_frames, n, width), pair.reshape(n_batch, n_frames, n, n, width))
        n_at_once = max(1, self.most_pairs // (n_batch * n_frames))
        done: List[Tensor] = []  # noqa: UP006
        for some in tokens.split(n_at_once, dim=1):
            for layer in self.layers:
                some = layer(some, times, is_seen)
            done.append(some)
        return parts_of(torch.cat(done, dim=1), n)

    def step(
        self, single: Tensor, pair: Tensor, keys: Tensor, values: Tensor, ages: Tensor, slot: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:  # noqa: UP006
        """Update one frame from the memory: (b, n, c), (b, n, n, c), (b, n_layers, n + n^2, n_context, c) twice."""
        single, pair = self.within_frames(single, pair)
        tokens = tokens_of(single.unsqueeze(1), pair.unsqueeze(1)).squeeze(2)
        new_keys: List[Tensor] = []  # noqa: UP006
        new_values: List[Tensor] = []  # noqa: UP006
        for i, layer in enumerate(self.layers):
            tokens, key, value = layer.step(tokens, keys[:, i], values[:, i], ages, slot)
            new_keys.append(key)
            new_values.append(value)
        single, pair = parts_of(tokens.unsqueeze(2), single.shape[1])
        return single.squeeze(1), pair.squeeze(1), torch.stack(new_keys, dim=1), torch.stack(new_values, dim=1)


class TrajectoryModule(nn.Module):
    """Features of each frame that know the frames before (the masked variant: all frames that are not masked).

    Parameters
    ----------
    config : ConfRoverConfig

    Source: ConfRover, section 3.2 and appendix D.1.
    """

    def __init__(self, config: ConfRoverConfig):
        super().__init__()
        self.is_causal, self.n_context, self.width = config.is_causal, config.n_context, config.width
        self.n_layers, self.layers_per_block = config.n_temporal_layers, config.layers_per_pairformer
        starts = range(0, self.n_layers, self.layers_per_block)
        self.blocks = nn.ModuleList(
            TrajectoryBlock(config, min(self.layers_per_block, self.n_layers - start)) for start in starts
        )
        self.gap_width = _GAP_WIDTH
        self.gap_to_single = nn.Linear(_GAP_WIDTH, config.width)
        self.gap_to_pair = nn.Linear(_GAP_WIDTH, config.width)

    def _with_gaps(self, single: Tensor, pair: Tensor, gaps: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Tell (b, n, c) and (b, n, n, c) how far ahead the frame lies that they predict, (b,); 0 is not told."""
        is_told = (gaps > 0).to(single.dtype).unsqueeze(-1)
        told = waves(8.0 * torch.log(gaps.clamp(min=1e-3)), self.gap_width, 30.0)
        to_single, to_pair = is_told * self.gap_to_single(told), is_told * self.gap_to_pair(told)
        return single + to_single.unsqueeze(1), pair + to_pair.unsqueeze(1).unsqueeze(1)

    def _seen(self, is_masked: Tensor) -> Optional[Tensor]:  # noqa: UP045
        """Return which frame sees which, (b, 1, f, f); none where each sees itself and all before."""
        n_frames = is_masked.shape[1]
        if self.is_causal and n_frames <= self.n_context and not bool(is_masked[:, : n_frames - 1].any()):
            return None
        order = torch.arange(n_frames, device=is_masked.device)
        back = order.unsqueeze(1) - order.unsqueeze(0)
        seen = is_masked.logical_not().unsqueeze(1).expand(-1, n_frames, -1)
        if self.is_causal:
            seen = seen & (back >= 0) & (back < self.n_context)
        return (seen | (back == 0)).unsqueeze(1)

    def forward(
        self, single: Tensor, pair: Tensor, frame_times: Tensor, gaps: Tensor, is_masked: Tensor
    ) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Update windows of frames.

        Parameters
        ----------
        single : Tensor
            (b, f, n, width)
        pair : Tensor
            (b, f, n, n, width)
        frame_times : Tensor
            (b, f) in the configuration's time unit; only differences count
        gaps : Tensor
            (b, f) time from each frame to the one it predicts; 0 where it predicts none, or itself
        is_masked : Tensor of bool
            (b, f) frames that no other sees

        Returns
        -------
        single, pair : Tensor
            Of the same shapes. The first frames do not change with later ones, unless this is the masked variant.
        """
        n_batch, n_frames = single.shape[0], single.shape[1]
        single, pair = self._with_gaps(single.flatten(0, 1), pair.flatten(0, 1), gaps.flatten())
        single, pair = single.unflatten(0, [n_batch, n_frames]), pair.unflatten(0, [n_batch, n_frames])
        is_seen = self._seen(is_masked)
        for block in self.blocks:
            single, pair = block(single, pair, frame_times, is_seen)
        return single, pair

    def step(
        self, single: Tensor, pair: Tensor, keys: Tensor, values: Tensor, length: Tensor, lag: float
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:  # noqa: UP006
        """Update one frame after others that lie one lag apart: what `forward` gives for the last of them.

        Parameters
        ----------
        single : Tensor
            (b, n, width)
        pair : Tensor
            (b, n, n, width)
        keys, values : Tensor
            (b, n_layers, n + n^2, n_context, width) the memory, a ring; not changed
        length : Tensor of int64
            (b,) frames that went before
        lag : float
            Between frames, and to the one that is predicted, in the configuration's time unit.

        Returns
        -------
        single, pair, keys, values : Tensor
        """
        slots = torch.arange(self.n_context, device=length.device)
        slot = torch.remainder(length, self.n_context)
        back = torch.remainder(slot.unsqueeze(1) - slots, self.n_context)  # frames ago
        ages = torch.where(back <= length.unsqueeze(1), back.to(single.dtype) * lag, -torch.ones_like(single[:, :1, 0]))
        single, pair = self._with_gaps(single, pair, torch.full_like(single[:, 0, 0], lag))
        new_keys: List[Tensor] = []  # noqa: UP006
        new_values: List[Tensor] = []  # noqa: UP006
        for i, block in enumerate(self.blocks):
            some = slice(i * self.layers_per_block, (i + 1) * self.layers_per_block)
            single, pair, key, value = block.step(single, pair, keys[:, some], values[:, some], ages, slot)
            new_keys.append(key)
            new_values.append(value)
        return single, pair, torch.cat(new_keys, dim=1), torch.cat(new_values, dim=1)
