"""Which residues and atoms see one another, and how: a protein's residues as tensors, neighbours, frames on the trace.

A batch is frames of one protein, (batch, n_residues, ...): no padding, no mask. Several proteins in a training step are
several batches.
"""

from __future__ import annotations

from typing import Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from openmm_latent.nn.internal_coordinates import TraceCoordinates, trace_anchors
from openmm_latent.nn.residue_geometry import Residues

#: Separations along a chain up to this are told apart.
_MAX_SEPARATION = 4
#: Features of an edge's place in the sequence: separations -4 to 4, farther along the chain, another chain.
N_SEPARATION_FEATURES = 2 * _MAX_SEPARATION + 3
#: Features of an edge's directions: each residue as the other's frame sees it, and its frame there.
N_DIRECTION_FEATURES = 15
#: Features of a residue's place in the trace: cosine and sine of its angle and two torsions.
N_TRACE_FEATURES = 6


class Protein(nn.Module):
    """One protein's residues as tensors; the same object serves any number of frames.

    Parameters
    ----------
    residues : Residues
        Chains of at least three residues.

    Attributes
    ----------
    coordinates : TraceCoordinates
        Between heavy atoms, (batch, n_residues, 15, 3) [nm], and internal coordinates, (batch, n_residues, 14, 3).
    types : Tensor
        (n_residues,) int64 places in `RESIDUE_NAMES`
    chains : Tensor
        (n_residues,) int64
    anchors : Tensor
        (n_residues, 2) int64, the two residues that give a residue's frame on the trace: its neighbours along the chain
        or, at an end, the next two
    has_atom : Tensor
        (n_residues, 15) of bool

    Raises
    ------
    LatentError
        A chain has fewer than three residues.
    """

    def __init__(self, residues: Residues):
        super().__init__()
        self.coordinates = TraceCoordinates(residues)
        chains = np.unique(residues.chains, return_inverse=True)[1]
        self.register_buffer("types", torch.tensor(residues.types))
        self.register_buffer("chains", torch.tensor(chains.astype(np.int64)))
        self.register_buffer("anchors", torch.tensor(trace_anchors(residues)[0][:, 0]))
        self.register_buffer("has_atom", torch.tensor(residues.has_atom))


def nearest_residues(trace: Tensor, n_neighbours: int, n_block: int = 512) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Find each residue's nearest others, block by block.

    Parameters
    ----------
    trace : Tensor
        (batch, n_residues, 3) [nm]
    n_neighbours : int
        All others where there are fewer.
    n_block : int
        Distances from so many residues to all others are held at once.

    Returns
    -------
    neighbours : Tensor
        (batch, n_residues, n_neighbours) int64
    distances : Tensor
        (batch, n_residues, n_neighbours) [nm], differentiable

    DISCREPANCY(CODLAD, decoder's residue graph): a residue sees at most so many of those within the cutoff.
    """
    n_batch, n_residues = trace.shape[0], trace.shape[1]
    n_found = min(n_neighbours, n_residues - 1)
    fixed = trace.detach()
    found = torch.zeros(n_batch, 0, n_found, dtype=torch.int64, device=trace.device)
    for start in range(0, n_residues, n_block):
        block = fixed[:, start : start + n_block]
        # differences, not cdist's products, which lose digits far from the origin
        squared = (block.unsqueeze(2) - fixed.unsqueeze(1)).square().sum(-1)
        rows = torch.arange(block.shape[1], device=trace.device)
        squared[:, rows, rows + start] = float("inf")
        found = torch.cat([found, squared.topk(n_found, dim=2, largest=False)[1]], dim=1)
    there = gather_residues(trace, found)
    return found, (there - trace.unsqueeze(2)).square().sum(-1).clamp(min=1e-12).sqrt()


def gather_residues(features: Tensor, neighbours: Tensor) -> Tensor:
    """Return the neighbours' features: (batch, n, width) and (batch, n, k) int64 -> (batch, n, k, width)."""
    n_batch, n_residues, n_neighbours = neighbours.shape
    index = neighbours.reshape(n_batch, -1, 1).expand(-1, -1, features.shape[2])
    return features.gather(1, index).view(n_batch, n_residues, n_neighbours, -1)


def trace_frames(trace: Tensor, anchors: Tensor) -> Tensor:
    """Return a frame for each residue from its Cα and two others.

    Parameters
    ----------
    trace : Tensor
        (batch, n_residues, 3) [nm]
    anchors : Tensor
        (n_residues, 2) int64

    Returns
    -------
    Tensor
        (batch, n_residues, 3, 3) right-handed, columns are the axes; where the three Cα lie on a line, the last two
        are zero
    """
    to_one = trace.index_select(1, anchors[:, 0]) - trace
    to_other = trace.index_select(1, anchors[:, 1]) - trace
    first = _direction(to_one)
    second = _direction(to_other - (to_other * first).sum(-1, keepdim=True) * first)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def trace_features(trace: Tensor, anchors: Tensor) -> Tensor:
    """Return cosine and sine of each residue's angle and of the torsions about its two links in the trace.

    Parameters
    ----------
    trace : Tensor
        (batch, n_residues, 3) [nm]
    anchors : Tensor
        (n_residues, 2) int64

    Returns
    -------
    Tensor
        (batch, n_residues, 6), invariant to rotation and translation, but not to reflection
    """
    one, other = anchors[:, 0], anchors[:, 1]
    to_one = _direction(trace.index_select(1, one) - trace)
    to_other = _direction(trace.index_select(1, other) - trace)
    cosine = (to_one * to_other).sum(-1)
    sine = torch.linalg.cross(to_one, to_other).square().sum(-1).clamp(min=1e-12).sqrt()
    here = torch.arange(len(anchors), device=anchors.device)
    before = _torsion(trace, one[one], one, here, other)
    after = _torsion(trace, one, here, other, anchors[:, 1][other])
    return torch.cat([torch.stack([cosine, sine], dim=-1), before, after], dim=-1)


def _torsion(trace: Tensor, first: Tensor, second: Tensor, third: Tensor, fourth: Tensor) -> Tensor:
    """Return cosine and sine of the torsion of four residues' Cα, (batch, n, 2); (0, 0) where they lie on a line."""
    axis = trace.index_select(1, third) - trace.index_select(1, second)
    normal_1 = torch.linalg.cross(trace.index_select(1, second) - trace.index_select(1, first), axis)
    normal_2 = torch.linalg.cross(axis, trace.index_select(1, fourth) - trace.index_select(1, third))
    normal_1, normal_2 = _direction(normal_1), _direction(normal_2)
    sine = (torch.linalg.cross(normal_1, normal_2) * _direction(axis)).sum(-1)
    return torch.stack([(normal_1 * normal_2).sum(-1), sine], dim=-1)


def _direction(vectors: Tensor) -> Tensor:
    """Return unit vectors, and nearly 0 for those shorter than 1e-4, (..., 3)."""
    return vectors / vectors.square().sum(-1, keepdim=True).clamp(min=1e-8).sqrt()


def direction_features(trace: Tensor, frames: Tensor, neighbours: Tensor) -> Tensor:
    """Return where neighbours lie and how they are turned, as the residues' frames see it.

    Parameters
    ----------
    trace : Tensor
        (batch, n_residues, 3) [nm]
    frames : Tensor
        (batch, n_residues, 3, 3)
    neighbours : Tensor
        (batch, n_residues, n_neighbours) int64

    Returns
    -------
    Tensor
        (batch, n_residues, n_neighbours, 15): direction to the neighbour in the residue's frame, direction from it in
        the neighbour's frame, and the neighbour's axes in the residue's frame
    """
    n_batch, n_residues, n_neighbours = neighbours.shape
    towards = _direction(gather_residues(trace, neighbours) - trace.unsqueeze(2)).unsqueeze(-1)
    own = frames.unsqueeze(2).transpose(-1, -2)
    there = gather_residues(frames.flatten(2), neighbours).view(n_batch, n_residues, n_neighbours, 3, 3)
    seen = torch.matmul(own, towards).squeeze(-1)
    seen_back = torch.matmul(there.transpose(-1, -2), -towards).squeeze(-1)
    return torch.cat([seen, seen_back, torch.matmul(own, there).flatten(3)], dim=-1)


def separation_features(chains: Tensor, neighbours: Tensor, longest: int = _MAX_SEPARATION) -> Tensor:
    """Return one-hot places in the sequence: (n,), (batch, n, k) int64 -> (batch, n, k, `N_SEPARATION_FEATURES`)."""
    places = torch.arange(len(chains), device=chains.device)
    separation = neighbours - places.unsqueeze(1)
    is_far = separation.abs() > longest
    kind = torch.where(is_far, torch.full_like(separation, 2 * longest + 1), separation + longest)
    is_same = chains[neighbours] == chains.unsqueeze(1)
    kind = torch.where(is_same, kind, torch.full_like(kind, 2 * longest + 2))
    return nn.functional.one_hot(kind, 2 * longest + 3).to(torch.float32)


class RadialBasis(nn.Module):
    """Gaussians of a distance, and a weight that falls smoothly to 0 at the cutoff.

    Parameters
    ----------
    n_radial : int
    cutoff : float
        [nm]
    """

    def __init__(self, n_radial: int, cutoff: float):
        super().__init__()
        self.cutoff = cutoff
        self.register_buffer("centres", torch.linspace(0.0, cutoff, n_radial))
        self.width = cutoff / max(1, n_radial - 1)

    def forward(self, distances: Tensor) -> Tensor:
        """Return (..., n_radial) of distances (...) [nm]."""
        scaled = (distances.unsqueeze(-1) - self.centres) / self.width
        return torch.exp(-0.5 * scaled * scaled)

    def envelope(self, distances: Tensor) -> Tensor:
        """Return weights (...) of distances (...) [nm]: 1 at 0, 0 with its slope at the cutoff."""
        share = (distances / self.cutoff).clamp(max=1.0)
        return (1.0 - share * share).square()


def radius_edges(points: np.ndarray, cutoff: float) -> np.ndarray:
    """Find all pairs within a distance, frame by frame, by k-d trees.

    Parameters
    ----------
    points : ndarray
        (n_frames, n_points, 3) [nm]
    cutoff : float
        [nm]

    Returns
    -------
    ndarray
        (2, n_edges) int64 both ways round, counted as n_points frame + point
    """
    n_points = points.shape[1]
    found = [np.zeros((0, 2), dtype=np.int64)]
    for number, frame in enumerate(points):
        found.append(cKDTree(frame).query_pairs(cutoff, output_type="ndarray") + number * n_points)
    pairs = np.concatenate(found).T
    return np.concatenate([pairs, pairs[::-1]], axis=1)
