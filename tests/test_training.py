import json
import signal
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from openmm_latent.bundle import load_bundle
from openmm_latent.errors import LatentError
from openmm_latent.geometry import dihedrals
from openmm_latent.models.gldp import CONFIGS
from openmm_latent.nn.superposition import orientation_gap
from openmm_latent.propagators import autoregressive, koopman, langevin
from openmm_latent.propagators.proposal import ProposalConfig
from openmm_latent.training import gldp as stages
from openmm_latent.training import loop, train_autoencoder, train_gldp
from openmm_latent.training.slow_coordinates import set_slow_coordinates
from peptides import capped_alanine_frames, capped_alanine_trajectories

QUICK = replace(CONFIGS["tiny"], encoder_steps=40, decoder_steps=40, validate_every=20, batch_size=64)
QUIET = {"device": "cpu", "progress": False, "seed": 4}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train an autoencoder once for the tests that only look at it."""
    work = tmp_path_factory.mktemp("work")
    trajectories = capped_alanine_trajectories()
    config = replace(QUICK, encoder_steps=300, decoder_steps=200, validate_every=100)
    model, latents = train_autoencoder(trajectories, config, work_directory=work, **QUIET)
    return trajectories, config, work, model, latents


def test_autoencoder_reconstructs_frames_it_has_not_seen(trained):
    model = trained[3]
    frames = torch.tensor(capped_alanine_frames(200, 77))
    with torch.no_grad():
        decoded = model.decode(model.encode(frames), frames, torch.zeros(200, 0))
    error = (decoded - frames).pow(2).sum(dim=2).mean(dim=1).sqrt()
    spread = float((model.displacement_scale**2 * 3).sqrt())
    # what training needs to show here: most of the motion is in the latent
    assert float(error.mean()) < 0.25 * spread


def test_latents_are_standardised_one_segment_a_file(trained):
    trajectories, latents = trained[0], trained[4]
    assert [len(segment) for segment in latents] == [len(part) for part in trajectories.positions]
    everything = np.concatenate(latents)
    np.testing.assert_allclose(everything.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(everything.std(axis=0), 1.0, atol=1e-3)


def test_finished_stages_are_not_repeated(trained, monkeypatch):
    trajectories, config, work, model, latents = trained
    monkeypatch.setattr(loop, "run_stage", lambda *a, **k: pytest.fail("a finished stage was trained again"))
    again, same = train_autoencoder(trajectories, config, work_directory=work, **QUIET)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    np.testing.assert_array_equal(same[1], latents[1])


@pytest.mark.parametrize("change", ["config", "data", "seed"])
def test_stages_of_other_settings_are_not_taken_up(trained, monkeypatch, change):
    trajectories, config, work, _, _ = trained
    quiet = dict(QUIET)
    if change == "config":
        config = replace(config, latent_noise=0.1)
    elif change == "data":
        trajectories = replace(trajectories, digest="other data")
    else:
        quiet["seed"] = 5

    class TrainedAnewError(Exception):
        pass

    def refuse(*arguments, **keywords):
        raise TrainedAnewError

    monkeypatch.setattr(loop, "run_stage", refuse)
    with pytest.raises(TrainedAnewError):
        train_autoencoder(trajectories, config, work_directory=work, **quiet)


def test_interrupted_training_resumes_to_the_same_model(tmp_path, monkeypatch):
    trajectories = capped_alanine_trajectories(n_frames=200)
    whole, _ = train_autoencoder(trajectories, QUICK, work_directory=tmp_path / "whole", **QUIET)

    original, n_calls = loop.Stage.training_step, 0

    def interrupted(self, batch, batch_index):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 30:  # in the second epoch of the first stage
            signal.raise_signal(signal.SIGINT)
        return original(self, batch, batch_index)

    monkeypatch.setattr(loop.Stage, "training_step", interrupted)
    # a shell's background job ignores Ctrl-C, and so would a suite that runs as one
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train_autoencoder(trajectories, QUICK, work_directory=tmp_path / "cut", **QUIET)
    finally:
        signal.signal(signal.SIGINT, before)
    resumed, _ = train_autoencoder(trajectories, QUICK, work_directory=tmp_path / "cut", **QUIET)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    # 40 steps a stage; the 30 before the interruption kept their first epoch of 20
    assert n_calls == 30 + 20 + 40


def test_same_seed_same_model_other_seed_another(tmp_path):
    trajectories = capped_alanine_trajectories(n_frames=100)
    quick = replace(QUICK, encoder_steps=10, decoder_steps=5, validate_every=5)
    models = [
        train_autoencoder(trajectories, quick, work_directory=tmp_path / str(i), **{**QUIET, "seed": seed})[0]
        for i, seed in enumerate([1, 1, 2])
    ]
    weights = [model.state_dict()["encoder.last.linear.weight"] for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("pooling", ["residue", "sequential"])
def test_published_decoder_and_linear_head_train(tmp_path, pooling):
    config = replace(
        CONFIGS["paper"].with_pooling(pooling),
        encoder_steps=20,
        decoder_steps=20,
        validate_every=10,
        decoder_width=16,
    )
    model, latents = train_autoencoder(
        capped_alanine_trajectories(n_frames=100), config, work_directory=tmp_path, **QUIET
    )
    assert latents[0].shape == (100, model.n_latent)
    assert not any(module.training for module in model.modules() if isinstance(module, torch.nn.BatchNorm1d))


PROPAGATOR_CONFIGS = {
    "autoregressive": replace(autoregressive.CONFIGS["tiny"], n_hidden=32, n_components=4, n_epochs=3),
    "koopman": koopman.CONFIGS["tiny"],
    "langevin": replace(langevin.CONFIGS["tiny"], n_hidden=32, n_epochs=3),
}


@pytest.mark.parametrize("propagator", PROPAGATOR_CONFIGS)
def test_bundle_of_each_propagator_reuses_the_autoencoder_and_jumps(trained, tmp_path, monkeypatch, propagator):
    trajectories, config, work, _, _ = trained
    monkeypatch.setattr(loop, "run_stage", lambda *a, **k: pytest.fail("the autoencoder was trained again"))
    out = tmp_path / f"{propagator}.latent.pt"
    chosen = {"propagator": propagator, "propagator_config": PROPAGATOR_CONFIGS[propagator]}
    model = train_gldp(trajectories, lag_time=2.0, config=config, out=out, work_directory=work, **chosen, **QUIET)
    bundle = load_bundle(out)
    assert bundle.manifest.lag_time == 2.0
    assert bundle.manifest.temperature == 300.0
    assert bundle.manifest.config["pooling"] == "blind"
    assert bundle.manifest.config["propagator_config"] == json.loads(json.dumps(asdict(PROPAGATOR_CONFIGS[propagator])))
    frames = torch.tensor(capped_alanine_frames(8, 99))
    noise = torch.randn(8, bundle.manifest.noise_sizes["jump"], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        jumped = bundle.module.jump(frames, [], noise)[0]
        expected = model.jump(frames, [], noise)[0]
    assert torch.allclose(jumped, expected, atol=1e-5)
    assert float((jumped - frames).abs().max()) > 1e-3
    assert bundle.manifest.config["slow_features"] == "torsions"
    assert bundle.manifest.n_latent == model.n_learned + 2 * len(model.torsions)
    assert bundle.manifest.proposals == ["lag", "independence"]
    assert bundle.manifest.config["proposal_config"]["flattening"] == 0.5
    with torch.no_grad():
        slow = bundle.module.slow(bundle.module.encode(torch.tensor(trajectories.concatenated())))
        proposed = bundle.module.propose(slow, torch.randn(len(slow), 4, generator=torch.Generator().manual_seed(2)))
    # TICA's covariance leaves out one lag time at the ends, so variances are 1 to a few per cent
    assert slow.var(dim=0).tolist() == pytest.approx([1.0, 1.0], abs=0.1)
    assert bool((proposed.std(dim=0) < 4.0).all())
    assert bool(torch.isfinite(bundle.module.log_density(proposed, slow)).all())


def test_slow_coordinates_and_proposals_are_as_asked(trained, tmp_path, monkeypatch):
    trajectories, config, work, _, _ = trained
    monkeypatch.setattr(loop, "run_stage", lambda *a, **k: pytest.fail("the autoencoder was trained again"))
    asked = {
        "n_slow": 1,
        "slow_method": "vamp",
        "slow_features": "latent",
        "proposal_config": ProposalConfig(kernels=("independence",), n_components=4, n_epochs=2, flattening=0.0),
    }
    koopman_config = {"propagator": "koopman", "propagator_config": PROPAGATOR_CONFIGS["koopman"]}
    out = tmp_path / "one.latent.pt"
    train_gldp(
        trajectories, lag_time=2.0, config=config, out=out, work_directory=work, **koopman_config, **asked, **QUIET
    )
    manifest = load_bundle(out).manifest
    assert (manifest.n_slow, manifest.proposals, manifest.noise_sizes["propose"]) == (1, ["independence"], 3)
    assert manifest.config["slow_method"] == "vamp"
    assert manifest.config["slow_features"] == "latent"
    assert manifest.n_latent == trained[3].n_learned


def test_angles_are_slow_coordinates_in_radians_with_a_turn_as_their_period(trained, tmp_path, monkeypatch):
    trajectories, config, work, _, _ = trained
    monkeypatch.setattr(loop, "run_stage", lambda *a, **k: pytest.fail("the autoencoder was trained again"))
    proposal = ProposalConfig(kernels=("independence",), n_components=4, n_epochs=2)
    out = tmp_path / "angles.latent.pt"
    how = {"propagator": "koopman", "slow_features": "angles", "proposal_config": proposal}
    train_gldp(trajectories, lag_time=2.0, config=config, out=out, work_directory=work, **how, **QUIET)
    bundle = load_bundle(out)
    assert bundle.manifest.config["slow_features"] == "angles"
    assert bundle.manifest.slow_periods == pytest.approx([2 * np.pi] * 2)
    frames = trajectories.concatenated()
    with torch.no_grad():
        slow = bundle.module.slow(bundle.module.encode(torch.tensor(frames))).numpy()
    torsions = dihedrals(frames, trained[3].torsions.numpy())
    away = np.abs(np.exp(1j * slow[:, :, None]) - np.exp(1j * torsions[:, None, :])).max(axis=0)  # (n_slow, n_torsions)
    assert (away.min(axis=1) < 1e-3).all()
    assert away.argmin(axis=1).tolist() in ([0, 1], [1, 0])


@pytest.mark.parametrize(("features", "picked"), [("angles", [2]), ("backbone", [1])])
def test_a_side_chain_that_turns_most_slowly_is_no_backbone_angle(features, picked):
    """Three torsions of four atoms each, of memories 2, 20 and 200 frames; the third is no phi or psi."""
    random, angles = np.random.default_rng(4), np.zeros((4000, 3))
    kept = np.exp(-1.0 / np.array([2.0, 20.0, 200.0]))
    for i in range(1, len(angles)):
        angles[i] = kept * angles[i - 1] + np.sqrt(1 - kept**2) * 0.5 * random.standard_normal(3)
    zero, one = np.zeros_like(angles), np.ones_like(angles)
    corners = [(one, zero, zero), (zero, zero, zero), (zero, zero, one), (np.cos(angles), np.sin(angles), one)]
    positions = np.stack([np.stack(corner, axis=2) for corner in corners], axis=2).reshape(-1, 12, 3)
    set_to = []
    model = SimpleNamespace(
        torsions=torch.arange(12).view(3, 4),
        n_backbone_torsions=2,
        set_slow_angles=lambda chosen: set_to.extend(np.asarray(chosen).tolist()),
    )
    (slow,) = set_slow_coordinates(model, features, [], SimpleNamespace(positions=[positions]), (5, 1, "tica"))
    assert set_to == picked
    np.testing.assert_allclose(np.abs(slow[:, 0]), np.abs(angles[:, picked[0]]), atol=1e-4)


def test_reference_is_a_frame_on_which_the_data_superposes_clearly():
    folded = capped_alanine_frames(40, 3)
    flat = folded[:1] * np.array([1.0, 1.0, 0.02], dtype=np.float32)  # all of its atoms nearly in one plane
    chosen = stages._clearest_frame([flat, folded[:20], folded[20:]])
    frames = torch.tensor(folded)
    gaps = [float(orientation_gap(frames, torch.tensor(frame)).min()) for frame in (chosen, flat[0])]
    assert gaps[0] > 1.5 * gaps[1]
    assert any(np.array_equal(chosen, frame) for frame in folded.astype(np.float64))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"propagator": "lstm"}, "propagator must be one of autoregressive, koopman, langevin, got 'lstm'"),
        ({"slow_features": "contacts"}, r"slow_features must be one of auto, torsions, .* latent, got 'contacts'"),
        ({"config": "huge"}, "config must be one of tiny, paper or a GLDPConfig, got 'huge'"),
        ({"pooling": "all"}, "pooling must be one of blind, residue, sequential, got 'all'"),
        ({"device": "tpu"}, "device must be 'auto', 'cpu' or 'cuda', got 'tpu'"),
        ({"lag_time": 1.5}, "lag_time must be a multiple of the frame spacing"),
    ],
)
def test_wrong_arguments_are_told(arguments, sentence):
    with pytest.raises(LatentError, match=sentence):
        train_gldp(capped_alanine_trajectories(n_frames=20), **{"lag_time": 1.0, "progress": False, **arguments})


def test_absent_gpu_is_told(monkeypatch):
    monkeypatch.setattr(stages.torch.cuda, "is_available", lambda: False)
    with pytest.raises(LatentError, match="torch sees no CUDA device; give 'cpu' or 'auto'"):
        train_gldp(capped_alanine_trajectories(n_frames=20), lag_time=1.0, device="cuda", progress=False)


def test_training_stops_early_when_validation_no_longer_improves(tmp_path, monkeypatch):
    original, n_steps = loop.Stage.training_step, 0

    def counted(self, batch, batch_index):
        nonlocal n_steps
        n_steps += 1
        return original(self, batch, batch_index)

    monkeypatch.setattr(loop.Stage, "training_step", counted)
    # a vanishing learning rate improves no decoder: one validation sets the best, two more end the stage (an encoder's
    # batch norm goes on learning its statistics)
    config = replace(QUICK, encoder_target="linear", decoder_rate=1e-30, validate_every=5, patience=2)
    config = replace(config, encoder_steps=5, decoder_steps=100, dihedral_fraction=0.0)
    train_autoencoder(capped_alanine_trajectories(n_frames=100), config, work_directory=tmp_path, **QUIET)
    assert n_steps == 5 + 15


@pytest.mark.cuda
def test_training_on_a_gpu_gives_a_model_on_the_cpu(tmp_path):
    trajectories = capped_alanine_trajectories(n_frames=100)
    model, latents = train_autoencoder(trajectories, QUICK, work_directory=tmp_path, **{**QUIET, "device": "cuda"})
    assert all(value.device.type == "cpu" for value in model.state_dict().values())
    assert np.isfinite(latents[0]).all()
