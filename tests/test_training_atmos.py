"""Training of ATMOS: what it learns of a known process, interruption, weights, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from atmos_models import POSITIONS, TOPOLOGY, random_model, small_config
from complexes import SDF, complex_system, load_complex
from openmm_latent import LatentError
from openmm_latent.bundle import load_bundle
from openmm_latent.data.complex_frames import complex_frames, complex_of
from openmm_latent.data.complex_tokens import read_tokens
from openmm_latent.models.atmos import CONFIGS
from openmm_latent.models.atmos.weights import load_weights, save_weights
from openmm_latent.training.atmos import _Teacher, _Training, _Windows, train_atmos
from openmm_latent.training.atmos_binding import bind_atmos, export_complex
from openmm_latent.training.checkpoints import Checkpoint
from peptides import capped_alanine_topology, capped_alanine_trajectories

EXAMPLES = [complex_of(capped_alanine_trajectories(200), name="alanine")]
APART = [complex_of(capped_alanine_trajectories(60, seed=9), name="apart")]
CONFIG = small_config(data_scale=0.0, fine_data_scale=0.0, upsampling=2, n_steps=6, n_windows=2, n_frames=3, n_draws=2)


def weights_of(model):
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model trained for six steps, its weights file and what was told."""
    told = []
    out = tmp_path_factory.mktemp("atmos") / "alanine.weights.pt"
    model = train_atmos(
        EXAMPLES,
        lag_time=4.0,
        config=CONFIG,
        validation=APART,
        out=out,
        progress={"key frames": lambda *a: told.append(("key", *a)), "interpolator": lambda *a: told.append(a)},
        facts={"temperature": 300.0},
    )
    return model, out, told


def test_both_networks_are_trained_and_what_they_draw_is_measured(trained):
    model, _, told = trained
    assert (model.key_time, model.fine_time) == (4.0, 2.0)
    assert not model.training
    assert model.interpolator.is_interpolator
    assert 0.01 < model.config.fine_data_scale < model.config.data_scale < 0.2
    assert model.keyframes.decoder.edm.data_scale == model.config.data_scale
    assert [line[:3] for line in told if line[0] == "key"] == [("key", i, 6) for i in range(1, 7)]
    assert all(np.isfinite(line[-1]) for line in told)


def test_an_interrupted_training_ends_where_it_would_have(trained, tmp_path):
    class Stop(Exception):
        pass

    def stop(done, *_):
        if done == 3:
            raise Stop

    arguments = {"lag_time": 4.0, "config": CONFIG, "validation": APART, "work_directory": tmp_path}
    for stage in ("key frames", "interpolator"):
        with pytest.raises(Stop):
            train_atmos(EXAMPLES, progress={stage: stop}, **arguments)
    resumed = train_atmos(EXAMPLES, **arguments)
    assert torch.equal(weights_of(resumed), weights_of(trained[0]))
    assert len(list(tmp_path.glob("*.ckpt"))) == 2


def test_weights_come_back_and_say_what_they_were_taught_on(trained):
    model, path, _ = trained
    loaded, training = load_weights(path)
    assert loaded.config == model.config
    assert torch.equal(weights_of(loaded), weights_of(model))
    assert training["complexes"] == {"alanine": {"tokens": 6, "frames": 400}}
    assert (training["temperature"], training["validation"], training["knows_charges"]) == (300.0, ["apart"], False)
    assert len(training["references"]) == 1


def test_a_window_too_long_for_a_run_is_shortened_and_one_of_two_frames_refused():
    short = complex_of(capped_alanine_trajectories(6))
    assert _Windows([short], [], 2.0, 20).length_of(short) == 3
    with pytest.raises(LatentError, match="complex has no run of 9 frames, which a window of 2 frames 8 ps apart"):
        train_atmos([short], lag_time=8.0, config=CONFIG)


@pytest.mark.parametrize("predicts_shift", [True, False])
def test_a_batch_shows_and_asks_what_it_should(predicts_shift):
    config = replace(CONFIG, data_scale=0.1, fine_data_scale=0.1, predicts_shift=predicts_shift, frame_noise=0.0)
    teacher = _Teacher(config, _Windows(EXAMPLES, [], 2.0, 4), False, "cpu")
    batch = teacher.batch(EXAMPLES[0], np.random.default_rng(1))
    network = random_model(predicts_shift=predicts_shift).keyframes
    context = network.context(batch.chemistry, *batch.trunk)
    states, anchors, ways, targets = teacher._unroll(network, batch, context, torch.Generator().manual_seed(1))
    assert len(states) == len(anchors) == len(ways) == len(targets) == 4  # without a frame, then three
    assert torch.equal(targets[0], batch.frames[:, 0])
    assert float((targets[2] - batch.frames[:, 2]).abs().max()) < 0.2
    assert torch.equal(anchors[1], batch.frames[:, 0] if predicts_shift else torch.zeros_like(anchors[1]))
    assert float(torch.cat(ways).detach().abs().max()) == 0.0
    centres = batch.frames.mean(2)
    assert float(centres.abs().max()) < 1e-5


def test_an_interpolators_batch_knows_its_end_and_the_steps_left():
    teacher = _Teacher(CONFIG, _Windows(EXAMPLES, [], 2.0, 6), True, "cpu")
    network = random_model(fine_time=2.0).interpolator
    lefts = set()
    for number in range(20):
        batch = teacher.batch(EXAMPLES[0], np.random.default_rng(number))
        assert batch.frames.shape[1] == batch.left
        lefts.add(batch.left)
    assert lefts == {2, 3, 4, 5}
    context = network.context(batch.chemistry, *batch.trunk)
    states, _, ways, targets = teacher._unroll(network, batch, context, torch.Generator().manual_seed(1))
    assert len(states) == len(targets) == batch.left - 1
    assert float(ways[0].abs().max()) > 0.01


def test_random_turns_turn_windows_and_reference_alike():
    config = replace(CONFIG, turns=True)
    teacher = _Teacher(config, _Windows(EXAMPLES, [], 2.0, 3), False, "cpu")
    batch = teacher.batch(EXAMPLES[0], np.random.default_rng(1))
    plain = _Teacher(CONFIG, _Windows(EXAMPLES, [], 2.0, 3), False, "cpu").batch(EXAMPLES[0], np.random.default_rng(1))
    assert float((batch.frames - plain.frames).abs().max()) > 0.05
    for one, other in ((batch.frames[:, 0], plain.frames[:, 0]), (batch.reference, plain.reference)):
        torch.testing.assert_close(torch.cdist(one, one), torch.cdist(other, other), atol=1e-4, rtol=0)
    between = (batch.frames[:, 0] - batch.reference).norm(dim=2)
    torch.testing.assert_close(between, (plain.frames[:, 0] - plain.reference).norm(dim=2), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_it_learns_a_known_process():
    """Sixty steps of the tiny network take a fifth off the loss on frames that it never saw (0.81 of it is left)."""
    config = replace(CONFIGS["tiny"], n_steps=60, upsampling=1)
    losses = []
    train_atmos(
        EXAMPLES, lag_time=2.0, config=config, validation=APART, progress={"key frames": lambda *a: losses.append(a[3])}
    )
    assert losses[-1] < 0.87 * losses[0]


# ---- binding ---------------------------------------------------------------------------------------------------------


def test_weights_and_a_structure_make_a_bundle(trained, tmp_path):
    topology = capped_alanine_topology()
    turned = np.asarray(EXAMPLES[0].runs[0][7], dtype=float)
    path = bind_atmos(trained[1], topology, turned, tmp_path / "alanine.latent.pt", n_steps=3)
    manifest = load_bundle(path).manifest
    assert (manifest.family, manifest.lag_time, manifest.temperature) == ("ATMOS", 4.0, 300.0)
    assert manifest.capabilities == ["jump", "initial_state", "sample", "interpolate", "fill"]
    assert manifest.config["upsampling"] == 2
    known = EXAMPLES[0].reference - EXAMPLES[0].reference.mean(axis=0)
    np.testing.assert_allclose(manifest.reference_positions, known, atol=1e-4)


def test_a_complex_that_was_never_seen_needs_random_turns(trained, tmp_path):
    out = tmp_path / "b.latent.pt"
    with pytest.raises(LatentError, match="trained without random turns, on alanine alone, and know no other complex"):
        bind_atmos(trained[1], TOPOLOGY, POSITIONS, out)
    path = export_complex(random_model(turns=True), TOPOLOGY, POSITIONS, out)
    assert len(load_bundle(path).manifest.atoms) == 14


def test_bond_orders_must_be_known_as_in_training(tmp_path):
    sdf, out = tmp_path / "ligand.sdf", tmp_path / "b.latent.pt"
    sdf.write_text(SDF)
    knowing = save_weights(tmp_path / "k.weights.pt", random_model(turns=True), {"knows_orders": True})
    with pytest.raises(
        LatentError, match=r"were trained with orders of bonds in ligands; pass ligands \(--ligand\), SDF"
    ):
        bind_atmos(knowing, TOPOLOGY, POSITIONS, out)
    ignorant = save_weights(tmp_path / "i.weights.pt", random_model(turns=True), {"knows_orders": False})
    with pytest.raises(LatentError, match=r"without orders of bonds in ligands; leave ligands \(--ligand\) out"):
        bind_atmos(ignorant, TOPOLOGY, POSITIONS, out, ligands=[sdf])
    assert bind_atmos(knowing, TOPOLOGY, POSITIONS, out, ligands=[sdf]).exists()


def test_charges_must_be_known_as_in_training(trained, tmp_path):
    topology, positions = load_complex()
    system, out = complex_system(topology), tmp_path / "b.latent.pt"
    with pytest.raises(LatentError, match="were trained without charges of a System; leave system out"):
        bind_atmos(trained[1], topology, positions, out, system=system)
    weights = save_weights(tmp_path / "c.weights.pt", random_model(turns=True), {"knows_charges": True})
    with pytest.raises(LatentError, match=r"with charges of a System; pass system \(--system\), so that"):
        bind_atmos(weights, topology, positions, out)
    assert bind_atmos(weights, topology, positions, out, system=system).exists()
    with pytest.raises(LatentError, match=r"positions must be finite and of shape \(n_particles=31, 3\) \[nm\], got"):
        bind_atmos(weights, topology, positions[:5], out, system=system)


def test_weights_of_another_kind_are_refused(trained, tmp_path):
    content = torch.load(trained[1], weights_only=True)
    other = tmp_path / "other.weights.pt"
    torch.save({**content, "family": "codlad"}, other)
    with pytest.raises(LatentError, match="must be of family 'atmos', got 'codlad'"):
        load_weights(other)
    torch.save({**content, "config": {"model": {"n_planets": 9}}}, other)
    with pytest.raises(LatentError, match="was written by another version, with other settings"):
        load_weights(other)


def test_arguments_out_of_range_are_refused(tmp_path):
    for arguments, sentence in (
        ({"config": "huge"}, "config must be one of tiny, paper, got 'huge'"),
        ({"out": tmp_path / "no" / "w.pt"}, "out: the folder .* does not exist"),
        ({"lag_time": 3.0}, "alanine: lag_time"),
        ({"device": "tpu"}, "device must be 'auto', 'cpu' or 'cuda', got 'tpu'"),
    ):
        with pytest.raises(LatentError, match=sentence):
            train_atmos(EXAMPLES, **{"lag_time": 4.0, "config": CONFIG, **arguments})
    with pytest.raises(LatentError, match="examples must hold at least one complex, got none"):
        train_atmos([], lag_time=4.0)
    with pytest.raises(LatentError, match="alanine has no trunk features, which this configuration takes"):
        train_atmos(EXAMPLES, lag_time=4.0, config=replace(CONFIG, n_trunk_single=4))


def test_numbers_that_are_none_stop_training():
    training = _Training(
        random_model(fine_time=0.0).keyframes, _Teacher(CONFIG, _Windows(EXAMPLES, [], 4.0, 3), False, "cpu"), 1
    )
    torch.nn.init.constant_(training.network.blank_single, float("nan"))
    with pytest.raises(LatentError, match="training of ATMOS gave numbers that are not finite; lower"):
        training.run(Checkpoint(None, ""), None)


def test_the_topology_has_the_tokens_that_training_saw():
    assert read_tokens(capped_alanine_topology()).same_as(EXAMPLES[0].tokens)
    assert complex_frames(TOPOLOGY, [POSITIONS[None]], 1.0).tokens.n_atoms == 14


def test_the_commands_train_on_a_folder_and_bind(tmp_path):
    import mdtraj
    from openmm import app, unit
    from typer.testing import CliRunner

    from openmm_latent.cli import app as command

    folder, out = tmp_path / "data" / "one", tmp_path / "one.weights.pt"
    folder.mkdir(parents=True)
    pdb, positions = folder / "one.pdb", np.asarray(EXAMPLES[0].runs[0], dtype=float)
    with open(pdb, "w") as file:
        app.PDBFile.writeFile(capped_alanine_topology(), positions[0] * unit.nanometer, file)
    top = mdtraj.load(str(pdb)).topology
    mdtraj.Trajectory(positions, top, time=1.0 * np.arange(200)).save(str(folder / "a.xtc"))
    train = ["train", "atmos", "--data", folder.parent, "--lag-time", 2, "--out", out, "--steps", 2, "--upsampling", 2]
    done = CliRunner().invoke(command, [str(word) for word in train])
    assert done.exit_code == 0, done.output
    bundle = tmp_path / "one.latent.pt"
    bind = ["bind", out, "--top", pdb, "--out", bundle, "--n-steps", 3]
    done = CliRunner().invoke(command, [str(word) for word in bind])
    assert done.exit_code == 0, done.output
    manifest = load_bundle(bundle).manifest
    assert (manifest.family, manifest.lag_time, manifest.config["fine_time"]) == ("ATMOS", 2.0, 1.0)
