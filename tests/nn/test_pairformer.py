"""Pairformer blocks: padding, order, conditions, formulas, TorchScript."""

import pytest
import torch

from openmm_latent.errors import LatentError
from openmm_latent.nn.pairformer import AdaptiveNorm, PairBiasAttention, PairformerBlock, Transition

N, N_PADDED, N_SINGLE, N_PAIR, N_CONDITION = 7, 10, 12, 8, 5


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def draws(*shape, seed=1):
    return torch.randn(*shape, generator=seeded(seed)).double()


def features(n=N, n_batch=2):
    """Return features of residues and pairs, a mask without padding, and a condition, double precision."""
    mask = torch.ones(n_batch, n, dtype=torch.bool)
    return (
        draws(n_batch, n, N_SINGLE),
        draws(n_batch, n, n, N_PAIR, seed=2),
        mask,
        draws(n_batch, N_CONDITION, seed=3),
    )


def block(n_condition=0, dropout=0.3):
    """Return a block whose conditions, if any, have been learned."""
    torch.manual_seed(4)
    made = PairformerBlock(N_SINGLE, N_PAIR, 3, 2, 4, 2, dropout, n_condition)
    for name, weights in made.named_parameters():
        if "to_scale_shift" in name:
            torch.nn.init.normal_(weights)
    return made.double().eval()


def padded(tensor, *axes):
    """Return the tensor with noise as padding along these axes."""
    shape = [N_PADDED if axis in axes else size for axis, size in enumerate(tensor.shape)]
    whole = 10.0 * draws(*shape, seed=9)
    whole[tuple(slice(size) for size in tensor.shape)] = tensor
    return whole


def test_padding_changes_nothing():
    single, pair, mask, condition = features()
    wide = torch.zeros(2, N_PADDED, dtype=torch.bool)
    wide[:, :N] = True
    layer = block(N_CONDITION)
    found = layer(padded(single, 1), padded(pair, 1, 2), wide, condition)
    expected = layer(single, pair, mask, condition)
    torch.testing.assert_close(found[0][:, :N], expected[0], atol=1e-10, rtol=0)
    torch.testing.assert_close(found[1][:, :N, :N], expected[1], atol=1e-10, rtol=0)


def test_updates_follow_the_order_of_residues():
    single, pair, mask, _ = features()
    order = torch.randperm(N, generator=seeded(5))
    layer = block()
    turned = layer(single[:, order], pair[:, order][:, :, order], mask)
    expected = layer(single, pair, mask)
    torch.testing.assert_close(turned[0], expected[0][:, order], atol=1e-10, rtol=0)
    torch.testing.assert_close(turned[1], expected[1][:, order][:, :, order], atol=1e-10, rtol=0)


def test_attention_is_that_of_the_formula():
    """Algorithm 24, written out for one head by loops."""
    single, pair, mask, _ = features(n=4, n_batch=1)
    torch.manual_seed(6)
    layer = PairBiasAttention(N_SINGLE, 1, N_PAIR).double()
    normed = layer.norm(single)[0]
    queries, (keys, values) = layer.to_queries(normed), layer.to_keys_values(normed).split(N_SINGLE, dim=-1)
    bias = layer.to_bias(layer.norm_pair(pair))[0, :, :, 0]
    for i in range(4):
        logits = torch.stack([queries[i] @ keys[j] / N_SINGLE**0.5 + bias[i, j] for j in range(4)])
        gathered = sum(share * values[j] for j, share in enumerate(torch.softmax(logits, 0)))
        expected = layer.to_out(torch.sigmoid(layer.to_gate(normed))[i] * gathered)
        torch.testing.assert_close(layer(single, pair, mask)[0, i], expected, atol=1e-10, rtol=0)


def test_pairs_reach_residues_but_not_the_other_way():
    single, pair, mask, _ = features()
    layer = block()
    expected = layer(single, pair, mask)
    assert torch.equal(layer(single + 1.0 * draws(*single.shape, seed=7), pair, mask)[1], expected[1])
    assert not torch.allclose(layer(single, pair + draws(*pair.shape, seed=8), mask)[0], expected[0])


def test_a_condition_counts_sample_by_sample_and_starts_as_none():
    single, pair, mask, condition = features()
    layer, other = block(N_CONDITION), condition.clone()
    other[1] += 1.0
    expected, found = layer(single, pair, mask, condition), layer(single, pair, mask, other)
    for before, after in zip(expected, found, strict=True):
        torch.testing.assert_close(after[0], before[0])
        assert not torch.allclose(after[1], before[1], atol=1e-3)
    torch.manual_seed(4)
    fresh = PairformerBlock(N_SINGLE, N_PAIR, 3, 2, 4, 2, 0.3, N_CONDITION).double().eval()
    assert torch.equal(fresh(single, pair, mask, condition)[0], fresh(single, pair, mask)[0])


def test_norm_without_condition_is_an_ordinary_one():
    values = draws(2, 3, N_SINGLE)
    expected = torch.nn.functional.layer_norm(values, (N_SINGLE,))
    torch.testing.assert_close(AdaptiveNorm(N_SINGLE).double()(values), expected)
    torch.testing.assert_close(AdaptiveNorm(N_SINGLE, N_CONDITION).double()(values), expected)


def test_transition_is_that_of_the_formula():
    layer, values = Transition(N_SINGLE, 3).double(), draws(2, N_SINGLE)
    gate, hidden = (layer.norm(values) @ layer.to_hidden.weight.T).split(3 * N_SINGLE, dim=-1)
    expected = (gate * torch.sigmoid(gate) * hidden) @ layer.to_out.weight.T
    torch.testing.assert_close(layer(values), expected)


def test_dropout_is_for_training_alone():
    single, pair, mask, _ = features()
    layer = block()
    assert torch.equal(layer(single, pair, mask)[1], layer(single, pair, mask)[1])
    layer.train()
    assert not torch.equal(layer(single, pair, mask)[1], layer(single, pair, mask)[1])


@pytest.mark.parametrize("n_condition", [0, N_CONDITION])
def test_blocks_are_scriptable(n_condition):
    single, pair, mask, condition = features()
    layer = block(n_condition)
    given = (single, pair, mask, condition) if n_condition else (single, pair, mask)
    found, expected = torch.jit.script(layer)(*given), layer(*given)
    torch.testing.assert_close(found, expected)


def test_heads_must_share_the_width():
    with pytest.raises(LatentError, match=r"width must be a multiple of n_heads, got 12 and 5; change"):
        PairBiasAttention(N_SINGLE, 5, N_PAIR)
