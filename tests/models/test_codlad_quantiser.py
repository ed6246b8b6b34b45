"""CODLAD's codebook: nearest codes, straight-through gradient, running means by hand, dead codes, utilisation."""

import numpy as np
import pytest
import torch

from openmm_latent.models.codlad.quantiser import VectorQuantiser


def quantiser(codes, **settings):
    """Return a quantiser in training that holds these codes and has been called before."""
    codes = torch.tensor(codes)
    made = VectorQuantiser(*codes.shape, **settings)
    made.codes.copy_(codes)
    made.sums.copy_(codes)
    made.n_calls.fill_(1)
    return made.train()


def random_latents(n, seed):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def test_codes_are_the_nearest():
    made = VectorQuantiser(50, 3).eval()
    latent = random_latents(3000, 2).view(2, 1500, 3)  # more than one block
    expected = torch.cdist(latent.reshape(-1, 3), made.codes).argmin(1).view(2, 1500)
    snapped, chosen, _ = made(latent)
    assert torch.equal(chosen, expected)
    torch.testing.assert_close(snapped, made.codes[expected], atol=1e-6, rtol=0)
    assert torch.equal(made.codebook(latent), made.codes[expected])


def test_scripted_codebook_is_the_eager_one():
    made, latent = VectorQuantiser(64, 3).eval(), random_latents(40, 3).view(4, 10, 3)
    assert torch.equal(torch.jit.script(made.codebook)(latent), made.codebook(latent))


def test_gradient_goes_straight_through_and_commitment_draws_to_the_code():
    made = quantiser([[0.0, 0.0], [1.0, 1.0]], commitment=0.25).eval()
    latent = torch.tensor([[0.2, 0.1], [0.9, 1.2]], requires_grad=True)
    snapped, chosen, commitment = made(latent)
    assert chosen.tolist() == [0, 1]
    weights = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    straight = torch.autograd.grad((weights * snapped).sum(), latent, retain_graph=True)[0]
    assert torch.equal(straight, weights)
    drawn = torch.autograd.grad(commitment, latent)[0]
    torch.testing.assert_close(drawn, 0.25 * 2 * torch.tensor([[0.2, 0.1], [-0.1, 0.2]]) / 4)
    assert float(commitment.detach()) == pytest.approx(0.25 * (0.04 + 0.01 + 0.01 + 0.04) / 4)


def test_codes_are_running_means_by_hand():
    made = quantiser([[0.0], [10.0]], decay=0.9)
    batches = [[1.0, 2.0, 9.0], [0.5, 11.0, 12.0]]
    counts, sums = np.array([1.0, 1.0]), np.array([0.0, 10.0])
    for batch in batches:
        made(torch.tensor(batch).unsqueeze(1))
        codes = sums / counts
        members = np.abs(np.array(batch)[:, None] - codes).argmin(axis=1)
        for code in range(2):
            mine = np.array(batch)[members == code]
            counts[code] = 0.9 * counts[code] + 0.1 * len(mine)
            sums[code] = 0.9 * sums[code] + 0.1 * mine.sum()
    np.testing.assert_allclose(made.codes[:, 0], sums / counts, rtol=1e-6)
    np.testing.assert_allclose(made.counts, counts, rtol=1e-6)


def test_a_code_that_nobody_chooses_stays_where_it_is():
    made = quantiser([[0.0], [100.0]], decay=0.5, dead_after=10_000)
    for _ in range(60):  # its running count falls to 1e-18
        made(torch.tensor([[0.3]]))
    assert float(made.codes[1]) == pytest.approx(100.0)
    assert float(made.codes[0]) == pytest.approx(0.3)


def test_dead_codes_move_to_where_the_error_is():
    made = quantiser([[0.0], [1.0], [500.0]], decay=0.99, dead_after=3)
    latent = torch.tensor([[0.0], [1.0], [7.0]])
    for _ in range(2):
        made(latent)
    assert float(made.codes[2]) == pytest.approx(500.0)
    made(latent)
    assert float(made.codes[2]) == pytest.approx(7.0)  # the others lie on their codes, or so near that it is unlikely
    assert int(made.idle[2]) == 0
    assert made(latent)[1].tolist() == [0, 1, 2]


def test_more_dead_codes_than_latents_revive_by_and_by():
    made = quantiser([[0.0, 0.0]] + [[50.0, float(k)] for k in range(20)], dead_after=2)
    latent = random_latents(4, 5)[:, :2]
    moved = []
    for _ in range(4):
        made(latent)
        moved.append(int((made.codes[1:, 0] < 40).sum()))
    assert moved[:2] == [0, 4]
    assert moved[1] < moved[2] <= 8
    assert bool(torch.isfinite(made.codes).all())


def test_revival_is_the_same_again():
    def codes():
        made = VectorQuantiser(32, 3, dead_after=2).train()
        for step in range(8):
            made(random_latents(16, step))
        return made.codes

    first = codes()
    torch.manual_seed(99)
    assert torch.equal(first, codes())


def test_the_first_batch_places_the_codebook():
    made = VectorQuantiser(40, 3).train()
    latent = 5.0 + 0.1 * random_latents(16, 7)
    chosen = made(latent)[1]
    assert len(torch.unique(made.codes, dim=0)) == 40
    assert float((made.codes - 5.0).abs().max()) < 0.6
    assert len(chosen.unique()) > 8


def test_evaluation_moves_nothing():
    made = quantiser([[0.0], [1.0]]).eval()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made(torch.tensor([[0.4], [3.0]]))
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_utilisation_is_share_and_perplexity():
    made = VectorQuantiser(8, 3)
    share, perplexity = made.utilisation(torch.tensor([[0, 0, 1], [1, 2, 2]]))
    assert share == pytest.approx(3 / 8)
    assert perplexity == pytest.approx(3.0)
    assert made.utilisation(torch.zeros(5, dtype=torch.int64)) == pytest.approx((1 / 8, 1.0))


def test_a_codebook_finds_the_clusters():
    """Codes end within 0.05 of eight tight clusters' centres; the standard error of a mean of 100 is 0.001."""
    centres = 3.0 * torch.tensor([[x, y, z] for x in (0.0, 1) for y in (0.0, 1) for z in (0.0, 1)])
    made = VectorQuantiser(8, 3, decay=0.9, dead_after=20).train()
    for step in range(300):
        which = torch.randint(8, (64,), generator=torch.Generator().manual_seed(step))
        made(centres[which] + 0.01 * random_latents(64, 1000 + step))
    assert float(torch.cdist(centres, made.codes).min(1)[0].max()) < 0.05


def test_the_nearest_of_the_codes_that_are_known():
    quantiser = VectorQuantiser(64, 3)
    generator = torch.Generator().manual_seed(5)
    latent = torch.randn(4, 7, 3, generator=generator)
    is_known = torch.rand(7, 64, generator=generator) < 0.2
    found = quantiser.codebook.nearest_known(latent, is_known)
    apart = (latent.unsqueeze(2) - quantiser.codes).square().sum(3)  # (4, 7, 64)
    expected = apart.masked_fill(~is_known, float("inf")).argmin(2)
    assert torch.equal(found, expected)
    everything = torch.ones_like(is_known)
    assert torch.equal(quantiser.codebook.nearest_known(latent, everything), quantiser.codebook.nearest(latent))
    assert not torch.equal(found, quantiser.codebook.nearest(latent))
