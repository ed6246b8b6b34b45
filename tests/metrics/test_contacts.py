"""Contacts against brute force."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from openmm_latent import metrics
from openmm_latent.errors import LatentError


def chain(n_frames: int, n_residues: int, seed: int) -> np.ndarray:
    """Return random walks of 0.38 nm steps, far from the origin: (n_frames, n_residues, 3) [nm]."""
    steps = np.random.default_rng(seed).standard_normal((n_frames, n_residues, 3))
    steps *= 0.38 / np.linalg.norm(steps, axis=2, keepdims=True)
    return steps.cumsum(axis=1) + 20.0


def test_contact_frequencies_agree_with_brute_force(monkeypatch):
    """Oracle: loops over frames and pairs."""
    frames = chain(40, 12, 0)
    pairs = metrics.contact_pairs(12)
    assert pairs.tolist() == [[i, j] for i in range(12) for j in range(12) if j - i >= 3]
    expected = [np.mean([np.linalg.norm(x[i] - x[j]) < 0.8 for x in frames]) for i, j in pairs]
    monkeypatch.setattr("openmm_latent.metrics.chunks.CHUNK_VALUES", 500)
    assert np.allclose(metrics.contact_frequencies(frames, pairs), expected)
    other = chain(30, 12, 1)
    second = [np.mean([np.linalg.norm(x[i] - x[j]) < 0.8 for x in other]) for i, j in pairs]
    assert np.isclose(metrics.contact_correlation(frames, other), pearsonr(expected, second).statistic)


def test_changed_contacts_of_a_small_case():
    """Closed form: six pairs, counted by hand."""
    crystal = np.array([1, 1, 1, 0, 0, 0])
    reference = np.array([0.5, 0.85, 0.95, 0.2, 0.0, 0.4])
    sample = np.array([0.7, 0.95, 0.80, 0.3, 0.6, 0.05])
    found = metrics.changed_contacts(sample, reference, crystal)
    # Weak in the reference: 0 and 1; in the sample: 0 and 2. Transient: 3 and 5; 3 and 4.
    assert found == {"weak": 1 / 3, "transient": 1 / 3, "n_weak": 2, "n_transient": 2}
    still = metrics.changed_contacts(crystal, crystal, crystal)
    assert np.isnan(still["weak"])
    assert still["n_transient"] == 0


def test_a_frozen_sample_finds_no_changed_contacts():
    """A cheat: the crystal, again and again."""
    crystal, reference = np.array([1, 1, 0, 0]), np.array([0.5, 1.0, 0.5, 0.0])
    found = metrics.changed_contacts(crystal, reference, crystal)
    assert found["weak"] == found["transient"] == 0.0


def test_pocket_agrees_with_brute_force():
    """Oracle: loops over residues and atoms."""
    random = np.random.default_rng(2)
    structure, residues = random.uniform(0, 4, (200, 3)), np.repeat(np.arange(40), 5)
    is_heavy = random.uniform(size=200) < 0.6
    ligand = np.arange(190, 200)
    is_heavy[190] = True
    found = metrics.pocket_atoms(structure, ligand, residues, is_heavy)
    expected = []
    for residue in range(38):
        atoms = np.flatnonzero(residues == residue)
        near = [
            np.linalg.norm(structure[i] - structure[j]) < 1.0
            for i in atoms[is_heavy[atoms]]
            for j in ligand[is_heavy[ligand]]
        ]
        expected += list(atoms) if any(near) else []
    assert found.tolist() == expected
    assert 0 < len(found) < 190


def test_mistakes_are_told_in_a_sentence():
    frames = chain(4, 3, 3)
    with pytest.raises(LatentError, match="contacts need a chain longer than the sequence separation"):
        metrics.contact_frequencies(frames, metrics.contact_pairs(3))
    with pytest.raises(LatentError, match="frequencies must have the shape of reference_frequencies"):
        metrics.changed_contacts(np.zeros(3), np.zeros(4), np.zeros(4))
    with pytest.raises(LatentError, match="ligand must hold at least one heavy atom"):
        metrics.pocket_atoms(frames[0], [1], np.arange(3), np.array([True, False, True]))
