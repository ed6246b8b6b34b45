"""The joint Gaussian: assembly, projection, sampling and what is read from it."""

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from scipy.spatial.transform import Rotation

from openmm_latent.errors import LatentError
from openmm_latent.models.dynaprot.covariance import (
    couplings,
    ellipsoids,
    joint_covariance,
    rigid_motions,
    rmsf,
    sample,
    without_rigid_motions,
)

N = 7


def parts(seed, n=N, scale=0.1):
    """Return Cholesky factors [nm], rotations and a coupling that is no correlation yet."""
    rng = np.random.default_rng(seed)
    factors = np.tril(rng.normal(size=(n, 3, 3))) * scale
    factors[:, range(3), range(3)] = np.abs(factors[:, range(3), range(3)]) + 0.01 * scale
    lower = np.tril(rng.normal(size=(n, n))) + np.eye(n)
    rotations = Rotation.random(n, random_state=seed).as_matrix()
    return torch.tensor(factors), torch.tensor(rotations), torch.tensor(lower @ lower.T)


def structure(seed=1, n=N):
    return torch.tensor(np.random.default_rng(seed).normal(size=(n, 3)))


def test_every_block_is_the_product_it_should_be():
    cholesky, rotations, coupling = parts(1)
    covariance = joint_covariance(cholesky, rotations, coupling).numpy()
    roots = [
        linalg.sqrtm((turn @ factor @ factor.T @ turn.T).numpy())
        for turn, factor in zip(rotations, cholesky, strict=True)
    ]
    for i in range(N):
        for j in range(N):
            correlation = coupling[i, j] * (coupling[i, i] * coupling[j, j]).rsqrt()
            block = covariance[3 * i : 3 * i + 3, 3 * j : 3 * j + 3]
            np.testing.assert_allclose(block, float(correlation) * roots[i] @ roots[j], atol=1e-12)


def test_marginals_are_those_given_and_in_square_nanometres():
    cholesky, rotations, coupling = parts(2)
    covariance = joint_covariance(cholesky, rotations, coupling)
    np.testing.assert_allclose(rmsf(covariance), cholesky.square().sum((1, 2)).sqrt(), rtol=1e-12)
    # 1 A in each direction: sqrt(3) A
    isotropic = joint_covariance(0.1 * torch.eye(3).expand(N, 3, 3), rotations, coupling)
    np.testing.assert_allclose(rmsf(isotropic), 0.1 * np.sqrt(3.0), rtol=1e-6)


def test_a_thousand_random_ones_are_positive_definite():
    smallest = []
    for seed in range(1000):
        values = torch.linalg.eigvalsh(joint_covariance(*parts(seed, n=5)))
        smallest.append(float(values[0] / values[-1]))
    assert min(smallest) > 0


def test_batches_equal_single_proteins():
    several = [parts(seed) for seed in range(3)]
    together = joint_covariance(*(torch.stack(part) for part in zip(*several, strict=True)))
    for one, part in zip(together, several, strict=True):
        torch.testing.assert_close(one, joint_covariance(*part))


def test_turning_the_protein_turns_the_covariance_and_leaves_scalars():
    cholesky, rotations, coupling = parts(3)
    turn = torch.tensor(Rotation.random(random_state=9).as_matrix())
    plain, turned = (joint_covariance(cholesky, frames, coupling) for frames in (rotations, turn @ rotations))
    whole = torch.block_diag(*[turn] * N)
    torch.testing.assert_close(turned, whole @ plain @ whole.T)
    torch.testing.assert_close(couplings(turned), couplings(plain))
    torch.testing.assert_close(couplings(turned, turn @ rotations), couplings(plain, rotations))
    torch.testing.assert_close(ellipsoids(turned)[0], ellipsoids(plain)[0])


def test_rigid_motions_leave_all_distances_and_are_projected_out():
    positions = structure()
    basis = rigid_motions(positions)
    assert basis.shape == (3 * N, 6)
    torch.testing.assert_close(basis.T @ basis, torch.eye(6, dtype=torch.float64))
    distances = torch.cdist(positions, positions)
    for motion in basis.T:
        moved = positions + 1e-6 * motion.reshape(N, 3)
        assert float((torch.cdist(moved, moved) - distances).abs().max()) < 1e-11
    covariance = joint_covariance(*parts(4))
    projected = without_rigid_motions(covariance, positions)
    assert float((projected @ basis).abs().max()) < 1e-15
    torch.testing.assert_close(without_rigid_motions(projected, positions), projected)
    assert int((torch.linalg.eigvalsh(projected) > 1e-12).sum()) == 3 * N - 6


def test_points_on_a_line_have_five_rigid_motions_and_one_has_three():
    line = torch.arange(5.0)[:, None] * torch.tensor([0.3, 0.1, 0.0])
    assert rigid_motions(line).shape == (15, 5)
    assert rigid_motions(torch.ones(1, 3)).shape == (3, 3)


def test_projection_is_what_superposition_leaves():
    """The covariance of superposed frames is that of small displacements without rigid motions, to first order."""
    from openmm_latent.geometry import superpose

    positions = structure()
    covariance = joint_covariance(*parts(5, scale=1e-4))
    frames = superpose(sample(positions, covariance, 4000, seed=1).numpy(), positions.numpy())
    flat = (frames - positions.numpy()).reshape(len(frames), -1)
    drawn = sample(torch.zeros(N, 3), covariance, 4000, seed=1).reshape(4000, -1)  # the same displacements
    basis = rigid_motions(positions)
    expected = drawn - (drawn @ basis) @ basis.T
    assert np.abs(flat - expected.numpy()).max() < 1e-3 * np.abs(flat).max()


@pytest.mark.parametrize("is_projected", [False, True])
def test_samples_have_the_covariance(is_projected):
    """Whitened samples are standard normal: chi squared of all second moments. False alarm: 1 in 1000 a case."""
    positions = structure()
    covariance = joint_covariance(*parts(6))
    if is_projected:
        covariance = without_rigid_motions(covariance, positions)
    drawn = sample(positions, covariance, 20_000, seed=3) - positions
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > 1e-9
    white = (drawn.reshape(len(drawn), -1) @ vectors[:, kept]) / values[kept].sqrt()
    moments = (white.T @ white / len(white)).numpy()
    n = int(kept.sum())
    off = moments[np.triu_indices(n, 1)] * np.sqrt(len(white))
    on = (np.diag(moments) - 1.0) * np.sqrt(len(white) / 2.0)
    statistic, n_free = (off**2).sum() + (on**2).sum(), n * (n + 1) // 2
    assert 5e-4 < stats.chi2.sf(statistic, n_free) < 1 - 5e-4


def test_samples_depend_on_the_seed_alone():
    covariance = joint_covariance(*parts(6))
    first, again, other = (sample(structure(), covariance, 3, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_ellipsoids_rebuild_the_marginals():
    covariance = joint_covariance(*parts(7))
    lengths, axes = ellipsoids(covariance)
    rebuilt = torch.einsum("nk,nka,nkb->nab", lengths.square(), axes, axes)
    for i in range(N):
        torch.testing.assert_close(rebuilt[i], covariance[3 * i : 3 * i + 3, 3 * i : 3 * i + 3])
    assert bool((lengths[:, :-1] >= lengths[:, 1:]).all())


def test_couplings_of_round_marginals_are_those_that_were_given():
    _, rotations, coupling = parts(8)
    found = couplings(joint_covariance(0.1 * torch.eye(3).expand(N, 3, 3), rotations, coupling))
    scales = coupling.diagonal().rsqrt()
    torch.testing.assert_close(found, coupling * scales[:, None] * scales)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: joint_covariance(torch.eye(3), torch.eye(3), torch.eye(1)), r"must have shapes \(\.\.\., n, 3, 3\)"),
        (
            lambda: joint_covariance(torch.eye(3)[None], torch.eye(3)[None], torch.zeros(1, 1)),
            "coupling must have a positive diagonal, got 0",
        ),
        (lambda: sample(torch.zeros(2, 3), torch.eye(5), 1, 1), r"\(3 n, 3 n\) \[nm\^2\] of one protein, got"),
        (lambda: sample(torch.zeros(2, 3), torch.eye(6), 0, 1), "n_samples must be at least 1, got 0"),
        (lambda: sample(torch.zeros(2, 3), -torch.eye(6), 1, 1), "must be positive semidefinite, got eigenvalues"),
    ],
)
def test_what_cannot_be_is_refused(call, sentence):
    with pytest.raises(LatentError, match=sentence):
        call()
