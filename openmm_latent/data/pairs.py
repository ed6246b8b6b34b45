"""Lag pairs drawn from whole data sets: frames now and one lag time later, without reading what lies between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from openmm_latent.data.datasets import DataSet, Entry, Run, runs_at
from openmm_latent.data.trajectories import frames_per_lag
from openmm_latent.errors import LatentError, require

#: Words for `weighting`.
_WEIGHTINGS = ("protein", "pair")


@dataclass(frozen=True)
class PairBatch:
    """Lag pairs of one entry.

    Attributes
    ----------
    entry : str
    now, later : np.ndarray
        (n_pairs, n_model_atoms, 3) [nm] float32
    runs : tuple of str
        (n_pairs,) the run of each pair.
    frames : np.ndarray
        (n_pairs,) the frame number of `now`.
    temperatures : np.ndarray
        (n_pairs,) [K], NaN where unknown.
    """

    entry: str
    now: np.ndarray
    later: np.ndarray
    runs: tuple[str, ...]
    frames: np.ndarray
    temperatures: np.ndarray


def stream_lag_pairs(
    dataset: DataSet,
    lag_time: float,
    *,
    batch_size: int = 32,
    n_batches: int | None = None,
    seed: int = 1,
    first_batch: int = 0,
    step: int = 1,
    weighting: str = "protein",
    temperature: float | None = None,
    atoms: str | Sequence[int] = "heavy",
) -> Iterator[PairBatch]:
    """Draw batches of lag pairs at random, each from one entry.

    Only the frames drawn are read, so memory holds one batch. Batch k depends on the seed and k alone: a restart
    begins at `first_batch`, and worker w of n takes `first_batch=w, step=n`.

    Parameters
    ----------
    dataset : DataSet
    lag_time : float
        [ps] between now and later; a multiple of the frame spacing.
    batch_size : int
        Pairs in a batch, drawn without doubles where the entry has as many.
    n_batches : int or None
        None goes on for ever.
    seed, first_batch, step : int
    weighting : str
        "protein" draws entries evenly; "pair" by their numbers of pairs, which opens every file once before the start.
    temperature : float or None
        [K] Use only runs at this one.
    atoms : str or sequence of int
        "heavy" or "all"; indices only if they are right for every entry.

    Yields
    ------
    PairBatch

    Raises
    ------
    LatentError
        The lag time is no multiple of a frame spacing or longer than all runs of the entry drawn, or a file is damaged.
    """
    require(batch_size >= 1, f"batch_size must be a positive whole number, got {batch_size}")
    require(first_batch >= 0 and step >= 1, f"first_batch and step must count upwards, got {first_batch} and {step}")
    require(weighting in _WEIGHTINGS, f"weighting must be one of {', '.join(_WEIGHTINGS)}, got {weighting!r}")
    require(len(dataset) > 0, f"data set {dataset.path} has no entries to draw pairs from")
    weights = None
    if weighting == "pair":
        counts = np.array(list(count_lag_pairs(dataset, lag_time, temperature=temperature).values()), dtype=float)
        require(counts.sum() > 0, f"lag_time {lag_time:g} ps is longer than every run of data set {dataset.path}")
        weights = counts / counts.sum()
    number = first_batch
    while n_batches is None or number < first_batch + n_batches * step:
        rng = np.random.default_rng([seed, number])
        entry = dataset.entries[rng.choice(len(dataset), p=weights)]
        yield _draw(entry, lag_time, batch_size, temperature, atoms, rng)
        number += step


def count_lag_pairs(dataset: DataSet, lag_time: float, *, temperature: float | None = None) -> dict[str, int]:
    """Return the number of lag pairs of each entry; opens every file, reads no frames but the first and last."""
    return {entry.name: sum(n for _, _, n in _pairs_of(entry, lag_time, temperature)) for entry in dataset}


def _pairs_of(entry: Entry, lag_time: float, temperature: float | None) -> list[tuple[Run, int, int]]:
    """Return each run with its frames a lag and its number of pairs."""
    found = []
    for run in runs_at(entry, temperature):
        if run.frame_spacing is None:
            raise LatentError(
                f"run {run.name} of {entry.name} has no frame spacing; open the data set with frame_spacing in ps"
            )
        n_lag = frames_per_lag(lag_time, run.frame_spacing)
        found.append((run, n_lag, max(0, run.n_frames - n_lag)))
    return found


def _draw(
    entry: Entry,
    lag_time: float,
    batch_size: int,
    temperature: float | None,
    atoms: str | Sequence[int],
    rng: np.random.Generator,
) -> PairBatch:
    pairs = _pairs_of(entry, lag_time, temperature)
    ends = np.cumsum([n for _, _, n in pairs], dtype=np.int64)
    longest = max((run.n_frames for run, _, _ in pairs), default=0)
    require(
        len(ends) > 0 and ends[-1] > 0,
        f"lag_time {lag_time:g} ps is longer than every run of {entry.name} (at most {longest} frames); give a shorter "
        f"one, or leave the entry out",
    )
    drawn = np.sort(rng.choice(int(ends[-1]), size=batch_size, replace=bool(ends[-1] < batch_size)))
    which = np.searchsorted(ends, drawn, side="right")
    frames = drawn - np.where(which > 0, ends[which - 1], 0)
    now, later = [], []
    for k in np.unique(which):
        run, n_lag, _ = pairs[k]
        start = frames[which == k]
        both = entry.frames(run, np.concatenate([start, start + n_lag]), atoms)
        now.append(both[: len(start)])
        later.append(both[len(start) :])
    order = rng.permutation(batch_size)  # runs mixed within the batch
    temperatures = np.array([np.nan if pairs[k][0].temperature is None else pairs[k][0].temperature for k in which])
    return PairBatch(
        entry=entry.name,
        now=np.concatenate(now)[order],
        later=np.concatenate(later)[order],
        runs=tuple(pairs[which[i]][0].name for i in order),
        frames=frames[order],
        temperatures=temperatures[order],
    )
