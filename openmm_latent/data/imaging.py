"""Molecules made whole across periodic images, and put into one common image chosen against a reference structure."""

from __future__ import annotations

import numpy as np


def bond_walk(n_atoms: int, bonds: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """Order bonds so that each links a new atom to one already placed.

    Parameters
    ----------
    n_atoms : int
    bonds : list of (int, int)

    Returns
    -------
    walk : list of (placed, new)
    molecules : list of lists of atoms, each sorted, in order of their first atom
    """
    neighbours: list[list[int]] = [[] for _ in range(n_atoms)]
    for first, second in bonds:
        neighbours[first].append(second)
        neighbours[second].append(first)
    is_seen = [False] * n_atoms
    walk: list[tuple[int, int]] = []
    molecules: list[list[int]] = []
    for root in range(n_atoms):
        if is_seen[root]:
            continue
        is_seen[root] = True
        molecule = [root]
        for atom in molecule:  # grows while it is walked: breadth first
            for other in neighbours[atom]:
                if not is_seen[other]:
                    is_seen[other] = True
                    walk.append((atom, other))
                    molecule.append(other)
        molecules.append(sorted(molecule))
    return walk, molecules


def make_whole(
    positions: np.ndarray,
    boxes: np.ndarray,
    walk: list[tuple[int, int]],
    molecules: list[list[int]],
    reference: np.ndarray | None,
) -> np.ndarray:
    """Join molecules that a periodic box has cut, then bring all of them into one image.

    Parameters
    ----------
    positions : np.ndarray
        (n_frames, n_atoms, 3) [nm]
    boxes : np.ndarray
        (n_frames, 3, 3) [nm], rows are box vectors in OpenMM's reduced form
    walk, molecules
        From `bond_walk`.
    reference : np.ndarray or None
        (n_atoms, 3) [nm], whole molecules: each molecule goes to the image in which its offset from the first
        one is nearest to the reference's. Without one, to the image nearest to the first molecule.

    Returns
    -------
    np.ndarray
        (n_frames, n_atoms, 3) [nm] float32
    """
    whole = positions.astype(np.float64)
    boxes = boxes.astype(np.float64)
    for placed, new in walk:
        whole[:, new] -= _lattice(whole[:, new] - whole[:, placed], boxes)
    first = whole[:, molecules[0]].mean(axis=1)
    for molecule in molecules[1:]:
        offset = whole[:, molecule].mean(axis=1) - first
        if reference is not None:
            offset = offset - (reference[molecule].mean(axis=0) - reference[molecules[0]].mean(axis=0))
        whole[:, molecule] -= _lattice(offset, boxes)[:, None]
    return whole.astype(np.float32)


def _lattice(vectors: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Lattice vector nearest to each of (n_frames, 3) [nm] vectors; c, b, a in turn, as for a reduced triclinic box."""
    rest = vectors.copy()
    for axis in (2, 1, 0):
        rest -= np.round(rest[:, axis] / boxes[:, axis, axis])[:, None] * boxes[:, axis]
    return vectors - rest
