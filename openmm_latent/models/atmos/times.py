"""Times and noise levels as features: sines and cosines of their logarithms."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

#: Longest and shortest wave, in units of the number told.
_LONGEST, _SHORTEST = 40.0, 0.5


class Waves(nn.Module):
    """Sines and cosines of a number of order one to ten, such as a logarithm.

    Parameters
    ----------
    n_features : int
        Even.
    """

    def __init__(self, n_features: int):
        super().__init__()
        n_waves = n_features // 2
        lengths = torch.logspace(math.log10(_SHORTEST), math.log10(_LONGEST), n_waves)
        self.register_buffer("rates", 2.0 * math.pi / lengths, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Return (b, n_features) of (b,)."""
        phases = values.unsqueeze(-1) * self.rates
        return torch.cat([torch.sin(phases), torch.cos(phases)], dim=-1)


class TimeEmbedding(nn.Module):
    """Embed a time [ps] by its logarithm.

    Parameters
    ----------
    n_features : int
        Even.
    """

    def __init__(self, n_features: int):
        super().__init__()
        self.waves = Waves(n_features)
        self.mix = nn.Sequential(nn.Linear(n_features, n_features), nn.SiLU(), nn.Linear(n_features, n_features))

    def forward(self, time: Tensor) -> Tensor:
        """Return (b, n_features) of positive times, (b,) [ps]."""
        return self.mix(self.waves(torch.log(time)))
