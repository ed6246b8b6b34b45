"""Each propagator against an Ornstein-Uhlenbeck system, and the promises all of them make."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from openmm_latent.errors import LatentError
from openmm_latent.propagators import autoregressive, koopman, langevin
from openmm_latent.propagators.fitting import gaussian_mixture, kinetic_axes, lagged_pairs, split_validation
from openmm_latent.propagators.slow import fit_slow, leading_torsions
from ornstein_uhlenbeck import COVARIANCE, DECAY, MIXING, ou_log_density, ou_segments

SMALL_AUTOREGRESSIVE = dataclasses.replace(
    autoregressive.CONFIGS["tiny"], n_hidden=32, n_components=4, n_epochs=20, batch_size=512
)
SMALL_RESIDUAL = dataclasses.replace(
    autoregressive.CONFIGS["paper"], n_hidden=32, n_epochs=4, batch_size=512, learning_rate=1e-3, dropout=0.0
)
SMALL_LANGEVIN = dataclasses.replace(
    langevin.CONFIGS["tiny"], n_hidden=64, n_epochs=12, sigmas=(0.3,), max_substeps=40, averaging=0.99
)


@pytest.fixture(scope="module")
def segments():
    return ou_segments(n_segments=10, n_frames=3000, seed=1)


@pytest.fixture(scope="module")
def fitted(segments):
    """Every propagator, by name, fitted once to one lag of two frames."""
    torch.set_num_threads(1)
    return {
        "mixture": autoregressive.fit_autoregressive(segments, 2, SMALL_AUTOREGRESSIVE, seed=1),
        "residual": autoregressive.fit_autoregressive(segments, 2, SMALL_RESIDUAL, seed=1),
        "koopman": koopman.fit_koopman(segments, 2, koopman.KoopmanConfig(n_layers=2), seed=1),
        "linear": koopman.fit_koopman(segments, 2, koopman.CONFIGS["paper"], seed=1),
        "langevin": langevin.fit_langevin(segments, 2, SMALL_LANGEVIN, seed=1),
    }


NAMES = ["mixture", "residual", "koopman", "linear", "langevin"]


def rollout(module, n_walkers, n_steps, seed):
    """Return (n_steps, n_walkers, n_latent) after a burn-in of 40 steps."""
    generator = torch.Generator().manual_seed(seed)
    latent, frames = torch.zeros(n_walkers, module.n_latent), []
    with torch.no_grad():
        for _ in range(40 + n_steps):
            latent = module(latent, torch.randn(n_walkers, module.n_noise, generator=generator))
            frames.append(latent)
    return torch.stack(frames[40:]).double().numpy()


@pytest.mark.parametrize("name", NAMES)
def test_rollout_keeps_moments_and_timescales(fitted, name):
    # 1000 walkers x 60 steps, slowest memory 5 steps: about 6 000 independent frames, so a variance has a standard
    # error of 2 %, and the fit's own (30 000 frames, 1 500 independent) of 4 %. 20 % is above four of their sum. For
    # Langevin, whose score is learned and whose substeps are whole numbers: 30 %.
    frames = rollout(fitted[name], 1000, 60, seed=2)
    flat = frames.reshape(-1, 3)
    loose = 0.3 if name == "langevin" else 0.2
    scale = np.sqrt(np.outer(np.diag(COVARIANCE), np.diag(COVARIANCE)))
    assert np.abs(flat.mean(axis=0) / np.sqrt(np.diag(COVARIANCE))).max() < 0.2
    assert np.abs((np.cov(flat.T) - COVARIANCE) / scale).max() < loose
    series = frames @ np.linalg.inv(MIXING)[0]
    memory = np.corrcoef(series[:-1].ravel(), series[1:].ravel())[0, 1]
    assert np.isclose(memory, DECAY[0] ** 2, atol=0.06)


@pytest.mark.parametrize("name", ["mixture", "residual", "koopman", "linear"])
def test_log_density_is_that_of_the_exact_kernel(fitted, name):
    # Mean gap of ln p over data is the Kullback-Leibler divergence of the fit, at least 0 up to noise.
    now, later = lagged_pairs(ou_segments(4, 2000, seed=7), 2)
    with torch.no_grad():
        found = fitted[name].log_density(later, now).double().numpy()
    exact = ou_log_density(later.double().numpy(), now.double().numpy(), 2)
    assert -0.02 < (exact - found).mean() < 0.08


@pytest.mark.parametrize("name", ["mixture", "koopman"])
def test_samples_follow_log_density(fitted, name):
    # E[p(x) / q(x)] over x ~ p of a wide normal q... turned round: the mean of q(x) / p(x) over samples of p is 1.
    module = fitted[name]
    now = torch.tensor([[0.5, -1.0, 0.3]]).expand(40_000, -1)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        later = module(now, torch.randn(len(now), module.n_noise, generator=generator))
        log_p = module.log_density(later, now).double().numpy()
    draws = later.double().numpy()
    q = multivariate_normal(draws.mean(axis=0), 0.25 * np.cov(draws.T))
    ratio = np.exp(q.logpdf(draws) - log_p)
    # Five standard errors: false alarm below 1e-6.
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(len(ratio)) + 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_scripted_batched_and_repeated_calls_agree(fitted, name):
    module = fitted[name]
    scripted = torch.jit.script(module)
    generator = torch.Generator().manual_seed(4)
    latent = torch.randn(7, 3, generator=generator)
    noise = torch.randn(7, module.n_noise, generator=generator)
    kept_latent, kept_noise = latent.clone(), noise.clone()
    with torch.no_grad():
        eager = module(latent, noise)
        assert eager.shape == (7, 3)
        assert eager.dtype == torch.float32
        assert torch.equal(eager, module(latent, noise))
        assert torch.allclose(eager, scripted(latent, noise), atol=1e-5)
        single = torch.cat([module(latent[k : k + 1], noise[k : k + 1]) for k in range(7)])
    assert torch.allclose(eager, single, atol=1e-4)
    assert torch.equal(latent, kept_latent)
    assert torch.equal(noise, kept_noise)


@pytest.mark.parametrize("name", NAMES)
def test_rollouts_from_far_away_stay_finite_and_return(fitted, name):
    module = fitted[name]
    latent = torch.full((50, 3), 1e4)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _ in range(60):
            latent = module(latent, torch.randn(50, module.n_noise, generator=generator))
    assert torch.isfinite(latent).all()
    assert latent.abs().max() < 12


def test_koopman_timescales_are_the_exact_ones(fitted):
    # 4 % standard error of the slowest timescale (as above): 15 %.
    expected = -2 / np.log(DECAY**2)
    assert np.allclose(fitted["linear"].timescales(2.0), expected, rtol=0.15)


def test_koopman_truncation_keeps_the_leading_directions(segments):
    module = koopman.fit_koopman(segments, 2, koopman.KoopmanConfig(rank=2, n_layers=0))
    assert np.linalg.matrix_rank(module.matrix.numpy(), tol=1e-5) == 2
    frames = rollout(module, 500, 40, seed=1).reshape(-1, 3)
    # The noise's covariance makes up for what truncation drops: the stationary covariance is kept (four errors of 4 %).
    assert np.allclose(np.cov(frames.T), COVARIANCE, atol=0.2 * COVARIANCE.max())


def test_koopman_layers_undo_themselves_and_know_their_slope(segments):
    data = [np.sinh(segment) for segment in segments]  # far from Gaussian
    module = koopman.fit_koopman(data, 2, koopman.KoopmanConfig(n_layers=3)).double()
    latent = torch.from_numpy(np.concatenate(data)[::100]).double()
    observed = module.observe(latent)
    back = observed
    for layer in module.reversed_layers:
        back = layer.inverse(back)
    # The rotations are orthogonal to float32 rounding.
    assert torch.allclose(back, latent, atol=1e-4, rtol=1e-5)
    assert np.allclose(observed.mean(0), 0, atol=0.2)
    assert np.allclose(observed.std(0), 1, atol=0.2)
    point = latent[3:4]
    jacobian = torch.autograd.functional.jacobian(lambda x: module.observe(x).squeeze(0), point).squeeze(1)
    total, value = torch.zeros(1, dtype=torch.float64), point
    for layer in module.layers:
        total = total + layer.log_slope(value)
        value = layer(value)
    assert torch.allclose(total, torch.linalg.slogdet(jacobian)[1], atol=1e-8)


class ExactScore(torch.nn.Module):
    """Noise prediction of standard normal data, zero beyond the Gaussian part of `Langevin.score`."""

    def forward(self, noisy, diffusion_time):
        return torch.zeros_like(noisy)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_langevin_samples_the_density_at_any_temperature(temperature):
    # Closed-form score of a standard normal: the chain x' = (1 - h) x + sqrt(2 h) e has variance 1 / (1 - h / 2).
    config = dataclasses.replace(langevin.CONFIGS["paper"], n_hidden=4, temperature=temperature)
    module = langevin.Langevin(2, config)
    module.network = ExactScore()
    module.set_level(signal=0.99, diffusion_time=0.0, time_step=0.02, n_substeps=50)
    generator = torch.Generator().manual_seed(1)
    latent = torch.zeros(20_000, 2)
    for _ in range(10):
        latent = module(latent, torch.randn(20_000, module.n_noise, generator=generator))
    # Standard error of the variance 0.7 % (40 000 samples): 4 %; starting at 0 has decayed to e^-10 (T = 0.5).
    assert np.isclose(latent.var(), 1 / (1 - 0.01 * temperature), rtol=0.04)
    density = module.log_density_substep(latent[:5], latent[5:10])
    drift = 0.02 * temperature
    expected = [
        multivariate_normal((1 - drift) * now, 2 * drift).logpdf(later)
        for later, now in zip(latent[:5].numpy(), latent[5:10].numpy(), strict=True)
    ]
    assert np.allclose(density, expected, atol=1e-3)


def test_langevin_posterior_reading_keeps_the_variance():
    # Data N(0, 1), exact score, posterior noise of the exact denoising error: the latent's variance stays 1.
    module = langevin.Langevin(1, dataclasses.replace(langevin.CONFIGS["tiny"], n_hidden=4))
    module.network = ExactScore()
    module.set_level(signal=0.8, diffusion_time=0.0, time_step=0.01, n_substeps=5)
    module.posterior_root.fill_(np.sqrt(0.2))
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(40_000, 1, generator=generator)
    for _ in range(30):
        latent = module(latent, torch.randn(40_000, module.n_noise, generator=generator))
    assert np.isclose(latent.var(), 1.0, rtol=0.04)  # five standard errors


def test_gaussian_mixture_finds_separate_clouds():
    random = np.random.default_rng(1)
    clouds = np.concatenate([random.normal(c, 0.3, (3000, 2)) for c in (-4, 0, 4)])
    weights, centres, roots = gaussian_mixture(torch.from_numpy(clouds), 3, seed=2)
    assert np.allclose(np.sort(centres[:, 0]), [-4, 0, 4], atol=0.05)
    assert np.allclose(weights, 1 / 3, atol=0.02)
    assert np.allclose(torch.diagonal(roots, dim1=1, dim2=2), 0.3, atol=0.03)


def test_slow_coordinates_of_the_linear_system(segments):
    mean, matrix = fit_slow(segments, 2, n_slow=2)
    joined = np.concatenate(segments)
    slow = (joined - mean) @ matrix.T
    assert matrix.shape == (2, 3)
    assert np.allclose(np.cov(slow.T), np.eye(2), atol=0.05)
    modes = joined @ np.linalg.inv(MIXING).T
    for k in range(2):
        assert abs(np.corrcoef(slow[:, k], modes[:, k])[0, 1]) > 0.97
    axes, memory = kinetic_axes(*lagged_pairs(segments, 2))
    assert np.allclose(memory, DECAY**2, atol=0.05)
    assert np.allclose(np.cov(axes.numpy() @ joined.T), np.eye(3), atol=0.05)
    with pytest.raises(LatentError, match="n_slow must lie between 1 and 3"):
        fit_slow(segments, 2, n_slow=4)


def test_vamp_finds_the_slow_coordinates_of_a_reversible_system_too(segments):
    joined = np.concatenate(segments)
    tica, vamp = (
        (joined - mean) @ matrix.T for mean, matrix in (fit_slow(segments, 2, 2, method=m) for m in ("tica", "vamp"))
    )
    for k in range(2):
        assert abs(np.corrcoef(tica[:, k], vamp[:, k])[0, 1]) > 0.99
    with pytest.raises(LatentError, match="method must be one of tica, vamp, got 'pca'"):
        fit_slow(segments, 2, method="pca")


def test_lag_is_shortened_until_every_slow_coordinate_remembers(segments):
    # memories of 0.9, 0.6, 0.2 a frame: at 16 frames the second, 3e-4, drowns in noise; at 2 it is 0.36
    assert np.allclose(fit_slow(segments, 16, 2, least_memory=0.2)[1], fit_slow(segments, 2, 2)[1])
    assert np.allclose(fit_slow(segments, 16, 1, least_memory=0.1)[1], fit_slow(segments, 16, 1)[1])
    assert not np.allclose(fit_slow(segments, 16, 2)[1], fit_slow(segments, 2, 2)[1], atol=0.05)


def test_pairs_never_cross_segments():
    segments = [np.arange(5.0)[:, None], 100 + np.arange(4.0)[:, None], 200 + np.arange(2.0)[:, None]]
    now, later = lagged_pairs(segments, 2)
    assert now.flatten().tolist() == [0, 1, 2, 100, 101]
    assert (later - now).flatten().tolist() == [2] * 5
    training, validation = split_validation(segments[:2], 0.2)
    assert [len(s) for s in training] == [4, 3]
    assert validation[0].tolist() == [[4.0]]


def test_mistakes_are_told_in_a_sentence(segments):
    with pytest.raises(LatentError, match="longer than lag_frames=5000"):
        koopman.fit_koopman(segments, 5000)
    broken = copy.deepcopy(segments[:1])
    broken[0][3, 1] = np.nan
    with pytest.raises(LatentError, match="segments must be finite"):
        koopman.fit_koopman(broken, 2)
    with pytest.raises(LatentError, match="trailing shapes"):
        lagged_pairs([np.zeros((5, 2)), np.zeros((5, 3))], 1)
    with pytest.raises(LatentError, match="noise must be one of residual, mixture"):
        autoregressive.Autoregressive(3, autoregressive.AutoregressiveConfig(noise="none"))
    with pytest.raises(LatentError, match="reading must be one of"):
        langevin.Langevin(3, langevin.LangevinConfig(reading="clean"))


def test_each_slow_mode_picks_the_torsion_that_makes_it_up():
    """Of three torsions the second moves slowest, the first less slowly, the third not at all."""
    random = np.random.default_rng(4)

    def two_states(rate):
        return np.where(np.cumsum(random.random(20_000) < rate) % 2 == 0, -1.2, 1.0)

    angles = np.stack([two_states(0.05), two_states(0.005), np.zeros(20_000)], axis=1)
    angles += 0.2 * random.standard_normal(angles.shape)
    features = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    _, matrix = fit_slow([features], 5, 2)
    assert leading_torsions([features], matrix).tolist() == [1, 0]
    with pytest.raises(LatentError, match=r"n_slow must not exceed the 3 torsions .* got 4"):
        leading_torsions([features], np.ones((4, 6)))
