"""Features that another model's trunk has computed for a complex: read from a file, and checked against its tokens.

The file is `.npz` with three arrays, in the order of the tokens that `read_tokens` finds:

| array | shape |
|---|---|
| `names` | (n_tokens,) a residue's name ("ALA") or an element's symbol ("C") |
| `single` | (n_tokens, n_single) |
| `pair` | (n_tokens, n_tokens, n_pair) |
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from openmm_latent.data.complex_tokens import ComplexTokens
from openmm_latent.errors import LatentError, require

_ARRAYS = ("names", "single", "pair")


def read_trunk_features(path: str | Path, tokens: ComplexTokens) -> tuple[np.ndarray, np.ndarray]:
    """Read the features of a complex.

    Parameters
    ----------
    path : path
    tokens : ComplexTokens

    Returns
    -------
    single, pair : ndarray
        (n_tokens, n_single), (n_tokens, n_tokens, n_pair) float32

    Raises
    ------
    LatentError
        The file is absent, damaged, lacks an array, or is of other tokens; the sentence names the first that differs.
    """
    path = Path(path)
    require(path.is_file(), f"features file {path} does not exist; check the name")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS if name in file}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise LatentError(f"features file {path} cannot be read ({error}); write it by numpy.savez") from error
    absent = [name for name in _ARRAYS if name not in arrays]
    require(not absent, f"features file {path} lacks the array {', '.join(absent)}; write names, single and pair")
    names, single, pair = (arrays[name] for name in _ARRAYS)
    n = len(tokens)
    require(
        single.ndim == 2 and pair.ndim == 3 and len(single) == n and pair.shape[:2] == (n, n),
        f"features file {path} must hold single (n_tokens={n}, ...) and pair ({n}, {n}, ...), got {single.shape} and "
        f"{pair.shape}; compute them for this complex",
    )
    given, known = [str(name).upper() for name in names], [name.upper() for name in tokens.names]
    different = [i for i, (one, other) in enumerate(zip(given, known, strict=False)) if one != other]
    require(
        given == known,
        f"features file {path} has {given[different[0]] if different else len(given)} where the complex has "
        f"{known[different[0]] if different else n} (token {different[0] + 1 if different else 'count'}); compute them "
        f"for this complex",
    )
    require(
        bool(np.isfinite(single).all() and np.isfinite(pair).all()),
        f"features file {path} holds features that are no numbers; compute them anew",
    )
    return single.astype(np.float32), pair.astype(np.float32)
