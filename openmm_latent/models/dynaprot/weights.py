"""The file of a trained network: its configuration, weights and training, written whole or not at all."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from openmm_latent.errors import LatentError
from openmm_latent.models.dynaprot.config import DynaProtConfig
from openmm_latent.models.dynaprot.network import DynaProt
from openmm_latent.nn.weights import fill, read_weights, write_weights

FAMILY = "dynaprot"
#: Of the small network, trained on short MD of ten small proteins by `benchmarks/dynaprot_small.py --ship`.
SHIPPED_WEIGHTS = Path(__file__).with_name("small_proteins.weights.pt")


def save_weights(path: str | Path, model: DynaProt, training: dict[str, Any]) -> Path:
    """Write a network's weights.

    Parameters
    ----------
    path : path
        Such as protein.weights.pt; its folder must exist.
    model : DynaProt
    training : dict
        What it was trained on and how; plain numbers, strings, lists and dicts.

    Raises
    ------
    LatentError
        The folder does not exist.
    """
    return write_weights(path, FAMILY, asdict(model.config), model, training)


def load_weights(path: str | Path) -> tuple[DynaProt, dict[str, Any]]:
    """Read a network, in evaluation mode on the CPU, and what is said of its training.

    Raises
    ------
    LatentError
        The file is absent, truncated, of another kind or family, or of another version's network.
    """
    content = read_weights(path, FAMILY)
    try:
        model = DynaProt(DynaProtConfig(**content["config"]))
    except TypeError as error:
        raise LatentError(
            f"weights file {path} was written by another version, whose network has other parts ({error}); train anew"
        ) from error
    fill(model, content, path)
    return model, content["training"]
