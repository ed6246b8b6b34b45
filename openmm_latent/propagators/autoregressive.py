"""The autoregressive propagator: a network that gives the density of the latent one lag time later."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.errors import require
from openmm_latent.propagators.fitting import (
    Progress,
    gaussian_mixture,
    kinetic_axes,
    lagged_pairs,
    linear_prediction,
    split_validation,
    train_best,
)

NOISES = ("residual", "mixture")


@dataclass(frozen=True)
class AutoregressiveConfig:
    """Sizes and training of the autoregressive propagator."""

    n_hidden: int = 256  # width of both hidden layers
    noise: str = "mixture"  # "residual": one Gaussian, the residual's variance; "mixture": a network's Gaussian mixture
    n_components: int = 48  # Gaussians of the mixture; 1 is a state-dependent Gaussian
    dropout: float = 0.0
    learning_rate: float = 1e-3
    batch_size: int = 512
    n_epochs: int = 30
    patience: int = 12  # epochs without a better validation loss
    weight_decay: float = 1e-4
    input_noise: float = 0.05  # standard deviation added to the input while training: keeps rollouts near the data
    uses_kinetic_map: bool = True  # the network sees TICA coordinates scaled by their autocorrelation
    memory_floor: float = 0.03  # smallest such scale
    calibration_decay: float = 1e-6  # L2 penalty of the final calibration of the weights' layer
    validation_fraction: float = 0.1  # last part of each segment
    range_margin: float = 0.25  # of the training range, beyond which latents are clamped; rollouts do not run away


CONFIGS = {
    "tiny": AutoregressiveConfig(),
    "paper": AutoregressiveConfig(
        n_hidden=512,
        noise="residual",
        n_components=1,
        dropout=0.1,
        learning_rate=1e-4,
        batch_size=128,
        n_epochs=200,
        patience=200,
        weight_decay=0.0,
        input_noise=0.0,
        uses_kinetic_map=False,
        validation_fraction=0.2,
    ),
}


class Autoregressive(nn.Module):
    """Latent one lag time later, drawn from a mixture of Gaussians that a network sets.

    p(later | now) = sum_k w_k(now) N(later; c_k + L_k m_k(now), L_k L_k^T): the network gives weights and shifts from
    the state; centres c_k and roots L_k (lower triangular) are the component's own. With `noise="residual"` there is
    one component, later = A now + b + network(now) + L e, A and b from linear regression.

    Noise: n_latent normals give the displacement; for more than one component one more, through its distribution
    function, picks the component.

    DISCREPANCY(GLDP, autoregressive noise): the paper adds Gaussian noise of the one-step residual variance, the same
    in every state, to a deterministic prediction. Where a lag time can end in either of two basins that smears the
    density between them; the mixture, fitted by likelihood, does not. The paper's form is `CONFIGS["paper"]`.

    Parameters
    ----------
    n_latent : int
    config : AutoregressiveConfig
    """

    def __init__(self, n_latent: int, config: AutoregressiveConfig) -> None:
        super().__init__()
        require(config.noise in NOISES, f"noise must be one of {', '.join(NOISES)}, got {config.noise!r}; choose one")
        require(config.n_components >= 1, f"n_components must be at least 1, got {config.n_components}")
        self.n_latent = n_latent
        self.is_residual = config.noise == "residual"
        self.n_components = 1 if self.is_residual else config.n_components
        self.n_noise = n_latent + (1 if self.n_components > 1 else 0)
        self.body = nn.Sequential(
            nn.Linear(n_latent, config.n_hidden),
            nn.ReLU() if self.is_residual else nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.n_hidden, config.n_hidden),
            nn.ReLU() if self.is_residual else nn.SiLU(),
            nn.Dropout(config.dropout),
        )
        n_features = config.n_hidden + n_latent  # the input goes round the hidden layers, too
        self.shifts = nn.Linear(n_features, self.n_components * n_latent)
        self.weights = nn.Linear(n_features, self.n_components)
        self.centres = nn.Parameter(torch.zeros(self.n_components, n_latent))
        self.raw_roots = nn.Parameter(torch.zeros(self.n_components, n_latent, n_latent))
        # What the network sees: the slowest direction first, each scaled by its memory.
        self.register_buffer("kinetic_map", torch.eye(n_latent))
        self.register_buffer("centre", torch.zeros(n_latent))
        self.register_buffer("matrix", torch.zeros(n_latent, n_latent))
        self.register_buffer("offset", torch.zeros(n_latent))
        self.register_buffer("low", torch.full((n_latent,), -1e3))
        self.register_buffer("high", torch.full((n_latent,), 1e3))

    def features(self, now: Tensor) -> Tensor:
        """Return what the last layers see, hidden layer and input: (b, n_latent) -> (b, n_hidden + n_latent)."""
        inside = torch.minimum(torch.maximum(now, self.low), self.high)
        scaled = (inside - self.centre) @ self.kinetic_map.t()
        return torch.cat([self.body(scaled), scaled], dim=1)

    def roots(self) -> Tensor:
        """Return L_k: (n_components, n_latent, n_latent), lower triangular, positive diagonal."""
        diagonal = torch.exp(torch.diagonal(self.raw_roots, dim1=1, dim2=2))
        return torch.tril(self.raw_roots, -1) + torch.diag_embed(diagonal)

    def predict(self, now: Tensor) -> Tensor:
        """Return the deterministic prediction of `noise="residual"`: (b, n_latent) -> (b, n_latent)."""
        inside = torch.minimum(torch.maximum(now, self.low), self.high)
        return inside @ self.matrix.t() + self.offset + self.shifts(self.features(now))

    def mixture(self, now: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Return log weights, (b, n_components), and shifts in units of the roots, (b, n_components, n_latent)."""
        features = self.features(now)
        shifts = self.shifts(features).reshape(now.shape[0], self.n_components, self.n_latent)
        return torch.log_softmax(self.weights(features), dim=1), shifts

    def forward(self, latent: Tensor, noise: Tensor) -> Tensor:
        """Take one lag-time step.

        Parameters
        ----------
        latent : Tensor, (b, n_latent), standardised
        noise : Tensor, (b, n_noise), standard normal

        Returns
        -------
        Tensor, (b, n_latent)
        """
        normals = noise[:, : self.n_latent]
        if self.is_residual:
            moved = self.predict(latent) + normals @ self.roots()[0].t()
        else:
            log_weights, shifts = self.mixture(latent)
            chosen = torch.zeros(latent.shape[0], dtype=torch.long, device=latent.device)
            if self.n_components > 1:
                uniform = 0.5 * (1.0 + torch.erf(noise[:, self.n_latent :] * math.sqrt(0.5)))  # (b, 1)
                passed = (torch.cumsum(torch.exp(log_weights), dim=1) < uniform).sum(dim=1)
                chosen = torch.clamp(passed, max=self.n_components - 1)
            shift = torch.gather(shifts, 1, chosen.reshape(-1, 1, 1).expand(-1, 1, self.n_latent)).squeeze(1)
            displacement = (self.roots()[chosen] @ (shift + normals).unsqueeze(2)).squeeze(2)
            moved = self.centres[chosen] + displacement
        return torch.minimum(torch.maximum(moved, self.low), self.high)

    def log_components(self, later: Tensor, shifts: Tensor) -> Tensor:
        """Return ln of every component's density: (b, n_latent), (b, n_components, n_latent) -> (b, n_components)."""
        roots = self.roots()
        identity = torch.eye(self.n_latent, dtype=later.dtype, device=later.device)
        inverse = torch.linalg.solve_triangular(roots, identity.expand_as(roots), upper=False)
        offsets = (inverse @ self.centres.unsqueeze(2)).squeeze(2)
        whitened = (later @ inverse.reshape(-1, self.n_latent).t()).reshape(shifts.shape) - offsets
        log_volumes = torch.log(torch.diagonal(roots, dim1=1, dim2=2)).sum(dim=1)
        log_norm = 0.5 * self.n_latent * math.log(2.0 * math.pi)
        return -0.5 * (whitened - shifts).square().sum(dim=2) - log_volumes - log_norm

    def log_density(self, later: Tensor, now: Tensor) -> Tensor:
        """Return ln p(later | now) of the kernel before its clamp to the training range.

        Parameters
        ----------
        later, now : Tensor, (b, n_latent)

        Returns
        -------
        Tensor, (b,)
        """
        if self.is_residual:
            none = torch.zeros(later.shape[0], 1, self.n_latent, dtype=later.dtype, device=later.device)
            return self.log_components(later - self.predict(now), none).squeeze(1)
        log_weights, shifts = self.mixture(now)
        return torch.logsumexp(log_weights + self.log_components(later, shifts), dim=1)


def fit_autoregressive(
    segments: Sequence[np.ndarray],
    lag_frames: int,
    config: AutoregressiveConfig | None = None,
    seed: int = 1,
    progress: Progress | None = None,
) -> Autoregressive:
    """Fit the propagator to standardised latents.

    Parameters
    ----------
    segments : list of array, (n_frames, n_latent)
        Training series in time order; the last part of each validates, pairs cross none.
    lag_frames : int
    config : AutoregressiveConfig, optional
        `CONFIGS["tiny"]` unless given.
    seed : int
    progress : callable, optional
        Called after each epoch with (epoch, n_epochs, training loss, validation loss).

    Returns
    -------
    Autoregressive, in evaluation mode

    Source: GLDP, autoregressive propagator; C. Bishop, Mixture Density Networks (1994).
    """
    config = CONFIGS["tiny"] if config is None else config
    training, validation = split_validation(segments, config.validation_fraction)
    now, later = lagged_pairs(training, lag_frames)
    now_test, later_test = lagged_pairs(validation, lag_frames)
    torch.manual_seed(seed)
    module = Autoregressive(now.shape[1], config)
    _prepare(module, now, later, config, seed)
    generator = torch.Generator().manual_seed(seed)

    def loss(step: int, batch: Tensor) -> Tensor:
        start = now[batch]
        if config.input_noise > 0:
            normals = torch.randn(start.shape, generator=generator)
            start = start + config.input_noise * normals
        if module.is_residual:
            return (module.predict(start) - later[batch]).square().mean()
        return -module.log_density(later[batch], start).mean()

    def validate() -> float:
        with torch.no_grad():
            if module.is_residual:
                return float((module.predict(now_test) - later_test).square().mean())
            parts = zip(now_test.split(4096), later_test.split(4096), strict=True)
            return -float(torch.cat([module.log_density(b, a) for a, b in parts]).mean())

    train_best(
        module,
        loss,
        len(now),
        validate,
        n_epochs=config.n_epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        patience=config.patience,
        seed=seed,
        weight_decay=config.weight_decay,
        progress=progress,
    )
    if module.is_residual:
        _match_residual(module, now, later)
    elif module.n_components > 1:
        _calibrate_weights(module, now, later, config.calibration_decay)
    return module


def _prepare(module: Autoregressive, now: Tensor, later: Tensor, config: AutoregressiveConfig, seed: int) -> None:
    """Set the training range and the network's input; start from linear regression or from a mixture of the data."""
    everything = torch.cat([now, later])
    low, high = everything.amin(dim=0), everything.amax(dim=0)
    margin = config.range_margin * (high - low)
    module.low.copy_(low - margin)
    module.high.copy_(high + margin)
    if config.uses_kinetic_map:
        axes, memory = kinetic_axes(now, later)
        module.centre.copy_(everything.mean(dim=0))
        module.kinetic_map.copy_(axes * memory.abs().clamp(min=config.memory_floor).unsqueeze(1))
    with torch.no_grad():
        for layer in (module.shifts, module.weights):
            layer.weight.mul_(0.1)
            layer.bias.zero_()
        if module.is_residual:
            matrix, offset, _ = linear_prediction(now, later)
            module.matrix.copy_(matrix)
            module.offset.copy_(offset)
            return
        weights, centres, roots = gaussian_mixture(later, module.n_components, seed)
        module.centres.copy_(centres)
        _set_roots(module, roots)
        module.weights.bias.copy_(torch.log(weights))


def _set_roots(module: Autoregressive, roots: Tensor) -> None:
    """Store lower triangular roots, (n_components, n_latent, n_latent), with the logarithm of their diagonal."""
    diagonal = torch.diagonal(roots, dim1=1, dim2=2)
    with torch.no_grad():
        module.raw_roots.copy_(torch.tril(roots, -1) + torch.diag_embed(torch.log(diagonal)))


def _match_residual(module: Autoregressive, now: Tensor, later: Tensor) -> None:
    """Set the rollout noise to the covariance of the trained network's one-step residual."""
    with torch.no_grad():
        residual = (later - module.predict(now)).double()
    covariance = residual.T @ residual / len(residual)
    tiny = 1e-8 * torch.eye(module.n_latent, dtype=torch.float64)
    _set_roots(module, torch.linalg.cholesky(covariance + tiny).unsqueeze(0))


def _calibrate_weights(module: Autoregressive, now: Tensor, later: Tensor, decay: float) -> None:
    """Bring the layer that sets the components' weights to its maximum of likelihood on all training pairs.

    Stochastic training leaves probabilities of rare events wrong by more than they are worth: a jump over a barrier
    once in a thousand steps is a thousandth of a nat. At the maximum, the predicted and the observed flow into each
    component agree, feature by feature, so rare transitions happen at the rate of the data.
    """
    with torch.no_grad():
        parts, log_each = [], []
        for start, end in zip(now.split(4096), later.split(4096), strict=True):
            log_each.append(module.log_components(end, module.mixture(start)[1]))
            parts.append(module.features(start))
        features = torch.cat([torch.cat(parts), torch.ones(len(now), 1)], dim=1).double()
        fixed = torch.cat(log_each).double()
        # (n_components, n_features + 1)
        first = torch.cat([module.weights.weight, module.weights.bias.unsqueeze(1)], dim=1).double()
    free = first.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([free], max_iter=120, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        log_weights = torch.log_softmax(features @ free.T, dim=1)
        value = -torch.logsumexp(log_weights + fixed, dim=1).mean() + decay * (free - first).square().sum()
        value.backward()
        return value

    optimiser.step(closure)
    with torch.no_grad():
        module.weights.weight.copy_(free[:, :-1])
        module.weights.bias.copy_(free[:, -1])
