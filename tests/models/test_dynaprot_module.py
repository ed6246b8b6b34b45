"""One protein's Gaussian against its contract: latent, kernels, placement of residues, bundle."""

import numpy as np
import pytest
import torch
from openmm import app, unit
from scipy import stats
from scipy.spatial.transform import Rotation

from gaussian_proteins import gaussian_of, load_two_chains, smooth_covariance, trace_of
from openmm_latent.bundle import export_bundle, load_bundle
from openmm_latent.errors import LatentError
from openmm_latent.geometry import dihedrals, torsion_quadruples
from openmm_latent.model import check_module
from openmm_latent.models.dynaprot.covariance import rigid_motions, sample
from openmm_latent.topology import describe_atoms, find_structure

TOPOLOGY, POSITIONS = load_two_chains()
MODEL, CHOSEN = gaussian_of(TOPOLOGY, POSITIONS)
ATOMS = describe_atoms(TOPOLOGY, CHOSEN)
REFERENCE = torch.tensor(POSITIONS[CHOSEN])
CAS = MODEL.placement.cas
AROMATIC = {("TRP", name) for name in ("CG", "CD", "NE", "CE", "CZ", "CH")}
TRACE = np.array([[0.0, 0.0, 0.0], [0.5, 0.1, 0.0], [0.3, 0.6, 0.2], [0.1, 0.3, 0.7]])


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def turned(frames, seed):
    """Return the frames at another place and orientation, in double precision."""
    turn = torch.tensor(Rotation.random(random_state=seed).as_matrix())
    return frames.double() @ turn.T + torch.tensor([0.7, -1.1, 0.4]), turn


def hot_frames(n, seed=1):
    """Return the reference with every atom jiggled by 5 pm and the whole turned: (n, n_atoms, 3) float32 [nm]."""
    jiggled = REFERENCE + 0.005 * noise(n, *REFERENCE.shape, seed=seed).double()
    return torch.cat([turned(frame[None], seed + i)[0] for i, frame in enumerate(jiggled)]).float()


def decoded_frames(n, seed=1, model=MODEL):
    with torch.no_grad():
        return model.decode(noise(n, model.n_latent, seed=seed), hot_frames(n, seed), torch.zeros(n, 0))


# ---- latent ----------------------------------------------------------------------------------------------------------


def test_there_are_as_many_modes_as_internal_motions_and_they_are_orthonormal():
    assert MODEL.n_latent == 3 * len(CAS) - 6
    identity = torch.eye(MODEL.n_latent, dtype=torch.float64)
    torch.testing.assert_close(MODEL.modes.T @ MODEL.modes, identity)
    assert float((rigid_motions(MODEL.mean).T @ MODEL.modes).abs().max()) < 1e-10
    assert bool((MODEL.deviations[:-1] >= MODEL.deviations[1:]).all())


def test_latents_of_the_gaussian_are_standard_normal():
    """First and second moments of 4000 samples by chi squared; false alarm: 1 in 1000 each."""
    drawn = sample(MODEL.mean, smooth_covariance(REFERENCE[CAS].numpy(), 0.02), 4000, seed=2)
    model, _ = gaussian_of(TOPOLOGY, POSITIONS, deviation=0.02)
    # samples as they lie, not superposed: large motions of the whole are small ones of its shape to first order alone
    basis = rigid_motions(model.mean)
    flat = (drawn - model.mean).flatten(1)
    placed = model.mean + (flat - (flat @ basis) @ basis.T).reshape(drawn.shape)
    frames = REFERENCE.repeat(len(placed), 1, 1)
    frames[:, CAS] = placed
    latent = model.encode(frames).double()
    n = len(latent)
    first = float(n * latent.mean(dim=0).square().sum())
    moments = (latent.T @ latent / n).numpy()
    off = moments[np.triu_indices(model.n_latent, 1)] * np.sqrt(n)
    on = (np.diag(moments) - 1.0) * np.sqrt(n / 2.0)
    assert stats.chi2.sf(first, model.n_latent) > 1e-3
    assert stats.chi2.sf((off**2).sum() + (on**2).sum(), len(off) + len(on)) > 1e-3


def test_latent_is_linear_in_superposed_cas():
    moved = REFERENCE.repeat(MODEL.n_latent, 1, 1)
    shifts = (0.5 * MODEL.deviations * MODEL.modes).T.reshape(MODEL.n_latent, -1, 3)
    moved[:, CAS] += shifts  # the reference lies as the mean does
    change = MODEL.encode(moved) - MODEL.encode(REFERENCE[None])
    torch.testing.assert_close(change, 0.5 * torch.eye(MODEL.n_latent), atol=1e-4, rtol=0)


def test_latent_is_invariant_and_decoding_equivariant():
    frames = hot_frames(3)
    moved, turn = turned(frames, 5)
    latent = noise(3, MODEL.n_latent)
    with torch.no_grad():
        torch.testing.assert_close(MODEL.encode(frames), MODEL.encode(moved), atol=2e-4, rtol=0)
        decoded = MODEL.decode(latent, frames, torch.zeros(3, 0)).double()
        decoded_moved = MODEL.decode(latent, moved, torch.zeros(3, 0)).double()
    expected = decoded @ turn.T + torch.tensor([0.7, -1.1, 0.4])
    torch.testing.assert_close(decoded_moved, expected, atol=1e-5, rtol=0)


def test_what_is_decoded_has_the_latent_where_residues_can_follow():
    """Leading modes of a small jump come out as asked; a Gaussian's short waves tear at bonds, and are given up."""
    frames = hot_frames(20)
    with torch.no_grad():
        start = MODEL.encode(frames)
        asked = start.clone()
        asked[:, :3] += 0.4 * noise(20, 3, seed=4)
        found = MODEL.encode(MODEL.decode(asked, frames, torch.zeros(20, 0))) - start
    change = (asked - start)[:, :3]
    slope = float((found[:, :3] * change).sum() / change.square().sum())
    assert 0.75 < slope < 1.1, slope
    whole = MODEL.encode(decoded_frames(20)).flatten()
    asked = noise(20, MODEL.n_latent).flatten()
    assert float((whole * asked).sum() / asked.square().sum()) > 0.4


def test_modes_that_are_left_out_stay_as_they_are():
    model, _ = gaussian_of(TOPOLOGY, POSITIONS, least_share=0.08, n_slow=2)
    assert model.n_latent < 6
    frames = hot_frames(1)
    with torch.no_grad():
        before = MODEL.encode(frames)
        after = MODEL.encode(model.decode(model.encode(frames) + 0.5, frames, torch.zeros(1, 0)))
    kept = model.n_latent
    assert 0.3 < float((after - before)[:, :kept].mean()) < 0.6
    assert float((after - before)[:, kept:].square().mean().sqrt()) < 0.35


def test_gradient_of_slow_coordinates_matches_finite_differences_and_is_no_force_on_the_whole():
    frame = hot_frames(1).double().requires_grad_()
    slow = MODEL.slow(MODEL.encode(frame))
    for k in range(MODEL.n_slow):
        force = torch.autograd.grad(slow[0, k], frame, retain_graph=True)[0]
        step = 1e-3 * noise(*frame.shape, seed=k).double()
        difference = MODEL.encode(frame.detach() + step) - MODEL.encode(frame.detach() - step)
        expected = float(difference[0, k]) / 2.0
        assert abs(float((force * step).sum()) - expected) < 2e-3 * float(force.norm() * step.norm())
        largest = float(force.abs().max())
        assert float(force.sum(dim=1).abs().max()) < 1e-3 * largest
        centred = frame.detach() - frame.detach().mean(1, keepdim=True)
        assert float(torch.linalg.cross(centred, force).sum(dim=1).abs().max()) < 1e-3 * largest
        others = torch.ones(len(ATOMS), dtype=torch.bool)
        others[CAS] = False
        assert float(force[0, others].abs().max()) == 0.0


# ---- placement -------------------------------------------------------------------------------------------------------


def model_structure():
    """Return what the guard watches, in model atoms."""
    place = {atom: i for i, atom in enumerate(CHOSEN)}
    structure = find_structure(TOPOLOGY)
    bonds = [[place[a], place[b]] for a, b in structure.bonds if a in place and b in place]
    centres, omegas = (
        [[place[a] for a in group] for group in part] for part in (structure.chiral_centres, structure.omegas)
    )
    return np.array(bonds), np.array(centres), np.array(omegas)


def handedness(frames, centres):
    arms = frames[:, centres[:, 1:]] - frames[:, centres[:, :1]]
    return np.sign(np.linalg.det(arms))


def test_decoded_structures_are_sound():
    frames = decoded_frames(40).double().numpy()
    bonds, centres, omegas = model_structure()
    lengths = np.linalg.norm(frames[:, bonds[:, 0]] - frames[:, bonds[:, 1]], axis=2)
    expected = np.linalg.norm(POSITIONS[CHOSEN][bonds[:, 0]] - POSITIONS[CHOSEN][bonds[:, 1]], axis=1)
    assert np.abs(lengths / expected - 1.0).max() < 0.1
    sulphurs = [i for i, atom in enumerate(ATOMS) if atom.name == "SG"]
    assert sulphurs in np.sort(bonds, axis=1).tolist()
    assert (handedness(frames, centres) == handedness(REFERENCE.numpy()[None], centres)).all()
    flat = [i for i, atom in enumerate(ATOMS) if (atom.residue_name, atom.name[:2]) in AROMATIC]
    thickness = np.linalg.svd(frames[:, flat] - frames[:, flat].mean(1, keepdims=True), compute_uv=False)[:, 2]
    assert (thickness / np.sqrt(len(flat))).max() < 0.03
    assert np.abs(np.abs(dihedrals(frames, omegas)) - np.pi).max() < np.pi / 6
    distances = np.linalg.norm(frames[:, :, None] - frames[:, None], axis=3)
    near = np.eye(len(ATOMS), dtype=bool)
    near[tuple(np.divmod(MODEL.placement.bonded.numpy(), len(ATOMS)))] = True
    assert distances[:, ~(near | near.T)].min() > 0.22


def test_side_chains_keep_their_rotamers_and_backbones_bend():
    before = REFERENCE.float().expand(20, -1, -1)
    with torch.no_grad():
        after = MODEL.decode(noise(20, MODEL.n_latent), before, torch.zeros(20, 0)).numpy()

    def turns(kinds):
        quadruples = np.concatenate([torsion_quadruples(ATOMS, kind) for kind in kinds])
        turn = dihedrals(after, quadruples) - dihedrals(before.numpy(), quadruples)
        return np.degrees(np.abs((turn + np.pi) % (2 * np.pi) - np.pi))

    assert np.quantile(turns(["chi1", "chi2", "chi3"]), 0.95) < 40.0
    assert np.median(turns(["phi", "psi"])) > 3.0


def test_a_peptide_bond_that_is_cis_in_the_frame_stays_cis():
    frame = MODEL.reference.clone()
    omega = model_structure()[2][1]
    axis = frame[omega[2]] - frame[omega[1]]
    turn = torch.tensor(Rotation.from_rotvec(np.pi * (axis / axis.norm()).numpy()).as_matrix())
    residue = [(atom.chain, atom.residue_index) for atom in ATOMS]
    behind = [i for i, place in enumerate(residue) if place[0] == "0" and place >= residue[omega[2]] and i != omega[2]]
    frame[behind] = (frame[behind] - frame[omega[1]]) @ turn.T + frame[omega[1]]
    assert abs(dihedrals(frame.numpy()[None], omega[None])[0, 0]) < 0.6
    with torch.no_grad():
        decoded = MODEL.decode(MODEL.encode(frame[None]), frame[None].float(), torch.zeros(1, 0))
    assert abs(dihedrals(decoded.numpy(), omega[None])[0, 0]) < 0.6


def test_chains_and_breaks_are_not_held_together():
    assert int((MODEL.placement.chain_pairs.diff(dim=1) == 1).sum()) == 7 + 4
    modeller = app.Modeller(TOPOLOGY, POSITIONS * unit.nanometer)
    modeller.delete([list(TOPOLOGY.residues())[2]])
    broken, _ = gaussian_of(modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer)))
    pairs = broken.placement.chain_pairs.tolist()
    assert [1, 2] not in pairs
    assert [0, 1] in pairs
    assert float(broken.placement.window_weights[1].sum()) == 1.0  # one neighbour, on one side


def test_proline_keeps_its_ring_and_caps_ride_along():
    kept = {tuple(pair) for pair in MODEL.placement.pairs.tolist()}
    index = {(atom.residue_name, atom.name): i for i, atom in enumerate(ATOMS)}
    before = index["ALA", "CA"]
    assert any(pair[1] == index["PRO", "CD"] and ATOMS[pair[0]].name == "CA" for pair in kept)
    assert before in {pair[0] for pair in kept}


# ---- kernels ---------------------------------------------------------------------------------------------------------


def test_propagate_is_the_ornstein_uhlenbeck_process():
    """100 000 steps of three relaxation times, four standard errors of each moment: false alarm 1 in 2000 or so."""
    times = [5.0, 20.0, 0.0]
    model, _ = trace_of(TRACE, smooth_covariance(TRACE), relaxation_time=[*times, *[20.0] * 3], n_slow=2)
    start = noise(100_000, model.n_latent, seed=1)
    end = model.propagate(start, [], noise(100_000, model.n_latent, seed=2))[0]
    rho = np.exp([-10.0 / 5.0, -10.0 / 20.0, -np.inf])
    found = (start * end).mean(dim=0)[:3].numpy()
    assert np.abs(found - rho).max() < 4.0 * np.sqrt(2.0 / 100_000)
    assert np.abs(end.square().mean(dim=0).numpy() - 1.0).max() < 4.0 * np.sqrt(2.0 / 100_000)


@pytest.mark.parametrize("shares", [[1.0, 1.0], [1.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
def test_proposals_have_a_density_that_integrates_to_one_and_is_scipys(shares):
    model, _ = trace_of(TRACE, smooth_covariance(TRACE), n_slow=2)
    model.proposal_weights = torch.tensor(shares)
    start = torch.tensor([[1.3, -0.4]])
    line = torch.linspace(-7.0, 7.0, 401)
    grid = torch.cartesian_prod(line, line)
    density = model.log_density(grid, start.expand(len(grid), -1)).double().exp().numpy()
    assert abs(density.sum() * (14.0 / 400) ** 2 - 1.0) < 1e-5
    rho = np.exp(-0.5)
    lagged = stats.multivariate_normal(rho * start[0].numpy(), (1 - rho**2) * np.eye(2)).pdf(grid.numpy())
    free = stats.multivariate_normal(np.zeros(2), np.eye(2)).pdf(grid.numpy())
    share = np.array(shares) / sum(shares)
    np.testing.assert_allclose(density, share[0] * lagged + share[1] * free, atol=1e-6)


def test_proposals_are_drawn_with_that_density():
    """Chi squared of 40 000 draws in 10 x 10 cells; false alarm: 1 in 1000."""
    model, _ = trace_of(TRACE, smooth_covariance(TRACE), n_slow=2)
    model.proposal_weights = torch.tensor([1.0, 2.0])
    start = torch.tensor([[1.3, -0.4]])
    drawn = model.propose(start.expand(40_000, -1), noise(40_000, model.n_propose_noise, seed=3)).numpy()
    edges = np.linspace(-1.6, 2.2, 11)
    counts, _, _ = np.histogram2d(*drawn.T, bins=(edges, edges))
    fine = torch.linspace(-1.6, 2.2, 201)[:-1] + 0.0095
    grid = torch.cartesian_prod(fine, fine)
    density = model.log_density(grid, start.expand(len(grid), -1)).double().exp().numpy()
    expected = density.reshape(10, 20, 10, 20).sum((1, 3)) * 0.019**2 * len(drawn)
    assert expected.min() > 5
    outside = len(drawn) - expected.sum(), len(drawn) - counts.sum()
    statistic = ((counts - expected) ** 2 / expected).sum() + (outside[1] - outside[0]) ** 2 / outside[0]
    assert stats.chi2.sf(statistic, 100) > 1e-3


def test_both_kernels_keep_detailed_balance_with_the_gaussian():
    model, _ = trace_of(TRACE, smooth_covariance(TRACE), n_slow=3)
    here, there = noise(50, 3, seed=1), noise(50, 3, seed=2)
    flow = model.log_density(there, here) - 0.5 * here.square().sum(1)
    back = model.log_density(here, there) - 0.5 * there.square().sum(1)
    torch.testing.assert_close(flow, back, atol=1e-4, rtol=0)


def test_samples_are_independent_and_lie_on_the_mean():
    with torch.no_grad():
        drawn = MODEL.sample(noise(30, MODEL.n_latent))
    assert drawn.shape == (30, len(ATOMS), 3)
    latent = MODEL.encode(drawn)
    assert 0.4 < float(latent[:, :5].square().mean()) < 1.3
    assert float(drawn[:, CAS].mean(1).norm(dim=1).max()) < 0.05
    assert MODEL.noise_sizes()["sample"] == MODEL.n_latent


# ---- bundle ----------------------------------------------------------------------------------------------------------


def export(model, path):
    return export_bundle(
        model, path, family="DynaProt", atoms=ATOMS, masses=[12.0] * len(ATOMS), lag_time=10.0, config={},
        training={"temperature": 300.0, "force_field": "none", "digest": "", "files": [], "seed": 1},
        reference_positions=model.reference.float().numpy(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(export(MODEL, tmp_path_factory.mktemp("bundle") / "two_chains.latent.pt"))


def test_reloaded_bundle_equals_eager(bundle):
    frames, module = hot_frames(2), bundle.module
    latent, drawn = noise(2, MODEL.n_latent), noise(2, MODEL.n_latent, seed=2)
    nothing = torch.zeros(2, 0)
    with torch.no_grad():
        torch.testing.assert_close(module.encode(frames), MODEL.encode(frames))
        torch.testing.assert_close(module.decode(latent, frames, nothing), MODEL.decode(latent, frames, nothing))
        torch.testing.assert_close(module.jump(frames, [], drawn)[0], MODEL.jump(frames, [], drawn)[0])
        torch.testing.assert_close(module.propagate(latent, [], drawn)[0], MODEL.propagate(latent, [], drawn)[0])
        torch.testing.assert_close(module.sample(drawn), MODEL.sample(drawn))
        slow, numbers = MODEL.slow(latent), noise(2, MODEL.n_propose_noise)
        torch.testing.assert_close(module.propose(slow, numbers), MODEL.propose(slow, numbers))
        torch.testing.assert_close(module.log_density(slow, 0.5 * slow), MODEL.log_density(slow, 0.5 * slow))


def test_manifest_says_what_the_bundle_can(bundle):
    manifest = bundle.manifest
    methods = "jump initial_state encode decode propagate slow sample propose log_density".split()
    assert manifest.capabilities == methods
    assert manifest.proposals == ["lag", "independence"]
    assert manifest.noise_sizes == {
        "jump": 33, "propose": 5, "propagate": 33, "decode": 0, "sample": 33,
    }  # fmt: skip
    assert manifest.slow_periods == [0.0] * 4


def test_batch_equals_single_and_inputs_are_kept():
    frames = hot_frames(3)
    check_module(MODEL, frames)
    latent = noise(3, MODEL.n_latent)
    given = latent.clone()
    with torch.no_grad():
        together = MODEL.decode(latent, frames, torch.zeros(3, 0))
        single = MODEL.decode(latent[1:2], frames[1:2], torch.zeros(1, 0))
    torch.testing.assert_close(together[1:2], single, atol=1e-6, rtol=0)
    assert torch.equal(latent, given)


def test_without_slow_coordinates_there_is_nothing_to_propose():
    model, _ = trace_of(TRACE, smooth_covariance(TRACE), n_slow=0)
    assert not {"slow", "propose", "log_density"} & set(model.capabilities())
    check_module(model, torch.tensor(TRACE, dtype=torch.float32)[None])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"n_slow": 9}, "n_slow must be a whole number from 0 to 6, got 9"),
        ({"lag_time": 0.0}, "lag_time must be a positive time in ps, got 0.0"),
        ({"relaxation_time": [1.0, 2.0]}, r"one for each of the n_latent=6 modes, zero or more, got \[1.0, 2.0\]"),
        ({"relaxation_time": -1.0}, "relaxation_time must be one time in ps"),
        ({"relaxation_time": 1e9}, "must not exceed the lag_time of 10.0 ps a millionfold, got 1e[+]09 ps"),
        ({"least_share": 1.0}, "least_share must lie between 0 and 1, got 1.0"),
        ({"mean": np.zeros((3, 3))}, r"mean must be finite positions of the n_residues=4 Cα atoms, \(4, 3\) \[nm\]"),
        ({"mean": np.arange(4.0)[:, None] * np.ones(3)}, "at least 3 Cα atoms that do not lie on one line"),
    ],
)
def test_what_cannot_be_is_refused(arguments, sentence):
    with pytest.raises(LatentError, match=sentence):
        trace_of(TRACE, smooth_covariance(TRACE), **arguments)


def test_an_atom_that_hangs_on_nothing_is_refused():
    from openmm_latent.models.dynaprot.placement import Placement

    with pytest.raises(LatentError, match="1 of 5 do not; leave ligands and ions out of the model"):
        Placement(ATOMS[:5], np.zeros((0, 2), int), [{"CA": i} for i in range(4)], REFERENCE[:5].numpy())
    with pytest.raises(LatentError, match=r"reference must have shape \(n_atoms=5, 3\) \[nm\], got \(4, 3\)"):
        Placement(ATOMS[:5], np.zeros((0, 2), int), [{"CA": i} for i in range(5)], REFERENCE[:4].numpy())


def test_a_covariance_without_motion_is_refused():
    with pytest.raises(LatentError, match="covariance must be finite and have a positive trace"):
        trace_of(TRACE, torch.zeros(12, 12))
