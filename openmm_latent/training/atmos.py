"""Train ATMOS: the key-frame network on windows a lag time apart, then the interpolator on what lies between.

Each step takes windows of one complex, shows every frame but the last, and denoises the frames after them. A step's
draws depend on the seed and its number alone: training that was interrupted and resumed ends where it would have ended.
What is kept is the running mean of the weights.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from openmm_latent.data.complex_frames import ComplexFrames, crop_tokens, stride_of
from openmm_latent.errors import require
from openmm_latent.models.atmos import ATMOS, CONFIGS, ATMOSConfig, StateSpaceNetwork
from openmm_latent.models.atmos.alignment import superpose_each
from openmm_latent.models.atmos.chemistry import Chemistry, describe_complex, stiff_edges
from openmm_latent.models.atmos.losses import atom_weights, denoising_loss, distogram_loss, geometry_loss
from openmm_latent.models.atmos.weights import describe_references, save_weights, usual_lengths
from openmm_latent.nn.superposition import Superposition
from openmm_latent.training.checkpoints import AveragedTraining, Checkpoint, Progress
from openmm_latent.training.devices import resolve_device

#: Names of the two stages.
STAGES = ("key frames", "interpolator")
#: Share of the steps in which the learning rate rises.
_WARM_UP = 0.05
#: Windows that tell the scale of what is drawn.
_N_MEASURED = 64
#: Batches that validate.
_N_VALIDATED = 8


def train_atmos(
    examples: Sequence[ComplexFrames],
    *,
    lag_time: float,
    config: str | ATMOSConfig = "tiny",
    validation: Sequence[ComplexFrames] = (),
    out: str | Path | None = None,
    work_directory: str | Path | None = None,
    n_steps: int | None = None,
    seed: int = 1,
    device: str = "auto",
    resume: bool = True,
    progress: Mapping[str, Progress] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> ATMOS:
    """Train both networks and, where `out` is given, write the weights.

    Parameters
    ----------
    examples, validation : sequence of ComplexFrames
        To learn from, and to judge by: then the weights that are best on these are kept, else the last.
    lag_time : float
        [ps] between key frames; `upsampling` of the configuration divides it into whole frames. With an upsampling of
        1 there is no interpolator.
    config : str or ATMOSConfig
        "tiny", "paper" or one of your own.
    out : path, optional
        File of weights to write, such as complex.weights.pt.
    work_directory : path, optional
        Keeps checkpoints, from which the same call goes on after an interruption.
    n_steps : int, optional
        Of each network, instead of the configuration's.
    seed : int
    device : str
        "auto", "cpu" or "cuda".
    resume : bool
        False trains anew.
    progress : mapping, optional
        Of `STAGES` -> called as each stage goes on.
    facts : mapping, optional
        Said of the training data in the file of weights, such as temperature and force field.

    Returns
    -------
    ATMOS
        In evaluation mode, on the CPU.

    Raises
    ------
    LatentError
        An argument is wrong, a run is too short, or a loss is no longer finite.
    """
    if out is not None:
        require(Path(out).parent.is_dir(), f"out: the folder '{Path(out).parent}' does not exist; create it first")
    chosen = _resolve(config, n_steps)
    require(len(examples) > 0, "examples must hold at least one complex, got none; read some with read_complex_frames")
    fine_time = lag_time / chosen.upsampling if chosen.upsampling > 1 else 0.0
    for frames in (*examples, *validation):
        stride_of(frames, fine_time or lag_time)  # a wrong lag time is told before anything is trained
    key = _Windows(examples, validation, lag_time, chosen.n_frames)
    fine = _Windows(examples, validation, fine_time, chosen.upsampling + 1) if fine_time > 0 else None
    chosen = replace(
        chosen,
        data_scale=chosen.data_scale or key.scale(chosen, seed),
        fine_data_scale=(chosen.fine_data_scale or fine.scale(chosen, seed)) if fine is not None else 0.0,
    )
    model = ATMOS(chosen, lag_time, fine_time)
    told, device = dict(progress or {}), resolve_device(device)
    digest = _key(examples, validation, chosen, lag_time, seed)
    for name, stage, windows in (("keyframes", STAGES[0], key), ("interpolator", STAGES[1], fine)):
        if windows is not None:
            checkpoint = Checkpoint(work_directory, f"atmos-{name}-{digest}.ckpt", resume)
            setattr(
                model, name, _train(chosen, windows, name != "keyframes", checkpoint, seed, device, told.get(stage))
            )
    model.eval()
    if out is not None:
        save_weights(out, model, _training_facts(examples, validation, chosen, seed, facts))
    return model


def _resolve(config: str | ATMOSConfig, n_steps: int | None) -> ATMOSConfig:
    if isinstance(config, str):
        require(config in CONFIGS, f"config must be one of {', '.join(CONFIGS)}, got {config!r}")
        config = CONFIGS[config]
    return config if n_steps is None else replace(config, n_steps=n_steps)


@dataclass(frozen=True)
class _Windows:
    """Where windows come from: complexes, and time between the frames of a window."""

    taught: Sequence[ComplexFrames]
    apart: Sequence[ComplexFrames]
    time_step: float
    n_frames: int

    def __post_init__(self) -> None:
        for frames in (*self.taught, *self.apart):
            self.length_of(frames)

    def length_of(self, frames: ComplexFrames) -> int:
        """Return how many frames a window of a complex has: fewer where no run is as long, but two at least."""
        stride = stride_of(frames, self.time_step)
        longest = max(len(run) for run in frames.runs)
        n_frames = min(self.n_frames, (longest - 1) // stride + 1)
        frames.windows(max(n_frames, 2), stride, 1, np.random.default_rng(0))  # refuses runs that are too short
        return n_frames

    def draw(self, frames: ComplexFrames, n_windows: int, rng: np.random.Generator) -> np.ndarray:
        """Draw windows, (n_windows, n_frames, n_atoms, 3) [nm]."""
        return frames.windows(self.length_of(frames), stride_of(frames, self.time_step), n_windows, rng)

    def scale(self, config: ATMOSConfig, seed: int) -> float:
        """Return the standard deviation of one coordinate of what is drawn [nm]."""
        rng, superposition = np.random.default_rng([seed, 1]), Superposition()
        squares = []
        for frames in self.taught:
            drawn = torch.from_numpy(self.draw(frames, _N_MEASURED, rng)[:, :2])
            now, later = drawn[:, 0].double(), drawn[:, 1].double()
            if config.predicts_shift:
                later = superpose_each(superposition, later, now, torch.ones(later.shape[1])) - now
            squares.append(float((later - later.mean(1, keepdim=True)).square().mean()))
        return max(1e-3, math.sqrt(float(np.mean(squares))))


@dataclass(frozen=True)
class _Batch:
    """Windows of one complex, on the device.

    `frames` is (n_windows, n_frames, n_atoms, 3) [nm], each about the origin and on `reference`, (n_windows, n_atoms,
    3), or turned with it; `left` counts the steps from the
    first of them to `ends`, (n_windows, n_atoms, 3), of an interpolator.
    """

    chemistry: Chemistry
    trunk: tuple[Tensor, Tensor]
    frames: Tensor
    reference: Tensor
    ends: Tensor | None
    left: int


class _Teacher:
    """Makes batches and their losses; holds nothing that training changes."""

    def __init__(self, config: ATMOSConfig, windows: _Windows, is_interpolator: bool, device: str):
        self.config, self.windows, self.is_interpolator, self.device = config, windows, is_interpolator, device
        self.superposition = Superposition().to(device)
        self._known: dict[int, Chemistry] = {}
        self._lengths: dict[int, dict[tuple[int, ...], float]] = {}

    def batch(self, frames: ComplexFrames, rng: np.random.Generator) -> _Batch:
        """Draw windows of one complex, cropped, superposed on its reference, and turned where they should be."""
        config = self.config
        drawn = self.windows.draw(frames, config.n_windows, rng)
        kept = crop_tokens(frames.tokens, drawn[0, 0], config.n_crop, rng)
        chemistry, columns = self._describe(frames, kept)
        positions = torch.from_numpy(np.ascontiguousarray(drawn[:, :, columns])).to(self.device)
        reference = torch.from_numpy(frames.reference[columns]).to(self.device).double()
        reference = reference - reference.mean(0)
        flat = self.superposition(positions.flatten(0, 1), reference)[0]
        given = reference.expand(len(drawn), -1, -1)
        if config.turns:
            turn = torch.from_numpy(Rotation.random(len(drawn), random_state=rng).as_matrix()).to(flat)
            flat = torch.bmm(flat, turn.repeat_interleave(drawn.shape[1], dim=0))
            given = torch.bmm(given, turn)
        superposed = flat.float().view_as(positions)
        given, trunk = given.float(), self._trunk(frames, kept)
        if not self.is_interpolator:
            return _Batch(chemistry, trunk, superposed, given, None, 0)
        # any part of the interval, so that a memory that begins within it is known, too
        first = int(rng.integers(drawn.shape[1] - 2)) if drawn.shape[1] > 2 else 0
        left = drawn.shape[1] - 1 - first
        return _Batch(chemistry, trunk, superposed[:, first:-1], given, superposed[:, -1], left)

    def _describe(self, frames: ComplexFrames, kept: np.ndarray) -> tuple[Chemistry, np.ndarray]:
        """Return the chemistry of the tokens kept, and their atoms."""
        is_whole = len(kept) == len(frames.tokens)
        if is_whole and id(frames) in self._known:
            return self._known[id(frames)], np.arange(frames.tokens.n_atoms)
        part, columns = frames.tokens.select(kept)
        if id(frames) not in self._lengths:
            edges = stiff_edges(frames.tokens)
            self._lengths[id(frames)] = dict(zip(map(tuple, edges.tolist()), usual_lengths(frames), strict=True))
        known = self._lengths[id(frames)]
        lengths = np.array([known[tuple(edge)] for edge in columns[stiff_edges(part)].tolist()])
        chemistry = Chemistry(*(value.to(self.device) for value in describe_complex(part, self.config, lengths)))
        if is_whole:
            self._known[id(frames)] = chemistry
        return chemistry, columns

    def _trunk(self, frames: ComplexFrames, kept: np.ndarray) -> tuple[Tensor, Tensor]:
        n, config = len(kept), self.config
        if config.n_trunk_single == config.n_trunk_pair == 0:
            return torch.zeros(n, 0, device=self.device), torch.zeros(n, n, 0, device=self.device)
        require(
            frames.trunk is not None,
            f"{frames.name} has no trunk features, which this configuration takes; compute them, or set n_trunk_single "
            f"and n_trunk_pair to 0",
        )
        single, pair = frames.trunk or (np.zeros((0, 0)), np.zeros((0, 0, 0)))
        parts = torch.from_numpy(single[kept]), torch.from_numpy(pair[np.ix_(kept, kept)])
        return parts[0].float().to(self.device), parts[1].float().to(self.device)

    def loss(self, network: StateSpaceNetwork, batch: _Batch, generator: torch.Generator) -> Tensor:
        """Return the objective of one batch."""
        config, chemistry = self.config, batch.chemistry
        context = network.context(chemistry, *batch.trunk)
        states, anchors, ways, targets = self._unroll(network, batch, context, generator)
        single, pair = (torch.cat([state[i] for state in states]) for i in (0, 1))
        anchor, way, target = torch.cat(anchors), torch.cat(ways), torch.cat(targets)
        prepared = network.decoder.prepare(single, pair, anchor, way, chemistry, context)

        edm, n_draws = network.decoder.edm, config.n_draws
        target, anchor = (part.repeat_interleave(n_draws, dim=0) for part in (target, anchor))
        clean = target - anchor  # the anchor is zero where positions are drawn
        level = edm.training_level(torch.randn(len(clean), generator=generator)).to(clean)
        normals = torch.randn(clean.shape, generator=generator).to(clean)
        noisy = clean + level.view(-1, 1, 1) * normals
        denoised = network.decoder(noisy, level, prepared) + anchor
        _require_finite(denoised)

        weights = atom_weights(chemistry.is_ligand, chemistry.token, config.ligand_weight)
        counts = edm.weight(level)
        total = config.diffusion_weight * denoising_loss(denoised, target, weights, counts, self.superposition)
        if config.geometry_weight > 0:
            total = total + config.geometry_weight * geometry_loss(denoised, target, chemistry.edges, counts)
        centres = target[::n_draws].index_select(1, chemistry.centres)
        return total + config.distogram_weight * distogram_loss(network.distogram(pair), centres)

    def _unroll(
        self, network: StateSpaceNetwork, batch: _Batch, context: Any, generator: torch.Generator
    ) -> tuple[list[list[Tensor]], list[Tensor], list[Tensor], list[Tensor]]:
        """Show the true frames one after the other; return states, anchors, ways and targets, one of each a step."""
        frames, chemistry = batch.frames, batch.chemistry
        n_windows, n_frames = frames.shape[:2]
        step = torch.full((n_windows,), self.windows.time_step, device=frames.device)
        state = network.initial_state(context, n_windows)
        states, anchors, ways, targets = [], [], [], []
        shake = self.config.frame_noise * network.decoder.edm.data_scale
        if batch.ends is None:
            states.append(network.advance_blank(state, step))
            anchors.append(batch.reference)
            targets.append(frames[:, 0])
        for number in range(n_frames - 1):
            later, noise = frames[:, number + 1], torch.randn(frames[:, 0].shape, generator=generator)
            now = frames[:, number] + shake * noise.to(frames)
            if batch.ends is None:
                state = network.advance(state, now, step, chemistry, context)
                goal = now
            else:
                goal = superpose_each(self.superposition, batch.ends, now, torch.ones_like(now[0, :, 0]))
                left = step * (batch.left - number)
                state = network.advance_towards(state, now, goal, step, left, chemistry, context)
            states.append(state)
            anchors.append(now)
            ways.append(goal - now)
            targets.append(superpose_each(self.superposition, later, now, torch.ones_like(now[0, :, 0])))
        if not network.predicts_shift:
            anchors = [torch.zeros_like(anchor) for anchor in anchors]
        ways = [torch.zeros_like(anchors[0])] * (len(anchors) - len(ways)) + ways
        if not network.predicts_shift:
            ways = [torch.zeros_like(way) for way in ways]
        return states, anchors, ways, targets


class _Training(AveragedTraining[StateSpaceNetwork]):
    """What a step shows a network, and what judges it."""

    def __init__(self, network: StateSpaceNetwork, teacher: _Teacher, seed: int):
        self.teacher, self.config, self.seed = teacher, teacher.config, seed
        optimiser = torch.optim.Adam(network.parameters(), lr=self.config.learning_rate)
        super().__init__(network, optimiser, self.config.n_steps, self.config.average)

    def step(self) -> float:
        """Take one step on windows of one complex; return its loss."""
        rng = np.random.default_rng([self.seed, self.done])
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.done)
        taught = self.teacher.windows.taught
        batch = self.teacher.batch(taught[int(rng.integers(len(taught)))], rng)
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * _rate(self.done / self.config.n_steps)
        self.optimiser.zero_grad()
        with torch.random.fork_rng(devices=_cuda(self.teacher.device)):
            torch.manual_seed(1_000_003 * self.seed + self.done)  # of the dropout
            loss = self.teacher.loss(self.network, batch, generator)
        _require_finite(loss)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        self.optimiser.step()
        return float(loss.detach())

    @torch.no_grad()
    def judge(self) -> float:
        """Return the running mean's loss on what was kept apart, always the same batches; NaN without any."""
        losses = []
        for frames in self.teacher.windows.apart:
            for number in range(_N_VALIDATED):
                batch = self.teacher.batch(frames, np.random.default_rng([number, 7]))
                losses.append(float(self.teacher.loss(self.averaged, batch, torch.Generator().manual_seed(number))))
        return float(np.mean(losses)) if losses else math.nan


def _train(
    config: ATMOSConfig,
    windows: _Windows,
    is_interpolator: bool,
    checkpoint: Checkpoint,
    seed: int,
    device: str,
    progress: Progress | None,
) -> StateSpaceNetwork:
    """Train one network and return it on the CPU."""
    with torch.random.fork_rng(devices=_cuda(device)):
        torch.manual_seed(seed)
        network = StateSpaceNetwork(config, is_interpolator).to(device)
    training = _Training(network, _Teacher(config, windows, is_interpolator, device), seed)
    training.run(checkpoint, progress)
    return training.kept().cpu().eval()


def _require_finite(values: Tensor) -> None:
    require(
        bool(torch.isfinite(values).all()),
        "training of ATMOS gave numbers that are not finite; lower the configuration's learning_rate",
    )


def _cuda(device: str) -> list[int]:
    return [torch.cuda.current_device()] if device == "cuda" else []


def _rate(share: float) -> float:
    """Return the share of the learning rate after a share of the steps: a rise, then half a cosine down to 1/50."""
    if share < _WARM_UP:
        return share / _WARM_UP + 0.02
    falling = 0.5 * (1.0 + math.cos(math.pi * (share - _WARM_UP) / (1.0 - _WARM_UP)))
    return 0.02 + 0.98 * falling


def _digest(examples: Sequence[ComplexFrames]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(f"{example.name} {example.frame_spacing} {example.tokens.names}".encode())
        for part in (example.tokens.charges, example.tokens.orders, *example.runs, *(example.trunk or ())):
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _key(
    examples: Sequence[ComplexFrames],
    validation: Sequence[ComplexFrames],
    config: ATMOSConfig,
    lag_time: float,
    seed: int,
) -> str:
    """Return a digest of all that decides what training gives."""
    what = [asdict(config), lag_time, seed, _digest(examples), _digest(validation)]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def _training_facts(
    examples: Sequence[ComplexFrames],
    validation: Sequence[ComplexFrames],
    config: ATMOSConfig,
    seed: int,
    facts: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what a file of weights says of its training."""
    return {
        "complexes": {example.name: {"tokens": len(example.tokens), "frames": len(example)} for example in examples},
        "validation": [example.name for example in validation],
        "references": {} if config.turns else describe_references(examples),
        "knows_charges": all(example.tokens.knows_charges for example in examples),
        "knows_orders": any(example.tokens.knows_orders for example in examples),
        "seed": seed,
        "digest": _digest(examples),
        **dict(facts or {}),
    }
