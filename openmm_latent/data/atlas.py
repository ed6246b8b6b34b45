"""ATLAS: standardised all-atom MD of protein chains, a PDB file and three replicas as XTC each.

| fact | value | source |
|---|---|---|
| a protein | `<pdb>_<chain>.pdb`, `<pdb>_<chain>_R1.xtc` ... `_R3.xtc` | README inside the archives |
| older name of a replica | `<pdb>_<chain>_prod_R1_fit.xtc` | files of that name in use (AlphaFlow, ConfRover) |
| frames | solvent removed, molecules whole, aligned | README |
| "protein" archive | 100 ns a replica, a frame every 10 ps | README |
| "analysis" archive | 100 ns a replica, a frame every 100 ps | README |
| force field | CHARMM36m, TIP3P | README (parameters) and Vander Meersche et al. |
| temperature | 300 K | Vander Meersche et al., Nucleic Acids Research 52 (2024) D384 |
| licence | CC BY-NC 4.0 | README |

Frame spacings are read from the XTC's time stamps, so both archives are right. The frames were rotated after the box
was written, so the box in the file is not theirs and is left out.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from openmm_latent.data.datasets import Run
from openmm_latent.data.folders import FileEntry, unzipping
from openmm_latent.errors import require

LICENCE = "CC BY-NC 4.0 (ATLAS, as its archives' README says): no commercial use"
TEMPERATURE = 300.0  # [K]
#: `<pdb>_<chain>`, then what marks a replica.
_REPLICA = re.compile(r"^(?P<name>[0-9][0-9A-Za-z]{3}_[0-9A-Za-z]+)_(?:prod_)?R(?P<replica>[0-9]+)(?:_fit)?\.xtc$")


class AtlasEntry(FileEntry):
    """One protein chain of ATLAS."""

    @property
    def protein(self) -> str:
        """The PDB id: chains of one entry may be copies of one protein."""
        return self.name[:4].lower()

    @property
    def provenance(self) -> dict[str, str]:
        """What all of ATLAS was made with."""
        return {"force_field": "CHARMM36m + TIP3P"}

    def read_frames(self, run: Run, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Read frames without the box, which belongs to the frames before they were aligned."""
        return super().read_frames(run, frames)[0], None

    def _temperature(self, told: dict[str, Any]) -> float | None:
        return TEMPERATURE


def atlas_entries(path: Path, frame_spacing: float | None = None) -> tuple[AtlasEntry, ...]:
    """Find the proteins of ATLAS in a folder, its direct subfolders and zip archives, or in one archive.

    Raises
    ------
    LatentError
        A replica is there twice, or an archive is damaged.
    """
    entries: list[AtlasEntry] = []
    if path.is_file():
        return tuple(_in_archive(path, frame_spacing))
    for place in [path, *sorted(path.iterdir())]:
        if place.is_dir():
            names = sorted(file.name for file in place.iterdir() if file.is_file())
            entries += _among(names, place, frame_spacing)
        elif place.suffix.lower() == ".zip":
            entries += _in_archive(place, frame_spacing)
    return tuple(sorted(entries, key=lambda entry: entry.name))


def _in_archive(path: Path, frame_spacing: float | None) -> list[AtlasEntry]:
    with unzipping(path), zipfile.ZipFile(path) as archive:
        return _among(archive.namelist(), path, frame_spacing)


def _among(names: Iterable[str], path: Path, frame_spacing: float | None) -> list[AtlasEntry]:
    """Match replicas with PDB files among the file names of one folder or archive."""
    tops = {Path(name).stem: name for name in names if name.lower().endswith(".pdb")}
    replicas: dict[str, dict[str, str]] = {}
    for name in names:
        found = _REPLICA.match(Path(name).name)
        if found is None or found["name"] not in tops:
            continue
        runs = replicas.setdefault(found["name"], {})
        run = f"R{found['replica']}"
        require(
            run not in runs,
            f"{path} holds replica {run} of {found['name']} twice, {runs.get(run)} and {name}; keep one of them",
        )
        runs[run] = name
    return [
        AtlasEntry(name, path, tops[name], tuple(sorted(runs.items())), frame_spacing)
        for name, runs in sorted(replicas.items())
    ]
