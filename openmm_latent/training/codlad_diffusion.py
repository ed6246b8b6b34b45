"""Train CODLAD's denoiser on the codes that a trained autoencoder gives frames: the second of the model's two stages.

Each step takes frames of one protein, noises their standardised codes to random levels, and moves the weights; what is
kept is their running mean. A step's draws depend on the seed and its number alone: training that was interrupted and
resumed ends where it would have ended.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.data.residue_slots import ProteinFrames
from openmm_latent.diffusion.gaussian_diffusion import GaussianDiffusion
from openmm_latent.errors import require
from openmm_latent.models.codlad import Autoencoder, CODLADConfig, Protein
from openmm_latent.models.codlad.denoiser import Denoiser
from openmm_latent.models.codlad.module import BOUND, CODLAD
from openmm_latent.models.codlad.weights import save_weights
from openmm_latent.nn.residue_geometry import CA
from openmm_latent.training.checkpoints import AveragedTraining, Checkpoint, Progress
from openmm_latent.training.codlad import train_codlad_autoencoder
from openmm_latent.training.devices import resolve_device
from openmm_latent.training.rates import rise_and_fall

#: Frames of a protein that validate.
_N_VALIDATED = 64


def train_codlad(
    examples: Sequence[ProteinFrames],
    *,
    config: str | CODLADConfig = "tiny",
    validation: Sequence[ProteinFrames] = (),
    out: str | Path | None = None,
    work_directory: str | Path | None = None,
    n_epochs: int | None = None,
    n_steps: int | None = None,
    seed: int = 1,
    device: str = "auto",
    resume: bool = True,
    progress: Mapping[str, Progress] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> CODLAD:
    """Train both stages and, where `out` is given, write the weights.

    Parameters
    ----------
    examples, validation : sequence of ProteinFrames
        To learn from, and to judge by; see `train_codlad_autoencoder`.
    config : str or CODLADConfig
        "tiny", "paper" or one of your own.
    out : path, optional
        File of weights to write, such as backmap.weights.pt.
    work_directory : path, optional
        Keeps what is trained, so that the same call goes on after an interruption.
    n_epochs, n_steps : int, optional
        Of the autoencoder and of the denoiser, instead of the configuration's.
    seed : int
    device : str
        "auto", "cpu" or "cuda".
    resume : bool
        False trains anew.
    progress : mapping, optional
        "autoencoder" and "denoiser" -> called as each stage goes on.
    facts : mapping, optional
        Said of the training data in the file of weights, such as temperature and force field.

    Returns
    -------
    CODLAD
        In evaluation mode, on the CPU.

    Raises
    ------
    LatentError
        An argument is wrong, or a loss is no longer finite.
    """
    if out is not None:
        require(Path(out).parent.is_dir(), f"out: the folder '{Path(out).parent}' does not exist; create it first")
    told = dict(progress or {})
    shared = {"validation": validation, "work_directory": work_directory, "seed": seed, "device": device}
    autoencoder = train_codlad_autoencoder(
        examples, config=config, n_epochs=n_epochs, resume=resume, progress=told.get("autoencoder"), **shared
    )
    denoiser = train_codlad_diffusion(
        autoencoder, examples, n_steps=n_steps, resume=resume, progress=told.get("denoiser"), **shared
    )
    model = CODLAD(denoiser_config(autoencoder.config, n_steps))
    model.autoencoder, model.denoiser = autoencoder, denoiser
    if out is not None:
        save_weights(out, model.eval(), _training_facts(examples, validation, seed, facts))
    return model.eval()


def train_codlad_diffusion(
    autoencoder: Autoencoder,
    examples: Sequence[ProteinFrames],
    *,
    validation: Sequence[ProteinFrames] = (),
    work_directory: str | Path | None = None,
    n_steps: int | None = None,
    seed: int = 1,
    device: str = "auto",
    resume: bool = True,
    progress: Progress | None = None,
) -> Denoiser:
    """Train the denoiser on the codes of a trained autoencoder.

    Parameters
    ----------
    autoencoder : Autoencoder
        Trained; it is not changed. Its configuration says how the denoiser is built and trained.
    examples : sequence of ProteinFrames
    validation : sequence of ProteinFrames
        Other frames or proteins; with them the weights that are best on these are kept, else the last.
    work_directory : path, optional
        Keeps checkpoints, from which the same call goes on.
    n_steps : int, optional
        Training steps, instead of the configuration's.
    seed, device, resume, progress
        As in `train_codlad`.

    Returns
    -------
    Denoiser
        In evaluation mode, on the CPU.

    Raises
    ------
    LatentError
        An argument is wrong, or the loss is no longer finite.

    Source: CODLAD, stage b. DISCREPANCY(CODLAD, batches): a batch holds frames of one protein.
    """
    require(len(examples) > 0, "examples must hold at least one protein, got none; read some with read_protein_frames")
    encoder = copy.deepcopy(autoencoder).to(resolve_device(device)).eval()
    taught, apart = ([encode_frames(encoder, example) for example in part] for part in (examples, validation))
    return train_denoiser(
        taught,
        denoiser_config(autoencoder.config, n_steps),
        apart=apart,
        work_directory=work_directory,
        seed=seed,
        device=device,
        resume=resume,
        progress=progress,
    )


def train_denoiser(
    taught: Sequence[EncodedFrames],
    config: CODLADConfig,
    *,
    apart: Sequence[EncodedFrames] = (),
    work_directory: str | Path | None = None,
    seed: int = 1,
    device: str = "auto",
    resume: bool = True,
    progress: Progress | None = None,
) -> Denoiser:
    """Train a denoiser on any numbers of residues, `config.n_latent` of each.

    Parameters
    ----------
    taught, apart : sequence of EncodedFrames
        To learn from, and to judge by; on the device.
    config : CODLADConfig
    work_directory, seed, device, resume, progress
        As in `train_codlad_diffusion`.

    Returns
    -------
    Denoiser
        In evaluation mode, on the CPU.

    Raises
    ------
    LatentError
        The loss is no longer finite.
    """
    device = resolve_device(device)
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
        torch.manual_seed(seed)
        denoiser = Denoiser(config).to(device)
    training = _Training(denoiser, config, taught, apart, seed, device)
    key = _key([*taught, *apart], len(taught), config, seed)
    training.run(Checkpoint(work_directory, f"codlad-denoiser-{key}.ckpt", resume), progress)
    return training.kept().cpu().eval()


def denoiser_config(config: CODLADConfig, n_steps: int | None) -> CODLADConfig:
    """Return the configuration with another number of training steps, where one is given."""
    return config if n_steps is None else replace(config, diffusion_steps=n_steps)


@dataclass(frozen=True)
class EncodedFrames:
    """What the denoiser learns from: one protein's frames as codes.

    Attributes
    ----------
    protein : Protein
    traces : Tensor
        (n_frames, n_residues, 3) [nm]
    codes : Tensor
        (n_frames, n_residues, n_latent), standardised by the autoencoder's statistics of each kind of residue
    """

    protein: Protein
    traces: Tensor
    codes: Tensor


@torch.no_grad()
def encode_frames(autoencoder: Autoencoder, example: ProteinFrames) -> EncodedFrames:
    """Encode one protein's frames, on the autoencoder's device."""
    device = autoencoder.latent_mean.device
    protein = Protein(example.residues).to(device)
    frames = torch.as_tensor(example.positions, dtype=torch.float32)
    latents = [autoencoder.encode(protein, block.to(device)) for block in frames.split(autoencoder.config.batch_size)]
    codes = autoencoder.quantiser.codebook(torch.cat(latents))
    standard = (codes - autoencoder.latent_mean[protein.types]) / autoencoder.latent_std[protein.types]
    return EncodedFrames(protein, frames[:, :, CA].to(device), standard)


class _Training(AveragedTraining[Denoiser]):
    """What a step shows the denoiser, and what judges it."""

    def __init__(
        self,
        denoiser: Denoiser,
        config: CODLADConfig,
        taught: Sequence[EncodedFrames],
        apart: Sequence[EncodedFrames],
        seed: int,
        device: str,
    ):
        optimiser = torch.optim.AdamW(denoiser.parameters(), lr=config.diffusion_rate, weight_decay=config.weight_decay)
        super().__init__(denoiser, optimiser, config.diffusion_steps, config.diffusion_average, name="denoiser")
        self.config, self.taught, self.apart, self.seed, self.device = config, taught, apart, seed, device
        self.diffusion = GaussianDiffusion(config.n_diffusion_steps, bound=BOUND).to(device)

    def step(self) -> float:
        """Take one step on frames of one protein; return its loss."""
        config = self.config
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.done)
        shown = self.taught[int(torch.randint(len(self.taught), (), generator=generator))]
        n_frames = min(config.diffusion_batch_size, max(1, config.diffusion_residues // len(shown.protein.types)))
        chosen = torch.randint(len(shown.codes), (n_frames,), generator=generator)
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(config, self.done)
        self.optimiser.zero_grad()
        loss = self._loss(self.network, shown, chosen, generator)
        require(
            bool(torch.isfinite(loss)),
            "training of the denoiser gave a loss that is not finite; lower the configuration's diffusion_rate",
        )
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), config.gradient_clip)
        self.optimiser.step()
        return float(loss.detach())

    def _loss(self, network: Denoiser, shown: EncodedFrames, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean loss of frames (b,) at random levels."""
        clean, trace = shown.codes[chosen.to(self.device)], shown.traces[chosen.to(self.device)]
        step = torch.randint(self.diffusion.n_steps, (len(chosen),), generator=generator).to(self.device)
        normals = torch.randn(clean.shape, generator=generator).to(self.device)
        protein = shown.protein
        context = network.prepare(trace, protein.types, protein.chains, protein.anchors)
        noisy = self.diffusion.noised(clean, normals, step)
        output = network(noisy, self.diffusion.diffusion_times[step], context)
        return self.diffusion.hybrid_loss(output, clean, normals, step).mean()

    @torch.no_grad()
    def judge(self) -> float:
        """Return the running mean's loss on what was kept apart, always at the same levels; NaN without any."""
        losses = []
        for number, shown in enumerate(self.apart):
            generator = torch.Generator().manual_seed(number)
            spread = torch.linspace(0, len(shown.codes) - 1, min(_N_VALIDATED, len(shown.codes))).round().long()
            losses.append(float(self._loss(self.averaged, shown, spread, generator)))
        return float(np.mean(losses)) if losses else math.nan


def learning_rate(config: CODLADConfig, step: int) -> float:
    """Return the learning rate of a step."""
    return rise_and_fall(
        step, config.diffusion_steps, config.diffusion_warm_up, config.diffusion_rate, config.diffusion_final_rate
    )


def _key(shown: Sequence[EncodedFrames], n_taught: int, config: CODLADConfig, seed: int) -> str:
    """Return a digest of all that decides what training gives."""
    digest = hashlib.sha256(json.dumps([asdict(config), n_taught, seed], sort_keys=True).encode())
    for example in shown:
        for part in (example.protein.types, example.protein.chains, example.traces, example.codes):
            digest.update(part.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def _training_facts(
    examples: Sequence[ProteinFrames],
    validation: Sequence[ProteinFrames],
    seed: int,
    facts: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what a file of weights says of its training."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(f"{example.name} {example.positions.shape}".encode())
        digest.update(np.ascontiguousarray(example.positions).tobytes())
    return {
        "proteins": {example.name: {"residues": len(example.residues), "frames": len(example)} for example in examples},
        "validation": [example.name for example in validation],
        "seed": seed,
        "digest": digest.hexdigest(),
        **dict(facts or {}),
    }
