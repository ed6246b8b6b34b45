"""Train ConfRover on windows of frames: three objectives of one network, drawn step by step in equal shares.

| objective | what is shown | what is to be predicted |
|---|---|---|
| trajectory | each frame of a window, after those before it; nothing | the next one; the first one |
| single | nothing | any frame |
| interpolation | a later frame first, then those from the start on | the next one |

Each step takes one protein, noises the frames to be predicted to random diffusion times, and moves the weights; what
is kept is their running mean. A step's draws depend on the seed and its number alone: training that was interrupted
and resumed ends where it would have ended.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.data.frame_windows import FrameWindows, ProteinRuns, draw_windows, longest_stride
from openmm_latent.errors import require
from openmm_latent.models.confrover import CONFIGS, ConfRover, ConfRoverConfig, save_weights
from openmm_latent.models.confrover.losses import CleanFrames, FrameLoss
from openmm_latent.models.confrover.network import PARTS
from openmm_latent.nn.recomputing import recompute
from openmm_latent.nn.residue_geometry import CA
from openmm_latent.training.checkpoints import AveragedTraining, Checkpoint, Progress
from openmm_latent.training.devices import resolve_device
from openmm_latent.training.rates import rise_and_fall

#: A folding network's features of one protein: (n_residues, n_single) and (n_residues, n_residues, n_pair).
Features = tuple[Tensor, Tensor]
OBJECTIVES = ("trajectory", "single", "interpolation")
#: Windows, and single frames, of a protein that validate.
_N_VALIDATED = 8
#: Features of pairs of a step's windows above which blocks keep their inputs alone, and compute the rest twice.
_MOST_KEPT = 2**26


def train_confrover(
    examples: Sequence[ProteinRuns],
    *,
    config: str | ConfRoverConfig = "tiny",
    objectives: Sequence[str] = OBJECTIVES,
    validation: Sequence[ProteinRuns] = (),
    start: ConfRover | None = None,
    features: Mapping[str, Features] | None = None,
    out: str | Path | None = None,
    work_directory: str | Path | None = None,
    n_steps: int | None = None,
    seed: int = 1,
    device: str = "auto",
    resume: bool = True,
    progress: Progress | None = None,
    facts: Mapping[str, Any] | None = None,
) -> ConfRover:
    """Train a network and, where `out` is given, write its weights.

    Parameters
    ----------
    examples : sequence of ProteinRuns
        From `read_protein_runs` or `runs_of`.
    config : str or ConfRoverConfig
        "tiny" or "paper", with the data's spread and frame spacing for `position_scale` and `time_unit`; or one of your
        own, as it is.
    objectives : sequence of str
        Some of "trajectory", "single" and "interpolation"; the paper trains the first two, then all three.
    validation : sequence of ProteinRuns
        Other files or proteins; with them the weights that are best on these are kept, else the last.
    start : ConfRover, optional
        Trained before, to go on from; it must have the configuration's sizes, and is not changed.
    features : mapping, optional
        Name of each protein -> its precomputed features, for a configuration with embedding="features".
    out : path, optional
        File of weights to write, such as protein.weights.pt.
    work_directory : path, optional
        Keeps checkpoints, from which the same call goes on.
    n_steps : int, optional
        Instead of the configuration's.
    seed : int
        Of first weights and all draws: the same gives the same network, on one device and torch.
    device : str
        "auto", "cpu" or "cuda".
    resume : bool
        False trains anew.
    progress : callable, optional
        Called as training goes on.
    facts : mapping, optional
        Said of the training data in the file of weights, such as temperature and force field.

    Returns
    -------
    ConfRover
        In evaluation mode, on the CPU.

    Raises
    ------
    LatentError
        An argument is wrong, runs are too short for windows, or the loss is no longer finite.

    Source: ConfRover, section 3.3 and appendix D.2.
    """
    require(len(examples) > 0, "examples must hold at least one protein, got none; read some with read_protein_runs")
    chosen = _resolve_config(config, examples, n_steps)
    _require_sound(examples, objectives, chosen, features)
    if out is not None:
        require(Path(out).parent.is_dir(), f"out: the folder '{Path(out).parent}' does not exist; create it first")
    device = resolve_device(device)
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
        torch.manual_seed(seed)
        network = ConfRover(chosen)
    if start is not None:
        _copy_weights(start, network)
    known = dict(features or {})
    parts = [[_Subject(one, chosen, known.get(one.name), device) for one in part] for part in (examples, validation)]
    shown = [*examples, *validation]
    key = _key(shown, len(examples), network, chosen, objectives, seed, [known.get(one.name) for one in shown])
    if _is_large(examples, chosen):
        recompute(network, PARTS)
    training = _Training(network.to(device), chosen, *parts, tuple(objectives), seed, device)
    training.run(Checkpoint(work_directory, f"confrover-{key}.ckpt", resume), progress)
    model = ConfRover(chosen)
    model.load_state_dict(training.kept().state_dict())
    model.eval()
    if out is not None:
        save_weights(out, model, _training_facts(examples, validation, chosen, objectives, seed, facts))
    return model


class _Subject:
    """One protein as the loop shows it."""

    def __init__(self, runs: ProteinRuns, config: ConfRoverConfig, features: Features | None, device: str):
        self.runs, self.config, self.device = runs, config, device
        self.loss = FrameLoss(config, runs.residues).to(device)
        self.types = torch.as_tensor(runs.residues.types, device=device)
        self.chains = torch.as_tensor(runs.residues.chains, device=device)
        self.features = None if features is None else tuple(torch.as_tensor(part).to(device) for part in features)

    def windows(self, n_windows: int, n_frames: int, generator: torch.Generator) -> FrameWindows:
        return draw_windows(self.runs, n_windows, n_frames, generator, self.config.max_stride)

    def clean(self, windows: FrameWindows) -> CleanFrames:
        """Return frames of windows, (b, f, n, ...)."""
        return self.loss.clean(torch.as_tensor(windows.positions).to(self.device))

    def times(self, windows: FrameWindows) -> Tensor:
        """Return times of frames in the network's unit, (b, f)."""
        return torch.as_tensor(windows.times / self.config.time_unit, dtype=torch.float32, device=self.device)


@dataclass(frozen=True)
class _Task:
    """What is to be predicted, (b, ...) frames, and what the context says of each."""

    single: Tensor
    pair: Tensor
    clean: CleanFrames


class _Training(AveragedTraining[ConfRover]):
    """The loop over steps."""

    def __init__(
        self,
        network: ConfRover,
        config: ConfRoverConfig,
        taught: Sequence[_Subject],
        apart: Sequence[_Subject],
        objectives: tuple[str, ...],
        seed: int,
        device: str,
    ):
        optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
        super().__init__(network, optimiser, config.n_steps, config.average)
        self.config, self.taught, self.apart = config, taught, apart
        self.objectives, self.seed, self.device = objectives, seed, device

    def step(self) -> float:
        """Take one step on one protein and one objective; return its loss."""
        config, key = self.config, 1_000_003 * self.seed + self.done
        generator = torch.Generator().manual_seed(key)
        shown = self.taught[int(torch.randint(len(self.taught), (), generator=generator))]
        objective = self.objectives[int(torch.randint(len(self.objectives), (), generator=generator))]
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(config, self.done)
        self.optimiser.zero_grad()
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if self.device == "cuda" else []):
            torch.manual_seed(key)  # of dropout
            loss = self._loss(self.network, shown, objective, generator, (config.n_windows, config.n_singles))
        require(
            bool(torch.isfinite(loss)),
            "training of ConfRover gave a loss that is not finite; lower the configuration's learning_rate",
        )
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), config.gradient_clip)
        self.optimiser.step()
        return float(loss.detach())

    @torch.no_grad()
    def judge(self) -> float:
        """Return the running mean's loss on what was kept apart, always on the same draws; NaN without any."""
        losses = []
        for number, shown in enumerate(self.apart):
            for objective in self.objectives:
                generator = torch.Generator().manual_seed(number)
                loss = self._loss(self.averaged, shown, objective, generator, (_N_VALIDATED, 4 * _N_VALIDATED))
                losses.append(float(loss))
        return float(np.mean(losses)) if losses else math.nan

    def _loss(
        self,
        network: ConfRover,
        shown: _Subject,
        objective: str,
        generator: torch.Generator,
        counts: tuple[int, int],
    ) -> Tensor:
        """Return the mean loss of one objective, on so many windows or so many single frames."""
        sequence = network.embed(shown.types, shown.chains, shown.features)
        if objective == "single":
            task = self._single(network, sequence, shown, generator, counts[1])
        elif not self.config.is_causal:
            task = self._masked(network, sequence, shown, generator, counts[0])
        else:
            task = self._next(network, sequence, shown, generator, counts[0], objective == "interpolation")
        clean, n_draws = task.clean.repeated(self.config.n_draws), self.config.n_draws
        n_all = len(clean.ca)
        least = self.config.least_diffusion_time
        time = (least + (1.0 - least) * torch.rand(n_all, generator=generator).square()).to(self.device)
        normals = torch.randn(*clean.ca.shape[:2], 6, generator=generator).to(self.device)
        noisy = shown.loss.noised(clean, normals, time)
        context = task.single.repeat_interleave(n_draws, 0), task.pair.repeat_interleave(n_draws, 0)
        predicted = network.denoise(*context, *sequence, *noisy, time)
        return shown.loss.total(shown.loss(predicted, clean, noisy[0], time)).mean()

    def _single(
        self, network: ConfRover, sequence: Features, shown: _Subject, generator: torch.Generator, count: int
    ) -> _Task:
        """Show nothing: one context serves all frames."""
        clean = shown.clean(shown.windows(count, 1, generator)).flat()
        return _Task(*self._unconditional(network, sequence, clean), clean)

    def _unconditional(self, network: ConfRover, sequence: Features, clean: CleanFrames) -> tuple[Tensor, Tensor]:
        """Return the context of the mask token, once for each of (b, n, ...) frames."""
        one, none = clean[:1], torch.zeros(1, 1, device=self.device)
        single, pair = network.context(
            *sequence, one.rotations[None], one.ca[None], one.torsions[None], none, none, none == 0
        )
        count = len(clean.ca)
        return single[:, 0].expand(count, -1, -1), pair[:, 0].expand(count, -1, -1, -1)

    def _next(
        self,
        network: ConfRover,
        sequence: Features,
        shown: _Subject,
        generator: torch.Generator,
        count: int,
        is_interpolation: bool,
    ) -> _Task:
        """Show each frame of windows after those before it; for interpolation the end goes before all.

        Without an end the first frame is predicted from nothing: the paper's windows begin with a mask token.
        """
        windows = shown.windows(count, self.config.n_frames, generator)
        first = 0
        if is_interpolation:
            end = 2 + int(torch.randint(self.config.n_frames - 2, (), generator=generator))
            windows, first = windows.with_end_first(end), 1
        clean, times = shown.clean(windows), shown.times(windows)
        gaps = times[:, 1:] - times[:, :-1]
        gaps[:, :first] = 0.0  # the end predicts nothing
        before = clean[:, :-1]
        hidden = torch.zeros_like(gaps, dtype=torch.bool)
        single, pair = network.context(
            *sequence, before.rotations, before.ca, before.torsions, times[:, :-1], gaps, hidden
        )
        single, pair, wanted = (
            single[:, first:].flatten(0, 1),
            pair[:, first:].flatten(0, 1),
            clean[:, first + 1 :].flat(),
        )
        if is_interpolation:
            return _Task(single, pair, wanted)
        from_nothing = self._unconditional(network, sequence, clean[:, 0])
        return _Task(
            torch.cat([from_nothing[0], single]), torch.cat([from_nothing[1], pair]), clean[:, 0].joined(wanted)
        )

    def _masked(
        self, network: ConfRover, sequence: Features, shown: _Subject, generator: torch.Generator, count: int
    ) -> _Task:
        """Hide some frames of windows, more as training goes on; each token predicts its own. Source: section 4.4.

        What is kept apart is always judged with as many hidden as at the end: else the first weights would be best.
        """
        config = self.config
        windows = shown.windows(count, config.n_frames, generator)
        clean, times = shown.clean(windows), shown.times(windows)
        done = self.done / config.n_steps if network.training else 1.0
        share = config.least_masked + (config.most_masked - config.least_masked) * done
        n_hidden = min(config.n_frames - 1, max(1, round(share * config.n_frames)))
        order = torch.rand(count, config.n_frames, generator=generator).argsort(dim=1)
        hidden = (order < n_hidden).to(self.device)
        single, pair = network.context(
            *sequence, clean.rotations, clean.ca, clean.torsions, times, torch.zeros_like(times), hidden
        )
        return _Task(single[hidden], pair[hidden], clean[hidden])


def learning_rate(config: ConfRoverConfig, step: int) -> float:
    """Return the learning rate of a step."""
    return rise_and_fall(step, config.n_steps, config.warm_up, config.learning_rate, config.final_rate)


def _is_large(examples: Sequence[ProteinRuns], config: ConfRoverConfig) -> bool:
    n = max(len(one.residues) for one in examples)
    return config.n_windows * config.n_frames * n * n * config.width > _MOST_KEPT


def _resolve_config(
    config: str | ConfRoverConfig, examples: Sequence[ProteinRuns], n_steps: int | None
) -> ConfRoverConfig:
    if isinstance(config, str):
        require(config in CONFIGS, f"config must be one of {', '.join(CONFIGS)}, got {config!r}")
        spacing = min(one.frame_spacing for one in examples)
        spread = position_spread(examples)
        require(
            spread > 0.0,
            "examples hold proteins of one residue, which has no other to move against; give proteins of at least two, "
            "or train GLDP, which learns atoms",
        )
        config = replace(CONFIGS[config], position_scale=spread, time_unit=spacing)
    return config if n_steps is None else replace(config, n_steps=n_steps)


def position_spread(examples: Sequence[ProteinRuns]) -> float:
    """Return the standard deviation of a coordinate of Cα about their centre, the mean over proteins [nm]."""
    spreads = []
    for one in examples:
        ca = np.concatenate([run[:: max(1, len(run) // 10), :, CA] for run in one.runs])
        spreads.append(float((ca - ca.mean(axis=1, keepdims=True)).std()))
    return float(np.mean(spreads))


def _require_sound(
    examples: Sequence[ProteinRuns],
    objectives: Sequence[str],
    config: ConfRoverConfig,
    features: Mapping[str, Features] | None,
) -> None:
    require(
        len(objectives) > 0 and set(objectives) <= set(OBJECTIVES),
        f"objectives must be some of {', '.join(OBJECTIVES)}, got {', '.join(map(repr, objectives)) or 'none'}",
    )
    require(
        config.n_frames > 2 or "interpolation" not in objectives,
        "n_frames must be at least 3 for the objective interpolation, got 2: nothing lies between two frames; give "
        "longer windows, or leave the objective out",
    )
    absent = [one.name for one in examples if one.name not in (features or {})]
    require(
        config.embedding != "features" or not absent,
        f"features lack those of {', '.join(absent[:3])}, which a configuration with embedding='features' needs; "
        f"compute them, or choose embedding='learned'",
    )


def _copy_weights(start: ConfRover, network: ConfRover) -> None:
    """Begin with other weights, of the same shapes."""
    given, wanted = start.state_dict(), network.state_dict()
    require(
        {name: part.shape for name, part in given.items()} == {name: part.shape for name, part in wanted.items()},
        "start must have the sizes of config, got another network; give the configuration that it was trained with",
    )
    learned = {name: given[name] for name, _ in network.named_parameters()}  # not tables, which follow the noise
    network.load_state_dict({**wanted, **learned})


def _key(
    shown: Sequence[ProteinRuns],
    n_taught: int,
    network: ConfRover,
    config: ConfRoverConfig,
    objectives: Sequence[str],
    seed: int,
    features: Sequence[Features | None],
) -> str:
    """Return a digest of all that decides what training gives."""
    digest = hashlib.sha256(json.dumps([asdict(config), n_taught, list(objectives), seed], sort_keys=True).encode())
    for part in network.state_dict().values():  # where it starts
        digest.update(part.detach().cpu().numpy().tobytes())
    for example in shown:
        digest.update(_digest(example).encode())
    for part in itertools.chain.from_iterable(one for one in features if one is not None):
        digest.update(torch.as_tensor(part).cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def _digest(example: ProteinRuns) -> str:
    """Return the SHA-256 of one protein's data."""
    digest = hashlib.sha256(f"{example.name} {example.frame_spacing} {[len(run) for run in example.runs]}".encode())
    residues = example.residues
    for part in (residues.types, residues.chains, residues.is_joined, residues.has_oxt, *example.runs):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _training_facts(
    examples: Sequence[ProteinRuns],
    validation: Sequence[ProteinRuns],
    config: ConfRoverConfig,
    objectives: Sequence[str],
    seed: int,
    facts: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what a file of weights says of its training."""
    digest = hashlib.sha256("".join(map(_digest, examples)).encode()).hexdigest()
    return {
        "proteins": {
            one.name: {
                "residues": len(one.residues),
                "frames": one.n_frames,
                "frame_spacing": one.frame_spacing,
                **_longest_lag(one, config, objectives),
            }
            for one in examples
        },
        "validation": [one.name for one in validation],
        "objectives": list(objectives),
        "seed": seed,
        "digest": digest,
        **dict(facts or {}),
    }


def _longest_lag(one: ProteinRuns, config: ConfRoverConfig, objectives: Sequence[str]) -> dict[str, float]:
    """Return the longest time from a frame to the next that training may have shown [ps]; single frames show none."""
    if set(objectives) == {"single"}:
        return {}
    return {"longest_lag": one.frame_spacing * longest_stride(one, config.n_frames, config.max_stride)}
