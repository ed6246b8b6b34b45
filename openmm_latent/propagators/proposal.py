"""Proposal kernels on slow coordinates: where the exact mode tries to go, and with which probability density.

Two kernels are mixed. "lag" is a mixture-density network: where the data was one lag time after (or before) a point.
"independence" is one mixture of Gaussians for all starts: where the data was at all, flattened on request so that rare
states are proposed more often. Both densities are normalised exactly and vanish nowhere, so every move has a reverse.

| symbol | variable |
|---|---|
| q(to given start) | `log_density` |
| weights, means, scales of the Gaussians, functions of the start | `log_weights`, `means`, `scales` |
| period of a coordinate; Gaussians are wrapped around it | `periods`, 0.0 where it is not an angle |

Source: C. Bishop, Mixture Density Networks (1994); wrapped Gaussians: K. Mardia and P. Jupp, Directional Statistics
(2000), section 3.5.7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.errors import require
from openmm_latent.propagators.fitting import Progress, lagged_pairs, split_validation, train_best

KERNELS = ("lag", "independence")

#: A wrapped Gaussian is summed over the nearest image and one on either side; wider ones would lack 1e-8 of their mass.
_WIDEST_OF_PERIOD = 0.25


@dataclass(frozen=True)
class ProposalConfig:
    """Sizes and training of the proposal kernels."""

    kernels: tuple[str, ...] = KERNELS  # "lag", "independence" or both, mixed half and half
    n_components: int = 16  # Gaussians of each kernel
    n_hidden: int = 64  # width of the lag kernel's hidden layer
    flattening: float = 0.5  # of the independence kernel: 0 as the data, 1 uniform over where the data was
    smoothing: float = 0.1  # noise on the slow coordinates in training: centres lie about so far from their frame
    smallest_scale: float = 0.05  # of a Gaussian, in units of the coordinate's standard deviation
    broad_weight: float = 0.02  # share of each kernel that is one broad Gaussian, so that no density is tiny
    broad_scale: float = 0.5  # its standard deviation, in units of the data's range
    range_margin: float = 0.25  # of the range, beyond which a start counts as lying there
    learning_rate: float = 3e-3
    batch_size: int = 512
    n_epochs: int = 40
    patience: int = 8  # epochs without a better validation loss
    validation_fraction: float = 0.1  # last part of each segment

    def __post_init__(self) -> None:
        """Refuse values that cannot work, each with its sentence."""
        require(
            len(self.kernels) > 0 and set(self.kernels) <= set(KERNELS) and len(set(self.kernels)) == len(self.kernels),
            f"kernels must name {' or '.join(KERNELS)}, each once, got {self.kernels!r}",
        )
        require(0.0 <= self.flattening <= 1.0, f"flattening must lie between 0 and 1, got {self.flattening}")
        require(
            0.0 < self.broad_weight < 1.0,
            f"broad_weight must lie between 0 and 1, got {self.broad_weight}; without it some moves have no reverse",
        )
        for name in ("n_components", "n_hidden", "n_epochs", "batch_size"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("smallest_scale", "broad_scale"):
            require(getattr(self, name) > 0.0, f"{name} must be positive, got {getattr(self, name)}")


def standard_uniform(normal: Tensor) -> Tensor:
    """Return numbers from 0 to just below 1 from standard normal ones, by their distribution function."""
    # 1 - 2^-23: the product of any sum with it stays below that sum in float32
    return torch.clamp(0.5 * (1.0 + torch.erf(normal * math.sqrt(0.5))), max=0.99999988)


def choose(weights: Tensor, uniform: Tensor) -> Tensor:
    """Return the index that a uniform number picks: (b, n_items), (b, 1) -> (b,); never an item of weight zero."""
    passed = torch.cumsum(weights, dim=1)
    return (passed <= uniform * passed[:, -1:]).sum(dim=1)


class MixtureKernel(nn.Module):
    """A mixture of wrapped diagonal Gaussians that depends on the start (or not), and a broad component.

    Parameters
    ----------
    n_slow : int
    periods : sequence of float
        (n_slow,) of the slow coordinates; 0.0 where one is not an angle.
    depends_on_start : bool
        Whether a network sets weights, means and scales from the start.
    config : ProposalConfig
    """

    def __init__(self, n_slow: int, periods: Sequence[float], depends_on_start: bool, config: ProposalConfig):
        super().__init__()
        self.n_slow, self.n_components = n_slow, config.n_components
        self.depends_on_start = depends_on_start
        self.is_periodic = any(period > 0 for period in periods)
        n_outputs = config.n_components * (1 + 2 * n_slow)  # log weights, shifts, log scales
        layers = [nn.Linear(3 * n_slow, config.n_hidden), nn.SiLU(), nn.Linear(config.n_hidden, n_outputs)]
        self.network = nn.Sequential(*layers) if depends_on_start else nn.Sequential(nn.Identity())
        # what does not depend on the start, in the same order
        self.free = nn.Parameter(torch.zeros(n_outputs))
        self.log_broad, self.log_narrow = math.log(config.broad_weight), math.log1p(-config.broad_weight)
        angles = torch.tensor([period > 0 for period in periods])
        whole = torch.tensor([period if period > 0 else 1.0 for period in periods])
        self.register_buffer("is_angle", angles)
        self.register_buffer("periods", whole)
        # (n_slow, 3): the nearest image and its neighbours; none of the latter where there is no period
        self.register_buffer("images", torch.stack([-whole, 0.0 * whole, whole], dim=1))
        beside = torch.where(angles, 0.0, -math.inf)
        self.register_buffer("image_weights", torch.stack([beside, torch.zeros(n_slow), beside], dim=1))
        self.register_buffer("centres", torch.zeros(config.n_components, n_slow))
        self.register_buffer("middle", torch.zeros(n_slow))
        self.register_buffer("reach", torch.ones(n_slow))  # half the data's range and a margin
        self.register_buffer("broad_scale", torch.ones(n_slow))
        self.register_buffer("largest_scale", torch.ones(n_slow))
        self.register_buffer("smallest_scale", torch.full((n_slow,), 0.1))

    def wrap(self, slow: Tensor) -> Tensor:
        """Bring angles into (-period/2, period/2]: (..., n_slow) -> (..., n_slow)."""
        if not self.is_periodic:
            return slow
        return torch.where(self.is_angle, slow - self.periods * torch.ceil(slow / self.periods - 0.5), slow)

    def features(self, start: Tensor) -> Tensor:
        """Return what the network sees, (b, 3 n_slow): scaled coordinates, or sine and cosine of angles."""
        scaled = torch.clamp((start - self.middle) / self.reach, -1.0, 1.0)
        turn = start * (2.0 * math.pi / self.periods)
        none = torch.zeros_like(start)
        return torch.cat(
            [
                torch.where(self.is_angle, none, scaled),
                torch.where(self.is_angle, torch.sin(turn), none),
                torch.where(self.is_angle, torch.cos(turn), none),
            ],
            dim=1,
        )

    def components(self, start: Tensor) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
        """Return the narrow Gaussians for each start.

        Parameters
        ----------
        start : Tensor, (b, n_slow)

        Returns
        -------
        log_weights : Tensor, (b or 1, n_components)
        means, scales : Tensor, (b or 1, n_components, n_slow)
        """
        outputs = self.free.unsqueeze(0)
        if self.depends_on_start:
            outputs = outputs + self.network(self.features(start))
        n = self.n_components
        log_weights = torch.log_softmax(outputs[:, :n], dim=1)
        shape = [outputs.shape[0], n, self.n_slow]
        means = self.centres + self.largest_scale * outputs[:, n : n + n * self.n_slow].reshape(shape)
        # a logistic between the smallest and the largest scale, on the logarithmic axis
        share = torch.sigmoid(outputs[:, n + n * self.n_slow :].reshape(shape))
        scales = self.smallest_scale * torch.pow(self.largest_scale / self.smallest_scale, share)
        return log_weights, means, scales

    def log_gaussians(self, to: Tensor, means: Tensor, scales: Tensor) -> Tensor:
        """Return ln of every Gaussian's density: (b, n_slow), (b or 1, n, n_slow) twice -> (b, n)."""
        constant = 0.5 * self.n_slow * math.log(2.0 * math.pi)
        difference = (self.wrap(to.unsqueeze(1) - means)) / scales
        if not self.is_periodic:
            return -0.5 * difference.square().sum(dim=2) - torch.log(scales).sum(dim=2) - constant
        images = difference.unsqueeze(3) + self.images / scales.unsqueeze(3)  # (b, n, n_slow, 3)
        each = torch.logsumexp(self.image_weights - 0.5 * images.square(), dim=3)
        return (each - torch.log(scales)).sum(dim=2) - constant

    def log_broad_density(self, to: Tensor) -> Tensor:
        """Return ln of the broad component: uniform in angles, one Gaussian otherwise; (b, n_slow) -> (b,)."""
        gaussian = -0.5 * ((to - self.middle) / self.broad_scale).square() - torch.log(self.broad_scale)
        flat = -torch.log(self.periods).expand_as(to)
        return torch.where(self.is_angle, flat, gaussian - 0.5 * math.log(2.0 * math.pi)).sum(dim=1)

    def log_density(self, to: Tensor, start: Tensor) -> Tensor:
        """Return ln q(to | start): (b, n_slow), (b, n_slow) -> (b,)."""
        log_weights, means, scales = self.components(start)
        narrow = torch.logsumexp(log_weights + self.log_gaussians(to, means, scales), dim=1)
        return torch.logaddexp(self.log_narrow + narrow, self.log_broad + self.log_broad_density(to))

    def draw(self, start: Tensor, normals: Tensor, uniform: Tensor) -> Tensor:
        """Draw from q(. | start).

        Parameters
        ----------
        start : Tensor, (b, n_slow)
        normals : Tensor, (b, n_slow), standard normal
        uniform : Tensor, (b, 1), from 0 to below 1: picks the component

        Returns
        -------
        Tensor, (b, n_slow)
        """
        log_weights, means, scales = self.components(start)
        n_batch = start.shape[0]
        narrow = torch.exp(log_weights + self.log_narrow)
        broad = torch.full((narrow.shape[0], 1), math.exp(self.log_broad), dtype=start.dtype, device=start.device)
        chosen = choose(torch.cat([narrow, broad], dim=1).expand(n_batch, -1), uniform)  # n_components: the broad one
        index = torch.clamp(chosen, max=self.n_components - 1).reshape(-1, 1, 1).expand(-1, 1, self.n_slow)
        mean = torch.gather(means.expand(n_batch, -1, -1), 1, index).squeeze(1)
        scale = torch.gather(scales.expand(n_batch, -1, -1), 1, index).squeeze(1)
        flat = (standard_uniform(normals) - 0.5) * self.periods
        wide = torch.where(self.is_angle, flat, self.middle + self.broad_scale * normals)
        is_broad = (chosen == self.n_components).unsqueeze(1)
        return self.wrap(torch.where(is_broad, wide, mean + scale * normals))


class Proposal(nn.Module):
    """A mixture over kernels, with weights that the caller gives.

    Noise: n_slow normals for the displacement, one that picks the kernel and one that picks the component.

    Parameters
    ----------
    n_slow : int
    periods : sequence of float
        (n_slow,) 0.0 where a coordinate is not an angle.
    config : ProposalConfig
    """

    def __init__(self, n_slow: int, periods: Sequence[float], config: ProposalConfig):
        super().__init__()
        require(n_slow >= 1, f"n_slow must be at least 1 to propose anything, got {n_slow}")
        require(
            len(periods) == n_slow and all(np.isfinite(period) and period >= 0 for period in periods),
            f"periods must be n_slow={n_slow} numbers, 0 where a coordinate is not an angle, got {list(periods)}",
        )
        self.n_slow = n_slow
        self.n_noise = n_slow + 2
        self.names: List[str] = list(config.kernels)  # noqa: UP006
        self.kernels = nn.ModuleList([MixtureKernel(n_slow, periods, name == "lag", config) for name in config.kernels])

    def propose(self, start: Tensor, noise: Tensor, kernel_weights: Tensor) -> Tensor:
        """Draw the next point.

        Parameters
        ----------
        start : Tensor, (b, n_slow)
        noise : Tensor, (b, n_noise), standard normal
        kernel_weights : Tensor, (n_kernels,), not negative; their sum need not be 1

        Returns
        -------
        Tensor, (b, n_slow); angles in (-period/2, period/2]
        """
        normals = noise[:, : self.n_slow]
        uniform = standard_uniform(noise[:, self.n_slow :])
        kernel = choose(kernel_weights.unsqueeze(0).expand(start.shape[0], -1), uniform[:, :1]).unsqueeze(1)
        moved = start
        for index, module in enumerate(self.kernels):
            moved = torch.where(kernel == index, module.draw(start, normals, uniform[:, 1:]), moved)
        return moved

    def log_density(self, to: Tensor, start: Tensor, kernel_weights: Tensor) -> Tensor:
        """Return ln q(to | start): (b, n_slow), (b, n_slow), (n_kernels,) -> (b,)."""
        log_weights = torch.log(kernel_weights / kernel_weights.sum())
        each: List[Tensor] = []  # noqa: UP006
        for module in self.kernels:
            each.append(module.log_density(to, start))
        return torch.logsumexp(torch.stack(each, dim=1) + log_weights, dim=1)


def fit_proposal(
    segments: Sequence[np.ndarray],
    lag_frames: int,
    periods: Sequence[float],
    config: ProposalConfig | None = None,
    seed: int = 1,
    progress: Progress | None = None,
) -> Proposal:
    """Fit the kernels to series of slow coordinates.

    Parameters
    ----------
    segments : list of array, (n_frames, n_slow)
        In time order; the last part of each validates, pairs cross none.
    lag_frames : int
        Of the lag kernel.
    periods : sequence of float
        (n_slow,) 0.0 where a coordinate is not an angle.
    config : ProposalConfig, optional
    seed : int
    progress : callable, optional
        Called after each epoch of the lag kernel with (epoch, n_epochs, training loss, validation loss).

    Returns
    -------
    Proposal, in evaluation mode

    Raises
    ------
    LatentError
        A value is not finite, no segment is longer than the lag, or `periods` has another length.
    """
    config = ProposalConfig() if config is None else config
    training, validation = split_validation(segments, config.validation_fraction)
    lagged = lagged_pairs(training, lag_frames)
    is_long = any(len(segment) > lag_frames for segment in validation)
    lagged_test = lagged_pairs(validation, lag_frames) if is_long else lagged
    points = torch.from_numpy(np.concatenate(segments).astype(np.float32))
    torch.manual_seed(seed)
    proposal = Proposal(points.shape[1], periods, config)
    for name, kernel in zip(proposal.names, proposal.kernels, strict=True):
        _prepare(kernel, points, config, seed)
        if name == "lag":
            # Equilibrium dynamics looks the same backwards, so each pair counts both ways.
            both_ways = [(torch.cat([now, later]), torch.cat([later, now])) for now, later in (lagged, lagged_test)]
            _train(kernel, *both_ways, config, seed, progress)
        else:
            # A few Gaussians in a few dimensions cannot overfit; a rare state may be absent from a validation part.
            _train(kernel, (points, points), (points, points), config, seed, None)
            if config.flattening > 0:
                flat = _flatten(kernel, points, config.flattening, seed)
                _train(kernel, (flat, flat), (flat, flat), config, seed, None)
    proposal.requires_grad_(False)
    return proposal.eval()


def _prepare(kernel: MixtureKernel, points: Tensor, config: ProposalConfig, seed: int) -> None:
    """Set ranges and scales from the data, and start the components on spread points of it."""
    points = kernel.wrap(points)
    low, high = points.amin(dim=0), points.amax(dim=0)
    spread = (high - low).clamp(min=1e-3)
    deviation = points.std(dim=0).clamp(min=1e-3)
    kernel.middle.copy_(0.5 * (low + high))
    kernel.reach.copy_((0.5 + config.range_margin) * spread)
    kernel.broad_scale.copy_(config.broad_scale * spread)
    widest = torch.where(kernel.is_angle, _WIDEST_OF_PERIOD * kernel.periods, 0.5 * spread)
    kernel.largest_scale.copy_(torch.minimum(widest, 2.0 * deviation))
    kernel.smallest_scale.copy_(torch.minimum(config.smallest_scale * deviation, 0.5 * kernel.largest_scale))
    centres = _spread_points(kernel, points, config.n_components, seed)
    kernel.centres.copy_(centres)
    with torch.no_grad():
        if kernel.depends_on_start:
            kernel.network[-1].weight.mul_(0.1)
            kernel.network[-1].bias.zero_()
        kernel.free.copy_(_first_guess(kernel, points, centres))


def _first_guess(kernel: MixtureKernel, points: Tensor, centres: Tensor) -> Tensor:
    """Return `kernel.free` - log weights, shifts, logits of scales - of the points nearest to each centre."""
    scaled = (kernel.wrap(points.unsqueeze(1) - centres) / kernel.largest_scale).square().sum(dim=2)
    members = nn.functional.one_hot(scaled.argmin(dim=1), len(centres)).float()  # (n_points, n_components)
    counts = members.sum(dim=0).clamp(min=1.0).unsqueeze(1)
    away = kernel.wrap(points.unsqueeze(1) - centres) * members.unsqueeze(2)
    shifts = away.sum(dim=0) / counts
    # a cell's own variance, and the smallest one so that no cell of few points is a needle
    scales = (away.square().sum(dim=0) / counts - shifts.square()).clamp(min=0.0).sqrt() + kernel.smallest_scale
    share = torch.log(scales / kernel.smallest_scale) / torch.log(kernel.largest_scale / kernel.smallest_scale)
    logits = torch.logit(share.clamp(0.02, 0.98))
    log_weights = torch.log(counts / len(points))
    return torch.cat([log_weights.flatten(), (shifts / kernel.largest_scale).flatten(), logits.flatten()])


def _spread_points(kernel: MixtureKernel, points: Tensor, n_components: int, seed: int) -> Tensor:
    """Choose points of the data, each far from those chosen before (k-means++): (n_components, n_slow)."""
    require(
        len(points) >= n_components,
        f"n_components must not exceed the {len(points)} training frames, got {n_components}; take fewer components",
    )
    generator = torch.Generator().manual_seed(seed)
    pool = points[torch.randperm(len(points), generator=generator)[:5000]]
    chosen = [pool[0]]
    distance = torch.full((len(pool),), math.inf)
    while len(chosen) < n_components:
        away = (kernel.wrap(pool - chosen[-1]) / kernel.largest_scale).square().sum(dim=1)
        distance = torch.minimum(distance, away) + 1e-12
        chosen.append(pool[int(torch.multinomial(distance, 1, generator=generator))])
    return torch.stack(chosen)


def _flatten(kernel: MixtureKernel, points: Tensor, flattening: float, seed: int) -> Tensor:
    """Resample points with weights density^-flattening, at most a hundred times the median's."""
    with torch.no_grad():
        log_density = torch.cat([kernel.log_density(part, part) for part in points.split(4096)])
    weights = torch.exp(-flattening * (log_density - log_density.median())).clamp(max=100.0)
    generator = torch.Generator().manual_seed(seed)
    return points[torch.multinomial(weights, len(points), replacement=True, generator=generator)]


def _train(
    kernel: MixtureKernel,
    pairs: tuple[Tensor, Tensor],
    pairs_test: tuple[Tensor, Tensor],
    config: ProposalConfig,
    seed: int,
    progress: Progress | None,
) -> None:
    """Fit a kernel by likelihood to (start, end) pairs, both smoothed by noise."""
    generator = torch.Generator().manual_seed(seed)
    starts, ends = pairs

    def smoothed(values: Tensor) -> Tensor:
        return values + config.smoothing * torch.randn(values.shape, generator=generator)

    def loss(step: int, batch: Tensor) -> Tensor:
        return -kernel.log_density(smoothed(ends[batch]), smoothed(starts[batch])).mean()

    starts_test, ends_test = (smoothed(values) for values in pairs_test)

    def validate() -> float:
        with torch.no_grad():
            parts = zip(ends_test.split(4096), starts_test.split(4096), strict=True)
            return -float(torch.cat([kernel.log_density(end, start) for end, start in parts]).mean())

    train_best(
        kernel,
        loss,
        len(starts),
        validate,
        n_epochs=config.n_epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        patience=config.patience,
        seed=seed,
        averaging=0.99,
        progress=progress,
    )
