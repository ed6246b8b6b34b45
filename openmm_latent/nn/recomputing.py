"""Training large networks in bounded memory: parts that compute anew, on the way back, what they do not keep."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    apply_activation_checkpointing,
    checkpoint_wrapper,
)

from openmm_latent.errors import require


def recompute(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> int:
    """Let parts of a model forget, after they have run, all but their inputs, and run again for the gradient.

    A training step then takes about a third longer, and the memory of one part at a time beside the inputs of all.
    Results, gradients and names of weights stay the same. A model so changed is for training alone: load its weights
    into a fresh one to export it.

    Parameters
    ----------
    model : nn.Module
        Changed in place.
    kinds : tuple of type
        Of the parts, none within another.

    Returns
    -------
    int
        How many parts there are.

    Raises
    ------
    LatentError
        There is no such part.
    """
    n_parts = sum(isinstance(part, kinds) for part in model.modules())
    require(
        n_parts > 0,
        f"kinds must name parts of the model, got {', '.join(kind.__name__ for kind in kinds)}, of which "
        f"{type(model).__name__} has none; choose others",
    )
    wrap = partial(checkpoint_wrapper, checkpoint_impl=CheckpointImpl.NO_REENTRANT)
    apply_activation_checkpointing(model, checkpoint_wrapper_fn=wrap, check_fn=lambda part: isinstance(part, kinds))
    return n_parts
