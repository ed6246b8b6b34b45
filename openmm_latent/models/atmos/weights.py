"""The file of a trained ATMOS: key-frame network and interpolator together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from openmm_latent.data.complex_tokens import ComplexTokens
from openmm_latent.errors import LatentError
from openmm_latent.models.atmos.chemistry import edge_lengths
from openmm_latent.models.atmos.config import ATMOSConfig
from openmm_latent.models.atmos.network import ATMOS
from openmm_latent.nn.weights import fill, read_weights, write_weights

FAMILY = "atmos"


def save_weights(path: str | Path, model: ATMOS, training: Mapping[str, Any]) -> Path:
    """Write a model and what is said of its training; see `openmm_latent.nn.weights.write_weights`."""
    config = {"model": asdict(model.config), "key_time": model.key_time, "fine_time": model.fine_time}
    return write_weights(path, FAMILY, config, model, training)


def load_weights(path: str | Path) -> tuple[ATMOS, dict[str, Any]]:
    """Read a model, in evaluation mode on the CPU, and what is said of its training.

    Raises
    ------
    LatentError
        The file is absent, truncated, of another kind or family, or of another version's network.
    """
    content = read_weights(path, FAMILY)
    config = content["config"]
    try:
        model = ATMOS(ATMOSConfig(**config["model"]), config["key_time"], config["fine_time"])
    except (TypeError, KeyError) as error:
        raise LatentError(
            f"weights file {path} was written by another version, with other settings ({error}); train anew"
        ) from error
    fill(model, content, path)
    return model, content["training"]


def chemistry_key(tokens: ComplexTokens) -> str:
    """Return a digest of what a complex is, atom by atom and in order, apart from charges and bond orders."""
    digest = hashlib.sha256()
    for part in (tokens.elements, tokens.token, tokens.types, tokens.hydrogens, tokens.bonds):
        digest.update(np.ascontiguousarray(part, dtype=np.int64).tobytes())
    return digest.hexdigest()[:16]


def describe_references(examples: Any) -> dict[str, dict[str, Any]]:
    """Return, by `chemistry_key`, the structure on which each complex's frames were superposed, and its lengths.

    A network that was taught without random turns knows a complex in these axes alone: "positions", (n_atoms, 3), and
    "lengths", (n_edges,), of `stiff_edges`, both in nm.
    """
    return {
        chemistry_key(example.tokens): {
            "positions": np.asarray(example.reference, dtype=np.float64).round(5).tolist(),
            "lengths": usual_lengths(example).round(5).tolist(),
        }
        for example in examples
    }


def usual_lengths(example: Any) -> np.ndarray:
    """Return mean distances over one and two bonds, (n_edges,) [nm], of up to 200 frames of a `ComplexFrames`."""
    frames = np.concatenate([run[:: max(1, len(example) // 200)] for run in example.runs])
    return edge_lengths(example.tokens, frames)
