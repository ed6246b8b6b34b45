"""Parts that recompute: the same gradients and names, less kept."""

import pytest
import torch
from torch import nn

from openmm_latent.errors import LatentError
from openmm_latent.nn.pairformer import PairformerBlock
from openmm_latent.nn.recomputing import recompute


class Stack(nn.Module):
    """Blocks in a row; counts how often each runs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.blocks = nn.ModuleList(PairformerBlock(8, 4, 2, 1, 4, 2, 0.25) for _ in range(3))

    def forward(self, single, pair):
        mask = torch.ones(single.shape[:2], dtype=torch.bool)
        for block in self.blocks:
            single, pair = block(single, pair, mask)
        return single.square().sum() + pair.square().sum()


def kept_and_gradients(model):
    """Return how many numbers are kept for the way back, and the gradients by name."""
    generator, kept = torch.Generator().manual_seed(2), []
    single, pair = torch.randn(2, 9, 8, generator=generator), torch.randn(2, 9, 9, 4, generator=generator)
    torch.manual_seed(3)  # of the dropout
    with torch.autograd.graph.saved_tensors_hooks(lambda part: (kept.append(part.numel()), part)[1], lambda part: part):
        loss = model(single, pair)
    loss.backward()
    return sum(kept), {name: weights.grad for name, weights in zip(model.state_dict(), model.parameters(), strict=True)}


def test_gradients_are_the_same_and_less_is_kept():
    plain, changed = Stack().train(), Stack().train()
    assert recompute(changed, (PairformerBlock,)) == 3
    assert list(changed.state_dict()) == list(plain.state_dict())
    much, expected = kept_and_gradients(plain)
    little, found = kept_and_gradients(changed)
    assert little < 0.1 * much
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4)
    fresh = Stack()
    fresh.load_state_dict(changed.state_dict())


def test_a_model_without_such_parts_is_refused():
    with pytest.raises(LatentError, match="kinds must name parts of the model, got LSTM, of which Stack has none"):
        recompute(Stack(), (nn.LSTM,))
