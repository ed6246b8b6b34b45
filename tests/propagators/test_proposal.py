"""Proposal kernels: densities that integrate to one, samples that follow them, and data that they find."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats

from openmm_latent.errors import LatentError
from openmm_latent.propagators.proposal import Proposal, ProposalConfig, choose, fit_proposal, standard_uniform

SMALL = ProposalConfig(n_components=6, n_hidden=16, n_epochs=8)
WHOLE_TURN = 2 * math.pi


def double_well_segments(n_segments, n_frames, seed):
    """Draw hopping series: slow coordinate at -1 or +2 (rare), a fast one beside it; (n_frames, 2) each."""
    random = np.random.default_rng(seed)
    segments = []
    for _ in range(n_segments):
        is_right, states = False, np.zeros(n_frames)
        hops = random.random(n_frames)
        for frame in range(n_frames):
            is_right = hops[frame] > 0.05 if is_right else hops[frame] < 0.005
            states[frame] = 2.0 if is_right else -1.0
        noise = random.normal(0.0, 0.25, (n_frames, 2))
        segments.append((np.stack([states, 0.0 * states], axis=1) + noise).astype(np.float32))
    return segments


def torsion_segments(n_segments, n_frames, seed):
    """Draw series of one angle near pi, across the cut, and one coordinate that is none; (n_frames, 2) each."""
    segments = double_well_segments(n_segments, n_frames, seed)
    return [
        np.stack([np.mod(segment[:, 0] + 4.0 + math.pi, WHOLE_TURN) - math.pi, segment[:, 1]], axis=1).astype(
            np.float32
        )
        for segment in segments
    ]


@pytest.fixture(scope="module")
def fitted():
    """Two fitted proposals and their periods: without and with an angle."""
    torch.set_num_threads(1)
    return {
        "plain": (fit_proposal(double_well_segments(4, 2000, 1), 5, [0.0, 0.0], SMALL, seed=1), [0.0, 0.0]),
        "angle": (fit_proposal(torsion_segments(4, 2000, 1), 5, [WHOLE_TURN, 0.0], SMALL, seed=1), [WHOLE_TURN, 0.0]),
    }


def grid(period, reach, n):
    """Return midpoints and the spacing of a quadrature over one period, or over +-reach."""
    half = period / 2 if period > 0 else reach
    edges = np.linspace(-half, half, n + 1)
    return torch.tensor(0.5 * (edges[1:] + edges[:-1]), dtype=torch.float32), edges[1] - edges[0]


@pytest.mark.parametrize("weights", [[1.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
@pytest.mark.parametrize("name", ["plain", "angle"])
def test_density_integrates_to_one_in_two_dimensions(fitted, name, weights):
    proposal, periods = fitted[name]
    (first, width_1), (second, width_2) = (grid(period, 10.0, 400) for period in periods)
    points = torch.cartesian_prod(first, second)
    for start in ([-1.0, 0.0], [3.1, -9.0]):
        origin = torch.tensor([start])
        total = 0.0
        for part in points.split(50_000):
            log_density = proposal.log_density(part, origin.expand(len(part), -1), torch.tensor(weights))
            total += float(log_density.double().exp().sum()) * width_1 * width_2
        # the midpoint rule on a 0.05 grid is exact to this for Gaussians of scale 0.03 or more
        assert abs(total - 1.0) < 2e-3


@pytest.mark.parametrize("period", [0.0, WHOLE_TURN])
def test_density_integrates_to_one_in_one_dimension(period):
    segments = [segment[:, :1] for segment in (torsion_segments if period else double_well_segments)(3, 1500, 3)]
    proposal = fit_proposal(segments, 3, [period], SMALL, seed=2)
    points, width = grid(period, 15.0, 20_000)
    for start in (-1.0, 2.0, 40.0):
        origin = torch.full((len(points), 1), start)
        log_density = proposal.log_density(points.unsqueeze(1), origin, torch.ones(2)).double()
        assert abs(float(log_density.exp().sum()) * width - 1.0) < 1e-4


@pytest.mark.parametrize("weights", [[1.0, 0.0], [0.0, 1.0], [1.0, 2.0]])
@pytest.mark.parametrize("name", ["plain", "angle"])
def test_samples_follow_the_density(fitted, name, weights):
    # Chi-square of 40 000 draws in equally probable bins of the first coordinate's distribution function (quadrature),
    # and of the second's: 12 tests, each with a false-alarm rate of 1e-4, together 1.2e-3 (a fixed seed, one draw).
    proposal, periods = fitted[name]
    n_draws, share = 40_000, torch.tensor(weights)
    start = torch.tensor([[-0.8, 0.1]])
    noise = torch.randn(n_draws, proposal.n_noise, generator=torch.Generator().manual_seed(4))
    drawn = proposal.propose(start.expand(n_draws, -1), noise, share).double().numpy()
    axes = [grid(period, 12.0, 500) for period in periods]
    points = torch.cartesian_prod(axes[0][0], axes[1][0])
    density = torch.cat(
        [proposal.log_density(part, start.expand(len(part), -1), share).double().exp() for part in points.split(50_000)]
    ).numpy()
    density = density.reshape(500, 500) / density.sum()
    for axis, (midpoints, width) in enumerate(axes):
        edges = np.append(midpoints.numpy() - width / 2, midpoints.numpy()[-1] + width / 2)
        # cells of the quadrature joined to bins of at least 1 % each, so that no draw falls between two rules
        cumulative = np.append(0.0, density.sum(axis=1 - axis).cumsum())
        ends = np.unique(np.searchsorted(cumulative, np.linspace(0.0, 1.0, 51)[1:-1]))
        bins = np.concatenate([[0], ends, [500]])
        expected = n_draws * np.diff(cumulative[bins])
        found = np.histogram(drawn[:, axis], bins=edges[bins])[0]
        assert found.sum() == n_draws
        assert stats.chisquare(found, expected * n_draws / expected.sum()).pvalue > 1e-4


def test_angles_come_back_inside_one_period(fitted):
    proposal, _ = fitted["angle"]
    start = torch.tensor([[3.1, 0.0]]).expand(5000, -1)
    noise = torch.randn(5000, 4, generator=torch.Generator().manual_seed(5))
    drawn = proposal.propose(start, noise, torch.ones(2))
    assert bool((drawn[:, 0] > -math.pi - 1e-6).all())
    assert bool((drawn[:, 0] <= math.pi + 1e-6).all())
    shifted = drawn + torch.tensor([WHOLE_TURN, 0.0])
    density = proposal.log_density(drawn, start, torch.ones(2))
    assert torch.allclose(density, proposal.log_density(shifted, start, torch.ones(2)), atol=1e-3)
    back = proposal.log_density(drawn, start - torch.tensor([WHOLE_TURN, 0.0]), torch.ones(2))
    assert torch.allclose(density, back, atol=1e-3)


def test_choosing_never_takes_an_item_of_weight_zero():
    extremes = torch.tensor([[-40.0], [-6.0], [0.0], [6.0], [40.0]])
    uniform = standard_uniform(extremes)
    assert float(uniform.min()) == 0.0  # the distribution function's rounding reaches both ends
    assert float(uniform.max()) < 1.0
    for weights, allowed in [([0.0, 1.0, 0.0], {1}), ([0.3, 0.0, 1e-3], {0, 2}), ([0.0, 0.0, 7.7], {2})]:
        chosen = choose(torch.tensor([weights]).expand(5, -1), uniform)
        assert set(chosen.tolist()) <= allowed


def test_kernel_shares_need_not_sum_to_one_and_may_be_zero(fitted):
    proposal, _ = fitted["plain"]
    generator = torch.Generator().manual_seed(6)
    start, to = torch.randn(50, 2, generator=generator), torch.randn(50, 2, generator=generator)
    each = [proposal.log_density(to, start, torch.tensor(w)).double() for w in ([1.0, 0.0], [0.0, 9.0])]
    mixed = proposal.log_density(to, start, torch.tensor([6.0, 2.0])).double()
    assert torch.allclose(mixed.exp(), 0.75 * each[0].exp() + 0.25 * each[1].exp(), rtol=1e-4)
    assert not torch.allclose(each[0], each[1], atol=0.1)


def test_independence_kernel_does_not_look_at_the_start(fitted):
    proposal, _ = fitted["plain"]
    to = torch.tensor([[-1.0, 0.0], [-1.0, 0.0]])
    start = torch.tensor([[-1.0, 0.0], [2.0, 0.0]])
    independent = proposal.log_density(to, start, torch.tensor([0.0, 1.0]))
    lagged = proposal.log_density(to, start, torch.tensor([1.0, 0.0]))
    assert float(independent[0]) == float(independent[1])
    # one lag later 98 % are still there, or 23 % have come back: 1.4 apart, less what a small network misses
    assert float(lagged[0] - lagged[1]) > 0.7


@pytest.mark.parametrize("name", ["plain", "angle"])
def test_densities_are_finite_and_moves_reversible_far_outside_the_data(fitted, name):
    proposal, _ = fitted[name]
    far = torch.tensor([[1e3, -1e3], [-1e4, 0.0], [0.0, 1e5], [50.0, 50.0]])
    near = torch.zeros(4, 2)
    for share in (torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.ones(2)):
        for to, start in ((far, near), (near, far), (far, far)):
            assert bool(torch.isfinite(proposal.log_density(to, start, share)).all())
    # within twice the data's range nothing is so improbable that a move there has no way back
    edge = torch.tensor([[5.0, 2.0], [-4.0, -2.0]])
    assert float(proposal.log_density(edge, near[:2], torch.ones(2)).min()) > -25.0


def test_lag_kernel_finds_the_transition_probability():
    # 40 000 frames; hops at 5e-3 and 5e-2 a frame. After 5 frames from the left, P(right) = 0.0224.
    proposal = fit_proposal(double_well_segments(4, 10_000, 7), 5, [0.0, 0.0], SMALL, seed=1)
    start = torch.tensor([[-1.0, 0.0]]).expand(40_000, -1)
    noise = torch.randn(40_000, 4, generator=torch.Generator().manual_seed(8))
    is_right = proposal.propose(start, noise, torch.tensor([1.0, 0.0]))[:, 0] > 0.5
    expected = 0.005 / 0.055 * (1 - 0.945**5)
    # The broad component adds at most 1 %; the fit sees some 180 hops there, an error of 7 %: five of them.
    assert 0.6 * expected < float(is_right.float().mean()) < 1.4 * expected + 0.01


@pytest.mark.parametrize(("flattening", "low", "high"), [(0.0, 0.09, 0.11), (1.0, 0.3, 0.75)])
def test_flattening_proposes_the_rare_state_more_often(flattening, low, high):
    config = dataclasses.replace(SMALL, kernels=("independence",), flattening=flattening)
    proposal = fit_proposal(double_well_segments(4, 10_000, 7), 5, [0.0, 0.0], config, seed=1)
    noise = torch.randn(40_000, 4, generator=torch.Generator().manual_seed(9))
    drawn = proposal.propose(torch.zeros(40_000, 2), noise, torch.ones(1))
    # the data has 8.7 % on the right, the broad component half of its 2 %; even states are even when flat
    assert low < float((drawn[:, 0] > 0.5).float().mean()) < high


@pytest.mark.parametrize("name", ["plain", "angle"])
def test_scripted_batched_and_repeated_calls_agree(fitted, name):
    proposal, _ = fitted[name]

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = proposal

        def forward(self, start, noise, share):
            to = self.inner.propose(start, noise, share)
            return to, self.inner.log_density(to, start, share)

    module = Both()
    scripted = torch.jit.script(module)
    generator = torch.Generator().manual_seed(10)
    start, noise = torch.randn(6, 2, generator=generator), torch.randn(6, 4, generator=generator)
    share = torch.tensor([1.0, 2.0])
    eager, compiled = module(start, noise, share), scripted(start, noise, share)
    single = [module(start[k : k + 1], noise[k : k + 1], share) for k in range(6)]
    for index in range(2):
        assert torch.allclose(eager[index], compiled[index], atol=1e-5)
        assert torch.allclose(eager[index], torch.cat([pair[index] for pair in single]), atol=1e-4)
        assert eager[index].dtype == torch.float32


def test_one_seed_gives_one_proposal():
    segments = double_well_segments(2, 600, 11)
    quick = dataclasses.replace(SMALL, n_epochs=2)
    first, same, other = (fit_proposal(segments, 2, [0.0, 0.0], quick, seed=seed) for seed in (1, 1, 2))
    values = [proposal.kernels[0].network[0].weight for proposal in (first, same, other)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_mistakes_are_told_in_a_sentence():
    segments = double_well_segments(1, 200, 12)
    with pytest.raises(LatentError, match="kernels must name lag or independence, each once, got"):
        ProposalConfig(kernels=("lag", "lag"))
    with pytest.raises(LatentError, match=r"flattening must lie between 0 and 1, got 1\.5"):
        ProposalConfig(flattening=1.5)
    with pytest.raises(LatentError, match="without it some moves have no reverse"):
        ProposalConfig(broad_weight=0.0)
    with pytest.raises(LatentError, match="periods must be n_slow=2 numbers"):
        fit_proposal(segments, 2, [0.0], SMALL)
    with pytest.raises(LatentError, match="longer than lag_frames=500"):
        fit_proposal(segments, 500, [0.0, 0.0], SMALL)
    with pytest.raises(LatentError, match="n_slow must be at least 1"):
        Proposal(0, [], SMALL)
