"""Attention among atoms in windows: what each sees, and gathering by pairs and tokens."""

import pytest
import torch

from openmm_latent import LatentError
from openmm_latent.nn.atom_attention import (
    WindowAttention,
    WindowBiases,
    WindowBlock,
    atom_windows,
    mean_by_token,
    of_pairs,
)


def test_windows_cover_all_atoms_and_look_about_themselves():
    windows = atom_windows(21, 4, 8)
    assert windows.queries.flatten()[:21].tolist() == list(range(21))
    assert windows.queries[-1].tolist() == [20, 20, 20, 20]
    assert windows.keys[2].tolist() == list(range(6, 14))
    assert windows.mask[0].tolist() == [False, False, True, True, True, True, True, True]
    assert windows.keys[windows.mask].min() == 0


def test_a_small_system_is_one_window():
    windows = atom_windows(7, 4, 8)
    assert windows.queries.tolist() == windows.keys.tolist() == [list(range(7))]
    assert bool(windows.mask.all())
    with pytest.raises(LatentError, match="n_keys at least n_queries, got 7, 9 and 8"):
        atom_windows(7, 9, 8)


@pytest.fixture
def attention():
    torch.manual_seed(1)
    return WindowAttention(8, 2, 3).eval()


def attended(attention, features, windows, condition=None):
    bias = WindowBiases(4, 1, 2)(torch.zeros(1, *windows.queries.shape, windows.keys.shape[1], 4), windows.mask)[0]
    condition = torch.zeros(*features.shape[:2], 3) if condition is None else condition
    with torch.no_grad():
        return attention(features, bias, condition, windows.queries, windows.keys)


def test_an_atom_reaches_no_farther_than_its_windows(attention):
    windows = atom_windows(21, 4, 8)
    features = torch.randn(1, 21, 8, generator=torch.Generator().manual_seed(2))
    moved = features.clone()
    moved[0, 13] += torch.randn(8, generator=torch.Generator().manual_seed(3))
    changed = (attended(attention, moved, windows) - attended(attention, features, windows)).abs().amax((0, 2)) > 1e-7
    seen_by = {int(q) for w in range(6) for q in windows.queries[w] if 13 in windows.keys[w][windows.mask[w]]}
    assert set(torch.nonzero(changed).flatten().tolist()) == seen_by == set(range(8, 16))


def test_one_window_is_plain_attention(attention):
    features = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(2))
    windows = atom_windows(7, 7, 7)
    normed = attention.norm(features, torch.zeros(2, 7, 3))
    q = attention.to_queries(normed).view(2, 7, 2, 4).transpose(1, 2)
    k, v = attention.to_keys_values(normed).view(2, 7, 2, 8).transpose(1, 2).chunk(2, -1)
    weights = torch.softmax(q @ k.transpose(-1, -2) / 2.0, dim=-1)
    gathered = (weights @ v).transpose(1, 2).reshape(2, 7, 8)
    expected = attention.to_out(torch.sigmoid(attention.to_gate(normed)) * gathered) * torch.sigmoid(torch.tensor(-2.0))
    torch.testing.assert_close(attended(attention, features, windows), expected.detach(), atol=1e-6, rtol=1e-5)


def test_a_bias_serves_several_in_a_row():
    torch.manual_seed(1)
    block, biases, windows = WindowBlock(8, 2, 3).eval(), WindowBiases(4, 3, 2), atom_windows(9, 4, 8)
    pair = torch.randn(2, *windows.queries.shape, windows.keys.shape[1], 4)
    bias = biases(pair, windows.mask)[1]
    assert bias.shape == (2, 3, 2, 4, 8)
    features, condition = torch.randn(6, 9, 8), torch.randn(6, 9, 3)
    with torch.no_grad():
        together = block(features, bias, condition, windows.queries, windows.keys)
        alone = block(features[4:5], bias[1:], condition[4:5], windows.queries, windows.keys)
    torch.testing.assert_close(together[4:5], alone, atol=1e-6, rtol=1e-5)
    with pytest.raises(LatentError, match="width must be a multiple of n_heads, got 8 and 3"):
        WindowBlock(8, 3, 3)


def test_pairs_are_gathered_and_tokens_averaged():
    values = torch.arange(18.0).view(1, 3, 3, 2)
    queries, keys = torch.tensor([[0, 2]]), torch.tensor([[1, 2, 0]])
    found = of_pairs(values, queries, keys)
    assert found.shape == (1, 1, 2, 3, 2)
    assert torch.equal(found[0, 0, 1, 0], values[0, 2, 1])
    atoms = torch.tensor([[[1.0], [3.0], [5.0]]])
    assert mean_by_token(atoms, torch.tensor([0, 0, 1]), 2).flatten().tolist() == [2.0, 5.0]
