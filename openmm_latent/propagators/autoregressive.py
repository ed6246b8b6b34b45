"""The autoregressive propagator: a network that gives the density of the latent one lag time later."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.errors import require
from openmm_latent.propagators.fitting import (
    Progress,
    gaussian_mixture,
    kinetic_map,
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
    n_epochs: int = 60
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

    p(later | now) = sum_k w_k(now) N(later; m_k(now), L_k(now) L_k(now)^T), with m_k = A now + b + a correction of the
    network, A and b from linear regression. With `noise="residual"` there is one component, and L is constant.

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
        per_component = n_latent if self.is_residual else 1 + n_latent
        self.body = nn.Sequential(
            nn.Linear(n_latent, config.n_hidden),
            nn.ReLU() if self.is_residual else nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.n_hidden, config.n_hidden),
            nn.ReLU() if self.is_residual else nn.SiLU(),
            nn.Dropout(config.dropout),
        )
        self.head = nn.Linear(config.n_hidden + n_latent, self.n_components * per_component)
        self.register_buffer("matrix", torch.zeros(n_latent, n_latent))
        self.register_buffer("offset", torch.zeros(n_latent))
        self.register_buffer("kinetic_map", torch.eye(n_latent))
        self.register_buffer("centre", torch.zeros(n_latent))
        self.register_buffer("residual_root", torch.eye(n_latent))
        self.register_buffer("low", torch.full((n_latent,), -1e3))
        self.register_buffer("high", torch.full((n_latent,), 1e3))
        # Components start as a Gaussian mixture of the data; the network moves them and weighs them.
        n_static = 0 if self.is_residual else self.n_components
        self.centres = nn.Parameter(torch.zeros(n_static, n_latent))
        self.raw_roots = nn.Parameter(torch.zeros(n_static, n_latent, n_latent))

    def hidden(self, now: Tensor) -> Tensor:
        """Return what the last layer sees, the last hidden layer and the input: (b, n_hidden + n_latent)."""
        inside = torch.minimum(torch.maximum(now, self.low), self.high)
        scaled = (inside - self.centre) @ self.kinetic_map.t()
        return torch.cat([self.body(scaled), scaled], dim=1)

    def mixture(self, now: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the kernel's parameters.

        Parameters
        ----------
        now : Tensor, (b, n_latent)

        Returns
        -------
        log_weights : Tensor, (b, n_components)
        means : Tensor, (b, n_components, n_latent)
        roots : Tensor, (n_components, n_latent, n_latent)
            Lower triangular, covariance = roots roots^T, the same from every state.
        """
        n_batch, n_latent, n_components = now.shape[0], self.n_latent, self.n_components
        out = self.head(self.hidden(now))
        if self.is_residual:
            weights = torch.zeros(n_batch, 1, dtype=now.dtype, device=now.device)
            inside = torch.minimum(torch.maximum(now, self.low), self.high)
            mean = inside @ self.matrix.t() + self.offset + out
            return weights, mean.unsqueeze(1), self.residual_root.unsqueeze(0)
        out = out.reshape(n_batch, n_components, 1 + n_latent)
        log_weights = torch.log_softmax(out[:, :, 0], dim=1)
        widths = torch.exp(torch.diagonal(self.raw_roots, dim1=1, dim2=2))
        roots = torch.tril(self.raw_roots, -1) + torch.diag_embed(widths)
        # (b, n_components, n_latent): moved in units of each component's own widths
        # one product a component, not one a frame and component
        moved = torch.matmul(out[:, :, 1:].transpose(0, 1), roots.transpose(1, 2)).transpose(0, 1)
        return log_weights, self.centres.unsqueeze(0) + moved, roots

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
        log_weights, means, roots = self.mixture(latent)
        normals = noise[:, : self.n_latent]
        if self.n_components == 1:
            mean, root = means[:, 0], roots
        else:
            uniform = 0.5 * (1.0 + torch.erf(noise[:, self.n_latent :] * math.sqrt(0.5)))  # (b, 1)
            passed = (torch.cumsum(torch.exp(log_weights), dim=1) < uniform).sum(dim=1)
            chosen = torch.clamp(passed, max=self.n_components - 1).reshape(-1, 1, 1)
            mean = torch.gather(means, 1, chosen.expand(-1, 1, self.n_latent)).squeeze(1)
            root = roots[chosen.reshape(-1)]
        moved = mean + (root @ normals.unsqueeze(2)).squeeze(2)
        return torch.minimum(torch.maximum(moved, self.low), self.high)

    def log_components(self, later: Tensor, means: Tensor, roots: Tensor) -> Tensor:
        """Return ln N(later; mean, root root^T) of every component: (b, n_components)."""
        # (n_components, n_latent, b): one triangular solve a component
        difference = (later.unsqueeze(1) - means).permute(1, 2, 0)
        whitened = torch.linalg.solve_triangular(roots, difference, upper=False)
        log_widths = torch.log(torch.diagonal(roots, dim1=1, dim2=2)).sum(dim=1)
        log_each = (
            -0.5 * (whitened * whitened).sum(dim=1).t() - log_widths - 0.5 * self.n_latent * math.log(2.0 * math.pi)
        )
        return log_each

    def log_density(self, later: Tensor, now: Tensor) -> Tensor:
        """Return ln p(later | now) of the kernel before its clamp to the training range.

        Parameters
        ----------
        later, now : Tensor, (b, n_latent)

        Returns
        -------
        Tensor, (b,)
        """
        log_weights, means, roots = self.mixture(now)
        return torch.logsumexp(log_weights + self.log_components(later, means, roots), dim=1)


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
            return (module.mixture(start)[1][:, 0] - later[batch]).square().mean()
        return -module.log_density(later[batch], start).mean()

    def validate() -> float:
        with torch.no_grad():
            if module.is_residual:
                return float((module.mixture(now_test)[1][:, 0] - later_test).square().mean())
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
    """Set the linear part, the training range, and a small start of the network's last layer."""
    matrix, offset, covariance = linear_prediction(now, later)
    everything = torch.cat([now, later])
    low, high = everything.amin(dim=0), everything.amax(dim=0)
    margin = config.range_margin * (high - low)
    tiny = 1e-6 * torch.eye(module.n_latent, dtype=torch.float64)
    module.matrix.copy_(matrix)
    module.offset.copy_(offset)
    module.residual_root.copy_(torch.linalg.cholesky(covariance + tiny))
    module.low.copy_(low - margin)
    module.high.copy_(high + margin)
    if config.uses_kinetic_map:
        module.centre.copy_(everything.mean(dim=0))
        module.kinetic_map.copy_(kinetic_map(now, later, config.memory_floor))
    last = module.head
    with torch.no_grad():
        last.weight.mul_(0.1)
        last.bias.zero_()
        if not module.is_residual:
            weights, centres, roots = gaussian_mixture(later, module.n_components, seed)
            module.centres.copy_(centres)
            diagonal = torch.diagonal(roots, dim1=1, dim2=2)
            module.raw_roots.copy_(torch.tril(roots, -1) + torch.diag_embed(torch.log(diagonal)))
            last.bias.view(module.n_components, -1)[:, 0] = torch.log(weights)


def _match_residual(module: Autoregressive, now: Tensor, later: Tensor) -> None:
    """Set the rollout noise to the covariance of the trained network's one-step residual."""
    with torch.no_grad():
        residual = (later - module.mixture(now)[1][:, 0]).double()
    covariance = residual.T @ residual / len(residual)
    tiny = 1e-8 * torch.eye(module.n_latent, dtype=torch.float64)
    module.residual_root.copy_(torch.linalg.cholesky(covariance + tiny))


def _calibrate_weights(module: Autoregressive, now: Tensor, later: Tensor, decay: float) -> None:
    """Bring the layer that sets the components' weights to its maximum of likelihood on all training pairs.

    Stochastic training leaves probabilities of rare events wrong by more than they are worth: a jump over a barrier
    once in a thousand steps is a thousandth of a nat. At the maximum, the predicted and the observed flow into each
    component agree, feature by feature, so rare transitions happen at the rate of the data.
    """
    with torch.no_grad():
        hidden, log_each = [], []
        for start, end in zip(now.split(4096), later.split(4096), strict=True):
            _, means, roots = module.mixture(start)
            log_each.append(module.log_components(end, means, roots))
            hidden.append(module.hidden(start))
        features = torch.cat([torch.cat(hidden), torch.ones(len(now), 1)], dim=1).double()
        fixed = torch.cat(log_each).double()
        last = module.head
        # rows of the last layer that set weights: (n_components, n_features + 1)
        rows = torch.arange(module.n_components) * (1 + module.n_latent)
        first = torch.cat([last.weight[rows], last.bias[rows, None]], dim=1).double()
    free = first.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([free], max_iter=100, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        log_weights = torch.log_softmax(features @ free.T, dim=1)
        value = -torch.logsumexp(log_weights + fixed, dim=1).mean() + decay * (free - first).square().sum()
        value.backward()
        return value

    optimiser.step(closure)
    with torch.no_grad():
        last.weight[rows] = free[:, :-1].float()
        last.bias[rows] = free[:, -1].float()
