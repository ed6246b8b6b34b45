"""Attention over frames: rotary angles, the formula, and a memory that is a ring."""

import pytest
import torch

from openmm_latent.errors import LatentError
from openmm_latent.nn.rotary import RotaryAngles, TemporalLayer

N_BATCH, N_TOKENS, N_FRAMES, WIDTH, HEADS = 2, 3, 7, 8, 2


def draws(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def layer():
    torch.manual_seed(2)
    return TemporalLayer(WIDTH, 12, HEADS, 100.0).double().eval()


TOKENS = draws(N_BATCH, N_TOKENS, N_FRAMES, WIDTH)
TIMES = torch.tensor([[0.0, 1.0, 2.0, 5.0, 6.0, 9.0, 11.0], [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]]).double()


def test_products_tell_differences_of_times_alone():
    angles = RotaryAngles(4, 100.0).double()
    first, second = draws(1, 1, 1, 1, 4), draws(1, 1, 1, 1, 4, seed=3)

    def product(one, two):
        return (angles(first, torch.tensor([[one]]).double()) * angles(second, torch.tensor([[two]]).double())).sum()

    torch.testing.assert_close(product(3.0, 5.5), product(0.0, 2.5))
    assert abs(float(product(3.0, 5.5) - product(3.0, 3.5))) > 1e-3


def test_the_layer_is_that_of_the_formula():
    """One head and token, written out by loops."""
    torch.manual_seed(3)
    one = TemporalLayer(4, 6, 1, 100.0).double()
    with torch.no_grad():
        one.norm.weight.copy_(draws(4, seed=5))
    tokens, times = draws(1, 1, 3, 4), torch.tensor([[0.0, 1.0, 4.0]]).double()
    x = tokens[0, 0]
    normed = x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-6) * one.norm.weight
    queries, keys, values = one.to_queries_keys_values(normed).split(4, dim=-1)

    def turned(vector, time):
        rates = torch.tensor([1.0, 0.1]).double()  # 100^0, 100^(-2/4)
        real = torch.complex(vector[:2], vector[2:]) * torch.exp(1j * time * rates)
        return torch.cat([real.real, real.imag])

    for i in range(3):
        logits = torch.stack(
            [turned(queries[i], times[0, i]) @ turned(keys[j], times[0, j]) / 2.0 for j in range(i + 1)]
        )
        share = torch.softmax(logits, dim=0)
        after = x[i] + one.to_out(share @ values[: i + 1])
        gate, hidden = one.to_hidden(one.norm_hidden(after)).split(6, dim=-1)
        expected = after + one.from_hidden(gate * torch.sigmoid(gate) * hidden)
        torch.testing.assert_close(one(tokens, times)[0, 0, i], expected, atol=1e-7, rtol=0)


def test_tokens_are_apart_and_frames_see_those_before():
    other = TOKENS.clone()
    other[:, 1, 3] += 1.0
    before, after = layer()(TOKENS, TIMES), layer()(other, TIMES)
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])
    assert torch.equal(after[:, 1, :3], before[:, 1, :3])
    assert not torch.isclose(after[:, 1, 3:], before[:, 1, 3:]).all(-1).any()


def test_a_mask_of_its_own_says_who_sees_whom():
    causal = torch.ones(N_FRAMES, N_FRAMES, dtype=torch.bool).tril().expand(N_BATCH, 1, -1, -1)
    torch.testing.assert_close(layer()(TOKENS, TIMES, causal), layer()(TOKENS, TIMES))
    alone = torch.eye(N_FRAMES, dtype=torch.bool).expand(N_BATCH, 1, -1, -1)
    single = torch.cat([layer()(TOKENS[:, :, i : i + 1], TIMES[:, :1]) for i in range(N_FRAMES)], dim=2)
    torch.testing.assert_close(layer()(TOKENS, TIMES, alone), single)


@pytest.mark.parametrize("n_context", [N_FRAMES + 1, 3])
def test_steps_with_a_ring_are_a_window_that_slides(n_context):
    one, lag = layer(), 1.5
    times = lag * torch.arange(N_FRAMES).double().expand(N_BATCH, -1)
    back = torch.arange(N_FRAMES).unsqueeze(1) - torch.arange(N_FRAMES)
    seen = ((back >= 0) & (back < n_context)).expand(N_BATCH, 1, -1, -1)
    whole = one(TOKENS, times, seen)
    keys, values = torch.zeros(2, N_BATCH, N_TOKENS, n_context, WIDTH).double()
    for i in range(N_FRAMES):
        ago = (i - torch.arange(n_context)) % n_context
        ages = torch.where(ago <= i, lag * ago.double(), -1.0).expand(N_BATCH, -1)
        memory = (keys.clone(), values.clone())
        found, new_keys, new_values = one.step(
            TOKENS[:, :, i], keys, values, ages, torch.full((N_BATCH,), i % n_context)
        )
        torch.testing.assert_close(found, whole[:, :, i], atol=1e-6, rtol=0)
        assert torch.equal(keys, memory[0])
        assert torch.equal(values, memory[1])
        keys, values = new_keys, new_values


def test_layers_are_scriptable():
    torch.testing.assert_close(torch.jit.script(layer())(TOKENS, TIMES), layer()(TOKENS, TIMES))


def test_heads_must_have_pairs_of_features():
    with pytest.raises(LatentError, match=r"width must be a multiple of 2 n_heads, got 6 and 2; change"):
        TemporalLayer(6, 8, 2, 100.0)
    with pytest.raises(LatentError, match="head_width must be even, for features turn in pairs, got 3"):
        RotaryAngles(3, 100.0)
