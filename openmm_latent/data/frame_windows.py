"""Runs of proteins in residue slots, and windows of frames drawn from them at random strides.

What models with a memory learn from: a window is some frames of one run, equally far apart; how far is drawn anew for
each, from one frame spacing to as much as the run is long enough for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Generator

from openmm_latent.data.datasets import DataSet, Entry, runs_to_learn_from
from openmm_latent.data.residue_slots import frames_of, read_runs
from openmm_latent.data.trajectories import TrajectorySet
from openmm_latent.errors import require
from openmm_latent.nn.residue_geometry import Residues

#: Longest stride of a window, in frames: the paper's 2^10.
MAX_STRIDE = 1024


@dataclass(frozen=True)
class ProteinRuns:
    """The runs of one protein; time runs on inside a run and never from one to the next.

    Attributes
    ----------
    name : str
    residues : Residues
    disulphides : ndarray of int
        (n_disulphides, 2) residues whose SG are bonded
    runs : tuple of ndarray
        Each (n_frames, n_residues, 15, 3) [nm] float32, in slots as in `ProteinFrames`.
    frame_spacing : float
        [ps]
    """

    name: str
    residues: Residues
    disulphides: np.ndarray
    runs: tuple[np.ndarray, ...]
    frame_spacing: float

    @property
    def n_frames(self) -> int:
        """Frames of all runs together."""
        return sum(len(run) for run in self.runs)

    def take(self, chosen: Sequence[int]) -> ProteinRuns:
        """Return some of the runs, by their numbers from 0: files are held out so."""
        known = len(self.runs)
        require(
            len(chosen) > 0 and all(0 <= number < known for number in chosen),
            f"chosen must name some of the {known} runs of {self.name} from 0 to {known - 1}, got {list(chosen)}",
        )
        return replace(self, runs=tuple(self.runs[number] for number in chosen))

    def split(self, fraction: float) -> tuple[ProteinRuns, ProteinRuns]:
        """Split every run in time: its first `fraction`, and the rest."""
        cuts = [round(fraction * len(run)) for run in self.runs]
        require(
            all(0 < cut < len(run) for cut, run in zip(cuts, self.runs, strict=True)),
            f"fraction must leave frames on both sides of every run of {self.name}, got {fraction} for runs of "
            f"{[len(run) for run in self.runs]} frames",
        )
        first = tuple(run[:cut] for run, cut in zip(self.runs, cuts, strict=True))
        rest = tuple(run[cut:] for run, cut in zip(self.runs, cuts, strict=True))
        return replace(self, runs=first), replace(self, runs=rest)


@dataclass(frozen=True)
class FrameWindows:
    """Windows of one protein.

    Attributes
    ----------
    positions : ndarray
        (n_windows, n_frames, n_residues, 15, 3) [nm]
    times : ndarray
        (n_windows, n_frames) [ps] since the earliest frame of each window
    """

    positions: np.ndarray
    times: np.ndarray

    def with_end_first(self, end: int) -> FrameWindows:
        """Return windows for interpolation: the frame that is to be reached, then all before it, in order.

        Parameters
        ----------
        end : int
            Place of that frame, at least 2, so that there is something between.

        Source: ConfRover, section 4.3.
        """
        n_frames = self.times.shape[1]
        require(2 <= end < n_frames, f"end must lie between 2 and {n_frames - 1} in windows of {n_frames}, got {end}")
        order = [end, *range(end)]
        return FrameWindows(self.positions[:, order], self.times[:, order])


def draw_windows(
    protein: ProteinRuns, n_windows: int, n_frames: int, generator: Generator, max_stride: int = MAX_STRIDE
) -> FrameWindows:
    """Draw windows of equally spaced frames, all equally likely at each stride.

    Parameters
    ----------
    protein : ProteinRuns
    n_windows, n_frames : int
        Windows, and frames of each.
    generator : torch.Generator
    max_stride : int
        Strides are drawn log-uniformly from 1 to this one, or to what the longest run allows.

    Raises
    ------
    LatentError
        No run is long enough.

    Source: ConfRover, appendix D.2. DISCREPANCY(ConfRover, stride "randomly" from 1 to 1024): log-uniform, so that all
    timescales come equally often.
    """
    require(
        n_windows >= 1 and n_frames >= 1 and max_stride >= 1,
        f"n_windows, n_frames and max_stride must be at least 1, got {n_windows}, {n_frames} and {max_stride}",
    )
    last = longest_stride(protein, n_frames, max_stride)
    positions, strides = [], []
    for _ in range(n_windows):
        stride = min(last, int(math.exp(float(torch.rand((), generator=generator)) * math.log(last + 1))))
        run, start = _draw_start(protein, (n_frames - 1) * stride, generator)
        positions.append(protein.runs[run][start : start + (n_frames - 1) * stride + 1 : stride])
        strides.append(stride)
    times = protein.frame_spacing * np.array(strides)[:, None] * np.arange(n_frames)
    return FrameWindows(np.stack(positions), times)


def longest_stride(protein: ProteinRuns, n_frames: int, max_stride: int = MAX_STRIDE) -> int:
    """Return the longest stride of windows of so many frames, in frames: what runs allow, at most `max_stride`.

    Raises
    ------
    LatentError
        No run is long enough.
    """
    longest = max(len(run) for run in protein.runs)
    require(
        longest >= n_frames,
        f"protein {protein.name} has runs of at most {longest} frames, and a window needs {n_frames}; give longer runs "
        f"or shorter windows",
    )
    return max_stride if n_frames == 1 else min(max_stride, (longest - 1) // (n_frames - 1))


def _draw_start(protein: ProteinRuns, reach: int, generator: Generator) -> tuple[int, int]:
    """Draw run and first frame, where `reach` more frames must follow: every such place is equally likely."""
    ends = np.cumsum([max(0, len(run) - reach) for run in protein.runs])
    place = int(torch.randint(int(ends[-1]), (), generator=generator))
    run = int(np.searchsorted(ends, place, side="right"))
    return run, place - (int(ends[run - 1]) if run else 0)


def runs_of(trajectories: TrajectorySet, *, name: str = "protein", others: str = "refuse") -> ProteinRuns:
    """Put what `load_trajectories` read into slots, file by file; its model atoms must hold all heavy atoms."""
    found = frames_of(trajectories, name=name, others=others)
    cuts = np.cumsum([len(part) for part in trajectories.positions])[:-1]
    runs = tuple(np.split(found.positions, cuts))
    return ProteinRuns(name, found.residues, found.disulphides, runs, trajectories.frame_spacing)


def read_protein_runs(
    dataset: DataSet,
    names: Iterable[str] | None = None,
    *,
    temperature: float | None = None,
    stride: int = 1,
    others: str = "refuse",
) -> list[ProteinRuns]:
    """Put the runs of each protein of a data set into slots; all are held in memory.

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
    others : str
        See `read_residue_slots`.

    Raises
    ------
    LatentError
        An entry has no runs, no frame spacing or several, or its residues cannot be put into slots.
    """
    require(stride >= 1, f"stride must be a positive whole number, got {stride}")
    chosen = dataset.names if names is None else names
    return [_entry_runs(dataset[name], temperature, stride, others) for name in chosen]


def _entry_runs(entry: Entry, temperature: float | None, stride: int, others: str) -> ProteinRuns:
    runs = runs_to_learn_from(entry, temperature)
    spacings = sorted({run.frame_spacing for run in runs if run.frame_spacing is not None})
    require(
        len(spacings) == 1 and all(run.frame_spacing is not None for run in runs),
        f"entry {entry.name} must have runs of one frame spacing, got {', '.join(f'{s:g}' for s in spacings) or 'none'}"
        f" ps; open the data set with frame_spacing",
    )
    found, lengths = read_runs(entry, runs, stride, others)
    parts = tuple(np.split(found.positions, np.cumsum(lengths)[:-1]))
    return ProteinRuns(entry.name, found.residues, found.disulphides, parts, spacings[0] * stride)
