import numpy as np
import torch
from scipy.spatial.transform import Rotation

from openmm_latent.geometry import superpose as superpose_numpy
from openmm_latent.nn.superposition import optimal_rotation, orientation_gap, superpose, top_eigenvector


def _points(n_frames, n_atoms, seed):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n_frames, n_atoms, 3, generator=generator, dtype=torch.float64)
    return points - points.mean(dim=1, keepdim=True)


def test_superposition_agrees_with_singular_value_decomposition():
    frames, reference = _points(20, 9, 1), _points(1, 9, 2)[0]
    expected = superpose_numpy(frames.numpy(), reference.numpy())
    np.testing.assert_allclose(superpose(frames + 3.0, reference)[0].numpy(), expected, atol=1e-12)


def test_mirror_image_is_rotated_never_reflected():
    reference = _points(1, 9, 3)[0]
    rotation = optimal_rotation(reference.unsqueeze(0) * torch.tensor([-1.0, 1.0, 1.0]), reference)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(1, dtype=torch.float64))


def test_placed_back_onto_the_frame():
    frames, reference = _points(5, 9, 4) + 2.0, _points(1, 9, 5)[0]
    superposed, rotation, centre = superpose(frames, reference)
    back = torch.matmul(superposed, rotation.transpose(1, 2)) + centre
    assert torch.allclose(back, frames, atol=1e-12)


def test_top_eigenvectors_by_squaring_are_those_of_a_decomposition():
    """A GPU finds them without waiting for the host; a gap of 1e-5 of the eigenvalues is told apart, to 1e-9."""
    generator = torch.Generator().manual_seed(8)
    frames = torch.linalg.qr(torch.randn(200, 4, 4, generator=generator, dtype=torch.float64))[0]
    values = torch.randn(200, 4, generator=generator, dtype=torch.float64).sort(dim=1)[0]
    values[100:, 2] = values[100:, 3] - 1e-5 * values[100:].abs().amax(dim=1)
    values = 10.0 ** torch.randn(200, 1, generator=generator) * (values - values.mean(dim=1, keepdim=True))
    found = top_eigenvector(frames @ torch.diag_embed(values) @ frames.transpose(1, 2))
    along = (found * frames[:, :, 3:]).sum(dim=1).abs()
    assert float((1 - along).abs().max()) < 1e-9
    assert float((torch.linalg.vector_norm(found, dim=1) - 1).abs().max()) < 1e-14


def test_frames_that_fit_in_two_ways_still_get_a_proper_rotation():
    matrices = torch.zeros(2, 4, 4, dtype=torch.float64)  # all atoms at one place; then on one line
    matrices[1] = torch.diag(torch.tensor([1.0, 1.0, -1.0, -1.0]))
    found = top_eigenvector(matrices)
    assert torch.allclose(torch.linalg.vector_norm(found, dim=1), torch.ones(2, 1, dtype=torch.float64))
    assert float(found[1, 2:].abs().max()) < 1e-12


def test_gradient_matches_finite_differences():
    reference = _points(1, 6, 6)[0]
    frames = _points(2, 6, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: superpose(x, reference)[0], (frames,))


def _superposed_by_autograd(frames, reference):
    """Return superposed frames whose gradient goes through the singular value decomposition."""
    centred = frames - frames.mean(dim=1, keepdim=True)
    left, _, right = torch.linalg.svd(centred.transpose(1, 2) @ reference)
    turn = torch.ones(len(frames), 3, dtype=frames.dtype)
    turn[:, 2] = torch.linalg.det(left @ right).detach()
    return centred @ (left * turn.unsqueeze(1)) @ right


def test_gradient_equals_that_through_the_decomposition():
    reference = _points(1, 9, 11)[0]
    frames = _points(30, 9, 12)  # some of the thirty need the proper, not the best improper, rotation
    weights = torch.randn(30, 9, 3, generator=torch.Generator().manual_seed(13), dtype=torch.float64)
    ours, expected = frames.clone().requires_grad_(), frames.clone().requires_grad_()
    (superpose(ours, reference)[0] * weights).sum().backward()
    (_superposed_by_autograd(expected, reference) * weights).sum().backward()
    scale = expected.grad.abs().amax(dim=(1, 2), keepdim=True)
    assert float(((ours.grad - expected.grad).abs() / scale).max()) < 1e-6


def test_frame_with_all_atoms_on_one_line_has_a_finite_gradient():
    line = (torch.arange(7.0, dtype=torch.float64)[:, None] * torch.tensor([0.1, 0.2, 0.0])).unsqueeze(0)
    frames = line.clone().requires_grad_()
    superpose(frames, _points(1, 7, 14)[0])[0].pow(3).sum().backward()
    assert bool(torch.isfinite(frames.grad).all())


def test_orientation_gap_is_that_of_the_quaternion_matrix():
    reference = _points(1, 7, 15)[0]
    flat = reference * torch.tensor([1.0, 1.0, 0.0])
    # a frame that is the mirror image of a flat one lies as well one way up as the other
    gaps = orientation_gap(torch.stack([reference, reference * 5.0 + 2.0]), reference)
    assert torch.allclose(gaps[0], gaps[1])
    squares = torch.linalg.svdvals(reference).square()
    assert torch.allclose(gaps[0], (squares[1] + squares[2]) / squares.sum())
    stretched = torch.stack([flat * torch.tensor([1.0, scale, 0.0]) for scale in (1.0, 0.1, 0.0)])
    ordered = orientation_gap(stretched, flat)
    assert bool((ordered.diff() < 0).all())
    assert float(ordered[2]) < 1e-12


def test_gradient_is_finite_for_planar_molecules_on_the_reference_itself():
    reference = _points(1, 7, 8)[0]
    reference[:, 2] = 0.0
    reference -= reference.mean(dim=0)
    frames = reference.unsqueeze(0).clone().requires_grad_()
    superposed = superpose(frames, reference)[0]
    superposed.pow(3).sum().backward()
    assert torch.allclose(superposed[0], reference, atol=1e-12)
    assert bool(torch.isfinite(frames.grad).all())


def test_invariant_in_float32_far_from_the_origin():
    reference = _points(1, 10, 9)[0] * 0.2
    frame = _points(1, 10, 10) * 0.2
    turn = torch.tensor(Rotation.random(random_state=1).as_matrix())
    moved = (frame @ turn.T + 1.0).float()
    # float32 rounds positions near 1 nm to 6e-8 nm
    assert torch.allclose(superpose(moved, reference)[0], superpose(frame, reference)[0], atol=1e-6)
