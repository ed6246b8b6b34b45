"""GLDP's encoder, poolings and decoders, on structures already superposed on the reference.

| LD-FPG | variable |
|---|---|
| h | `encoder_width` |
| Z_ref, embedding of the reference structure | `reference_embedding` (n_atoms, h) |
| pooled latent | `latent` (batch, n_latent), standardised |
"""

from __future__ import annotations

from itertools import pairwise
from typing import List  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from openmm_latent.models.gldp.config import GLDPConfig
from openmm_latent.nn.chebyshev import (
    LARGEST_DENSE,
    ChebyshevBasis,
    ChebyshevConvolution,
    nearest_neighbour_graph,
    padded_rows,
    scaled_laplacian,
)

BACKBONE = frozenset({"N", "CA", "C", "O", "OXT"})


class EncoderLayer(nn.Module):
    """Chebyshev convolution, batch norm, activation."""

    def __init__(self, basis: ChebyshevBasis, n_in: int, n_out: int, activation: nn.Module):
        super().__init__()
        self.convolution = ChebyshevConvolution(basis, n_in, n_out)
        self.norm = nn.BatchNorm1d(n_out)
        self.activation = activation

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, n_atoms, n_in) to (batch, n_atoms, n_out)."""
        mixed = self.convolution(features)
        return self.activation(self.norm(mixed.transpose(1, 2)).transpose(1, 2))


class Encoder(nn.Module):
    """Four Chebyshev graph convolutions and an L2 norm an atom: (batch, n_atoms, 3) -> (batch, n_atoms, h).

    DISCREPANCY(LD-FPG, encoder): positions enter in units of the reference's radius of gyration, and the
    activations are smooth unless the configuration says "relu", so that restraints on the latent have smooth forces.
    """

    def __init__(self, reference: np.ndarray, config: GLDPConfig):
        super().__init__()
        graph = nearest_neighbour_graph(reference, config.n_neighbours)
        basis = ChebyshevBasis(scaled_laplacian(graph), config.n_terms)
        width = config.encoder_width
        published: List[nn.Module] = [nn.LeakyReLU(), nn.LeakyReLU(), nn.ReLU()]  # noqa: UP006
        activations = published if config.activation == "relu" else [nn.SiLU(), nn.SiLU(), nn.SiLU()]
        sizes = (3, width, width)
        self.layers = nn.Sequential(
            *[EncoderLayer(basis, n_in, width, act) for n_in, act in zip(sizes, activations, strict=True)]
        )
        self.last = ChebyshevConvolution(basis, width, width)
        self.radius = float(np.sqrt((reference**2).sum(axis=1).mean()))

    def forward(self, superposed: Tensor) -> Tensor:
        """Embed each atom, unit length."""
        features = self.last(self.layers(superposed / self.radius))
        return features / torch.sqrt((features * features).sum(dim=2, keepdim=True) + 1e-12)


def adaptive_windows(n_items: int, n_windows: int) -> np.ndarray:
    """Return adaptive average pooling as a matrix, (n_windows, n_items): rows sum to 1."""
    matrix = np.zeros((n_windows, n_items))
    for window in range(n_windows):
        start, end = window * n_items // n_windows, -(-(window + 1) * n_items // n_windows)
        matrix[window, start:end] = 1.0 / (end - start)
    return matrix


def _rows(wanted: int, n_atoms: int, config: GLDPConfig) -> int:
    return max(1, min(wanted, int(np.ceil(config.rows_per_atom * n_atoms)), n_atoms))


class Pooling(nn.Module):
    """Average embeddings over windows of atoms and of features: (batch, n_atoms, h) -> (batch, n_latent).

    Every pooling of LD-FPG is rows @ embedding @ columns with constant matrices; they differ in the rows only. Residues
    grow with the atoms: theirs are kept as lists of members where a dense matrix would grow with the atoms' square.

    Attributes
    ----------
    n_latent : int
    n_first : int
        Leading latent numbers that belong to the backbone (sequential), else all.
    is_first : ndarray of bool
        (n_atoms,) atoms of the first decoder: the backbone (sequential), else all.
    row_of_atom : ndarray of int
        (n_atoms,) row of the atom's residue (residue pooling), else zeros.
    """

    def __init__(self, atoms: list, config: GLDPConfig):
        super().__init__()
        n_atoms = len(atoms)
        self.is_first = np.ones(n_atoms, dtype=bool)
        self.row_of_atom = np.zeros(n_atoms, dtype=np.int64)
        self.uses_lists = config.pooling == "residue" and n_atoms > LARGEST_DENSE
        if config.pooling == "blind":
            rows = adaptive_windows(n_atoms, _rows(config.pool_rows, n_atoms, config))
        elif config.pooling == "residue":
            residues = {key: i for i, key in enumerate(dict.fromkeys((a.chain, a.residue_index) for a in atoms))}
            self.row_of_atom = np.array([residues[(a.chain, a.residue_index)] for a in atoms])
            share = 1.0 / np.bincount(self.row_of_atom)
            entries = share[self.row_of_atom], (self.row_of_atom, np.arange(n_atoms))
            rows = sparse.csr_array(entries, shape=(len(residues), n_atoms))
        else:
            rows = self._sequential_rows(atoms, config)
        members, shares = padded_rows(rows) if self.uses_lists else (np.zeros((0, 0), dtype=np.int64), np.zeros((0, 0)))
        self.n_latent = rows.shape[0] * config.pool_columns
        self.n_columns = config.pool_columns
        self.n_first = self.n_latent if self.is_first.all() else self.n_backbone_rows * config.pool_columns
        columns = adaptive_windows(config.encoder_width, config.pool_columns).T
        if sparse.issparse(rows):
            rows = np.zeros((0, n_atoms)) if self.uses_lists else rows.toarray()
        self.register_buffer("rows", torch.tensor(rows, dtype=torch.float32))
        self.register_buffer("members", torch.tensor(members))
        self.register_buffer("shares", torch.tensor(shares, dtype=torch.float32))
        self.register_buffer("columns", torch.tensor(columns, dtype=torch.float32))

    def _sequential_rows(self, atoms: list, config: GLDPConfig) -> np.ndarray:
        is_backbone = np.array([atom.name in BACKBONE for atom in atoms])
        if is_backbone.all() or not is_backbone.any():
            is_backbone[:] = True
        self.is_first = is_backbone
        blocks = []
        for chosen, wanted in ((is_backbone, config.pool_rows), (~is_backbone, config.pool_rows_side_chain)):
            if not chosen.any():
                continue
            n_chosen = int(chosen.sum())
            block = np.zeros((_rows(wanted, n_chosen, config), len(atoms)))
            block[:, chosen] = adaptive_windows(n_chosen, len(block))
            blocks.append(block)
        self.n_backbone_rows = len(blocks[0])
        return np.concatenate(blocks)

    def forward(self, embedding: Tensor) -> Tensor:
        """Pool; latent numbers come window of atoms by window of atoms."""
        if self.uses_lists:
            gathered = embedding[:, self.members]  # (batch, n_rows, longest residue, h)
            pooled = torch.einsum("brmf,rm->brf", gathered, self.shares)
        else:
            pooled = torch.matmul(self.rows, embedding)
        return torch.matmul(pooled, self.columns).flatten(1)


class _FoldedLayer(nn.Module):
    """A convolution with what follows it, batch norm in evaluation mode, as two products: for one frame."""

    def __init__(self, convolution: ChebyshevConvolution, scale: Tensor, shift: Tensor):
        super().__init__()
        theta, polynomials = convolution.factors()
        n_terms, n_out = convolution.basis.n_terms, convolution.linear.out_features
        self.n_out = n_out
        self.register_buffer("theta", theta * scale.repeat(n_terms))
        self.register_buffer("polynomials", polynomials)
        self.register_buffer("bias", convolution.linear.bias.detach() * scale + shift)

    def mirror(self) -> None:
        """Give the opposite of each feature, too: n_out becomes twice as large."""
        by_term = self.theta.view(len(self.theta), -1, self.n_out)
        self.theta = torch.cat([by_term, -by_term], dim=2).flatten(1)
        self.bias = torch.cat([self.bias, -self.bias])
        self.n_out *= 2

    def forward(self, features: Tensor) -> Tensor:
        """Map (n_atoms, n_in) to (n_atoms, n_out)."""
        return torch.addmm(self.bias, self.polynomials, torch.mm(features, self.theta).view(-1, self.n_out))


class SingleFrameEncoder(nn.Module):
    """Encoder, pooling and standardisation of one frame, with all constants multiplied together beforehand.

    The exact mode asks for the slow coordinates' gradient at every step of a drive, one frame at a time; what that
    costs is the number of operations, not their size.

    Parameters
    ----------
    encoder : Encoder
        Trained, on a graph small enough for dense products.
    pooling : Pooling
    latent_mean, latent_scale : Tensor, (n_latent,)
    """

    def __init__(self, encoder: Encoder, pooling: Pooling, latent_mean: Tensor, latent_scale: Tensor):
        super().__init__()
        layers: List[nn.Module] = []  # noqa: UP006
        for layer in encoder.layers:
            norm = layer.norm
            scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
            layers += [
                _FoldedLayer(layer.convolution, scale, norm.bias.detach() - scale * norm.running_mean),
                layer.activation,
            ]
        width = encoder.last.linear.out_features
        # Each feature and its opposite: their mean is zero, so that one layer norm makes them a unit vector.
        self.width = 2 * width
        layers.append(_FoldedLayer(encoder.last, torch.ones(width), torch.zeros(width)))
        layers[-1].mirror()
        layers[0].theta /= encoder.radius
        self.layers = nn.Sequential(*layers)
        self.epsilon = 1e-12 / width
        columns = pooling.columns / (latent_scale.view(len(pooling.rows), 1, -1) * width**0.5)  # (n_rows, h, n_columns)
        columns = 0.5 * torch.cat([columns, -columns], dim=1)
        # (n_atoms, 2 h, n_rows, n_columns) -> (n_atoms * 2 h, n_latent)
        pooled = torch.einsum("ra,rhc->ahrc", pooling.rows, columns).reshape(-1, len(latent_mean))
        self.register_buffer("pooled", pooled)
        self.register_buffer("offset", -latent_mean / latent_scale)

    def forward(self, superposed: Tensor) -> Tensor:
        """Map (1, n_atoms, 3) [nm] to the standardised latent, (1, n_latent)."""
        features = self.layers(superposed.view(-1, 3))
        unit = nn.functional.layer_norm(features, [self.width], None, None, self.epsilon)
        return torch.addmm(self.offset, unit.view(1, -1), self.pooled)


class ChunkedDecoder(nn.Module):
    """A decoder whose atoms do not see one another: large molecules are decoded part by part, in bounded memory."""

    def __init__(self) -> None:
        super().__init__()
        self.atoms_at_once = 4096  # of all frames of a batch; two layers' features stay in a core's cache

    def forward(self, context: Tensor, reference_embedding: Tensor) -> Tensor:
        """Map (batch, n_atoms or 1, n_context) and (n_atoms, h) to (batch, n_atoms, 3)."""
        n_atoms, n_chunk = reference_embedding.shape[0], max(1, self.atoms_at_once // context.shape[0])
        if self.training or n_atoms <= n_chunk:  # batch norm learns from all atoms at once
            return self.decode_atoms(context, reference_embedding)
        parts: List[Tensor] = []  # noqa: UP006
        for first in range(0, n_atoms, n_chunk):
            one_context = context if context.shape[1] == 1 else context[:, first : first + n_chunk]
            parts.append(self.decode_atoms(one_context, reference_embedding[first : first + n_chunk]))
        return torch.cat(parts, dim=1)


class PerAtomDecoder(ChunkedDecoder):
    """The published decoder: one network for all atoms, on [reference embedding of the atom; its latent].

    The first linear layer is written as a sum of two, so that the atom's part and the latent's part are each
    computed once.
    """

    def __init__(self, n_context: int, n_layers: int, config: GLDPConfig):
        super().__init__()
        width = config.decoder_width
        make_norm = nn.BatchNorm1d if config.uses_decoder_batch_norm else nn.Identity
        make_activation = nn.SiLU if config.activation == "silu" else nn.ReLU
        self.from_context = nn.Linear(n_context, width)
        self.from_atom = nn.Linear(config.encoder_width, width, bias=False)
        layers: List[nn.Module] = [make_norm(width), make_activation()]  # noqa: UP006
        for _ in range(n_layers - 2):
            layers += [nn.Linear(width, width), make_norm(width), make_activation()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 3))

    def decode_atoms(self, context: Tensor, reference_embedding: Tensor) -> Tensor:
        """Do as `forward` for some of the atoms."""
        summed = self.from_context(context) + self.from_atom(reference_embedding)  # (batch, n_atoms, width)
        n_batch, n_atoms, width = summed.shape
        return self.layers(summed.reshape(n_batch * n_atoms, width)).reshape(n_batch, n_atoms, 3)


class ModulatedDecoder(ChunkedDecoder):
    """A trunk on the latent, shared by all atoms, whose features each atom's reference embedding scales.

    DISCREPANCY(LD-FPG, decoder): the published decoder runs all its layers once an atom. Here the deep part sees
    the latent alone and runs once a frame; an atom takes two small layers, without batch norm. On alanine dipeptide,
    at equal cost of training, it reconstructs a little better.
    """

    def __init__(self, n_context: int, n_layers: int, config: GLDPConfig):
        super().__init__()
        width = config.decoder_width
        sizes = [n_context] + [2 * width] * n_layers
        trunk: List[nn.Module] = []  # noqa: UP006
        for n_in, n_out in pairwise(sizes):
            trunk += [nn.Linear(n_in, n_out), nn.SiLU()]
        self.trunk = nn.Sequential(*trunk)
        self.from_atom = nn.Sequential(nn.Linear(config.encoder_width, width), nn.SiLU(), nn.Linear(width, width))
        self.scale = nn.Linear(2 * width, width)
        self.shift = nn.Linear(2 * width, width)
        self.mix = nn.Linear(width, width)
        self.out = nn.Linear(width, 3)

    def decode_atoms(self, context: Tensor, reference_embedding: Tensor) -> Tensor:
        """Do as `forward` for some of the atoms; the context is the same for all, (batch, 1, n_context)."""
        shared = self.trunk(context)
        features = self.scale(shared) * self.from_atom(reference_embedding) + self.shift(shared)
        features = features + nn.functional.silu(self.mix(features))
        return self.out(features)


class Decoder(nn.Module):
    """Standardised latent -> structure in the reference's frame, for every pooling.

    blind: every atom sees the whole latent. residue: as blind (modulated), or the latent of its own residue alone
    (per atom, as published). sequential: the backbone is decoded from its latent; side chains from the whole latent
    and the decoded backbone.

    DISCREPANCY(LD-FPG, decoder): decoders give displacements from the mean training structure, in units of the
    root mean square displacement, so that an untrained one already gives a molecule.
    """

    __constants__ = ("is_sequential",)

    def __init__(self, pooling: Pooling, config: GLDPConfig):
        super().__init__()
        make = PerAtomDecoder if config.decoder == "per_atom" else ModulatedDecoder
        self.sees_own_residue = config.pooling == "residue" and config.decoder == "per_atom"
        self.is_sequential = not bool(pooling.is_first.all())
        self.n_first, self.n_columns = pooling.n_first, pooling.n_columns
        first, second = np.flatnonzero(pooling.is_first), np.flatnonzero(~pooling.is_first)
        self.register_buffer("first_atoms", torch.tensor(first))
        self.register_buffer("second_atoms", torch.tensor(second))
        self.register_buffer("row_of_atom", torch.tensor(pooling.row_of_atom))
        # atom -> its place among [first atoms, second atoms]
        self.register_buffer("order", torch.tensor(np.argsort(np.concatenate([first, second]))))
        n_first_layers = config.decoder_layers_backbone if self.is_sequential else config.decoder_layers
        n_context = self.n_columns if self.sees_own_residue else self.n_first
        self.first = make(n_context, n_first_layers, config)
        if self.is_sequential:
            self.second = make(pooling.n_latent + 3 * len(first), config.decoder_layers, config)

    def forward(self, latent: Tensor, reference_embedding: Tensor) -> Tensor:
        """Map (batch, n_latent) and (n_atoms, h) to (batch, n_atoms, 3)."""
        if self.sees_own_residue:
            context = latent.reshape(latent.shape[0], -1, self.n_columns)[:, self.row_of_atom]
        else:
            context = latent[:, : self.n_first].unsqueeze(1)
        placed = self.first(context, reference_embedding[self.first_atoms])
        if self.is_sequential:
            context = torch.cat([latent, placed.flatten(1)], dim=1).unsqueeze(1)
            rest = self.second(context, reference_embedding[self.second_atoms])
            placed = torch.cat([placed, rest], dim=1)[:, self.order]
        return placed
