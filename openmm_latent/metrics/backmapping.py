"""Rebuilt all-atom structures against the true ones: bond graphs, bond lengths, positions, diversity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openmm_latent.errors import require
from openmm_latent.geometry import rmsd
from openmm_latent.metrics.chunks import checked_frames

#: Atoms closer than this many sums of covalent radii are bonded.
BOND_SCALE = 1.3
#: Single-bond covalent radii [nm]. Source: B. Cordero et al., Dalton Trans. 2832 (2008), table 2 (low spin for metals).
COVALENT_RADII = {
    "H": 0.031,
    "Li": 0.128,
    "B": 0.084,
    "C": 0.076,
    "N": 0.071,
    "O": 0.066,
    "F": 0.057,
    "Na": 0.166,
    "Mg": 0.141,
    "Si": 0.111,
    "P": 0.107,
    "S": 0.105,
    "Cl": 0.102,
    "K": 0.203,
    "Ca": 0.176,
    "Mn": 0.139,
    "Fe": 0.132,
    "Co": 0.126,
    "Ni": 0.124,
    "Cu": 0.132,
    "Zn": 0.122,
    "Se": 0.120,
    "Br": 0.120,
    "I": 0.139,
}


def covalent_radii(elements: Sequence[str]) -> np.ndarray:
    """Return the covalent radius of each atom: element symbols -> (n_atoms,) [nm].

    Raises
    ------
    LatentError
        An element has no radius here.
    """
    unknown = sorted(set(elements) - set(COVALENT_RADII))
    require(
        not unknown,
        f"elements must be among {', '.join(COVALENT_RADII)}, got {', '.join(map(repr, unknown))}; "
        "leave those atoms out",
    )
    return np.array([COVALENT_RADII[element] for element in elements])


def bond_graph(structure: np.ndarray, radii: np.ndarray, scale: float = BOND_SCALE) -> np.ndarray:
    """Return the pairs of atoms that lie within bonding distance.

    Parameters
    ----------
    structure : array, (n_atoms, 3) [nm]
    radii : array, (n_atoms,) [nm]
        From `covalent_radii`.

    Returns
    -------
    array of int, (n_bonds, 2), first < second, sorted
    """
    from scipy.spatial import cKDTree

    places, sizes = np.asarray(structure, dtype=np.float64), np.asarray(radii, dtype=np.float64)
    require(
        places.shape == (len(sizes), 3),
        f"structure must have shape (n_atoms={len(sizes)}, 3) [nm], got {places.shape}; give one radius an atom",
    )
    pairs = cKDTree(places).query_pairs(2.0 * scale * sizes.max(), output_type="ndarray")
    distances = np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1)
    bonds = pairs[distances < scale * sizes[pairs].sum(axis=1)]
    return bonds[np.lexsort((bonds[:, 1], bonds[:, 0]))].astype(np.int64)


def graph_edit_distance(bonds: np.ndarray, reference_bonds: np.ndarray) -> int:
    """Return the graph edit distance of two bond graphs on the same atoms.

    Nodes are labelled by the atom itself, and an atom cannot become another one; adding or removing an atom or a bond
    costs 1. Then the distance is exactly the number of bonds that only one graph has. Proof: an edit path keeps an atom
    or removes it and adds it again. Whoever keeps all atoms must pay for each differing bond. Removing an atom and
    adding it again costs 2 and one for each of its bonds in either graph, which is never less than the differing bonds
    it would save. (With labels by element only, wrong bonds could be explained away by exchanging two carbons, and the
    problem would be NP-hard.)

    Parameters
    ----------
    bonds, reference_bonds : array of int, (n_bonds, 2)

    Returns
    -------
    int, edits
    """
    first, second = ({tuple(sorted(pair)) for pair in np.asarray(b).tolist()} for b in (bonds, reference_bonds))
    return len(first ^ second)


def bond_graph_scores(
    positions: np.ndarray, reference: np.ndarray, radii: np.ndarray, scale: float = BOND_SCALE
) -> dict[str, float]:
    """Compare the bonds of rebuilt frames with those of the true ones.

    Parameters
    ----------
    positions, reference : array, (n_frames, n_atoms, 3) [nm]
        Frame by frame the same conformation, rebuilt and true; usually heavy atoms.
    radii : array, (n_atoms,) [nm]
        From `covalent_radii`.

    Returns
    -------
    dict: ged, edits a frame (`graph_edit_distance`); gdr, differing bonds / reference bonds, both summed over frames;
    bond_mse [nm^2], mean squared difference in length of the reference's bonds (what CODLAD's code prints as GED)

    Raises
    ------
    LatentError
        The shapes differ, or the reference has no bonds.

    Source: METRICS "backmapping"; CODLAD (2025).
    """
    frames, true = _paired(positions, reference)
    n_edits, n_bonds, squares = 0, 0, 0.0
    for rebuilt, target in zip(frames, true, strict=True):
        bonds = bond_graph(target, radii, scale)
        n_edits += graph_edit_distance(bond_graph(rebuilt, radii, scale), bonds)
        n_bonds += len(bonds)
        lengths = [
            np.linalg.norm(x[bonds[:, 0]].astype(np.float64) - x[bonds[:, 1]], axis=1) for x in (rebuilt, target)
        ]
        squares += float(((lengths[0] - lengths[1]) ** 2).sum())
    require(n_bonds > 0, "reference must have bonds, got none; are its positions in nm?")
    return {"ged": n_edits / len(frames), "gdr": n_edits / n_bonds, "bond_mse": squares / n_bonds}


def backmapping_rmsd(positions: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Return the mean RMSD of rebuilt frames to the true ones, superposed and as they lie.

    Parameters
    ----------
    positions, reference : array, (n_frames, n_atoms, 3) [nm]
        Frame by frame the same conformation, rebuilt and true.

    Returns
    -------
    dict of float [nm]: superposed, unsuperposed
    """
    frames, true = _paired(positions, reference)
    fitted = [rmsd(one[None], other)[0] for one, other in zip(frames, true, strict=True)]
    lying = [rmsd(one[None], other, is_superposed=True)[0] for one, other in zip(frames, true, strict=True)]
    return {"superposed": float(np.mean(fitted)), "unsuperposed": float(np.mean(lying))}


def diversity(positions: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Return DIV, how much rebuilt structures of one coarse frame differ.

    Parameters
    ----------
    positions : array, (n_samples, n_frames, n_atoms, 3) [nm]
        Several rebuilt structures of each frame.
    reference : array, (n_frames, n_atoms, 3) [nm]

    Returns
    -------
    dict: div, 1 - RMSD(rebuilt, their mean) / RMSD(rebuilt, reference), as CODLAD's code has it (0: as diverse as far
    off; 1: all the same); ratio, 1 - div, which is what "higher is more diverse" in the paper's text fits. RMSDs are
    after superposition and averaged over samples and frames before they are divided

    Raises
    ------
    LatentError
        Fewer than two samples, or all equal to the reference.
    """
    samples = np.asarray(positions)
    require(
        samples.ndim == 4 and len(samples) > 1 and samples.shape[1:] == np.shape(reference),
        f"positions must have shape (n_samples >= 2, *{np.shape(reference)}) [nm], got {samples.shape}; "
        "rebuild each frame several times",
    )
    spread, error = [], []
    for frame, true in enumerate(reference):
        rebuilt = samples[:, frame]
        spread.append(rmsd(rebuilt, rebuilt.mean(axis=0, dtype=np.float64)))
        error.append(rmsd(rebuilt, true))
    require(np.mean(error) > 0, "positions must differ from reference, got the reference itself; DIV is not defined")
    ratio = float(np.mean(spread) / np.mean(error))
    return {"div": 1.0 - ratio, "ratio": ratio}


def _paired(positions: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both sets after checking that they pair frame by frame."""
    frames, true = checked_frames(positions), checked_frames(reference, "reference")
    require(
        frames.shape == true.shape,
        f"positions must have the shape of reference {true.shape}, got {frames.shape}; pair frame by frame",
    )
    return frames, true
