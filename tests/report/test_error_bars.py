"""Error bars: blocks that add up to the whole, and intervals that hold what they are of."""

import numpy as np
import pytest

from ensembles_of import adp_ensemble, chain_ensemble
from openmm_latent import metrics
from openmm_latent.report import error_bars, scores


def test_rows_without_empty_bins_have_the_divergence_of_the_whole():
    """Oracle: metrics.row_jsd, row by row, of the blocks' sum."""
    random = np.random.default_rng(1)
    blocks = [random.poisson(0.3, (5, 30)).astype(np.float32) + np.eye(5, 30, dtype=np.float32) for _ in range(4)]
    target = random.poisson(0.5, (5, 30)) + np.eye(5, 30)
    kept, score = error_bars.occupied_rows(blocks, target)
    assert len(kept[0]) < 5 * 30
    for chosen in ([0, 1, 2, 3], [0, 0, 2, 2]):
        expected = metrics.row_jsd(sum(blocks[k] for k in chosen), target).mean()
        assert score([kept[k] for k in chosen]) == pytest.approx(expected, rel=1e-6)


def test_blocks_add_up_to_the_fluctuation_of_the_whole():
    """Oracle: metrics.atom_moments of all frames."""
    one = chain_ensemble(6, 300, seed=1)
    edges = error_bars.block_edges(one.lengths, 7)
    moments = [(b - a, *metrics.atom_moments(one.trace[a:b], None)) for a, b in edges]
    mean, covariance = error_bars.joint_moments(moments)
    expected = metrics.atom_moments(one.trace, None)
    assert mean == pytest.approx(expected[0], abs=1e-9)
    assert covariance == pytest.approx(expected[1], abs=1e-9)


def test_blocks_cross_no_run_and_cover_all_frames():
    edges = error_bars.block_edges((30, 50), 8)
    assert edges[0][0] == 0
    assert all(b == c for (_, b), (c, _) in zip(edges, edges[1:]))  # noqa: B905, RUF007
    assert edges[-1][1] == 80
    assert 30 in [b for _, b in edges]


def test_intervals_hold_their_scores():
    sample, reference = adp_ensemble((0, 1500)), adp_ensemble((1500, 3000))
    found = error_bars.torsion_intervals(sample, reference, seed=1, n_blocks=20)
    values = scores.torsion_scores(sample, reference)
    for key in ("backbone_jsd", "phi_psi_jsd"):
        low, high = found[key]
        assert low < values[key] < high


def test_too_few_frames_for_blocks_give_no_interval():
    sample, reference = adp_ensemble((0, 2)), adp_ensemble((0, 100))
    assert np.isnan(error_bars.torsion_intervals(sample, reference, seed=1, n_blocks=20)["backbone_jsd"]).all()


def test_fluctuations_and_components_have_intervals_about_their_scores():
    sample, reference = adp_ensemble((0, 1500)), adp_ensemble((1500, 3000))
    values = scores.fluctuation_scores(sample, reference, 1) | scores.component_scores(sample, reference, 1)
    found = error_bars.trace_intervals(sample, reference, 1, 20)
    found |= error_bars.component_intervals(sample, reference, values, 1, 20)
    found |= error_bars.pairwise_interval(sample, 1, 20)
    for key in ("rmwd", "rmwd_translation", "rmwd_variance", "symmetric_kl", "pca_w2", "joint_pca_w2", "pairwise_rmsd"):
        low, high = found[key]
        assert low < values[key] < high, key
        assert high - low < 3 * values[key], key


def test_pairwise_distances_have_the_score_as_their_mean():
    """Oracle: metrics.mean_pairwise_rmsd."""
    one = chain_ensemble(6, 700, seed=1)
    distances = metrics.pairwise_rmsds(one.trace, None, seed=3)
    assert distances.shape == (500, 500)
    expected = metrics.mean_pairwise_rmsd(one.trace, None, seed=3)
    assert distances[np.triu_indices(500, 1)].mean() == pytest.approx(expected, rel=1e-9)


def test_independent_wobble_has_a_narrow_pairwise_interval_that_covers_another_draw():
    """Two draws of 400 independent frames: the mean RMSD's relative spread is about 1 %, the interval's a few."""
    low, high = error_bars.pairwise_interval(chain_ensemble(12, 400, seed=1), 1, 20)["pairwise_rmsd"]
    other = metrics.mean_pairwise_rmsd(chain_ensemble(12, 400, seed=2).trace, None, seed=1)
    assert (high - low) / other < 0.06
    assert low * 0.98 < other < high * 1.02


def test_counts_have_intervals_and_none_where_nothing_happens_is_zero_wide():
    counts = {"clashes": np.zeros(100, dtype=int), "chirality": np.repeat([0, 1], 50)}
    found = error_bars.count_intervals(counts, 1, 20)
    assert found["clashes"] == (0.0, 0.0)
    low, high = found["chirality"]
    assert 0.2 < low < 0.5 < high < 0.8


def test_a_frozen_ensemble_has_no_interval_of_components():
    one = chain_ensemble(6, 50, seed=1)
    one.trace[:] = one.trace[0]
    assert error_bars.component_intervals(one, one, {}, 1, 20) == {}
