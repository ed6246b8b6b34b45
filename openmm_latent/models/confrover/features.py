"""Features of a sequence that a folding network made: the embedding provider that reads a file.

The file is a NumPy archive (.npz) of one protein: `sequence`, one letter a residue, chains joined by ":"; `single`,
(n_residues, n_feature_single); `pair`, (n_residues, n_residues, n_feature_pair). OpenFold's single and pair
representations have 384 and 128 features.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from openmm_latent.errors import LatentError, require
from openmm_latent.nn.residue_geometry import Residues

#: One letter each, in the order of `RESIDUE_NAMES`, then that of the unknown.
LETTERS = "ARNDCQEGHILKMFPSTWYVX"
_ARRAYS = ("sequence", "single", "pair")


def sequence_of(residues: Residues) -> str:
    """Return a protein's sequence as a file of features has it, chains joined by ":"."""
    letters = [LETTERS[kind] for kind in residues.types]
    ends = np.flatnonzero(residues.chains[1:] != residues.chains[:-1])
    for end in reversed(ends.tolist()):
        letters.insert(end + 1, ":")
    return "".join(letters)


def read_features(path: str | Path, residues: Residues) -> tuple[Tensor, Tensor]:
    """Read what a folding network says of a protein's sequence.

    Parameters
    ----------
    path : path
        A .npz file; see above.
    residues : Residues
        The protein that it must be of.

    Returns
    -------
    single : Tensor
        (n_residues, n_feature_single) float32
    pair : Tensor
        (n_residues, n_residues, n_feature_pair) float32

    Raises
    ------
    LatentError
        The file is absent, no such archive, lacks an array, is of another sequence, or its arrays are of wrong shapes
        or not finite.
    """
    path = Path(path)
    require(path.is_file(), f"features: {path} does not exist; write sequence, single and pair of the protein into it")
    try:
        with np.load(path, allow_pickle=False) as archive:
            absent = [name for name in _ARRAYS if name not in archive]
            require(
                not absent,
                f"features: {path} lacks {', '.join(absent)}; write sequence, single and pair by numpy.savez",
            )
            sequence, single, pair = (archive[name] for name in _ARRAYS)
    except (OSError, EOFError, zipfile.BadZipFile, ValueError) as error:
        if isinstance(error, LatentError):
            raise
        raise LatentError(
            f"features: {path} is no .npz archive of arrays ({error}); write it by numpy.savez"
        ) from error
    _require_sequence(path, str(sequence), sequence_of(residues))
    n = len(residues)
    require(
        single.ndim == 2 and pair.ndim == 3 and single.shape[0] == n and pair.shape[:2] == (n, n),
        f"features: {path} must hold single (n_residues={n}, n_feature_single) and pair ({n}, {n}, n_feature_pair), "
        f"got {single.shape} and {pair.shape}; write the representations of the whole sequence",
    )
    found = tuple(torch.tensor(np.asarray(values, dtype=np.float32)) for values in (single, pair))
    require(
        all(bool(torch.isfinite(values).all()) for values in found),
        f"features: {path} holds numbers that are not finite; compute them anew",
    )
    return found[0], found[1]


def _require_sequence(path: Path, found: str, wanted: str) -> None:
    """Refuse features of another sequence, and say where it differs."""
    differs = [i for i, (one, other) in enumerate(zip(found, wanted, strict=False)) if one != other]
    place = differs[0] if differs else min(len(found), len(wanted))
    require(
        found == wanted,
        f"features: {path} is of another protein: its sequence has {found[place : place + 5] or 'its end'!r} at place "
        f"{place + 1} (length {len(found)}), the structure {wanted[place : place + 5] or 'its end'!r} (length "
        f"{len(wanted)}); compute features of this sequence, chains joined by ':'",
    )
