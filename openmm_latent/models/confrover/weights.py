"""The file of a trained ConfRover."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openmm_latent.errors import LatentError
from openmm_latent.models.confrover.config import ConfRoverConfig
from openmm_latent.models.confrover.network import ConfRover
from openmm_latent.nn.weights import fill, read_weights, write_weights

FAMILY = "confrover"


def save_weights(path: str | Path, model: ConfRover, training: Mapping[str, Any]) -> Path:
    """Write a model and what is said of its training; see `openmm_latent.nn.weights.write_weights`."""
    return write_weights(path, FAMILY, asdict(model.config), model, training)


def load_weights(path: str | Path) -> tuple[ConfRover, dict[str, Any]]:
    """Read a model, in evaluation mode on the CPU, and what is said of its training.

    Raises
    ------
    LatentError
        The file is absent, truncated, of another kind or family, or of another version's network.
    """
    content = read_weights(path, FAMILY)
    try:
        config = ConfRoverConfig(**content["config"])
    except TypeError as error:
        raise LatentError(
            f"weights file {path} was written by another version, with other settings ({error}); train anew"
        ) from error
    model = ConfRover(config)
    fill(model, content, path)
    return model, content["training"]
