"""Clashes, hands and peptide bonds against brute force and built structures."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.spatial.transform import Rotation

from openmm_latent import metrics
from openmm_latent.errors import LatentError


def crowd(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return crowded frames, of which the last ten atoms are a ligand, and bonds: (4, 60, 3) [nm], (n_bonds, 2)."""
    frames = np.random.default_rng(seed).uniform(0.0, 0.8, (4, 60, 3))
    return frames, np.array([[k + 1, k] for k in range(0, 59, 2)])


def test_clashes_agree_with_brute_force():
    """Oracle: all pairs by SciPy's pdist."""
    frames, bonds = crowd(0)
    found = metrics.clash_counts(frames, bonds, ligand=np.arange(50, 60))
    bonded = {tuple(sorted(pair)) for pair in bonds.tolist()}
    for k, frame in enumerate(frames):
        distances = squareform(pdist(frame))
        close = [(i, j) for i in range(60) for j in range(i + 1, 60) if distances[i, j] < 0.11]
        close = [pair for pair in close if pair not in bonded]
        n_ligand = [(i >= 50) + (j >= 50) for i, j in close]
        for kind, name in enumerate(("protein", "between", "ligand")):
            assert found[name][k] == n_ligand.count(kind)
        assert found["total"][k] == len(close)
    assert found["protein"].sum() > 0
    assert found["between"].sum() > 0
    wider = metrics.clash_counts(frames, bonds, cutoff=0.12)
    assert (wider["total"] >= found["total"]).all()
    assert wider["between"].sum() == wider["ligand"].sum() == 0


def test_close_fraction_agrees_with_brute_force():
    """Oracle: all pairs by SciPy's pdist, bonds taken out."""
    frames, bonds = crowd(1)
    free = np.triu(np.ones((60, 60), dtype=bool), 1)
    free[bonds.min(axis=1), bonds.max(axis=1)] = False
    distances = np.array([squareform(pdist(frame)) for frame in frames])
    expected = ((distances < 0.12) & free).sum() / ((distances < 0.5) & free).sum()
    assert np.isclose(metrics.close_fraction(frames, bonds), expected)
    assert metrics.close_fraction(10 * np.arange(9.0).reshape(1, 3, 3), np.zeros((0, 2))) == 0.0


def test_a_mirror_image_has_every_hand_wrong():
    """Closed form: reflections flip each hand, rotations and translations none."""
    random = np.random.default_rng(2)
    structure = random.standard_normal((12, 3))
    centres = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]])
    turned = Rotation.random(5, random_state=1).as_matrix()
    frames = structure @ turned + random.standard_normal((5, 1, 3))
    assert metrics.chirality_violations(frames, centres, structure).tolist() == [0] * 5
    assert metrics.chirality_violations(frames * [1, 1, -1], centres, structure).tolist() == [3] * 5
    swapped = frames[:, [0, 2, 1, *range(3, 12)]]
    assert metrics.chirality_violations(swapped, centres, structure).tolist() == [1] * 5


def peptide(angle: float) -> np.ndarray:
    """Return four atoms with a torsion: (4, 3) [nm]."""
    far = np.array([np.cos(angle), np.sin(angle), 1.0])
    return 0.1 * np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], far])


def test_omegas_that_leave_their_form():
    """Closed form: built torsions, about trans and about cis."""
    degrees = [180, -150, 115, -70, 5]
    frames = np.stack([peptide(np.radians(angle)) for angle in degrees])
    omegas = np.array([[0, 1, 2, 3]])
    found = metrics.omega_violations(frames, omegas, peptide(np.pi))
    assert found["twisted"].tolist() == [0, 0, 1, 0, 0]
    assert found["flipped"].tolist() == [0, 0, 0, 1, 1]
    found = metrics.omega_violations(frames, omegas, peptide(0.0))
    assert found["twisted"].tolist() == [0, 0, 0, 1, 0]
    assert found["flipped"].tolist() == [1, 1, 1, 0, 0]


def test_no_groups_mean_no_violations():
    frames = np.random.default_rng(3).standard_normal((3, 5, 3))
    assert metrics.chirality_violations(frames, np.zeros((0, 4)), frames[0]).tolist() == [0, 0, 0]
    assert metrics.omega_violations(frames, [], frames[0])["flipped"].tolist() == [0, 0, 0]


def test_mistakes_are_told_in_a_sentence():
    frames, bonds = crowd(4)
    with pytest.raises(LatentError, match="bonds must hold indices from 0 to 9, got up to 59"):
        metrics.clash_counts(frames[:, :10], bonds)
    with pytest.raises(LatentError, match=r"centres must have shape \(n, 4\)"):
        metrics.chirality_violations(frames, np.zeros((2, 3), dtype=int), frames[0])
    with pytest.raises(LatentError, match=r"omegas must have shape .* indices from 0 to 59"):
        metrics.omega_violations(frames, [[0, 1, 2, 60]], frames[0])
    with pytest.raises(LatentError, match="structure must have a hand at each centre"):
        metrics.chirality_violations(frames, [[0, 1, 2, 3]], frames[0] * [1, 1, 0])
    frames[2, 0, 0] = np.nan
    with pytest.raises(LatentError, match="NaN or infinity in frame 2"):
        metrics.clash_counts(frames, bonds)
