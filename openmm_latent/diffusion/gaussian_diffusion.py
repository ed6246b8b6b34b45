"""Diffusion in discrete time with a learned variance: what is noised, what a network is taught, how one samples.

At step k a sample is sqrt(signal_k) x + sqrt(1 - signal_k) e, e standard normal. A network says for each number which e
is in it and, between two bounds, the variance of the step back.

| symbol | variable |
|---|---|
| x_0, x_t, e | `clean`, `noisy`, `normals` |
| alpha-bar_t | `signal` |
| beta_t and beta-tilde_t, logarithms | `log_most`, `log_least` |
| v, in the papers' code from -1 to 1 | `share`, from 0 to 1 |
| L_simple + lambda L_vlb | `hybrid_loss` |

Source: J. Ho et al., Denoising Diffusion Probabilistic Models (2020); A. Nichol and P. Dhariwal, Improved Denoising
Diffusion Probabilistic Models (2021).
"""

from __future__ import annotations

import math
from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor, nn

from openmm_latent.diffusion.respacing import respaced_signals
from openmm_latent.diffusion.schedule import linear_signal_levels
from openmm_latent.errors import require

#: What the variational bound weighs beside the squared error: Nichol and Dhariwal's lambda.
BOUND_WEIGHT = 1e-3


class GaussianDiffusion(nn.Module):
    """A process of `n_steps` out of `n_levels` noise levels with linear beta.

    Parameters
    ----------
    n_levels : int
        Of the full process.
    n_steps : int, optional
        That this one visits; all unless given.
    beta_first, beta_last : float
        Of the full process; the defaults are Ho's, for 1000 levels.
    bound : float
        Clean numbers are taken to lie between -bound and bound: what a network errs by at the highest levels would
        otherwise count a hundredfold.

    Attributes
    ----------
    n_steps : int
    diffusion_times : Tensor
        (n_steps,) level / n_levels, what the network is told.

    Raises
    ------
    LatentError
        Steps or betas are out of range.
    """

    def __init__(
        self,
        n_levels: int = 1000,
        n_steps: int | None = None,
        beta_first: float = 1e-4,
        beta_last: float = 0.02,
        bound: float = math.inf,
    ):
        super().__init__()
        require(bound > 0, f"bound must be positive, got {bound}; give the largest size that clean numbers have")
        full = linear_signal_levels(n_levels, beta_first, beta_last, torch.float64)
        levels, signal, beta = respaced_signals(full, n_levels if n_steps is None else n_steps)
        before = torch.cat([torch.ones_like(signal[:1]), signal[:-1]])
        self.n_levels, self.n_steps, self.bound = n_levels, len(levels), float(bound)
        least = beta * (1.0 - before) / (1.0 - signal)  # 0 at the first step: there the next one's stands in
        least[0] = least[1] if self.n_steps > 1 else beta[0]
        buffers = {
            "diffusion_times": levels.double() / n_levels,
            "signal_root": signal.sqrt(),
            "noise_root": (1.0 - signal).sqrt(),
            "clean_weight": before.sqrt() * beta / (1.0 - signal),
            "noisy_weight": (1.0 - beta).sqrt() * (1.0 - before) / (1.0 - signal),
            "log_least": least.log(),
            "log_most": torch.maximum(beta, least).log(),
        }
        for name, values in buffers.items():
            self.register_buffer(name, values.float())

    def at(self, values: Tensor, step: Tensor, like: Tensor) -> Tensor:
        """Return (n_steps,) values at steps (b,), shaped to multiply `like`, (b, ...)."""
        return values.index_select(0, step).view([-1] + [1] * (like.dim() - 1))

    def noised(self, clean: Tensor, normals: Tensor, step: Tensor) -> Tensor:
        """Return clean numbers with the noise of a step: (b, ...), (b, ...), (b,) -> (b, ...)."""
        return self.at(self.signal_root, step, clean) * clean + self.at(self.noise_root, step, clean) * normals

    def cleaned(self, noisy: Tensor, normals: Tensor, step: Tensor) -> Tensor:
        """Return what is left when the noise is taken out, within the bound: the inverse of `noised`."""
        clean = (noisy - self.at(self.noise_root, step, noisy) * normals) / self.at(self.signal_root, step, noisy)
        return clean.clamp(min=-self.bound, max=self.bound)

    def towards(self, clean: Tensor, noisy: Tensor, step: Tensor) -> Tensor:
        """Return the mean one step back, given both ends: (b, ...)."""
        return self.at(self.clean_weight, step, noisy) * clean + self.at(self.noisy_weight, step, noisy) * noisy

    def log_variance(self, share: Tensor, step: Tensor) -> Tensor:
        """Interpolate the logarithm of the step's variance between its bounds: share (b, ...) -> (b, ...).

        Source: Nichol and Dhariwal, equation 15.
        """
        least, most = self.at(self.log_least, step, share), self.at(self.log_most, step, share)
        return least + share * (most - least)

    def backward_step(self, noisy: Tensor, output: Tensor, step: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Return mean and log variance one step back from a network's output.

        Parameters
        ----------
        noisy : Tensor
            (b, ..., n)
        output : Tensor
            (b, ..., 2 n): the noise in it, then v from -1 to 1
        step : Tensor of int
            (b,)

        Returns
        -------
        mean, log_variance : Tensor
            (b, ..., n)
        """
        normals, fraction = output.chunk(2, dim=-1)
        mean = self.towards(self.cleaned(noisy, normals, step), noisy, step)
        return mean, self.log_variance(0.5 + 0.5 * fraction, step)

    def hybrid_loss(self, output: Tensor, clean: Tensor, normals: Tensor, step: Tensor) -> Tensor:
        """Return the squared error of the noise plus the variational bound, which teaches the variance alone.

        Parameters
        ----------
        output : Tensor
            (b, ..., 2 n), the network's at `noised(clean, normals, step)`
        clean, normals : Tensor
            (b, ..., n)
        step : Tensor of int
            (b,)

        Returns
        -------
        Tensor
            (b, ...), means over the last axis [nats for the bound]

        Source: Nichol and Dhariwal, equation 16. DISCREPANCY(Nichol and Dhariwal, L_0): clean numbers are continuous
        here, so the last term is their density, not the probability of a pixel's interval.
        """
        noisy = self.noised(clean, normals, step)
        told, fraction = output.chunk(2, dim=-1)
        frozen = torch.cat([told.detach(), fraction], dim=-1)
        mean, log_variance = self.backward_step(noisy, frozen, step)
        truth = self.towards(clean, noisy, step)
        true_log = self.at(self.log_least, step, noisy)
        gap = (truth - mean).square() * torch.exp(-log_variance)
        divergence = 0.5 * (log_variance - true_log - 1.0 + torch.exp(true_log - log_variance) + gap)
        density = 0.5 * ((clean - mean).square() * torch.exp(-log_variance) + log_variance + math.log(2.0 * math.pi))
        bound = torch.where((step == 0).view([-1] + [1] * (noisy.dim() - 1)), density, divergence)
        return ((told - normals).square() + BOUND_WEIGHT * self.n_steps * bound).mean(dim=-1)


class AncestralSampler(nn.Module):
    """Walk from noise to clean numbers, all steps of a process, with a network at each.

    Parameters
    ----------
    denoiser : nn.Module
        Called with (noisy (b, ..., n), diffusion_time (b,), context); returns (b, ..., 2 n) as `backward_step` takes
        it. The context is a list of tensors, the same at all steps.
    diffusion : GaussianDiffusion

    Attributes
    ----------
    n_draws : int
        Normals for each number: one to start from and one a step but the last, which takes the mean.
    """

    def __init__(self, denoiser: nn.Module, diffusion: GaussianDiffusion):
        super().__init__()
        self.denoiser, self.diffusion = denoiser, diffusion
        self.n_draws = diffusion.n_steps

    def forward(self, noise: Tensor, context: List[Tensor]) -> Tensor:  # noqa: UP006
        """Sample.

        Parameters
        ----------
        noise : Tensor
            (b, n_draws, ..., n) standard normal
        context : list of Tensor
            What the network knows besides.

        Returns
        -------
        Tensor
            (b, ..., n)
        """
        moved = noise[:, 0]
        n_steps = self.diffusion.n_steps
        for done in range(n_steps):
            step = torch.full([noise.shape[0]], n_steps - 1 - done, dtype=torch.long, device=noise.device)
            time = self.diffusion.diffusion_times.index_select(0, step)
            output = self.denoiser(moved, time, context)
            mean, log_variance = self.diffusion.backward_step(moved, output, step)
            moved = mean
            if done + 1 < n_steps:
                moved = mean + torch.exp(0.5 * log_variance) * noise[:, done + 1]
        return moved
