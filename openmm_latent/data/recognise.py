"""`open_dataset`: tells from their content which data set a file or folder is."""

from __future__ import annotations

import zipfile
from pathlib import Path

from openmm_latent.data.atlas import LICENCE as ATLAS_LICENCE
from openmm_latent.data.atlas import atlas_entries
from openmm_latent.data.datasets import DataSet, Entry
from openmm_latent.data.folders import plain_entries, unmatched_trajectories
from openmm_latent.data.mdcath import LICENCE as MDCATH_LICENCE
from openmm_latent.data.mdcath import MARK, mdcath_entries
from openmm_latent.data.misato import LICENCE as MISATO_LICENCE
from openmm_latent.data.misato import MARKS, misato_entries
from openmm_latent.data.random_access import open_hdf5
from openmm_latent.data.readers import reading
from openmm_latent.errors import LatentError, require

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_EXPECTED = (
    "expected a folder or zip archive of ATLAS (<pdb>_<chain>.pdb and its XTC files), mdCATH files "
    "(mdcath_dataset_<domain>.h5), MISATO's MD.hdf5, or a folder with a PDB file and trajectories for each protein"
)


def open_dataset(path: str | Path, *, frame_spacing: float | None = None) -> DataSet:
    """Open ATLAS, mdCATH, MISATO or a folder of plain trajectories; nothing large is read.

    Parameters
    ----------
    path : path
        File, zip archive or folder.
    frame_spacing : float or None
        [ps] Believed over what the files or the data set's documentation say.

    Raises
    ------
    LatentError
        The path is absent, damaged, or no data set that is known here.
    """
    path = Path(path)
    require(path.exists(), f"path {path} does not exist; check the name of the data set")
    require(
        frame_spacing is None or frame_spacing > 0, f"frame_spacing must be a positive time in ps, got {frame_spacing}"
    )
    kind, entries, licence = (_from_folder if path.is_dir() else _from_file)(path, frame_spacing)
    told = [] if entries or not path.is_dir() else unmatched_trajectories(path)
    require(not told, f"path {path} holds no protein: {told[0] if told else ''}")
    require(len(entries) > 0, f"path {path} holds no trajectories of proteins; {_EXPECTED}")
    return DataSet(kind, path, entries, licence)


_Found = tuple[str, tuple[Entry, ...], str]


def _from_folder(path: Path, frame_spacing: float | None) -> _Found:
    entries: tuple[Entry, ...] = atlas_entries(path, frame_spacing)
    if entries:
        return "ATLAS", entries, ATLAS_LICENCE
    entries = mdcath_entries(path, frame_spacing)
    if entries:
        return "mdCATH", entries, MDCATH_LICENCE
    complexes = [file for file in sorted(path.glob("*.hdf5")) if _hdf5_kind(file) == "MISATO"]
    if complexes:
        require(
            len(complexes) == 1,
            f"folder {path} holds {len(complexes)} files of MISATO ({', '.join(file.name for file in complexes)}); "
            f"give one of them",
        )
        return _from_file(complexes[0], frame_spacing)
    return "files", plain_entries(path, frame_spacing), "unknown: see where the files came from"


def _from_file(path: Path, frame_spacing: float | None) -> _Found:
    with open(path, "rb") as handle:
        head = handle.read(8)
    if zipfile.is_zipfile(path) or head.startswith(b"PK"):
        return "ATLAS", atlas_entries(path, frame_spacing), ATLAS_LICENCE
    require(head == _HDF5_SIGNATURE, f"path {path} is no data set; {_EXPECTED}")
    kind = _hdf5_kind(path)
    if kind == "mdCATH":
        return "mdCATH", mdcath_entries(path, frame_spacing), MDCATH_LICENCE
    if kind == "MISATO":
        return "MISATO", misato_entries(path, frame_spacing), MISATO_LICENCE
    reasons = {
        "MISATO's QM": "holds MISATO's quantum-mechanical properties and no trajectories; give its MD.hdf5",
        "mdtraj": "is one trajectory in mdtraj's HDF5 layout; read it with load_trajectories and a PDB file",
        "mdCATH's index": "lists domains of mdCATH without their frames; give the folder of mdcath_dataset_*.h5",
    }
    raise LatentError(f"HDF5 file {path} {reasons.get(kind, f'is of no known layout; {_EXPECTED}')}")


def _hdf5_kind(path: Path) -> str:
    """Name the layout of an HDF5 file by its first group."""
    with reading(path, "HDF5 file"):
        store = open_hdf5(path)
        if "coordinates" in store and "topology" in store:
            return "mdtraj"
        first = next((store[key] for key in store if hasattr(store[key], "keys")), {})
        if MARK in first:
            return "mdCATH"
        if all(mark in first for mark in MARKS):
            return "MISATO"
        if "atom_properties" in first:
            return "MISATO's QM"
        return "mdCATH's index" if "superfamily" in getattr(first, "attrs", {}) else "unknown"
