"""Ensembles as scores see them: superposed frames, torsions and trace atoms, cut into runs, halves and blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from openmm_latent.data.trajectories import TrajectorySet, load_topology, load_trajectories, select_atoms
from openmm_latent.errors import require
from openmm_latent.geometry import dihedrals, superpose
from openmm_latent.report.molecule import Molecule, choose_atoms, make_molecule
from openmm_latent.topology import match_atoms

#: Frames whose torsions are computed at once.
_CHUNK_FRAMES = 2000
#: Larger references are halved one way only, at a run's end, where a half is a view and not a copy [bytes].
_LARGE = 400_000_000


@dataclass(frozen=True)
class Ensemble:
    """Frames of one or several runs, end to end.

    Attributes
    ----------
    name : str
    molecule : Molecule
    positions : array of float32, (n_frames, n_atoms, 3) [nm], or None
        Superposed on one structure by the trace atoms. None for a sampler of trace atoms alone.
    trace : array of float32, (n_frames, n_trace, 3) [nm], or None
    angles : array of float32, (n_frames, n_torsions) [rad], or None
    lengths : tuple of int
        Frames of each run.
    frame_spacing : float or None
        [ps]; None for independent draws, which have no kinetics.
    features : array of float32, (n_frames, n_features), or None
        What slow coordinates are made of; None until they are chosen.
    """

    name: str
    molecule: Molecule
    positions: np.ndarray | None
    trace: np.ndarray | None
    angles: np.ndarray | None
    lengths: tuple[int, ...]
    frame_spacing: float | None
    features: np.ndarray | None = None

    @property
    def n_frames(self) -> int:
        """Frames of all runs together."""
        return sum(self.lengths)

    def runs(self, array: np.ndarray) -> list[np.ndarray]:
        """Cut an array over all frames into its runs: views."""
        edges = np.cumsum((0, *self.lengths))
        return [array[a:b] for a, b in pairwise(edges)]

    def taken(self, chosen: Any, lengths: tuple[int, ...], frame_spacing: float | None) -> Ensemble:
        """Return some frames: a slice gives views, indices give copies."""
        arrays: dict[str, Any] = {
            key: None if getattr(self, key) is None else getattr(self, key)[chosen]
            for key in ("positions", "trace", "angles", "features")
        }
        if self.trace is self.positions:
            arrays["trace"] = arrays["positions"]
        return replace(self, lengths=lengths, frame_spacing=frame_spacing, **arrays)

    def first(self, n_frames: int) -> Ensemble:
        """Return the first frames in time order, at most `n_frames`; runs keep their lengths until these are used."""
        lengths, left = [], n_frames
        for length in self.lengths:
            lengths.append(min(length, left))
            left -= lengths[-1]
        return self.taken(slice(0, min(n_frames, self.n_frames)), tuple(n for n in lengths if n), self.frame_spacing)

    def thinned(self, n_frames: int) -> Ensemble:
        """Return at most `n_frames` frames, evenly spread over the runs; they no longer have kinetics."""
        if n_frames >= self.n_frames:
            return self
        chosen = np.linspace(0, self.n_frames - 1, n_frames).round().astype(int)
        return self.taken(chosen, (len(chosen),), None)

    def halves(self) -> list[tuple[Ensemble, Ensemble]]:
        """Return up to three ways to part the runs into two equal groups; one run is cut in the middle.

        Raises
        ------
        LatentError
            There are fewer than four frames.
        """
        require(
            self.n_frames >= 4, f"{self.name} must hold at least four frames, got {self.n_frames}; its halves need two"
        )
        n_runs = len(self.lengths)
        size = 0 if self.positions is None else self.positions.nbytes
        if n_runs == 1:
            middle = self.n_frames // 2
            first, second = slice(0, middle), slice(middle, 2 * middle)
            lengths = (middle,)
            return [(self.taken(first, lengths, self.frame_spacing), self.taken(second, lengths, self.frame_spacing))]
        groups = [_halved(n_runs, order) for order in _orders(n_runs)]
        return [(self._group(a), self._group(b)) for a, b in groups[: 1 if size > _LARGE else None]]

    def _group(self, chosen: Sequence[int]) -> Ensemble:
        edges = np.cumsum((0, *self.lengths))
        lengths = tuple(self.lengths[k] for k in chosen)
        if list(chosen) == list(range(chosen[0], chosen[0] + len(chosen))):
            return self.taken(slice(edges[chosen[0]], edges[chosen[-1] + 1]), lengths, self.frame_spacing)
        frames = np.concatenate([np.arange(edges[k], edges[k + 1]) for k in chosen])
        return self.taken(frames, lengths, self.frame_spacing)


def _orders(n_runs: int) -> list[list[int]]:
    """Return orders of runs whose halves differ: as they come, every second one, and shifted by one."""
    straight = list(range(n_runs))
    if n_runs < 4:
        return [straight]
    return [straight, straight[::2] + straight[1::2], straight[1:] + straight[:1]]


def _halved(n_runs: int, order: list[int]) -> tuple[list[int], list[int]]:
    """Return two groups of equally many runs."""
    half = n_runs // 2
    return sorted(order[:half]), sorted(order[half : 2 * half])


def make_ensemble(
    name: str,
    molecule: Molecule,
    positions: list[np.ndarray],
    structure: np.ndarray,
    frame_spacing: float | None,
) -> Ensemble:
    """Superpose runs on a structure by their trace atoms and measure their torsions.

    Parameters
    ----------
    name : str
    molecule : Molecule
    positions : list of array, (n_frames, n_atoms, 3) [nm]
        One a run; emptied, so that the runs need not lie in memory twice.
    structure : array, (n_atoms, 3) [nm]
    frame_spacing : float [ps], or None
    """
    lengths = tuple(len(run) for run in positions)
    weights = np.zeros(len(structure))
    weights[molecule.trace] = 1.0
    together = _joined(positions)
    superpose(together, structure, weights, out=together)
    angles = np.empty((len(together), len(molecule.quadruples)), dtype=np.float32)
    for begin in range(0, len(together), _CHUNK_FRAMES):
        piece = slice(begin, begin + _CHUNK_FRAMES)
        angles[piece] = dihedrals(together[piece], molecule.quadruples)
    trace = together if len(molecule.trace) == len(molecule.atoms) else together[:, molecule.trace]
    return Ensemble(name, molecule, together, trace, angles, lengths, frame_spacing)


def _joined(runs: list[np.ndarray]) -> np.ndarray:
    """Put runs end to end in single precision, emptying the list: no more than one run lies in memory twice."""
    if len(runs) == 1 and runs[0].dtype == np.float32:
        return runs.pop()
    together = np.empty((sum(map(len, runs)), *runs[0].shape[1:]), dtype=np.float32)
    start = 0
    while runs:
        run = runs.pop(0)
        together[start : start + len(run)] = run
        start += len(run)
    return together


@dataclass(frozen=True)
class Reader:
    """Reads ensembles of one molecule onto one structure.

    Attributes
    ----------
    molecule : Molecule
    structure : array, (n_atoms, 3) [nm], or None
        None until a first frame is taken for it.
    structure_source : str
        Where it came from, in words.
    stride : int
    """

    molecule: Molecule
    structure: np.ndarray | None
    structure_source: str
    stride: int

    def read(
        self, name: str, files: Sequence[Path], top: Path | None, frame_spacing: float | None, has_time: bool = True
    ) -> tuple[Ensemble, TrajectorySet, Reader]:
        """Read files into an ensemble.

        Parameters
        ----------
        name : str
        files : sequence of path
        top : path or None
            Their own topology, where it is not the reference's; atoms are matched by name.
        frame_spacing : float or None
            [ps] between the files' frames; None takes their time stamps.
        has_time : bool
            False for independent draws.

        Returns
        -------
        ensemble : Ensemble
        facts : TrajectorySet
            With files, digest and provenance; its positions are emptied.
        reader : Reader
            This one, with a structure.
        """
        topology, atoms = self.molecule.topology, self.molecule.atoms
        if top is not None:
            topology, _ = load_topology(top)
            atoms = match_atoms(self.molecule.records, topology, "the reference")
        spacing = frame_spacing if has_time or frame_spacing is not None else 1.0
        loaded = load_trajectories(topology, files, atoms=atoms, stride=self.stride, frame_spacing=spacing)
        reader, structure = self, self.structure
        if structure is None:
            structure = np.array(loaded.positions[0][0], dtype=np.float64)
            reader = replace(self, structure=structure, structure_source=f"first frame of {Path(files[0]).name}")
        kept = loaded.frame_spacing if has_time else None
        facts = replace(loaded, positions=[])
        return make_ensemble(name, self.molecule, loaded.positions, structure, kept), facts, reader


def open_reader(top: Path, atoms: str, structure: Path | None, stride: int) -> Reader:
    """Choose the scored atoms of a topology and the structure that frames are superposed on.

    Parameters
    ----------
    top : path
    atoms : str
        "heavy", "all" or "ca".
    structure : path or None
        A structure file (such as the crystal's), else the positions of `top`, else the reference's first frame.
    stride : int

    Raises
    ------
    LatentError
        A file cannot be read, or `structure` has no positions or other atoms.
    """
    topology, positions = load_topology(top)
    molecule = make_molecule(topology, select_atoms(topology, choose_atoms(topology, atoms)))
    source = Path(top).name
    chosen = molecule.atoms
    if structure is not None:
        other, positions = load_topology(structure)
        require(positions is not None, f"structure (--structure) {structure} holds no positions; give a PDB or mmCIF")
        chosen, source = match_atoms(molecule.records, other, "the reference"), Path(structure).name
    if positions is None:
        return Reader(molecule, None, "", stride)
    return Reader(molecule, np.asarray(positions, dtype=np.float64)[chosen], source, stride)
