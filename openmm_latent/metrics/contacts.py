"""Contacts between residues, and the pocket of a ligand."""

from __future__ import annotations

import numpy as np

from openmm_latent.errors import require
from openmm_latent.metrics.chunks import checked_frames, frame_chunks
from openmm_latent.metrics.targets import pearson

#: Cα atoms closer than this are in contact: 8 Å [nm].
CONTACT_CUTOFF = 0.8
#: Residues at least this far apart in the sequence make contacts.
CONTACT_SEPARATION = 3
#: A contact is weak, or transient, if it differs from the crystal in more than this share of frames.
CONTACT_SHARE = 0.1
#: Residues with a heavy atom closer than this to the ligand make its pocket: 10 Å [nm].
POCKET_CUTOFF = 1.0


def contact_pairs(n_residues: int, separation: int = CONTACT_SEPARATION) -> np.ndarray:
    """Return the pairs of residues (first < second) at least `separation` apart in the sequence: (n_pairs, 2)."""
    return np.stack(np.triu_indices(n_residues, separation), axis=1)


def contact_frequencies(positions: np.ndarray, pairs: np.ndarray, cutoff: float = CONTACT_CUTOFF) -> np.ndarray:
    """Return the share of frames in which each pair is closer than the cutoff.

    Parameters
    ----------
    positions : array, (n_frames, n_residues, 3) [nm]
        Cα atoms; no superposition is needed.
    pairs : array of int, (n_pairs, 2)
        From `contact_pairs`.
    cutoff : float [nm]

    Returns
    -------
    array, (n_pairs,), 0 to 1
    """
    from mdtraj.geometry.distance import compute_distances_core

    frames = checked_frames(positions)
    indices = np.asarray(pairs, dtype=np.int32)
    require(
        indices.ndim == 2
        and indices.shape[1] == 2
        and indices.size > 0
        and 0 <= indices.min() <= indices.max() < frames.shape[1],
        f"pairs must have shape (n_pairs, 2) and indices from 0 to {frames.shape[1] - 1}, got {indices.shape}; "
        "contacts need a chain longer than the sequence separation",
    )
    together = np.zeros(len(indices), dtype=np.int64)
    for piece in frame_chunks(frames, values_a_frame=len(indices)):
        # Single precision is enough once the frames are centred.
        centred = (piece - piece.mean(axis=1, keepdims=True)).astype(np.float32)
        together += (compute_distances_core(centred, indices, periodic=False) < cutoff).sum(axis=0)
    return together / len(frames)


def contact_correlation(
    positions: np.ndarray, reference: np.ndarray, separation: int = CONTACT_SEPARATION, cutoff: float = CONTACT_CUTOFF
) -> float:
    """Return Pearson's correlation of contact frequencies over all pairs of residues.

    Parameters
    ----------
    positions, reference : array, (n_frames, n_residues, 3) [nm]
        Cα atoms.

    Returns
    -------
    float, from -1 to 1

    Raises
    ------
    LatentError
        Fewer than three pairs, or a side whose frequencies are all the same.

    Source: METRICS "contact correlation".
    """
    pairs = contact_pairs(checked_frames(positions).shape[1], separation)
    return pearson(*(contact_frequencies(frames, pairs, cutoff) for frames in (positions, reference)))


def changed_contacts(
    frequencies: np.ndarray, reference_frequencies: np.ndarray, crystal: np.ndarray, share: float = CONTACT_SHARE
) -> dict[str, float]:
    """Return how well weak and transient contacts agree with the reference (Jaccard index of the two sets of pairs).

    Weak: in contact in the crystal and apart in more than `share` of the frames. Transient: apart in the crystal and
    in contact in more than `share` of the frames.

    Parameters
    ----------
    frequencies, reference_frequencies : array, (n_pairs,)
        From `contact_frequencies`.
    crystal : array, (n_pairs,)
        The same of the crystal structure: 1 in contact, 0 apart.

    Returns
    -------
    dict: weak, transient (0 to 1; NaN where neither set has a pair), n_weak, n_transient (pairs of the reference)

    Source: METRICS "weak / transient contacts"; AlphaFlow (2024).
    """
    sample, target = np.asarray(frequencies), np.asarray(reference_frequencies)
    touching = np.asarray(crystal) > 0.5
    require(
        sample.shape == target.shape == touching.shape,
        f"frequencies must have the shape of reference_frequencies {target.shape} and crystal {touching.shape}, "
        f"got {sample.shape}; use the same pairs",
    )
    weak = [touching & (1.0 - side > share) for side in (sample, target)]
    transient = [~touching & (side > share) for side in (sample, target)]
    return {
        "weak": _jaccard(*weak),
        "transient": _jaccard(*transient),
        "n_weak": int(weak[1].sum()),
        "n_transient": int(transient[1].sum()),
    }


def _jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Return |both| / |either| of two sets given as masks; NaN if both are empty."""
    either = int((first | second).sum())
    return float((first & second).sum() / either) if either else float("nan")


def pocket_atoms(
    structure: np.ndarray,
    ligand: np.ndarray,
    residues: np.ndarray,
    is_heavy: np.ndarray,
    cutoff: float = POCKET_CUTOFF,
) -> np.ndarray:
    """Return all atoms of the residues that have a heavy atom near a heavy atom of the ligand.

    RMSF, RMWD and t-RMSD of a complex are taken over these and the ligand.

    Parameters
    ----------
    structure : array, (n_atoms, 3) [nm]
    ligand : array of int, (n_ligand_atoms,)
    residues : array of int, (n_atoms,)
        Which residue each atom belongs to.
    is_heavy : array of bool, (n_atoms,)
    cutoff : float [nm]

    Returns
    -------
    array of int, (n_pocket_atoms,), in order, without the ligand
    """
    from scipy.spatial import cKDTree

    places, heavy = np.asarray(structure, dtype=np.float64), np.asarray(is_heavy, dtype=bool)
    is_ligand = np.zeros(len(places), dtype=bool)
    is_ligand[np.asarray(ligand, dtype=np.int64)] = True
    require(bool((is_ligand & heavy).any()), "ligand must hold at least one heavy atom, got none; check its atoms")
    candidates = np.flatnonzero(heavy & ~is_ligand)
    distances, _ = cKDTree(places[is_ligand & heavy]).query(places[candidates])
    near = np.asarray(residues)[candidates[distances < cutoff]]
    return np.flatnonzero(np.isin(residues, near) & ~is_ligand)
