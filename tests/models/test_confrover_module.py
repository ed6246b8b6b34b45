"""One protein's trajectory model against its contract, eager and in a bundle."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from gaussian_proteins import load_two_chains
from openmm_latent.bundle import export_bundle, load_bundle
from openmm_latent.data.residue_slots import read_residue_slots
from openmm_latent.errors import LatentError
from openmm_latent.geometry import rmsd
from openmm_latent.model import check_module
from openmm_latent.models.confrover.module import ConfRoverProtein
from openmm_latent.nn.frame_coordinates import FrameCoordinates, residue_frames
from openmm_latent.nn.internal_coordinates import Chirality
from openmm_latent.nn.residue_geometry import N_SLOTS, RESIDUE_NAMES, residue_tables
from openmm_latent.topology import describe_atoms
from openmm_latent.training.confrover_binding import confrover_protein
from rovers import CONFIG, KnownFrame, knowing_module, module_of, peptides, random_model

TOPOLOGY, POSITIONS, FOUND, CHOSEN, SLOTS, BONDS = peptides()
MODULE = module_of(random_model())
MODULE.repair.n_sweeps = 0  # random weights draw wild frames, whose repair would amplify rounding
REFERENCE = torch.tensor(POSITIONS[CHOSEN], dtype=torch.float32)
N_RESIDUES, N_TOKENS = 13, 13 + 13**2


def noise(n, seed=1, module=MODULE):
    return torch.randn(n, module.n_noise, generator=torch.Generator().manual_seed(seed))


def frames(n, seed=1):
    """Return the reference with every atom jiggled by 5 pm: (n, n_atoms, 3) [nm]."""
    return REFERENCE + 0.005 * torch.randn(n, *REFERENCE.shape, generator=torch.Generator().manual_seed(seed))


def jumps(module, windows, seed=1):
    """Jump from each of several frames, (n_frames, b, n_atoms, 3), one memory through all; positions and states."""
    state, found = module.initial_state(windows[0]), []
    with torch.no_grad():
        for i, positions in enumerate(windows):
            moved, state = module.jump(positions, state, noise(len(positions), seed + i, module))
            found.append((moved, state))
    return found


# ---- contract --------------------------------------------------------------------------------------------------------


def test_it_keeps_the_contract_and_says_how_much_noise_it_takes():
    check_module(MODULE, frames(2))
    n_noise = 6 * N_RESIDUES * (CONFIG.n_sampling_steps + 1)
    assert MODULE.noise_sizes() == {"jump": n_noise, "sample": n_noise, "interpolate": n_noise}
    assert MODULE.capabilities() == ["jump", "initial_state", "sample", "interpolate"]
    assert (MODULE.n_latent, MODULE.n_slow, MODULE.n_atoms) == (0, 0, len(CHOSEN))


def test_the_memory_has_a_fixed_shape_and_ends_with_its_window():
    """A frame is forgotten after 3 layers x 3 frames."""
    windows = [frames(2, seed) for seed in range(11)]
    found = jumps(MODULE, windows)
    shapes = [(2, 3, N_TOKENS, 4, 16), (2, 3, N_TOKENS, 4, 16), (2,)]
    for i, (_, state) in enumerate(found):
        assert [tuple(part.shape) for part in state] == shapes
        assert [part.dtype for part in state] == [torch.float32, torch.float32, torch.int64]
        assert state[2].tolist() == [i + 1, i + 1]
    other = jumps(MODULE, [frames(2, 77), *windows[1:]])
    apart = [float((one[0] - two[0]).abs().max()) for one, two in zip(found, other, strict=True)]
    assert min(apart[:4]) > 1e-4
    assert apart[10] == 0.0


def test_no_input_is_changed():
    windows = [frames(2, seed) for seed in range(3)]
    state = jumps(MODULE, windows)[-1][1]
    given = [frames(2), *state, noise(2)]
    kept = [part.clone() for part in given]
    with torch.no_grad():
        MODULE.jump(given[0], given[1:4], given[4])
        MODULE.interpolate(given[0], given[0], torch.tensor([2.0, 3.0]), given[4])
        MODULE.sample(given[4])
    assert all(torch.equal(one, other) for one, other in zip(given, kept, strict=True))


def test_a_batch_is_its_frames_one_by_one():
    windows = [frames(3, seed) for seed in range(2)]
    whole = jumps(MODULE, windows)[1][0]
    for i in range(3):
        state = MODULE.initial_state(windows[0][:1])
        with torch.no_grad():
            for step, positions in enumerate(windows):
                moved, state = MODULE.jump(positions[i : i + 1], state, noise(3, 1 + step)[i : i + 1])
        torch.testing.assert_close(moved[0], whole[i], atol=1e-4, rtol=0)


def test_jumps_turn_and_move_with_the_frame():
    before, turn = frames(2), torch.tensor(Rotation.random(random_state=2).as_matrix())
    shift = torch.tensor([3.0, -1.0, 2.0])
    moved = (before.double() @ turn.T + shift).float()
    expected = jumps(MODULE, [before])[0][0].double() @ turn.T + shift
    torch.testing.assert_close(jumps(MODULE, [moved])[0][0].double(), expected, atol=3e-4, rtol=0)


def test_samples_depend_on_their_own_noise_alone():
    with torch.no_grad():
        found = MODULE.sample(noise(3))
        again = MODULE.sample(noise(3)[1:])
    assert found.shape == (3, len(CHOSEN), 3)
    torch.testing.assert_close(found[1:], again, atol=1e-4, rtol=0)
    assert float((found[0] - found[1]).norm(dim=1).mean()) > 0.05


def test_interpolation_puts_the_end_before_the_start():
    start, end, remaining = frames(2), frames(2, seed=5), torch.tensor([4.0, 2.0])
    seen = []
    hook = MODULE.trajectory.register_forward_pre_hook(lambda _, given: seen.append(given))
    with torch.no_grad():
        found = MODULE.interpolate(start, end, remaining, noise(2))
        hook.remove()
        nothing = torch.zeros(2, dtype=torch.bool)
        expected = [MODULE.encode_frame(positions, nothing)[1] for positions in (end, start)]
        other = MODULE.interpolate(start, end, remaining + 1.0, noise(2))
    _, pair, times, gaps, is_masked = seen[0]
    assert torch.equal(pair, torch.stack(expected, dim=1))
    lag = 50.0 / CONFIG.time_unit
    assert times.tolist() == [[4.0 * lag, 0.0], [2.0 * lag, 0.0]]
    assert gaps.tolist() == [[0.0, lag], [0.0, lag]]
    assert not bool(is_masked.any())
    assert float((found - other).abs().max()) > 1e-4  # it matters how much time is left


# ---- what comes out --------------------------------------------------------------------------------------------------


def test_a_frame_that_is_known_is_drawn_where_the_current_one_is():
    """Its backbone lies on the current frame, side chains and all within what ideal angles and the repair change."""
    module = knowing_module()
    turn = torch.tensor(Rotation.random(random_state=2).as_matrix(), dtype=torch.float32)
    before = frames(2) @ turn.T + 5.0
    after = jumps(module, [before])[0][0]
    assert float((after - before).norm(dim=2).square().mean().sqrt()) < 0.04
    with torch.no_grad():
        sampled = module.sample(noise(1, module=module))[0].numpy()
    assert rmsd(sampled, REFERENCE.numpy()) < 0.04


def test_peptide_bonds_join_and_residues_are_l():
    module = knowing_module()
    after = jumps(module, [frames(4)])[0][0]
    names = [record.name for record in describe_atoms(TOPOLOGY, CHOSEN)]
    links = [(a, b) for a, b in BONDS if sorted((names[a], names[b])) == ["C", "N"]]
    assert len(links) == 11
    lengths = np.array([(after[:, a] - after[:, b]).norm(dim=1).numpy() for a, b in links])
    assert np.abs(lengths - 0.1335).max() < 0.01
    built = torch.zeros(4, N_RESIDUES * N_SLOTS, 3)
    built[:, MODULE.slots] = after
    assert bool(Chirality(FOUND.residues)(built.view(4, N_RESIDUES, N_SLOTS, 3)).all())


def test_names_that_may_be_exchanged_do_not_count():
    """A context is the same, but for angles that are not ideal, with like atoms of acids and rings renamed."""
    exchanged, n_exchanged = REFERENCE.clone(), 0
    place = {slot: atom for atom, slot in enumerate(SLOTS.tolist())}
    for residue, renamed in enumerate(residue_tables().renamed[FOUND.residues.types]):
        if RESIDUE_NAMES[FOUND.residues.types[residue]] in ("ASP", "GLU", "PHE", "TYR"):
            for slot in np.flatnonzero(renamed != np.arange(N_SLOTS)):
                exchanged[place[N_SLOTS * residue + slot]] = REFERENCE[place[N_SLOTS * residue + renamed[slot]]]
                n_exchanged += 1
    assert n_exchanged > 0
    module, nothing = module_of(random_model()), torch.zeros(1, dtype=torch.bool)
    with torch.no_grad():
        found, expected = (module.encode_frame(one[None], nothing)[0] for one in (exchanged, REFERENCE))
        module.flips.zero_()  # without the care that is taken
        careless = module.encode_frame(exchanged[None], nothing)[0]
    assert float((found - expected).abs().max()) < 0.1 < 0.3 < float((careless - expected).abs().max())


def test_bridges_are_closed_whatever_torsions_are_drawn():
    """Two chains with a disulphide, whose side chains are drawn turned away from each other."""
    topology, positions = load_two_chains()
    module, chosen = confrover_protein(random_model(), topology, positions, 50.0)
    slots = read_residue_slots(topology, positions)
    frame = torch.tensor(slots.take(positions)[None], dtype=torch.float32)
    rotations, ca = residue_frames(frame)
    torsions = FrameCoordinates(slots.residues).torsions(frame)
    torsions[0, slots.disulphides[0], 3] += 2.0  # chi1 of both cysteines
    module.sampler.decoder = KnownFrame(CONFIG, rotations[0], ca[0], torsions[0])
    sulphurs = [i for i, atom in enumerate(chosen) if list(topology.atoms())[atom].name == "SG"]
    assert module.has_bridges
    with torch.no_grad():
        drawn = module.sample(noise(2, module=module))
    apart = (drawn[:, sulphurs[0]] - drawn[:, sulphurs[1]]).norm(dim=1)
    torch.testing.assert_close(apart, torch.full((2,), 0.205), atol=0.01, rtol=0)
    assert float(rmsd(drawn[:, module.backbone].numpy(), positions[chosen][module.backbone]).max()) < 0.04


# ---- bundle ----------------------------------------------------------------------------------------------------------


def reloaded(module, path):
    """Return the bundle that a module makes, written and read."""
    export_bundle(
        module,
        path,
        family="ConfRover",
        atoms=describe_atoms(TOPOLOGY, CHOSEN),
        masses=[12.0] * len(CHOSEN),
        lag_time=50.0,
        config=asdict(CONFIG),
        training={},
        reference_positions=POSITIONS[CHOSEN],
    )
    return load_bundle(path)


def test_scripted_and_reloaded_is_eager(tmp_path):
    bundle = reloaded(MODULE, tmp_path / "rover.latent.pt")
    assert bundle.manifest.config["n_context"] == 4  # the window of the memory
    assert bundle.manifest.noise_sizes == MODULE.noise_sizes()
    windows = [frames(2, seed) for seed in range(3)]
    for (moved, state), (expected, kept) in zip(jumps_of(bundle, windows), jumps(MODULE, windows), strict=True):
        torch.testing.assert_close(moved, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(state, kept, atol=1e-4, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(bundle.module.sample(noise(2)), MODULE.sample(noise(2)), atol=1e-4, rtol=0)
        ahead = (frames(2), frames(2, seed=5), torch.tensor([4.0, 2.0]), noise(2))
        torch.testing.assert_close(bundle.module.interpolate(*ahead), MODULE.interpolate(*ahead), atol=1e-4, rtol=0)


def test_scripted_and_reloaded_is_eager_with_the_repair(tmp_path):
    module = knowing_module()
    bundle = reloaded(module, tmp_path / "knowing.latent.pt")
    for (moved, _), (expected, _) in zip(jumps_of(bundle, [frames(2)]), jumps(module, [frames(2)]), strict=True):
        torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def jumps_of(bundle, windows):
    """Jump with a bundle's module as `jumps` does."""
    module = bundle.module
    state, found = module.initial_state(windows[0]), []
    with torch.no_grad():
        for i, positions in enumerate(windows):
            moved, state = module.jump(positions, state, noise(len(positions), 1 + i))
            found.append((moved, state))
    return found


# ---- what cannot be --------------------------------------------------------------------------------------------------


def test_the_masked_variant_has_no_memory():
    with pytest.raises(LatentError, match=r"model is the masked variant, .* train one with is_causal=True"):
        module_of(random_model(is_causal=False))


def test_slots_times_and_steps_are_checked():
    atoms = describe_atoms(TOPOLOGY, CHOSEN)
    with pytest.raises(LatentError, match=r"slots must name each of the 109 heavy atoms .* once.*got 108 numbers"):
        ConfRoverProtein(random_model(), FOUND.residues, SLOTS[:-1], atoms, BONDS, POSITIONS[CHOSEN], lag_time=50.0)
    with pytest.raises(LatentError, match=r"lag_time must be a positive time in ps, got 0.0"):
        module_of(random_model(), lag_time=0.0)
    with pytest.raises(LatentError, match="n_steps must be a whole number, at least 1, got 0"):
        module_of(random_model(), n_steps=0)
