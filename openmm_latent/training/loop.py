"""One training stage under Lightning: random batches, one-cycle Adam, early stopping, checkpoints to resume from.

Imported only where training starts, because importing Lightning takes seconds.
"""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from torch import Tensor, nn

from openmm_latent.errors import require
from openmm_latent.nn.distributed import gathered_batch_norms


@dataclass(frozen=True)
class StageSettings:
    """How one stage trains."""

    name: str
    n_steps: int
    batch_size: int
    learning_rate: float
    dihedral_fraction: float
    validate_every: int  # steps
    patience: int  # validations
    seed: int
    devices: int = 1  # of one node; processes on the CPU
    nodes: int = 1


@dataclass(frozen=True)
class FrameTable:
    """Superposed frames (n_frames, n_atoms, 3) [nm] and their latents, (n_frames, n_latent) or (n_frames, 0)."""

    frames: Tensor
    latents: Tensor


class RandomBatches:
    """Batches of one epoch, drawn with replacement; the epoch number and the seed alone decide them.

    So a run that was interrupted and resumed sees the batches that it would have seen, and several processes see
    together what one would: each takes every n-th frame of the batch.
    """

    def __init__(self, table: FrameTable, n_noise: int, settings: StageSettings):
        self.table, self.n_noise, self.settings = table, n_noise, settings
        self.epoch = 0
        self.rank, self.n_processes = 0, 1

    def __len__(self) -> int:
        """Return the steps of one epoch."""
        return min(self.settings.validate_every, self.settings.n_steps)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor, bool]]:
        """Yield frames (batch, n_atoms, 3) [nm], latents, noise (batch, n_noise) and whether dihedrals count."""
        generator = torch.Generator().manual_seed(1_000_003 * self.settings.seed + self.epoch)
        size = self.settings.batch_size
        for _ in range(len(self)):
            chosen = torch.randint(len(self.table.frames), (size,), generator=generator)
            noise = torch.randn(size, self.n_noise, generator=generator)
            uses_dihedrals = float(torch.rand((), generator=generator)) < self.settings.dihedral_fraction
            chosen, noise = chosen[self.rank :: self.n_processes], noise[self.rank :: self.n_processes]
            yield self.table.frames[chosen], self.table.latents[chosen], noise, uses_dihedrals


class FrameBlocks:
    """Frames in order, block by block."""

    def __init__(self, table: FrameTable):
        self.blocks = list(zip(table.frames.split(2048), table.latents.split(2048), strict=True))

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self.blocks)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield frames (block, n_atoms, 3) [nm] and their latents."""
        return iter(self.blocks)


class Stage(lightning.LightningModule):
    """Train the objective's parameters; validate on frames in order."""

    def __init__(
        self, objective: nn.Module, settings: StageSettings, training: FrameTable, validation: FrameTable, n_noise: int
    ):
        super().__init__()
        self.objective, self.settings = objective, settings
        self.batches = RandomBatches(training, n_noise, settings)
        self.validation = validation
        self.n_noise = n_noise

    def configure_optimizers(self) -> dict:
        """Return Adam under a one-cycle schedule over the whole stage."""
        settings = self.settings
        optimiser = torch.optim.Adam(self.objective.trainable(), lr=settings.learning_rate)
        # a stage is a whole number of epochs, of `validate_every` steps each
        n_steps = -(-settings.n_steps // len(self.batches)) * len(self.batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, settings.learning_rate, total_steps=n_steps + 1, pct_start=0.1, final_div_factor=100
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> RandomBatches:
        """Return this epoch's batches; Lightning asks anew every epoch."""
        self.batches.epoch = self.current_epoch
        self.batches.rank, self.batches.n_processes = self.global_rank, self.trainer.world_size
        return self.batches

    def val_dataloader(self) -> FrameBlocks:
        """Return the validation frames in blocks."""
        return FrameBlocks(self.validation)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor, bool], batch_index: int) -> Tensor:
        """Return the loss of one batch."""
        frames, latents, noise, uses_dihedrals = batch
        return self.objective(frames, latents, noise, uses_dihedrals)

    def validation_step(self, block: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Log the loss of a block of validation frames, without noise."""
        frames, latents = block
        noise = torch.zeros(len(frames), self.n_noise, device=frames.device)
        loss = self.objective(frames, latents, noise, True)
        self.log("validation_loss", loss, prog_bar=True, batch_size=len(frames))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advice off the terminal; errors still come as exceptions."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


@contextmanager
def _keyboard_interrupts(trainer: lightning.Trainer, name: str) -> Iterator[None]:
    """Raise KeyboardInterrupt after Ctrl-C: Lightning ends the process instead, and leaves further Ctrl-C ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
    if trainer.interrupted:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt(f"training stopped in stage {name}; the same command resumes it")


@contextmanager
def _only_trainable(objective: nn.Module) -> Iterator[None]:
    """Let no gradient be made that the optimiser does not use: several processes would wait for one another's."""
    trainable = {id(one) for one in objective.trainable()}
    frozen = [one for one in objective.parameters() if id(one) not in trainable and one.requires_grad]
    for one in frozen:
        one.requires_grad_(False)
    try:
        yield
    finally:
        for one in frozen:
            one.requires_grad_(True)


def _statistics(objective: nn.Module, n_processes: int) -> AbstractContextManager[None]:
    """Let batch norms see the whole batch, of which each process has a part."""
    return gathered_batch_norms(objective) if n_processes > 1 else nullcontext()


def run_stage(
    objective: nn.Module,
    settings: StageSettings,
    training: FrameTable,
    validation: FrameTable,
    *,
    n_noise: int,
    directory: Path,
    device: str,
    progress: bool,
) -> None:
    """Train one stage, resuming from `directory/last.ckpt` if it is there; leave the best weights in `objective`.

    Parameters
    ----------
    training, validation : FrameTable

    Raises
    ------
    KeyboardInterrupt
        The user pressed Ctrl-C; the last checkpoint is in `directory`.
    LatentError
        The loss became infinite or NaN.
    """
    stage = Stage(objective, settings, training, validation, n_noise)
    best = ModelCheckpoint(
        directory, filename="best", monitor="validation_loss", save_last=True, enable_version_counter=False
    )
    stopper = EarlyStopping("validation_loss", patience=settings.patience, check_finite=True)
    callbacks: list = [best, stopper]
    if progress:
        callbacks.append(TQDMProgressBar(refresh_rate=10))
    last = directory / "last.ckpt"
    n_processes = settings.devices * settings.nodes
    require(
        settings.batch_size % n_processes == 0,
        f"devices x nodes must divide the batch of {settings.batch_size} frames, got {settings.devices} x "
        f"{settings.nodes}; each process takes the same share of it",
    )
    with warnings.catch_warnings(), _quiet(), _only_trainable(objective), _statistics(objective, n_processes):
        # advice on data loader workers and on steps too few to log: neither applies to tensors in memory
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        trainer = lightning.Trainer(
            accelerator={"cuda": "gpu"}.get(device, device),
            devices=settings.devices,
            num_nodes=settings.nodes,
            strategy="auto" if n_processes == 1 else "ddp",
            use_distributed_sampler=False,
            max_epochs=-(-settings.n_steps // len(stage.batches)),
            callbacks=callbacks,
            logger=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            gradient_clip_val=1.0,
            reload_dataloaders_every_n_epochs=1,
            default_root_dir=directory,
        )
        with _keyboard_interrupts(trainer, settings.name):
            trainer.fit(stage, ckpt_path=str(last) if last.exists() else None, weights_only=False)
    require(
        best.best_model_path != "" and bool(torch.isfinite(torch.as_tensor(best.best_model_score))),
        f"training of stage {settings.name} gave a loss that is not finite; lower its learning rate",
    )
    weights = torch.load(best.best_model_path, map_location="cpu", weights_only=False)["state_dict"]
    stage.load_state_dict(weights)
    stage.cpu()
