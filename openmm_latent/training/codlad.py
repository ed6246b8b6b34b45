"""Train CODLAD's autoencoder on the frames of many proteins: the first of the model's two stages.

Each step takes frames of one protein; proteins take turns. An epoch is a fixed number of steps, and its batches depend
on the seed and its number alone: training that was interrupted and resumed ends where it would have ended.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.data.residue_slots import ProteinFrames
from openmm_latent.errors import require
from openmm_latent.metrics.backmapping import bond_graph_scores, covalent_radii
from openmm_latent.models.codlad import CONFIGS, Autoencoder, CODLADConfig, Protein
from openmm_latent.models.codlad.losses import (
    LossTables,
    heavy_atom_rmsd,
    nearer_names,
    reconstruction_terms,
    weighted_sum,
)
from openmm_latent.nn.internal_coordinates import Chirality
from openmm_latent.nn.residue_geometry import CA
from openmm_latent.training.checkpoints import Checkpoint, Progress
from openmm_latent.training.codlad_side_chains import exchange_side_chains

_log = logging.getLogger(__name__)

#: Frames of each protein that are scored after an epoch, evenly spread.
_N_VALIDATED = 8
#: Atoms nearer than this clash [nm], as CODLAD's code counts them.
_CLASH = 0.12
_ANGSTROM = 10.0  # one nm
#: Of the codes of one kind of residue, which may all be the same one.
_LEAST_SPREAD = 1e-2


def train_codlad_autoencoder(
    examples: Sequence[ProteinFrames],
    *,
    config: str | CODLADConfig = "tiny",
    validation: Sequence[ProteinFrames] = (),
    work_directory: str | Path | None = None,
    n_epochs: int | None = None,
    seed: int = 1,
    device: str = "auto",
    resume: bool = True,
    progress: Progress | None = None,
) -> Autoencoder:
    """Train encoder, codebook and decoder.

    Parameters
    ----------
    examples : sequence of ProteinFrames
        From `read_protein_frames`, `frames_of` or `protein_frames`.
    config : str or CODLADConfig
        "tiny", "paper" or one of your own.
    validation : sequence of ProteinFrames
        Other frames or proteins; with them the learning rate falls when these no longer get better, and the weights
        that are best on them are kept. Without, the training loss decides on the rate, and the last weights are kept.
    work_directory : path, optional
        Keeps a checkpoint an epoch, and the finished autoencoder, which the same call finds again.
    n_epochs : int, optional
        Instead of the configuration's.
    seed : int
        Of first weights and batches: the same gives the same model, on one device and torch.
    device : str
        "auto", "cpu" or "cuda".
    resume : bool
        False trains anew.
    progress : callable, optional
        Called after each epoch.

    Returns
    -------
    Autoencoder
        In evaluation mode, on the CPU.

    Raises
    ------
    LatentError
        An argument is wrong, or the loss is no longer finite.
    """
    chosen = _resolve_config(config, n_epochs)
    require(len(examples) > 0, "examples must hold at least one protein, got none; read some with read_protein_frames")
    require(device in ("auto", "cpu", "cuda"), f"device must be 'auto', 'cpu' or 'cuda', got {device!r}")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    for example in (*examples, *validation):
        require(
            len(example) > 0 and bool(np.isfinite(example.positions).all()),
            f"examples must hold frames of numbers, got none or others in {example.name}; cut such frames off",
        )
    name = f"codlad-autoencoder-{_key(examples, validation, chosen, seed)}"
    finished = Checkpoint(work_directory, f"{name}.pt", resume)
    underway = Checkpoint(work_directory, f"{name}.ckpt", resume)
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
        torch.manual_seed(seed)
        model = Autoencoder(chosen)
    found = finished.load()
    if found is not None:
        model.load_state_dict(found["model"])
        _log.info("autoencoder found in %s", finished.path)
        return model.eval()
    exchanged = exchange_side_chains(examples, chosen.n_exchanged, seed) if chosen.n_exchanged else []
    training = _Training(model.to(device), examples, validation, seed, device, exchanged)
    training.run(underway, progress)
    finished.save({"model": model.state_dict(), "course": training.course})
    underway.remove()
    return model.cpu().eval()


@dataclass(frozen=True)
class _Subject:
    """One protein with all that training needs of it."""

    frames: Tensor  # (n_frames, n_residues, 15, 3) [nm], on the CPU
    protein: Protein
    tables: LossTables

    @staticmethod
    def of(example: ProteinFrames, device: str) -> _Subject:
        tables = LossTables(example.residues, example.disulphides)
        return _Subject(torch.as_tensor(example.positions), Protein(example.residues).to(device), tables.to(device))


class _Training:
    """The loop over epochs and all that must survive an interruption."""

    def __init__(
        self,
        model: Autoencoder,
        examples: Sequence[ProteinFrames],
        validation: Sequence[ProteinFrames],
        seed: int,
        device: str,
        exchanged: Sequence[ProteinFrames] = (),
    ):
        self.model, self.config, self.seed, self.device = model, model.config, seed, device
        self.subjects = [_Subject.of(example, device) for example in (*examples, *exchanged)]
        self.n_own = len(examples)  # the first are frames as they came
        self.held_out = [_Subject.of(example, device) for example in validation]
        decays = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": decays}, {"params": others, "weight_decay": 0.0}]
        config = self.config
        self.optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.schedule: torch.optim.lr_scheduler.LRScheduler
        if config.rate_falls == "cosine":
            self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
                self.optimiser, config.n_epochs * config.steps_per_epoch, eta_min=0.02 * config.learning_rate
            )
        else:
            self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
                self.optimiser, factor=config.plateau_factor, patience=config.plateau_patience
            )
        self.uses_codes = True
        self.best: dict[str, Tensor] | None = None
        self.best_loss = float("inf")
        self.course: list[tuple[float, float]] = []  # training and validation loss of each epoch

    def run(self, checkpoint: Checkpoint, progress: Progress | None) -> None:
        """Train what is not yet trained; leave the best weights, or the last, in the model."""
        self._resume(checkpoint.load())
        for epoch in range(len(self.course), self.config.n_epochs):
            self._set_codes(epoch)
            losses = [self._step(subject, frames, epoch) for subject, frames in self._batches(epoch)]
            training, validated = float(np.mean(losses)), self._validate()
            # before codes, xyz and clash count, the loss is another one
            if self.uses_codes and epoch >= self.config.first_epoch_with_xyz:
                if isinstance(self.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
                    self.schedule.step(validated if self.held_out else training)
                if validated < self.best_loss:
                    self.best, self.best_loss = copy.deepcopy(self.model.state_dict()), validated
            self.course.append((training, validated))
            checkpoint.save(self._content())
            if progress is not None:
                progress(epoch + 1, self.config.n_epochs, training, validated)
        if self.best is not None:
            self.model.load_state_dict(self.best)
        self._set_statistics()

    def _content(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "best": self.best,
            "best_loss": self.best_loss,
            "course": self.course,
        }

    def _resume(self, content: dict[str, Any] | None) -> None:
        if content is None:
            return
        self.model.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.schedule.load_state_dict(content["schedule"])
        self.best, self.best_loss, self.course = content["best"], content["best_loss"], list(content["course"])

    def _batches(self, epoch: int) -> Iterator[tuple[_Subject, Tensor]]:
        """Yield an epoch's batches, (batch, n_residues, 15, 3) [nm]; each protein comes once before any comes again."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
        waiting: list[int] = []
        for _ in range(self.config.steps_per_epoch):
            if not waiting:
                waiting = torch.randperm(len(self.subjects), generator=generator).tolist()
            subject = self.subjects[waiting.pop()]
            n_frames = min(self.config.batch_size, max(1, self.config.residues_per_batch // len(subject.protein.types)))
            chosen = torch.randperm(len(subject.frames), generator=generator)[:n_frames]
            yield subject, subject.frames[chosen].to(self.device)

    def _set_codes(self, epoch: int) -> None:
        """Decide whether latents are snapped in an epoch; place the codebook on the latents of the first that does."""
        self.uses_codes = epoch >= min(self.config.first_epoch_with_codes, self.config.n_epochs - 1)
        if not self.uses_codes or int(self.model.quantiser.n_calls) > 0:
            return
        self.model.eval()
        with torch.no_grad():
            self.model.quantiser.start(torch.cat([torch.cat(self._latents(subject)) for subject in self.subjects]))

    def _latents(self, subject: _Subject) -> list[Tensor]:
        """Return latents of some of a protein's frames, each (n_frames n_residues, n_latent), block by block."""
        blocks = _spread(subject.frames, 8 * _N_VALIDATED).split(self.config.batch_size)
        return [self.model.encode(subject.protein, block.to(self.device)).flatten(0, 1) for block in blocks]

    def _terms(self, subject: _Subject, frames: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the terms of the loss and the commitment loss of a batch."""
        model, protein = self.model, subject.protein
        latent = model.encode(protein, frames)
        quantised, _, commitment = model.quantise(latent) if self.uses_codes else (latent, None, latent.new_zeros(()))
        internal, positions = model.decode(protein, quantised, frames[:, :, CA])
        terms = reconstruction_terms(protein, subject.tables, internal, positions, frames, self.config)
        return terms, commitment

    def _step(self, subject: _Subject, frames: Tensor, epoch: int) -> float:
        self.model.train()
        self.optimiser.zero_grad()
        terms, commitment = self._terms(subject, frames)
        loss = weighted_sum(terms, self.config, epoch) + commitment
        require(
            bool(torch.isfinite(loss)),
            "training of the autoencoder gave a loss that is not finite; lower the configuration's learning_rate",
        )
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self.optimiser.step()
        if self.config.rate_falls == "cosine":
            self.schedule.step()
        return float(loss.detach())

    @torch.no_grad()
    def _validate(self) -> float:
        """Return the mean over held-out proteins of the loss by the last epochs' weights; NaN without any."""
        self.model.eval()
        losses = []
        for subject in self.held_out:
            for block in _spread(subject.frames, _N_VALIDATED).split(self.config.batch_size):
                terms, commitment = self._terms(subject, block.to(self.device))
                losses.append(float(weighted_sum(terms, self.config, self.config.clash_doubles_after + 1) + commitment))
        return float(np.mean(losses)) if losses else float("nan")

    @torch.no_grad()
    def _set_statistics(self) -> None:
        """Tell which codes each kind of residue has in its own frames, their mean and their spread."""
        model, device = self.model.eval(), self.device
        counts = torch.zeros_like(model.known_codes, dtype=torch.float64)
        for subject in self.subjects[: self.n_own]:
            for latents in self._latents(subject):
                chosen = model.quantiser.codebook.nearest(latents)
                kinds = subject.protein.types.repeat(len(chosen) // len(subject.protein.types))
                counts.index_put_((kinds, chosen), counts.new_ones(len(chosen)), accumulate=True)
        model.known_codes.copy_(counts > 0)
        everything = counts.sum(0, keepdim=True)
        is_absent = counts.sum(1) == 0
        model.known_codes[is_absent] = True  # a kind that was never seen takes any code
        share = torch.where(is_absent.unsqueeze(1), everything, counts)
        share = share / share.sum(1, keepdim=True)
        codes = model.quantiser.codes.double().to(device)
        mean = share @ codes
        variance = share @ codes.square() - mean.square()
        model.latent_mean.copy_(mean)
        model.latent_std.copy_(variance.clamp(min=_LEAST_SPREAD**2).sqrt())


def _spread(frames: Tensor, n_frames: int) -> Tensor:
    """Return at most so many frames, evenly spread."""
    return frames[torch.linspace(0, len(frames) - 1, min(n_frames, len(frames))).round().long()]


@torch.no_grad()
def reconstruction_scores(model: Autoencoder, example: ProteinFrames, n_frames: int = 32) -> dict[str, float]:
    """Encode, snap, decode and compare frames of one protein.

    Parameters
    ----------
    model : Autoencoder
        In evaluation mode, on the CPU.
    example : ProteinFrames
    n_frames : int
        At most so many, evenly spread.

    Returns
    -------
    dict of str to float
        rmsd_angstrom, of heavy atoms but Cα, mean over frames, not superposed since both lie on one trace; gdr, ged,
        bond_mse of `metrics.backmapping.bond_graph_scores`; clash, share of pairs within 5 Å, not bonded nor bonded to
        a common atom, that are nearer than 1.2 Å; wrong_hands, stereocentres; codes, share of the codebook in use;
        perplexity of it; loss_bond and so on, the mean of each term

    DISCREPANCY(CODLAD, clash): the paper's share of all non-bonded pairs falls with the size of the protein; this one
    counts pairs that are near.
    """
    subject = _Subject.of(example, "cpu")
    frames, protein = _spread(subject.frames, n_frames), subject.protein
    found, codes, terms = [], [], []
    for block in frames.split(model.config.batch_size):
        quantised, chosen, _ = model.quantise(model.encode(protein, block))
        internal, positions = model.decode(protein, quantised, block[:, :, CA])
        terms.append(reconstruction_terms(protein, subject.tables, internal, positions, block, model.config))
        found.append(positions)
        codes.append(chosen)
    positions = torch.cat(found)
    true = nearer_names(positions, frames, subject.tables)
    elements = [name[0] for names in example.residues.atom_names for name in names if name]
    atoms = protein.has_atom
    share, perplexity = model.quantiser.utilisation(torch.cat(codes))
    near = len(subject.tables.near_pairs(positions, 0.5))
    return {
        "rmsd_angstrom": _ANGSTROM * float(heavy_atom_rmsd(positions, true, protein, subject.tables).mean()),
        **bond_graph_scores(positions[:, atoms].numpy(), true[:, atoms].numpy(), covalent_radii(elements)),
        "clash": len(subject.tables.near_pairs(positions, _CLASH)) / max(1, near),
        "wrong_hands": float((~Chirality(example.residues)(positions)).sum()),
        "codes": share,
        "perplexity": perplexity,
        **{f"loss_{name}": float(np.mean([float(batch[name]) for batch in terms])) for name in terms[0]},
    }


def _resolve_config(config: str | CODLADConfig, n_epochs: int | None) -> CODLADConfig:
    if isinstance(config, str):
        require(config in CONFIGS, f"config must be one of {', '.join(CONFIGS)}, got {config!r}")
        config = CONFIGS[config]
    return config if n_epochs is None else replace(config, n_epochs=n_epochs)


def _key(
    examples: Sequence[ProteinFrames], validation: Sequence[ProteinFrames], config: CODLADConfig, seed: int
) -> str:
    """Return a digest of all that decides what training gives."""
    digest = hashlib.sha256(json.dumps([_code_digest(), asdict(config), seed], sort_keys=True).encode())
    for example in (*examples, *validation):
        residues = example.residues
        digest.update(f"{example.name} {example.positions.shape}".encode())
        for part in (residues.types, residues.chains, residues.is_joined, residues.has_oxt, example.disulphides):
            digest.update(np.ascontiguousarray(part).tobytes())
        digest.update(np.ascontiguousarray(example.positions).tobytes())
    digest.update(str(len(examples)).encode())
    return digest.hexdigest()[:12]


@cache
def _code_digest() -> str:
    """Digest of the code that makes the autoencoder: one of other code is not found again."""
    root = Path(__file__).parents[1]
    parts = "autoencoder config decoder encoder graphs losses quantiser".split()
    files = [root / "models" / "codlad" / f"{part}.py" for part in parts]
    files += [root / "nn" / "internal_coordinates.py", root / "nn" / "residue_geometry.py", Path(__file__)]
    files.append(Path(__file__).with_name("codlad_side_chains.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
