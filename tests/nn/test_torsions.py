import math

import numpy as np
import torch

from openmm_latent.geometry import dihedrals
from openmm_latent.nn.torsions import (
    histogram_divergence,
    soft_histogram,
    torsion_angles,
    torsion_features,
    torsion_loss,
)


def test_angles_agree_with_numpy():
    positions = torch.randn(50, 7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    quadruples = torch.tensor([[0, 1, 2, 3], [3, 2, 6, 5]])
    expected = dihedrals(positions.numpy(), quadruples.numpy())
    np.testing.assert_allclose(torsion_angles(positions, quadruples).numpy(), expected, atol=1e-12)


def test_features_are_cosines_and_sines():
    positions = torch.randn(50, 7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    quadruples = torch.tensor([[0, 1, 2, 3], [3, 2, 6, 5]])
    angles = dihedrals(positions.numpy(), quadruples.numpy())
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    np.testing.assert_allclose(torsion_features(positions, quadruples).numpy(), expected, atol=1e-12)


def test_features_of_three_atoms_on_a_line_are_finite_and_so_is_their_gradient():
    line = torch.tensor([[[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [0.2, 0.1, 0]]], requires_grad=True)
    features = torsion_features(line, torch.tensor([[0, 1, 2, 3]]))
    assert bool(torch.isfinite(torch.autograd.grad(features.sum(), line)[0]).all())


def test_loss_is_periodic():
    near = torsion_loss(torch.tensor([[math.pi - 0.01]]), torch.tensor([[-math.pi + 0.01]]))
    assert abs(float(near) - (1 - math.cos(0.02))) < 1e-6


def test_histogram_sums_to_one_and_peaks_at_the_angle():
    angles = torch.tensor([[0.5], [0.5]])
    histogram = soft_histogram(angles, 36, 100.0)
    assert abs(float(histogram.sum()) - 1.0) < 1e-6
    assert int(histogram.argmax()) == int((0.5 + math.pi) / (2 * math.pi) * 36)


def test_divergence_is_zero_for_equal_and_log_two_for_disjoint_batches():
    left, right = torch.full((10, 2), -2.0), torch.full((10, 2), 1.0)
    assert abs(float(histogram_divergence(left, left, 36, 100.0))) < 1e-6
    assert abs(float(histogram_divergence(left, right, 36, 400.0)) - math.log(2)) < 1e-3


def test_divergence_pulls_angles_towards_the_reference():
    generator = torch.Generator().manual_seed(3)
    reference = 0.3 * torch.randn(400, 1, generator=generator)
    angles = (0.4 + 0.3 * torch.randn(400, 1, generator=generator)).requires_grad_()
    optimiser = torch.optim.Adam([angles], lr=0.02)
    first = float(histogram_divergence(angles.detach(), reference, 36, 100.0))
    for _ in range(60):
        optimiser.zero_grad()
        loss = histogram_divergence(angles, reference, 36, 100.0)
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.1 * first
