"""Structures that no molecule has: clashes, flipped chirality, twisted or flipped peptide bonds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from openmm_latent.errors import require
from openmm_latent.geometry import dihedrals
from openmm_latent.metrics.chunks import checked_frames, frame_chunks

#: Non-bonded heavy atoms closer than this clash: 1.1 Å (ATMOS) [nm].
CLASH_CUTOFF = 0.11
#: The same for the fraction of close pairs: 1.2 Å (CODLAD) [nm].
CLOSE_CUTOFF = 0.12
#: Pairs that the fraction is taken of: 5 Å [nm].
NEIGHBOUR_CUTOFF = 0.5
#: A peptide bond further from planar than this is twisted, as for the guard's `maxOmegaDeviation` [rad].
MAX_OMEGA_DEVIATION = np.pi / 3


def clash_counts(
    positions: np.ndarray, bonds: np.ndarray, ligand: np.ndarray | None = None, cutoff: float = CLASH_CUTOFF
) -> dict[str, np.ndarray]:
    """Count clashes, non-bonded pairs closer than a cutoff, in each frame.

    Parameters
    ----------
    positions : array, (n_frames, n_heavy_atoms, 3) [nm]
        Heavy atoms only. Molecules whole.
    bonds : array of int, (n_bonds, 2)
        Of the topology, over the same atoms.
    ligand : array of int, (n_ligand_atoms,), optional
        Which of the atoms are the ligand; all others count as protein.
    cutoff : float [nm]

    Returns
    -------
    dict of array of int, (n_frames,): protein, ligand (within it), between, total; their means are clashes a frame,
    their sums clashes a trajectory

    Source: METRICS "clash"; ATMOS (2025).
    """
    frames = checked_frames(positions)
    bonded = _pair_codes(bonds, frames.shape[1])
    is_ligand = np.zeros(frames.shape[1], dtype=bool)
    is_ligand[np.asarray([] if ligand is None else ligand, dtype=np.int64)] = True
    counts = np.array([_split(_close_pairs(frame, cutoff, bonded), is_ligand) for frame in _each(frames)])
    return {
        "protein": counts[:, 0],
        "ligand": counts[:, 2],
        "between": counts[:, 1],
        "total": counts.sum(axis=1),
    }


def close_fraction(
    positions: np.ndarray,
    bonds: np.ndarray,
    cutoff: float = CLOSE_CUTOFF,
    neighbour_cutoff: float = NEIGHBOUR_CUTOFF,
) -> float:
    """Return the fraction of non-bonded neighbours that are closer than 1.2 Å.

    Parameters
    ----------
    positions : array, (n_frames, n_heavy_atoms, 3) [nm]
    bonds : array of int, (n_bonds, 2)
    cutoff, neighbour_cutoff : float [nm]
        The fraction is of the non-bonded pairs closer than `neighbour_cutoff`, of all frames together.

    Returns
    -------
    float, 0 to 1; 0 where there are no neighbours

    Source: METRICS "clash"; CODLAD (2025), after GenZProt (2023).
    """
    frames = checked_frames(positions)
    bonded = _pair_codes(bonds, frames.shape[1])
    n_close, n_pairs = 0, 0
    for frame in _each(frames):
        pairs = _close_pairs(frame, neighbour_cutoff, bonded)
        n_pairs += len(pairs)
        n_close += int((np.linalg.norm(frame[pairs[:, 0]] - frame[pairs[:, 1]], axis=1) < cutoff).sum())
    return n_close / n_pairs if n_pairs else 0.0


def _each(frames: np.ndarray) -> Iterator[np.ndarray]:
    """Yield frames one by one in double precision, checked to be finite."""
    for piece in frame_chunks(frames):
        yield from piece


def _pair_codes(pairs: np.ndarray, n_atoms: int) -> np.ndarray:
    """Return one sorted number a pair, whatever its order: (n_pairs, 2) -> (n_pairs,)."""
    indices = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    require(
        indices.size == 0 or (indices.min() >= 0 and indices.max() < n_atoms),
        f"bonds must hold indices from 0 to {n_atoms - 1}, got up to {indices.max(initial=0)}; "
        "number the atoms as the positions do",
    )
    return np.unique(indices.min(axis=1) * n_atoms + indices.max(axis=1))


def _close_pairs(frame: np.ndarray, cutoff: float, bonded: np.ndarray) -> np.ndarray:
    """Return the non-bonded pairs closer than a cutoff: (n_atoms, 3) [nm] -> (n_pairs, 2)."""
    from scipy.spatial import cKDTree

    pairs = cKDTree(frame).query_pairs(cutoff, output_type="ndarray")
    codes = pairs.min(axis=1) * len(frame) + pairs.max(axis=1)
    return pairs[~np.isin(codes, bonded)]


def _split(pairs: np.ndarray, is_ligand: np.ndarray) -> np.ndarray:
    """Count pairs by how many of their two atoms belong to the ligand: 0, 1 or 2 -> (3,)."""
    return np.bincount(is_ligand[pairs].sum(axis=1), minlength=3)


def chirality_violations(positions: np.ndarray, centres: np.ndarray, structure: np.ndarray) -> np.ndarray:
    """Count chiral centres with the wrong hand in each frame.

    Parameters
    ----------
    positions : array, (n_frames, n_atoms, 3) [nm]
    centres : array of int, (n_centres, 4)
        Centre and three of its neighbours (as `openmm_latent.topology` finds them).
    structure : array, (n_atoms, 3) [nm]
        Has the right hands.

    Returns
    -------
    array of int, (n_frames,)
    """
    indices = _groups(centres, "centres", checked_frames(positions).shape[1])
    right = np.sign(_triple_products(np.asarray(structure, dtype=np.float64)[None], indices))
    require(bool((right != 0).all()), "structure must have a hand at each centre, got a planar one; check `centres`")
    wrong = [(_triple_products(piece, indices) * right <= 0).sum(axis=1) for piece in frame_chunks(positions)]
    return np.concatenate(wrong)


def _triple_products(frames: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the signed volumes at centres: (n_frames, n_atoms, 3) -> (n_frames, n_centres) [nm^3]."""
    first, second, third = (frames[:, centres[:, k]] - frames[:, centres[:, 0]] for k in (1, 2, 3))
    return (np.cross(first, second) * third).sum(axis=2)


def omega_violations(
    positions: np.ndarray, omegas: np.ndarray, structure: np.ndarray, max_deviation: float = MAX_OMEGA_DEVIATION
) -> dict[str, np.ndarray]:
    """Count peptide bonds that left the form, cis or trans, of a structure.

    Parameters
    ----------
    positions : array, (n_frames, n_atoms, 3) [nm]
    omegas : array of int, (n_omegas, 4)
    structure : array, (n_atoms, 3) [nm]
    max_deviation : float [rad]
        From planar.

    Returns
    -------
    dict of array of int, (n_frames,): flipped (nearer to the other form), twisted (the right form, but further from
    planar than `max_deviation`)
    """
    indices = _groups(omegas, "omegas", checked_frames(positions).shape[1])
    is_trans = np.abs(dihedrals(structure, indices)) > np.pi / 2
    flipped, twisted = [], []
    for piece in frame_chunks(positions):
        size = np.abs(dihedrals(piece, indices))
        deviation = np.where(is_trans, np.pi - size, size)
        flipped.append((deviation > np.pi / 2).sum(axis=1))
        twisted.append(((deviation > max_deviation) & (deviation <= np.pi / 2)).sum(axis=1))
    return {"flipped": np.concatenate(flipped), "twisted": np.concatenate(twisted)}


def _groups(groups: np.ndarray, name: str, n_atoms: int) -> np.ndarray:
    """Return groups of four atom indices, checked: (n_groups, 4)."""
    indices = np.asarray(groups, dtype=np.int64).reshape(-1, np.shape(groups)[-1] if np.size(groups) else 4)
    require(
        indices.shape[1] == 4 and (indices.size == 0 or (indices.min() >= 0 and indices.max() < n_atoms)),
        f"{name} must have shape (n, 4) and indices from 0 to {n_atoms - 1}, got {indices.shape} with indices up to "
        f"{indices.max(initial=0)}; number the atoms as the positions do",
    )
    return indices
