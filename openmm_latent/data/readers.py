"""Trajectory files as streams of chunks, whatever their format: positions, time stamps, periodic box.

mdtraj reads every format but its own HDF5, which needs PyTables; that one is read with h5py here.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openmm_latent.errors import LatentError, reason_of, require

#: Formats whose frames carry a time stamp that mdtraj hands on; in others it only counts frames.
_TIMED = {".xtc", ".trr", ".nc", ".netcdf", ".ncdf", ".h5", ".lh5", ".gro"}
_HDF5 = {".h5", ".hdf5"}
#: Numbers of one chunk: about 25 MB of float32 coordinates.
_CHUNK_ATOMS = 2_000_000


@dataclass(frozen=True)
class Chunk:
    """Some consecutive frames of one file.

    Attributes
    ----------
    positions : np.ndarray
        (n_frames, n_atoms, 3) [nm] float32
    times : np.ndarray or None
        (n_frames,) [ps]; None where the format stores none.
    boxes : np.ndarray or None
        (n_frames, 3, 3) [nm], rows are box vectors; None without a periodic box.
    """

    positions: np.ndarray
    times: np.ndarray | None
    boxes: np.ndarray | None


def read_chunks(path: Path, mdtraj_topology: Any, atoms: np.ndarray) -> Iterator[Chunk]:
    """Stream a trajectory file.

    Parameters
    ----------
    path : Path
    mdtraj_topology : mdtraj.Topology
        Of all atoms in the file.
    atoms : np.ndarray
        (n_kept,) indices of the atoms to keep.

    Raises
    ------
    LatentError
        The file is absent, unreadable or truncated, or its atom count is not the topology's.
    """
    require(path.is_file(), f"trajectory file {path} does not exist; check the name given to files (--traj)")
    with reading(path):
        n_atoms = _count_atoms(path)
        require(
            n_atoms == mdtraj_topology.n_atoms,
            f"trajectory file {path} has {n_atoms} atoms, but the topology has {mdtraj_topology.n_atoms}; "
            f"give the topology (--top) that the trajectory was written with",
        )
        yield from _stream(path, mdtraj_topology, atoms)


@contextmanager
def reading(path: Path, what: str = "trajectory file") -> Iterator[None]:
    """Turn what the libraries raise over a damaged or foreign file into one sentence."""
    try:
        yield
    except LatentError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, IndexError, TypeError, EOFError) as error:
        raise LatentError(
            f"{what} {path} cannot be read as {path.suffix or 'a trajectory'} ({reason_of(error)}); "
            f"it may be truncated or of another format: copy it again or leave it out"
        ) from error


def _stream(path: Path, mdtraj_topology: Any, atoms: np.ndarray) -> Iterator[Chunk]:
    import mdtraj

    if path.suffix.lower() in _HDF5:
        yield from _stream_hdf5(path, atoms)
        return
    options: dict[str, Any] = {"chunk": max(1, _CHUNK_ATOMS // mdtraj_topology.n_atoms)}
    if path.suffix.lower() == ".pdb":
        chunks = mdtraj.iterload(str(path), **options)
    else:
        chunks = mdtraj.iterload(str(path), top=mdtraj_topology, **options)
    is_timed = path.suffix.lower() in _TIMED
    n_read = 0
    while True:
        with without_plugin_chatter(path):
            part = next(chunks, None)
        if part is None:
            break
        n_read += part.n_frames
        boxes = part.unitcell_vectors
        has_box = boxes is not None and bool(np.all(np.isfinite(boxes)) and np.any(boxes != 0.0))
        yield Chunk(
            part.xyz[:, atoms], np.asarray(part.time, dtype=float) if is_timed else None, boxes if has_box else None
        )
    if path.suffix.lower() == ".dcd":
        n_promised = frames_in_dcd_header(path)
        require(
            n_promised <= n_read,
            f"trajectory file {path} is truncated: its header promises {n_promised} frames and {n_read} are there; "
            f"copy it again or cut it to whole frames",
        )


def _stream_hdf5(path: Path, atoms: np.ndarray) -> Iterator[Chunk]:
    """Read mdtraj's HDF5 layout: `coordinates` [nm], `time` [ps], `cell_lengths` [nm] and `cell_angles` [degrees]."""
    import h5py
    from mdtraj.utils import lengths_and_angles_to_box_vectors

    with h5py.File(path, "r") as store:
        require(
            "coordinates" in store, f"trajectory file {path} has no 'coordinates' table; expected mdtraj's HDF5 layout"
        )
        n_frames, n_atoms = store["coordinates"].shape[:2]
        step = max(1, _CHUNK_ATOMS // max(1, n_atoms))
        for start in range(0, n_frames, step):
            part = slice(start, min(start + step, n_frames))
            boxes = None
            if "cell_lengths" in store:
                cell = np.concatenate([store["cell_lengths"][part], store["cell_angles"][part]], axis=1)
                boxes = np.stack(lengths_and_angles_to_box_vectors(*cell.T.astype(float)), axis=1)
            times = np.asarray(store["time"][part], dtype=float) if "time" in store else None
            yield Chunk(np.asarray(store["coordinates"][part], dtype=np.float32)[:, atoms], times, boxes)


def _count_atoms(path: Path) -> int:
    """Atoms of the first frame, read without a topology so that a mismatch is told before anything else."""
    import mdtraj

    if path.suffix.lower() in _HDF5:
        import h5py

        with h5py.File(path, "r") as store:
            return int(store["coordinates"].shape[1])
    with without_plugin_chatter(path), mdtraj.open(str(path)) as handle:
        if path.suffix.lower() == ".pdb":
            return int(handle.positions.shape[1])
        first = handle.read(1)
        positions = first[0] if isinstance(first, tuple) else first
        require(len(positions) > 0, f"trajectory file {path} holds no frames; leave it out or write it again")
        return int(positions.shape[1])


@contextmanager
def without_plugin_chatter(path: Path) -> Iterator[None]:
    """Keep mdtraj's DCD reader, which is C, from printing two lines to standard output each time it opens a file."""
    if path.suffix.lower() != ".dcd":
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C has buffered still belongs to nobody
        os.dup2(kept, 1)
        os.close(kept)


def frames_in_dcd_header(path: Path) -> int:
    """Frame count of a DCD header: the first integer after the leading record length and the letters CORD."""
    with open(path, "rb") as handle:
        head = handle.read(12)
    order = "little" if int.from_bytes(head[:4], "little") == 84 else "big"
    return int.from_bytes(head[8:12], order)  # type: ignore[arg-type]
