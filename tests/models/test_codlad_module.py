"""One protein's backmapping against its contract, in a bundle, and inside a Simulation."""

import numpy as np
import pytest
import torch
from openmm import app, unit
from scipy.spatial.transform import Rotation

import toys
from backmapped import CONFIG, load_l_peptides, random_model, taught_model
from openmm_latent import LatentError, LatentModel
from openmm_latent.bundle import load_bundle
from openmm_latent.data.residue_slots import read_residue_slots
from openmm_latent.model import check_module
from openmm_latent.models.codlad.module import BackmappedProtein
from openmm_latent.models.codlad.weights import load_weights, save_weights
from openmm_latent.nn.internal_coordinates import Chirality
from openmm_latent.nn.residue_geometry import N_SLOTS
from openmm_latent.training.codlad_binding import backmapped_protein, bind_codlad, export_backmapping
from platforms import get_platform

TOPOLOGY, POSITIONS = load_l_peptides()
MODULE, CHOSEN = backmapped_protein(random_model(), TOPOLOGY, POSITIONS)
RESIDUES = read_residue_slots(TOPOLOGY, POSITIONS).residues
REFERENCE = torch.tensor(POSITIONS[CHOSEN], dtype=torch.float32)
CAS = MODULE.cas
N_RESIDUES = 13


def noise(n, seed=1):
    return torch.randn(n, MODULE.n_noise, generator=torch.Generator().manual_seed(seed))


def frames(n, seed=1):
    """Return the reference with every atom jiggled by 5 pm: (n, n_atoms, 3) [nm]."""
    return REFERENCE + 0.005 * torch.randn(n, *REFERENCE.shape, generator=torch.Generator().manual_seed(seed))


def jumped(positions, normals, module=MODULE):
    with torch.no_grad():
        return module.jump(positions, [], normals)[0]


# ---- contract --------------------------------------------------------------------------------------------------------


def test_it_keeps_the_contract_and_says_how_much_noise_it_takes():
    check_module(MODULE, frames(2))
    n_noise = 3 * N_RESIDUES * CONFIG.n_sampling_steps
    assert MODULE.noise_sizes() == {"jump": n_noise, "backmap": n_noise}
    assert MODULE.capabilities() == ["jump", "initial_state", "backmap"]
    assert (MODULE.n_latent, MODULE.n_slow, MODULE.n_atoms) == (0, 0, len(CHOSEN))


def test_a_jump_keeps_the_trace_bit_for_bit_and_moves_all_else():
    before = frames(3)
    after = jumped(before, noise(3))
    assert torch.equal(after[:, CAS], before[:, CAS])
    others = np.setdiff1d(np.arange(MODULE.n_atoms), CAS.numpy())
    assert float((after - before)[:, others].norm(dim=2).min()) > 1e-3
    again = jumped(before, noise(3, seed=2))
    moved = (again - after)[:, others].norm(dim=2)
    assert float(moved.mean()) > 0.02
    assert torch.equal(again[:, CAS], before[:, CAS])


def test_a_jump_is_the_backmapping_of_its_trace_and_forgets_the_rest():
    before = frames(2)
    scattered = before + torch.randn(before.shape, generator=torch.Generator().manual_seed(3))
    scattered[:, CAS] = before[:, CAS]
    with torch.no_grad():
        mapped = MODULE.backmap(before[:, CAS], noise(2))
    assert torch.equal(jumped(before, noise(2)), mapped)
    assert torch.equal(jumped(scattered, noise(2)), mapped)


def test_atoms_turn_and_move_with_the_trace():
    before, turn = frames(3), torch.tensor(Rotation.random(random_state=2).as_matrix())
    shift = torch.tensor([3.0, -1.0, 2.0])
    moved = (before.double() @ turn.T + shift).float()
    expected = jumped(before, noise(3)).double() @ turn.T + shift
    torch.testing.assert_close(jumped(moved, noise(3)).double(), expected, atol=1e-4, rtol=0)


def test_a_batch_is_its_frames_one_by_one():
    before, normals = frames(4), noise(4)
    batch = jumped(before, normals)
    each = torch.cat([jumped(before[i : i + 1], normals[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(batch, each, atol=1e-5, rtol=0)


def test_all_residues_are_l_whatever_is_drawn():
    chirality = Chirality(RESIDUES)
    built = torch.zeros(8, N_RESIDUES * N_SLOTS, 3)
    built[:, MODULE.slots] = jumped(frames(8), noise(8))
    assert bool(chirality(built.view(8, N_RESIDUES, N_SLOTS, 3)).all())


def test_what_is_decoded_are_codes():
    with torch.no_grad():
        drawn = MODULE.draw(frames(2)[:, CAS], noise(2))
    gaps = torch.cdist(drawn.flatten(0, 1), MODULE.codebook.codes)
    assert float(gaps.min(dim=1)[0].max()) < 1e-3
    assert len(gaps.argmin(dim=1).unique()) > 5


def test_fewer_steps_take_less_noise():
    module, _ = backmapped_protein(random_model(), TOPOLOGY, POSITIONS, n_steps=2)
    assert module.n_noise == 3 * N_RESIDUES * 2
    with pytest.raises(LatentError, match=r"n_steps must lie between 1 and the n_levels=1000 .*, got 0"):
        backmapped_protein(random_model(), TOPOLOGY, POSITIONS, n_steps=0)


def test_the_model_it_was_made_from_may_change_afterwards():
    model = taught_model(TOPOLOGY, POSITIONS, n_steps=1)
    module, _ = backmapped_protein(model, TOPOLOGY, POSITIONS)
    before = jumped(frames(1), noise(1), module)
    with torch.no_grad():
        model.autoencoder.decoder.bias.add_(0.3)
    assert torch.equal(jumped(frames(1), noise(1), module), before)


# ---- structures that do not fit --------------------------------------------------------------------------------------


def test_slots_must_be_all_atoms_once():
    slots = MODULE.slots.tolist()
    with pytest.raises(LatentError, match=r"slots must name each of the 109 heavy atoms .* once.*got 108 numbers"):
        BackmappedProtein(random_model(), RESIDUES, slots[:-1])


def test_what_hangs_on_a_residue_is_refused_by_name():
    modeller = app.Modeller(load_l_peptides()[0], POSITIONS * unit.nanometer)  # its own copy: Modeller changes it
    ligand = modeller.topology.addResidue("LIG", modeller.topology.addChain("X"), "99")
    lysine = next(atom for atom in modeller.topology.atoms() if atom.name == "NZ")
    modeller.topology.addBond(lysine, modeller.topology.addAtom("C1", app.element.carbon, ligand))
    with pytest.raises(LatentError, match="has LIG 99 of chain X bonded to LYS 5, and CODLAD builds only the 20"):
        backmapped_protein(random_model(), modeller.topology, np.vstack([POSITIONS, POSITIONS[-1:]]))


def test_positions_must_be_those_of_the_topology():
    with pytest.raises(LatentError, match=r"positions must be finite and of shape \(n_particles=215, 3\)"):
        backmapped_protein(random_model(), TOPOLOGY, POSITIONS[:5])


# ---- weights and bundle ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bound(tmp_path_factory):
    """A file of weights, and the bundle of two chains bound from it."""
    folder = tmp_path_factory.mktemp("codlad")
    weights = save_weights(folder / "random.weights.pt", random_model(), {"temperature": 300.0, "seed": 7})
    return weights, bind_codlad(weights, TOPOLOGY, POSITIONS, folder / "two_chains.latent.pt", lag_time=50.0)


def test_weights_come_back_as_they_were(bound):
    model, training = load_weights(bound[0])
    assert training == {"temperature": 300.0, "seed": 7}
    assert model.config == CONFIG
    for name, value in random_model().state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_weights_of_another_family_or_cut_short_are_refused(bound, tmp_path):
    content = torch.load(bound[0], weights_only=True)
    other = tmp_path / "other.weights.pt"
    torch.save({**content, "family": "dynaprot"}, other)
    with pytest.raises(LatentError, match="must be of family 'codlad', got 'dynaprot'; give what"):
        load_weights(other)
    torch.save({**content, "config": {**content["config"], "n_planets": 9}}, other)
    with pytest.raises(LatentError, match="was written by another version, with other settings"):
        load_weights(other)
    other.write_bytes(bound[0].read_bytes()[:1000])
    with pytest.raises(LatentError, match="truncated or no file of weights; write it anew with `openmm-latent train c"):
        load_weights(other)


def test_scripted_and_reloaded_is_eager(bound):
    bundle = load_bundle(bound[1])
    manifest = bundle.manifest
    assert (manifest.family, manifest.lag_time, manifest.temperature) == ("CODLAD", 50.0, 300.0)
    assert manifest.noise_sizes == MODULE.noise_sizes()
    assert manifest.capabilities == ["jump", "initial_state", "backmap"]
    before, normals = frames(3), noise(3)
    with torch.no_grad():
        scripted = bundle.module.jump(before, bundle.module.initial_state(before), normals)[0]
        mapped = bundle.module.backmap(before[:, CAS], normals)
    torch.testing.assert_close(scripted, jumped(before, normals), atol=1e-5, rtol=0)
    assert torch.equal(scripted[:, CAS], before[:, CAS])
    assert torch.equal(mapped, scripted)


# ---- inside a Simulation ---------------------------------------------------------------------------------------------


def simulate(path, mode):
    model = LatentModel(path)
    integrator = model.createIntegrator(TOPOLOGY, toys.langevin(), jumpInterval=5, mode=mode, seed=3)
    simulation = app.Simulation(TOPOLOGY, toys.adp_system(TOPOLOGY), integrator, *get_platform("Reference"))
    simulation.context.setPositions(POSITIONS)
    simulation.context.setVelocitiesToTemperature(300, 7)
    return simulation


def positions_of(simulation):
    return simulation.context.getState(positions=True).getPositions(asNumpy=True)._value


def test_a_model_that_knows_the_structure_makes_accepted_jumps(tmp_path):
    """Backmapping a hot frame with the side chains of the minimised one: the guard lets it pass, hydrogens and all."""
    model = taught_model(TOPOLOGY, POSITIONS)
    module, _ = backmapped_protein(model, TOPOLOGY, POSITIONS)
    built = jumped(REFERENCE[None], noise(1), module)[0]
    assert float((built - REFERENCE).norm(dim=1).square().mean().sqrt()) < 0.02
    path = export_backmapping(model, TOPOLOGY, POSITIONS, tmp_path / "taught.latent.pt")
    simulation = simulate(path, "guarded")
    simulation.step(21)
    integrator = simulation.integrator
    assert integrator.getNumJumps() == 4
    assert integrator.getNumAccepted() >= 3, integrator.getRefusals()
    after = positions_of(simulation)
    assert np.isfinite(after).all()
    bonds = [(a.index, b.index) for a, b in TOPOLOGY.bonds() if "H" in (a.element.symbol, b.element.symbol)]
    lengths = np.array([np.linalg.norm(after[a] - after[b]) for a, b in bonds])
    assert (np.abs(lengths - 0.105) < 0.03).all()


def test_jumps_that_clash_are_refused_and_leave_the_frame_as_it_was(bound):
    simulation = simulate(bound[1], "guarded")
    before = positions_of(simulation)
    assert not simulation.integrator.jump()
    assert np.array_equal(positions_of(simulation), before)
    assert sum(simulation.integrator.getRefusals().values()) == 1
