"""From a protein's sequence, and from each of its frames, to features of residues and pairs."""

from __future__ import annotations

import math
from typing import List, Optional, Tuple  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor, nn

from openmm_latent.models.confrover.config import ConfRoverConfig
from openmm_latent.models.confrover.geometry import PairGeometry
from openmm_latent.nn.pair_blocks import PairBlock
from openmm_latent.nn.residue_geometry import UNKNOWN

#: Separations along the chain are told one by one up to this.
_LARGEST_SEPARATION = 32
#: Pairs of residues that are worked on at a time: bounds the memory of long windows.
MOST_PAIRS = 2**18


def waves(values: Tensor, width: int, longest: float) -> Tensor:
    """Return sines and cosines of numbers at `width // 2` wavelengths from 2 pi to `longest` x 2 pi: (..., width)."""
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=values.device) / max(1, half - 1)
    angles = values.unsqueeze(-1) * torch.exp(-math.log(longest) * exponents)
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)


class SequenceEmbedding(nn.Module):
    """Features of a protein that no frame changes: the embedding provider.

    The learned one knows residue types, their places in the chain and whether two are of one chain; "features" adds
    what a folding network says of the sequence (`openmm_latent.models.confrover.features`).

    Parameters
    ----------
    config : ConfRoverConfig
    """

    def __init__(self, config: ConfRoverConfig):
        super().__init__()
        self.type_width = config.type_width
        self.types = nn.Embedding(UNKNOWN + 1, config.type_width)
        self.to_single = nn.Linear(2 * config.type_width + config.n_feature_single, config.width)
        self.separations = nn.Embedding(2 * _LARGEST_SEPARATION + 2, config.width)
        self.from_first = nn.Linear(config.type_width, config.width, bias=False)
        self.from_second = nn.Linear(config.type_width, config.width, bias=False)
        self.uses_features = config.embedding == "features"
        self.norm_single = nn.LayerNorm(max(1, config.n_feature_single))
        self.from_pair = (
            nn.Sequential(nn.LayerNorm(config.n_feature_pair), nn.Linear(config.n_feature_pair, config.width))
            if self.uses_features
            else nn.Identity()
        )

    def forward(
        self,
        types: Tensor,
        chains: Tensor,
        features: Optional[Tuple[Tensor, Tensor]] = None,  # noqa: UP006, UP045
    ) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Embed one protein.

        Parameters
        ----------
        types, chains : Tensor of int64
            (n,)
        features : tuple of Tensor, optional
            (n, n_feature_single) and (n, n, n_feature_pair), needed where the configuration has them

        Returns
        -------
        single : Tensor
            (n, width)
        pair : Tensor
            (n, n, width)
        """
        embedded, places = self.types(types), torch.arange(types.shape[0], device=types.device)
        parts = [embedded, waves(places.to(embedded.dtype), 2 * (self.type_width // 2 + 1), 1000.0)]
        parts[1] = parts[1][:, : self.type_width]
        apart = (places.unsqueeze(0) - places.unsqueeze(1)).clamp(-_LARGEST_SEPARATION, _LARGEST_SEPARATION)
        is_same = chains.unsqueeze(0) == chains.unsqueeze(1)
        others = torch.full_like(apart, 2 * _LARGEST_SEPARATION + 1)
        pair = self.separations(torch.where(is_same, apart + _LARGEST_SEPARATION, others))
        pair = pair + self.from_first(embedded).unsqueeze(1) + self.from_second(embedded).unsqueeze(0)
        if self.uses_features and features is not None:
            parts.append(self.norm_single(features[0]))
            pair = pair + self.from_pair(features[1])
        return self.to_single(torch.cat(parts, dim=-1)), pair


class FrameEncoder(nn.Module):
    """One frame's features of residues and pairs; a masked frame shows nothing but the protein.

    Parameters
    ----------
    config : ConfRoverConfig

    Source: ConfRover, appendix D.1; the triangular updates are those of AlphaFold's templates.
    """

    def __init__(self, config: ConfRoverConfig):
        super().__init__()
        self.geometry = PairGeometry(config)
        self.uses_torsions, self.most_pairs = config.uses_orientations, MOST_PAIRS
        width = config.encoder_width
        self.embed = nn.Linear(self.geometry.n_features, width)
        self.blocks = nn.ModuleList(
            PairBlock(
                width,
                config.n_encoder_heads,
                config.encoder_head_width,
                config.encoder_transition_factor,
                config.dropout,
            )
            for _ in range(config.n_encoder_blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.to_pair = nn.Linear(width + config.width, config.width)
        self.from_torsions = nn.Linear(28, config.width, bias=False) if self.uses_torsions else nn.Identity()

    def forward(
        self,
        sequence_single: Tensor,
        sequence_pair: Tensor,
        rotations: Tensor,
        ca: Tensor,
        torsions: Tensor,
        is_masked: Tensor,
    ) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Encode frames of one protein.

        Parameters
        ----------
        sequence_single, sequence_pair : Tensor
            (n, width), (n, n, width)
        rotations : Tensor
            (b, n, 3, 3), columns are the axes
        ca : Tensor
            (b, n, 3) [nm]
        torsions : Tensor
            (b, n, 7) [rad]
        is_masked : Tensor of bool
            (b,) frames of which nothing is shown; what they hold must be finite

        Returns
        -------
        single : Tensor
            (b, n, width)
        pair : Tensor
            (b, n, n, width)
        """
        shown = is_masked.logical_not().to(ca.dtype).view(-1, 1, 1)
        singles: List[Tensor] = []  # noqa: UP006
        pairs: List[Tensor] = []  # noqa: UP006
        n_at_once = max(1, self.most_pairs // (ca.shape[1] * ca.shape[1]))
        for first in range(0, ca.shape[0], n_at_once):
            last = min(ca.shape[0], first + n_at_once)
            visible = shown[first:last]
            seen = self.geometry(rotations[first:last], self.geometry.cb(rotations[first:last], ca[first:last]))
            pair = self.embed(seen * visible.unsqueeze(-1))
            whole = torch.ones_like(pair[..., 0])
            for block in self.blocks:
                pair = block(pair, whole)
            protein = sequence_pair.unsqueeze(0).expand(last - first, -1, -1, -1)
            pairs.append(self.to_pair(torch.cat([self.norm(pair), protein], dim=-1)))
            single = sequence_single.unsqueeze(0).expand(last - first, -1, -1)
            if self.uses_torsions:
                # twice as well: the last chi of rings and acids means the same half a turn on
                angles = torch.cat([torsions[first:last], 2.0 * torsions[first:last]], dim=-1)
                turned = torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)
                single = single + self.from_torsions(turned * visible)
            singles.append(single)
        return torch.cat(singles), torch.cat(pairs)
