"""Diffusion of positions in continuous time, variance preserving: noise at any time, and a step back.

At diffusion time t a position is sqrt(a) x + sqrt(1 - a) e with a = exp(-B), B the integral of beta from 0 to t, and e
standard normal. Lengths are nm throughout: the papers scale positions by 0.1 per Å, which is 1 per nm.

Source: Y. Song et al., Score-Based Generative Modeling through Stochastic Differential Equations, equation 11 (2021);
ConfRover, appendix B and table 6.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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

    Raises
    ------
    LatentError
        The rates do not rise.
    """

    def __init__(self, beta_first: float = 0.1, beta_last: float = 20.0):
        super().__init__()
        require(
            0.0 < beta_first < beta_last,
            f"beta_first and beta_last must be positive and rise, got {beta_first} and {beta_last}; 0.1 and 20 are "
            f"usual",
        )
        self.first, self.last = float(beta_first), float(beta_last)

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

        Source: J. Ho et al. (2020), equation 7. DISCREPANCY(ConfRover, 200 Euler steps): this is what is known of the
        earlier position when the clean one is; with many steps it is Euler's, with few it stays right.
        """
        signal, earlier = self.signal(diffusion_time), self.signal(next_time)
        kept = signal / earlier  # over the step alone
        to_clean = self._at(earlier.sqrt() * (1.0 - kept) / (1.0 - signal), noisy)
        to_noisy = self._at(kept.sqrt() * (1.0 - earlier) / (1.0 - signal), noisy)
        size = self._at(((1.0 - kept) * (1.0 - earlier) / (1.0 - signal)).clamp(min=0.0).sqrt(), noisy)
        return (to_clean * clean + to_noisy * noisy + size * normals).to(noisy.dtype)
