from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.utils._python_dispatch import TorchDispatchMode

from openmm_latent.bundle import export_bundle, load_bundle
from openmm_latent.errors import LatentError
from openmm_latent.model import check_module
from openmm_latent.models.gldp import CONFIGS, GLDP, GLDPConfig, autoencoder
from openmm_latent.models.gldp.autoencoder import Pooling, adaptive_windows
from openmm_latent.nn.superposition import orientation_gap, superpose
from openmm_latent.nn.torsions import torsion_angles
from openmm_latent.propagators.autoregressive import Autoregressive, AutoregressiveConfig
from openmm_latent.propagators.koopman import Koopman, KoopmanConfig
from openmm_latent.propagators.langevin import Langevin, LangevinConfig
from openmm_latent.propagators.proposal import Proposal, ProposalConfig
from openmm_latent.topology import describe_atoms
from peptides import capped_alanine_frames, capped_alanine_topology

ATOMS = describe_atoms(capped_alanine_topology(), list(range(10)))
FRAMES = torch.tensor(capped_alanine_frames(16, 5))
VARIANTS = [
    CONFIGS[name].with_pooling(pooling) for name in ("tiny", "paper") for pooling in ("blind", "residue", "sequential")
]


def variant_id(config):
    return f"{config.decoder}-{config.pooling}"


def make_model(config=CONFIGS["tiny"]):
    torch.manual_seed(3)
    model = GLDP(config, ATOMS, FRAMES[0].numpy())
    model.eval()
    model.set_reference_embedding()
    with torch.no_grad():
        raw = model.encode(FRAMES)
    model.set_latent_statistics(raw.mean(dim=0), raw.std(dim=0).clamp(min=1e-6))
    model.set_slow(np.zeros(model.n_latent), np.eye(model.n_latent)[:2])
    return model


def export(model, path):
    return export_bundle(
        model,
        path,
        family="GLDP",
        atoms=ATOMS,
        masses=[12.0] * 10,
        lag_time=10.0,
        config={},
        training={"temperature": 300.0, "force_field": "none", "digest": "", "files": [], "seed": 1},
        reference_positions=model.reference.float().numpy(),
    )


def with_proposal(model, kernels=("lag", "independence")):
    torch.manual_seed(4)
    model.set_proposal(Proposal(model.n_slow, model.slow_periods(), ProposalConfig(kernels=kernels)).eval())
    return model


class Operations(TorchDispatchMode):
    """Notes every operation that reaches a device."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "make", [None, partial(Autoregressive, config=AutoregressiveConfig()), partial(Koopman, config=KoopmanConfig()),
             partial(Langevin, config=LangevinConfig())], ids=["none", "autoregressive", "Koopman", "Langevin"],
)  # fmt: skip
@pytest.mark.parametrize("config", VARIANTS, ids=variant_id)
def test_a_jump_on_a_gpu_never_waits_for_the_host(config, make, monkeypatch):
    """Or it could not be recorded in a CUDA graph: no value is read, no size depends on one, nothing is decomposed."""
    model = make_model(config)
    if make is not None:
        model.set_propagator(make(model.n_latent))
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: True))
    with Operations() as operations, torch.inference_mode():
        model.jump(FRAMES[:1], [], torch.zeros(1, model.n_propagate_noise))
    words = ("scalar", "item", "nonzero", "masked_select", "unique", "lift", "linalg_eigh", "svd", "cholesky")
    assert {name for name in operations.names if any(word in name for word in words)} == set()
    assert len(operations.names) > 10


def turned(frames, seed):
    """Return the frames at another place and orientation, in double precision."""
    turn = torch.tensor(Rotation.random(random_state=seed).as_matrix())
    return frames.double() @ turn.T + torch.tensor([0.7, -1.1, 0.4]), turn


@pytest.mark.parametrize("config", VARIANTS, ids=variant_id)
def test_latent_is_invariant_and_decoding_equivariant(config):
    model = make_model(config)
    moved, turn = turned(FRAMES, 1)
    noise = torch.zeros(len(FRAMES), 0)
    with torch.no_grad():
        latent, latent_moved = model.encode(FRAMES), model.encode(moved)
        decoded, decoded_moved = model.decode(latent, FRAMES, noise), model.decode(latent, moved, noise)
    assert torch.allclose(latent, latent_moved, atol=1e-5 * float(latent.abs().max()))
    expected = decoded.double() @ turn.T + torch.tensor([0.7, -1.1, 0.4])
    assert torch.allclose(decoded_moved.double(), expected, atol=1e-6)


@pytest.mark.parametrize("config", VARIANTS, ids=variant_id)
def test_batch_equals_single_and_input_is_kept(config):
    model = make_model(config)
    check_module(model, FRAMES)
    state = model.initial_state(FRAMES)
    with torch.no_grad():
        together = model.jump(FRAMES, state, torch.zeros(len(FRAMES), 0))[0]
        single = model.jump(FRAMES[3:4], state, torch.zeros(1, 0))[0]
    assert torch.allclose(together[3:4], single, atol=1e-6)


@pytest.mark.parametrize("config", VARIANTS, ids=variant_id)
def test_reloaded_bundle_equals_eager(config, tmp_path):
    model = make_model(config)
    reloaded = load_bundle(export(model, tmp_path / "adp.latent.pt")).module
    noise = torch.zeros(len(FRAMES), 0)
    with torch.no_grad():
        latent = model.encode(FRAMES)
        assert torch.allclose(reloaded.encode(FRAMES), latent, atol=1e-5)
        assert torch.allclose(reloaded.decode(latent, FRAMES, noise), model.decode(latent, FRAMES, noise), atol=1e-6)
        assert torch.allclose(reloaded.jump(FRAMES, [], noise)[0], model.jump(FRAMES, [], noise)[0], atol=1e-6)
        assert torch.allclose(reloaded.slow(latent), model.slow(latent), atol=1e-5)


@pytest.mark.parametrize("config", VARIANTS, ids=variant_id)
def test_folding_changes_a_single_frames_latent_by_rounding_alone(config):
    model = make_model(config)
    for layer in model.encoder.layers:  # statistics that a batch norm would have after training
        layer.norm.running_mean.uniform_(-0.1, 0.1)
        layer.norm.running_var.uniform_(0.5, 2.0)
    precise = make_model(config)
    precise.load_state_dict(model.state_dict())
    with torch.no_grad():
        # the exact value, by the same steps in double precision
        exact = precise.double().encode_superposed(superpose(FRAMES, precise.reference)[0])
        plain = torch.cat([model.encode(frame[None]) for frame in FRAMES])
        model.fold()
        folded = torch.cat([model.encode(frame[None]) for frame in FRAMES])
        together = model.encode(FRAMES)
    assert model.is_folded
    rounding = float((plain - exact).abs().max())
    assert float((folded - exact).abs().max()) < 4.0 * rounding
    assert float((together - exact).abs().max()) < 4.0 * rounding
    model.train()
    assert not model.is_folded
    with pytest.raises(LatentError, match=r"folded in evaluation mode; call eval\(\) first"):
        model.fold()


@pytest.mark.parametrize("is_folded", [False, True])
def test_frozen_bundle_has_the_gradient_of_finite_differences(tmp_path, is_folded):
    # The simulation freezes the module, and freezing rewrites it: it takes detach() out, for one.
    model = make_model()
    if is_folded:
        model.fold()
    module = load_bundle(export(model, tmp_path / "adp.latent.pt")).module
    frozen = torch.jit.freeze(module, preserved_attrs=["encode", "slow", "jump"])
    precise = make_model().double()

    def slow(positions):
        return precise.slow(precise.encode_superposed(superpose(positions, precise.reference)[0]))

    with torch.jit.optimized_execution(False):
        for frame in FRAMES[:4, None]:
            positions = frame.clone().requires_grad_()
            found = torch.autograd.grad(frozen.slow(frozen.encode(positions))[0, 1], positions)[0].double()
            step = 1e-5 * torch.randn(1, 10, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
            difference = slow(frame.double() + step) - slow(frame.double() - step)
            expected = float(difference[0, 1].detach()) / 2.0
            assert abs(float((found * step).sum()) - expected) < 1e-3 * float(found.norm() * step.norm())


@pytest.mark.parametrize("kernels", [("lag",), ("independence",), ("lag", "independence")])
def test_proposals_travel_in_the_bundle_and_their_shares_can_be_replaced(tmp_path, kernels):
    model = with_proposal(make_model(), kernels)
    check_module(model, FRAMES)
    bundle = load_bundle(export(model, tmp_path / "adp.latent.pt"))
    assert bundle.manifest.proposals == list(kernels)
    assert {"slow", "propose", "log_density"} <= set(bundle.manifest.capabilities)
    assert bundle.manifest.noise_sizes["propose"] == 4
    generator = torch.Generator().manual_seed(1)
    slow, noise = torch.randn(9, 2, generator=generator), torch.randn(9, 4, generator=generator)
    module = bundle.module
    for share in [torch.full((len(kernels),), 1.0 / len(kernels)), torch.eye(len(kernels))[-1]]:
        module.proposal_weights = share
        to = module.propose(slow, noise)
        assert torch.allclose(to, model.proposal.propose(slow, noise, share), atol=1e-5)
        expected = model.proposal.log_density(to, slow, share)
        assert torch.allclose(module.log_density(to, slow), expected, atol=1e-4)
        # freezing, as the simulation does it, keeps what was set
        frozen = torch.jit.freeze(module, preserved_attrs=["propose", "log_density", "jump"])
        assert torch.allclose(frozen.log_density(to, slow), expected, atol=1e-4)


def test_model_without_proposals_does_not_promise_them(tmp_path):
    export(with_proposal(make_model()), tmp_path / "first.latent.pt")  # marks the methods of the class
    bundle = load_bundle(export(make_model(), tmp_path / "second.latent.pt"))
    assert bundle.manifest.proposals == []
    assert bundle.manifest.capabilities == ["jump", "initial_state", "encode", "decode", "propagate", "slow"]
    assert not hasattr(bundle.module, "propose")
    with pytest.raises(LatentError, match="proposal must be on n_slow=2 slow coordinates, got 3; fit it on theirs"):
        make_model().set_proposal(Proposal(3, [0.0] * 3, ProposalConfig()))


def test_slow_coordinates_have_no_cliff_outside_the_data():
    # Frames pushed out along random directions, up to three times the data's spread, and beyond it from its mean. The
    # only steep places left are those where two orientations fit nearly as well.
    model = make_model()
    model.fold()
    superposed = superpose(FRAMES, model.reference)[0].float()
    mean, spread = superposed.mean(dim=0), superposed.std(dim=0)
    generator = torch.Generator().manual_seed(5)
    steps = torch.linspace(0.0, 3.0, 301)[:, None, None]
    for frame in superposed:
        for direction in (torch.randn(10, 3, generator=generator) * spread, frame - mean):
            line = frame + steps * direction
            positions = line.clone().requires_grad_()
            slow = torch.cat([model.slow(model.encode(point[None])) for point in positions])
            gradient = torch.autograd.grad(slow.sum(), positions)[0]
            assert bool(torch.isfinite(gradient).all())
            clear = orientation_gap(line, model.reference)[1:-1] > 0.05
            curvature = (slow[2:] - 2 * slow[1:-1] + slow[:-2]).detach().abs().amax(dim=1) / 0.01**2
            # steps are in units of the spread, slow coordinates in units of their own: curvatures are of order one
            assert float(curvature[clear].max()) < 100.0


def test_mirror_image_has_another_latent():
    model = make_model()
    with torch.no_grad():
        difference = model.encode(FRAMES) - model.encode(FRAMES * torch.tensor([-1.0, 1.0, 1.0]))
    assert float(difference.abs().max()) > 0.1


def test_gradient_of_slow_coordinates_matches_finite_differences():
    model = make_model().double()  # encode ends in float32; the same steps in double precision

    def slow(positions):
        return model.slow(model.encode_superposed(superpose(positions, model.reference)[0]))

    assert torch.autograd.gradcheck(slow, (FRAMES[:1].double().requires_grad_(),), atol=1e-5)


def test_slow_coordinates_exert_no_net_force_and_no_torque():
    model = make_model()
    frames = (FRAMES - FRAMES.mean(dim=1, keepdim=True)).requires_grad_()
    force = torch.autograd.grad(model.slow(model.encode(frames)).sum(), frames)[0]
    largest = float(force.abs().max())
    assert float(force.sum(dim=1).abs().max()) < 1e-3 * largest
    assert float(torch.cross(frames.detach(), force, dim=2).sum(dim=1).abs().max()) < 1e-3 * largest


def test_blind_pooling_is_adaptive_average_pooling():
    atoms = ATOMS * 3
    pooling = Pooling(atoms, replace(CONFIGS["tiny"], pool_rows=7, pool_columns=3))
    embedding = torch.randn(4, 30, 16, generator=torch.Generator().manual_seed(1))
    expected = torch.nn.functional.adaptive_avg_pool2d(embedding, (7, 3)).flatten(1)
    assert torch.allclose(pooling(embedding), expected, atol=1e-6)


@pytest.mark.parametrize("largest_dense", [256, 0], ids=["dense", "lists"])
def test_residue_pooling_averages_each_residue(monkeypatch, largest_dense):
    monkeypatch.setattr(autoencoder, "LARGEST_DENSE", largest_dense)
    pooling = Pooling(ATOMS, CONFIGS["tiny"].with_pooling("residue"))
    embedding = torch.randn(2, 10, 16, generator=torch.Generator().manual_seed(1))
    columns = torch.tensor(adaptive_windows(16, 3).T, dtype=torch.float32)
    expected = [embedding[:, a:b].mean(dim=1) @ columns for a, b in [(0, 3), (3, 8), (8, 10)]]
    assert torch.allclose(pooling(embedding), torch.cat(expected, dim=1), atol=1e-6)


def test_sequential_pooling_keeps_backbone_and_side_chain_apart():
    pooling = Pooling(ATOMS, CONFIGS["tiny"].with_pooling("sequential"))
    embedding = torch.randn(1, 10, 16, generator=torch.Generator().manual_seed(1))
    changed = embedding.clone()
    changed[:, 5] += 1.0  # CB
    same = (pooling(embedding) == pooling(changed))[0]
    assert bool(same[: pooling.n_first].all())
    assert not bool(same[pooling.n_first :].all())


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("pooling", "global", "pooling must be one of blind, residue, sequential, got 'global'"),
        ("encoder_width", 0, "encoder_width must be at least 1, got 0"),
        ("pool_columns", 99, "pool_columns must not exceed encoder_width=16, got 99"),
        ("validation_fraction", 1.0, "validation_fraction must lie between 0 and 1, got 1.0"),
    ],
)
def test_configuration_that_cannot_work_is_refused(field, value, sentence):
    with pytest.raises(LatentError, match=sentence):
        GLDPConfig(**{field: value})


def test_reference_on_one_line_is_refused():
    line = np.arange(10.0)[:, None] * np.array([0.1, 0.0, 0.0])
    with pytest.raises(LatentError, match="do not lie on one line"):
        GLDP(CONFIGS["tiny"], ATOMS, line)


def test_reference_of_another_size_is_refused():
    with pytest.raises(LatentError, match=r"reference must have shape \(n_atoms=10, 3\) \[nm\], got \(9, 3\)"):
        GLDP(CONFIGS["tiny"], ATOMS, np.zeros((9, 3)))


def on_torsions(model):
    """Let the first two torsions' cosines be the slow coordinates."""
    n_features = 2 * len(model.torsions)
    model.set_slow(np.zeros(n_features), np.eye(n_features)[:2], uses_torsions=True)
    return model


def test_torsions_behind_the_latent_are_those_of_the_frame_and_of_what_is_decoded(tmp_path):
    model = on_torsions(make_model())
    assert model.n_latent == model.n_learned + 2 * len(model.torsions)
    noise = torch.zeros(len(FRAMES), 0)
    module = load_bundle(export(model, tmp_path / "adp.latent.pt")).module
    with torch.no_grad():
        latent = module.encode(FRAMES)
        expected = torch.cos(torsion_angles(FRAMES, model.torsions))[:, :2]
        torch.testing.assert_close(module.slow(latent), expected, atol=1e-5, rtol=0)
        later = module.propagate(latent, [], noise)[0]
        placed = module.decode(later, FRAMES, noise)
        decoded = torch.cos(torsion_angles(placed, model.torsions))[:, :2]
        torch.testing.assert_close(module.slow(later), decoded, atol=1e-4, rtol=0)
        torch.testing.assert_close(module.jump(FRAMES, [], noise)[0], placed, atol=1e-6, rtol=0)


def test_angles_as_slow_coordinates_are_periodic_and_of_the_frame(tmp_path):
    model = make_model()
    model.set_slow_angles(np.array([1, 0]))
    assert model.slow_periods() == pytest.approx([2 * np.pi, 2 * np.pi])
    bundle = load_bundle(export(model, tmp_path / "adp.latent.pt"))
    assert bundle.manifest.slow_periods == pytest.approx([2 * np.pi, 2 * np.pi])
    expected = torsion_angles(FRAMES, model.torsions)[:, [1, 0]]
    with torch.no_grad():
        torch.testing.assert_close(bundle.module.slow(bundle.module.encode(FRAMES)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [CONFIGS["tiny"], CONFIGS["paper"].with_pooling("residue")])
def test_large_molecules_are_decoded_part_by_part(config):
    """As a whole and three atoms at a time: the same structure."""
    model = make_model(config)
    latent = torch.randn(len(FRAMES), model.n_learned, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = model.decode_superposed(latent)
        model.decoder.first.atoms_at_once = 3 * len(FRAMES)
        torch.testing.assert_close(torch.jit.script(model).decode_superposed(latent), whole, atol=1e-6, rtol=0)
