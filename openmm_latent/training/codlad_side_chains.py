"""More frames for CODLAD's autoencoder: side chains exchanged among residues of one kind, where they fit.

A few proteins show each amino acid in a few places, and a network learns by heart which side chain goes with which
place. Exchanged, any conformation of a residue turns up anywhere, so that it must be read from the code. Backbones and
Cα traces stay; what would overlap is put back.

Only the autoencoder learns from such frames: their side chains are not those that the trace calls for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from openmm_latent.data.residue_slots import ProteinFrames, exchange_symmetric
from openmm_latent.errors import require
from openmm_latent.models.codlad.losses import LossTables
from openmm_latent.nn.internal_coordinates import TraceCoordinates
from openmm_latent.nn.residue_geometry import CA, CB, INTERNAL_SLOTS, OXT, RESIDUE_NAMES, residue_tables

#: Atoms of side chains nearer than this, not bonded nor bonded to a common atom, do not fit [nm].
NEAREST = 0.25
#: Times that residues which have kept their own side chain are offered another.
N_ROUNDS = 4
#: Frames of a protein whose side chains are on offer.
_N_OFFERED = 64
#: Columns of internal coordinates that go along: all that hangs on CB.
_COLUMNS = [i for i, slot in enumerate(INTERNAL_SLOTS) if slot not in range(CB + 1) and slot != OXT]
_PROLINE, _CYSTEINE = RESIDUE_NAMES.index("PRO"), RESIDUE_NAMES.index("CYS")


def exchange_side_chains(examples: Sequence[ProteinFrames], n_frames: int, seed: int = 1) -> list[ProteinFrames]:
    """Draw side chains anew from those that residues of the same kind have anywhere.

    Parameters
    ----------
    examples : sequence of ProteinFrames
    n_frames : int
        Of each protein, evenly spread over its frames; a protein with fewer gives each several times.
    seed : int

    Returns
    -------
    list of ProteinFrames
        One for each that has a side chain to exchange, with its Cα and backbones. Prolines, whose rings close on the
        backbone, and cysteines in disulphides keep their own.

    Raises
    ------
    LatentError
        n_frames is not positive.
    """
    require(n_frames >= 1, f"n_frames must be at least 1, got {n_frames}")
    offered = _side_chains(examples)
    generator = np.random.default_rng(seed)
    changed = [_exchanged(example, offered, n_frames, generator) for example in examples]
    return [example for example in changed if example is not None]


def _side_chains(examples: Sequence[ProteinFrames]) -> dict[int, np.ndarray]:
    """Return internal coordinates of side chains by kind: (n_seen, n_columns, 3) [nm, rad]."""
    seen: dict[int, list[np.ndarray]] = {}
    for example in examples:
        places = np.linspace(0, len(example) - 1, min(len(example), _N_OFFERED)).round().astype(int)
        frames = torch.as_tensor(example.positions[places])
        internal = TraceCoordinates(example.residues).to_internal(frames).numpy()[:, :, _COLUMNS]
        for kind in np.unique(example.residues.types):
            rows = internal[:, example.residues.types == kind].reshape(-1, len(_COLUMNS), 3)
            seen.setdefault(int(kind), []).append(rows)
    return {kind: np.concatenate(rows) for kind, rows in seen.items()}


def _exchanged(
    example: ProteinFrames, offered: dict[int, np.ndarray], n_frames: int, generator: np.random.Generator
) -> ProteinFrames | None:
    """Return frames of one protein with other side chains; None where none may change."""
    types = example.residues.types
    may_change = residue_tables().turns[types].any(axis=1) & (types != _PROLINE)
    may_change[example.disulphides.reshape(-1)] = False
    if not may_change.any():
        return None
    places = np.linspace(0, len(example) - 1, n_frames).round().astype(int)
    coordinates, tables = TraceCoordinates(example.residues), LossTables(example.residues, example.disulphides)
    frames = torch.as_tensor(example.positions[places])
    internal = coordinates.to_internal(frames).numpy()
    is_new = np.zeros((n_frames, len(types)), dtype=bool)
    for _ in range(N_ROUNDS):
        is_offered = may_change & ~is_new & (generator.random(is_new.shape) < 0.5)
        before = internal.copy()
        for kind in np.unique(types[may_change]):
            where = np.argwhere(is_offered & (types == kind))
            rows = offered[int(kind)][generator.integers(len(offered[int(kind)]), size=len(where))]
            internal[where[:, 0, None], where[:, 1, None], _COLUMNS] = rows
        # who overlaps goes back, and then who stands where one of these goes back to
        while (overlaps := _overlapping(coordinates, tables, frames, internal) & is_offered).any():
            internal[overlaps] = before[overlaps]
            is_offered &= ~overlaps
        is_new |= is_offered
    positions = coordinates.to_cartesian(frames[:, :, CA], torch.as_tensor(internal)).numpy()
    positions = exchange_symmetric(example.residues, positions.astype(np.float32))
    return replace(example, name=f"{example.name}, side chains exchanged", positions=positions)


def _overlapping(
    coordinates: TraceCoordinates, tables: LossTables, frames: torch.Tensor, internal: np.ndarray
) -> np.ndarray:
    """Tell which residues have atoms too near to others: (n_frames, n_residues) of bool."""
    positions = coordinates.to_cartesian(frames[:, :, CA], torch.as_tensor(internal))
    pairs = tables.near_pairs(positions, NEAREST).numpy()
    found = np.zeros(internal.shape[:2], dtype=bool)
    for column in (1, 2):
        found[pairs[:, 0], pairs[:, column] // positions.shape[2]] = True
    return found
