"""What a network is shown of residues' frames: features of pairs that turning and moving all frames leaves as they are.

DISCREPANCY(ConfRover, appendix D.1): the paper shows distances of pseudo-Cβ alone, in bins, as `CONFIGS["paper"]` here;
mirror images are then alike, and small motions within a bin. `tiny` sees smooth bins and directions, too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openmm_latent.models.confrover.config import ConfRoverConfig

#: Cβ of an L residue in its frame [nm], glycine's as well. Source: AlphaFold's ideal alanine (Jumper et al. 2021).
_CB = (-0.0529, -0.0774, -0.1205)
#: Directions both ways and the relative rotation.
_N_ORIENTATION = 3 + 3 + 9


class PairGeometry(nn.Module):
    """Distances of pairs in bins and, where the configuration has it, directions in local frames.

    Parameters
    ----------
    config : ConfRoverConfig

    Attributes
    ----------
    n_features : int
    """

    def __init__(self, config: ConfRoverConfig):
        super().__init__()
        self.uses_smooth_bins, self.uses_orientations = config.uses_smooth_bins, config.uses_orientations
        self.n_features = config.n_distance_bins + (_N_ORIENTATION if config.uses_orientations else 0)
        bins = torch.linspace(config.least_distance, config.largest_distance, config.n_distance_bins)
        self.spacing = float((config.largest_distance - config.least_distance) / max(1, config.n_distance_bins - 1))
        self.register_buffer("bins", bins, persistent=False)
        self.register_buffer("local_cb", torch.tensor(_CB), persistent=False)

    def cb(self, rotations: Tensor, ca: Tensor) -> Tensor:
        """Return where Cβ would be: (..., n, 3, 3), (..., n, 3) [nm] -> (..., n, 3) [nm]."""
        return ca + torch.matmul(rotations, self.local_cb.to(ca.dtype))

    def forward(self, rotations: Tensor, points: Tensor) -> Tensor:
        """Return features of pairs.

        Parameters
        ----------
        rotations : Tensor
            (b, n, 3, 3), columns are the axes
        points : Tensor
            (b, n, 3) [nm], one a residue

        Returns
        -------
        Tensor
            (b, n, n, n_features)
        """
        away = points.unsqueeze(1) - points.unsqueeze(2)  # (b, i, j, 3), from i to j
        distances = torch.sqrt(away.square().sum(-1, keepdim=True) + 1e-8)
        if self.uses_smooth_bins:
            binned = torch.exp(-0.5 * ((distances - self.bins) / self.spacing).square())
        else:  # the last bin has no end; shorter than the first is in none
            above = (distances >= self.bins).to(points.dtype)
            binned = above - torch.cat([above[..., 1:], torch.zeros_like(above[..., :1])], dim=-1)
        if not self.uses_orientations:
            return binned
        units = away / distances
        from_first = torch.matmul(units, rotations)  # R_i^T u_ij, as rows
        relative = torch.matmul(rotations.transpose(-1, -2).unsqueeze(2), rotations.unsqueeze(1)).flatten(-2)
        return torch.cat([binned, from_first, from_first.transpose(1, 2), relative], dim=-1)
