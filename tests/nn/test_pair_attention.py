"""Invariant point attention and triangle blocks: invariance, padding, order, TorchScript."""

import pytest
import torch
from scipy.spatial.transform import Rotation

from openmm_latent.errors import LatentError
from openmm_latent.nn.invariant_point_attention import InvariantPointAttention
from openmm_latent.nn.pair_blocks import PairBlock, TriangleAttention, TriangleMultiplication

N, N_PADDED, WIDTH, N_PAIR = 9, 13, 16, 8


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def residues(seed=1, n=N, n_batch=2):
    """Return features, rotations, translations [nm], mask and pair features of random residues, double precision."""
    generator = seeded(seed)
    single = torch.randn(n_batch, n, WIDTH, generator=generator).double()
    turns = torch.tensor(Rotation.random(n_batch * n, random_state=seed).as_matrix()).view(n_batch, n, 3, 3)
    places = torch.randn(n_batch, n, 3, generator=generator).double()
    mask = torch.ones(n_batch, n, dtype=torch.bool)
    return single, turns, places, mask, torch.randn(n_batch, n, n, N_PAIR, generator=generator).double()


def attention(n_pair=0):
    torch.manual_seed(1)
    return InvariantPointAttention(WIDTH, 3, 5, 4, 2, n_pair).double().eval()


@pytest.mark.parametrize("n_pair", [0, N_PAIR])
def test_attention_sees_neither_place_nor_orientation(n_pair):
    single, turns, places, mask, pair = residues()
    pair = pair if n_pair else None
    turn = torch.tensor(Rotation.random(random_state=4).as_matrix())
    layer = attention(n_pair)
    there = layer(single, turn @ turns, places @ turn.T + torch.tensor([1.0, -2.0, 3.0]), mask, pair)
    torch.testing.assert_close(there, layer(single, turns, places, mask, pair), atol=1e-10, rtol=0)


def test_attention_sees_where_others_lie():
    single, turns, places, mask, _ = residues()
    moved = places.clone()
    moved[:, 0] += 0.3
    layer = attention()
    with torch.no_grad():
        change = layer(single, turns, moved, mask) - layer(single, turns, places, mask)
    assert float(change[:, 1:].abs().max()) > 1e-4


def test_attention_is_that_of_the_formula():
    """Algorithm 22, written out for one residue and head by loops."""
    single, turns, places, mask, _ = residues(n_batch=1, n=4)
    torch.manual_seed(3)
    layer = InvariantPointAttention(WIDTH, 1, 5, 2, 1).double()
    with torch.no_grad():
        layer.point_weight.fill_(0.7)
    s, weight = single[0], torch.nn.functional.softplus(torch.tensor(0.7, dtype=torch.float64))
    queries, (keys, values) = layer.to_queries(s), layer.to_keys_values(s).split(5, dim=-1)
    query_points = layer.to_query_points(s).view(4, 2, 3)
    both = layer.to_key_value_points(s).view(4, 3, 3)

    def placed(i, point):
        return turns[0, i] @ point + places[0, i]

    logits = torch.zeros(4, dtype=torch.float64)
    for j in range(4):
        gaps = [placed(0, query_points[0, p]) - placed(j, both[j, p]) for p in range(2)]
        squares = sum((gap**2).sum() for gap in gaps)
        w_c = (2.0 / (9.0 * 2)) ** 0.5
        logits[j] = 0.5**0.5 * (queries[0] @ keys[j] / 5**0.5 - weight * w_c / 2 * squares)
    share = torch.softmax(logits, dim=0)
    point = turns[0, 0].T @ (sum(share[j] * placed(j, both[j, 2]) for j in range(4)) - places[0, 0])
    told = torch.cat([share @ values, point, torch.sqrt((point**2).sum() + 1e-8)[None]])
    torch.testing.assert_close(layer(single, turns, places, mask)[0, 0], layer.to_out(told))


def padded(tensor, *axes):
    """Return the tensor with noise as padding along these axes."""
    shape = [N_PADDED if axis in axes else size for axis, size in enumerate(tensor.shape)]
    whole = 10.0 * torch.randn(shape, generator=seeded(9)).double()
    whole[tuple(slice(size) for size in tensor.shape)] = tensor
    return whole


def test_padding_changes_nothing():
    single, turns, places, mask, pair = residues()
    wide = torch.zeros(2, N_PADDED, dtype=torch.bool)
    wide[:, :N] = True
    layer = attention(N_PAIR)
    found = layer(padded(single, 1), padded(turns, 1), padded(places, 1), wide, padded(pair, 1, 2))
    torch.testing.assert_close(found[:, :N], layer(single, turns, places, mask, pair), atol=1e-10, rtol=0)


def blocks():
    torch.manual_seed(2)
    return PairBlock(N_PAIR, 2, 4, 2, 0.3).double().eval()


def test_padding_changes_no_pair_wherever_it_lies():
    pair = residues()[-1]
    both = torch.ones(2, N, N, dtype=torch.float64)
    wide = torch.zeros(2, N_PADDED, N_PADDED, dtype=torch.float64)
    wide[:, :N, :N] = 1
    block, whole = blocks(), padded(pair, 1, 2)
    expected = block(pair, both)
    torch.testing.assert_close(block(whole, wide)[:, :N, :N], expected, atol=1e-10, rtol=0)
    flipped = block(whole.flip(1, 2), wide.flip(1, 2)).flip(1, 2)  # padding first, residues backwards
    torch.testing.assert_close(flipped[:, :N, :N], expected, atol=1e-10, rtol=0)


def test_pairs_follow_the_order_of_residues():
    pair, both, order = residues()[-1], torch.ones(2, N, N, dtype=torch.float64), torch.randperm(N, generator=seeded(5))
    block = blocks()
    turned = block(pair[:, order][:, :, order], both)
    torch.testing.assert_close(turned, block(pair, both)[:, order][:, :, order], atol=1e-10, rtol=0)


def test_triangles_reach_the_edges_that_they_should():
    """A change of edge (1, 2) reaches, by the definitions, these edges and no others."""
    pair, both = residues(n_batch=1)[-1], torch.ones(1, N, N, dtype=torch.float64)
    other = pair.clone()
    other[0, 1, 2] += torch.randn(N_PAIR, generator=seeded(6)).double()
    reach = {
        # z_ij from z_ik and z_jk: (1, 2) is ik of all (1, j), and jk of all (i, 1)
        TriangleMultiplication(N_PAIR, True): lambda i, j: i == 1 or j == 1,
        TriangleMultiplication(N_PAIR, False): lambda i, j: i == 2 or j == 2,
        # z_ij attends to z_ik, biased by z_jk: as a key of row 1, as a bias of all (i, 1)
        TriangleAttention(N_PAIR, 2, 4, True): lambda i, j: i == 1 or j == 1,
        TriangleAttention(N_PAIR, 2, 4, False): lambda i, j: j == 2 or i == 2,
    }
    for layer, expected in reach.items():
        layer.double()
        changed = (layer(other, both) - layer(pair, both)).abs().amax(-1)[0] > 1e-9
        wanted = torch.tensor([[expected(i, j) or (i, j) == (1, 2) for j in range(N)] for i in range(N)])
        assert torch.equal(changed, wanted), layer


def test_attention_in_pieces_is_the_same():
    pair, both = residues()[-1], torch.ones(2, N, N, dtype=torch.float64)
    both[1, :, -2:] = both[1, -2:] = 0
    for is_starting in (True, False):
        layer = TriangleAttention(N_PAIR, 2, 4, is_starting).double()
        whole = layer(pair, both)
        layer.most_logits = 5 * 2 * N * N  # five rows at a time
        torch.testing.assert_close(layer(pair, both), whole, atol=1e-12, rtol=0)


def test_blocks_are_scriptable():
    single, turns, places, mask, pair = residues()
    layer, block, both = attention(N_PAIR), blocks(), torch.ones(2, N, N, dtype=torch.float64)
    torch.testing.assert_close(
        torch.jit.script(layer)(single, turns, places, mask, pair), layer(single, turns, places, mask, pair)
    )
    torch.testing.assert_close(torch.jit.script(block)(pair, both), block(pair, both))


def test_dropout_is_for_training_alone():
    pair, both = residues()[-1], torch.ones(2, N, N, dtype=torch.float64)
    block = blocks()
    assert torch.equal(block(pair, both), block(pair, both))
    block.train()
    assert not torch.equal(block(pair, both), block(pair, both))


def test_sizes_must_be_positive():
    with pytest.raises(LatentError, match=r"n_heads.* must be at least 1, got .*0"):
        InvariantPointAttention(WIDTH, 0, 4, 4, 4)
