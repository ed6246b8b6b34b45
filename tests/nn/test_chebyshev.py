import numpy as np
import pytest
import torch

from openmm_latent.errors import LatentError
from openmm_latent.nn import chebyshev
from openmm_latent.nn.chebyshev import (
    ChebyshevBasis,
    ChebyshevConvolution,
    nearest_neighbour_graph,
    scaled_laplacian,
)


def _dense_oracle(laplacian, features, weight, bias):
    """Return sum_k T_k(L) X theta_k + b from the eigenvalues: T_k(lambda) = cos(k arccos lambda)."""
    values, vectors = np.linalg.eigh(laplacian)
    angle = np.arccos(np.clip(values, -1.0, 1.0))
    result = bias
    for k, theta in enumerate(weight):
        polynomial = (vectors * np.cos(k * angle)) @ vectors.T
        result = result + polynomial @ features @ theta
    return result


def _laplacian(n_atoms, seed):
    positions = np.random.default_rng(seed).normal(size=(n_atoms, 3))
    return scaled_laplacian(nearest_neighbour_graph(positions, 4))


@pytest.mark.parametrize("largest_dense", [256, 0], ids=["dense", "neighbour lists"])
@pytest.mark.parametrize("n_terms", [1, 2, 4, 6])
def test_convolution_equals_the_spectral_definition(monkeypatch, largest_dense, n_terms):
    monkeypatch.setattr(chebyshev, "LARGEST_DENSE", largest_dense)
    laplacian = _laplacian(17, 1)
    torch.manual_seed(1)
    layer = ChebyshevConvolution(ChebyshevBasis(laplacian, n_terms), 3, 5)
    features = np.random.default_rng(2).normal(size=(2, 17, 3))
    weight = layer.linear.weight.detach().double().numpy().T.reshape(n_terms, 3, 5)
    bias = layer.linear.bias.detach().double().numpy()
    expected = np.stack([_dense_oracle(laplacian.toarray(), frame, weight, bias) for frame in features])
    result = layer(torch.tensor(features, dtype=torch.float32)).detach().numpy()
    np.testing.assert_allclose(result, expected, atol=2e-6)


def test_laplacian_spectrum_lies_between_minus_one_and_one():
    values = np.linalg.eigvalsh(_laplacian(40, 3).toarray())
    assert values.min() >= -1.0 - 1e-12
    assert values.max() <= 1.0 + 1e-12


def test_graph_has_the_nearest_neighbours_both_ways_and_no_self_loops():
    positions = np.array([[0.0, 0, 0], [1.0, 0, 0], [2.1, 0, 0], [9.0, 0, 0]])
    graph = nearest_neighbour_graph(positions, 1)
    expected = np.zeros((4, 4), dtype=bool)
    for a, b in [(0, 1), (1, 2), (2, 3)]:  # 2's nearest is 1; 3's nearest is 2
        expected[a, b] = expected[b, a] = True
    np.testing.assert_array_equal(graph.toarray(), expected)


def test_graph_equals_that_of_all_distances():
    positions = np.random.default_rng(5).normal(size=(300, 3))
    distances = np.linalg.norm(positions[:, None] - positions, axis=2)
    nearest = np.argsort(distances, axis=1)[:, 1:5]
    expected = np.zeros((300, 300), dtype=bool)
    np.put_along_axis(expected, nearest, True, axis=1)
    np.testing.assert_array_equal(nearest_neighbour_graph(positions, 4).toarray(), expected | expected.T)


def test_atoms_at_one_place_have_no_self_loops():
    graph = nearest_neighbour_graph(np.zeros((6, 3)), 2).toarray()
    assert not graph.diagonal().any()
    assert graph.sum(axis=1).min() >= 2


def test_few_atoms_are_all_connected():
    assert nearest_neighbour_graph(np.eye(3), 4).sum() == 6


def test_one_atom_is_refused():
    with pytest.raises(LatentError, match="at least 2 model atoms, got 1"):
        nearest_neighbour_graph(np.zeros((1, 3)), 4)


def test_factors_of_a_small_graph_give_the_convolution_without_its_bias():
    torch.manual_seed(2)
    layer = ChebyshevConvolution(ChebyshevBasis(_laplacian(11, 3), 4), 3, 5)
    features = torch.randn(1, 11, 3, generator=torch.Generator().manual_seed(4))
    theta, polynomials = layer.factors()
    found = polynomials @ (features[0] @ theta).view(44, 5) + layer.linear.bias
    assert torch.allclose(found, layer(features)[0], atol=1e-6)
