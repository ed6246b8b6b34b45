"""Diffusion of rotations and positions against densities, moments and scores that are known in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import nn

from openmm_latent.diffusion.rotations import (
    RotationDiffusion,
    log_density,
    rotation_matrices,
    rotation_vectors,
    score_factor,
)
from openmm_latent.diffusion.schedule import sampling_times
from openmm_latent.diffusion.translations import TranslationDiffusion, centred
from openmm_latent.errors import LatentError

ROTATIONS, TRANSLATIONS = RotationDiffusion(), TranslationDiffusion()
#: Two-sided: 1 in 15 000 false alarms a comparison; about 60 comparisons in this file.
N_DEVIATIONS = 4.0
ANGLES = torch.linspace(0.01, math.pi - 0.01, 120, dtype=torch.float64)


def normals(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def times(*values):
    return torch.tensor(values)


def time_of(level):
    """Return the diffusion time of a noise level [rad], (1,)."""
    first, last = math.exp(ROTATIONS.first), math.exp(ROTATIONS.last)
    return torch.tensor([(math.exp(level) - first) / (last - first)], dtype=torch.float64)


def characters(rotations, degree):
    """Return sin((l + 1/2) omega) / sin(omega / 2) of rotations (n, 3, 3), whose mean is known: (n,)."""
    angle = rotation_vectors(rotations.double()).norm(dim=-1).clamp(min=1e-6)
    return torch.sin((degree + 0.5) * angle) / torch.sin(0.5 * angle)


def deviations(values, expected):
    """Return how many standard errors the mean of independent values (n,) lies from what it should be."""
    return abs(float(values.mean()) - expected) / float(values.std() / math.sqrt(len(values)))


def expected_character(level, degree):
    return (2 * degree + 1) * math.exp(-0.5 * degree * (degree + 1) * level**2)


# ---- rotation vectors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-3, 1.0, 3.0, math.pi - 1e-7])
def test_vectors_and_matrices_are_inverse_up_to_half_a_turn(angle):
    axes = normals(50, 3).double()
    vectors = angle * axes / axes.norm(dim=1, keepdim=True)
    matrices = rotation_matrices(vectors)
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3).double().expand(50, 3, 3), atol=1e-12, rtol=0)
    torch.testing.assert_close(rotation_vectors(matrices), vectors, atol=1e-8, rtol=0)


def test_gradients_of_the_vectors_are_finite_everywhere():
    for angle in (0.0, 1e-8, 1.0, math.pi - 1e-6):
        turn = torch.tensor([[angle, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
        rotation_vectors(rotation_matrices(turn)).sum().backward()
        assert bool(torch.isfinite(turn.grad).all())


# ---- density and score -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.5, 1.0, 1.5, 3.0])
def test_density_is_the_series_over_characters(level):
    degrees = torch.arange(60, dtype=torch.float64)
    terms = torch.sin((degrees + 0.5) * ANGLES[:, None]) / torch.sin(0.5 * ANGLES[:, None])
    series = ((2 * degrees + 1) * torch.exp(-0.5 * degrees * (degrees + 1) * level**2) * terms).sum(dim=1)
    density = log_density(ANGLES, torch.full_like(ANGLES, level)).exp()
    torch.testing.assert_close(density, series, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("level", [0.1, 0.4, 1.5])
def test_density_is_normalised_and_small_noise_is_gaussian(level):
    fine = torch.linspace(0.0, math.pi, 20001, dtype=torch.float64)
    density = log_density(fine, torch.full_like(fine, level)).exp() * (1.0 - torch.cos(fine)) / math.pi
    assert abs(float(torch.trapezoid(density, fine)) - 1.0) < 1e-6
    near = torch.tensor([0.05], dtype=torch.float64)
    gaussian = -1.0 / level**2
    assert abs(float(score_factor(near, torch.full_like(near, level))) / gaussian - 1.0) < level**2


@pytest.mark.parametrize("level", [0.1, 0.5, 1.0, 1.5])
def test_score_is_the_slope_of_the_log_density(level):
    levels, step = torch.full_like(ANGLES, level), 1e-5
    slope = (log_density(ANGLES + step, levels) - log_density(ANGLES - step, levels)) / (2 * step)
    torch.testing.assert_close(score_factor(ANGLES, levels) * ANGLES, slope, atol=1e-5, rtol=1e-6)


def test_score_turns_with_nothing_and_points_home():
    clean, turn = rotation_matrices(normals(1, 6, 3)), rotation_matrices(normals(3, seed=3))
    noisy = ROTATIONS.noised(clean, normals(1, 6, 3, seed=2), times(0.3))
    score = ROTATIONS.score(noisy, clean, times(0.3))
    torch.testing.assert_close(ROTATIONS.score(turn @ noisy, turn @ clean, times(0.3)), score, atol=1e-4, rtol=1e-4)
    moved = noisy.double() @ rotation_matrices(1e-3 * score)

    def distance(a):
        return rotation_vectors(clean.double().mT @ a).norm(dim=-1)

    assert bool((distance(moved) < distance(noisy.double())).all())


# ---- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [0.01, 0.2, 0.6, 1.0])
def test_moments_of_the_noise_are_those_of_igso3(time):
    noised = ROTATIONS.noised(torch.eye(3).expand(1, 40_000, 3, 3), normals(1, 40_000, 3), times(time))[0]
    level = float(ROTATIONS.noise_level(times(time)))
    for degree in (1, 2, 3):
        values = characters(noised, degree)
        assert deviations(values, expected_character(level, degree)) < N_DEVIATIONS
    for row in range(3):
        for column in range(3):
            expected = math.exp(-(level**2)) if row == column else 0.0
            assert deviations(noised[:, row, column].double(), expected) < N_DEVIATIONS


def test_angles_follow_the_density_and_exponentials_of_normals_do_not():
    n, level = 40_000, ROTATIONS.last
    fine = torch.linspace(0.0, math.pi, 20001, dtype=torch.float64)
    density = log_density(fine, torch.full_like(fine, level)).exp() * (1.0 - torch.cos(fine)) / math.pi
    cumulative = torch.cat([torch.zeros(1).double(), torch.cumulative_trapezoid(density, fine)])

    def p_value(vectors):
        return kstest(vectors.norm(dim=-1).numpy(), lambda x: np.interp(x, fine, cumulative)).pvalue

    drawn = normals(1, n, 3)
    assert p_value(ROTATIONS.noise(drawn, times(1.0))[0]) > 1e-4  # the rate of false alarms
    naive = rotation_vectors(rotation_matrices(level * drawn[0].double()))
    assert p_value(naive) < 1e-12


def test_uniform_rotations_are_uniform():
    drawn = ROTATIONS.uniform(normals(1, 40_000, 3))[0]
    for degree in (1, 2, 3):
        assert deviations(characters(drawn, degree), 0.0) < N_DEVIATIONS
    assert (
        deviations(
            ROTATIONS.noised(torch.eye(3).expand(1, 40_000, 3, 3), normals(1, 40_000, 3), times(1.0))[0, :, 0, 0], 0.0
        )
        > 20
    )


def test_mean_square_of_the_score_is_what_draws_have():
    for time in (0.05, 0.5, 1.0):
        turned = ROTATIONS.noised(torch.eye(3).double().expand(1, 20_000, 3, 3), normals(1, 20_000, 3), times(time))
        squares = ROTATIONS.score(turned, torch.eye(3).double().expand_as(turned), times(time))[0].square().sum(-1)
        assert deviations(squares, float(ROTATIONS.mean_square_score(times(time)))) < N_DEVIATIONS


# ---- reverse diffusion of rotations ----------------------------------------------------------------------------------

WIDTH, N_DRAWN = 0.6, 20_000  # of the target, IGSO(3) about the identity, which has IGSO(3) as all its marginals


def sampled(n_steps, score_scale=1.0, noise_scale=1.0):
    """Draw from IGSO(3)(sqrt(WIDTH² + least²)) by its own scores: (n_drawn, 3, 3), double precision."""
    path = sampling_times(n_steps).double()
    last = math.sqrt(WIDTH**2 + ROTATIONS.last**2)
    start = RotationDiffusion(0.1, last)
    generator = torch.Generator().manual_seed(5)
    moved = start.noised(
        torch.eye(3).double().expand(1, N_DRAWN, 3, 3),
        torch.randn(1, N_DRAWN, 3, generator=generator),
        times(1.0),
    )
    for now, then in zip(path[:-1].view(-1, 1), path[1:].view(-1, 1), strict=True):
        vectors = rotation_vectors(moved)
        level = (ROTATIONS.noise_level(now).square() + WIDTH**2).sqrt()
        angle = vectors.norm(dim=-1)
        score = score_scale * score_factor(angle, level.expand_as(angle)).unsqueeze(-1) * vectors
        drawn = noise_scale * torch.randn(1, N_DRAWN, 3, generator=generator)
        moved = ROTATIONS.step_along(moved, score, now, then, drawn)
    return moved[0]


def off_target(rotations):
    """Return the largest deviation from the target's first three characters, as a share of what a uniform one has."""
    level = math.sqrt(WIDTH**2 + float(ROTATIONS.noise_level(times(0.01))) ** 2)
    return max(
        abs(float(characters(rotations, degree).mean()) - expected_character(level, degree))
        / expected_character(level, degree)
        for degree in (1, 2, 3)
    )


def test_reverse_diffusion_meets_its_target_and_wrong_ones_do_not():
    """A character's standard error is at most 2 % here, and 200 steps leave 1 %: one false alarm in 10^5 or fewer."""
    assert off_target(sampled(200)) < 0.1
    assert off_target(sampled(200, score_scale=0.7)) > 0.2
    assert off_target(sampled(200, noise_scale=0.0)) > 0.2


@pytest.mark.parametrize("n_steps", [12, 20, 100])
def test_a_single_clean_rotation_is_met_with_any_number_of_steps(n_steps):
    clean = rotation_matrices(normals(1, 4000, 3).double())
    moved = ROTATIONS.uniform(normals(1, 4000, 3, seed=2).double())
    path = sampling_times(n_steps).double()
    for number, (now, then) in enumerate(zip(path[:-1].view(-1, 1), path[1:].view(-1, 1), strict=True)):
        moved = ROTATIONS.reverse_step(moved, clean, now, then, normals(1, 4000, 3, seed=10 + number))
    left = rotation_vectors(clean.mT @ moved)[0]
    level = float(ROTATIONS.noise_level(times(0.01)))
    # the noise of the least time is left: within 10 %, ten standard errors
    assert abs(float(left.square().mean().sqrt()) / level - 1.0) < 0.1


# ---- positions -------------------------------------------------------------------------------------------------------

MEAN, DEVIATION = 0.3, 0.4


def sampled_moments(n_steps):
    """Return mean and deviation of what steps back make of a Gaussian's scores, without drawing: they are linear."""
    path = sampling_times(n_steps).double()
    noise = torch.cat([torch.zeros(1, n_steps + 1), torch.eye(n_steps + 1)]).double()
    moved = noise[:, :1]
    for number, (now, then) in enumerate(zip(path[:-1].view(-1, 1), path[1:].view(-1, 1), strict=True)):
        signal = TRANSLATIONS.signal(now)
        variance = signal * DEVIATION**2 + 1.0 - signal
        clean = MEAN + signal.sqrt() * DEVIATION**2 / variance * (moved - signal.sqrt() * MEAN)
        every = now.expand(len(moved)), then.expand(len(moved))
        moved = TRANSLATIONS.reverse_step(moved, clean, *every, noise[:, number + 1 : number + 2])
    return float(moved[0]), float((moved[1:] - moved[0]).square().sum().sqrt())


def test_steps_back_give_a_gaussian_its_moments():
    signal = float(TRANSLATIONS.signal(times(0.01)))
    expected = math.sqrt(signal) * MEAN, math.sqrt(signal * DEVIATION**2 + 1.0 - signal)
    errors = []
    for n_steps in (20, 50, 200):
        mean, deviation = sampled_moments(n_steps)
        assert abs(mean - expected[0]) < 2e-3
        errors.append(abs(deviation / expected[1] - 1.0))
    assert errors[2] < errors[1] < errors[0] < 0.1
    assert errors[2] < 0.011


def test_noise_of_positions_has_its_variance():
    clean = torch.full((1, 40_000), MEAN)
    noised = TRANSLATIONS.noised(clean, normals(1, 40_000), times(0.3))[0].double()
    signal = float(TRANSLATIONS.signal(times(0.3)))
    assert signal == pytest.approx(math.exp(-(0.1 * 0.3 + 0.5 * 19.9 * 0.09)))
    assert deviations(noised, math.sqrt(signal) * MEAN) < N_DEVIATIONS
    assert deviations((noised - math.sqrt(signal) * MEAN).square(), 1.0 - signal) < N_DEVIATIONS


def test_centred_positions_have_no_mean_over_the_residues_that_count():
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    values = centred(normals(2, 4, 3), mask)
    torch.testing.assert_close(values.sum(dim=1), torch.zeros(2, 3), atol=1e-6, rtol=0)
    assert not bool(values[~mask].any())


# ---- what a module of the contract needs -----------------------------------------------------------------------------


class Steps(nn.Module):
    """All that sampling uses, for export."""

    def __init__(self):
        super().__init__()
        self.rotations, self.translations = ROTATIONS, TRANSLATIONS

    def forward(self, clean, positions, noise):
        now, then = torch.full((len(clean),), 0.4), torch.full((len(clean),), 0.3)
        turned = self.rotations.noised(clean, noise[..., :3], now)
        turned = self.rotations.reverse_step(turned, self.rotations.uniform(noise[..., 3:]), now, then, noise[..., :3])
        moved = self.translations.noised(positions, noise[..., 3:], now)
        return turned, self.translations.reverse_step(moved, positions, now, then, noise[..., :3])


def test_scripted_is_eager_and_nothing_given_is_changed():
    given = rotation_matrices(normals(2, 7, 3)), normals(2, 7, 3, seed=2), normals(2, 7, 6, seed=3)
    before = [one.clone() for one in given]
    eager, scripted = Steps()(*given), torch.jit.script(Steps())(*given)
    for one, other in zip(eager, scripted, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    assert all(torch.equal(one, other) for one, other in zip(given, before, strict=True))
    alone = [Steps()(*(one[1:] for one in given))[k] for k in range(2)]
    for one, other in zip(alone, eager, strict=True):
        torch.testing.assert_close(one, other[1:], atol=1e-6, rtol=1e-6)


def test_bad_arguments_are_told():
    with pytest.raises(LatentError, match="sigma_first and sigma_last must rise between 0 and 3 rad, got 1 and"):
        RotationDiffusion(1, 0.5)
    with pytest.raises(LatentError, match="beta_first and beta_last must be positive and rise, got 2 and 1"):
        TranslationDiffusion(2, 1)
    with pytest.raises(LatentError, match="n_steps must be at least 1 and least lie within"):
        sampling_times(0)
    for kind in (RotationDiffusion, TranslationDiffusion):
        with pytest.raises(LatentError, match="randomness must lie between 0 and 1, got 2"):
            kind(randomness=2)
    assert sampling_times(2, 0.2).tolist() == pytest.approx([1.0, 0.4, 0.2])
