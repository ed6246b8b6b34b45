"""The file of a transferable family: its configuration, weights and training, written whole or not at all."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import nn

from openmm_latent.errors import LatentError, require

_KEYS = {"family", "config", "state_dict", "training"}


def write_weights(
    path: str | Path, family: str, config: Mapping[str, Any], model: nn.Module, training: Mapping[str, Any]
) -> Path:
    """Write a model's weights.

    Parameters
    ----------
    path : path
        Such as protein.weights.pt; its folder must exist.
    family : str
        As `openmm-latent train` and `bind` call it.
    config : mapping
        What the model is built from.
    model : nn.Module
    training : mapping
        What it was trained on and how; plain numbers, strings, lists and dicts, like the configuration.

    Raises
    ------
    LatentError
        The folder does not exist.
    """
    path = Path(path)
    require(path.parent.is_dir(), f"out: the folder '{path.parent}' does not exist; create it first")
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    content = {"family": family, "config": dict(config), "state_dict": state, "training": dict(training)}
    partial = path.with_name(path.name + ".part")
    torch.save(content, partial)
    partial.replace(path)
    return path


def read_weights(path: str | Path, family: str) -> dict[str, Any]:
    """Return what `write_weights` wrote: family, config, state_dict and training, on the CPU.

    Raises
    ------
    LatentError
        The file is absent, truncated, or of another kind or family.
    """
    path = Path(path)
    require(path.is_file(), f"weights file {path} does not exist; check the name")
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, pickle.UnpicklingError, EOFError, BadZipFile, ValueError, KeyError, OSError) as error:
        raise LatentError(
            f"weights file {path} cannot be read: it is truncated or no file of weights; write it anew with "
            f"`openmm-latent train {family}`"
        ) from error
    is_ours = isinstance(content, dict) and content.keys() >= _KEYS
    found = content.get("family") if isinstance(content, dict) else None
    require(
        is_ours and found == family,
        f"weights file {path} must be of family {family!r}, got {found!r}; give what `openmm-latent train {family}` "
        f"wrote",
    )
    return content


def fill(model: nn.Module, content: Mapping[str, Any], path: str | Path) -> nn.Module:
    """Give a model the weights of a file, and return it in evaluation mode.

    Raises
    ------
    LatentError
        The file is of a model with other parts.
    """
    try:
        model.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise LatentError(
            f"weights file {path} was written by another version, whose network has other parts ({error}); train anew"
        ) from error
    return model.eval()
