"""Diffusion of positions in continuous time, variance preserving: noise at any time, and a step back.

At diffusion time t a position is sqrt(a) x + sqrt(1 - a) e with a = exp(-B), B the integral of beta from 0 to t, and e
standard normal. Lengths are nm throughout: the papers scale positions by 0.1 per Å, which is 1 per nm.

Source: Y. Song et al., Score-Based Generative Modeling through Stochastic Differential Equations, equation 11 (2021);
ConfRover, appendix B and table 6.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openmm_latent.diffusion.schedule import RANDOMNESS
from openmm_latent.errors import require


def centred(values: Tensor, mask: Tensor) -> Tensor:
    """Return values (b, n, 3) without their mean over the residues of a mask (b, n): zero outside of it."""
    share = mask.to(values.dtype).unsqueeze(-1)
    mean = (values * share).sum(dim=1, keepdim=True) / share.sum(dim=1, keepdim=True).clamp(min=1.0)
    return (values - mean) * share


class TranslationDiffusion(nn.Module):
    """The process that noises positions, and a step back.

    Parameters
    ----------
    beta_first, beta_last : float
        Rates at diffusion times 0 and 1; linear between them.
    randomness : float
        Of a step back: with 0 it follows the probability flow, with 1 it adds all the noise that the clean position
        leaves open.

    Raises
    ------
    LatentError
        The rates do not rise, or the randomness is not from 0 to 1.
    """

    def __init__(self, beta_first: float = 0.1, beta_last: float = 20.0, randomness: float = RANDOMNESS):
        super().__init__()
        require(
            0.0 < beta_first < beta_last,
            f"beta_first and beta_last must be positive and rise, got {beta_first} and {beta_last}; 0.1 and 20 are "
            f"usual",
        )
        require(0.0 <= randomness <= 1.0, f"randomness must lie between 0 and 1, got {randomness}")
        self.first, self.last, self.randomness = float(beta_first), float(beta_last), float(randomness)

    def signal(self, diffusion_time: Tensor) -> Tensor:
        """Return the share of a clean position's variance that is left, in double precision: (b,) -> (b,)."""
        time = diffusion_time.double()
        return torch.exp(-self.first * time - 0.5 * (self.last - self.first) * time.square())

    def _at(self, values: Tensor, like: Tensor) -> Tensor:
        """Return (b,) shaped to multiply `like`, (b, ...)."""
        return values.view([-1] + [1] * (like.dim() - 1))

    def noised(self, clean: Tensor, normals: Tensor, diffusion_time: Tensor) -> Tensor:
        """Return positions with the noise of a time: (b, ...) [nm], (b, ...), (b,) -> (b, ...) [nm]."""
        signal = self._at(self.signal(diffusion_time), clean)
        return (signal.sqrt() * clean + (1.0 - signal).sqrt() * normals).to(clean.dtype)

    def reverse_step(
        self, noisy: Tensor, clean: Tensor, diffusion_time: Tensor, next_time: Tensor, normals: Tensor
    ) -> Tensor:
        """Return positions at an earlier diffusion time, given what the network takes for clean.

        Parameters
        ----------
        noisy, clean, normals : Tensor
            (b, ...) [nm], [nm], standard normal
        diffusion_time, next_time : Tensor
            (b,), the second smaller

        Returns
        -------
        Tensor
            (b, ...) [nm]

        Source: J. Song et al., Denoising Diffusion Implicit Models, equation 12 (2021). DISCREPANCY(ConfRover, 200
        Euler steps): the step is right for a single clean position with any number of steps; with many, that with
        randomness 1 is Euler's.
        """
        signal, earlier = self.signal(diffusion_time), self.signal(next_time)
        open_variance = (1.0 - signal / earlier) * (1.0 - earlier) / (1.0 - signal)
        added = open_variance.clamp(min=0.0) * self.randomness * self.randomness
        to_noise = (1.0 - earlier - added).clamp(min=0.0).sqrt() / (1.0 - signal).sqrt()
        to_clean = earlier.sqrt() - to_noise * signal.sqrt()
        moved = self._at(to_clean, noisy) * clean + self._at(to_noise, noisy) * noisy
        return (moved + self._at(added.sqrt(), noisy) * normals).to(noisy.dtype)
