"""Principal components against ProDy, SciPy and planted directions."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, jensenshannon

from openmm_latent import metrics
from openmm_latent.errors import LatentError


def planted(n_frames: int, seed: int, n_atoms: int = 7, angle: float = 0.0) -> np.ndarray:
    """Return frames that move along two directions, the first one turned by `angle`: (n_frames, n_atoms, 3) [nm]."""
    directions = np.linalg.qr(np.random.default_rng(50).standard_normal((3 * n_atoms, 3)))[0].T
    first = np.cos(angle) * directions[0] + np.sin(angle) * directions[2]
    random = np.random.default_rng(seed)
    moves = 0.5 * random.standard_normal((n_frames, 1)) * first
    moves = moves + 0.2 * random.standard_normal((n_frames, 1)) * directions[1]
    structure = np.random.default_rng(51).standard_normal((n_atoms, 3))
    return structure + (moves + 0.01 * random.standard_normal((n_frames, 3 * n_atoms))).reshape(n_frames, n_atoms, 3)


@pytest.mark.parametrize("n_frames", [200, 15])
def test_components_agree_with_prody(n_frames):
    """Oracle: ProDy's PCA, with more and with fewer frames than coordinates."""
    import prody

    frames = planted(n_frames, 1)
    found = metrics.principal_components(frames, None, 2, seed=1)
    ensemble = prody.Ensemble()
    ensemble.setCoords(frames.mean(axis=0))
    ensemble.addCoordset(frames)
    pca = prody.PCA()
    pca.buildCovariance(ensemble)
    pca.calcModes(2)
    assert np.allclose(found.variances, pca.getEigvals(), rtol=1e-6)
    overlaps = (found.directions.reshape(2, -1) * pca.getEigvecs().T).sum(axis=1)
    assert np.allclose(np.abs(overlaps), 1.0)
    projected = found.project(frames)
    assert np.allclose(np.cov(projected.T, bias=True), np.diag(found.variances), atol=1e-9)


def test_w2_agrees_with_the_optimal_assignment():
    """Oracle: scipy's linear_sum_assignment; closed form: a shift."""
    random = np.random.default_rng(2)
    first, second = random.standard_normal((150, 2)), random.standard_normal((150, 2)) * [1.0, 2.0] + 0.5
    costs = cdist(first, second, "sqeuclidean")
    expected = np.sqrt(costs[linear_sum_assignment(costs)].mean())
    assert np.isclose(metrics.wasserstein_2(first, second), expected)
    assert np.isclose(metrics.wasserstein_2(first, first[::-1] + np.array([0.3, 0.4])), 0.5)
    with pytest.raises(LatentError, match=r"points must have the shape of reference \(150, 2\), got \(149, 2\)"):
        metrics.wasserstein_2(first[1:], second)


def test_pca_w2_of_a_shift_along_a_component():
    """Closed form: a shift of the same frames by 0.3 nm along a direction is 0.3 / sqrt(n_atoms) of W2."""
    frames = planted(400, 3)
    direction = metrics.principal_components(frames, None, 2, seed=1).directions[0]
    assert np.isclose(np.linalg.norm(direction), 1.0)
    for is_joint in (False, True):
        found = metrics.pca_w2(frames + 0.3 * direction, frames, None, is_joint=is_joint, seed=1)
        assert np.isclose(found, 0.3 / np.sqrt(7), rtol=1e-3)
    # Across both components MD PCA sees nothing; joint PCA does.
    across = np.linalg.qr(np.random.default_rng(50).standard_normal((21, 3)))[0][:, 2].reshape(7, 3)
    moved = frames + 2.0 * across
    assert metrics.pca_w2(moved, frames, None, is_joint=False, seed=1) < 0.02
    assert metrics.pca_w2(moved, frames, None, is_joint=True, seed=1) > 0.5


def test_pca_w2_takes_equally_many_frames_of_each():
    """A floor: two samples of one ensemble, 100 points of each. 100 other seeds gave 0.046 to 0.096 nm, mean 0.060."""
    found = metrics.pca_w2(planted(100, 4), planted(5000, 5), None, is_joint=True, seed=1)
    assert 0.03 < found < 0.13


@pytest.mark.parametrize("angle", [0.0, 0.5, 1.2, np.pi / 2])
def test_similarity_of_planted_components(angle):
    """Closed form: cos(angle). It spreads by 0.0006 at most over 40 other seeds: 0.004 is six of that."""
    found = metrics.pc_similarity(planted(3000, 6, angle=angle), planted(3000, 7), None, seed=1)
    assert np.isclose(found, abs(np.cos(angle)), atol=0.004)


def test_state_recovery_agrees_with_a_histogram():
    """Oracle: np.histogram2d over the reference's range and a rim for what lies outside."""
    random = np.random.default_rng(8)
    reference, sample = random.standard_normal((500, 2)), random.standard_normal((300, 2)) * 1.3
    edges = []
    for column in reference.T:
        inner = np.linspace(column.min(), column.max(), 11)
        edges.append(np.concatenate([[-99.0], inner[:-1], [np.nextafter(inner[-1], 99.0), 99.0]]))
    counts = [np.histogram2d(*points.T, bins=edges)[0] for points in (sample, reference)]
    found, true = counts[0] > 0, counts[1] > 0
    scores = metrics.state_recovery(sample, reference)
    precision, recall = (found & true).sum() / found.sum(), (found & true).sum() / true.sum()
    assert np.isclose(scores["precision"], precision)
    assert np.isclose(scores["recall"], recall)
    assert np.isclose(scores["f1"], 2 * precision * recall / (precision + recall))
    assert np.isclose(scores["jsd"], jensenshannon(counts[0].ravel(), counts[1].ravel()) ** 2)
    assert scores["n_states"] == true.sum()
    same = metrics.state_recovery(reference, reference)
    assert same["precision"] == same["recall"] == same["f1"] == 1.0
    assert same["jsd"] == 0.0


def test_one_basin_has_no_recall_and_an_outlier_no_precision():
    """Cheats: staying in one state; leaving for where the reference never is."""
    reference = np.stack(np.meshgrid(np.arange(10), np.arange(10)), axis=-1).reshape(-1, 2) / 9.0
    stuck = metrics.state_recovery(np.zeros((50, 2)), reference)
    assert stuck["precision"] == 1.0
    assert stuck["recall"] == 0.01
    outside = metrics.state_recovery(np.full((50, 2), 1.01), reference)
    assert outside["precision"] == outside["recall"] == outside["f1"] == 0.0
    assert np.isclose(outside["jsd"], np.log(2))


def test_mistakes_are_told_in_a_sentence():
    frames = planted(5, 9)
    with pytest.raises(LatentError, match="positions must hold more than 5 frames for 5 components, got 5"):
        metrics.principal_components(frames, None, 5, seed=1)
    with pytest.raises(LatentError, match="a frozen ensemble has no components"):
        metrics.principal_components(np.tile(frames[:1], (9, 1, 1)), None, 1, seed=1)
    with pytest.raises(LatentError, match="positions must hold the 7 atoms of reference, got 6"):
        metrics.pc_similarity(frames[:, :6], frames, None, seed=1)
    with pytest.raises(LatentError, match="reference must vary along each component"):
        metrics.state_recovery(np.zeros((4, 2)), np.zeros((4, 2)))
    with pytest.raises(LatentError, match=r"projections must have shape \(n_frames, 2\)"):
        metrics.state_recovery(np.zeros((4, 3)), np.zeros((4, 2)))
