"""Single frames out of large trajectory files, without reading what lies before them."""

from __future__ import annotations

import os
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from openmm_latent.data.readers import frames_in_dcd_header, reading, without_plugin_chatter
from openmm_latent.errors import LatentError, require

#: Formats that can be entered at any frame, and how mdtraj hands their frames on.
SEEKABLE = (".xtc", ".trr", ".dcd", ".nc", ".netcdf", ".ncdf")
_NANOMETRE_FORMATS = {".xtc", ".trr"}
#: Stamps are float32 in most formats; two spacings count as equal within this fraction.
_TOLERANCE = 1e-3


class FrameFile:
    """A trajectory file that is entered at any frame.

    Parameters
    ----------
    path : Path
        XTC, TRR, DCD or NetCDF.

    Attributes
    ----------
    n_frames, n_atoms : int
    spacing : float or None
        [ps] between frames by the file's time stamps; None where it has none. Judged when it is asked for.

    Raises
    ------
    LatentError
        The file is absent, empty, truncated or of another format; on reading `spacing`, its time stamps are uneven.
    """

    def __init__(self, path: Path) -> None:
        import mdtraj

        self.path, self._suffix = path, path.suffix.lower()
        require(path.is_file(), f"trajectory file {path} does not exist; was it moved since the data set was opened?")
        require(
            self._suffix in SEEKABLE,
            f"trajectory file {path} cannot be entered at any frame; data sets take {', '.join(SEEKABLE)}: "
            f"convert it, e.g. to XTC, or read it whole with load_trajectories",
        )
        with reading(path):
            with without_plugin_chatter(path):
                self._handle = mdtraj.open(str(path))
                self.n_frames = len(self._handle)
            require(self.n_frames > 0, f"trajectory file {path} holds no frames; leave it out or write it again")
            last, last_time, _ = self._read(self.n_frames - 1, 1)
            require(len(last) == 1, f"trajectory file {path} is truncated in its last frame; copy it again")
            self.n_atoms = int(last.shape[1])
            self._last_time = last_time
        if self._suffix == ".dcd":
            n_promised = frames_in_dcd_header(path)
            require(
                n_promised <= self.n_frames,
                f"trajectory file {path} is truncated: its header promises {n_promised} frames and {self.n_frames} are "
                f"there; copy it again or cut it to whole frames",
            )

    def read(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Read frames in any order.

        Parameters
        ----------
        frames : np.ndarray
            (n_read,) frame numbers.

        Returns
        -------
        positions : np.ndarray
            (n_read, n_atoms, 3) [nm] float32
        boxes : np.ndarray or None
            (n_read, 3, 3) [nm]; None without a periodic box.
        """
        positions = np.empty((len(frames), self.n_atoms, 3), dtype=np.float32)
        boxes: np.ndarray | None = None
        with reading(self.path):
            for start, places in spans(frames):
                part, _, part_boxes = self._read(start, len(places))
                require(
                    len(part) == len(places),
                    f"trajectory file {self.path} ends within frames {start} to {start + len(places) - 1}; it may be "
                    f"truncated: copy it again",
                )
                positions[places] = part
                if part_boxes is not None:
                    boxes = np.zeros((len(frames), 3, 3)) if boxes is None else boxes
                    boxes[places] = part_boxes
        return positions, boxes

    def _read(self, start: int, n_frames: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Return positions [nm], times [ps] and boxes [nm] of consecutive frames."""
        self._handle.seek(start)
        got = self._handle.read(n_frames)
        if self._suffix in _NANOMETRE_FORMATS:
            positions, times, boxes = got[0], got[1], got[3]
        elif self._suffix == ".dcd":
            positions, times, boxes = got[0] / 10.0, None, _boxes(got[1], got[2])
        else:
            positions, times, boxes = got[0] / 10.0, got[1], _boxes(got[2], got[3])
        has_box = boxes is not None and bool(np.all(np.isfinite(boxes)) and np.any(boxes != 0.0))
        return positions, times, boxes if has_box else None

    @cached_property
    def spacing(self) -> float | None:
        """Judge the even spacing [ps] of time stamps by the first two and the last."""
        last_time = self._last_time
        with reading(self.path):
            first = self._read(0, 2)[1] if self.n_frames > 1 else None
        if first is None or last_time is None:
            return None
        step, mean = float(first[1] - first[0]), float(last_time[0] - first[0]) / (self.n_frames - 1)
        if step == 0.0 and mean == 0.0:
            return None
        # a stamp late in a long run is rounded to float32, and so is the difference of the first two
        rounding = 2 * float(np.spacing(np.float32(abs(last_time[0])))) / (self.n_frames - 1)
        rounding += 2 * float(np.spacing(np.float32(abs(first[1]))))
        if mean <= 0 or abs(step - mean) > _TOLERANCE * mean + rounding:
            raise LatentError(
                f"trajectory file {self.path} has uneven time stamps: the first two frames are {step:g} ps apart, the "
                f"mean is {mean:g} ps; frames are missing or doubled: write it evenly, or give frame_spacing if the "
                f"stamps are wrong"
            )
        return round(mean, 4) if mean > 0.01 else mean


def spans(frames: np.ndarray, reach: int = 1) -> list[tuple[int, np.ndarray]]:
    """Group frame numbers into runs that one read can serve.

    Parameters
    ----------
    frames : np.ndarray
        (n,) frame numbers in any order, doubled ones too.
    reach : int
        With 1, a run holds consecutive frames, each once; with more, steps of up to `reach` frames between
        neighbours, and doubled frames, stay in one run.

    Returns
    -------
    list of (int, np.ndarray)
        First frame of each run, and the places in `frames` of its members in rising order.
    """
    order = np.argsort(frames, kind="stable")
    steps = np.diff(np.asarray(frames)[order])
    cuts = np.flatnonzero(steps != 1 if reach == 1 else steps > reach) + 1
    return [(int(frames[part[0]]), part) for part in np.split(order, cuts) if len(part)]


def read_dataset(dataset: Any, frames: np.ndarray) -> np.ndarray:
    """Read frames of an HDF5 dataset (n_frames, n_atoms, 3) in any order, as float32 in the dataset's unit.

    A compressed dataset is unpacked chunk by chunk, so frames that share chunks are read together.
    """
    result = np.empty((len(frames), *dataset.shape[1:]), dtype=np.float32)
    reach = dataset.chunks[0] if dataset.chunks else 1
    for start, places in spans(frames, reach):
        wanted = np.asarray(frames)[places]
        result[places] = dataset[start : int(wanted[-1]) + 1][wanted - start]
    return result


def open_frames(path: Path) -> FrameFile:
    """Open a trajectory file, or take it from the few that are still open."""
    return _opened_frames(path, _state(path), os.getpid())


def open_hdf5(path: Path) -> Any:
    """Open an HDF5 file for reading, or take it from the few that are still open.

    Raises
    ------
    LatentError
        The file is absent, truncated, or no HDF5.
    """
    require(path.is_file(), f"HDF5 file {path} does not exist; was it moved since the data set was opened?")
    return _opened_hdf5(path, _state(path), os.getpid())


def _state(path: Path) -> tuple[int, int]:
    """Tell a file from another one written under its name."""
    if not path.exists():
        return 0, 0
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=32)
def _opened_frames(path: Path, state: tuple[int, int], process: int) -> FrameFile:
    return FrameFile(path)


@lru_cache(maxsize=8)
def _opened_hdf5(path: Path, state: tuple[int, int], process: int) -> Any:
    import h5py

    with reading(path, "HDF5 file"):
        return h5py.File(path, "r")


def _boxes(lengths: np.ndarray | None, angles: np.ndarray | None) -> np.ndarray | None:
    """Box vectors (n_frames, 3, 3) [nm] from lengths [Å] and angles [degrees]."""
    from mdtraj.utils import lengths_and_angles_to_box_vectors

    if lengths is None or angles is None or not np.any(lengths):
        return None
    cell = np.concatenate([np.asarray(lengths, dtype=float) / 10.0, np.asarray(angles, dtype=float)], axis=1)
    return np.stack(lengths_and_angles_to_box_vectors(*cell.T), axis=1)
