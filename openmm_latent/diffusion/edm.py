"""Diffusion in continuous noise levels: preconditioning, training noise, and samplers with and without fresh noise.

A clean sample x is noised to x + sigma n, n standard normal. A network F is wrapped so that what it reads and what it
is taught have unit variance at all levels; together they are a denoiser D, the mean of x given the noisy sample.

| symbol | variable |
|---|---|
| sigma | `noise_level`, in the unit of the data |
| sigma_data | `data_scale` |
| c_in, c_skip, c_out, c_noise | in `EDM.scaled`, `EDM.denoised`, `EDM.told` |
| F | `output` |
| t_i; t-hat_i | `levels`; `stirred` |
| gamma_0, gamma_min | `churn`, `churn_above` |
| lambda (noise scale), eta (step scale) | `noise_scale`, `step_scale` |

Source: T. Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models (2022), table 1 and
algorithm 2; J. Abramson et al., Nature 630, 493 (2024), supplement, algorithm 18.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import List  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor, nn

from openmm_latent.errors import require


class EDM(nn.Module):
    """What stands between a network and its data.

    Parameters
    ----------
    data_scale : float
        Standard deviation of one number of the clean data; all noise levels are in its unit.
    log_mean, log_std : float
        Of the normal distribution of ln(noise level / data scale) in training.

    Raises
    ------
    LatentError
        A scale is not positive.
    """

    __constants__ = ("data_scale", "log_mean", "log_std")

    def __init__(self, data_scale: float, log_mean: float = -1.2, log_std: float = 1.5):
        super().__init__()
        require(
            data_scale > 0 and log_std > 0,
            f"data_scale and log_std must be positive, got {data_scale} and {log_std}; 1.6 nm and 1.5 are usual",
        )
        self.data_scale, self.log_mean, self.log_std = float(data_scale), float(log_mean), float(log_std)

    def training_level(self, normals: Tensor) -> Tensor:
        """Return noise levels of training for standard normals of any shape."""
        return self.data_scale * torch.exp(self.log_mean + self.log_std * normals)

    def weight(self, noise_level: Tensor) -> Tensor:
        """Return what a squared error counts, so that the network's output is taught alike at all levels.

        DISCREPANCY(AlphaFold 3, equation 6): its text divides by the square of the sum of both scales, which lets
        small levels count for next to nothing; this is the weight of Karras et al., by the square of the product.
        """
        return (noise_level.square() + self.data_scale**2) / (noise_level * self.data_scale).square()

    def told(self, noise_level: Tensor) -> Tensor:
        """Return the number by which a network knows the level, of order one: the shape given."""
        return 0.25 * torch.log(noise_level / self.data_scale)

    def scaled(self, noisy: Tensor, noise_level: Tensor) -> Tensor:
        """Return noisy data of unit variance: (b, ...), (b,) -> (b, ...)."""
        level = _along(noise_level, noisy)
        return noisy / torch.sqrt(level.square() + self.data_scale**2)

    def denoised(self, noisy: Tensor, output: Tensor, noise_level: Tensor) -> Tensor:
        """Return the clean data that a network's output means: (b, ...), (b, ...), (b,) -> (b, ...)."""
        level = _along(noise_level, noisy)
        variance = level.square() + self.data_scale**2
        return self.data_scale**2 / variance * noisy + level * self.data_scale / torch.sqrt(variance) * output


def _along(values: Tensor, like: Tensor) -> Tensor:
    """Shape (b,) to multiply (b, ...)."""
    return values.view([-1] + [1] * (like.dim() - 1))


def karras_levels(
    n_steps: int, data_scale: float, least: float = 4e-4, most: float = 160.0, rho: float = 7.0
) -> Tensor:
    """Return falling noise levels, the last of them zero.

    Parameters
    ----------
    n_steps : int
        At least 2.
    data_scale : float
        Unit of the levels.
    least, most : float
        Last level before zero, and first, in units of `data_scale`.
    rho : float
        Higher puts more of the steps at low levels.

    Returns
    -------
    Tensor
        (n_steps + 1,) float64

    Raises
    ------
    LatentError
        A number is out of range.

    Source: Karras et al., equation 5. DISCREPANCY(AlphaFold 3, algorithm 18): that ends at `least`, and leaves its
    noise in the sample; the further step to zero takes the denoiser's mean.
    """
    require(
        n_steps >= 2 and data_scale > 0 and 0 < least < most and rho > 0,
        f"n_steps must be at least 2, data_scale and rho positive, and least below most, got {n_steps}, {data_scale}, "
        f"{rho}, {least} and {most}; 200 steps from 160 to 4e-4 with rho 7 are usual",
    )
    ramp = torch.linspace(0.0, 1.0, n_steps, dtype=torch.float64)
    roots = most ** (1.0 / rho) + ramp * (least ** (1.0 / rho) - most ** (1.0 / rho))
    return torch.cat([data_scale * roots**rho, torch.zeros(1, dtype=torch.float64)])


class EDMSampler(nn.Module):
    """Walk from noise to clean data.

    Parameters
    ----------
    denoiser : nn.Module
        Called with (noisy (b, ...), noise_level (b,), context); returns the clean mean, (b, ...).
    levels : Tensor
        (n_steps + 1,) falling to zero, from `karras_levels`.
    churn : float
        Share by which a level is raised with fresh noise before a step; 0 is the ordinary differential equation.
    churn_above : float
        Only at levels above this one, in their unit.
    noise_scale : float
        Multiplies the fresh noise.
    step_scale : float
        Multiplies each step but the last.

    With `noise_scale` and `step_scale` 1 the sample has the distribution of the denoiser's data as the steps become
    many and, in proportion, `churn` small. The published values, 0.8, 1.003 and 1.5, narrow it.

    Attributes
    ----------
    n_draws : int
        Normals for each number of the data: one to start from, and one for each step with fresh noise.
    """

    __constants__ = ("n_draws", "n_steps", "step_scale")

    def __init__(
        self,
        denoiser: nn.Module,
        levels: Tensor,
        churn: float = 0.8,
        churn_above: float = 0.1,
        noise_scale: float = 1.003,
        step_scale: float = 1.5,
    ):
        super().__init__()
        numbers = [float(level) for level in levels]
        require(
            len(numbers) >= 3 and numbers[-1] == 0.0 and all(a > b for a, b in pairwise(numbers)),
            f"levels must fall to zero in at least two steps, got {numbers}; take them from karras_levels",
        )
        require(
            churn >= 0 and noise_scale > 0 and step_scale > 0,
            f"churn must not be negative, noise_scale and step_scale must be positive, got {churn}, {noise_scale} and "
            f"{step_scale}; 0.8, 1.003 and 1.5 are usual",
        )
        self.denoiser = denoiser
        self.n_steps, self.step_scale, self.first = len(numbers) - 1, float(step_scale), numbers[0]
        raised = [churn > 0 and level > churn_above for level in numbers[:-1]]
        self.after = numbers[1:]
        self.stirred = [level * (1.0 + churn) if up else level for level, up in zip(numbers[:-1], raised, strict=True)]
        self.fresh = [
            noise_scale * math.sqrt(high**2 - level**2) for high, level in zip(self.stirred, numbers[:-1], strict=True)
        ]
        self.n_draws = 1 + sum(raised)

    def forward(self, noise: Tensor, context: List[Tensor]) -> Tensor:  # noqa: UP006
        """Sample.

        Parameters
        ----------
        noise : Tensor
            (b, n_draws, ...) standard normal
        context : list of Tensor
            What the denoiser knows besides.

        Returns
        -------
        Tensor
            (b, ...)
        """
        moved = self.first * noise[:, 0]
        drawn = 1
        for step in range(self.n_steps):
            if self.fresh[step] > 0.0:
                moved = moved + self.fresh[step] * noise[:, drawn]
                drawn += 1
            level = torch.full([noise.shape[0]], self.stirred[step], dtype=noise.dtype, device=noise.device)
            clean = self.denoiser(moved, level, context)
            if step + 1 < self.n_steps:
                change = self.step_scale * (self.after[step] - self.stirred[step]) / self.stirred[step]
                moved = moved + change * (moved - clean)
            else:
                moved = clean
        return moved
