"""Divergences against SciPy, closed forms and brute force."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from openmm_latent import geometry, metrics
from openmm_latent.errors import LatentError


def test_jsd_agrees_with_scipy_and_its_limits():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 9, 40), random.integers(0, 9, 40)
    assert np.isclose(metrics.jsd(a, b), jensenshannon(a, b) ** 2)
    assert np.isclose(metrics.jsd(a, 7 * a), 0.0)
    assert np.isclose(metrics.jsd([1, 0], [0, 5]), np.log(2))
    with pytest.raises(LatentError, match="counts must have the shape"):
        metrics.jsd([1, 2], [1, 2, 3])
    with pytest.raises(LatentError, match="counts must not be empty"):
        metrics.jsd([0, 0], [1, 2])


def test_torsion_scores_are_periodic_and_use_the_stated_bins():
    random = np.random.default_rng(1)
    angles = random.uniform(-np.pi, np.pi, (4000, 2))
    assert np.allclose(metrics.dihedral_jsd(angles, angles + 2 * np.pi), 0.0, atol=1e-3)
    assert metrics.ramachandran_counts(angles).shape == (50, 50)
    assert metrics.ramachandran_counts(angles).sum() == 4000
    corner = np.full((10, 2), [-3.1, 3.1])
    assert metrics.ramachandran_counts(corner)[0, 49] == 10
    assert np.isclose(metrics.ramachandran_jsd(corner, -corner), np.log(2))
    assert metrics.dihedral_jsd(corner, corner[::-1])[0] == 0.0
    with pytest.raises(LatentError, match=r"angles must have shape \(n_frames, 2\)"):
        metrics.ramachandran_counts(np.zeros((5, 3)))


def test_ramachandran_bias_of_independent_halves():
    # Two samples of N from K equal cells: expected JSD is (K - 1) / (4 N) nats to leading order; its spread here is
    # about 2 %, so 10 % is five standard deviations (false alarm below 1e-5).
    random = np.random.default_rng(2)
    floor = metrics.halves_floor(metrics.ramachandran_jsd, random.uniform(-np.pi, np.pi, (200_000, 2)))
    assert np.isclose(floor, (2500 - 1) / (4 * 100_000), rtol=0.1)


def test_coordinate_jsd_ignores_rigid_motion():
    random = np.random.default_rng(3)
    structure = random.standard_normal((6, 3))
    frames = structure + 0.05 * random.standard_normal((400, 6, 3))
    turned = frames @ np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]) + 4.0
    assert metrics.coordinate_jsd(turned, frames, structure) < 1e-6
    assert metrics.coordinate_jsd(frames[:1] + 0 * frames, frames, structure) > 0.3


def test_metrics_need_no_torch():
    # The package may import torch; these modules and what they stand on must not.
    for path in [Path(geometry.__file__), *Path(metrics.__file__).parent.glob("*.py")]:
        source = path.read_text(encoding="utf-8")
        assert "import torch" not in source
        assert "from torch" not in source


def test_coordinate_jsd_agrees_with_histograms_by_numpy():
    """Oracle: np.histogram and SciPy, coordinate by coordinate."""
    random = np.random.default_rng(1)
    first, second = random.normal(0.0, 1.0, (3000, 4, 3)), random.normal(0.2, 1.3, (2000, 4, 3))
    expected = []
    for a, b in zip(first.reshape(3000, -1).T, second.reshape(2000, -1).T, strict=True):
        edges = np.linspace(min(a.min(), b.min()), max(a.max(), b.max()), metrics.COORDINATE_BINS + 1)
        expected.append(jensenshannon(np.histogram(a, edges)[0], np.histogram(b, edges)[0]) ** 2)
    assert np.isclose(metrics.coordinate_jsd(first, second, None), np.mean(expected), rtol=1e-9)
    constant = np.zeros((5, 2, 3))
    assert metrics.coordinate_jsd(constant, constant, None) == 0.0


def test_dihedral_jsd_agrees_with_histograms_by_numpy():
    """Oracle: np.histogram and SciPy, torsion by torsion, at 100 and 36 bins; counts of blocks add up."""
    random = np.random.default_rng(2)
    first, second = random.vonmises(0.0, 2.0, (3000, 3)), random.vonmises([0.0, 0.5, 2.0], 2.0, (2000, 3))
    for bins in (100, 36):
        edges = np.linspace(-np.pi, np.pi, bins + 1)
        expected = [
            jensenshannon(np.histogram(a, edges)[0], np.histogram(b, edges)[0]) ** 2
            for a, b in zip(first.T, second.T, strict=True)
        ]
        assert np.allclose(metrics.dihedral_jsd(first, second, bins), expected)
    blocks = metrics.contiguous_blocks([first], 7)
    assert np.array_equal(sum(metrics.dihedral_counts(block) for block in blocks), metrics.dihedral_counts(first))
    with pytest.raises(LatentError, match="angles must hold the 3 torsions of reference, got 2"):
        metrics.dihedral_jsd(first[:, :2], second)
    with pytest.raises(LatentError, match=r"angles must have shape \(n_frames, n_torsions\)"):
        metrics.dihedral_counts(np.zeros((0, 3)))
    with pytest.raises(LatentError, match="angles must be finite"):
        metrics.dihedral_counts(np.full((4, 1), np.nan))


def test_free_energy_of_a_harmonic_well():
    """Closed form: a Gaussian has the free energy kT x^2 / 2 above its peak."""
    edges = np.linspace(-2.0, 2.0, 41)
    centres = 0.5 * (edges[1:] + edges[:-1])
    surface = metrics.free_energy(np.exp(-0.5 * centres**2), 300.0)
    expected = 0.5 * 0.00831446261815324 * 300.0 * centres**2
    assert np.allclose(surface, expected - expected.min())
    assert np.isinf(metrics.free_energy(np.array([1, 0]), 300.0)[1])
    with pytest.raises(LatentError, match="temperature must be positive"):
        metrics.free_energy(np.ones(3), 0.0)
    with pytest.raises(LatentError, match="counts must not be empty"):
        metrics.free_energy(np.zeros(3), 300.0)


def test_a_product_of_marginals_shows_in_the_surface():
    """A cheat: right marginals, no coupling. Closed form: two coupled corners against four, JSD 0.216 nats."""
    random = np.random.default_rng(3)
    side = random.choice([-1.0, 1.0], 20_000)
    angles = np.stack([side, side], axis=1) + random.uniform(-0.01, 0.01, (20_000, 2))
    drawn = metrics.product_of_marginals(angles, 20_000, seed=1)
    # Bins of 0.13 rad: each corner falls into few cells, all well filled. Each JSD's bias is below 1e-3.
    assert metrics.dihedral_jsd(drawn, angles).max() < 1e-3
    middle = np.array([0.375, 0.125, 0.125, 0.375])
    expected = 0.5 * np.log(0.5 / 0.375) + 0.5 * (0.25 * np.log(0.25 / middle)).sum()
    assert np.isclose(metrics.ramachandran_jsd(drawn, angles), expected, atol=0.01)
