"""Diffusion of rotations: Brownian motion on SO(3), whose density at any time is the isotropic Gaussian IGSO(3).

A rotation R that starts at the clean one R_0 is R_0 exp(v): v is a rotation vector in the frame's own axes, so noise,
score and steps do not change with the axes in which all frames are given.

| symbol | variable |
|---|---|
| R_0, R_t | `clean`, `noisy` |
| omega = angle of R_0^T R_t | `angle` |
| sigma(t) | `noise_level`; small: the standard deviation of each component of v |
| f(omega; sigma), with respect to the uniform measure | `exp(log_density)` |
| grad log f in the frame's own axes | `score` |

With omega_k = omega - 2 pi k, the sum over all l of (2 l + 1) exp(-l (l + 1) sigma^2 / 2) sin((l + 1/2) omega) /
sin(omega / 2) is also sqrt(2 pi) exp(sigma^2 / 8) / (sigma^3 sin(omega / 2)) times the sum over all k of
(-1)^k omega_k exp(-omega_k^2 / 2 sigma^2): Poisson's summation. This second form is used, since seven of its terms
are exact to rounding for noise up to 3 rad, without the loss of digits that the first has in the tail.

Source: A. Leach et al., Denoising Diffusion Probabilistic Models on SO(3) (2022); J. Yim et al., SE(3) diffusion model
with application to protein backbone generation (2023), which ConfRover follows; appendix B of ConfRover.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Tuple  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor, nn

from openmm_latent.diffusion.schedule import RANDOMNESS
from openmm_latent.errors import require

#: Of the tables: noise levels; lengths of three normals, of which one in 10^10 is longer.
_N_LEVELS, _N_LENGTHS, _LONGEST = 64, 256, 7.0
#: Angles on which a cumulative density is summed.
_N_ANGLES = 4096


def rotation_matrices(vectors: Tensor) -> Tensor:
    """Return the rotations of rotation vectors: (..., 3) [rad] -> (..., 3, 3)."""
    square = vectors.square().sum(dim=-1, keepdim=True)
    angle = square.clamp(min=1e-24).sqrt()
    half = torch.sin(0.5 * angle) / angle
    return _matrices_of(torch.cos(0.5 * angle), half * vectors)


def _matrices_of(real: Tensor, imaginary: Tensor) -> Tensor:
    """Return the rotations of unit quaternions: (..., 1), (..., 3) -> (..., 3, 3)."""
    w, x, y, z = real[..., 0], imaginary[..., 0], imaginary[..., 1], imaginary[..., 2]
    rows = [
        torch.stack([1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)], dim=-1),
        torch.stack([2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)], dim=-1),
        torch.stack([2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def rotation_vectors(rotations: Tensor) -> Tensor:
    """Return rotation vectors, at most pi long: (..., 3, 3) -> (..., 3) [rad]; the inverse of `rotation_matrices`.

    By way of the quaternion's largest component, which keeps the axis well defined up to half a turn.
    """
    m = rotations.flatten(-2)  # (..., 9), row by row
    x, y, z = m[..., 0], m[..., 4], m[..., 8]
    a, b, c = m[..., 7] - m[..., 5], m[..., 2] - m[..., 6], m[..., 3] - m[..., 1]
    d, e, f = m[..., 1] + m[..., 3], m[..., 2] + m[..., 6], m[..., 5] + m[..., 7]
    rows = torch.stack(  # (..., 4, 4): 4 q_i q_j
        [
            torch.stack([1.0 + x + y + z, a, b, c], dim=-1),
            torch.stack([a, 1.0 + x - y - z, d, e], dim=-1),
            torch.stack([b, d, 1.0 - x + y - z, f], dim=-1),
            torch.stack([c, e, f, 1.0 - x - y + z], dim=-1),
        ],
        dim=-2,
    )
    largest = torch.diagonal(rows, dim1=-2, dim2=-1).argmax(dim=-1)
    index = largest.unsqueeze(-1).unsqueeze(-1).expand_as(rows[..., :1, :])
    row = rows.gather(-2, index).squeeze(-2)
    quaternion = row / row.square().sum(dim=-1, keepdim=True).sqrt()
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    imaginary = quaternion[..., 1:]
    length = imaginary.square().sum(dim=-1, keepdim=True).clamp(min=1e-24).sqrt()
    return 2.0 * torch.atan2(length, quaternion[..., :1]) / length * imaginary


def log_density(angle: Tensor, noise_level: Tensor) -> Tensor:
    """Return ln f of IGSO(3) with respect to the uniform measure, whose own angles have density (1 - cos) / pi.

    Parameters
    ----------
    angle : Tensor
        (...) [rad], 0 to pi
    noise_level : Tensor
        (...) [rad], at most 3

    Source: the module's second form.
    """
    level, angle = noise_level.double(), angle.double().clamp(min=1e-4)  # below it is taken as constant
    images = _images(angle, level)[0]
    spread = 0.5 * math.log(2.0 * math.pi) + level.square() / 8.0 - 3.0 * level.log()
    return spread - 0.5 * (angle / level).square() + images.log() - torch.sin(0.5 * angle).log()


def score_factor(angle: Tensor, noise_level: Tensor) -> Tensor:
    """Return (d ln f / d omega) / omega, by which a rotation vector becomes its score: (...), (...) -> (...) [rad^-2].

    About -1 / sigma^2 for small noise.
    """
    level, angle = noise_level.double(), angle.double().clamp(min=1e-4)  # below it is taken as constant
    images, slope = _images(angle, level)
    return (slope / images - 0.5 / torch.tan(0.5 * angle)) / angle


def _images(angle: Tensor, level: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Return the sum over images, divided by the exponential of the first, and its derivative, equally divided."""
    total, slope = torch.zeros_like(angle), torch.zeros_like(angle)
    for k in range(-3, 4):
        image = angle - 2.0 * math.pi * k
        weight = torch.exp(2.0 * math.pi * k * (angle - math.pi * k) / level.square())
        weight = weight if k % 2 == 0 else -weight
        total = total + weight * image
        slope = slope + weight * (1.0 - (image / level).square())
    return total, slope


class RotationDiffusion(nn.Module):
    """The process that noises rotations, its score, and a step back.

    Parameters
    ----------
    sigma_first, sigma_last : float
        Noise levels [rad] at diffusion times 0 and 1; between them exp(sigma) grows evenly.
    randomness : float
        Of a step back: with 0 it follows the probability flow, with 1 it adds all the noise that the clean rotation
        leaves open.

    Raises
    ------
    LatentError
        The levels do not rise, or go beyond 3, or the randomness is not from 0 to 1.

    Source: ConfRover, table 6 ("logarithmic" 0.1 to 1.5); J. Yim et al. (2023).
    """

    def __init__(self, sigma_first: float = 0.1, sigma_last: float = 1.5, randomness: float = RANDOMNESS):
        super().__init__()
        require(
            0.0 < sigma_first < sigma_last <= 3.0,
            f"sigma_first and sigma_last must rise between 0 and 3 rad, got {sigma_first} and {sigma_last}; 0.1 and "
            f"1.5 are usual",
        )
        require(0.0 <= randomness <= 1.0, f"randomness must lie between 0 and 1, got {randomness}")
        self.first, self.last, self.randomness = float(sigma_first), float(sigma_last), float(randomness)
        self.n_levels, self.n_lengths, self.longest = _N_LEVELS, _N_LENGTHS, _LONGEST  # as TorchScript reads them
        angles, squares = _tables(self.first, self.last)
        self.register_buffer("angles", angles.float())  # (n_levels, n_lengths) [rad]
        self.register_buffer("log_squares", squares.log().float())  # (n_levels,) of the score
        self.register_buffer("uniform_angles", _uniform_angles().float())  # (n_lengths,) [rad]

    def noise_level(self, diffusion_time: Tensor) -> Tensor:
        """Return sigma [rad] in double precision: (b,) in 0 to 1 -> (b,)."""
        time = diffusion_time.double()
        return (time * math.exp(self.last) + (1.0 - time) * math.exp(self.first)).log()

    def _at(self, level: Tensor, like: Tensor) -> Tensor:
        """Return (b,) shaped to multiply `like`, (b, ...)."""
        return level.view([-1] + [1] * (like.dim() - 1))

    def _places(self, level: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Return the row of the tables below a noise level, and the share of the next one: (b,) -> (b,), (b,)."""
        place = (level / self.first).log() / math.log(self.last / self.first) * (self.n_levels - 1)
        row = place.floor().clamp(min=0, max=self.n_levels - 2)
        return row.long(), (place - row).clamp(min=0.0, max=1.0)

    def _turned(self, normals: Tensor, table: Tensor) -> Tensor:
        """Return rotation vectors (b, ..., 3) of normals (b, ..., 3), their angles by a table (b, n_lengths) [rad].

        The length of three normals and their direction are independent: the length becomes the angle with the same
        cumulative probability.
        """
        length = normals.double().square().sum(dim=-1).clamp(min=1e-24).sqrt()  # (b, ...)
        place = (length / self.longest * (self.n_lengths - 1)).clamp(max=self.n_lengths - 1.000001)
        column = place.floor()
        flat = column.long().view(length.shape[0], -1)
        below, above = table.gather(1, flat).view_as(length), table.gather(1, flat + 1).view_as(length)
        angle = below + (place - column) * (above - below)
        return (angle / length).unsqueeze(-1) * normals.double()

    def noise(self, normals: Tensor, diffusion_time: Tensor) -> Tensor:
        """Return rotation vectors from IGSO(3): normals (b, ..., 3), times (b,) -> (b, ..., 3) [rad], double."""
        row, share = self._places(self.noise_level(diffusion_time))
        table = self.angles.double()
        rows = (1.0 - share).unsqueeze(1) * table.index_select(0, row)
        return self._turned(normals, rows + share.unsqueeze(1) * table.index_select(0, row + 1))

    def noised(self, clean: Tensor, normals: Tensor, diffusion_time: Tensor) -> Tensor:
        """Return rotations with the noise of a time.

        Parameters
        ----------
        clean : Tensor
            (b, ..., 3, 3)
        normals : Tensor
            (b, ..., 3)
        diffusion_time : Tensor
            (b,)

        Returns
        -------
        Tensor
            (b, ..., 3, 3)
        """
        turn = rotation_matrices(self.noise(normals, diffusion_time))
        return torch.matmul(clean.double(), turn).to(clean.dtype)

    def uniform(self, normals: Tensor) -> Tensor:
        """Return uniform rotations, where sampling starts: (b, ..., 3) -> (b, ..., 3, 3).

        Source: J. Yim et al. (2023). At the last noise level, 1.5 rad, the distance from uniform is not nothing: of the
        first term of the series exp(-2.25) is left.
        """
        table = self.uniform_angles.double().unsqueeze(0).expand(normals.shape[0], -1)
        return rotation_matrices(self._turned(normals, table)).to(normals.dtype)

    def score(self, noisy: Tensor, clean: Tensor, diffusion_time: Tensor) -> Tensor:
        """Return the gradient of ln f(noisy given clean), in the noisy frames' own axes.

        Parameters
        ----------
        noisy, clean : Tensor
            (b, ..., 3, 3)
        diffusion_time : Tensor
            (b,)

        Returns
        -------
        Tensor
            (b, ..., 3) [rad^-1], double precision
        """
        turn = rotation_vectors(torch.matmul(clean.double().transpose(-1, -2), noisy.double()))
        angle = turn.square().sum(dim=-1).clamp(min=1e-24).sqrt()
        level = self._at(self.noise_level(diffusion_time), angle)
        return score_factor(angle, level.expand_as(angle)).unsqueeze(-1) * turn

    def mean_square_score(self, diffusion_time: Tensor) -> Tensor:
        """Return the mean square length of the score, by which losses are weighed: (b,) -> (b,) [rad^-2]."""
        row, share = self._places(self.noise_level(diffusion_time))
        table = self.log_squares.double()
        return ((1.0 - share) * table.index_select(0, row) + share * table.index_select(0, row + 1)).exp()

    def reverse_step(
        self, noisy: Tensor, clean: Tensor, diffusion_time: Tensor, next_time: Tensor, normals: Tensor
    ) -> Tensor:
        """Return rotations at an earlier diffusion time, given what the network takes for clean.

        Parameters
        ----------
        noisy, clean : Tensor
            (b, ..., 3, 3)
        diffusion_time, next_time : Tensor
            (b,), the second smaller
        normals : Tensor
            (b, ..., 3)

        Returns
        -------
        Tensor
            (b, ..., 3, 3)

        Source: the reverse equation of ConfRover, appendix B, the score that of `clean`.
        """
        return self.step_along(noisy, self.score(noisy, clean, diffusion_time), diffusion_time, next_time, normals)

    def step_along(
        self, noisy: Tensor, score: Tensor, diffusion_time: Tensor, next_time: Tensor, normals: Tensor
    ) -> Tensor:
        """Return rotations at an earlier diffusion time, given the score (b, ..., 3) [rad^-1]; see `reverse_step`.

        DISCREPANCY(ConfRover, 200 Euler steps): the step takes the noise that was added between the two times as a
        whole, not its rate at the start, and puts part of it back, by `randomness`. So a single clean rotation is met
        with any number of steps (while angles are small), whatever the randomness; with many, the step with
        randomness 1 is Euler's. Source: J. Song et al., Denoising Diffusion Implicit Models, equation 12 (2021), for
        variance that explodes, on SO(3).
        """
        before, after = self.noise_level(next_time), self.noise_level(diffusion_time)
        added = before.square() * (1.0 - (before / after).square()).clamp(min=0.0) * self.randomness * self.randomness
        share = 1.0 - (before.square() - added).clamp(min=0.0).sqrt() / after
        turn = self._at(after.square() * share, normals) * score.double() + self._at(added.sqrt(), normals) * normals
        return torch.matmul(noisy.double(), rotation_matrices(turn)).to(noisy.dtype)


def _cumulative_of_lengths() -> Tensor:
    """Return the cumulative probability of the length of three normals, (n_lengths,)."""
    length = torch.linspace(0.0, _LONGEST, _N_LENGTHS, dtype=torch.float64)
    density = math.sqrt(2.0 / math.pi) * length * torch.exp(-0.5 * length.square())
    return torch.erf(length / math.sqrt(2.0)) - density


def _inverted(cumulative: Tensor, angles: Tensor, wanted: Tensor) -> Tensor:
    """Return the angles at which a rising cumulative probability has wanted values, by lines between its points."""
    place = torch.searchsorted(cumulative, wanted).clamp(1, len(cumulative) - 1)
    low, high = cumulative[place - 1], cumulative[place]
    share = ((wanted - low) / (high - low).clamp(min=1e-300)).clamp(0.0, 1.0)
    return angles[place - 1] + share * (angles[place] - angles[place - 1])


@lru_cache(maxsize=8)
def _tables(first: float, last: float) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Return angles by length of normals, (n_levels, n_lengths) [rad], and mean square scores, (n_levels,) [rad^-2]."""
    levels = torch.linspace(math.log(first), math.log(last), _N_LEVELS, dtype=torch.float64).exp()
    wanted, rows, squares = _cumulative_of_lengths(), [], []
    for level in levels:
        furthest = min(math.pi, float(level) * (_LONGEST + 2.0))
        angles = torch.linspace(0.0, furthest, _N_ANGLES, dtype=torch.float64)
        density = log_density(angles, level.expand_as(angles)).exp() * (1.0 - torch.cos(angles)) / math.pi
        slope = score_factor(angles, level.expand_as(angles)) * angles
        cumulative = torch.cat([torch.zeros(1, dtype=torch.float64), torch.cumulative_trapezoid(density, angles)])
        squares.append(torch.trapezoid(density * slope.square(), angles) / cumulative[-1])
        rows.append(_inverted(cumulative / cumulative[-1], angles, wanted))
    return torch.stack(rows), torch.stack(squares)


def _uniform_angles() -> Tensor:
    """Return angles of uniform rotations by length of normals, (n_lengths,) [rad]."""
    angles = torch.linspace(0.0, math.pi, _N_ANGLES, dtype=torch.float64)
    return _inverted((angles - torch.sin(angles)) / math.pi, angles, _cumulative_of_lengths())
