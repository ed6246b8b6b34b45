"""Runs from the same start, and frames rebuilt one by one."""

from dataclasses import replace

import numpy as np
import pytest

from ensembles_of import adp_ensemble
from openmm_latent import metrics
from openmm_latent.errors import LatentError
from openmm_latent.report import paired


def test_runs_from_the_same_start_are_compared_in_time():
    one = adp_ensemble((0, 100), (200, 300))
    assert paired.start_scores(one, one)["t_rmsd_error"] == pytest.approx(0.0, abs=1e-6)
    assert paired.start_scores(replace(one, frame_spacing=1.0), one) == {}
    moved = replace(one, trace=one.trace + np.float32(0.5))
    assert paired.start_scores(moved, one) == {}


def test_several_starts_are_scored_as_the_metric_has_it():
    """Oracle: metrics.multi_start_scores of the runs, cut to the shorter one of each pair."""
    reference = adp_ensemble((0, 50), (60, 100), (120, 170), (200, 240))
    sample = adp_ensemble((0, 40), (60, 100), (120, 160), (300, 340))
    moved = sample.trace.copy()
    moved[:, :, 0] += np.float32(0.001) * np.arange(len(moved))[:, None] % 0.05
    moved[120] = reference.trace[reference.lengths[0] + 90] + np.float32(1.0)  # the last pair starts unlike
    sample = replace(sample, trace=moved)
    found = paired.start_scores(sample, reference)
    runs = [(a[:40], b[:40]) for a, b in zip(sample.runs(moved), reference.runs(reference.trace), strict=True)][:3]
    expected = metrics.multi_start_scores(*zip(*runs, strict=True))
    assert found["start_frame_r"] == pytest.approx(expected["frame"]["r"])
    assert found["start_step_mae"] == pytest.approx(expected["step"]["mae"])
    assert found["start_trajectory_r"] == pytest.approx(expected["trajectory"]["r"])
    errors = [metrics.t_rmsd_error(*pair) for pair in runs]
    assert found["t_rmsd_error"] == pytest.approx(np.mean(errors))


def test_one_start_has_no_correlation_over_starts():
    one = adp_ensemble((0, 100))
    assert set(paired.start_scores(one, one)) == {"t_rmsd_error"}
    assert paired.start_scores(one, one, np.arange(4))["complex_t_rmsd_error"] == 0.0


def test_rebuilt_frames_equal_themselves_and_a_broken_bond_counts():
    one = adp_ensemble((0, 20))
    found = paired.backmapping_scores(one, one)
    assert found["rebuilt_rmsd_superposed"] == pytest.approx(0.0, abs=1e-6)
    assert (found["ged"], found["gdr"], found["bond_mse"]) == (0.0, 0.0, 0.0)
    assert "diversity" not in found
    torn = one.positions.copy()
    torn[:, 0] += np.float32(1.0)  # the first atom has one bond
    found = paired.backmapping_scores(replace(one, positions=torn), one)
    assert found["ged"] == 1.0
    assert found["rebuilt_rmsd_unsuperposed"] == pytest.approx(np.sqrt(3.0 / 10.0), rel=1e-5)
    assert found["rebuilt_rmsd_superposed"] < found["rebuilt_rmsd_unsuperposed"]


def test_several_rebuilt_sets_have_a_diversity():
    """Oracle: metrics.diversity."""
    one = adp_ensemble((0, 20))
    random = np.random.default_rng(1)
    twice = np.concatenate([one.positions, one.positions])
    twice += random.normal(scale=0.01, size=twice.shape).astype(np.float32)
    sample = replace(one, positions=twice, lengths=(20, 20))
    expected = metrics.diversity(twice.reshape(2, 20, 10, 3), one.positions)
    assert paired.backmapping_scores(sample, one)["diversity"] == pytest.approx(expected["div"])


def test_frames_that_do_not_pair_are_told():
    with pytest.raises(LatentError, match=r"must hold the reference's 20 frames rebuilt in order.*got 30 frames"):
        paired.backmapping_scores(adp_ensemble((0, 30)), adp_ensemble((0, 20)))
