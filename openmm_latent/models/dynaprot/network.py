"""The networks: invariant point attention on one structure, a marginal head and a pair head.

Two networks with a backbone of the same shape each: M reads from every residue the covariance of its Cα, J from every
pair how strongly the two move together. Both see shapes only: rotating or moving the structure changes nothing.

DISCREPANCY(DynaProt, table of parameters): what is published fits 955 K for M and 2.86 M for M and J together, each
with its own backbone and Evoformer's pair blocks with a transition of 4; so this counts 2.86 M as that of both.
DISCREPANCY(DynaProt, section 3.2): the `tiny` configuration has a transition after each attention, further invariant
inputs (`openmm_latent.models.dynaprot.surroundings`), and starts from an elastic network
(`openmm_latent.models.dynaprot.elastic`), since a dozen proteins teach too little to find all that.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from openmm_latent.data.backbone import N_RESIDUE_TYPES
from openmm_latent.errors import require
from openmm_latent.models.dynaprot.config import DynaProtConfig
from openmm_latent.models.dynaprot.elastic import elastic_covariance, elastic_marginals, springs
from openmm_latent.models.dynaprot.surroundings import (
    N_PAIR_FEATURES,
    N_RESIDUE_FEATURES,
    Structure,
    centred_structure,
    pair_features,
    residue_features,
)
from openmm_latent.nn.invariant_point_attention import InvariantPointAttention
from openmm_latent.nn.pair_blocks import PairBlock

#: Added to softplus on diagonals, so that a covariance never becomes singular [Å].
LEAST_DIAGONAL_ANGSTROM = 1e-3
#: The motion of all residues as one, which superposed frames have not: less than any true motion [Å^2].
COMMON_SHIFT = 1e-3
#: A spring differs from that of the elastic network by no more than exp of this.
LARGEST_LOG_FACTOR = 4.0
#: The one number that scales a whole prediction learns so many times as fast as weights.
SCALE_RATE = 20.0
ANGSTROM_PER_NM = 10.0


def _shift(scale: float) -> float:
    """Return what softplus makes `scale` of."""
    return math.log(math.expm1(scale))


def without_common_shift(coupling: Tensor, mask: Tensor) -> Tensor:
    """Take the motion of all residues as one out of couplings, but for `COMMON_SHIFT`; positive definite as before.

    Parameters
    ----------
    coupling : Tensor
        (b, n, n) [Å^2]; whatever padding holds
    mask : Tensor
        (b, n) of bool

    Returns
    -------
    Tensor
        (b, n, n) [Å^2] P C P + `COMMON_SHIFT` u u^T with u all ones of length 1, P = 1 - u u^T; zero for padding
    """
    weight = mask.to(coupling.dtype)
    n_residues = weight.sum(1).clamp(min=1.0)[:, None, None]
    kept = coupling * weight.unsqueeze(1) * weight.unsqueeze(2)
    by_row = kept.sum(2, keepdim=True) / n_residues
    overall = by_row.sum(1, keepdim=True) / n_residues
    centred = kept - by_row - by_row.transpose(1, 2) + overall + COMMON_SHIFT / n_residues
    centred = 0.5 * (centred + centred.transpose(1, 2))  # symmetric to the last bit
    return centred * weight.unsqueeze(1) * weight.unsqueeze(2)


def _start_at_zero(head: nn.Sequential) -> None:
    """Let a head say nothing at first, so that training starts from the elastic network."""
    nn.init.zeros_(head[-1].weight)
    nn.init.zeros_(head[-1].bias)


class BackboneLayer(nn.Module):
    """Invariant point attention and, where the configuration has it, a transition; norms after each residual."""

    def __init__(self, config: DynaProtConfig):
        super().__init__()
        width, hidden = config.width, config.transition_factor * config.width
        self.attention = InvariantPointAttention(
            width, config.n_heads, config.n_scalar, config.n_query_points, config.n_value_points
        )
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.uses_transition = hidden > 0
        if self.uses_transition:
            self.transition = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
            self.transition_norm = nn.LayerNorm(width)

    def forward(self, single: Tensor, rotations: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """Update (b, n, width)."""
        single = self.norm(single + self.dropout(self.attention(single, rotations, positions, mask)))
        if self.uses_transition:
            single = self.transition_norm(single + self.dropout(self.transition(single)))
        return single


class InvariantBackbone(nn.Module):
    """Residue types and frames to features of residues."""

    def __init__(self, config: DynaProtConfig):
        super().__init__()
        self.embedding = nn.Embedding(N_RESIDUE_TYPES, config.width)
        self.uses_surroundings = config.uses_surroundings
        if self.uses_surroundings:
            self.from_surroundings = nn.Linear(N_RESIDUE_FEATURES, config.width)
        self.layers = nn.ModuleList(BackboneLayer(config) for _ in range(config.n_layers))

    def forward(self, shape: Structure) -> Tensor:
        """Return features, (b, n, width)."""
        single = self.embedding(shape.residue_types)
        if self.uses_surroundings:
            single = single + self.from_surroundings(residue_features(shape))
        for layer in self.layers:
            single = layer(single, shape.rotations, shape.positions, shape.mask)
        return single


class MarginalNetwork(nn.Module):
    """M: the Cholesky factor of each residue's covariance in its local frame."""

    def __init__(self, config: DynaProtConfig):
        super().__init__()
        self.backbone = InvariantBackbone(config)
        self.head = nn.Sequential(nn.Linear(config.width, config.width), nn.ReLU(), nn.Linear(config.width, 6))
        self.uses_elastic_network = config.uses_elastic_network
        if self.uses_elastic_network:
            self.log_scale = nn.Parameter(torch.zeros(()))
            _start_at_zero(self.head)
        self._shift = _shift(1.0 if self.uses_elastic_network else config.initial_scale_angstrom)
        rows, columns = torch.tril_indices(3, 3, -1)
        self.register_buffer("below", 3 * rows + columns, persistent=False)

    def forward(self, shape: Structure) -> Tensor:
        """Return lower triangular factors, (b, n, 3, 3) [Å]; the identity for padding."""
        numbers = self.head(self.backbone(shape))
        diagonal = nn.functional.softplus(numbers[..., :3] + self._shift) + LEAST_DIAGONAL_ANGSTROM
        factor = torch.diag_embed(diagonal).flatten(-2)  # (b, n, 9)
        factor = factor.index_copy(-1, self.below, numbers[..., 3:]).unflatten(-1, (3, 3))
        if self.uses_elastic_network:
            start = elastic_marginals(shape).to(factor.dtype)
            factor = torch.exp(SCALE_RATE * self.log_scale) * torch.matmul(start, factor)
        return torch.where(shape.mask[..., None, None], factor, torch.eye(3, dtype=factor.dtype, device=factor.device))


class PairNetwork(nn.Module):
    """J: how pairs move together, as a symmetric positive definite matrix of one number a pair."""

    def __init__(self, config: DynaProtConfig):
        super().__init__()
        width, n_pair = config.width, config.pair_width
        self.backbone = InvariantBackbone(config)
        self.from_first = nn.Linear(width, n_pair)
        self.from_second = nn.Linear(width, n_pair, bias=False)
        self.uses_surroundings = config.uses_surroundings
        if self.uses_surroundings:
            self.from_surroundings = nn.Linear(N_PAIR_FEATURES, n_pair)
        self.blocks = nn.ModuleList(
            PairBlock(
                n_pair,
                config.n_triangle_heads,
                config.triangle_head_width,
                config.pair_transition_factor,
                config.dropout,
            )
            for _ in range(config.n_pair_blocks)
        )
        layers: list[nn.Module] = []
        for _ in range(config.n_pair_layers):
            layers += [nn.Linear(n_pair, n_pair), nn.ReLU()]
        self.head = nn.Sequential(*layers, nn.Linear(n_pair, 1))
        self.uses_elastic_network = config.uses_elastic_network
        if self.uses_elastic_network:
            self.log_scale = nn.Parameter(torch.zeros(()))
            _start_at_zero(self.head)
        self._shift = _shift(config.initial_scale_angstrom)

    def forward(self, shape: Structure) -> Tensor:
        """Return C less the motion of all residues as one, (b, n, n) [Å^2]; the identity for padding."""
        single, mask = self.backbone(shape), shape.mask
        # one linear map of two residues' features side by side: (b, n, n, n_pair)
        pair = self.from_first(single).unsqueeze(2) + self.from_second(single).unsqueeze(1)
        if self.uses_surroundings:
            pair = pair + self.from_surroundings(pair_features(shape))
        is_pair = mask.unsqueeze(1) & mask.unsqueeze(2)
        weights = is_pair.to(pair.dtype)
        for block in self.blocks:
            pair = block(pair, weights)
        numbers = self.head(pair).squeeze(-1) * weights  # (b, n, n)
        product = self._from_springs(numbers, shape) if self.uses_elastic_network else self._from_factor(numbers)
        coupling = without_common_shift(product, mask)
        return coupling + torch.diag_embed(mask.logical_not().to(coupling.dtype))

    def _from_factor(self, numbers: Tensor) -> Tensor:
        """Return L L^T of a lower triangular L, (b, n, n) [Å^2]."""
        diagonal = nn.functional.softplus(numbers.diagonal(dim1=-2, dim2=-1) + self._shift) + LEAST_DIAGONAL_ANGSTROM
        factor = numbers.tril(-1) + torch.diag_embed(diagonal)
        return torch.matmul(factor, factor.transpose(-1, -2))

    def _from_springs(self, numbers: Tensor, shape: Structure) -> Tensor:
        """Return a third of the traces of an elastic network's covariance, (b, n, n) [Å^2]."""
        bounded = LARGEST_LOG_FACTOR * torch.tanh((numbers + numbers.transpose(1, 2)) / LARGEST_LOG_FACTOR)
        factors = torch.exp(bounded.double() - 2.0 * SCALE_RATE * self.log_scale.double())
        covariance = elastic_covariance(shape, springs(shape) * factors)
        return (covariance.diagonal(dim1=-2, dim2=-1).sum(-1) / 3.0).to(numbers.dtype)


class DynaProt(nn.Module):
    """Marginal covariances and couplings of one structure's residues.

    Parameters
    ----------
    config : DynaProtConfig
    """

    def __init__(self, config: DynaProtConfig):
        super().__init__()
        self.config = config
        self.marginal = MarginalNetwork(config)
        self.pair = PairNetwork(config)

    def forward(
        self, residue_types: Tensor, rotations: Tensor, positions: Tensor, chains: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predict.

        Parameters
        ----------
        residue_types : Tensor
            (b, n) int64, as `openmm_latent.data.backbone` numbers them
        rotations : Tensor
            (b, n, 3, 3) local frames, columns are the axes
        positions : Tensor
            (b, n, 3) [nm] Cα
        chains : Tensor
            (b, n) int64
        mask : Tensor
            (b, n) of bool, False for padding

        Returns
        -------
        cholesky : Tensor
            (b, n, 3, 3) [nm] L, lower triangular: L L^T is the covariance of a Cα in its residue's local frame, so that
            of the common frame is R L L^T R^T. The identity x 0.1 nm for padding.
        coupling : Tensor
            (b, n, n) [nm^2] C, symmetric and positive definite: a third of the trace of the cross-covariance of two Cα
            in the common frame. Its diagonal is a mean square of its own; take correlations from it.
        """
        require(
            residue_types.ndim == 2 and rotations.shape == (*residue_types.shape, 3, 3),
            f"rotations must have shape (batch, n_residues, 3, 3) for residue_types {tuple(residue_types.shape)}, got "
            f"{tuple(rotations.shape)}; give one frame a residue, batch first",
        )
        shape = centred_structure(residue_types, rotations, positions, chains, mask)
        return self.marginal(shape) / ANGSTROM_PER_NM, self.pair(shape) / ANGSTROM_PER_NM**2
