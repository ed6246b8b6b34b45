"""An entry of a data set as plain files: what `train` and `evaluate` read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from openmm import app, unit

from openmm_latent.data.datasets import DataSet, Entry, Run, runs_at
from openmm_latent.data.resume import write_whole
from openmm_latent.errors import LatentError, require


def export_entry(
    dataset: DataSet,
    name: str,
    folder: Path | str,
    *,
    runs: Sequence[str] | None = None,
    temperature: float | None = None,
    stride: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Path]:
    """Write NAME.pdb and, for each run, NAME_RUN.xtc with a NAME_RUN.json that says where it came from.

    All atoms are kept, molecules are whole, and frames stream: memory does not grow with the run. XTC rounds to
    0.001 nm. A file is there whole or not at all.

    Parameters
    ----------
    dataset : DataSet
    name : str
        Of the entry.
    folder : path
        Made if absent.
    runs : sequence of str or None
        Which runs; None takes all.
    temperature : float or None
        [K] Take only runs at this one.
    stride : int
        Keep every stride-th frame.
    progress : callable or None
        Called with (runs done, all runs, what).

    Returns
    -------
    list of Path
        The PDB file, then the XTC files.

    Raises
    ------
    LatentError
        There is no such entry or run, a run has no frame spacing or does not fit its topology, or the folder cannot be
        written to.
    """
    entry, out = dataset[name], Path(folder)
    require(stride >= 1, f"stride must be a positive whole number, got {stride}")
    chosen = [entry.run(run) for run in runs] if runs is not None else runs_at(entry, temperature)
    require(len(chosen) > 0, f"entry {name} has no runs to export; {' '.join(entry.notes) or 'choose another entry'}")
    for run in chosen:
        require(
            run.frame_spacing is not None,
            f"run {run.name} of {name} tells no time between frames; open the data set with frame_spacing "
            f"(--frame-spacing) in ps",
        )
        entry.require_fit(run)
    try:
        out.mkdir(parents=True, exist_ok=True)
        files = [out / f"{name}.pdb"]
        _write_structure(entry, chosen[0], files[0])
        for number, run in enumerate(chosen):
            if progress is not None:
                progress(number, len(chosen), run.name)
            files.append(out / f"{name}_{run.name.replace('/', '_')}.xtc")
            _write_run(entry, run, files[-1], stride)
            facts = {"data_set": dataset.kind, "licence": dataset.licence, **entry.provenance}
            facts |= {
                "source": f"{run.file.name}#{run.name}",
                "frame_spacing": float(run.frame_spacing or 0.0) * stride,
            }
            facts |= {} if run.temperature is None else {"temperature": run.temperature}
            write_whole(files[-1].with_suffix(".json"), json.dumps(facts, indent=1).encode() + b"\n")
    except OSError as error:
        raise LatentError(f"out (--out) {out} cannot be written to ({error}); give another folder") from error
    if progress is not None:
        progress(len(chosen), len(chosen), name)
    return files


def _all_atoms(entry: Entry) -> range:
    return range(entry.topology.getNumAtoms())


def _write_structure(entry: Entry, run: Run, path: Path) -> None:
    """Write the entry's own structure, or the run's first frame where it has none."""
    places = entry.reference
    if places is None:
        places = entry.frames(run, [0], _all_atoms(entry))[0].astype(float)
    part = path.with_name(path.name + ".part")
    with open(part, "w") as handle:
        app.PDBFile.writeFile(entry.topology, places * unit.nanometer, handle, keepIds=True)
    os.replace(part, path)


def _write_run(entry: Entry, run: Run, path: Path, stride: int) -> None:
    from mdtraj.formats import XTCTrajectoryFile

    part = path.with_name(path.name + ".part")
    spacing, n_written = float(run.frame_spacing or 0.0) * stride, 0
    writer: Any = XTCTrajectoryFile(str(part), "w")
    try:
        for chunk in entry.stream(run, stride=stride, atoms=_all_atoms(entry)):
            numbers = n_written + np.arange(len(chunk))
            writer.write(chunk, time=(spacing * numbers).astype(np.float32), step=numbers.astype(np.int32))
            n_written += len(chunk)
    finally:
        writer.close()
    os.replace(part, path)
