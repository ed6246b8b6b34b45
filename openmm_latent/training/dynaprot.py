"""Train DynaProt on examples of many proteins: first the marginal network, then the pair network.

The two share no weights (the paper's models M and J), so each is trained on its own loss and stopped in its own time.
A plain loop: a few hundred steps on a few kilobytes of labels are no work for a trainer's machinery.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.data.fluctuations import ProteinExample
from openmm_latent.errors import require
from openmm_latent.models.dynaprot.config import CONFIGS, LOSSES, DynaProtConfig
from openmm_latent.models.dynaprot.losses import compared, compared_coupling, coupling_loss, marginal_loss
from openmm_latent.models.dynaprot.network import ANGSTROM_PER_NM, DynaProt
from openmm_latent.models.dynaprot.surroundings import Structure, centred_structure
from openmm_latent.models.dynaprot.weights import save_weights
from openmm_latent.training.devices import resolve_device

_log = logging.getLogger(__name__)

#: Told after each step that counts: name of the network, steps done, steps in all, loss.
Progress = Callable[[str, int, int, float], None]


def train_dynaprot(
    examples: Sequence[ProteinExample],
    *,
    config: str | DynaProtConfig = "tiny",
    loss: str = "log_frobenius",
    validation: Sequence[ProteinExample] = (),
    out: str | Path | None = None,
    n_steps: int | None = None,
    seed: int = 1,
    device: str = "auto",
    progress: Progress | None = None,
    facts: dict[str, Any] | None = None,
) -> DynaProt:
    """Train a network and, where `out` is given, write its weights.

    Parameters
    ----------
    examples : sequence of ProteinExample
        From `read_examples` or `protein_example`.
    config : str or DynaProtConfig
        "tiny", "paper" or one of your own.
    loss : str
        "log_frobenius", or "mse" of the covariances themselves for comparison.
    validation : sequence of ProteinExample
        Other proteins; with them the weights that are best on these are kept, and training stops when they no longer
        get better. Without, the last weights are kept.
    out : path, optional
        File of weights to write, such as protein.weights.pt.
    n_steps : int, optional
        Of each network, instead of the configuration's.
    seed : int
        Of first weights, batches, noise and dropout: the same gives the same network, on one device and torch.
    device : str
        "auto", "cpu" or "cuda".
    progress : callable, optional
        Called with the network's name, steps done, steps in all and the mean loss since the last call.
    facts : dict, optional
        Said of the training data in the file of weights, such as temperature and force field.

    Returns
    -------
    DynaProt
        In evaluation mode, on the CPU.

    Raises
    ------
    LatentError
        An argument is wrong, or the loss is no longer finite.
    """
    chosen = _resolve_config(config, n_steps)
    require(len(examples) > 0, "examples must hold at least one protein, got none; read some with read_examples")
    require(loss in LOSSES, f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
    if out is not None:
        require(Path(out).parent.is_dir(), f"out: the folder '{Path(out).parent}' does not exist; create it first")
    device = resolve_device(device)
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
        torch.manual_seed(seed)
        model = DynaProt(chosen)
        course = {}
        for name, network in (("marginal", model.marginal), ("pair", model.pair)):
            stage = _Stage(name, network, chosen, loss, seed, device)
            course[name] = stage.run(examples, validation, progress)
    model.cpu().eval()
    if out is not None:
        save_weights(out, model, _training_facts(examples, validation, loss, seed, course, facts))
    return model


@dataclass(frozen=True)
class LabelledBatch:
    """Structures of one length after padding, and what the loss compares of their labels."""

    shape: Structure
    label: Tensor  # (b, n, 3, 3) or (b, n, n)


class _Stage:
    """Trains one of the two networks."""

    def __init__(self, name: str, network: nn.Module, config: DynaProtConfig, loss: str, seed: int, device: str):
        self.name, self.network, self.config, self.loss, self.device = name, network.to(device), config, loss, device
        self.rate = config.learning_rate if name == "marginal" else config.pair_learning_rate
        self.generator = torch.Generator().manual_seed(seed)
        decays = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": decays}, {"params": others, "weight_decay": 0.0}],
            lr=self.rate,
            weight_decay=config.weight_decay,
        )

    def run(
        self, examples: Sequence[ProteinExample], validation: Sequence[ProteinExample], progress: Progress | None
    ) -> dict[str, float | int]:
        """Train; leave the best weights, or without validation the last, in the network; return its course."""
        config = self.config
        labelled = [self._labelled(example) for example in examples]
        held_out = [batch_of([self._labelled(example)], self.device) for example in validation]
        best, best_loss, n_worse = None, float("inf"), 0
        recent: list[float] = []
        for step, batch in zip(range(1, config.n_steps + 1), self._batches(labelled), strict=False):
            recent.append(self._step(batch, step))
            if step % config.validate_every and step != config.n_steps:
                continue
            mean, recent = float(np.mean(recent)), []
            if held_out:
                mean = self._validate(held_out)
                n_worse = 0 if mean < best_loss else n_worse + 1
                if n_worse == 0:
                    best, best_loss = copy.deepcopy(self.network.state_dict()), mean
            if progress is not None:
                progress(self.name, step, config.n_steps, mean)
            _log.debug("%s network, step %d: loss %.4f", self.name, step, mean)
            if n_worse > config.patience:
                break
        if best is not None:
            self.network.load_state_dict(best)
        self.network.eval()
        return {"steps": step, "loss": best_loss if held_out else mean}

    def _step(self, batch: LabelledBatch, step: int) -> float:
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * _schedule(step / self.config.n_steps)
        self.optimiser.zero_grad()
        loss = self._loss(LabelledBatch(self._jostled(batch.shape), batch.label))
        require(
            bool(torch.isfinite(loss)),
            f"training of the {self.name} network gave a loss that is not finite; lower its learning rate",
        )
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        self.optimiser.step()
        return float(loss.detach())

    def _loss(self, batch: LabelledBatch) -> Tensor:
        distance = marginal_loss if self.name == "marginal" else coupling_loss
        return distance(self.network(batch.shape), batch.label, batch.shape.mask, self.loss)

    @torch.no_grad()
    def _validate(self, held_out: Sequence[LabelledBatch]) -> float:
        """Return the mean loss over proteins."""
        self.network.eval()
        return float(np.mean([float(self._loss(batch)) for batch in held_out]))

    def _labelled(self, example: ProteinExample) -> tuple[ProteinExample, Tensor]:
        """Return an example with what the loss compares of its label; a logarithm is taken once, not in each step."""
        if self.name == "marginal":
            return example, compared(torch.as_tensor(example.marginal) * ANGSTROM_PER_NM**2, self.loss)
        coupling = torch.as_tensor(example.coupling).unsqueeze(0) * ANGSTROM_PER_NM**2
        mask = torch.ones(1, len(example), dtype=torch.bool)
        return example, compared_coupling(coupling, mask, self.loss)[0]

    def _batches(self, labelled: Sequence[tuple[ProteinExample, Tensor]]) -> Iterator[LabelledBatch]:
        """Yield batches without end; each protein comes once before any comes again."""
        size = min(self.config.batch_size, len(labelled))
        waiting: list[int] = []
        while True:
            while len(waiting) < size:
                waiting += torch.randperm(len(labelled), generator=self.generator).tolist()
            chosen, waiting = waiting[:size], waiting[size:]
            yield batch_of([labelled[i] for i in chosen], self.device)

    def _jostled(self, shape: Structure) -> Structure:
        """Move and turn residues a little at random: other frames of a trajectory would teach as well."""
        size = self.config.position_noise
        if size == 0:
            return shape
        moves = torch.randn(shape.positions.shape, generator=self.generator).to(self.device)
        turns = torch.randn(shape.positions.shape, generator=self.generator).to(self.device)
        skew = torch.zeros_like(shape.rotations)
        for (row, column), axis in {(2, 1): 0, (0, 2): 1, (1, 0): 2}.items():
            skew[..., row, column] = turns[..., axis]
            skew[..., column, row] = -turns[..., axis]
        rotations = shape.rotations @ torch.linalg.matrix_exp(skew * (size / 0.1))
        return centred_structure(
            shape.residue_types, rotations, shape.positions + size * moves, shape.chains, shape.mask
        )


def batch_of(labelled: Sequence[tuple[ProteinExample, Tensor]], device: str = "cpu") -> LabelledBatch:
    """Pad structures and labels to the longest protein; the network sees float32."""
    lengths = [len(example) for example, _ in labelled]
    n = max(lengths)
    mask = torch.arange(n)[None] < torch.tensor(lengths)[:, None]

    def padded(parts: list[Tensor], *axes: int) -> Tensor:
        whole = torch.zeros(len(parts), *[n if axis in axes else size for axis, size in enumerate(parts[0].shape)])
        whole = whole.to(parts[0].dtype)
        for row, part in zip(whole, parts, strict=True):
            row[tuple(slice(size) for size in part.shape)] = part
        return whole.to(device)

    shown = [example for example, _ in labelled]
    shape = centred_structure(
        padded([torch.as_tensor(example.residue_types) for example in shown], 0),
        padded([torch.as_tensor(example.rotations, dtype=torch.float32) for example in shown], 0),
        padded([torch.as_tensor(example.positions, dtype=torch.float32) for example in shown], 0),
        padded([torch.as_tensor(example.chains) for example in shown], 0),
        mask.to(device),
    )
    is_pairwise = labelled[0][1].ndim == 2
    return LabelledBatch(shape, padded([label for _, label in labelled], *((0, 1) if is_pairwise else (0,))))


def _schedule(share: float) -> float:
    """Return the share of the learning rate: a rise over the first twentieth, then half a cosine to a hundredth."""
    if share < 0.05:
        return share / 0.05
    return 0.01 + 0.99 * 0.5 * (1.0 + float(np.cos(np.pi * (share - 0.05) / 0.95)))


def _resolve_config(config: str | DynaProtConfig, n_steps: int | None) -> DynaProtConfig:
    if isinstance(config, str):
        require(config in CONFIGS, f"config must be one of {', '.join(CONFIGS)}, got {config!r}")
        config = CONFIGS[config]
    return config if n_steps is None else replace(config, n_steps=n_steps)


def _digest(examples: Sequence[ProteinExample]) -> str:
    """Return the SHA-256 of what was shown and taught."""
    total = hashlib.sha256()
    for example in examples:
        total.update(f"{example.name} {example.n_frames}".encode())
        for part in (example.residue_types, example.positions, example.marginal, example.coupling):
            total.update(np.ascontiguousarray(part).tobytes())
    return total.hexdigest()


def _training_facts(
    examples: Sequence[ProteinExample],
    validation: Sequence[ProteinExample],
    loss: str,
    seed: int,
    course: dict[str, dict[str, float | int]],
    facts: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return what a file of weights says of its training."""
    return {
        "proteins": {example.name: {"residues": len(example), "frames": example.n_frames} for example in examples},
        "validation": [example.name for example in validation],
        "loss": loss,
        "seed": seed,
        "digest": _digest(examples),
        "course": course,
        **(facts or {}),
    }
