"""What a sample has to beat."""

import numpy as np
import pytest

from ensembles_of import adp_ensemble, chain_ensemble
from openmm_latent import metrics
from openmm_latent.errors import LatentError
from openmm_latent.report import peers


def test_words_are_checked():
    assert peers.check_peers(["anm", " Gaussian", "anm"], False) == ["anm", "gaussian"]
    assert peers.check_peers([], True) == ["md"]
    with pytest.raises(LatentError, match=r"must be among anm, gaussian, md, got 'nma'"):
        peers.check_peers(["nma"], False)
    with pytest.raises(LatentError, match=r"has md, which needs files: give --md"):
        peers.check_peers(["md"], False)


def test_without_prody_a_sentence_says_so(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(LatentError, match="`pip install prody` gives it"):
        peers.check_peers(["anm"], False)


def test_an_elastic_network_moves_as_much_in_all_as_the_training_data():
    """4000 draws along 24 modes or more: the summed variance is known to 4 %, asked for to 10 %."""
    training = chain_ensemble(10, 400, seed=1)
    structure = training.positions.mean(axis=0).astype(np.float64)
    drawn = peers.anm_peer(training, structure, 4000, seed=1)
    assert drawn.n_frames == 4000
    assert drawn.frame_spacing is None
    expected = (metrics.rmsf(training.trace, None) ** 2).sum()
    assert (metrics.rmsf(drawn.trace, None) ** 2).sum() == pytest.approx(expected, rel=0.1)


def test_an_elastic_network_of_calpha_has_no_torsions_and_refuses_too_many_atoms():
    training = adp_ensemble((0, 200))
    drawn = peers.anm_peer(training, training.positions[0].astype(np.float64), 50, seed=1)
    assert drawn.angles.shape == (50, 2)  # all heavy atoms stand in for Cα here
    long = chain_ensemble(2100, 3, seed=1)
    with pytest.raises(LatentError, match="takes 3 to 2000 atoms, got 2100"):
        peers.anm_peer(long, long.positions[0].astype(np.float64), 5, seed=1)


def test_a_gaussian_has_the_training_data_s_moments():
    """Oracle: the moments of the training frames; 8000 draws know a variance to 1.6 %."""
    training = chain_ensemble(6, 2000, seed=1)
    drawn = peers.gaussian_peer(training, 8000, seed=1)
    assert drawn.n_frames == 8000
    expected = metrics.rmsf(training.trace, None)
    assert metrics.rmsf(drawn.trace, None) == pytest.approx(expected, rel=0.1)


def test_plain_md_is_cut_to_the_sample_s_frames():
    peer = peers.md_peer(chain_ensemble(5, 90, seed=1, n_runs=3), 40)
    assert peer.lengths == (30, 10)
    assert peer.name == "md"
    assert peer.frame_spacing == 1.0
