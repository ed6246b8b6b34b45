"""The score-guided Langevin propagator: overdamped dynamics on a learned score of the latent's distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.diffusion.schedule import linear_signal_levels
from openmm_latent.errors import require
from openmm_latent.propagators.fitting import Progress, kinetic_axes, lagged_pairs, split_validation, train_best

READINGS = ("posterior", "noisy")


@dataclass(frozen=True)
class LangevinConfig:
    """Sizes and training of the Langevin propagator."""

    n_hidden: int = 256  # width of the three hidden layers
    n_levels: int = 1400  # of the schedule
    beta_first: float = 5e-6
    beta_last: float = 0.03
    largest_sigma: float = 0.5  # noise levels above are not trained (1: all are); the dynamics needs only small ones
    learning_rate: float = 2e-3
    batch_size: int = 512
    n_epochs: int = 40
    averaging: float = 0.998  # decay of the exponential average of the weights
    patience: int = 30  # epochs without a better validation loss
    validation_fraction: float = 0.1  # last part of each segment
    reading: str = "posterior"  # "posterior": noise in, denoise out; "noisy": the noisy variable is the latent
    temperature: float = 1.0  # T of dx = T s dt + sqrt(2 T dt) e; any T samples p, T only sets the speed
    sigmas: tuple[float, ...] = (0.2, 0.25, 0.3, 0.4)  # noise levels to choose from by validation
    slow_mobility: float = 3.0  # mobility is 1 + this x the coordinate's autocorrelation at the lag time
    step_fraction: float = 0.25  # dt in units of sigma^2 (0: dt is `time_step`)
    time_step: float = 1e-3  # dt of the paper
    max_substeps: int = 64  # in one lag time; fewer if the autocorrelation asks for fewer
    range_margin: float = 0.25  # of the training range, beyond which latents are clamped


CONFIGS = {
    "tiny": LangevinConfig(),
    "paper": LangevinConfig(
        n_hidden=1024,
        largest_sigma=1.0,
        learning_rate=1e-5,
        averaging=0.0,
        batch_size=128,
        n_epochs=200,
        validation_fraction=0.2,
        reading="noisy",
        slow_mobility=0.0,
        step_fraction=0.0,
    ),
}


class ScoreNetwork(nn.Module):
    """Noise predictor of a variance-preserving diffusion: (b, n_latent), (b, 1) level / n_levels -> (b, n_latent)."""

    def __init__(self, n_latent: int, n_hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_latent + 1, n_hidden),
            nn.SiLU(),
            nn.Linear(n_hidden, n_hidden),
            nn.SiLU(),
            nn.Linear(n_hidden, n_hidden),
            nn.SiLU(),
            nn.Linear(n_hidden, n_latent),
        )

    def forward(self, noisy: Tensor, diffusion_time: Tensor) -> Tensor:
        """Predict the standard normal noise in `noisy`."""
        return self.layers(torch.cat([noisy, diffusion_time], dim=1))


class Langevin(nn.Module):
    """Euler-Maruyama steps x' = x + T dt s(x) + sqrt(2 T dt) e on the score s at one small noise level.

    With drift T dt s and noise sqrt(2 T dt), p itself is stationary for any T (dt s with sqrt(2 T dt) would sample
    p^(1/T)). The level, dt and the number of substeps are set by `fit_langevin`, so that one call moves the slowest
    coordinate as far as the data moves in one lag time.

    Noise: n_latent normals a substep; for `reading="posterior"` n_latent more at the start and at the end.

    DISCREPANCY(GLDP, Langevin): the paper takes the noisy variable for the latent, so that its distribution is blurred
    by the level's noise. Here ("posterior") a call adds the level's noise, takes the steps, and returns the denoised
    mean plus Gaussian noise of the covariance that denoising leaves: the blur cancels to second order. The score at
    the smallest levels is unreliable; the level is chosen by validation. `CONFIGS["paper"]` is the paper's form.

    Parameters
    ----------
    n_latent : int
    config : LangevinConfig
    """

    def __init__(self, n_latent: int, config: LangevinConfig) -> None:
        super().__init__()
        require(
            config.reading in READINGS,
            f"reading must be one of {', '.join(READINGS)}, got {config.reading!r}; choose one",
        )
        require(config.temperature > 0, f"temperature must be above 0, got {config.temperature}; 1 is usual")
        self.n_latent = n_latent
        self.reads_posterior = config.reading == "posterior"
        self.network = ScoreNetwork(n_latent, config.n_hidden)
        self.register_buffer("low", torch.full((n_latent,), -1e3))
        self.register_buffer("high", torch.full((n_latent,), 1e3))
        # white = (latent - centre) @ whiten.T, slowest coordinate first; the dynamics runs in there
        self.register_buffer("centre", torch.zeros(n_latent))
        self.register_buffer("whiten", torch.eye(n_latent))
        self.register_buffer("unwhiten", torch.eye(n_latent))
        self.register_buffer("mobility", torch.ones(n_latent))
        self.register_buffer("posterior_root", torch.zeros(n_latent, n_latent))
        self.temperature = config.temperature
        self.set_level(signal=0.99, diffusion_time=0.0, time_step=config.time_step, n_substeps=1)

    def set_level(self, signal: float, diffusion_time: float, time_step: float, n_substeps: int) -> None:
        """Choose where on the schedule the dynamics runs, and how finely.

        Parameters
        ----------
        signal : float
            Signal variance at the level, from 0 to 1.
        diffusion_time : float
            level / n_levels, what the network is told.
        time_step : float
            dt, dimensionless.
        n_substeps : int
            Euler-Maruyama steps in one call.
        """
        self.signal_scale = math.sqrt(signal)
        self.sigma = math.sqrt(1.0 - signal)
        self.diffusion_time = diffusion_time
        self.time_step = time_step
        self.n_substeps = n_substeps
        self.n_noise = self.n_latent * (n_substeps + (2 if self.reads_posterior else 0))

    def score(self, noisy: Tensor) -> Tensor:
        """Return the score of the noisy variable's density: (b, n_latent) -> (b, n_latent)."""
        level = torch.full((noisy.shape[0], 1), self.diffusion_time, dtype=noisy.dtype, device=noisy.device)
        # The score of a standard normal, and what the network adds to it.
        return self.network(noisy, level) * (-1.0 / self.sigma) - noisy

    def substep(self, noisy: Tensor, noise: Tensor) -> Tensor:
        """Take one Euler-Maruyama step of the noisy variable: (b, n_latent), (b, n_latent) -> (b, n_latent)."""
        drift = self.temperature * self.time_step * self.mobility
        moved = noisy + drift * self.score(noisy) + torch.sqrt(2.0 * drift) * noise
        return torch.minimum(torch.maximum(moved, self.low), self.high)

    def denoise(self, noisy: Tensor) -> Tensor:
        """Return the mean of the clean latent given the noisy one (Tweedie): (b, n_latent) -> (b, n_latent)."""
        return (noisy + self.sigma * self.sigma * self.score(noisy)) / self.signal_scale

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
        size = self.n_latent
        start = size * self.n_substeps
        moved = (latent - self.centre) @ self.whiten.t()
        moved = torch.minimum(torch.maximum(moved, self.low), self.high)
        if self.reads_posterior:
            moved = self.signal_scale * moved + self.sigma * noise[:, start : start + size]
        for step in range(self.n_substeps):
            moved = self.substep(moved, noise[:, step * size : step * size + size])
        if self.reads_posterior:
            moved = self.denoise(moved) + noise[:, start + size :] @ self.posterior_root.t()
        moved = torch.minimum(torch.maximum(moved, self.low), self.high)
        return self.centre + moved @ self.unwhiten.t()

    def log_density_substep(self, later: Tensor, now: Tensor) -> Tensor:
        """Return ln p(later | now) of one substep, a Gaussian; the kernel of several has no closed form.

        Parameters
        ----------
        later, now : Tensor, (b, n_latent)
            Noisy variables.

        Returns
        -------
        Tensor, (b,)
        """
        drift = self.temperature * self.time_step * self.mobility
        difference = later - now - drift * self.score(now)
        return -((difference * difference) / (4.0 * drift) + 0.5 * torch.log(4.0 * math.pi * drift)).sum(dim=1)


def fit_langevin(
    segments: Sequence[np.ndarray],
    lag_frames: int,
    config: LangevinConfig | None = None,
    seed: int = 1,
    progress: Progress | None = None,
) -> Langevin:
    """Fit score, noise level, time step and number of substeps to standardised latents.

    Parameters
    ----------
    segments : list of array, (n_frames, n_latent)
        Training series in time order; the last part of each validates.
    lag_frames : int
    config : LangevinConfig, optional
        `CONFIGS["tiny"]` unless given.
    seed : int
    progress : callable, optional
        Called after each epoch with (epoch, n_epochs, training loss, validation loss).

    Returns
    -------
    Langevin, in evaluation mode

    Source: GLDP, score-guided Langevin propagator; Y. Song and S. Ermon, Generative Modeling by Estimating Gradients
    of the Data Distribution (2019).
    """
    config = CONFIGS["tiny"] if config is None else config
    training, validation = split_validation(segments, config.validation_fraction)
    now, later = lagged_pairs(training, lag_frames)
    clean = torch.from_numpy(np.concatenate(training).astype(np.float32))
    clean_test = torch.from_numpy(np.concatenate(validation).astype(np.float32))
    torch.manual_seed(seed)
    module = Langevin(clean.shape[1], config)
    _set_coordinates(module, now, later, config)
    now, later, clean, clean_test = (
        (values - module.centre) @ module.whiten.T for values in (now, later, clean, clean_test)
    )
    low, high = clean.amin(dim=0), clean.amax(dim=0)
    margin = config.range_margin * (high - low)
    module.low.copy_(low - margin)
    module.high.copy_(high + margin)
    signals = linear_signal_levels(config.n_levels, config.beta_first, config.beta_last)
    signals = signals[torch.sqrt(1.0 - signals) <= config.largest_sigma]
    _train_score(module, clean, clean_test, signals, config, seed, progress)
    _choose_level(module, now, later, clean_test, signals, config, seed)
    return module


def _set_coordinates(module: Langevin, now: Tensor, later: Tensor, config: LangevinConfig) -> None:
    """Set white coordinates, the slowest first, and their mobilities."""
    everything = torch.cat([now, later]).double()
    centre = everything.mean(dim=0)
    whiten, memory = kinetic_axes(now, later)
    module.centre.copy_(centre)
    module.whiten.copy_(whiten)
    module.unwhiten.copy_(torch.linalg.inv(whiten.double()))
    module.mobility.copy_(1.0 + config.slow_mobility * memory.abs())


def _noise_loss(network: nn.Module, clean: Tensor, levels: Tensor, signals: Tensor, normals: Tensor) -> Tensor:
    """Return the mean squared error of the predicted noise."""
    signal = signals[levels].unsqueeze(1)
    noisy = torch.sqrt(signal) * clean + torch.sqrt(1.0 - signal) * normals
    times = (levels.to(clean.dtype) / len(signals)).unsqueeze(1)
    return (network(noisy, times) + torch.sqrt(1.0 - signal) * noisy - normals).square().mean()


def _train_score(
    module: Langevin,
    clean: Tensor,
    clean_test: Tensor,
    signals: Tensor,
    config: LangevinConfig,
    seed: int,
    progress: Progress | None,
) -> None:
    """Train the noise predictor on the levels given."""
    n_trained = len(signals)
    generator = torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(seed + 1)
    levels_test = torch.randint(n_trained, (len(clean_test),), generator=fixed)
    normals_test = torch.randn(clean_test.shape, generator=fixed)

    def loss(step: int, batch: Tensor) -> Tensor:
        levels = torch.randint(n_trained, (len(batch),), generator=generator)
        normals = torch.randn(len(batch), module.n_latent, generator=generator)
        return _noise_loss(module.network, clean[batch], levels, signals, normals)

    def validate() -> float:
        with torch.no_grad():
            return float(_noise_loss(module.network, clean_test, levels_test, signals, normals_test))

    train_best(
        module,
        loss,
        len(clean),
        validate,
        n_epochs=config.n_epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        patience=config.patience,
        seed=seed,
        averaging=config.averaging,
        progress=progress,
    )


def _choose_level(
    module: Langevin,
    now: Tensor,
    later: Tensor,
    clean_test: Tensor,
    signals: Tensor,
    config: LangevinConfig,
    seed: int,
) -> None:
    """Set level, time step, substeps and the posterior's noise: the best match of slow coordinates in validation."""
    target = _correlation(now[:, 0], later[:, 0])
    best: tuple[tuple[bool, float], dict[str, float], Tensor] | None = None
    for sigma in config.sigmas:
        level = int(torch.argmin((torch.sqrt(1.0 - signals) - sigma).abs()))
        signal = float(signals[level])
        step = config.step_fraction * (1.0 - signal) if config.step_fraction > 0 else config.time_step
        setting = {"signal": signal, "diffusion_time": level / len(signals), "time_step": step}
        module.set_level(**setting, n_substeps=1)
        with torch.no_grad():
            _fit_posterior(module, now, seed)
            n_substeps = _match_autocorrelation(module, now, target, config.max_substeps, seed)
            module.set_level(**setting, n_substeps=min(n_substeps, config.max_substeps))
            # A level too slow for `max_substeps` would hold on to where it started: only if no other serves.
            score = n_substeps > config.max_substeps, _rollout_mismatch(module, now, clean_test, seed)
        if best is None or score < best[0]:
            best = score, {**setting, "n_substeps": module.n_substeps}, module.posterior_root.clone()
    require(best is not None, "sigmas must name at least one noise level, got none; 0.2 is usual")
    module.set_level(**best[1])
    module.posterior_root.copy_(best[2])


def _correlation(first: Tensor, second: Tensor) -> float:
    """Return Pearson's correlation of two columns of samples."""
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


def _fit_posterior(module: Langevin, clean: Tensor, seed: int) -> None:
    """Set the noise that the denoised mean lacks: the covariance of the denoising error over the data."""
    if not module.reads_posterior:
        return
    generator = torch.Generator().manual_seed(seed)
    kept = clean[torch.randperm(len(clean), generator=generator)[:20_000]]
    noisy = module.signal_scale * kept + module.sigma * torch.randn(kept.shape, generator=generator)
    error = (kept - module.denoise(noisy)).double()
    covariance = error.T @ error / len(error) + 1e-10 * torch.eye(module.n_latent, dtype=torch.float64)
    module.posterior_root.copy_(torch.linalg.cholesky(covariance))


def _match_autocorrelation(module: Langevin, clean: Tensor, target: float, most: int, seed: int) -> int:
    """Return how many substeps bring the slow coordinate's autocorrelation down to the data's, or most + 1."""
    generator = torch.Generator().manual_seed(seed)
    start = clean[torch.randperm(len(clean), generator=generator)[:4000]]
    moved = start
    if module.reads_posterior:
        moved = module.signal_scale * start + module.sigma * torch.randn(start.shape, generator=generator)
    for step in range(1, most + 1):
        moved = module.substep(moved, torch.randn(start.shape, generator=generator))
        read = module.denoise(moved) if module.reads_posterior else moved
        if _correlation(start[:, 0], read[:, 0]) <= target:
            return step
    return most + 1


def _rollout_mismatch(module: Langevin, clean: Tensor, clean_test: Tensor, seed: int) -> float:
    """Return the mean squared gap between sorted coordinates of a rollout and of the validation part.

    One-dimensional optimal transport along the coordinate axes and random directions (sliced Wasserstein).
    """
    generator = torch.Generator().manual_seed(seed)
    n_walkers = 400
    moved = module.centre + clean[torch.randperm(len(clean), generator=generator)[:n_walkers]] @ module.unwhiten.T
    frames = []
    for step in range(30):
        moved = module(moved, torch.randn(n_walkers, module.n_noise, generator=generator))
        if step >= 20:
            frames.append((moved - module.centre) @ module.whiten.T)
    rolled = torch.cat(frames)
    if not bool(torch.isfinite(rolled).all()):
        return math.inf
    axes = torch.cat([torch.eye(module.n_latent), torch.randn(64, module.n_latent, generator=generator)])
    axes = axes / axes.norm(dim=1, keepdim=True)
    shares = torch.linspace(0.005, 0.995, 199)
    return float(
        (torch.quantile(rolled @ axes.T, shares, dim=0) - torch.quantile(clean_test @ axes.T, shares, dim=0))
        .square()
        .mean()
    )
