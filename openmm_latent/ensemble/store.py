"""The folder of an ensemble: a folder a walker, and what belongs to all of them.

| file | what |
|---|---|
| `ensemble.json` | who the walkers are; another ensemble is refused |
| `walker_000/` ... | one hybrid run each, as `simulate` writes it (`NAME.xtc`, `NAME.latent.csv`, ...) |
| `walker_000/start.pdb` | the frame it started from, where a trajectory gave it |
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
from openmm import app, unit

from openmm_latent.bundle import inspect_bundle
from openmm_latent.data.resume import write_whole
from openmm_latent.ensemble.config import EnsembleConfig
from openmm_latent.ensemble.walkers import WalkerTask
from openmm_latent.errors import LatentError, require
from openmm_latent.hybrid import HybridConfig
from openmm_latent.version import __version__

MARK = "ensemble.json"
#: Settings that may change when an ensemble goes on.
_MAY_CHANGE = ("duration", "save_every")


def open_store(config: EnsembleConfig) -> list[WalkerTask]:
    """Make the store, or find it again, and return its walkers.

    Raises
    ------
    LatentError
        A file is missing or does not fit, or the folder holds another ensemble.
    """
    tasks = _tasks(config)
    described = _describe(tasks, config)
    _refuse_another(config.out, described)
    if config.starts is not None:
        _write_starts(config, tasks)
    config.out.mkdir(parents=True, exist_ok=True)
    write_whole(config.out / MARK, (json.dumps(described, indent=1) + "\n").encode())
    return tasks


def _tasks(config: EnsembleConfig) -> list[WalkerTask]:
    @cache
    def trained_at(bundle: Path) -> float | None:
        found = inspect_bundle(bundle)["training"].get("temperature")
        return None if found is None else float(found)

    # fifty reports a second, all together, are as many as a progress bar is worth
    report_every = max(1.0, config.walkers / 50)
    tasks = []
    for i in range(config.walkers):
        bundle, structure = config.of("model", i), config.of("structure", i)
        require(structure.is_file(), f"config key structure: file {structure} does not exist")
        folder = config.out / f"walker_{i:03d}"
        start = structure if config.starts is None else folder / "start.pdb"
        hybrid = config.hybrid(i, trained_at(bundle))
        tasks.append(WalkerTask(i, folder, bundle, start, structure.stem, hybrid, config.platform, report_every))
    return tasks


def _describe(tasks: list[WalkerTask], config: EnsembleConfig) -> dict[str, Any]:
    """Return who the walkers are."""

    @cache
    def digest(path: Path) -> str:
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()

    frames = _start_frames(config)
    walkers = []
    for task in tasks:
        structure = config.of("structure", task.number)
        settings = {key: value for key, value in asdict(task.config).items() if key not in _MAY_CHANGE}
        files = {
            "model": task.bundle.name,
            "model_sha256": digest(task.bundle),
            "structure": structure.name,
            "structure_sha256": digest(structure),
        }
        start = {} if config.starts is None else {"start": f"frame {frames[task.number]} of {config.starts.trajectory}"}
        walkers.append({"folder": task.folder.name, **files, **start, **settings})
    return {"code_version": __version__, "walkers": walkers}


def _refuse_another(out: Path, described: dict[str, Any]) -> None:
    mark = out / MARK
    if not mark.exists():
        return
    try:
        before = json.loads(mark.read_text())["walkers"]
    except (ValueError, KeyError, TypeError) as error:
        raise LatentError(f"{mark} is damaged ({error}); give another folder as out") from error
    # walkers may be added; those that are there stay who they are
    for old, new in zip(before, described["walkers"], strict=False):
        defaults = asdict(HybridConfig(new["temperature"]))  # of settings that there were not yet
        old = {key: defaults[key] for key in defaults if key in new} | old
        for key in sorted({*old, *new}):
            require(
                old.get(key) == new.get(key),
                f"out {out} holds an ensemble whose {old.get('folder')} has {key} {old.get(key)!r}, and "
                f"{new.get(key)!r} is asked for; give another folder, or the same {key}",
            )
    n_walkers = len(described["walkers"])
    require(
        len(before) <= n_walkers,
        f"out {out} holds {len(before)} walkers, and config key walkers asks for {n_walkers}; give another folder, or "
        f"at least {len(before)}",
    )


def _start_frames(config: EnsembleConfig) -> list[int]:
    """Return the frame of the trajectory that each walker starts from."""
    starts = config.starts
    if starts is None:
        return []
    require(starts.trajectory.is_file(), f"config key starts.trajectory: file {starts.trajectory} does not exist")
    with mdtraj.open(str(starts.trajectory)) as handle:
        n_frames = len(handle)
    if starts.frames is None:
        return [int(i) for i in np.linspace(0, n_frames - 1, config.walkers).round()]
    outside = [i for i in starts.frames if not 0 <= i < n_frames]
    require(
        not outside,
        f"config key starts.frames must lie between 0 and {n_frames - 1}, the last frame of {starts.trajectory.name}, "
        f"got {outside}",
    )
    return starts.frames


def _write_starts(config: EnsembleConfig, tasks: list[WalkerTask]) -> None:
    starts = config.starts
    assert starts is not None
    for task, frame in zip(tasks, _start_frames(config), strict=True):
        if not task.structure.exists():
            write_frame(config.of("structure", task.number), starts.trajectory, frame, task.structure)


def write_frame(structure: Path, trajectory: Path, frame: int, out: Path) -> None:
    """Write one frame of a trajectory as a PDB file with the atoms, names and numbers of `structure`.

    Raises
    ------
    LatentError
        The trajectory has other atoms.
    """
    pdb = app.PDBFile(str(structure))
    try:
        found = mdtraj.load_frame(str(trajectory), frame, top=str(structure))
    except (ValueError, OSError, RuntimeError) as error:
        raise LatentError(
            f"frame {frame} of {trajectory} cannot be read with the atoms of {structure.name} "
            f"({' '.join(str(error).split())}); give the structure that the trajectory was made with"
        ) from error
    if found.unitcell_vectors is not None:
        pdb.topology.setPeriodicBoxVectors(found.unitcell_vectors[0] * unit.nanometer)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".part")
    with open(partial, "w") as handle:
        app.PDBFile.writeFile(pdb.topology, found.xyz[0].astype(float) * unit.nanometer, handle, keepIds=True)
    partial.replace(out)
