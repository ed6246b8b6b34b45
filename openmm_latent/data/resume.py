"""Save points: a checkpoint and the length of every output at that moment, in one file written whole or not at all.

After Ctrl-C, a crash or a power cut the outputs may be longer than the save point knows. They are cut back to it and
the rest is made again, so no frame or line is lost or doubled.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import openmm

from openmm_latent.errors import LatentError, require


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new one, never a part."""
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def save_point(path: Path, context: openmm.Context, outputs: Iterable[Path], facts: dict[str, Any]) -> None:
    """Write a save point.

    Parameters
    ----------
    path : Path
    context : openmm.Context
        Its checkpoint is stored.
    outputs : iterable of Path
        Files beside `path` that grow with the run; flushed. Absent ones count as empty.
    facts : dict
        JSON values that `load_point` gives back.
    """
    checkpoint = context.createCheckpoint()
    header = {
        "sha256": hashlib.sha256(checkpoint).hexdigest(),
        "outputs": {output.name: _size(output) for output in outputs},
        "facts": facts,
    }
    write_whole(path, json.dumps(header).encode() + b"\n" + checkpoint)


def load_point(path: Path, context: openmm.Context) -> dict[str, Any]:
    """Load a save point into the Context, cut the outputs back to it, and return its facts.

    Raises
    ------
    LatentError
        The save point is damaged or of another platform, or an output is shorter than it was.
    """
    try:
        with open(path, "rb") as handle:
            header = json.loads(handle.readline())
            checkpoint = handle.read()
        require(hashlib.sha256(checkpoint).hexdigest() == header["sha256"], "its checksum is wrong")
        sizes = {path.with_name(name): int(size) for name, size in header["outputs"].items()}
        context.loadCheckpoint(checkpoint)
    except (ValueError, KeyError, TypeError, openmm.OpenMMException) as error:
        raise LatentError(
            f"save point {path} cannot be loaded ({' '.join(str(error).split())[:120]}); it is damaged or belongs to "
            f"another machine, platform or OpenMM: go back to those, or remove it to start anew"
        ) from error
    for output, size in sizes.items():
        require(
            _size(output) >= size,
            f"{output} is shorter ({_size(output)} bytes) than when the run was saved ({size} bytes); put the file "
            f"back, or remove {path} to start anew",
        )
    for output, size in sizes.items():
        _cut(output, size)
    return header["facts"]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _cut(path: Path, size: int) -> None:
    if size == 0:
        path.unlink(missing_ok=True)
        return
    os.truncate(path, size)
    if path.suffix == ".dcd":
        _recount_dcd(path, size)


def _recount_dcd(path: Path, size: int) -> None:
    """Write the number of frames that are left into the header of a DCD file as OpenMM writes it."""
    with open(path, "r+b") as handle:
        head = handle.read(276)
        first_step, interval = struct.unpack("<2i", head[12:20])
        has_box = struct.unpack("<i", head[48:52])[0]
        n_atoms = struct.unpack("<i", head[268:272])[0]
        frame = 3 * (4 * n_atoms + 8) + (56 if has_box else 0)
        n_frames = (size - 276) // frame
        handle.seek(8)
        handle.write(struct.pack("<i", n_frames))
        handle.seek(20)
        handle.write(struct.pack("<i", first_step + (n_frames - 1) * interval))
