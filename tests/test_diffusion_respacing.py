"""Diffusion in discrete time against a Gaussian, whose noise, variance of each step and moments are known."""

import math

import pytest
import torch
from torch import nn

from openmm_latent.diffusion.gaussian_diffusion import BOUND_WEIGHT, AncestralSampler, GaussianDiffusion
from openmm_latent.diffusion.respacing import respaced_levels, respaced_signals
from openmm_latent.diffusion.schedule import linear_signal_levels
from openmm_latent.errors import LatentError

MEAN, DEVIATION = 0.7, 0.4


class GaussianDenoiser(nn.Module):
    """The best denoiser of numbers drawn from N(MEAN, DEVIATION²), in closed form."""

    def __init__(self, diffusion: GaussianDiffusion):
        super().__init__()
        self.diffusion = diffusion

    def share(self, step):
        """Return where between its bounds the logarithm of the true backward variance lies, (b,)."""
        of = self.diffusion
        signal, noise = of.signal_root[step].double() ** 2, of.noise_root[step].double() ** 2
        left = DEVIATION**2 * noise / (signal * DEVIATION**2 + noise)  # variance of clean given noisy
        variance = of.log_least[step].double().exp() + of.clean_weight[step].double() ** 2 * left
        return (variance.log() - of.log_least[step]) / (of.log_most[step] - of.log_least[step])

    def forward(self, noisy, diffusion_time, context):
        step = (self.diffusion.diffusion_times[None] - diffusion_time[:, None]).abs().argmin(dim=1)
        signal_root, noise_root = self.diffusion.signal_root[step], self.diffusion.noise_root[step]
        score_variance = signal_root**2 * DEVIATION**2 + noise_root**2
        normals = (noise_root / score_variance).view(-1, 1, 1) * (noisy - signal_root.view(-1, 1, 1) * MEAN)
        fraction = (2.0 * self.share(step) - 1.0).float().view(-1, 1, 1).expand_as(normals)
        return torch.cat([normals, fraction], dim=-1)


def sampled_moments(diffusion, denoiser=None):
    """Return mean and variance of what the sampler draws, without drawing: it is linear in its noise."""
    sampler = AncestralSampler(GaussianDenoiser(diffusion) if denoiser is None else denoiser, diffusion)
    noise = torch.cat([torch.zeros(1, sampler.n_draws), torch.eye(sampler.n_draws)])
    drawn = sampler(noise.view(-1, sampler.n_draws, 1, 1), []).flatten().double()
    return float(drawn[0]), float((drawn[1:] - drawn[0]).square().sum())


# ---- sampler ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_steps", [10, 100, 300])
def test_moments_of_a_gaussian_are_right_however_many_steps(n_steps):
    mean, variance = sampled_moments(GaussianDiffusion(1000, n_steps))
    assert abs(mean - MEAN) < 5e-4
    # the last step takes the mean: that leaves out a variance of 1e-4
    assert abs(variance - DEVIATION**2) < 3e-4


def test_the_variance_of_the_steps_is_what_makes_few_steps_right():
    diffusion = GaussianDiffusion(1000, 10)
    exact = GaussianDenoiser(diffusion)

    class Least(nn.Module):
        def forward(self, noisy, diffusion_time, context):
            normals = exact(noisy, diffusion_time, context)[..., :1]
            return torch.cat([normals, torch.full_like(normals, -1.0)], dim=-1)

    mean, variance = sampled_moments(diffusion, Least())
    assert abs(mean - MEAN) < 1e-3
    assert variance < 0.95 * DEVIATION**2


def test_samples_stay_within_the_bound():
    class Wrong(nn.Module):
        def forward(self, noisy, diffusion_time, context):
            return torch.cat([-noisy, torch.zeros_like(noisy)], dim=-1)

    sampler = AncestralSampler(Wrong(), GaussianDiffusion(1000, 20, bound=3.0))
    drawn = sampler(torch.randn(50, 20, 4, 1, generator=torch.Generator().manual_seed(1)), [])
    assert float(drawn.abs().max()) <= 3.0 + 1e-6


def test_scripted_sampler_is_the_eager_one():
    class Linear(nn.Module):
        def forward(self, noisy: torch.Tensor, diffusion_time: torch.Tensor, context: list[torch.Tensor]):
            noise = 0.5 * noisy * diffusion_time.view(-1, 1, 1) + context[0]
            return torch.cat([noise, 0.1 * noisy], dim=-1)

    sampler = AncestralSampler(Linear(), GaussianDiffusion(1000, 7))
    noise = torch.randn(3, 7, 5, 2, generator=torch.Generator().manual_seed(1))
    context = [torch.ones(3, 1, 2)]
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        scripted = torch.jit.script(sampler)
    torch.testing.assert_close(scripted(noise, context), sampler(noise, context), atol=1e-6, rtol=1e-6)


# ---- respacing -------------------------------------------------------------------------------------------------------


def test_all_levels_kept_are_the_full_process():
    signals = linear_signal_levels(50, 1e-3, 0.2, torch.float64)
    levels, kept, betas = respaced_signals(signals, 50)
    assert levels.tolist() == list(range(50))
    torch.testing.assert_close(kept, signals)
    torch.testing.assert_close(betas, torch.linspace(1e-3, 0.2, 50, dtype=torch.float64))


def test_one_step_goes_from_noise_to_what_the_network_says_at_the_last_level():
    diffusion = GaussianDiffusion(1000, 1)
    noise = torch.randn(4, 1, 2, 1, generator=torch.Generator().manual_seed(1))
    denoiser = GaussianDenoiser(diffusion)
    denoiser.share = lambda step: torch.zeros(len(step))  # unused: nothing is drawn in the last step
    drawn = AncestralSampler(denoiser, diffusion)(noise, [])
    told = denoiser(noise[:, 0], torch.full((4,), 0.999), [])[..., :1]
    torch.testing.assert_close(drawn, diffusion.cleaned(noise[:, 0], told, torch.zeros(4, dtype=torch.long)))


def test_a_respaced_process_has_the_noise_of_the_full_one_at_the_levels_it_visits():
    full, few = GaussianDiffusion(1000), GaussianDiffusion(1000, 100)
    levels = respaced_levels(1000, 100)
    assert (levels[0], levels[-1], len(levels)) == (0, 999, 100)
    assert bool((levels.diff() > 0).all())
    clean, normals = torch.randn(2, 100, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(few.noised(clean, normals, torch.arange(100)), full.noised(clean, normals, levels))


def test_steps_out_of_range_are_refused():
    with pytest.raises(LatentError, match=r"n_steps must lie between 1 and the n_levels=10 .*, got 11; 100 of 1000"):
        GaussianDiffusion(10, 11)
    with pytest.raises(LatentError, match="bound must be positive, got 0"):
        GaussianDiffusion(10, bound=0)


# ---- loss ------------------------------------------------------------------------------------------------------------


def batch_of_gaussian(n, n_levels, seed=1):
    """Return clean numbers, normals (n, 1, 1) and steps (n,)."""
    generator = torch.Generator().manual_seed(seed)
    clean = MEAN + DEVIATION * torch.randn(n, 1, 1, generator=generator)
    normals = torch.randn(n, 1, 1, generator=generator)
    return clean, normals, torch.randint(n_levels, (n,), generator=generator)


def test_noise_comes_out_as_it_went_in():
    diffusion = GaussianDiffusion(200)
    clean, normals, step = batch_of_gaussian(50, 200)
    torch.testing.assert_close(
        diffusion.cleaned(diffusion.noised(clean, normals, step), normals, step), clean, atol=1e-3, rtol=1e-3
    )


def test_loss_of_one_number_by_hand():
    """Three levels with signals 0.9, 0.72 and 0.36: betas 0.1, 0.2 and 0.5."""
    diffusion = GaussianDiffusion(3)
    signal, before, beta = 0.36, 0.72, 0.5
    least = beta * (1 - before) / (1 - signal)
    for name, values in {
        "signal_root": [0.9**0.5, 0.72**0.5, 0.6],
        "noise_root": [0.1**0.5, 0.28**0.5, 0.8],
        "clean_weight": [1.0, 0.0, before**0.5 * beta / (1 - signal)],
        "noisy_weight": [0.0, 0.0, (1 - beta) ** 0.5 * (1 - before) / (1 - signal)],
        "log_least": [-3.0, -2.0, math.log(least)],
        "log_most": [-2.5, -1.5, math.log(beta)],
    }.items():
        setattr(diffusion, name, torch.tensor(values))
    clean, normals, told, v = 1.5, -0.3, 0.2, 0.4
    noisy = 0.6 * clean + 0.8 * normals
    guess = (noisy - 0.8 * told) / 0.6
    variance = least * (beta / least) ** (0.5 + 0.5 * v)
    gap = (before**0.5 * beta / (1 - signal) * (clean - guess)) ** 2 / variance
    bound = 0.5 * (math.log(variance / least) - 1 + least / variance + gap)
    loss = diffusion.hybrid_loss(
        torch.tensor([[[told, v]]]), torch.tensor([[[clean]]]), torch.tensor([[[normals]]]), torch.tensor([2])
    )
    assert float(loss) == pytest.approx((told - normals) ** 2 + BOUND_WEIGHT * 3 * bound, rel=1e-5)
    loss = diffusion.hybrid_loss(
        torch.tensor([[[told, v]]]), torch.tensor([[[clean]]]), torch.tensor([[[normals]]]), torch.tensor([0])
    )
    noisy = 0.9**0.5 * clean + 0.1**0.5 * normals
    guess = (noisy - 0.1**0.5 * told) / 0.9**0.5
    log_variance = -3.0 + 0.5 * 0.7
    density = 0.5 * ((clean - guess) ** 2 * math.exp(-log_variance) + log_variance + math.log(2 * math.pi))
    assert float(loss) == pytest.approx((told - normals) ** 2 + BOUND_WEIGHT * 3 * density, rel=1e-5)


def test_the_bound_teaches_the_variance_alone():
    diffusion = GaussianDiffusion(100)
    clean, normals, step = batch_of_gaussian(20, 100)
    output = torch.full((20, 1, 2), 0.1, requires_grad=True)
    (slope,) = torch.autograd.grad(diffusion.hybrid_loss(output, clean, normals, step).sum(), output)
    torch.testing.assert_close(slope[..., :1], 2.0 * (0.1 - normals))
    assert bool((slope[..., 1] != 0).all())


@pytest.mark.parametrize("level", [2, 5, 10])
def test_the_bound_is_least_at_the_true_variance(level):
    """100 000 draws tell ln of the variance to 0.0045, its bounds are 0.18 apart; false alarm: 1 in 100."""
    diffusion = GaussianDiffusion(100, beta_first=1e-3, beta_last=0.2)
    exact = GaussianDenoiser(diffusion)
    clean, normals, step = batch_of_gaussian(100_000, 100)
    step = torch.full_like(step, level)
    output = exact(diffusion.noised(clean, normals, step), diffusion.diffusion_times[step], [])
    shares = torch.linspace(0, 1, 51)
    losses = []
    for share in shares:
        told = torch.cat([output[..., :1], torch.full_like(clean, 2 * float(share) - 1)], dim=-1)
        losses.append(float(diffusion.hybrid_loss(told, clean, normals, step).double().mean()))
    best = float(shares[torch.tensor(losses, dtype=torch.float64).argmin()])
    assert abs(best - float(exact.share(step[:1]))) < 0.075
