"""Cheap samplers against their moments."""

import numpy as np

from openmm_latent import metrics


def test_product_of_marginals_keeps_marginals_and_drops_coupling():
    random = np.random.default_rng(4)
    one = random.choice([-1.0, 1.0], 20_000)
    drawn = metrics.product_of_marginals(np.stack([one, one], axis=1), 20_000, seed=1)
    # Standard error 0.007: five of them.
    assert abs(drawn.mean(axis=0)).max() < 0.035
    assert abs((drawn[:, 0] * drawn[:, 1]).mean()) < 0.035


def test_cartesian_gaussian_has_the_moments_of_the_superposed_frames():
    random = np.random.default_rng(5)
    structure = random.standard_normal((5, 3))
    frames = structure + 0.1 * random.standard_normal((3000, 5, 3)) * random.uniform(0.5, 2, (5, 3))
    fitted = metrics.superpose(frames, structure).reshape(3000, -1)
    drawn = metrics.cartesian_gaussian(frames, structure, 60_000, seed=1).reshape(60_000, -1)
    assert np.allclose(drawn.mean(axis=0), fitted.mean(axis=0), atol=5 * 0.2 / np.sqrt(60_000))
    assert np.allclose(np.cov(drawn.T), np.cov(fitted.T), atol=5 * 0.04 * np.sqrt(2 / 60_000))


def test_cartesian_gaussian_of_fewer_frames_than_coordinates():
    """Oracle: np.cov of the frames. Standard errors are about 1.5 % of a variance; the bound is seven of them."""
    random = np.random.default_rng(6)
    structure = random.standard_normal((10, 3))
    frames = metrics.superpose(structure + 0.1 * random.standard_normal((12, 10, 3)), structure)
    drawn = metrics.cartesian_gaussian(frames, structure, 10_000, seed=1).reshape(10_000, -1)
    expected = np.cov(frames.reshape(12, -1).T)
    assert np.allclose(drawn.mean(axis=0), frames.reshape(12, -1).mean(axis=0), atol=5 * 0.1 / 100)
    assert np.allclose(np.cov(drawn.T), expected, atol=0.1 * expected.max())


def test_a_gaussian_keeps_fluctuations_and_fails_the_coordinate_jsd():
    """A cheat: the Gaussian of a two-state ensemble has its RMSF, and none of its states."""
    random = np.random.default_rng(7)
    structure = random.standard_normal((8, 3))
    state = random.choice([-1.0, 1.0], 4000)
    frames = structure + 0.02 * random.standard_normal((4000, 8, 3))
    frames[:, 0] += 0.2 * state[:, None]
    frames = metrics.superpose(frames, structure)
    drawn = metrics.cartesian_gaussian(frames, structure, 4000, seed=1)
    assert metrics.rmwd(drawn, frames, None)["variance"] < 0.02 * metrics.rmsf(frames, None).max()
    floor = metrics.halves_floor(lambda a, b: metrics.coordinate_jsd(a, b, None), frames)
    assert metrics.coordinate_jsd(drawn, frames, None) > 5 * floor
