"""Scores of ensembles: equal ones, floors, and blocks that add up to the whole."""

import numpy as np
import pytest

from ensembles_of import adp_ensemble, chain_ensemble
from openmm_latent.report import scores
from openmm_latent.report.catalogue import AGREEMENT, CATALOGUE, DISTANCE, GROUPS


def everything(sample, reference):
    structure = np.asarray(reference.positions[0], dtype=np.float64)
    return (
        scores.torsion_scores(sample, reference)
        | scores.fluctuation_scores(sample, reference, seed=1)
        | scores.component_scores(sample, reference, seed=1)
        | scores.contact_scores(sample, reference, structure)
        | scores.violations(sample, structure).means
    )


@pytest.mark.parametrize("make", [lambda: adp_ensemble((0, 400)), lambda: chain_ensemble(12, 400, seed=1)])
def test_an_ensemble_equals_itself(make):
    one = make()
    found = everything(one, one)
    assert len(found) > 12
    for key, value in found.items():
        kind = CATALOGUE[key].kind
        if kind == DISTANCE and key not in ("pca_w2", "joint_pca_w2"):  # two draws of frames, not the same frames
            assert value == pytest.approx(0.0, abs=1e-3), key
        elif kind == AGREEMENT and np.isfinite(value):
            assert value == pytest.approx(1.0, abs=1e-6), key


def test_every_score_has_a_definition_and_a_group():
    assert all(one.group in GROUPS and one.text and one.name for one in CATALOGUE.values())


def test_more_wobble_is_further_off():
    reference = chain_ensemble(12, 600, seed=1)
    same, wider = (everything(chain_ensemble(12, 600, seed=2, spread=s), reference) for s in (0.05, 0.08))
    for key in ("rmwd", "rmwd_variance", "symmetric_kl", "coordinate_jsd"):
        assert wider[key] > 3 * same[key], key
    assert wider["pairwise_rmsd"] == pytest.approx(1.6 * same["pairwise_rmsd"], rel=0.05)


def test_marginals_lose_the_coupling_only():
    """Joint torsions that move together: independent draws keep each one and fail the pair."""
    reference = adp_ensemble((0, 2000))
    turned = np.random.default_rng(1).uniform(-np.pi, np.pi, 2000)
    reference.angles[:] = np.stack([turned, turned], axis=1)
    assert scores.product_of_marginals(reference, 2000, seed=1)["phi_psi_jsd"] > 0.4


def test_a_clash_and_a_mirror_image_are_seen():
    one = adp_ensemble((0, 4))
    structure = one.positions[0].astype(np.float64)
    assert scores.violations(one, structure).means["chirality"] == 0.0
    one.positions[1] *= np.array([-1.0, 1.0, 1.0], dtype=np.float32)
    one.positions[2, 0] = one.positions[2, -1] + np.float32(0.03)  # the two ends, which no bond joins
    found = scores.violations(one, structure).means
    assert found["chirality"] == pytest.approx(0.25)
    assert found["clashes"] >= 0.25
