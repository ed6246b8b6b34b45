"""Jensen-Shannon divergences of normalised histograms in nats (0 to ln 2), and free-energy surfaces."""

from __future__ import annotations

import numpy as np

from openmm_latent.errors import require
from openmm_latent.metrics.chunks import checked_frames, frame_chunks

#: Bins of a 1-D torsion histogram over (-pi, pi).
DIHEDRAL_BINS = 100
#: Bins an axis of a (phi, psi) or (chi1, chi2) histogram.
RAMACHANDRAN_BINS = 50
#: Bins of one coordinate's histogram, over the joint range of both sets.
COORDINATE_BINS = 50
#: Molar gas constant [kJ/mol/K].
GAS_CONSTANT = 0.00831446261815324


def jsd(counts: np.ndarray, reference_counts: np.ndarray) -> float:
    """Return the Jensen-Shannon divergence of two histograms.

    Parameters
    ----------
    counts, reference_counts : array, same shape
        Counts or weights, not negative; each is normalised to sum 1.

    Returns
    -------
    float [nats], from 0 to ln 2; its square root is the Jensen-Shannon distance

    Raises
    ------
    LatentError
        The shapes differ, or a histogram is empty.

    Source: J. Lin, IEEE Trans. Inf. Theory 37, 145 (1991).
    """
    p, q = np.asarray(counts, dtype=np.float64), np.asarray(reference_counts, dtype=np.float64)
    require(
        p.shape == q.shape, f"counts must have the shape of reference_counts {q.shape}, got {p.shape}; use equal bins"
    )
    require(p.sum() > 0 and q.sum() > 0, "counts must not be empty: one histogram sums to 0; were the frames in range?")
    p, q = p / p.sum(), q / q.sum()
    middle = 0.5 * (p + q)
    return float(0.5 * _kl(p, middle) + 0.5 * _kl(q, middle))


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    """Return the Kullback-Leibler divergence [nats]; cells where p is 0 add nothing."""
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / q[seen])).sum())


def row_jsd(counts: np.ndarray, reference_counts: np.ndarray) -> np.ndarray:
    """Return the divergence of each row: (n_rows, n_bins), (n_rows, n_bins) -> (n_rows,) [nats]."""
    return np.array([jsd(p, q) for p, q in zip(counts, reference_counts, strict=True)])


def _wrapped(angles: np.ndarray) -> np.ndarray:
    """Return angles [rad] in [-pi, pi)."""
    return (np.asarray(angles, dtype=np.float64) + np.pi) % (2 * np.pi) - np.pi


def _checked_angles(angles: np.ndarray, name: str = "angles") -> np.ndarray:
    """Return angles after checking that they are (n_frames, n_torsions) and finite."""
    array = np.asarray(angles)
    require(
        array.ndim == 2 and len(array) > 0,
        f"{name} must have shape (n_frames, n_torsions) [rad] with at least one frame, got {array.shape}",
    )
    require(bool(np.isfinite(array).all()), f"{name} must be finite, got NaN or infinity; leave such frames out")
    return array


def dihedral_counts(angles: np.ndarray, bins: int = DIHEDRAL_BINS) -> np.ndarray:
    """Count each torsion's values in even bins over (-pi, pi).

    Parameters
    ----------
    angles : array, (n_frames, n_torsions) [rad]

    Returns
    -------
    array, (n_torsions, bins); counts of blocks of frames add up, which makes a bootstrap cheap
    """
    columns = _checked_angles(angles).T
    edges = np.linspace(-np.pi, np.pi, bins + 1)
    return np.array([np.histogram(_wrapped(column), edges)[0] for column in columns]).reshape(len(columns), bins)


def dihedral_jsd(angles: np.ndarray, reference: np.ndarray, bins: int = DIHEDRAL_BINS) -> np.ndarray:
    """Return the divergence of each torsion's own distribution; the usual score is its mean.

    MDGen and ConfRover print the mean of its square roots, the Jensen-Shannon distances.

    Parameters
    ----------
    angles, reference : array, (n_frames, n_torsions) [rad]
    bins : int
        Over (-pi, pi); 100 as in MDGen (LD-FPG uses 36).

    Returns
    -------
    array, (n_torsions,) [nats]

    Raises
    ------
    LatentError
        The numbers of torsions differ, there are no frames, or an angle is NaN.

    Source: METRICS "dihedral JSD"; B. Jing et al., MDGen (2024).
    """
    first, second = _checked_angles(angles), _checked_angles(reference, "reference")
    require(
        first.shape[1] == second.shape[1],
        f"angles must hold the {second.shape[1]} torsions of reference, got {first.shape[1]}; choose the same torsions",
    )
    return row_jsd(dihedral_counts(first, bins), dihedral_counts(second, bins))


def ramachandran_counts(angles: np.ndarray, bins: int = RAMACHANDRAN_BINS) -> np.ndarray:
    """Count frames in a square grid over (-pi, pi) x (-pi, pi).

    Parameters
    ----------
    angles : array, (n_frames, 2) [rad]

    Returns
    -------
    array, (bins, bins); first axis phi, second psi
    """
    edges = np.linspace(-np.pi, np.pi, bins + 1)
    wrapped = _wrapped(_checked_angles(angles))
    require(
        wrapped.ndim == 2 and wrapped.shape[1] == 2,
        f"angles must have shape (n_frames, 2) [rad], got {wrapped.shape}; pass phi and psi of one residue",
    )
    return np.histogram2d(wrapped[:, 0], wrapped[:, 1], bins=(edges, edges))[0]


def ramachandran_jsd(angles: np.ndarray, reference: np.ndarray, bins: int = RAMACHANDRAN_BINS) -> float:
    """Return the divergence of two joint (phi, psi), or (chi1, chi2), distributions.

    Parameters
    ----------
    angles, reference : array, (n_frames, 2) [rad]
    bins : int
        An axis: 50 as in MDGen (LD-FPG uses 72).

    Returns
    -------
    float [nats]
    """
    return jsd(ramachandran_counts(angles, bins), ramachandran_counts(reference, bins))


def free_energy(counts: np.ndarray, temperature: float) -> np.ndarray:
    """Return the free energy of each cell of a histogram above the fullest one.

    Parameters
    ----------
    counts : array, any shape
        Counts or weights, not negative, of cells of equal size.
    temperature : float [K]

    Returns
    -------
    array, the shape of `counts` [kJ/mol]; infinite where nothing was counted
    """
    weights = np.asarray(counts, dtype=np.float64)
    require(weights.sum() > 0, "counts must not be empty: the histogram sums to 0; were the frames in range?")
    require(temperature > 0, f"temperature must be positive [K], got {temperature}")
    surface = np.full(weights.shape, np.inf)
    seen = weights > 0
    surface[seen] = -GAS_CONSTANT * temperature * np.log(weights[seen] / weights.max())
    return surface


def coordinate_jsd(positions: np.ndarray, reference: np.ndarray, structure: np.ndarray | None) -> float:
    """Return the mean divergence of single Cartesian coordinates after superposition on one structure.

    Parameters
    ----------
    positions, reference : array, (n_frames, n_atoms, 3) [nm]
    structure : array, (n_atoms, 3) [nm], or None
        None takes the frames as they lie: quicker, where they have been superposed already.

    Returns
    -------
    float [nats]; 50 bins over the joint range of each coordinate

    Source: METRICS "coordinate JSD" (GLDP's own definition is unpublished).
    """
    sets = checked_frames(positions), checked_frames(reference, "reference", np.shape(positions)[1])
    low, high = np.full(sets[0].shape[1:], np.inf), np.full(sets[0].shape[1:], -np.inf)
    for frames in sets:
        for piece in frame_chunks(frames, structure):
            low, high = np.minimum(low, piece.min(axis=0)), np.maximum(high, piece.max(axis=0))
    counts = [_coordinate_counts(frames, structure, low, high) for frames in sets]
    return float(row_jsd(*counts).mean())


def _coordinate_counts(
    frames: np.ndarray, structure: np.ndarray | None, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Count each coordinate in even bins from low to high, (n_atoms, 3) [nm] each: -> (n_coordinates, bins)."""
    n_cells = low.size * COORDINATE_BINS
    first_cell = (np.arange(low.size) * COORDINATE_BINS).reshape(low.shape)
    scale = COORDINATE_BINS / np.where(high > low, high - low, 1.0)
    counts = np.zeros(n_cells, dtype=np.int64)
    for piece in frame_chunks(frames, structure):
        # The largest value belongs to the last bin, as in np.histogram.
        cells = np.minimum((piece - low) * scale, COORDINATE_BINS - 1).astype(np.int64) + first_cell
        counts += np.bincount(cells.ravel(), minlength=n_cells)
    return counts.reshape(-1, COORDINATE_BINS)
