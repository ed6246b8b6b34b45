"""The file of a trained network: its configuration, weights and training, written whole or not at all."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch

from openmm_latent.errors import LatentError, require
from openmm_latent.models.dynaprot.config import DynaProtConfig
from openmm_latent.models.dynaprot.network import DynaProt

FAMILY = "dynaprot"
_KEYS = {"family", "config", "state_dict", "training"}


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
    path = Path(path)
    require(path.parent.is_dir(), f"out: the folder '{path.parent}' does not exist; create it first")
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    content = {"family": FAMILY, "config": asdict(model.config), "state_dict": state, "training": training}
    partial = path.with_name(path.name + ".part")
    torch.save(content, partial)
    partial.replace(path)
    return path


def load_weights(path: str | Path) -> tuple[DynaProt, dict[str, Any]]:
    """Read a network, in evaluation mode on the CPU, and what is said of its training.

    Raises
    ------
    LatentError
        The file is absent, truncated, of another kind or family, or of another version's network.
    """
    path = Path(path)
    require(path.is_file(), f"weights file {path} does not exist; check the name")
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, pickle.UnpicklingError, EOFError, BadZipFile, ValueError, KeyError, OSError) as error:
        raise LatentError(
            f"weights file {path} cannot be read: it is truncated or no file of weights; write it anew with "
            f"`openmm-latent train dynaprot`"
        ) from error
    is_ours = isinstance(content, dict) and content.keys() >= _KEYS
    family = content.get("family") if isinstance(content, dict) else None
    require(
        is_ours and family == FAMILY,
        f"weights file {path} must be of family {FAMILY!r}, got {family!r}; give what `openmm-latent train dynaprot` "
        f"wrote",
    )
    try:
        model = DynaProt(DynaProtConfig(**content["config"]))
        model.load_state_dict(content["state_dict"])
    except (TypeError, RuntimeError) as error:
        raise LatentError(
            f"weights file {path} was written by another version, whose network has other parts ({error}); train anew"
        ) from error
    return model.eval(), content["training"]
