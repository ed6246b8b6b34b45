"""The geometric encoder: from a frame to features of tokens and pairs that neither turn nor move with it.

| symbol | variable |
|---|---|
| x_t | `positions` [nm] |
| distance histogram, unit vectors | in `GeometricEncoder.pairs` |
| u^S, u^Z | what `forward` returns |

Source: ATMOS, A.1, equations 14 and 15.
"""

from __future__ import annotations

from typing import Tuple  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor, nn

from openmm_latent.models.atmos.chemistry import Chemistry, Context
from openmm_latent.models.atmos.config import ATMOSConfig
from openmm_latent.nn.atom_attention import WindowBiases, WindowBlock, mean_by_token

#: Centres of distance bins between tokens, and between atoms [nm].
TOKEN_DISTANCES, ATOM_DISTANCES = (0.2, 2.2), (0.1, 1.0)
#: Keeps directions finite where atoms coincide [nm].
_TINY = 1e-6
#: A length of order one for positions inside a residue [nm].
_RESIDUE = 0.25


class DistanceBins(nn.Module):
    """Soft bins of distances: Gaussians on an even grid, as wide as its steps.

    DISCREPANCY(ATMOS, equation 14): the paper's histogram has hard edges; soft ones lose nothing between them.
    """

    def __init__(self, n_bins: int, span: Tuple[float, float]):  # noqa: UP006
        super().__init__()
        self.register_buffer("centres", torch.linspace(span[0], span[1], n_bins), persistent=False)
        self.width = (span[1] - span[0]) / max(1, n_bins - 1)

    def forward(self, distances: Tensor) -> Tensor:
        """Return (..., n_bins) of (...) [nm]."""
        return torch.exp(-0.5 * ((distances.unsqueeze(-1) - self.centres) / self.width).square())


def unit(vectors: Tensor) -> Tensor:
    """Return directions, (..., 3), zero where a vector vanishes."""
    return vectors / lengths(vectors).unsqueeze(-1)


def lengths(vectors: Tensor, tiny: float = _TINY) -> Tensor:
    """Return (...) of (..., 3) [nm], never quite zero."""
    return torch.sqrt(vectors.square().sum(-1) + tiny**2)


def token_frames(positions: Tensor, frames: Tensor, has_frame: Tensor) -> Tensor:
    """Return each token's axes as columns, (b, n_tokens, 3, 3): right-handed, zero for a token without a frame.

    Source: Jumper et al., Nature 596, 583 (2021), supplement, algorithm 21.
    """
    corners = positions.index_select(1, frames.flatten()).view(positions.shape[0], -1, 3, 3)
    first = unit(corners[:, :, 2] - corners[:, :, 1])
    other = corners[:, :, 0] - corners[:, :, 1]
    second = unit(other - (other * first).sum(-1, keepdim=True) * first)
    axes = torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)
    return axes * has_frame.to(axes.dtype).view(1, -1, 1, 1)


class GeometricEncoder(nn.Module):
    """Encode frames.

    Parameters
    ----------
    config : ATMOSConfig
    """

    def __init__(self, config: ATMOSConfig):
        super().__init__()
        n_atom = config.n_atom
        self.per_residue = 1.0 / _RESIDUE
        self.token_bins = DistanceBins(config.n_distance_bins, TOKEN_DISTANCES)
        self.atom_bins = DistanceBins(config.n_atom_distance_bins, ATOM_DISTANCES)
        self.to_pair = nn.Linear(config.n_distance_bins + 6, config.n_pair)
        self.of_context = nn.Linear(config.n_single, config.n_single)
        self.of_local = nn.Linear(3, n_atom)
        self.of_distance = nn.Linear(config.n_atom_distance_bins, config.n_atom_pair)
        self.biases = WindowBiases(config.n_atom_pair, config.n_atom_blocks, config.n_atom_heads)
        self.blocks = nn.ModuleList(
            WindowBlock(n_atom, config.n_atom_heads, n_atom) for _ in range(config.n_atom_blocks)
        )
        self.to_single = nn.Linear(n_atom, config.n_single)

    def pairs(self, positions: Tensor, axes: Tensor, chemistry: Chemistry) -> Tensor:
        """Return features of pairs of tokens, (b, n, n, n_pair)."""
        centres = positions.index_select(1, chemistry.centres)
        away = centres.unsqueeze(1) - centres.unsqueeze(2)  # (b, n, n, 3), from the first to the second
        distances = lengths(away)
        directions = away / distances.unsqueeze(-1)
        seen = torch.matmul(directions, axes)  # R_i^T d_ij, as rows
        back = torch.einsum("bjac,bija->bijc", axes, -directions)
        return self.to_pair(torch.cat([self.token_bins(distances), seen, back], dim=-1))

    def tokens(self, positions: Tensor, axes: Tensor, chemistry: Chemistry, context: Context) -> Tensor:
        """Return features of tokens from their atoms and what is near these, (b, n, n_single)."""
        origins = positions.index_select(1, chemistry.frames[:, 1].index_select(0, chemistry.token))
        turned = axes.index_select(1, chemistry.token)  # (b, n_atoms, 3, 3)
        local = torch.matmul((positions - origins).unsqueeze(2), turned).squeeze(2) * self.per_residue
        given = context.atoms + self.of_local(local)
        distances = window_distances(positions, chemistry.queries, chemistry.keys)
        atom_pairs = context.atom_pairs + self.of_distance(self.atom_bins(distances))
        biases = self.biases(atom_pairs, chemistry.key_mask)
        atoms = given
        for number, block in enumerate(self.blocks):
            atoms = block(atoms, biases[number], given, chemistry.queries, chemistry.keys)
        gathered = mean_by_token(torch.relu(self.to_single(atoms)), chemistry.token, chemistry.types.shape[0])
        return gathered + self.of_context(context.single)

    def forward(self, positions: Tensor, chemistry: Chemistry, context: Context) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Encode.

        Parameters
        ----------
        positions : Tensor
            (b, n_atoms, 3) [nm], near the origin
        chemistry : Chemistry
        context : Context

        Returns
        -------
        single, pair : Tensor
            (b, n, n_single), (b, n, n, n_pair)
        """
        axes = token_frames(positions, chemistry.frames, chemistry.has_frame)
        return self.tokens(positions, axes, chemistry, context), self.pairs(positions, axes, chemistry)


def window_distances(positions: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """Return distances of atoms in windows: (b, n_atoms, 3), (w, q), (w, k) -> (b, w, q, k) [nm]."""
    n_batch = positions.shape[0]
    asking = positions.index_select(1, queries.flatten()).view(n_batch, queries.shape[0], queries.shape[1], 1, 3)
    seen = positions.index_select(1, keys.flatten()).view(n_batch, keys.shape[0], 1, keys.shape[1], 3)
    return lengths(asking - seen)
