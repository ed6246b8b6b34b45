"""Batch statistics over all processes of a data-parallel training, as if one process had the whole batch.

Where no process group is running, as in simulation and in training on one device, nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn


def n_processes() -> int:
    """Return how many processes train together."""
    is_running = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if is_running else 1


class _Sum(torch.autograd.Function):
    """Sum over processes; each of them feels the gradients of all."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Add up."""
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Add up what the sum's users on all processes feel."""
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def summed(values: Tensor) -> Tensor:
    """Return the sum over all processes, with its gradient."""
    return _Sum.apply(values)


def gathered(batch: Tensor) -> Tensor:
    """Return the batches of all processes after one another, (n_processes * batch, ...), with their gradients."""
    if n_processes() == 1:
        return batch
    blocks = batch.new_zeros(n_processes(), *batch.shape)
    own = torch.arange(n_processes(), device=batch.device) == distributed.get_rank()
    blocks = torch.where(own.reshape(-1, *[1] * batch.ndim), batch, blocks)
    return summed(blocks).flatten(0, 1)


class GatheredBatchNorm1d(nn.BatchNorm1d):
    """Batch norm with the mean and variance of all processes' batches; torch's own works on GPUs alone.

    Attributes
    ----------
    n_shared : int
        Last rows of the batch that every process has alike, and that count once.
    """

    n_shared = 0

    def forward(self, features: Tensor) -> Tensor:
        """Normalise (batch, n_features) or (batch, n_features, n_atoms)."""
        if not self.training:
            return super().forward(features)
        axes = [0] if features.ndim == 2 else [0, 2]
        n_own = len(features) - self.n_shared
        per_row = features[0, 0].numel()
        n = per_row * (n_own * n_processes() + self.n_shared)

        def total(values: Tensor) -> Tensor:
            return summed(values[:n_own].sum(axes)) + values[n_own:].sum(axes)  # (n_features,)

        shape = (1, -1) if features.ndim == 2 else (1, -1, 1)
        mean = total(features) / n
        centred = features - mean.reshape(shape)
        variance = total(centred.square()) / n
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
        normal = centred / torch.sqrt(variance + self.eps).reshape(shape)
        return normal * self.weight.reshape(shape) + self.bias.reshape(shape)


@contextmanager
def gathered_batch_norms(module: nn.Module) -> Iterator[None]:
    """Let a module's batch norms look at all processes' batches for as long as this is entered."""
    norms = [one for one in module.modules() if type(one) is nn.BatchNorm1d]
    for one in norms:
        one.__class__ = GatheredBatchNorm1d
    try:
        yield
    finally:
        for one in norms:
            one.__class__ = nn.BatchNorm1d


@contextmanager
def shared_rows(module: nn.Module, n_shared: int) -> Iterator[None]:
    """Count the last `n_shared` rows of what goes through the module's batch norms once for all processes."""
    norms = [one for one in module.modules() if isinstance(one, GatheredBatchNorm1d)]
    for one in norms:
        one.n_shared = n_shared
    try:
        yield
    finally:
        for one in norms:
            one.n_shared = 0
