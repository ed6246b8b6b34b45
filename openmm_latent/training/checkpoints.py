"""What survives an interruption of training: checkpoints that are replaced whole, and the loop that leaves them."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.errors import LatentError

#: Told now and then: steps done, steps in all, training loss, validation loss (NaN without validation).
Progress = Callable[[int, int, float, float], None]
#: Times that a training is looked at, told and saved.
N_LOOKS = 40

Network = TypeVar("Network", bound=nn.Module)


class Checkpoint:
    """A file of tensors and numbers that is replaced whole; without a folder nothing is kept.

    Parameters
    ----------
    folder : path, optional
        Made where it is absent.
    name : str
        Of the file; it should tell all that decides what training gives.
    resume : bool
        False removes an old one.
    """

    def __init__(self, folder: str | Path | None, name: str, resume: bool = True):
        self.path = None if folder is None else Path(folder) / name
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not resume:
                self.remove()

    def load(self, device: str = "cpu") -> dict[str, Any] | None:
        """Return what was saved, its tensors on a device, or None where nothing was.

        Raises
        ------
        LatentError
            The file is damaged.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            return torch.load(self.path, weights_only=True, map_location=device)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise LatentError(
                f"checkpoint {self.path} cannot be read ({str(error).splitlines()[0][:120]}); remove it, and training "
                f"begins anew"
            ) from error

    def save(self, content: dict[str, Any]) -> None:
        """Replace the file; one who reads it meanwhile, or a crash, finds the old or the new one."""
        if self.path is None:
            return
        partial = self.path.with_name(self.path.name + ".part")
        torch.save(content, partial)
        partial.replace(self.path)

    def remove(self) -> None:
        """Remove the file, if there is one."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class AveragedTraining(Generic[Network]):
    """Steps of training whose running mean of weights counts, and all of it that must survive an interruption.

    A subclass takes one step in `step`, whose draws should depend on its seed and on `done` alone: then training that
    was interrupted ends where it would have ended. In `judge` it tells the loss of `averaged` on what is kept apart.

    Parameters
    ----------
    network : nn.Module
        On its device.
    optimiser : torch.optim.Optimizer
        Of the network's parameters.
    n_steps : int
    decay : float
        Of the running mean, a step; the first steps move it more, so that it forgets where it began.
    name : str
        Of the network in checkpoints.

    Attributes
    ----------
    done : int
        Steps taken.
    averaged : nn.Module
        The network with the running mean of its weights, in evaluation mode.
    """

    def __init__(
        self, network: Network, optimiser: torch.optim.Optimizer, n_steps: int, decay: float, name: str = "network"
    ):
        self.network, self.optimiser, self.n_steps, self.decay, self.name = network, optimiser, n_steps, decay, name
        self.averaged = copy.deepcopy(network).eval()
        self.done = 0
        self.best: dict[str, Tensor] | None = None
        self.best_loss = math.inf

    def step(self) -> float:
        """Take one step; return its loss."""
        raise NotImplementedError

    def judge(self) -> float:
        """Return the loss of `averaged` on what is kept apart; NaN without any."""
        raise NotImplementedError

    def run(self, checkpoint: Checkpoint, progress: Progress | None) -> None:
        """Take the steps that are left."""
        self._restore(checkpoint.load(str(next(self.network.parameters()).device)))
        recent: list[float] = []
        while self.done < self.n_steps:
            recent.append(self.step())
            self._average()
            self.done += 1
            if self.done % max(1, self.n_steps // N_LOOKS) and self.done != self.n_steps:
                continue
            mean, recent, judged = float(np.mean(recent)), [], self.judge()
            if judged < self.best_loss:
                self.best, self.best_loss = copy.deepcopy(self.averaged.state_dict()), judged
            checkpoint.save(self._content())
            if progress is not None:
                progress(self.done, self.n_steps, mean, judged)

    def kept(self) -> Network:
        """Return the network whose weights count: the best on what was kept apart, or the last running mean."""
        if self.best is not None:
            self.averaged.load_state_dict(self.best)
        return self.averaged

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.decay, (1 + self.done) / (10 + self.done))
        for mean, now in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(now, 1.0 - decay)

    def _content(self) -> dict[str, Any]:
        return {
            self.name: self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "done": self.done,
            "best": self.best,
            "best_loss": self.best_loss,
        }

    def _restore(self, content: dict[str, Any] | None) -> None:
        if content is None:
            return
        self.network.load_state_dict(content[self.name])
        self.averaged.load_state_dict(content["averaged"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.done, self.best, self.best_loss = content["done"], content["best"], content["best_loss"]
