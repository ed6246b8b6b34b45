"""Frames drawn from noise: the reverse diffusion of rotations and Cα atoms, then torsions."""

from __future__ import annotations

from typing import Tuple  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor, nn

from openmm_latent.diffusion.schedule import sampling_times
from openmm_latent.diffusion.translations import centred
from openmm_latent.errors import require
from openmm_latent.models.confrover.config import ConfRoverConfig
from openmm_latent.models.confrover.decoder import Decoder


class FrameSampler(nn.Module):
    """Draw frames by a decoder.

    Parameters
    ----------
    decoder : Decoder
        Not copied.
    config : ConfRoverConfig
    n_steps : int, optional
        Steps back in diffusion time; the configuration's unless given.

    Attributes
    ----------
    n_draws : int
        Sets of six normals a residue that a sample takes: one to start from, one a step.

    Raises
    ------
    LatentError
        `n_steps` is less than 1.
    """

    def __init__(self, decoder: Decoder, config: ConfRoverConfig, n_steps: int | None = None):
        super().__init__()
        n_steps = config.n_sampling_steps if n_steps is None else n_steps
        require(
            isinstance(n_steps, int) and n_steps >= 1,
            f"n_steps must be a whole number, at least 1, got {n_steps!r}; {config.n_sampling_steps} is this model's",
        )
        self.decoder = decoder
        self.n_steps, self.n_draws = n_steps, n_steps + 1
        self.register_buffer("times", sampling_times(n_steps, config.least_diffusion_time), persistent=False)

    def forward(
        self, single: Tensor, pair: Tensor, sequence_single: Tensor, sequence_pair: Tensor, normals: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
        """Draw one frame for each context.

        Parameters
        ----------
        single, pair : Tensor
            (b, n, width), (b, n, n, width) the context
        sequence_single, sequence_pair : Tensor
            (n, width), (n, n, width) the protein
        normals : Tensor
            (b, n_draws, n, 6) standard normal: three for positions, three for rotations

        Returns
        -------
        rotations : Tensor
            (b, n, 3, 3)
        ca : Tensor
            (b, n, 3) [nm], centred; in the orientation that the noise has given them
        torsions : Tensor
            (b, n, 7) [rad]
        """
        decoder = self.decoder
        everywhere = torch.ones_like(single[..., 0], dtype=torch.bool)
        ca = centred(normals[:, 0, :, :3], everywhere)
        rotations = decoder.noise_of_rotations.uniform(normals[:, 0, :, 3:])
        for i in range(self.n_steps):
            time, earlier = self.times[i].expand(single.shape[0]), self.times[i + 1].expand(single.shape[0])
            clean_rotations, clean_ca, _ = decoder(single, pair, sequence_single, sequence_pair, rotations, ca, time)
            moves, turns = centred(normals[:, i + 1, :, :3], everywhere), normals[:, i + 1, :, 3:]
            ca = decoder.translations.reverse_step(ca, clean_ca, time, earlier, moves)
            rotations = decoder.noise_of_rotations.reverse_step(rotations, clean_rotations, time, earlier, turns)
        last = self.times[self.n_steps].expand(single.shape[0])
        rotations, ca, torsions = decoder(single, pair, sequence_single, sequence_pair, rotations, ca, last)
        return rotations, ca, torch.atan2(torsions[..., 0], torsions[..., 1])
