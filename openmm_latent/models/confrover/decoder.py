"""The decoder: clean frames and torsions from noisy frames, the diffusion time, and what the context says.

| symbol | variable |
|---|---|
| T_i = (R_i, t_i) | `rotations`, `ca` |
| s_i, z_ij | `single`, `pair` |

Source: ConfRover, section 3.4 and table 6; Yim et al., arXiv 2302.02277, for the blocks.
DISCREPANCY(ConfRover, table 6): attention here gathers whole features of pairs, not a quarter of them.
"""

from __future__ import annotations

from typing import Tuple  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor, nn

from openmm_latent.diffusion.rotations import RotationDiffusion
from openmm_latent.diffusion.translations import TranslationDiffusion
from openmm_latent.models.confrover.config import ConfRoverConfig
from openmm_latent.models.confrover.encoder import waves
from openmm_latent.models.confrover.geometry import PairGeometry
from openmm_latent.nn.invariant_point_attention import InvariantPointAttention

_TIME_WIDTH = 32


class SequenceTransformerLayer(nn.Module):
    """Attention among residues and a network, each a residual after which comes a norm."""

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.to_queries_keys_values = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.transition = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.transition_norm = nn.LayerNorm(width)

    def forward(self, single: Tensor) -> Tensor:
        """Update (b, n, width)."""
        n_batch, n, width = single.shape
        parts = self.to_queries_keys_values(single).view(n_batch, n, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        gathered = nn.functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        single = self.norm(single + self.to_out(gathered.transpose(1, 2).reshape(n_batch, n, width)))
        return self.transition_norm(single + self.transition(single))


class PairTransition(nn.Module):
    """Update features of pairs from those of their residues: a residual network and a norm."""

    def __init__(self, n_single: int, n_pair: int):
        super().__init__()
        self.narrow = nn.Linear(n_single, n_single // 2)
        hidden = n_pair + 2 * (n_single // 2)
        self.network = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.to_out = nn.Linear(hidden, n_pair)
        self.norm = nn.LayerNorm(n_pair)

    def forward(self, single: Tensor, pair: Tensor) -> Tensor:
        """Update (b, n, n, n_pair) by (b, n, n_single)."""
        narrow, n = self.narrow(single), single.shape[1]
        first = narrow.unsqueeze(2).expand(-1, -1, n, -1)
        both = torch.cat([pair, first, first.transpose(1, 2)], dim=-1)
        return self.norm(self.to_out(self.network(both) + both))


def turned_by(rotations: Tensor, vectors: Tensor) -> Tensor:
    """Turn frames about their own axes by the quaternions (1, v): (..., 3, 3), (..., 3) -> (..., 3, 3).

    Source: Jumper et al., Nature 596, 583 (2021), supplement, algorithm 23.
    """
    x, y, z = (vectors / torch.sqrt(1.0 + vectors.square().sum(-1, keepdim=True))).unbind(-1)
    w = torch.rsqrt(1.0 + vectors.square().sum(-1))
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.matmul(rotations, torch.stack(rows, dim=-2))


class DecoderBlock(nn.Module):
    """Invariant point attention, a transformer, a transition and an update of frames: the last block."""

    def __init__(self, config: ConfRoverConfig):
        super().__init__()
        width = config.decoder_width
        self.attention = InvariantPointAttention(
            width,
            config.n_decoder_heads,
            config.n_scalar,
            config.n_query_points,
            config.n_value_points,
            config.decoder_pair_width,
        )
        self.attention_norm = nn.LayerNorm(width)
        self.has_skip = config.skip_width > 0
        self.skip = nn.Linear(width, config.skip_width) if self.has_skip else nn.Identity()
        inner = width + config.skip_width
        n_layers, n_heads = config.n_transformer_layers, config.n_transformer_heads
        self.transformer = nn.Sequential(*(SequenceTransformerLayer(inner, n_heads) for _ in range(n_layers)))
        self.from_transformer = nn.Linear(inner, width)
        self.transition = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        )
        self.transition_norm = nn.LayerNorm(width)
        self.to_frames = nn.Linear(width, 6)
        for last in (self.from_transformer, self.transition[-1], self.to_frames):  # a block starts by doing little
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self, single: Tensor, start: Tensor, pair: Tensor, rotations: Tensor, ca: Tensor, mask: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
        """Return updated features of residues, the update of their frames, (b, n, 6), and features of pairs.

        `start`, (b, n, width), are the features before the first block.
        """
        single = self.attention_norm(single + self.attention(single, rotations, ca, mask, pair))
        shown = torch.cat([single, self.skip(start)], dim=-1) if self.has_skip else single
        single = single + self.from_transformer(self.transformer(shown))
        single = self.transition_norm(single + self.transition(single))
        return single, self.to_frames(single), self.updated_pairs(single, pair)

    def updated_pairs(self, single: Tensor, pair: Tensor) -> Tensor:
        """Return features of pairs as they are: nobody reads those of the last block."""
        return pair


class MiddleBlock(DecoderBlock):
    """A block that others follow, and that updates features of pairs, too."""

    def __init__(self, config: ConfRoverConfig):
        super().__init__(config)
        self.pair_transition = PairTransition(config.decoder_width, config.decoder_pair_width)

    def updated_pairs(self, single: Tensor, pair: Tensor) -> Tensor:
        """Update features of pairs."""
        return self.pair_transition(single, pair)


class TorsionHead(nn.Module):
    """Sines and cosines of seven torsions from a residue's features. Source: AlphaFold, algorithm 20."""

    def __init__(self, width: int):
        super().__init__()
        self.from_single, self.from_start = nn.Linear(width, width), nn.Linear(width, width)
        self.first = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.second = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.to_torsions = nn.Linear(width, 14)

    def forward(self, single: Tensor, start: Tensor) -> Tensor:
        """Return unit vectors (sine, cosine), (b, n, 7, 2)."""
        hidden = self.from_single(torch.relu(single)) + self.from_start(torch.relu(start))
        hidden = hidden + self.first(hidden)
        hidden = hidden + self.second(hidden)
        raw = self.to_torsions(torch.relu(hidden)).unflatten(-1, [7, 2])
        return raw / torch.sqrt(raw.square().sum(-1, keepdim=True) + 1e-8)


class Decoder(nn.Module):
    """Predict a clean frame from a noisy one. Turning or moving the noisy frame turns or moves the answer.

    Parameters
    ----------
    config : ConfRoverConfig

    DISCREPANCY(ConfRover, table 6): where the configuration has it, the noisy frame and all updates are scaled by the
    noise level, so that little is left to do at the last diffusion times; the published decoder scales nothing.
    Source: Karras et al., arXiv 2206.00364, table 1, here for noise that preserves variance.
    """

    def __init__(self, config: ConfRoverConfig):
        super().__init__()
        width, n_pair = config.decoder_width, config.decoder_pair_width
        self.uses_preconditioning, self.spread = config.uses_preconditioning, config.position_scale
        self.time_width = _TIME_WIDTH
        self.translations = TranslationDiffusion(config.beta_first, config.beta_last)
        self.noise_of_rotations = RotationDiffusion(config.sigma_first, config.sigma_last)
        self.geometry = PairGeometry(config)
        self.time_to_single, self.time_to_pair = nn.Linear(_TIME_WIDTH, width), nn.Linear(_TIME_WIDTH, n_pair)
        self.sequence_to_single, self.sequence_to_pair = nn.Linear(config.width, width), nn.Linear(config.width, n_pair)
        self.geometry_to_pair = nn.Linear(self.geometry.n_features, n_pair)
        self.single_network, self.pair_network = _embedder(width), _embedder(n_pair)
        self.context_to_single = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, width))
        self.context_to_pair = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, n_pair))
        n_middle = config.n_decoder_blocks - 1
        self.blocks = nn.ModuleList([*(MiddleBlock(config) for _ in range(n_middle)), DecoderBlock(config)])
        self.torsions = TorsionHead(width)

    def scales(self, diffusion_time: Tensor) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
        """Return what scales the noisy positions, updates of positions, and those of rotations: (b, 1, 1) each."""
        signal = self.translations.signal(diffusion_time).float().view(-1, 1, 1)
        if not self.uses_preconditioning:
            return torch.ones_like(signal), torch.ones_like(signal), torch.ones_like(signal)
        variance = signal * self.spread**2 + (1.0 - signal)
        turn = self.noise_of_rotations.noise_level(diffusion_time).float().view(-1, 1, 1)
        keep = signal.sqrt() * self.spread**2 / variance
        return keep, self.spread * torch.sqrt((1.0 - signal) / variance), turn / torch.sqrt(1.0 + turn.square())

    def forward(
        self,
        single: Tensor,
        pair: Tensor,
        sequence_single: Tensor,
        sequence_pair: Tensor,
        noisy_rotations: Tensor,
        noisy_ca: Tensor,
        diffusion_time: Tensor,
    ) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
        """Predict.

        Parameters
        ----------
        single, pair : Tensor
            (b, n, width), (b, n, n, width) what the context says of the frame
        sequence_single, sequence_pair : Tensor
            (n, width), (n, n, width) the protein
        noisy_rotations : Tensor
            (b, n, 3, 3), columns are the axes
        noisy_ca : Tensor
            (b, n, 3) [nm]
        diffusion_time : Tensor
            (b,) from 0 to 1

        Returns
        -------
        rotations : Tensor
            (b, n, 3, 3)
        ca : Tensor
            (b, n, 3) [nm], about the centre of `noisy_ca`
        torsions : Tensor
            (b, n, 7, 2) sines and cosines
        """
        time = waves(1000.0 * diffusion_time, self.time_width, 10_000.0)  # (b, time_width)
        keep, scale, turn_scale = self.scales(diffusion_time)
        centre = noisy_ca.mean(dim=1, keepdim=True)
        rotations, ca = noisy_rotations, noisy_ca - centre
        seen = self.geometry_to_pair(self.geometry(rotations, ca)) + self.sequence_to_pair(sequence_pair)
        features = self.pair_network(seen + self.time_to_pair(time).unsqueeze(1).unsqueeze(1))
        pair = features + self.context_to_pair(pair)
        start = self.sequence_to_single(sequence_single) + self.time_to_single(time).unsqueeze(1)
        start = self.single_network(start) + self.context_to_single(single)
        mask = torch.ones_like(ca[..., 0], dtype=torch.bool)
        single, ca = start, keep * ca
        for block in self.blocks:
            single, update, pair = block(single, start, pair, rotations, ca, mask)
            moved = torch.matmul(rotations, update[..., 3:].unsqueeze(-1)).squeeze(-1)
            rotations, ca = turned_by(rotations, turn_scale * update[..., :3]), ca + scale * moved
        return rotations, ca - ca.mean(dim=1, keepdim=True) + centre, self.torsions(single, start)


def _embedder(width: int) -> nn.Sequential:
    """Return the network after the sum of first linear maps."""
    return nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.LayerNorm(width))
