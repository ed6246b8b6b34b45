"""Data sets of plain files: each protein a topology file and its trajectories, in a folder or a zip archive."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from openmm import app

from openmm_latent.data.datasets import Entry, Run, some_of
from openmm_latent.data.random_access import SEEKABLE, open_frames
from openmm_latent.data.trajectories import load_topology, read_provenance
from openmm_latent.errors import LatentError, require

#: Topology files, the first of several for one protein wins.
TOPOLOGIES = (".pdb", ".cif", ".prmtop", ".parm7", ".psf", ".gro")


@dataclass(frozen=True)
class FileEntry(Entry):
    """One protein in files.

    Attributes
    ----------
    path : Path
        Folder, or zip archive.
    top : str
        Topology file, relative to `path`.
    trajectories : tuple of (str, str)
        Run name and file, relative to `path`.
    frame_spacing : float or None
        [ps] Believed over time stamps.
    """

    top: str
    trajectories: tuple[tuple[str, str], ...]
    frame_spacing: float | None = None

    @property
    def files(self) -> list[Path]:
        """The topology and all trajectories, or the archive."""
        if self.is_archive:
            return [self.path]
        return [self.path / name for name in (self.top, *(file for _, file in self.trajectories))]

    @property
    def is_archive(self) -> bool:
        """Whether the files are in a zip archive."""
        return self.path.suffix.lower() == ".zip"

    def read_structure(self) -> tuple[app.Topology, np.ndarray | None]:
        """Read the topology file."""
        return load_topology(self._local(self.top))

    def list_runs(self) -> tuple[Run, ...]:
        """Open each trajectory, check its atom count and judge its frame spacing."""
        n_atoms = self.topology.getNumAtoms()
        runs = []
        for name, file in self.trajectories:
            opened, told = open_frames(self._local(file)), self._provenance(file)
            require(
                opened.n_atoms == n_atoms,
                f"trajectory file {self.path / file} has {opened.n_atoms} atoms, but the topology {self.top} of "
                f"{self.name} has {n_atoms}; give the topology that the trajectory was written with",
            )
            spacing = self.frame_spacing or opened.spacing or told.get("frame_spacing")
            where = self.path if self.is_archive else self.path / file
            runs.append(Run(name, opened.n_frames, spacing, self._temperature(told), where))
        return tuple(runs)

    def read_frames(self, run: Run, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Read frames with their boxes."""
        return open_frames(self._local(dict(self.trajectories)[run.name])).read(frames)

    def _temperature(self, told: dict[str, Any]) -> float | None:
        return told.get("temperature")

    def _provenance(self, file: str) -> dict[str, Any]:
        return {} if self.is_archive else read_provenance(self.path / file)

    def _local(self, name: str) -> Path:
        """Return a file that can be opened; out of an archive it is unpacked first, for a while."""
        if not self.is_archive:
            return self.path / name
        return _unpacked(self.path, self.path.stat().st_mtime_ns, os.getpid()).file(name)


def plain_entries(folder: Path, frame_spacing: float | None = None) -> tuple[FileEntry, ...]:
    """Find proteins in a folder and its direct subfolders: a topology file and the trajectories of its name.

    NAME.pdb takes NAME.xtc, NAME_01.xtc, NAME-b.dcd, ...; the only topology of a folder takes all trajectories in it.
    """
    entries = []
    for place in [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]:
        names = sorted(path.name for path in place.iterdir() if path.is_file())
        found = _match([name for name in names if not name.endswith(".prepared.json")])
        entries += [
            FileEntry(stem, place, top, tuple((run_name(file, stem), file) for file in files), frame_spacing)
            for stem, (top, files) in found.items()
        ]
    return tuple(sorted(entries, key=lambda entry: entry.name))


def unmatched_trajectories(folder: Path) -> list[str]:
    """Return a sentence for each trajectory in a folder and its direct subfolders that no topology was found for."""
    sentences = []
    for place in [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]:
        names = sorted(path.name for path in place.iterdir() if path.is_file())
        taken = {file for _, files in _match(names).values() for file in files}
        tops = [name for name in names if Path(name).suffix.lower() in TOPOLOGIES]
        beside = f"none of the topologies beside it ({some_of(tops)}) has" if tops else "no topology beside it has"
        sentences += [
            f"{name} is left out: {beside} its name; call the topology {Path(name).stem}.pdb, or give both a folder of "
            f"their own"
            for name in names
            if Path(name).suffix.lower() in SEEKABLE and name not in taken
        ]
    return sentences


def run_name(file: str, stem: str) -> str:
    """Return what of a trajectory's file name is not the protein's: "00" for NAME_00.xtc; else the file's stem."""
    own = Path(file).stem
    return own.removeprefix(stem).strip("_-.") or own


def _match(names: Iterable[str]) -> dict[str, tuple[str, list[str]]]:
    """Return protein -> topology file and trajectories, for the file names of one folder."""
    by_suffix: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_suffix[Path(name).suffix.lower()].append(name)
    tops: dict[str, str] = {}
    for suffix in TOPOLOGIES:
        for name in by_suffix[suffix]:
            tops.setdefault(Path(name).stem, name)
    trajectories = [name for suffix in SEEKABLE for name in by_suffix[suffix]]
    found: dict[str, list[str]] = defaultdict(list)
    for name in sorted(trajectories):
        stem = Path(name).stem
        owners = [top for top in tops if re.match(re.escape(top) + r"(?![A-Za-z0-9])", stem)]
        owner = max(owners, key=len) if owners else (next(iter(tops)) if len(tops) == 1 else None)
        if owner is not None:
            found[owner].append(name)
    return {stem: (tops[stem], files) for stem, files in sorted(found.items())}


class _Unpacked:
    """A folder for files out of a zip archive, removed when nobody needs it any more."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self.folder = Path(tempfile.mkdtemp(prefix="openmm-latent-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def file(self, name: str) -> Path:
        """Unpack a member on its first use; the archive's checksum is compared on the way."""
        target = self.folder / Path(name).name
        if not target.exists():
            part = target.with_name(target.name + ".part")
            with (
                unzipping(self.archive),
                zipfile.ZipFile(self.archive) as archive,
                archive.open(name) as source,
                open(part, "wb") as sink,
            ):
                shutil.copyfileobj(source, sink, 1 << 20)
            part.rename(target)
        return target


@contextmanager
def unzipping(path: Path) -> Iterator[None]:
    """Turn what zipfile raises over a damaged archive into one sentence."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error) as error:
        raise LatentError(
            f"archive {path} cannot be read as .zip ({error}); it may be truncated: copy it again or leave it out"
        ) from error


@lru_cache(maxsize=2)
def _unpacked(archive: Path, state: int, process: int) -> _Unpacked:
    return _Unpacked(archive)
