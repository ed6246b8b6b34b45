"""Fluctuations against mdtraj, ProDy, POT, SciPy, closed forms and brute force."""

import mdtraj
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from openmm_latent import metrics
from openmm_latent.errors import LatentError

#: Six points with mean 0 and covariance I.
OCTAHEDRON = np.sqrt(3.0) * np.concatenate([np.eye(3), -np.eye(3)])


def tumbling(n_frames: int, seed: int, scale: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Return frames that fluctuate unevenly, turn and drift, and their structure: (n_frames, 9, 3), (9, 3) [nm]."""
    random = np.random.default_rng(seed)
    structure = np.random.default_rng(99).standard_normal((9, 3))
    frames = structure + scale * random.standard_normal((n_frames, 9, 3)) * np.linspace(0.5, 2.0, 9)[:, None]
    turns = Rotation.random(n_frames, random_state=seed).as_matrix()
    return frames @ turns + random.standard_normal((n_frames, 1, 3)), structure


def test_rmsf_agrees_with_mdtraj_and_prody():
    """Oracles: mdtraj.rmsf (single precision) and ProDy's Ensemble, both after superposition on the structure."""
    frames, structure = tumbling(300, 1)
    found = metrics.rmsf(frames, structure)
    trajectory, reference = (mdtraj.Trajectory(x, topology=None) for x in (frames, structure[None]))
    trajectory.superpose(reference)
    assert np.allclose(found, mdtraj.rmsf(trajectory, None), rtol=1e-3)
    import prody

    ensemble = prody.Ensemble()
    ensemble.setCoords(structure)
    ensemble.addCoordset(frames)
    ensemble.superpose()
    assert np.allclose(found, ensemble.getRMSFs(), rtol=1e-6)
    assert np.allclose(metrics.rmsf(metrics.superpose(frames, structure), None), found)


def test_moments_do_not_depend_on_pieces_or_on_the_origin(monkeypatch):
    """Oracle: np.mean and np.cov; 500 nm from the origin, in single precision's reach of 3e-5 nm."""
    frames, structure = tumbling(200, 2)
    fitted = metrics.superpose(frames, structure)
    monkeypatch.setattr("openmm_latent.metrics.chunks.CHUNK_VALUES", 27 * 31)
    mean, covariance = metrics.atom_moments(frames, structure)
    assert np.allclose(mean, fitted.mean(axis=0))
    assert np.allclose(covariance[4], np.cov(fitted[:, 4].T, bias=True))
    far = metrics.atom_moments((fitted + 500.0).astype(np.float32), None)
    assert np.allclose(far[1], covariance, atol=2e-5 * 0.1)


def test_rmwd_of_isotropic_clouds():
    """Closed form: clouds of covariance a^2 I and b^2 I a distance d apart: RMWD^2 = d^2 + 3 (a - b)^2."""
    first = 0.10 * np.stack([OCTAHEDRON, OCTAHEDRON], axis=1)
    second = 0.16 * np.stack([OCTAHEDRON, OCTAHEDRON], axis=1) + np.array([0.3, 0.0, 0.4])
    found = metrics.rmwd(first, second, None)
    assert np.isclose(found["translation"], 0.5)
    assert np.isclose(found["variance"], np.sqrt(3) * 0.06)
    assert np.isclose(found["rmwd"], np.hypot(0.5, np.sqrt(3) * 0.06))
    assert metrics.rmwd(first, first, None)["rmwd"] < 1e-8


def test_rmwd_agrees_with_pot():
    """Oracle: POT's Bures-Wasserstein distance of each atom's Gaussians."""
    import ot

    first, structure = tumbling(150, 3)
    second = 1.2 * tumbling(120, 4, scale=0.1)[0]
    means, covariances = zip(*(metrics.atom_moments(x, structure) for x in (first, second)), strict=True)
    squares = [
        float(ot.gaussian.bures_wasserstein_distance(means[0][k], means[1][k], covariances[0][k], covariances[1][k]))
        ** 2
        for k in range(9)
    ]
    assert np.isclose(metrics.rmwd(first, second, structure)["rmwd"], np.sqrt(np.mean(squares)), rtol=1e-6)


def test_rmwd_is_a_distance_of_the_frames_themselves():
    """Oracle: SciPy's optimal assignment of the points, which agrees where one cloud is a stretch of the other."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    cloud = np.random.default_rng(5).standard_normal((200, 3))
    stretched = cloud * [1.0, 1.5, 0.6] + [0.1, 0.2, 0.3]
    costs = cdist(cloud, stretched, "sqeuclidean")
    expected = np.sqrt(costs[linear_sum_assignment(costs)].mean())
    aligned = metrics.rmwd(cloud[:, None], stretched[:, None], None)["rmwd"]
    # The map is symmetric, so it is the optimal one, up to the sample's correlations between axes.
    assert np.isclose(aligned, expected, rtol=0.02)


def test_symmetric_kl_of_isotropic_clouds_and_by_determinants():
    """Closed form for a^2 I and b^2 I; oracle in general: the textbook formula with log-determinants."""
    first, second = (scale * OCTAHEDRON[:, None] for scale in (1.0, 2.0))
    assert np.isclose(metrics.symmetric_kl(first, second, None), (3 * 4 + 3 / 4 - 6) / 4, rtol=1e-6)
    frames, structure = tumbling(150, 6)
    other = tumbling(120, 7, scale=0.08)[0]
    (_, one), (_, two) = (metrics.atom_moments(x, structure) for x in (frames, other))

    def divergence(p, q):
        ratio = np.linalg.slogdet(q)[1] - np.linalg.slogdet(p)[1]
        return 0.5 * (np.trace(np.linalg.inv(q) @ p) - 3.0 + ratio)

    floor = 1e-8 * np.eye(3)
    pairs = [(p + floor, q + floor) for p, q in zip(one, two, strict=True)]
    expected = np.mean([0.5 * (divergence(p, q) + divergence(q, p)) for p, q in pairs])
    assert np.isclose(metrics.symmetric_kl(frames, other, structure), expected)


def test_symmetric_kl_of_a_frozen_sample_is_large_and_finite():
    """A cheat: one structure, again and again."""
    frames, structure = tumbling(150, 8)
    assert 1e3 < metrics.symmetric_kl(np.tile(structure, (50, 1, 1)), frames, structure) < 1e9


def test_mean_pairwise_rmsd_agrees_with_brute_force():
    """Oracles: a double loop as the frames lie; SciPy's align_vectors for each pair."""
    frames, structure = tumbling(12, 9, scale=0.3)
    fitted = metrics.superpose(frames, structure)
    lying, least = [], []
    for i in range(12):
        for j in range(i):
            lying.append(np.sqrt(((fitted[i] - fitted[j]) ** 2).sum(axis=1).mean()))
            pair = [frames[k] - frames[k].mean(axis=0) for k in (i, j)]
            least.append(Rotation.align_vectors(*pair)[1] / np.sqrt(9))
    assert np.isclose(metrics.mean_pairwise_rmsd(frames, structure, seed=1), np.mean(lying))
    each = metrics.mean_pairwise_rmsd(frames, structure, seed=1, superposes_pairs=True)
    assert np.isclose(each, np.mean(least), rtol=1e-4)
    assert each < np.mean(lying)


def test_mean_pairwise_rmsd_of_a_subset_of_frames():
    """Closed form: |x - y|^2 of independent Gaussians is 2 sigma^2 times chi-squared; the mean has its own.

    500 frames of 300 numbers: the mean of 124 750 pairs is known to about 0.2 %; 1 % is five of that.
    """
    from scipy.special import gammaln

    random = np.random.default_rng(10)
    frames = random.standard_normal((2000, 100, 3))
    expected = np.sqrt(2.0) * np.sqrt(2.0) * np.exp(gammaln(150.5) - gammaln(150.0)) / np.sqrt(100)
    found = metrics.mean_pairwise_rmsd(frames, None, seed=3)
    assert np.isclose(found, expected, rtol=0.01)
    assert found == metrics.mean_pairwise_rmsd(frames, None, seed=3)
    assert found != metrics.mean_pairwise_rmsd(frames, None, seed=4)


def test_mistakes_are_told_in_a_sentence():
    frames, structure = tumbling(10, 11)
    with pytest.raises(LatentError, match=r"positions must have shape \(n_frames, n_atoms, 3\)"):
        metrics.rmsf(frames[0], structure)
    with pytest.raises(LatentError, match="positions must hold the 8 atoms of what they are compared with, got 9"):
        metrics.rmsf(frames, structure[:8])
    for score in (metrics.rmwd, metrics.symmetric_kl):
        with pytest.raises(LatentError, match="positions must hold the 8 atoms of reference, got 9"):
            score(frames, frames[:, :8], None)
    with pytest.raises(LatentError, match="positions must hold at least two frames, got 1"):
        metrics.mean_pairwise_rmsd(frames[:1], structure, seed=1)
    frames[7, 3, 1] = np.nan
    with pytest.raises(LatentError, match="positions must be finite, got NaN or infinity in frame 7"):
        metrics.rmsf(frames, structure)
