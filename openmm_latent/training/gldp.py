"""Train a GLDP model in stages - encoder, decoder, latents, propagator, slow coordinates, proposal kernels.

Each is done once and found again on resuming.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.data.trajectories import TrajectorySet
from openmm_latent.errors import require
from openmm_latent.models.gldp import CONFIGS, GLDP, GLDPConfig
from openmm_latent.models.gldp.config import POOLINGS
from openmm_latent.nn.superposition import orientation_gap, superpose
from openmm_latent.propagators.proposal import ProposalConfig, fit_proposal
from openmm_latent.topology import describe_atoms
from openmm_latent.training.devices import is_first_process, resolve_device
from openmm_latent.training.slow_coordinates import SLOW_FEATURES, choose_slow_features, set_slow_coordinates
from openmm_latent.training.stages import ProgressBar, WorkDirectory

PROPAGATORS = ("autoregressive", "koopman", "langevin")

_log = logging.getLogger(__name__)


def train_gldp(
    trajectories: TrajectorySet,
    *,
    lag_time: float,
    config: str | GLDPConfig = "tiny",
    pooling: str | None = None,
    propagator: str = "autoregressive",
    propagator_config: Any = None,
    out: str | Path | None = None,
    work_directory: str | Path | None = None,
    seed: int = 1,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    resume: bool = True,
    progress: bool = True,
    encoder_steps: int | None = None,
    decoder_steps: int | None = None,
    n_slow: int = 2,
    slow_method: str = "tica",
    slow_features: str = "auto",
    proposal_config: ProposalConfig | None = None,
    series: TrajectorySet | None = None,
) -> GLDP:
    """Train a model and, where `out` is given, export it.

    Parameters
    ----------
    trajectories : TrajectorySet
        Training data; every frame of it is used (the last part of each file to stop early).
    lag_time : float
        [ps], covered by one propagator step; a multiple of the frame spacing.
    config : str or GLDPConfig
        "tiny", "paper" or one of your own.
    pooling : str, optional
        "blind", "residue" or "sequential" instead of the configuration's, at LD-FPG's window sizes.
    propagator : str
        "autoregressive", "koopman" or "langevin".
    propagator_config : optional
        Of the propagator; unless given, its configuration of the same name as `config`, or "tiny".
    out : path, optional
        Bundle to write.
    work_directory : path, optional
        Where finished stages and checkpoints are kept. The same directory with another propagator uses the trained
        autoencoder again. Unless given: `out` + ".work" beside the bundle, or none.
    devices, nodes : int
        GPUs of each machine (processes, on the CPU) and machines that train the autoencoder together; the batch stays
        as it is, and each takes a part. Lightning starts the same script once more for each further device, or takes
        the processes that torchrun or Slurm has started; those end (`SystemExit`) where the autoencoder is trained.
    resume : bool
        False trains every stage anew.
    encoder_steps, decoder_steps : int, optional
        Instead of the configuration's.
    n_slow : int
        Slow coordinates, at most as many as features. A drive must bring each of them to its place: few are better.
    slow_method : str
        "tica" or "vamp"; the lag is `lag_time`, or less where that outlives one of the slow processes.
    slow_features : str
        What slow coordinates are linear in: "torsions" (cosines and sines of phi, psi, omega and chi), "latent" (what
        the autoencoder learned), or "auto": torsions, where there are between 1 and 200. On the way between two basins,
        where there is hardly any data, torsions still turn bonds; a learned latent may bend them. "angles": for each
        mode of the torsions the one that makes up most of it, as a periodic coordinate; "backbone": the same among phi
        and psi alone, where side chains turn more slowly than what one asks for.
    proposal_config : ProposalConfig, optional
        Of the kernels that propose where the exact mode goes; the lag kernel's lag is `lag_time`.
    series : TrajectorySet, optional
        On which propagator, slow coordinates and kernels are fitted, by an autoencoder of `trajectories`: relaxations
        of runs that the first model made, say.

    Returns
    -------
    GLDP
        In evaluation mode, on the CPU.

    Raises
    ------
    LatentError
        An argument is wrong, or the loss became NaN.
    KeyboardInterrupt
        After Ctrl-C; the same call resumes.
    """
    require(propagator in PROPAGATORS, f"propagator must be one of {', '.join(PROPAGATORS)}, got {propagator!r}")
    require(
        slow_features in SLOW_FEATURES,
        f"slow_features must be one of {', '.join(SLOW_FEATURES)}, got {slow_features!r}",
    )
    require(
        devices >= 1 and nodes >= 1, f"devices and nodes must be at least 1, got {devices} and {nodes}; 1 trains alone"
    )
    fitted = trajectories if series is None else series
    lag_frames = fitted.lag_frames(lag_time)
    chosen = _resolve_config(config, encoder_steps, decoder_steps)
    if pooling is not None:
        require(pooling in POOLINGS, f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
        chosen = chosen.with_pooling(pooling)
    with WorkDirectory(work_directory, out, resume) as work:
        model, latents = train_autoencoder(
            trajectories,
            chosen,
            work_directory=work.path,
            seed=seed,
            device=device,
            devices=devices,
            nodes=nodes,
            resume=resume,
            progress=progress,
        )
        name = config if isinstance(config, str) else "tiny"
        key = _autoencoder_key(trajectories, chosen, seed)
        if series is not None:
            latents = [_encode_all(model, _superposed(model, part)).numpy() for part in series.positions]
            key = _digest([key, series.digest])
        settings = _PropagatorSettings(propagator, propagator_config, name, lag_frames, seed, key)
        model.set_propagator(_fit_propagator(latents, settings, work.path, resume, progress))
        chosen_features = choose_slow_features(model, slow_features)
        slow = set_slow_coordinates(model, chosen_features, latents, fitted, (lag_frames, n_slow, slow_method))
        proposal_config = ProposalConfig() if proposal_config is None else proposal_config
        model.set_proposal(_fit_proposal(model, slow, proposal_config, settings, work.path, resume, progress))
    model.eval()
    model.fold()
    if out is not None:
        trained = {
            "propagator": propagator,
            "propagator_config": _propagator_fit(settings)[1],
            "slow_method": slow_method,
            "slow_features": chosen_features,
            "proposal_config": proposal_config,
        }
        export_gldp(model, fitted, out, lag_time=lag_time, seed=seed, parts=trained)
    return model


def export_gldp(
    model: GLDP,
    trajectories: TrajectorySet,
    out: str | Path,
    *,
    lag_time: float,
    seed: int,
    parts: Mapping[str, Any],
) -> None:
    """Write a trained model as a bundle.

    Parameters
    ----------
    lag_time : float
        [ps]
    parts : mapping
        Names and configurations (dataclasses) of what was trained beside the autoencoder, for the manifest.
    """
    from openmm_latent.bundle import export_bundle

    elements = [list(trajectories.topology.atoms())[i].element for i in trajectories.model_atoms]
    provenance = trajectories.provenance
    export_bundle(
        model,
        out,
        family="GLDP",
        atoms=describe_atoms(trajectories.topology, trajectories.model_atoms),
        masses=[element.mass._value for element in elements],
        lag_time=lag_time,
        config={
            **asdict(model.config),
            **{name: asdict(part) if is_dataclass(part) else part for name, part in parts.items()},
        },
        training={
            "temperature": provenance.get("temperature"),
            "force_field": provenance.get("force_field"),
            "digest": trajectories.digest,
            "files": [Path(name).name for name in trajectories.files],
            "seed": seed,
        },
        reference_positions=model.reference.float().numpy(),
        references=("GLDP, ICLR 2026, openreview AwowReRWXI", "LD-FPG, arXiv 2506.17064"),
    )


def train_autoencoder(
    trajectories: TrajectorySet,
    config: str | GLDPConfig = "tiny",
    *,
    work_directory: str | Path | None = None,
    seed: int = 1,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    resume: bool = True,
    progress: bool = True,
) -> tuple[GLDP, list[np.ndarray]]:
    """Train encoder and decoder alone.

    Returns
    -------
    model : GLDP
        Without a propagator.
    latents : list of ndarray
        (n_frames, n_latent), standardised, one a trajectory file.
    """
    config = _resolve_config(config, None, None)
    device = resolve_device(device)
    with WorkDirectory(work_directory, None, resume) as work:
        key = _autoencoder_key(trajectories, config, seed)
        where = (device, devices, nodes)
        stages = _Autoencoder(trajectories, config, work.path, key, seed, where, resume, progress)
        return stages.model, stages.run()


class _Autoencoder:
    """The stages that make encoder, decoder and latents."""

    def __init__(
        self,
        trajectories: TrajectorySet,
        config: GLDPConfig,
        work: Path,
        key: str,
        seed: int,
        where: tuple[str, int, int],
        resume: bool,
        progress: bool,
    ):
        self.config, self.work, self.key, self.seed = config, work, key, seed
        self.resume, self.progress = resume, progress
        self.device, self.devices, self.nodes = where
        torch.manual_seed(seed)
        reference = _clearest_frame(trajectories.positions)
        self.model = GLDP(config, describe_atoms(trajectories.topology, trajectories.model_atoms), reference)
        self.segments = [_superposed(self.model, part) for part in trajectories.positions]
        cuts = [len(part) - max(1, round(config.validation_fraction * len(part))) for part in self.segments]
        require(
            sum(cuts) >= 2,
            f"training needs more frames than the {sum(map(len, self.segments))} in trajectories; give longer ones",
        )
        self.frames = torch.cat([part[:cut] for part, cut in zip(self.segments, cuts, strict=True)])
        self.validation = torch.cat([part[cut:] for part, cut in zip(self.segments, cuts, strict=True)])

    def run(self) -> list[np.ndarray]:
        """Train what is not yet trained; return the standardised latents of each file."""
        self._stage("encoder", self._train_encoder)
        self._stage("decoder", self._train_decoder)
        if not is_first_process(self.devices * self.nodes):
            raise SystemExit(0)  # what follows is the first process's alone
        self.model.eval()
        latents_file = self.work / f"latents-{self.key}.npz"
        if self.resume and latents_file.exists():
            with np.load(latents_file) as stored:
                return [stored[f"segment_{i}"] for i in range(len(self.segments))]
        latents = [_encode_all(self.model, part).numpy() for part in self.segments]
        partial = self.work / f"partial-{self.key}.npz"
        np.savez(partial, **{f"segment_{i}": part for i, part in enumerate(latents)})
        partial.replace(latents_file)
        return latents

    def _stage(self, name: str, train: Callable[[], None]) -> None:
        file = self.work / f"{name}-{self.key}.pt"
        if self.resume and file.exists():
            self.model.load_state_dict(torch.load(file, weights_only=True))
            _log.info("stage %s found in %s", name, file)
            return
        train()
        if not is_first_process(self.devices * self.nodes):
            return
        partial = file.with_suffix(".partial")
        torch.save(self.model.state_dict(), partial)
        partial.replace(file)

    def _train_encoder(self) -> None:
        from openmm_latent.models.gldp.objectives import AutoencoderObjective, LinearObjective

        self.model.set_structure_statistics(self.frames)
        make = LinearObjective if self.config.encoder_target == "linear" else AutoencoderObjective
        torch.manual_seed(self.seed)
        self._fit("encoder", make(self.model), self.config.encoder_steps, self.config.encoder_rate, n_latent=0)
        self.model.eval()
        self.model.set_reference_embedding()
        self.model.set_latent_statistics(torch.zeros(self.model.n_latent), torch.ones(self.model.n_latent))
        raw = torch.cat([_encode_all(self.model, part) for part in self.segments]).double()
        self.model.set_latent_statistics(raw.mean(dim=0), raw.std(dim=0).clamp(min=1e-6))

    def _train_decoder(self) -> None:
        from openmm_latent.models.gldp.objectives import DecoderObjective

        self.model.eval()
        objective = DecoderObjective(self.model)
        n_latent = self.model.n_latent
        self._fit("decoder", objective, self.config.decoder_steps, self.config.decoder_rate, n_latent=n_latent)

    def _fit(self, name: str, objective: nn.Module, n_steps: int, rate: float, *, n_latent: int) -> None:
        from openmm_latent.training.loop import FrameTable, StageSettings, run_stage

        directory = self.work / f"{name}-{self.key}"
        if not self.resume:
            for old in directory.glob("*.ckpt"):
                old.unlink(missing_ok=True)
        config = self.config
        settings = StageSettings(
            name,
            n_steps,
            config.batch_size,
            rate,
            config.dihedral_fraction,
            config.validate_every,
            config.patience,
            self.seed,
            self.devices,
            self.nodes,
        )
        parts = (self.frames, self.validation)
        # the frozen encoder's latents are computed once; a training encoder makes its own
        latents = [_encode_all(self.model, part) if n_latent else torch.zeros(len(part), 0) for part in parts]
        training, validation = (FrameTable(*table) for table in zip(parts, latents, strict=True))
        run_stage(
            objective,
            settings,
            training,
            validation,
            n_noise=self.model.n_latent,
            directory=directory,
            device=self.device,
            progress=self.progress,
        )


@dataclass(frozen=True)
class _PropagatorSettings:
    name: str
    config: Any
    config_name: str
    lag_frames: int
    seed: int
    autoencoder_key: str


def _fit_propagator(
    latents: list[np.ndarray], settings: _PropagatorSettings, work: Path, resume: bool, progress: bool
) -> nn.Module:
    """Return the propagator of `settings`, fitted or found."""
    fit, config = _propagator_fit(settings)
    # a closed-form fit has no epochs to report
    reports = "progress" in signature(fit).parameters

    def train(bar: ProgressBar) -> nn.Module:
        report = {"progress": bar.update} if reports else {}
        return fit(latents, settings.lag_frames, config, settings.seed, **report)

    key = _digest([settings.autoencoder_key, settings.name, repr(config), settings.lag_frames, settings.seed])
    return _found_or_fitted(settings.name, train, work / f"{settings.name}-{key}.pt", resume, progress)


def _fit_proposal(
    model: GLDP,
    slow: list[np.ndarray],
    config: ProposalConfig,
    settings: _PropagatorSettings,
    work: Path,
    resume: bool,
    progress: bool,
) -> nn.Module:
    """Return the proposal kernels on series of the model's slow coordinates, (n_frames, n_slow), fitted or found."""

    def train(bar: ProgressBar) -> nn.Module:
        periods = model.slow_periods()
        return fit_proposal(slow, settings.lag_frames, periods, config, settings.seed, progress=bar.update)

    coordinates = hashlib.sha256(np.concatenate(slow).tobytes()).hexdigest()
    key = _digest([settings.autoencoder_key, repr(config), settings.lag_frames, settings.seed, coordinates])
    return _found_or_fitted("proposal", train, work / f"proposal-{key}.pt", resume, progress)


def _found_or_fitted(
    name: str, train: Callable[[ProgressBar], nn.Module], file: Path, resume: bool, progress: bool
) -> nn.Module:
    """Return a fitted part from `file`, or fit it and keep it there."""
    if resume and file.exists():
        # whole modules: written by this very function, in the user's own work directory
        return torch.load(file, weights_only=False)
    with ProgressBar(name, progress) as bar:
        part = train(bar)
    partial = file.with_suffix(".partial")
    torch.save(part, partial)
    partial.replace(file)
    return part


def _propagator_fit(settings: _PropagatorSettings) -> tuple[Callable, Any]:
    import importlib

    module = importlib.import_module(f"openmm_latent.propagators.{settings.name}")
    configs = module.CONFIGS
    config = settings.config
    if config is None:
        config = configs.get(settings.config_name, configs["tiny"])
    return getattr(module, f"fit_{settings.name}"), config


def _resolve_config(config: str | GLDPConfig, encoder_steps: int | None, decoder_steps: int | None) -> GLDPConfig:
    if isinstance(config, str):
        require(config in CONFIGS, f"config must be one of {', '.join(CONFIGS)} or a GLDPConfig, got {config!r}")
        config = CONFIGS[config]
    steps = {"encoder_steps": encoder_steps, "decoder_steps": decoder_steps}
    return replace(config, **{name: value for name, value in steps.items() if value is not None})


def _autoencoder_key(trajectories: TrajectorySet, config: GLDPConfig, seed: int) -> str:
    return _digest([_code_digest(), trajectories.digest, asdict(config), seed])


@cache
def _code_digest() -> str:
    """Digest of the code that makes stages: those of other code are not found again, since they may not even load."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for folder in ("diffusion", "models", "nn", "propagators", "training"):
        for file in sorted((root / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _digest(parts: list) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _clearest_frame(positions: list[np.ndarray], n_candidates: int = 32, n_frames: int = 1000) -> np.ndarray:
    """Choose the frame on which the data superposes most clearly: where the worst frame's orientation gap is largest.

    The first frame, say, may be flat; many frames then lie on it nearly as well after half a turn, their latents depend
    steeply on the positions, and forces along slow coordinates are large where nothing happens.

    Parameters
    ----------
    positions : list of ndarray
        (n_frames, n_atoms, 3) [nm]

    Returns
    -------
    ndarray
        (n_atoms, 3) [nm]
    """
    sizes = [len(part) for part in positions]
    ends = np.cumsum(sizes)

    def spread(n: int) -> Tensor:
        chosen = np.unique(np.linspace(0, ends[-1] - 1, n).astype(int))
        files = np.searchsorted(ends, chosen, side="right")
        picked = [positions[file][frame - ends[file]] for file, frame in zip(files, chosen, strict=True)]
        return torch.from_numpy(np.stack(picked).astype(np.float64))

    frames, candidates = spread(n_frames), spread(n_candidates)
    gaps = torch.stack([orientation_gap(frames, candidate).min() for candidate in candidates])
    return candidates[int(gaps.argmax())].numpy()


def _superposed(model: GLDP, positions: np.ndarray) -> Tensor:
    """Superpose (n_frames, n_atoms, 3) [nm] on the model's reference, float32, block by block."""
    blocks = torch.as_tensor(positions).split(8192)
    return torch.cat([superpose(block, model.reference)[0].float() for block in blocks])


def _encode_all(model: GLDP, superposed: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([model.encode_superposed(block) for block in superposed.split(8192)])
