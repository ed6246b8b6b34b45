"""ATMOS against its contract: state, equivariance, scripting, memory and cost of long trajectories."""

import time
import tracemalloc

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import toys
from atmos_models import POSITIONS, REFERENCE, TOKENS, TOPOLOGY, bound, frames, normals, random_model
from gaussian_proteins import load_two_chains
from openmm_latent import LatentError
from openmm_latent.bundle import export_bundle, load_bundle
from openmm_latent.conformations import sample_trajectory
from openmm_latent.data.complex_tokens import read_tokens
from openmm_latent.model import check_module
from openmm_latent.models.atmos.alignment import superpose_each
from openmm_latent.models.atmos.module import BoundComplex
from openmm_latent.topology import describe_atoms

N_TOKENS = 10
MODULES = {
    "shift": bound(random_model(churn_above=0.04)),  # the interpolator takes less fresh noise
    "positions": bound(random_model(predicts_shift=False, n_refinements=0)),
    "repaired": bound(random_model(data_scale=0.01, fine_data_scale=0.01, n_sweeps=10)),
}


@pytest.fixture(params=["shift", "positions", "repaired"])
def module(request):
    return MODULES[request.param]


def turned(positions, seed=3):
    """Return frames turned and moved, and the turn."""
    turn = torch.tensor(Rotation.random(random_state=seed).as_matrix()).float()
    return positions @ turn.T + torch.tensor([1.0, -2.0, 0.5]), turn


@torch.no_grad()
def jumped(module, positions, noise, n=1):
    state = module.initial_state(positions)
    for _ in range(n):
        positions, state = module.jump(positions, state, noise)
    return positions, state


def test_it_keeps_the_contract(module):
    check_module(module, frames(2))
    n_noise, n_finer = (3 * 14 * part.sampler.n_draws for part in (module.keyframes, module.finer))
    sizes = {"jump": n_noise, "sample": n_noise, "interpolate": n_finer, "fill": 4 * n_finer}
    assert module.noise_sizes() == sizes
    assert module.capabilities() == ["jump", "initial_state", "sample", "interpolate", "fill"]
    assert [tuple(part.shape) for part in module.initial_state(frames(3))] == [(3, 10, 16), (3, 10, 10, 8)]


def test_without_an_interpolator_there_is_no_interpolate():
    module = bound(random_model(fine_time=0.0))
    assert module.capabilities() == ["jump", "initial_state", "sample"]
    assert set(module.noise_sizes()) == {"jump", "sample"}


def test_jumps_turn_and_move_with_the_frame(module):
    """Float32 positions of 1 nm have 1e-7 nm; a random network multiplies that."""
    before, noise = frames(3), normals(module, 3)
    there, turn = turned(before)
    after, state = jumped(module, before, noise, 2)
    after_there, state_there = jumped(module, there, noise, 2)
    expected = after @ turn.T + torch.tensor([1.0, -2.0, 0.5])
    torch.testing.assert_close(after_there, expected, atol=1e-4, rtol=0)
    assert (after - before).norm(dim=2).mean() > 0.01
    for one, other in zip(state, state_there, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_interpolation_turns_with_its_start_and_does_not_depend_on_how_the_end_lies(module):
    start, end, noise, left = (
        frames(2),
        frames(2, seed=9, size=0.05),
        normals(module, 2, method="interpolate"),
        torch.tensor([4.0, 2.0]),
    )
    with torch.no_grad():
        between = module.interpolate(start, end, left, noise)
        there = module.interpolate(turned(start)[0], turned(end, seed=8)[0], left, noise)
    torch.testing.assert_close(there, turned(between)[0], atol=1e-4, rtol=0)


def test_a_mirror_image_is_another_structure(module):
    before, noise = frames(1), normals(module, 1)
    mirrored = before * torch.tensor([-1.0, 1.0, 1.0])
    state, other = jumped(module, before, noise)[1], jumped(module, mirrored, noise)[1]
    assert float((state[0] - other[0]).abs().max()) > 1e-2


def test_the_state_remembers(module):
    noise, first, other = normals(module, 1), frames(1), frames(1, seed=5, size=0.05)
    with torch.no_grad():
        _, state = module.jump(other, module.initial_state(other), noise)
        remembering, _ = module.jump(first, state, noise)
        fresh, _ = module.jump(first, module.initial_state(first), noise)
    assert float((remembering - fresh).abs().max()) > 1e-4


def test_a_batch_is_each_alone_and_no_input_is_changed(module):
    before, noise = frames(3), normals(module, 3)
    kept = [before.clone(), noise.clone()]
    state = module.initial_state(before)
    known = [part.clone() for part in state]
    with torch.no_grad():
        together, after = module.jump(before, state, noise)
    assert all(torch.equal(a, b) for a, b in zip([before, noise, *state], [*kept, *known], strict=True))
    for i in range(3):
        alone, single = jumped(module, before[i : i + 1], noise[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-5, rtol=0)
        torch.testing.assert_close(single[1], after[1][i : i + 1], atol=1e-5, rtol=1e-5)


def test_independent_samples_differ_by_their_noise_alone(module):
    with torch.no_grad():
        drawn = module.sample(normals(module, 4))
        again = module.sample(normals(module, 4))
    assert torch.equal(drawn, again)
    assert drawn.shape == (4, 14, 3)
    assert float((drawn[0] - drawn[1]).abs().max()) > 1e-3


def test_the_last_step_of_an_interval_is_its_end(module):
    start, end = frames(2), turned(frames(2, seed=9))[0]
    with torch.no_grad():
        last = module.interpolate(start, end, torch.ones(2), normals(module, 2, method="interpolate"))
    torch.testing.assert_close(
        last, superpose_each(module.superposition, end, start, module.weights), atol=1e-5, rtol=0
    )


def exported(module, path):
    masses = [list(TOPOLOGY.atoms())[i].element.mass._value for i in TOKENS.atoms]
    return export_bundle(
        module,
        path,
        family="ATMOS",
        atoms=describe_atoms(TOPOLOGY, TOKENS.atoms.tolist()),
        masses=masses,
        lag_time=10.0,
        config={},
        training={},
        reference_positions=REFERENCE,
    )


def test_scripted_and_reloaded_is_eager(module, tmp_path):
    reloaded = load_bundle(exported(module, tmp_path / "complex.latent.pt")).module
    before, noise = frames(2), normals(module, 2)
    with torch.no_grad():
        expected, state = jumped(module, before, noise, 2)
        found, other = jumped(reloaded, before, noise, 2)
        way, left = normals(module, 2, method="interpolate"), torch.tensor([3.0, 2.0])
        between = module.interpolate(before, found, left, way)
        also = reloaded.interpolate(before, found, left, way)
        drawn = module.sample(noise), reloaded.sample(noise)
        of_all = normals(module, 2, method="fill")
        filled = module.fill(before, found, of_all), reloaded.fill(before, found, of_all)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(other[1], state[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(also, between, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(*drawn, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(*filled, atol=1e-6, rtol=1e-6)


def test_filling_draws_what_steps_with_memory_draw(module):
    """All frames between two key frames at once: those of steps that hand the interpolator's memory on."""
    keys, noise = frames(3, size=0.03), normals(module, 2, method="fill")
    begun, ends, n_noise = keys[:-1], keys[1:], 3 * 14 * module.finer.sampler.n_draws
    with torch.no_grad():
        at_once = module.fill(begun, ends, noise)
        state, stepwise = module.finer.initial_state(2), [begun]
        for step in range(4):
            left, of_step = torch.full([2], 5.0 - step), noise[:, step * n_noise : (step + 1) * n_noise]
            moved, state = module.towards(stepwise[-1], ends, left, state, of_step)
            stepwise.append(moved)
        forgetful = module.interpolate(at_once[:, 0], ends, torch.full([2], 4.0), noise[:, n_noise : 2 * n_noise])
    assert at_once.shape == (2, 4, 14, 3)
    torch.testing.assert_close(at_once, torch.stack(stepwise[1:], dim=1), atol=1e-6, rtol=1e-6)
    assert float((at_once[:, 1] - forgetful).abs().max()) > 1e-5  # it remembers the frame before the last


def test_a_model_without_interpolator_exports_too(tmp_path):
    path = exported(bound(random_model(fine_time=0.0)), tmp_path / "key.latent.pt")
    assert load_bundle(path).manifest.capabilities == ["jump", "initial_state", "sample"]


def test_windows_shorter_than_the_protein_are_covered():
    """Two chains of 98 heavy atoms in windows of 16 atoms that see 32: all atoms are drawn, whatever the order."""
    topology, positions = load_two_chains()
    tokens = read_tokens(topology)
    reference = positions[tokens.atoms]
    module = BoundComplex(random_model(n_queries=16, n_keys=32), tokens, reference).eval()
    start = torch.tensor(reference).float()[None]
    after, _ = jumped(module, start, normals(module, 1))
    assert float((after - start).norm(dim=2).min()) > 0.0
    assert len(module.keyframes.of_queries) == -(-tokens.n_atoms // 16)


# ---- whole trajectories ----------------------------------------------------------------------------------------------


def test_bi_level_sampling_is_single_level_in_its_limits(module, tmp_path):
    """Its key frames are those of single-level sampling; without an interpolator there is nothing else."""
    bundle = load_bundle(exported(module, tmp_path / "both.latent.pt"))
    single = np.stack(list(sample_trajectory(bundle, 5, seed=3)))
    both = np.stack(list(sample_trajectory(bundle, 21, seed=3, is_filled=True)))
    assert (single.shape, both.shape) == ((5, 14, 3), (21, 14, 3))
    assert np.array_equal(both[::5], single)


@pytest.mark.slow
def test_a_thousand_frames_cost_a_thousand_times_one():
    """The median time of the last 250 key frames is within a factor of two of that of the first 250; memory is flat.

    Single times vary with the machine; the median of 250 does not by a factor of two, and a cost that grows with the
    number of frames before would be sevenfold.
    """
    module = bound(random_model(n_sampling_steps=2))
    positions, noise = frames(1), normals(module, 1)
    state, times, sizes = module.initial_state(positions), [], []
    tracemalloc.start()
    with torch.no_grad():
        for number in range(1000):
            begin = time.process_time()
            _, state = module.jump(positions, state, noise)
            times.append(time.process_time() - begin)
            if number in (100, 999):
                sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert np.median(times[-250:]) < 2.0 * np.median(times[:250])
    assert sizes[1] < 1.2 * sizes[0] + 100_000
    assert sum(part.numel() for part in state) == N_TOKENS * 16 + N_TOKENS**2 * 8
    assert float(state[0].abs().max()) < 1e3  # a state that is added to without bound would have grown


def test_what_was_drawn_is_mended():
    """Bonds of drawn frames end within 5 pm of those of the reference; without sweeps they are off by more."""
    broken, mended = (bound(random_model(data_scale=0.02, n_refinements=0, n_sweeps=n)) for n in (0, 60))
    errors = []
    for one in (broken, mended):
        after = jumped(one, frames(4, size=0.002), normals(one, 4))[0].numpy()
        lengths = [np.linalg.norm(x[..., TOKENS.bonds[:, 0], :] - x[..., TOKENS.bonds[:, 1], :], axis=-1)
                   for x in (after, REFERENCE)]  # fmt: skip
        errors.append(float(np.abs(lengths[0] - lengths[1]).max()))
    assert errors[0] > 0.02
    assert errors[1] < 0.005


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused():
    with pytest.raises(LatentError, match=r"reference must be finite and of shape \(n_atoms=14, 3\) \[nm\], got \(31,"):
        BoundComplex(random_model(), TOKENS, POSITIONS)
    with pytest.raises(LatentError, match="model has no data_scale: train it"):
        bound(random_model(data_scale=0.0))
    with pytest.raises(LatentError, match=r"trunk features must have shapes \(10, 4\) and \(10, 10, 0\)"):
        bound(random_model(n_trunk_single=4))
    with pytest.raises(LatentError, match="fine_time must be 0 or the key time of 10 ps over upsampling=5, got 3 ps"):
        random_model(fine_time=3.0)
    with pytest.raises(LatentError, match="n_single must be a multiple of n_heads, got 16 and 3"):
        random_model(n_heads=3)


def test_trunk_features_of_another_model_count():
    model = random_model(n_trunk_single=4, n_trunk_pair=3)
    rng = np.random.default_rng(1)
    one = rng.normal(size=(10, 4)), rng.normal(size=(10, 10, 3))
    other = rng.normal(size=(10, 4)), one[1]
    before, found = frames(1), []
    for trunk in (one, other):
        module = BoundComplex(model, TOKENS, REFERENCE, trunk=trunk).eval()
        found.append(jumped(module, before, normals(module, 1))[0])
    assert float((found[0] - found[1]).abs().max()) > 1e-4


def test_the_differential_equation_takes_noise_at_its_start_alone():
    module = bound(is_ode=True)
    assert module.n_propagate_noise == 3 * 14
    assert bound().n_propagate_noise > 3 * 14


def test_a_single_residue_and_a_lone_atom_work():
    topology, positions = toys.load_adp()
    tokens = read_tokens(topology).select([3])[0]
    module = BoundComplex(random_model(), tokens, positions[tokens.atoms]).eval()
    check_module(module, torch.tensor(positions[tokens.atoms]).float()[None].expand(2, -1, -1).clone())
