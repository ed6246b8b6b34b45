"""Motion in time against mdtraj, hand-made paths and planted modes."""

import mdtraj
import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.spatial.transform import Rotation
from scipy.stats import pearsonr

from openmm_latent import metrics
from openmm_latent.errors import LatentError


def test_t_rmsd_agrees_with_mdtraj():
    """Oracle: mdtraj.rmsd (single precision), frames that turn and drift."""
    random = np.random.default_rng(0)
    frames = random.standard_normal((9, 3)) + 0.2 * random.standard_normal((50, 9, 3)).cumsum(axis=0)
    turned = frames @ Rotation.random(50, random_state=1).as_matrix() + random.standard_normal((50, 1, 3))
    trajectory = mdtraj.Trajectory(turned, topology=None)
    found = metrics.t_rmsd(turned)
    assert np.allclose(found, mdtraj.rmsd(trajectory, trajectory, 0), atol=1e-3)
    assert found[0] < 1e-7
    lying = metrics.t_rmsd(frames, is_superposed=True)
    assert np.allclose(lying, np.sqrt(((frames - frames[0]) ** 2).sum(axis=2).mean(axis=1)))


def test_t_rmsd_error_of_a_constant_speed():
    """Closed form: RMSDs i a and i b to frame 0 differ by (a - b) i."""
    direction = np.zeros((5, 3))
    direction[:, 0] = 1.0
    paths = [step * np.arange(11)[:, None, None] * direction for step in (0.1, 0.04)]
    expected = 0.06 * np.sqrt((np.arange(11) ** 2).mean())
    assert np.isclose(metrics.t_rmsd_error(*paths, is_superposed=True), expected)
    assert metrics.t_rmsd_error(*paths) < 1e-7
    with pytest.raises(LatentError, match=r"positions must be as long as reference \(10 frames\), got 11"):
        metrics.t_rmsd_error(paths[0], paths[1][:10])


def test_changes_of_a_path():
    """Closed form: three corners of a 3-4-5 triangle, two atoms of which one moves."""
    corners = np.zeros((3, 2, 3))
    corners[1, 0, 0], corners[2, 0, :2] = 3.0, (3.0, 4.0)
    changes = metrics.path_changes(corners)
    assert np.allclose(changes["frame"], np.array([3.0, 5.0]) / np.sqrt(2))
    assert np.allclose(changes["step"], np.array([3.0, 4.0]) / np.sqrt(2))
    assert np.allclose(changes["trajectory"], [7.0 / np.sqrt(2)])
    assert np.allclose(metrics.path_changes(corners[:, 0])["frame"], [3.0, 5.0])
    for wrong in (np.zeros((1, 2, 3)), np.zeros(4)):
        with pytest.raises(LatentError, match="path must have shape"):
            metrics.path_changes(wrong)


def walks(n_starts: int, seed: int) -> list[np.ndarray]:
    """Return paths that move the more, the later they start: list of (30, 4, 3) [nm]."""
    random = np.random.default_rng(seed)
    return [0.01 * (k + 1) * random.standard_normal((30, 4, 3)).cumsum(axis=0) for k in range(n_starts)]


def test_multi_start_scores_agree_with_scipy():
    """Oracle: pooled by loops, SciPy's pearsonr."""
    paths, references = walks(6, 1), walks(6, 2)
    scores = metrics.multi_start_scores(paths, references)
    pooled = [
        [np.sqrt(((x[i] - x[i - 1]) ** 2).sum(axis=1).mean()) for x in side for i in range(1, 30)]
        for side in (paths, references)
    ]
    assert np.isclose(scores["step"]["r"], pearsonr(*pooled).statistic)
    assert np.isclose(scores["step"]["mae"], np.abs(np.subtract(*pooled)).mean())
    assert [scores[name]["n"] for name in ("frame", "step", "trajectory")] == [174, 174, 6]
    assert scores["trajectory"]["r"] > 0.9
    same = metrics.multi_start_scores(references, references)
    assert same["frame"] == {"r": 1.0, "mae": 0.0, "n": 174}
    assert np.isnan(metrics.multi_start_scores(paths[:2], references[:2])["trajectory"]["r"])


def test_shuffled_frames_move_too_much():
    """A cheat: the right frames in a random order have the right ensemble and far too large steps."""
    references = walks(6, 2)
    random = np.random.default_rng(3)
    shuffled = [random.permutation(path) for path in references]
    honest, cheat = (metrics.multi_start_scores(side, references) for side in (walks(6, 1), shuffled))
    assert cheat["step"]["mae"] > 5 * honest["step"]["mae"]
    assert metrics.t_rmsd_error(shuffled[5], references[5], is_superposed=True) > 0.1


def test_starts_must_pair():
    with pytest.raises(LatentError, match="paths must hold one for each of the 2 references, got 1"):
        metrics.multi_start_scores(walks(1, 1), walks(2, 1))
    with pytest.raises(LatentError, match="path 1 must have the shape of its reference"):
        metrics.multi_start_scores(walks(2, 1), [walks(2, 1)[0], walks(2, 1)[1][:9]])


def planted_mode(weights: np.ndarray, seed: int, n_frames: int = 20_000) -> np.ndarray:
    """Return residues that take part in one slow mode by `weights`, and jitter: (n_frames, n_residues, 3) [nm]."""
    random = np.random.default_rng(seed)
    slow = lfilter([np.sqrt(1 - 0.98**2)], [1.0, -0.98], random.standard_normal(n_frames))
    directions = np.random.default_rng(60).standard_normal((len(weights), 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    moves = slow[:, None, None] * weights[:, None] * directions
    return moves + 0.05 * random.standard_normal((n_frames, len(weights), 3))


def test_contributions_of_a_planted_mode():
    """Closed form: with even jitter a residue's share is its weight squared. 40 other seeds were off by < 0.0016."""
    weights = np.array([0.0, 0.1, 0.3, 0.2, 0.0, 0.4])
    frames = planted_mode(weights, 1)
    for lag in (1, 10):
        found = metrics.mode_contributions([frames[:9000], frames[9000:]], lag)
        assert found.shape == (1, 6)
        assert np.allclose(found[0], weights**2 / (weights**2).sum(), atol=0.004)


def test_modes_of_other_residues_do_not_correlate():
    weights = np.array([0.0, 0.1, 0.3, 0.2, 0.0, 0.4])
    reference = [planted_mode(weights, 1)]
    same = metrics.mode_correlation([planted_mode(weights, 2)], reference, [1, 10, 50])
    assert same.shape == (3,)
    assert (same > 0.99).all()
    other = metrics.mode_correlation([planted_mode(weights[[5, 2, 0, 1, 4, 3]], 2)], reference, [1, 10])
    assert (other < 0.5).all()
    with pytest.raises(LatentError, match="lag_frames must be shorter"):
        metrics.mode_correlation(reference, [reference[0][:5]], [10])
