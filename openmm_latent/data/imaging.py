"""Molecules made whole across periodic images, and put into one common image chosen against a reference structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from openmm import app

from openmm_latent.errors import LatentError


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


class ModelAtoms:
    """Takes the model atoms out of frames of the whole system, after joining molecules that a periodic box has cut.

    Parameters
    ----------
    topology : openmm.app.Topology
        Of the whole system.
    model_atoms : sequence of int
        Indices into the topology.
    reference : np.ndarray or None
        (n_atoms, 3) [nm] whole molecules; see `make_whole`.

    Attributes
    ----------
    kept : np.ndarray
        (n_kept,) the atoms that must be read: all of every molecule with a model atom in it.
    """

    def __init__(self, topology: app.Topology, model_atoms: Sequence[int], reference: np.ndarray | None) -> None:
        bonds = [(bond[0].index, bond[1].index) for bond in topology.bonds()]
        walk, molecules = bond_walk(topology.getNumAtoms(), bonds)
        # whole molecules need all their atoms, molecules without model atoms are not read at all
        wanted = set(model_atoms)
        self.kept = np.array(sorted(a for molecule in molecules if wanted & set(molecule) for a in molecule))
        place = {int(atom): i for i, atom in enumerate(self.kept)}
        self._walk = [(place[a], place[b]) for a, b in walk if a in place]
        self._molecules = [[place[a] for a in molecule] for molecule in molecules if molecule[0] in place]
        self._model = np.array([place[a] for a in model_atoms])
        self._reference = None if reference is None else reference[self.kept]

    def take(self, positions: np.ndarray, boxes: np.ndarray | None) -> np.ndarray:
        """Return the model atoms (n_frames, n_model_atoms, 3) [nm] float32 of frames of the kept atoms.

        Parameters
        ----------
        positions : np.ndarray
            (n_frames, n_kept, 3) [nm]
        boxes : np.ndarray or None
            (n_frames, 3, 3) [nm], rows are box vectors; None leaves molecules where they are.
        """
        if boxes is not None and len(positions):
            is_cut = self._is_cut(positions, boxes)
            if is_cut or len(self._molecules) > 1:
                walk = self._walk if is_cut else []
                positions = make_whole(positions, boxes, walk, self._molecules, self._reference)
        return np.ascontiguousarray(positions[:, self._model], dtype=np.float32)

    def _is_cut(self, positions: np.ndarray, boxes: np.ndarray) -> bool:
        """Tell whether any bond spans half a box; most data sets hold whole molecules, and the walk is slow."""
        if not self._walk:
            return False
        placed, new = np.array(self._walk).T
        reach = np.abs(positions[:, new] - positions[:, placed]).max(axis=1)  # (n_frames, 3)
        return bool(np.any(reach > 0.49 * np.diagonal(boxes, axis1=1, axis2=2)))


def require_sound(positions: np.ndarray, frames: Sequence[int] | np.ndarray, source: str) -> None:
    """Raise `LatentError` if a frame of (n_frames, n_atoms, 3) holds no numbers or has all atoms on one point.

    Parameters
    ----------
    positions : np.ndarray
        (n_frames, n_atoms, 3) [nm]
    frames : sequence of int
        (n_frames,) their numbers in the source, for the message.
    source : str
        What the message calls the source, e.g. "trajectory file run.xtc".
    """
    finite = np.isfinite(positions).all(axis=(1, 2))
    apart = (np.ptp(positions, axis=1) > 0).any(axis=1) if positions.shape[1] > 1 else finite
    bad = np.flatnonzero(~(finite & apart))
    if len(bad):
        what = "coordinates that are not numbers" if not finite[bad[0]] else "all atoms on one point"
        raise LatentError(
            f"{source} has {what} in frame {int(frames[bad[0]])}; it may be truncated or the run has blown up: "
            f"cut the file before that frame"
        )
