"""The file of a trained CODLAD: autoencoder and denoiser together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openmm_latent.errors import LatentError
from openmm_latent.models.codlad.config import CODLADConfig
from openmm_latent.models.codlad.module import CODLAD
from openmm_latent.nn.weights import fill, read_weights, write_weights

FAMILY = "codlad"


def save_weights(path: str | Path, model: CODLAD, training: Mapping[str, Any]) -> Path:
    """Write a model and what is said of its training; see `openmm_latent.nn.weights.write_weights`."""
    config = {**asdict(model.config), "terms": list(model.config.terms)}
    return write_weights(path, FAMILY, config, model, training)


def load_weights(path: str | Path) -> tuple[CODLAD, dict[str, Any]]:
    """Read a model, in evaluation mode on the CPU, and what is said of its training.

    Raises
    ------
    LatentError
        The file is absent, truncated, of another kind or family, or of another version's network.
    """
    content = read_weights(path, FAMILY)
    try:
        config = CODLADConfig(**{**content["config"], "terms": tuple(content["config"].get("terms", ()))})
    except TypeError as error:
        raise LatentError(
            f"weights file {path} was written by another version, with other settings ({error}); train anew"
        ) from error
    model = CODLAD(config)
    fill(model, content, path)
    return model, content["training"]
