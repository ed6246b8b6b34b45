"""Correlations over targets against SciPy."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from openmm_latent import metrics
from openmm_latent.errors import LatentError


def test_pearson_agrees_with_scipy():
    """Oracle: scipy.stats.pearsonr."""
    first, second = np.random.default_rng(0).standard_normal((2, 30))
    second += first
    assert np.isclose(metrics.pearson(first, second), pearsonr(first, second).statistic)
    assert metrics.pearson(first, 2 * first + 1) == 1.0
    assert np.isclose(metrics.pearson(first, -first), -1.0)


def test_profiles_of_targets_together_and_apart():
    """Oracle: SciPy. Each target agrees perfectly by itself; their scales differ, so together they do not."""
    random = np.random.default_rng(1)
    references = [random.uniform(0.1, 0.2, n) for n in (20, 30, 25)]
    profiles = [scale * reference for scale, reference in zip((1.0, 5.0, 0.2), references, strict=True)]
    found = metrics.profile_correlations(profiles, references)
    assert np.isclose(found["per_target"], 1.0)
    assert np.isclose(found["global"], pearsonr(np.concatenate(profiles), np.concatenate(references)).statistic)
    assert found["global"] < 0.6


def test_share_above():
    assert metrics.share_above([0.1, 0.5, 0.6, 0.9]) == 0.5
    with pytest.raises(LatentError, match="at least one target"):
        metrics.share_above([])


def test_what_has_no_correlation_is_told_in_a_sentence():
    with pytest.raises(LatentError, match="values must be as many as reference"):
        metrics.pearson(np.arange(3), np.arange(4))
    with pytest.raises(LatentError, match="at least three, got 2"):
        metrics.pearson(np.arange(2), np.arange(2))
    with pytest.raises(LatentError, match=r"values must be finite and vary, got 4 values from 0\.1 to 0\.1"):
        metrics.pearson(np.full(4, 0.1), np.arange(4))
    with pytest.raises(LatentError, match="reference must be finite and vary"):
        metrics.pearson(np.arange(4), np.array([0.0, 1.0, np.nan, 2.0]))
    with pytest.raises(LatentError, match="profiles must have one entry for each of the 2 references, got 1"):
        metrics.profile_correlations([np.arange(3)], [np.arange(3)] * 2)
