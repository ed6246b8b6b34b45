"""EDM against a Gaussian, whose denoiser and whose samplers' moments are known in closed form."""

from typing import List  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from openmm_latent import LatentError
from openmm_latent.diffusion.edm import EDM, EDMSampler, karras_levels

MEAN, WIDTH = 0.7, 0.4
N = 20_000


class GaussianDenoiser(nn.Module):
    """The mean of N(MEAN, WIDTH^2) given a noisy sample of it."""

    def forward(self, noisy: Tensor, noise_level: Tensor, context: List[Tensor]) -> Tensor:  # noqa: UP006
        """Return it, (b, n)."""
        signal, noise = 0.4**2, noise_level.view(-1, 1).square()
        return (signal * noisy + noise * 0.7) / (signal + noise)


def sampler(n_steps=24, **options):
    return EDMSampler(GaussianDenoiser(), karras_levels(n_steps, WIDTH, most=80.0), **options)


def drawn(walk, seed=1, n=N):
    noise = torch.randn(n, walk.n_draws, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return walk(noise, [])[:, 0].numpy()


def expected(walk):
    """Follow mean and variance through the steps, all of which are linear."""
    mean, variance = 0.0, walk.first**2
    for step in range(walk.n_steps):
        variance += walk.fresh[step] ** 2
        signal, noise = WIDTH**2, walk.stirred[step] ** 2
        slope, shift = signal / (signal + noise), noise * MEAN / (signal + noise)
        if step + 1 < walk.n_steps:
            change = walk.step_scale * (walk.after[step] - walk.stirred[step]) / walk.stirred[step]
            slope, shift = 1.0 + change * (1.0 - slope), -change * shift
        mean, variance = slope * mean + shift, slope**2 * variance
    return mean, np.sqrt(variance)


@pytest.mark.parametrize(
    "options",
    [
        {"noise_scale": 1.0, "step_scale": 1.0, "churn_above": 0.01},
        {"churn": 0.0, "noise_scale": 1.0, "step_scale": 1.0},
        {"churn_above": 0.01},  # as published
    ],
    ids=["sde", "ode", "sharpened"],
)
def test_samples_have_the_moments_of_the_closed_form(options):
    """Kolmogorov-Smirnov at a level of 1 in 1000, three times: false alarm 3 in 1000."""
    walk = sampler(**options)
    mean, width = expected(walk)
    assert stats.kstest(drawn(walk), stats.norm(mean, width).cdf).pvalue > 1e-3


def test_many_steps_give_the_data_and_the_step_scale_sharpens_them():
    sde = {"noise_scale": 1.0, "step_scale": 1.0, "churn_above": 0.001, "churn": 0.02}
    for options in (sde, {"churn": 0.0, "step_scale": 1.0}):
        mean, width = expected(sampler(1000, **options))
        assert abs(mean - MEAN) < 0.012  # the first level still tells 0 from the mean: 0.7 x 0.4 / 32
        assert abs(width / WIDTH - 1.0) < 0.02
    assert expected(sampler(200))[1] < 0.85 * WIDTH


def test_a_wrong_denoiser_fails_the_moments():
    class Biased(GaussianDenoiser):
        def forward(self, noisy, noise_level, context):
            return 1.03 * super().forward(noisy, noise_level, context)

    walk = sampler(noise_scale=1.0, step_scale=1.0)
    walk.denoiser = Biased()
    mean, width = expected(walk)
    assert stats.kstest(drawn(walk), stats.norm(mean, width).cdf).pvalue < 1e-6


def test_the_differential_equation_takes_no_fresh_noise_and_is_deterministic():
    ode, sde = sampler(churn=0.0), sampler(churn_above=0.1)
    assert ode.n_draws == 1
    levels = karras_levels(24, WIDTH, most=80.0)[:-1]
    assert sde.n_draws == 1 + int((levels > 0.1).sum()) < 25
    start = torch.linspace(-2, 2, 7).view(7, 1, 1)
    first, second = ode(start, []), ode(start, [])
    assert torch.equal(first, second)
    assert bool((first[1:] > first[:-1]).all())  # a flow keeps the order of what it moves


def test_levels_fall_from_the_most_to_the_least_and_then_to_zero():
    levels = karras_levels(200, 1.6)
    assert levels.shape == (201,)
    assert levels[0].item() == pytest.approx(256.0)
    assert levels[-2].item() == pytest.approx(6.4e-4)
    assert levels[-1].item() == 0.0
    assert bool((levels[1:] < levels[:-1]).all())


def test_preconditioning_gives_the_network_unit_variance_in_and_out():
    """Moments of 200 000 numbers to 2 %, six standard errors and more."""
    edm = EDM(0.4)
    generator = torch.Generator().manual_seed(3)
    for level in (0.01, 0.4, 30.0):
        clean = 0.4 * torch.randn(200_000, generator=generator)
        levels = torch.full_like(clean, level)
        noisy = clean + level * torch.randn(200_000, generator=generator)
        assert float(edm.scaled(noisy, levels).var()) == pytest.approx(1.0, rel=0.02)
        nothing = torch.zeros_like(clean)
        out = edm.denoised(nothing, torch.ones_like(clean), levels)
        target = (clean - edm.denoised(noisy, nothing, levels)) / out
        assert float(target.var()) == pytest.approx(1.0, rel=0.02)
        assert float(edm.weight(levels)[0] * out[0].square()) == pytest.approx(1.0, rel=1e-5)
    logs = torch.log(edm.training_level(torch.randn(200_000, generator=generator)) / 0.4)
    assert (float(logs.mean()), float(logs.std())) == (pytest.approx(-1.2, abs=0.02), pytest.approx(1.5, abs=0.02))


def test_scripted_is_eager():
    walk = sampler(8)
    noise = torch.randn(5, walk.n_draws, 1, generator=torch.Generator().manual_seed(1))
    kept = noise.clone()
    torch.testing.assert_close(torch.jit.script(walk)(noise, []), walk(noise, []), rtol=1e-6, atol=1e-7)
    assert torch.equal(noise, kept)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(LatentError, match=r"data_scale and log_std must be positive, got 0 and 1.5"):
        EDM(0)
    with pytest.raises(LatentError, match=r"n_steps must be at least 2.*got 1, 1.6"):
        karras_levels(1, 1.6)
    with pytest.raises(LatentError, match="levels must fall to zero in at least two steps"):
        EDMSampler(GaussianDenoiser(), torch.tensor([3.0, 2.0, 1.0]))
    with pytest.raises(LatentError, match="churn must not be negative"):
        sampler(churn=-1.0)
