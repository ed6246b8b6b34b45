"""Reweighting from end to end: known populations come back, and too little data gives a sentence."""

import numpy as np
import pytest

from chains import DoubleWell
from openmm_latent.analysis import ReweightConfig, make_segments, reweight
from openmm_latent.analysis.results import GAS_CONSTANT
from openmm_latent.errors import LatentError

CONFIG = ReweightConfig(temperature=300.0, n_microstates=14, n_replicas=20, n_draws=100)


def segments_of(positions, edge=0.0):
    return make_segments(
        positions, 1.0, is_in=[part > edge for part in positions], axes=[np.asarray(part) for part in positions]
    )


@pytest.fixture(scope="module")
def well():
    return DoubleWell()


@pytest.fixture(scope="module")
def result(well):
    return reweight(segments_of(well.positions(400, 80, 0.5, seed=1)), 1.0, ["right"], CONFIG)


def test_a_biased_start_does_not_matter(well, result):
    (right,) = result.populations
    assert not right.refusals
    assert not result.refusals
    raw = np.concatenate([part.is_in[:, 0] for part in result.segments]).mean()
    assert raw > 0.4  # half of the segments start there
    assert right.low < well.population < right.high  # one data set: 5 % false alarm, with a fixed seed
    assert right.high < raw
    truth = -GAS_CONSTANT * 300.0 * np.log(well.population / (1 - well.population))
    assert right.free_energy_low < truth < right.free_energy_high
    assert right.free_energy_low == pytest.approx(-GAS_CONSTANT * 300.0 * np.log(right.high / (1 - right.high)))


def test_weights_are_those_of_equilibrium(well, result):
    weights = np.concatenate(result.weights())
    assert weights.sum() == pytest.approx(1.0)
    inside = np.concatenate([part.is_in[:, 0] for part in result.segments])
    assert weights[inside].sum() == pytest.approx(result.populations[0].population, abs=1e-6)


def test_the_surface_lies_within_its_errors(well, result):
    width = well.x[1] - well.x[0]
    edges = np.append(well.x - width / 2, well.x[-1] + width / 2)
    free_energy, error = result.surface([0], [edges])
    told = np.isfinite(free_energy)
    assert told.sum() > 12
    truth = -GAS_CONSTANT * 300.0 * np.log(well.stationary)
    # All bins of a well move together by the error of its weight: compare bins with others of their own well.
    for side in (told & (well.x < 0), told & (well.x > 0)):
        difference = (free_energy - truth)[side]
        lowest = np.argmin(truth[side])
        assert np.all(np.abs(difference - difference[lowest]) < 4 * error[side] + 0.1)


def test_the_slow_process_is_found(well, result):
    assert result.processes[0].timescale == pytest.approx(well.timescale, rel=0.5)
    assert min(result.processes[0].n_there, result.processes[0].n_back) >= 5
    assert result.chapman_kolmogorov["right"].passes


def test_the_same_seed_gives_the_same_result(well):
    segments = segments_of(well.positions(200, 60, 0.5, seed=2))
    config = ReweightConfig(temperature=300.0, n_microstates=10, n_replicas=5, n_draws=60, lag_time=8.0)
    first, second = (reweight(segments, 1.0, ["right"], config).populations for _ in range(2))
    assert first == second


def refusals_of(positions, states=("right",), edge=0.0, config=CONFIG):
    result = reweight(segments_of(positions, edge), 1.0, list(states), config)
    (right,) = result.populations
    assert right.population is None
    assert right.free_energy is None
    assert result.refusals
    with pytest.raises(LatentError, match="weights are not given"):
        result.weights()
    with pytest.raises(LatentError, match="the surface is not given"):
        result.surface([0], [np.linspace(-2, 2, 11)])
    return "; ".join(right.refusals)


def test_too_few_transitions(well):
    sentence = refusals_of(well.positions(40, 60, 0.5, seed=3))
    assert "inside relaxations, and 5 each are needed: run longer" in sentence


def test_a_state_that_md_never_leaves():
    sentence = refusals_of(DoubleWell(barrier=16.0).positions(60, 60, 0.5, seed=1))
    assert "right was never left by relaxation MD" in sentence
    assert "make the relaxations longer (--jump-interval)" in sentence


def test_a_state_that_only_jumps_enter(well):
    """Segments that end before their first entry: exits are seen, entries never."""
    cut = []
    for part in well.positions(400, 60, 0.3, seed=1):
        entries = np.flatnonzero((part[:-1] <= 0) & (part[1:] > 0))
        cut.append(part[: entries[0] + 1] if len(entries) else part)
    sentence = refusals_of(cut)
    assert "right was never entered by relaxation MD, only by jumps" in sentence


def test_a_state_that_was_never_visited(well):
    assert "right was never visited: start runs there" in refusals_of(well.positions(60, 60, 0.0, seed=1), edge=9.0)
    assert "nothing but right was visited" in refusals_of(well.positions(60, 60, 0.0, seed=1), edge=-9.0)


def test_features_that_miss_a_slow_process():
    """A hidden slow coordinate decides where the state is entered from: not Markovian in what is seen."""
    hidden = np.array(
        [[0.90, 0.09, 0.01], [0.05, 0.944, 0.006], [0.0, 0.004, 0.996]]  # state, gate, and a far region
    )
    random = np.random.default_rng(5)
    positions = []
    for _ in range(2000):
        here, path = int(random.integers(2)), []
        for _ in range(80):
            path.append(here)
            here = int(random.choice(3, p=hidden[here]))
        seen = np.where(np.array(path) == 0, 1.0, -1.0)
        positions.append(seen + 0.1 * random.standard_normal(80))
    sentence = refusals_of(positions)
    assert "the second halves of the relaxations give right" in sentence
    assert "something slow is not seen" in sentence


def test_jumps_that_are_not_forgotten():
    """Segments that drift all along: no time to drop passes, and nothing is told."""
    random = np.random.default_rng(1)
    drift = [random.standard_normal(40) * 0.3 + np.linspace(-4, 4, 40) for _ in range(100)]
    energies = [np.linspace(0, 20, 40) + random.standard_normal(40) for _ in range(100)]
    segments = make_segments(drift, 1.0, is_in=[part > 0 for part in drift], observables=energies)
    result = reweight(segments, 1.0, ["right"], CONFIG)
    # Early and late frames share no region here, so that nothing can be compared; the other checks must refuse.
    assert result.populations[0].population is None
    assert result.refusals


def test_short_segments_are_refused(well):
    sentence = refusals_of(well.positions(60, 3, 0.5, seed=1))
    assert "too few to test how much of each to drop" in sentence


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0.0 K"),
        ({"lag_time": 2.5}, "lag_time must be a multiple of the frame spacing"),
        ({"lag_time": 500.0}, "lag_time 500 ps is not shorter than the longest segment"),
        ({"dropped_time": -1.0}, "dropped_time must be zero or positive"),
        ({"n_draws": 2}, "n_draws must be at least 60, got 2"),
    ],
)
def test_mistakes_are_told(well, change, sentence):
    segments = segments_of(well.positions(40, 60, 0.5, seed=3))
    with pytest.raises(LatentError, match=sentence):
        reweight(segments, 1.0, ["right"], ReweightConfig(**({"temperature": 300.0} | change)))


def test_states_must_be_named(well):
    with pytest.raises(LatentError, match="states must name the 1 columns of is_in, got 2 names"):
        reweight(segments_of(well.positions(40, 60, 0.5, seed=3)), 1.0, ["a", "b"], CONFIG)
