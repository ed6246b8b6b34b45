"""Frames of complexes in order, and windows of them: what models with memory learn from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
from openmm import app

from openmm_latent.data.complex_files import ligands_in
from openmm_latent.data.complex_tokens import ComplexTokens, read_tokens
from openmm_latent.data.datasets import DataSet, Entry, runs_to_learn_from
from openmm_latent.data.trajectories import TrajectorySet, frames_per_lag
from openmm_latent.errors import LatentError, require


@dataclass(frozen=True)
class ComplexFrames:
    """The runs of one complex.

    Attributes
    ----------
    name : str
    tokens : ComplexTokens
    runs : tuple of ndarray
        Each (n_frames, n_atoms, 3) [nm] float32, in order of time; molecules whole and in one image.
    frame_spacing : float
        [ps]
    trunk : tuple of ndarray, optional
        (n_tokens, n_trunk_single) and (n_tokens, n_tokens, n_trunk_pair) of another model.
    """

    name: str
    tokens: ComplexTokens
    runs: tuple[np.ndarray, ...]
    frame_spacing: float
    trunk: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        """Return the number of frames of all runs."""
        return sum(len(run) for run in self.runs)

    @property
    def reference(self) -> np.ndarray:
        """(n_atoms, 3) [nm] the first frame."""
        return self.runs[0][0]

    def n_windows(self, n_frames: int, stride: int) -> list[int]:
        """Return how many windows of so many frames, so many apart, begin in each run."""
        return [max(0, len(run) - (n_frames - 1) * stride) for run in self.runs]

    def windows(self, n_frames: int, stride: int, n_drawn: int, rng: np.random.Generator) -> np.ndarray:
        """Draw windows at random: (n_drawn, n_frames, n_atoms, 3) [nm].

        Raises
        ------
        LatentError
            No run is as long.
        """
        counts = np.cumsum(self.n_windows(n_frames, stride))
        require(
            counts[-1] > 0,
            f"{self.name} has no run of {(n_frames - 1) * stride + 1} frames, which a window of {n_frames} frames "
            f"{stride * self.frame_spacing:g} ps apart takes; give longer runs, fewer frames or a shorter lag time",
        )
        drawn = rng.integers(counts[-1], size=n_drawn)
        which = np.searchsorted(counts, drawn, side="right")
        starts = drawn - np.where(which > 0, counts[which - 1], 0)
        steps = stride * np.arange(n_frames)
        return np.stack([self.runs[run][start + steps] for run, start in zip(which, starts, strict=True)])


def complex_frames(
    topology: app.Topology,
    trajectories: Sequence[np.ndarray],
    frame_spacing: float,
    *,
    name: str = "complex",
    atoms: Sequence[int] | np.ndarray | None = None,
    system: openmm.System | None = None,
    tokens: ComplexTokens | None = None,
) -> ComplexFrames:
    """Take the model atoms out of the frames of one complex.

    Parameters
    ----------
    topology : openmm.app.Topology
    trajectories : sequence of ndarray
        Each (n_frames, n_atoms, 3) [nm], in order of time.
    frame_spacing : float
        [ps]
    name : str
    atoms : sequence of int, optional
        (n_atoms,) which of the topology's atoms the arrays hold, in order; all unless given.
    system : openmm.System, optional
        Gives charges, see `read_tokens`.
    tokens : ComplexTokens, optional
        Instead of reading them from the topology.

    Raises
    ------
    LatentError
        The tokens cannot be read, or the arrays do not hold the atoms they should.
    """
    tokens = read_tokens(topology, system) if tokens is None else tokens
    held = np.arange(topology.getNumAtoms()) if atoms is None else np.asarray(atoms, dtype=np.int64)
    require(len(trajectories) > 0, f"trajectories of {name} must hold at least one, got none; give one array a run")
    require(frame_spacing > 0, f"frame_spacing must be a positive time in ps, got {frame_spacing}")
    for number, frames in enumerate(trajectories):
        require(
            np.ndim(frames) == 3 and np.shape(frames)[1:] == (len(held), 3) and len(frames) > 0,
            f"trajectory {number} of {name} must have shape (n_frames, n_atoms={len(held)}, 3) [nm], got "
            f"{np.shape(frames)}; say by atoms which atoms it holds",
        )
    place = np.full(topology.getNumAtoms(), -1)
    place[held] = np.arange(len(held))
    columns = place[tokens.atoms]
    require(
        bool((columns >= 0).all()),
        f"atoms lack {int((columns < 0).sum())} heavy atoms of {name}; give all but those of water and ions",
    )
    runs = tuple(np.ascontiguousarray(np.asarray(frames)[:, columns], dtype=np.float32) for frames in trajectories)
    require(all(bool(np.isfinite(run).all()) for run in runs), f"trajectories of {name} hold positions that are no "
            f"numbers; cut such frames off")  # fmt: skip
    return ComplexFrames(name, tokens, runs, float(frame_spacing))


def complex_of(
    trajectories: TrajectorySet, *, name: str = "complex", system: openmm.System | None = None
) -> ComplexFrames:
    """Take what `load_trajectories` read; its model atoms must hold all heavy atoms."""
    return complex_frames(
        trajectories.topology,
        trajectories.positions,
        trajectories.frame_spacing,
        name=name,
        atoms=trajectories.model_atoms,
        system=system,
    )


def read_complex_frames(
    dataset: DataSet,
    names: Iterable[str] | None = None,
    *,
    temperature: float | None = None,
    stride: int = 1,
    ligands: Sequence[str | Path] = (),
    systems: Mapping[str, openmm.System] | None = None,
) -> list[ComplexFrames]:
    """Read the runs of each entry of a data set, ligands included.

    Parameters
    ----------
    dataset : DataSet
        From `open_dataset`.
    names : iterable of str, optional
        Which entries; all unless given.
    temperature : float, optional
        [K] Only runs at this one.
    stride : int
        Keep every stride-th frame.
    ligands : sequence of path
        SDF files that tell bond orders, each of a ligand in one entry at least.
    systems : dict of str to openmm.System, optional
        By entry, those that give charges; all entries or none.

    Raises
    ------
    LatentError
        An entry has no runs, or its tokens cannot be read; the sentence names it. An SDF file fits no entry.
    """
    require(stride >= 1, f"stride must be a positive whole number, got {stride}")
    entries = [dataset[name] for name in (dataset.names if names is None else names)]
    fitting = {entry.name: ligands_in(entry.topology, ligands) for entry in entries}
    for path in ligands:
        require(
            any(Path(path) in fits for fits in fitting.values()),
            f"ligand file {path} fits no residue of {', '.join(fitting)}; give the ligand that is in one of them, with "
            f"the same heavy atoms and bonds",
        )
    given = systems or {}
    absent = [entry.name for entry in entries if given and entry.name not in given]
    require(not absent, f"systems lack one for {', '.join(absent[:3])}; give one for each complex, or none")
    return [_entry_frames(entry, temperature, stride, fitting[entry.name], given.get(entry.name)) for entry in entries]


def _entry_frames(
    entry: Entry, temperature: float | None, stride: int, ligands: Sequence[Path], system: openmm.System | None
) -> ComplexFrames:
    runs = runs_to_learn_from(entry, temperature)
    spacings = {run.frame_spacing for run in runs}
    require(
        len(spacings) == 1 and None not in spacings,
        f"the runs of entry {entry.name} must have one frame spacing; open the data set with frame_spacing in ps",
    )
    try:
        tokens = read_tokens(entry.topology, system, ligands)
        read = [np.concatenate(list(entry.stream(run, stride=stride, atoms=tokens.atoms.tolist()))) for run in runs]
        spacing = float(spacings.pop() or 0.0) * stride
        return complex_frames(entry.topology, read, spacing, name=entry.name, atoms=tokens.atoms, tokens=tokens)
    except LatentError as error:
        raise LatentError(f"entry {entry.name}: {error}") from error


def stride_of(frames: ComplexFrames, lag_time: float) -> int:
    """Return how many frames of a complex one lag time [ps] is; see `frames_per_lag`."""
    try:
        return frames_per_lag(lag_time, frames.frame_spacing)
    except LatentError as error:
        raise LatentError(f"{frames.name}: {error}") from error


def crop_tokens(tokens: ComplexTokens, positions: np.ndarray, n_tokens: int, rng: np.random.Generator) -> np.ndarray:
    """Choose so many tokens: a stretch of a protein, or a ligand with what is nearest to it.

    Parameters
    ----------
    tokens : ComplexTokens
    positions : ndarray
        (n_atoms, 3) [nm] that tell what is near.
    n_tokens : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int
        Rising, at most `n_tokens`; all where the complex has no more. For `ComplexTokens.select`.

    Source: ATMOS, appendix D.
    """
    if len(tokens) <= n_tokens:
        return np.arange(len(tokens))
    if not tokens.is_ligand.any():
        first = int(rng.integers(len(tokens) - n_tokens + 1))
        return np.arange(first, first + n_tokens)
    centres = positions[tokens.centres]
    chosen = rng.choice(np.flatnonzero(tokens.is_ligand))
    molecule = tokens.is_ligand & (tokens.chains == tokens.chains[chosen])
    between = np.linalg.norm(centres[:, None] - centres[None, molecule], axis=2).min(axis=1)
    return np.sort(np.argsort(between, kind="stable")[:n_tokens])
