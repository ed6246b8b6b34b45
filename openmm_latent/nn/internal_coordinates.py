"""Distances, angles and torsions of proteins' heavy atoms, and exact ways from them to positions and back.

Atoms are placed level by level of what hangs on what, all residues and frames of a level at once. `TraceCoordinates`
starts from a Cα trace, as CODLAD's decoder does; `frame_coordinates` starts from backbone frames.

Positions are (batch, n_residues, 15, 3) in the slots of `residue_geometry`; a slot without atom lies on its Cα.
Internal coordinates are (batch, n_residues, 14, 3), all slots but CA in the same order; 0 where there is no atom. A
batch of different proteins is one frame of many chains.

All is computed in double precision, whatever comes in, as eight placements in a row lose digits; gradients stay finite
where three atoms lie on a line.

Source: J. Parsons et al., J. Comput. Chem. 26, 1063 (2005), for the placement of an atom.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.errors import require
from openmm_latent.nn.residue_geometry import CA, INTERNAL_SLOTS, N_SLOTS, OXT, C, N, O, Residues, residue_tables

#: How far `TraceCoordinates.bounded` lets angles and fixed torsions go from the ideal [rad]: 30 degrees, where MD of
#: six proteins stays within 29. A stereocentre is flat 50 degrees from its ideal.
_REACH = math.pi / 6
#: The same for angles of N and C at the trace: cis peptide bonds and ends of chains need more.
_REACH_ON_TRACE = 0.7
#: The same for lengths, as a share of the ideal.
_STRETCH = 0.25
_PLACES = ("first", "inner", "last")


def place(first: Tensor, second: Tensor, third: Tensor, internal: Tensor) -> Tensor:
    """Place atoms by their distance from `third`, angle with `second` and torsion with `first`.

    Parameters
    ----------
    first, second, third : Tensor
        (..., 3) [nm]
    internal : Tensor
        (..., 3) distance [nm], angle and torsion [rad]

    Returns
    -------
    Tensor
        (..., 3) [nm]
    """
    axis = unit_vectors(third - second)
    normal = unit_vectors(torch.linalg.cross(second - first, axis))
    across = torch.linalg.cross(normal, axis)
    length, angle, torsion = internal.unsqueeze(-2).unbind(-1)  # (..., 1) each
    outward = across * torch.cos(torsion) + normal * torch.sin(torsion)
    return third + length * (outward * torch.sin(angle) - axis * torch.cos(angle))


def measure(first: Tensor, second: Tensor, third: Tensor, fourth: Tensor) -> Tensor:
    """Return distance [nm], angle and torsion [rad] of the atoms `fourth`, (..., 3): the inverse of `place`.

    The angle lies in [0, pi], the torsion in (-pi, pi], IUPAC sign; the torsion of atoms on a line is 0.
    """
    bond_1, bond_2, bond_3 = second - first, third - second, fourth - third
    normal_1, normal_2 = torch.linalg.cross(bond_1, bond_2), torch.linalg.cross(bond_2, bond_3)
    angle = torch.atan2(_length(normal_2), -(bond_2 * bond_3).sum(-1))
    sine, cosine = _length(bond_2) * (bond_1 * normal_2).sum(-1), (normal_1 * normal_2).sum(-1)
    is_flat = sine * sine + cosine * cosine < 1e-24  # [nm^8]; atan2(0, 0) has no derivative
    torsion = torch.atan2(sine.masked_fill(is_flat, 0.0), cosine.masked_fill(is_flat, 1.0))
    return torch.stack([_length(bond_3), angle, torsion], dim=-1)


def _length(vectors: Tensor) -> Tensor:
    """Return lengths, (..., 3) -> (...); those below 1e-6 nm are all alike, and have no derivative."""
    return (vectors * vectors).sum(-1).clamp(min=1e-12).sqrt()


def unit_vectors(vectors: Tensor) -> Tensor:
    """Return unit vectors, (..., 3), and 0 without derivative for vectors below 1e-6 nm."""
    squared = (vectors * vectors).sum(-1, keepdim=True)
    is_short = squared < 1e-12
    return vectors * squared.masked_fill(is_short, 1.0).rsqrt().masked_fill(is_short, 0.0)


class AtomTree(nn.Module):
    """Atoms that hang on others, placed and measured level by level.

    Parameters
    ----------
    has_atom : ndarray of bool
        (n_residues, 15)
    references : ndarray of int
        (n_residues, 15, 3) the atoms of bond, angle and torsion, counted as 15 residue + slot; -1 for atoms that are
        known beforehand
    """

    def __init__(self, has_atom: np.ndarray, references: np.ndarray):
        super().__init__()
        self.n_residues = len(has_atom)
        flat = references.reshape(-1, 3)
        is_placed = (has_atom & (references[:, :, 0] < 0)).reshape(-1)
        order = [np.flatnonzero(is_placed)]
        self.counts = []
        waiting = has_atom.reshape(-1) & ~is_placed
        while waiting.any():
            level = np.flatnonzero(waiting & is_placed[flat].all(axis=1))
            order.append(level)
            self.counts.append(len(level))
            is_placed[level], waiting[level] = True, False
        placed = np.concatenate(order[1:])
        rank = np.full(len(flat), -1)
        rank[np.concatenate(order)] = np.arange(sum(len(level) for level in order))
        alpha = np.repeat(rank.reshape(-1, N_SLOTS)[:, CA], N_SLOTS)
        column = np.full(N_SLOTS, -1)
        column[list(INTERNAL_SLOTS)] = np.arange(len(INTERNAL_SLOTS))
        columns = placed // N_SLOTS * len(INTERNAL_SLOTS) + column[placed % N_SLOTS]
        corners = np.concatenate([flat[placed, ::-1], placed[:, None]], axis=1)  # first, second, third, the atom
        self.register_buffer("sources", torch.tensor(rank[flat[placed, ::-1]]))
        self.register_buffer("columns", torch.tensor(columns))
        self.register_buffer("corners", torch.tensor(corners))
        self.register_buffer("slots", torch.tensor(np.where(rank < 0, alpha, rank)))

    def grow(self, known: Tensor, internal: Tensor) -> Tensor:
        """Place all atoms.

        Parameters
        ----------
        known : Tensor
            (batch, n_known, 3) [nm], residue by residue in the order of slots
        internal : Tensor
            (batch, n_residues, 14, 3)

        Returns
        -------
        Tensor
            (batch, n_residues, 15, 3) [nm], double precision
        """
        n_batch = known.shape[0]
        points = known.double()
        chosen = internal.double().reshape(n_batch, -1, 3).index_select(1, self.columns)
        start = 0
        for count in self.counts:
            sources = self.sources[start : start + count].flatten()
            corners = points.index_select(1, sources).view(n_batch, count, 3, 3)
            level = chosen[:, start : start + count]
            points = torch.cat([points, place(corners[:, :, 0], corners[:, :, 1], corners[:, :, 2], level)], dim=1)
            start += count
        return points.index_select(1, self.slots).view(n_batch, self.n_residues, -1, 3)

    def read(self, positions: Tensor) -> Tensor:
        """Measure all atoms: (batch, n_residues, 15, 3) [nm] -> (batch, n_residues, 14, 3), double precision."""
        n_batch = positions.shape[0]
        flat = positions.double().reshape(n_batch, -1, 3)
        corners = flat.index_select(1, self.corners.flatten()).view(n_batch, -1, 4, 3)
        measured = measure(corners[:, :, 0], corners[:, :, 1], corners[:, :, 2], corners[:, :, 3])
        # (batch, 14 n_residues, 3)
        empty = torch.zeros_like(flat[:, :1]).expand(-1, 14 * self.n_residues, -1)
        return empty.index_copy(1, self.columns, measured).view(n_batch, self.n_residues, 14, 3)


def trace_anchors(residues: Residues) -> tuple[np.ndarray, np.ndarray]:
    """Choose the Cα atoms that N and C of each residue hang on beside its own.

    N hangs on the residue before and the one after, C on the one after and the one before. The first and last residue
    of a stretch use the two that they have. A stretch ends at a break of the chain, unless it is shorter than three
    residues: these look across the break.

    Returns
    -------
    anchors : ndarray of int
        (n_residues, 2, 2) for N and for C: residues of angle and torsion
    places : ndarray of int
        (n_residues,) 0, 1, 2 for the first, inner and last residue of a stretch

    Raises
    ------
    LatentError
        A chain has fewer than three residues.
    """
    n_residues = len(residues)
    anchors, places = np.zeros((n_residues, 2, 2), dtype=np.int64), np.ones(n_residues, dtype=np.int64)
    starts = np.flatnonzero(residues.chains[1:] != residues.chains[:-1]) + 1
    for chain in np.split(np.arange(n_residues), starts):
        require(
            len(chain) >= 3,
            f"residues must have at least 3 residues in each chain to hang on a Cα trace, got {len(chain)} in chain "
            f"{residues.chains[chain[0]]}; leave this chain out, or build it on backbone frames",
        )
        pieces = np.split(chain, np.flatnonzero(~residues.is_joined[chain[1:]]) + 1)
        for stretch in [chain, *(piece for piece in pieces if len(piece) >= 3)]:  # the chain for the short ones
            before, after = np.roll(stretch, 1), np.roll(stretch, -1)
            before[0], after[-1] = stretch[1], stretch[-2]
            beyond_n, beyond_c = after.copy(), before.copy()
            beyond_n[0] = beyond_c[0] = stretch[2]
            beyond_n[-1] = beyond_c[-1] = stretch[-3]
            anchors[stretch] = np.stack([before, beyond_n, after, beyond_c], axis=1).reshape(-1, 2, 2)
            places[stretch] = 1
            places[stretch[0]], places[stretch[-1]] = 0, 2
    return anchors, places


def shared_tree(residues: Residues) -> tuple[np.ndarray, np.ndarray]:
    """Return references, (n_residues, 15, 3) counted as 15 residue + slot, and ideal values, (n_residues, 15, 3)."""
    tables = residue_tables()
    references, ideal = tables.references[residues.types], tables.ideal[residues.types]
    references = np.where(references < 0, -1, references + N_SLOTS * np.arange(len(residues))[:, None, None])
    for slot in (O, OXT):
        ideal[residues.has_oxt, slot] = tables.end[slot]
    return references, ideal


class TraceCoordinates(nn.Module):
    """Heavy atoms as distances, angles and torsions that hang on a Cα trace.

    | atom | distance from | angle with | torsion with |
    |---|---|---|---|
    | N | CA | CA of the residue before | CA of the residue after |
    | C | CA | CA of the residue after | CA of the residue before |
    | O | C | CA | CA that C hangs on |
    | CB | CA | N | C |
    | others, OXT | see `residue_geometry` | | |

    At the ends of a stretch N and C both hang on the next two Cα inwards, see `trace_anchors`. Disulphides are bonds
    (`residue_geometry.bond_pairs`), nothing hangs on them.

    Parameters
    ----------
    residues : Residues
        Chains of at least three residues.

    Attributes
    ----------
    has_atom : Tensor of bool
        (n_residues, 15)
    ideal : Tensor
        (n_residues, 14, 3) ideal coordinates; torsions of N, C and O and the chi are only a start
    is_free : Tensor of bool
        (n_residues, 14) torsions that may take any value; the others hold flat groups and chirality

    Raises
    ------
    LatentError
        A chain has fewer than three residues.

    Source: CODLAD, the decoder's internal coordinates.
    DISCREPANCY(CODLAD, internal coordinates): the paper does not say on which atoms N, C and O hang, nor how chains
    end; the table above is ours. OXT is a 14th atom.
    """

    def __init__(self, residues: Residues):
        super().__init__()
        anchors, places = trace_anchors(residues)
        references, ideal = shared_tree(residues)
        alphas = N_SLOTS * np.arange(len(residues)) + CA
        references[:, N] = np.stack([alphas, *(alphas[anchors[:, 0]].T)], axis=1)
        references[:, C] = np.stack([alphas, *(alphas[anchors[:, 1]].T)], axis=1)
        references[:, O, 2] = alphas[anchors[:, 1, 0]]
        on_trace = residue_tables().on_trace
        for slot, name in ((N, "N"), (C, "C"), (O, "O")):
            values = np.array([on_trace[where, name] for where in _PLACES])[places]  # (n_residues, 2)
            ideal[:, slot, 1:] = values if slot != O else np.stack([ideal[:, O, 1], values[:, 1]], axis=1)
        is_free = residue_tables().turns[residues.types]
        is_free[:, [N, C, O]] = True
        has_atom = residues.has_atom
        inner = list(INTERNAL_SLOTS)
        ideal = np.where(has_atom[:, :, None], ideal, 0.0)[:, inner]
        up = np.full(ideal.shape[:2], _REACH)
        up[:, [INTERNAL_SLOTS.index(N), INTERNAL_SLOTS.index(C)]] = _REACH_ON_TRACE
        bend = np.stack([np.minimum(up, 0.8 * ideal[..., 1]), np.minimum(up, 0.8 * (math.pi - ideal[..., 1]))], axis=-1)
        self.tree = AtomTree(has_atom, references)
        self.register_buffer("has_atom", torch.tensor(has_atom))
        self.register_buffer("ideal", torch.tensor(ideal, dtype=torch.float32))
        self.register_buffer("is_free", torch.tensor(is_free[:, inner]))
        self.register_buffer("bend", torch.tensor(np.maximum(bend, 1e-3), dtype=torch.float32))
        self.stretch, self.reach = _STRETCH, _REACH

    def to_cartesian(self, trace: Tensor, internal: Tensor) -> Tensor:
        """Build all heavy atoms.

        Parameters
        ----------
        trace : Tensor
            (batch, n_residues, 3) [nm], Cα
        internal : Tensor
            (batch, n_residues, 14, 3) distance [nm], angle, torsion [rad]

        Returns
        -------
        Tensor
            (batch, n_residues, 15, 3) [nm]
        """
        return self.tree.grow(trace, internal).to(trace.dtype)

    def to_internal(self, positions: Tensor) -> Tensor:
        """Return distances, angles and torsions: (batch, n_residues, 15, 3) [nm] -> (batch, n_residues, 14, 3)."""
        return self.tree.read(positions).to(positions.dtype)

    def bounded(self, raw: Tensor) -> Tensor:
        """Return internal coordinates near the ideal from any numbers; 0 is the ideal.

        Lengths stay within a quarter, angles and fixed torsions within 30 degrees (angles of N and C within 40, and
        never near 0 or 180), and only free torsions go all the way round. So whatever a network says, residues are L
        and groups nearly flat; but torsions of N and C that bring N, CA and C on one line leave no handedness to hold.
        The slope at 0 is 1, for lengths the ideal length: near the ideal, `raw` is the difference from it.

        Parameters
        ----------
        raw : Tensor
            (batch, n_residues, 14, 3), any numbers

        Returns
        -------
        Tensor
            (batch, n_residues, 14, 3) distance [nm], angle, torsion [rad]
        """
        ideal = self.ideal.to(raw.dtype)
        length = ideal[..., 0] * (1.0 + self.stretch * torch.tanh(raw[..., 0] / self.stretch))
        bend = torch.where(raw[..., 1] < 0, self.bend[..., 0], self.bend[..., 1]).to(raw.dtype)
        angle = ideal[..., 1] + bend * torch.tanh(raw[..., 1] / bend)
        held = self.reach * torch.tanh(raw[..., 2] / self.reach)
        torsion = ideal[..., 2] + torch.where(self.is_free, raw[..., 2], held)
        there = (ideal[..., 0] > 0).to(raw.dtype).unsqueeze(-1)
        return torch.stack([length, angle, torsion], dim=-1) * there


class Chirality(nn.Module):
    """Tell which stereocentres of L residues have the right hand.

    Parameters
    ----------
    residues : Residues
    """

    def __init__(self, residues: Residues):
        super().__init__()
        tables = residue_tables()
        centres = tables.centres[residues.types] + N_SLOTS * np.arange(len(residues))[:, None, None]
        self.register_buffer("centres", torch.tensor(centres))
        self.register_buffer("handedness", torch.tensor(tables.handedness[residues.types]))

    def forward(self, positions: Tensor) -> Tensor:
        """Return whether CA, and CB of THR and ILE, are those of the natural residues.

        Parameters
        ----------
        positions : Tensor
            (batch, n_residues, 15, 3) [nm]

        Returns
        -------
        Tensor of bool
            (batch, n_residues, 2), true where a residue has no such centre
        """
        n_batch, n_residues = positions.shape[0], positions.shape[1]
        corners = positions.reshape(n_batch, -1, 3).index_select(1, self.centres.flatten())
        corners = corners.view(n_batch, n_residues, 2, 4, 3)
        arms = corners[..., 1:, :] - corners[..., :1, :]
        volume = (arms[..., 0, :] * torch.linalg.cross(arms[..., 1, :], arms[..., 2, :])).sum(-1)
        return (volume * self.handedness > 0) | (self.handedness == 0)
