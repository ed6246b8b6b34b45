"""DynaProt's network and losses: positive definite, invariant, deaf to padding, the right size; the file of weights."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import linalg
from scipy.spatial.transform import Rotation

from openmm_latent.errors import LatentError
from openmm_latent.models.dynaprot import CONFIGS, DynaProt, DynaProtConfig, load_weights, save_weights
from openmm_latent.models.dynaprot.elastic import elastic_covariance, springs
from openmm_latent.models.dynaprot.losses import (
    compared,
    compared_coupling,
    coupling_loss,
    marginal_loss,
    symmetric_logarithm,
)
from openmm_latent.models.dynaprot.network import without_common_shift
from openmm_latent.models.dynaprot.surroundings import centred_structure

SMALL = DynaProtConfig(width=16, n_layers=2, n_heads=2, n_scalar=4, pair_width=8, n_triangle_heads=2)
#: One with all that the small configuration adds to the paper, one without.
PLAIN = replace(SMALL, uses_surroundings=False, uses_elastic_network=False, transition_factor=0)
BOTH = [SMALL, PLAIN]


def network(config=SMALL, seed=1):
    """Return a network whose weights are large, so that nothing hides in small outputs."""
    torch.manual_seed(seed)
    model = DynaProt(config).eval()
    for part in (model.marginal.head[-1], model.pair.head[-1]):
        torch.nn.init.normal_(part.weight, std=1.0)
    return model


def walk(n, seed, n_chains=1):
    """Return the arguments of a network for one random chain of residues 0.38 nm apart."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(n, 3))
    places = np.cumsum(0.38 * steps / np.linalg.norm(steps, axis=1, keepdims=True), axis=0)
    turns = Rotation.random(n, random_state=seed).as_matrix()
    return (
        torch.tensor(rng.integers(0, 21, size=(1, n))),
        torch.tensor(turns, dtype=torch.float32)[None],
        torch.tensor(places, dtype=torch.float32)[None],
        torch.tensor(np.sort(rng.integers(0, n_chains, size=(1, n)))),
        torch.ones(1, n, dtype=torch.bool),
    )


@pytest.mark.parametrize("config", BOTH)
def test_a_thousand_random_structures_give_positive_definite_matrices(config):
    """By construction; 250 structures for each of two networks' weights and two chain lengths."""
    for seed, n in ((1, 5), (2, 24)):
        model = network(config, seed)
        for first in range(0, 250, 50):
            parts = [torch.cat(part) for part in zip(*(walk(n, first + k) for k in range(50)), strict=True)]
            with torch.no_grad():
                cholesky, coupling = model(*parts)
            assert bool((cholesky.diagonal(dim1=-2, dim2=-1) > 0).all())
            assert torch.equal(cholesky, cholesky.tril())
            assert torch.equal(coupling, coupling.transpose(1, 2))
            assert float(torch.linalg.eigvalsh(coupling.double()).min()) > 0
            marginal = cholesky.double() @ cholesky.double().transpose(-1, -2)
            assert float(torch.linalg.eigvalsh(marginal).min()) > 0


@pytest.mark.parametrize("config", BOTH)
def test_rotation_and_translation_change_nothing(config):
    model, parts = network(config), walk(30, 3)
    turn = torch.tensor(Rotation.random(random_state=8).as_matrix(), dtype=torch.float32)
    types, rotations, places, chains, mask = parts
    moved = (types, turn @ rotations, places @ turn.T + torch.tensor([1.5, -2.0, 0.7]), chains, mask)
    with torch.no_grad():
        for there, here in zip(model(*moved), model(*parts), strict=True):
            assert float((there - here).abs().max()) < 1e-5 * float(here.abs().max())


@pytest.mark.parametrize("config", BOTH)
def test_batches_with_padding_equal_single_structures(config):
    model, lengths = network(config), (12, 7, 20)
    singles = [walk(n, seed, n_chains=2) for seed, n in enumerate(lengths)]
    n = max(lengths) + 3
    together = []
    for k, part in enumerate(zip(*singles, strict=True)):
        whole = torch.full((3, n, *part[0].shape[2:]), 5).to(part[0].dtype)  # not zero: padding may hold anything
        whole = torch.zeros_like(whole) if k == 4 else whole
        for row, single in zip(whole, part, strict=True):
            row[: single.shape[1]] = single[0]
        together.append(whole)
    with torch.no_grad():
        cholesky, coupling = model(*together)
        for k, single in enumerate(singles):
            alone = model(*single)
            torch.testing.assert_close(cholesky[k, : lengths[k]], alone[0][0], atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(coupling[k, : lengths[k], : lengths[k]], alone[1][0], atol=1e-6, rtol=1e-5)
            assert float(coupling[k, : lengths[k], lengths[k] :].abs().max()) == 0.0


def test_chains_are_told_apart():
    model, parts = network(), walk(20, 4)
    other = torch.arange(20)[None] // 10
    with torch.no_grad():
        one, two = model(*parts)[1], model(*parts[:3], other, parts[4])[1]
    assert float((one - two).abs().max()) > 1e-6


@pytest.mark.parametrize("config", [CONFIGS["tiny"], PLAIN])
def test_first_guess_is_of_sensible_size(config):
    torch.manual_seed(1)
    with torch.no_grad():
        cholesky, coupling = DynaProt(config).eval()(*walk(40, 1))
    rmsf = 10 * cholesky.square().sum((-1, -2)).sqrt()  # [Å]
    assert 0.3 < float(rmsf.mean()) < 2.0
    assert 0.3 < 10 * float(coupling.diagonal(dim1=1, dim2=2).mean().sqrt()) < 1.5


def test_elastic_network_is_that_of_the_hessian():
    """Against the pseudo-inverse of a Hessian built by loops, with the six rigid modes left out."""
    shape = centred_structure(*(part.double() if part.is_floating_point() else part for part in walk(9, 4)))
    constants = springs(shape)[0].numpy()
    places = 10 * shape.positions[0].numpy()
    hessian = np.zeros((9, 3, 9, 3))
    for i in range(9):
        for j in range(i):
            unit = (places[j] - places[i]) / np.linalg.norm(places[j] - places[i])
            block = constants[i, j] * (0.99 * np.outer(unit, unit) + 0.01 / 3 * np.eye(3))
            hessian[i, :, i] += block
            hessian[j, :, j] += block
            hessian[i, :, j] -= block
            hessian[j, :, i] -= block
    axes = [np.cross(axis, places) for axis in np.eye(3)] + [np.tile(axis, (9, 1)) for axis in np.eye(3)]
    rigid = np.linalg.qr(np.array(axes).reshape(6, 27).T)[0]
    projector = np.eye(27) - rigid @ rigid.T
    expected = np.linalg.pinv(projector @ hessian.reshape(27, 27) @ projector, rcond=1e-10)
    found = elastic_covariance(shape, springs(shape))[0].permute(0, 2, 1, 3).reshape(27, 27)
    np.testing.assert_allclose(found, expected, atol=1e-7 * np.abs(expected).max())


def test_an_untrained_small_network_is_the_elastic_network():
    parts = walk(15, 2)
    shape = centred_structure(*parts)
    with torch.no_grad():
        cholesky, coupling = DynaProt(CONFIGS["tiny"]).eval()(*parts)
        covariance = elastic_covariance(shape, springs(shape))[0]
    own = covariance.diagonal(dim1=0, dim2=1).permute(2, 0, 1)
    turned = shape.rotations[0].double().transpose(1, 2) @ own @ shape.rotations[0].double()
    factor = 10 * cholesky[0].double()
    torch.testing.assert_close(factor @ factor.transpose(1, 2), turned, atol=1e-2, rtol=1e-2)
    traces = covariance.diagonal(dim1=-2, dim2=-1).sum(-1) / 3
    torch.testing.assert_close(100 * coupling[0].double(), traces + 1e-3 / 15, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_residues_get_finite_numbers(n):
    with torch.no_grad():
        for matrix in network()(*walk(n, 1)):
            assert bool(torch.isfinite(matrix).all())


def test_paper_configuration_has_the_published_number_of_parameters():
    model = DynaProt(CONFIGS["paper"])
    n_marginal, n_all = (sum(p.numel() for p in part.parameters()) for part in (model.marginal, model))
    assert abs(n_marginal / 955_000 - 1) < 0.05
    assert abs(n_all / 2_860_000 - 1) < 0.05


@pytest.mark.slow
def test_a_paper_network_is_quick_on_271_residues():
    """On one thread, in processor time, as other processes may use the cores; 0.06 to 0.1 s when this was written."""
    model, parts = DynaProt(CONFIGS["paper"]).eval(), walk(271, 5)
    shape, spent = centred_structure(*parts), []
    with torch.no_grad():
        for _ in range(4):
            began = time.process_time()
            model.marginal(shape)
            spent.append(time.process_time() - began)
    assert min(spent) < 0.3, spent


def positive(k, seed, spread=1.0):
    rng = np.random.default_rng(seed)
    vectors = np.linalg.qr(rng.normal(size=(k, k)))[0]
    return torch.tensor(vectors @ np.diag(np.exp(spread * rng.normal(size=k))) @ vectors.T)


def test_logarithm_is_scipys():
    for seed in range(5):
        matrix = positive(6, seed)
        np.testing.assert_allclose(symmetric_logarithm(matrix), linalg.logm(matrix.numpy()), atol=1e-10)


def test_logarithm_counts_small_eigenvalues_as_the_floor():
    found = symmetric_logarithm(torch.diag(torch.tensor([1e-9, -1e-3, 2.0])), floor=1e-6)
    torch.testing.assert_close(found.diagonal().exp(), torch.tensor([1e-6, 1e-6, 2.0], dtype=torch.float64))


@pytest.mark.parametrize(
    "matrix",
    [
        positive(4, 1),
        positive(5, 2, spread=4.0),
        torch.eye(4, dtype=torch.float64) * 0.3,
        torch.diag(torch.tensor([0.3, 0.3, 0.3 + 1e-9, 2.0], dtype=torch.float64)),
        torch.diag(torch.tensor([1e-9, 0.4, 0.4, 5.0], dtype=torch.float64)),
    ],
    ids=["apart", "wide", "all equal", "nearly equal", "below the floor"],
)
def test_gradient_of_the_logarithm_is_that_of_finite_differences(matrix):
    rng = np.random.default_rng(4)
    size = len(matrix)
    weight, direction = (torch.tensor(m + m.T) for m in rng.normal(size=(2, size, size)))
    if float(matrix[0, 0]) == 1e-9:  # clamped: the derivative exists only along what stays below the floor
        direction[0, 0] = 0.0
    variable = matrix.clone().requires_grad_()
    gradient = torch.autograd.grad((weight * symmetric_logarithm(variable)).sum(), variable)[0]
    step = 1e-6
    ahead, behind = (float((weight * symmetric_logarithm(matrix + s * direction)).sum()) for s in (step, -step))
    found = float((gradient * direction).sum())
    assert bool(torch.isfinite(gradient).all())
    assert abs(found - (ahead - behind) / (2 * step)) < 1e-5 * max(1.0, abs(found))


def test_common_shift_is_taken_out_and_nothing_else():
    mask = torch.tensor([[True] * 6 + [False] * 2])
    inside = positive(6, 3)
    padded = torch.full((1, 8, 8), 3.0, dtype=torch.float64)
    padded[0, :6, :6] = inside
    found = without_common_shift(padded, mask)[0]
    projector = torch.eye(6, dtype=torch.float64) - 1 / 6
    torch.testing.assert_close(found[:6, :6], projector @ inside @ projector + 1e-3 / 6)
    assert float(found[6:].abs().max()) == 0.0


@pytest.mark.parametrize("loss", ["log_frobenius", "mse"])
def test_losses_vanish_at_the_label_and_ignore_padding(loss):
    factor = torch.linalg.cholesky(torch.stack([positive(3, seed) for seed in range(5)]))[None]
    mask = torch.tensor([[True] * 4 + [False]])
    label = compared(factor @ factor.transpose(-1, -2), loss)
    label[0, 4] = 7.0
    assert float(marginal_loss(factor, label, mask, loss)) < 1e-20
    assert float(marginal_loss(1.1 * factor, label, mask, loss)) > 1e-3
    coupling = positive(5, 9)[None]
    told = compared_coupling(coupling, mask, loss)
    changed = coupling.clone()
    changed[0, 4] = changed[0, :, 4] = 0.3
    assert float(coupling_loss(changed, told, mask, loss)) < 1e-20
    assert float(coupling_loss(coupling + 2.0, told, mask, loss)) < 1e-20  # moves all residues as one
    assert float(coupling_loss(1.1 * coupling, told, mask, loss)) > 1e-3


def test_log_frobenius_is_the_distance_of_logarithms():
    true, said = positive(3, 1), positive(3, 2)
    factor = torch.linalg.cholesky(said)[None, None]
    expected = np.linalg.norm(linalg.logm(said.numpy()) - linalg.logm(true.numpy())) ** 2
    mask = torch.ones(1, 1, dtype=torch.bool)
    assert abs(float(marginal_loss(factor, compared(true, "log_frobenius")[None, None], mask)) - expected) < 1e-9


def test_unknown_losses_and_bad_sizes_are_told():
    with pytest.raises(LatentError, match="loss must be one of log_frobenius, mse, got 'wasserstein'"):
        compared(torch.eye(3), "wasserstein")
    with pytest.raises(LatentError, match="n_heads must be at least 1, got 0"):
        DynaProtConfig(n_heads=0)
    with pytest.raises(LatentError, match=r"dropout must lie between 0 and 1, got 1\.5"):
        DynaProtConfig(dropout=1.5)
    with pytest.raises(LatentError, match=r"rotations must have shape \(batch, n_residues, 3, 3\)"):
        network()(torch.zeros(1, 4, dtype=torch.int64), *walk(5, 1)[1:])


def test_weights_survive_the_file(tmp_path):
    model, parts = network(), walk(15, 6)
    path = save_weights(tmp_path / "protein.weights.pt", model, {"seed": 3, "proteins": {"villin": {"frames": 10}}})
    loaded, training = load_weights(path)
    assert training == {"seed": 3, "proteins": {"villin": {"frames": 10}}}
    assert loaded.config == model.config
    with torch.no_grad():
        for one, other in zip(loaded(*parts), model(*parts), strict=True):
            assert torch.equal(one, other)
    assert [file.name for file in tmp_path.iterdir()] == ["protein.weights.pt"]


def test_files_that_are_no_weights_get_a_sentence(tmp_path):
    path = save_weights(tmp_path / "whole.pt", network(), {})
    with pytest.raises(LatentError, match="does not exist"):
        load_weights(tmp_path / "absent.pt")
    whole = path.read_bytes()
    for name, content in {"half": whole[: len(whole) // 2], "empty": b"", "text": b"not weights"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LatentError, match="cannot be read: it is truncated or no file of weights"):
            load_weights(tmp_path / name)
    torch.save({"family": "codlad", "config": {}}, tmp_path / "foreign.pt")
    with pytest.raises(LatentError, match="must be of family 'dynaprot', got 'codlad'"):
        load_weights(tmp_path / "foreign.pt")
    content = torch.load(path, weights_only=True)
    torch.save({**content, "config": {**content["config"], "n_wings": 2}}, tmp_path / "newer.pt")
    with pytest.raises(LatentError, match="was written by another version"):
        load_weights(tmp_path / "newer.pt")
    with pytest.raises(LatentError, match=r"folder .* does not exist"):
        save_weights(tmp_path / "nowhere" / "w.pt", network(), {})
