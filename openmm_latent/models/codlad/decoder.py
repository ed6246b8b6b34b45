"""From three numbers a residue and a Cα trace to all heavy atoms, by way of internal coordinates.

`TraceDecoder` is the network, of any protein; `BoundDecoder` is that and one protein, and can be exported. What the
network says is an offset from ideal values (`TraceCoordinates.bounded`): lengths within a fifth, angles and fixed
torsions within 30 degrees. So bonds and hands are right whatever the latent.

Everything it sees of the trace is invariant to rotation and translation, and not to reflection: distances, and
directions in frames that three successive Cα give.

DISCREPANCY(CODLAD, decoder): the paper's convolutions see distances; ours see directions in frames of the trace, too,
and places in the sequence. Each residue reads out 14 slots (OXT is the 14th), those that it has not are dropped.
"""

from __future__ import annotations

from typing import Tuple  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor, nn

from openmm_latent.models.codlad.config import CODLADConfig
from openmm_latent.models.codlad.graphs import (
    N_DIRECTION_FEATURES,
    N_SEPARATION_FEATURES,
    N_TRACE_FEATURES,
    Protein,
    RadialBasis,
    direction_features,
    gather_residues,
    nearest_residues,
    separation_features,
    trace_features,
    trace_frames,
)
from openmm_latent.nn.residue_geometry import INTERNAL_SLOTS, UNKNOWN

#: Numbers a slot: length, angle, and cosine and sine of the torsion, which has no end where it would jump.
_N_NUMBERS = 4
#: The latent enters as it is and as sines and cosines of so many octaves, so that near latents can mean far torsions.
_N_OCTAVES = 3


class TraceConvolution(nn.Module):
    """Messages from neighbours, weighted by their distance, and a two-layer update."""

    def __init__(self, width: int, n_edge: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.from_here = nn.Linear(width, width)
        self.from_there = nn.Linear(width, width, bias=False)
        self.from_edge = nn.Linear(n_edge, width, bias=False)
        self.message = nn.Linear(width, width)
        self.update = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU())
        self.out = nn.Linear(2 * width, width)

    def forward(self, single: Tensor, edges: Tensor, weights: Tensor, neighbours: Tensor) -> Tensor:
        """Update residues.

        Parameters
        ----------
        single : Tensor
            (batch, n_residues, width)
        edges : Tensor
            (batch, n_residues, n_neighbours, n_edge)
        weights : Tensor
            (batch, n_residues, n_neighbours) their sum is at most 1
        neighbours : Tensor
            (batch, n_residues, n_neighbours) int64

        Returns
        -------
        Tensor
            (batch, n_residues, width)
        """
        normed = self.norm(single)
        hidden = gather_residues(self.from_there(normed), neighbours) + self.from_here(normed).unsqueeze(2)
        hidden = nn.functional.silu(hidden + self.from_edge(edges))
        single = single + self.message((hidden * weights.unsqueeze(-1)).sum(2))
        return single + self.out(self.update(single))


class TraceDecoder(nn.Module):
    """The network: latent, trace and sequence to offsets of internal coordinates.

    Parameters
    ----------
    config : CODLADConfig
    """

    def __init__(self, config: CODLADConfig):
        super().__init__()
        width = config.decoder_width
        self.n_neighbours = config.n_neighbours
        n_edge = config.n_radial + N_DIRECTION_FEATURES + N_SEPARATION_FEATURES
        n_latent = config.n_latent * (1 + 2 * _N_OCTAVES)
        self.radial = RadialBasis(config.n_radial, config.residue_cutoff)
        self.register_buffer("octaves", 2.0 ** torch.arange(_N_OCTAVES))
        self.embedding = nn.Embedding(UNKNOWN + 1, width)
        # each type of residue reads the latent by weights of its own: the same code means other torsions
        self.from_latent = nn.Parameter(torch.randn(UNKNOWN + 1, n_latent, width) / n_latent**0.5)
        self.latent_out = nn.Linear(width, width)
        self.from_trace = nn.Linear(N_TRACE_FEATURES, width)
        self.layers = nn.ModuleList(TraceConvolution(width, n_edge) for _ in range(config.n_decoder_layers))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU())
        # each type of residue has its own weights: its slots are other atoms
        self.weight = nn.Parameter(torch.zeros(UNKNOWN + 1, 2 * width, len(INTERNAL_SLOTS) * _N_NUMBERS))
        bias = torch.zeros(UNKNOWN + 1, len(INTERNAL_SLOTS), _N_NUMBERS)
        bias[:, :, 2] = 1.0  # a torsion of (1, 0) is the ideal one
        self.bias = nn.Parameter(bias.flatten(1))

    def forward(self, quantised: Tensor, trace: Tensor, types: Tensor, chains: Tensor, anchors: Tensor) -> Tensor:
        """Decode.

        Parameters
        ----------
        quantised : Tensor
            (batch, n_residues, n_latent)
        trace : Tensor
            (batch, n_residues, 3) [nm] Cα, anywhere
        types, chains : Tensor
            (n_residues,) int64
        anchors : Tensor
            (n_residues, 2) int64, see `Protein`

        Returns
        -------
        Tensor
            (batch, n_residues, 14, 3) numbers for `TraceCoordinates.bounded`
        """
        n_batch, n_residues = trace.shape[0], trace.shape[1]
        trace = trace - trace.mean(1, keepdim=True)
        neighbours, distances = nearest_residues(trace, self.n_neighbours)
        weights = self.radial.envelope(distances)
        weights = weights / (1.0 + weights.sum(2, keepdim=True))
        edges = torch.cat(
            [
                self.radial(distances),
                direction_features(trace, trace_frames(trace, anchors), neighbours),
                separation_features(chains, neighbours).to(trace.dtype),
            ],
            dim=-1,
        )
        phases = (quantised.unsqueeze(-1) * self.octaves).flatten(2)
        latent = torch.cat([quantised, torch.sin(phases), torch.cos(phases)], dim=-1)
        single = self.embedding(types) + self.from_trace(trace_features(trace, anchors))
        read = torch.einsum("bni,nio->bno", latent, self.from_latent[types])
        single = single + self.latent_out(nn.functional.silu(read + single))
        for layer in self.layers:
            single = layer(single, edges, weights, neighbours)
        numbers = torch.einsum("bni,nio->bno", self.head(single), self.weight[types]) + self.bias[types]
        numbers = numbers.view(n_batch, n_residues, -1, 4)
        torsion = torch.atan2(numbers[..., 3], numbers[..., 2])
        return torch.stack([numbers[..., 0], numbers[..., 1], torsion], dim=-1)


class BoundDecoder(nn.Module):
    """The network and one protein: what a bundle decodes with; TorchScript compiles it.

    Parameters
    ----------
    network : TraceDecoder
    protein : Protein
    """

    def __init__(self, network: TraceDecoder, protein: Protein):
        super().__init__()
        self.network, self.protein = network, protein

    def forward(self, quantised: Tensor, trace: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Build all heavy atoms.

        Parameters
        ----------
        quantised : Tensor
            (batch, n_residues, n_latent)
        trace : Tensor
            (batch, n_residues, 3) [nm]

        Returns
        -------
        internal : Tensor
            (batch, n_residues, 14, 3) distance [nm], angle, torsion [rad]
        positions : Tensor
            (batch, n_residues, 15, 3) [nm]; Cα are those of the trace, slots without atom lie on it
        """
        protein = self.protein
        raw = self.network(quantised, trace, protein.types, protein.chains, protein.anchors)
        internal = protein.coordinates.bounded(raw)
        return internal, protein.coordinates.to_cartesian(trace, internal)
