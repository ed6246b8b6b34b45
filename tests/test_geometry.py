"""Superposition and torsions against closed forms and SciPy."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from openmm_latent.errors import LatentError
from openmm_latent.geometry import dihedrals, rmsd, superpose, torsion_quadruples


def test_superpose_undoes_a_rigid_motion():
    random = np.random.default_rng(0)
    reference = random.standard_normal((12, 3))
    frames = np.stack(
        [r.apply(reference) + random.standard_normal(3) * 50 for r in Rotation.random(20, random_state=1)]
    )
    assert np.allclose(superpose(frames, reference), reference, atol=1e-9)
    assert np.allclose(rmsd(frames, reference), 0.0, atol=1e-7)
    assert superpose(frames.astype(np.float32), reference).dtype == np.float32


def test_superpose_agrees_with_scipy_and_takes_weights():
    random = np.random.default_rng(3)
    reference, frame, weights = random.standard_normal((8, 3)), random.standard_normal((8, 3)), random.uniform(1, 16, 8)
    centre, start = np.average(reference, axis=0, weights=weights), np.average(frame, axis=0, weights=weights)
    rotation, _ = Rotation.align_vectors(reference - centre, frame - start, weights=weights)
    assert np.allclose(superpose(frame, reference, weights), rotation.apply(frame - start) + centre, atol=1e-7)


def test_superpose_never_mirrors_and_copes_with_a_planar_reference():
    random = np.random.default_rng(4)
    reference = random.standard_normal((6, 3))
    assert rmsd((reference * [1, 1, -1])[None], reference)[0] > 0.1
    planar = reference * [1, 1, 0]
    moved = superpose(Rotation.random(random_state=2).apply(planar), planar)
    assert np.allclose(moved, planar, atol=1e-9)
    assert not np.shares_memory(moved, planar)


@pytest.mark.parametrize("angle", [-3.0, -1.2, 0.0, 0.4, 2.5, np.pi])
def test_dihedral_of_a_built_torsion(angle):
    # Looking along the middle bond, a clockwise turn of the far bond is positive (IUPAC).
    far = np.array([np.cos(angle), np.sin(angle), 1.0])
    atoms = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], far])
    expected = Rotation.random(random_state=5).apply(atoms)
    assert np.isclose(np.cos(dihedrals(expected, np.array([[0, 1, 2, 3]]))[0] - angle), 1.0)
    assert np.isclose(np.sin(dihedrals(expected, np.array([[0, 1, 2, 3]]))[0]), np.sin(angle), atol=1e-9)


def test_torsions_are_found_by_name():
    names = [("ACE", "CH3 C O"), ("ALA", "N CA CB C O"), ("NME", "N C")]
    atoms = [
        SimpleNamespace(chain="A", residue_name=residue, residue_index=number, name=name)
        for number, (residue, listed) in enumerate(names)
        for name in listed.split()
    ]
    assert torsion_quadruples(atoms, "phi").tolist() == [[1, 3, 4, 6]]
    assert torsion_quadruples(atoms, "psi").tolist() == [[3, 4, 6, 8]]
    assert torsion_quadruples(atoms, "omega").tolist() == [[0, 1, 3, 4], [4, 6, 8, 9]]
    assert torsion_quadruples(atoms, "chi1").shape == (0, 4)


def test_mistakes_are_told_in_a_sentence():
    with pytest.raises(LatentError, match=r"reference must have shape \(n_atoms=5, 3\)"):
        superpose(np.zeros((2, 5, 3)), np.zeros((4, 3)))
    with pytest.raises(LatentError, match="positions must have shape"):
        superpose(np.zeros((5, 2)), np.zeros((5, 3)))
    with pytest.raises(LatentError, match="quadruples must hold indices from 0 to 4"):
        dihedrals(np.zeros((5, 3)), np.array([[0, 1, 2, 5]]))
    with pytest.raises(LatentError, match="quadruples must have shape"):
        dihedrals(np.zeros((5, 3)), np.array([[0, 1, 2]]))
    with pytest.raises(LatentError, match="kind must be one of"):
        torsion_quadruples([], "zeta")
