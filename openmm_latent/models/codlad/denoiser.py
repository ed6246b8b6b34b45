"""The network that takes noise out of latents, three numbers a residue, knowing the Cα trace and the sequence.

Messages pass between each residue and the nearest others on the trace. Encoder layers see trace and sequence alone, so
a sampler runs them once; decoder layers see the noisy latents, too, and are told the time by adaptive layer norms. What
the network sees of the trace is invariant to rotation and translation, and not to reflection.

Source: CODLAD, stage b; J. Dauparas et al., Science 378, 49 (2022), ProteinMPNN, for the layers; W. Peebles and S. Xie,
Scalable Diffusion Models with Transformers (2023), for the adaptive layer norm.
DISCREPANCY(CODLAD, denoiser): the paper lets latents and time into all layers, so far as it tells; here into the second
half, which halves the cost of a sample. The last linear layer of a message comes after the mean over neighbours, with
which it commutes.
"""

from __future__ import annotations

import math
from typing import List  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from openmm_latent.models.codlad.config import CODLADConfig
from openmm_latent.models.codlad.graphs import (
    N_DIRECTION_FEATURES,
    N_SEPARATION_FEATURES,
    N_TRACE_FEATURES,
    RadialBasis,
    direction_features,
    gather_residues,
    nearest_residues,
    separation_features,
    trace_features,
    trace_frames,
)
from openmm_latent.nn.residue_geometry import UNKNOWN

#: Radial functions of a distance, and how far they reach [nm]: nearest residues lie at most so far apart.
_N_RADIAL, _REACH = 16, 2.2
#: Frequencies of the time's embedding.
_N_FREQUENCIES = 32


class TraceLayer(nn.Module):
    """Update residues and edges from trace and sequence alone."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.from_here = nn.Linear(width, width)
        self.from_there = nn.Linear(width, width, bias=False)
        self.from_edge = nn.Linear(width, width, bias=False)
        self.hidden = nn.Linear(width, width)
        self.message, self.edge_update = nn.Linear(width, width), nn.Linear(width, width)
        self.edge_norm = nn.LayerNorm(width)
        self.transition = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )

    def forward(self, single: Tensor, edges: Tensor, neighbours: Tensor) -> List[Tensor]:  # noqa: UP006
        """Return residues (b, n, width) and edges (b, n, k, width) after one round of messages."""
        normed = self.norm(single)
        joined = self.from_here(normed).unsqueeze(2) + gather_residues(self.from_there(normed), neighbours)
        hidden = functional.silu(self.hidden(functional.silu(joined + self.from_edge(edges))))
        single = single + self.message(hidden.mean(dim=2))
        single = single + self.transition(single)
        return [single, self.edge_norm(edges + self.edge_update(hidden))]


class LatentLayer(nn.Module):
    """Update residues that hold noisy latents; shift, scale and gate of both halves come from the time."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.from_here = nn.Linear(width, width)
        self.from_there = nn.Linear(width, width, bias=False)
        self.from_edge = nn.Linear(width, width, bias=False)
        self.hidden, self.message = nn.Linear(width, width), nn.Linear(width, width)
        self.transition = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
        self.from_time = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.from_time.weight)  # so that the layer does nothing at first
        nn.init.zeros_(self.from_time.bias)

    def forward(self, single: Tensor, edge_terms: Tensor, neighbours: Tensor, time: Tensor) -> Tensor:
        """Return residues after one round of messages.

        Parameters
        ----------
        single : Tensor
            (b, n, width)
        edge_terms : Tensor
            (b, n, k, width), what `from_edge` makes of the edges
        neighbours : Tensor of int
            (b, n, k)
        time : Tensor
            (b, 1, width)
        """
        shift, scale, gate, shift_2, scale_2, gate_2 = self.from_time(time).chunk(6, dim=2)
        normed = self.norm(single) * (1.0 + scale) + shift
        joined = self.from_here(normed).unsqueeze(2) + gather_residues(self.from_there(normed), neighbours)
        hidden = functional.silu(self.hidden(functional.silu(joined + edge_terms)))
        single = single + gate * self.message(hidden.mean(dim=2))
        return single + gate_2 * self.transition(self.norm(single) * (1.0 + scale_2) + shift_2)


class Denoiser(nn.Module):
    """Say which noise is in standardised latents, and how uncertain a step back is.

    Parameters
    ----------
    config : CODLADConfig
        Its `denoiser` sizes.
    """

    def __init__(self, config: CODLADConfig):
        super().__init__()
        width = config.denoiser_width
        self.n_neighbours = config.n_denoiser_neighbours
        n_edge = _N_RADIAL + N_DIRECTION_FEATURES + N_SEPARATION_FEATURES
        self.radial = RadialBasis(_N_RADIAL, _REACH)
        self.embedding = nn.Embedding(UNKNOWN + 1, width)
        self.from_trace = nn.Linear(N_TRACE_FEATURES, width)
        self.from_edge = nn.Sequential(nn.Linear(n_edge, width), nn.LayerNorm(width))
        self.encoder = nn.ModuleList(TraceLayer(width) for _ in range(config.n_denoiser_encoder_layers))
        self.register_buffer("frequencies", torch.exp(torch.linspace(0.0, math.log(1000.0), _N_FREQUENCIES)))
        self.from_time = nn.Sequential(nn.Linear(2 * _N_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.from_latent = nn.Linear(config.n_latent, width)
        self.decoder = nn.ModuleList(LatentLayer(width) for _ in range(config.n_denoiser_decoder_layers))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * config.n_latent))
        nn.init.zeros_(self.head[1].weight)
        nn.init.zeros_(self.head[1].bias)

    def prepare(self, trace: Tensor, types: Tensor, chains: Tensor, anchors: Tensor) -> List[Tensor]:  # noqa: UP006
        """Return what all steps of a sample share.

        Parameters
        ----------
        trace : Tensor
            (b, n_residues, 3) [nm] Cα, anywhere
        types, chains : Tensor of int
            (n_residues,)
        anchors : Tensor of int
            (n_residues, 2), see `Protein`

        Returns
        -------
        list of Tensor
            residues (b, n_residues, width), neighbours (b, n_residues, k), and edges for each decoder layer
        """
        trace = trace - trace.mean(dim=1, keepdim=True)
        neighbours, distances = nearest_residues(trace, self.n_neighbours)
        seen = direction_features(trace, trace_frames(trace, anchors), neighbours)
        separations = separation_features(chains, neighbours).to(trace.dtype)
        edges = self.from_edge(torch.cat([self.radial(distances), seen, separations], dim=-1))
        single = self.embedding(types) + self.from_trace(trace_features(trace, anchors))
        for layer in self.encoder:
            updated = layer(single, edges, neighbours)
            single, edges = updated[0], updated[1]
        context = [single, neighbours]
        for layer in self.decoder:
            context.append(layer.from_edge(edges))
        return context

    def forward(self, noisy: Tensor, diffusion_time: Tensor, context: List[Tensor]) -> Tensor:  # noqa: UP006
        """Denoise.

        Parameters
        ----------
        noisy : Tensor
            (b, n_residues, n_latent)
        diffusion_time : Tensor
            (b,) from 0 to 1
        context : list of Tensor
            From `prepare`.

        Returns
        -------
        Tensor
            (b, n_residues, 2 n_latent) noise, and v from about -1 to 1, see `GaussianDiffusion.backward_step`
        """
        phases = diffusion_time.unsqueeze(1) * self.frequencies  # (b, n_frequencies)
        time = self.from_time(torch.cat([torch.sin(phases), torch.cos(phases)], dim=1)).unsqueeze(1)
        single, neighbours, edge_terms = context[0] + self.from_latent(noisy), context[1], context[2:]
        for i, layer in enumerate(self.decoder):
            single = layer(single, edge_terms[i], neighbours, functional.silu(time))
        return self.head(single)
