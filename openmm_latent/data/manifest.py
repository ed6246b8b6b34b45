"""What is in a data set, written down: a manifest with digests, the check against it, and a look at each entry."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from openmm_latent.data.datasets import LONGEST_BOND, DataSet, Entry, stretched_bonds
from openmm_latent.data.residues import missing_heavy_atoms, nonstandard_residues
from openmm_latent.data.resume import write_whole
from openmm_latent.errors import LatentError, require
from openmm_latent.version import __version__

#: Called with (done, all, what).
Progress = Callable[[int, int, str], None]
_VERSION = 1


@dataclass(frozen=True)
class Findings:
    """What a look at one entry shows.

    Attributes
    ----------
    name : str
    n_atoms, n_residues, n_frames : int
    missing : list of str
        Residues that lack heavy atoms, a phrase each.
    nonstandard : list of str
        Names of residues with no template: ligands, modified residues.
    gaps : list of str
        Bonds of the topology that are too long to be bonds in the reference: missing residues.
    stretched : list of str
        Runs with such bonds in their first frame that the reference has not.
    notes : list of str
        What the format could not tell.
    """

    name: str
    n_atoms: int
    n_residues: int
    n_frames: int
    missing: list[str] = field(default_factory=list)
    nonstandard: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    stretched: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def look_at(entry: Entry) -> Findings:
    """Check an entry's topology against standard residues and against the first frame of each run.

    Raises
    ------
    LatentError
        A file is damaged, or a trajectory does not fit the topology.
    """
    gaps = _gaps(entry)
    stretched = []
    for run in entry.runs:
        entry.require_fit(run)
        n_long = stretched_bonds(entry, run)[0]
        if n_long > len(gaps):
            stretched.append(f"{n_long} bonds of run {run.name} are longer than {LONGEST_BOND} nm in its first frame")
    topology = entry.topology
    return Findings(
        name=entry.name,
        n_atoms=topology.getNumAtoms(),
        n_residues=topology.getNumResidues(),
        n_frames=sum(run.n_frames for run in entry.runs),
        missing=missing_heavy_atoms(topology),
        nonstandard=nonstandard_residues(topology),
        gaps=gaps,
        stretched=stretched,
        notes=entry.notes,
    )


def _gaps(entry: Entry) -> list[str]:
    if entry.reference is None:
        return []
    long = []
    for first, second in entry.topology.bonds():
        length = float(np.linalg.norm(entry.reference[first.index] - entry.reference[second.index]))
        if length > LONGEST_BOND:
            ends = [f"{atom.name} of {atom.residue.name} {atom.residue.id}" for atom in (first, second)]
            long.append(f"{ends[0]} and {ends[1]} are bonded, but {length:.2f} nm apart")
    return long


def make_manifest(dataset: DataSet, progress: Progress | None = None) -> dict[str, Any]:
    """Describe every entry and run, with size and SHA-256 of every file.

    Files are named relative to the data set's folder.
    """
    root = _root(dataset.path)
    entries = []
    for i, entry in enumerate(dataset):
        _tell(progress, i, len(dataset), entry.name)
        entries.append(
            {
                "name": entry.name,
                "protein": entry.protein,
                "files": [_relative(file, root) for file in entry.files],
                "n_atoms": entry.topology.getNumAtoms(),
                "runs": [
                    {
                        "name": run.name,
                        "n_frames": run.n_frames,
                        "frame_spacing_ps": run.frame_spacing,
                        "temperature_K": run.temperature,
                    }
                    for run in entry.runs
                ],
            }
        )
    files = sorted({file for entry in dataset for file in entry.files})
    described = []
    for i, file in enumerate(files):
        _tell(progress, i, len(files), file.name)
        described.append({"file": _relative(file, root), "bytes": file.stat().st_size, "sha256": _sha256(file)})
    _tell(progress, len(files), len(files), "")
    return {
        "manifest": _VERSION,
        "data_set": dataset.kind,
        "licence": dataset.licence,
        "made_by": f"openmm-latent {__version__}",
        "date": datetime.date.today().isoformat(),
        "n_entries": len(entries),
        "files": described,
        "entries": entries,
    }


def write_manifest(dataset: DataSet, path: str | Path, progress: Progress | None = None) -> dict[str, Any]:
    """Write the manifest as JSON and return it."""
    content = make_manifest(dataset, progress)
    write_whole(Path(path), (json.dumps(content, indent=1) + "\n").encode())
    return content


def check_manifest(
    path: str | Path, root: str | Path, *, reads_contents: bool = True, progress: Progress | None = None
) -> list[str]:
    """Compare files with a manifest.

    Parameters
    ----------
    path : path
        The manifest.
    root : path
        The data set: its folder, or its one file.
    reads_contents : bool
        Recompute digests; else compare sizes only.
    progress : callable or None

    Returns
    -------
    list of str
        What differs, a sentence a file; empty if nothing does.

    Raises
    ------
    LatentError
        The manifest is absent or not one.
    """
    files, folder = _read(Path(path))["files"], _root(Path(root))
    problems = []
    for i, told in enumerate(files):
        file = folder / told["file"]
        _tell(progress, i, len(files), file.name)
        if not file.is_file():
            problems.append(f"{file} is in the manifest and not here; copy it, or make a new manifest")
        elif file.stat().st_size != told["bytes"]:
            problems.append(f"{file} has {file.stat().st_size} bytes, the manifest says {told['bytes']}; copy it again")
        elif reads_contents and _sha256(file) != told["sha256"]:
            problems.append(f"{file} has another SHA-256 than the manifest says; its content changed: copy it again")
    _tell(progress, len(files), len(files), "")
    return problems


def _read(path: Path) -> dict[str, Any]:
    require(path.is_file(), f"manifest {path} does not exist; make it with `openmm-latent dataset manifest`")
    try:
        content = json.loads(path.read_text())
        is_manifest = content["manifest"] == _VERSION and all(
            {"file", "bytes", "sha256"} <= set(told) for told in content["files"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise LatentError(f"manifest {path} cannot be read ({type(error).__name__}: {error}); make it anew") from error
    require(is_manifest, f"manifest {path} is not of version {_VERSION}; make it anew")
    return content


def _root(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _relative(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _sha256(file: Path) -> str:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _tell(progress: Progress | None, done: int, total: int, what: str) -> None:
    if progress is not None:
        progress(done, total, what)
