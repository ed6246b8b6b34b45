"""Training ConfRover: it learns what follows what, repeats, resumes where it was; what is refused."""

import dataclasses
import re

import mdtraj
import numpy as np
import pytest
import torch
from openmm import app
from typer.testing import CliRunner

from openmm_latent.cli import app as command
from openmm_latent.data.frame_windows import ProteinRuns
from openmm_latent.errors import LatentError
from openmm_latent.models.confrover import CONFIGS, ConfRover, load_weights
from openmm_latent.models.confrover.losses import FrameLoss
from openmm_latent.models.confrover.sampler import FrameSampler
from openmm_latent.nn.frame_coordinates import FrameCoordinates
from openmm_latent.nn.residue_geometry import RESIDUE_NAMES, describe_residues
from openmm_latent.training.confrover import OBJECTIVES, learning_rate, train_confrover
from trace_peptides import peptide_frames, types_of

SMALL = dataclasses.replace(
    CONFIGS["tiny"],
    n_distance_bins=12,
    encoder_width=8,
    encoder_head_width=4,
    width=16,
    n_temporal_layers=2,
    temporal_hidden=16,
    n_temporal_heads=2,
    n_single_heads=2,
    n_triangle_heads=1,
    triangle_head_width=8,
    decoder_width=32,
    decoder_pair_width=8,
    n_decoder_blocks=2,
    n_decoder_heads=2,
    n_scalar=8,
    n_query_points=2,
    n_value_points=2,
    skip_width=0,
    n_frames=4,
    n_windows=2,
    n_singles=4,
    n_draws=1,
    max_stride=2,
    time_unit=1.0,
    warm_up=2,
    n_steps=4,
)


def swinging_runs(n_runs=2, n_frames=40, seed=1):
    """Return runs of GAVL whose psi of the second residue swings back and forth between two values each frame."""
    rng = np.random.default_rng(seed)
    residues = describe_residues(types_of("GAVL"))
    start = torch.tensor(peptide_frames("GAVL").positions)
    coordinates = FrameCoordinates(residues)
    from openmm_latent.nn.frame_coordinates import residue_frames

    rotations, ca = residue_frames(start)
    torsions = coordinates.torsions(start)
    runs = []
    for _ in range(n_runs):
        bend = torch.tensor(np.where((np.arange(n_frames) + rng.integers(2)) % 2, 0.9, -0.9))
        turn = torch.zeros(n_frames, 3, 3)
        turn[:, 0, 0] = 1.0
        turn[:, 1, 1] = turn[:, 2, 2] = bend.cos()
        turn[:, 2, 1], turn[:, 1, 2] = bend.sin(), -bend.sin()
        turned = rotations.expand(n_frames, -1, -1, -1).clone()
        moved = ca.expand(n_frames, -1, -1).clone()
        hinge, frame = ca[0, 1], rotations[0, 1]
        whole = frame @ turn @ frame.T
        turned[:, 2:] = whole.unsqueeze(1) @ turned[:, 2:]
        moved[:, 2:] = torch.einsum("fij,fnj->fni", whole, moved[:, 2:] - hinge) + hinge
        moved = moved + 0.003 * torch.tensor(rng.normal(size=moved.shape), dtype=torch.float32)
        runs.append(coordinates.to_cartesian(turned, moved, torsions.expand(n_frames, -1, -1)).numpy())
    return ProteinRuns("swing", residues, np.zeros((0, 2), dtype=int), tuple(runs), 1.0)


RUNS = swinging_runs()


def same(one, other):
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


# ---- losses ----------------------------------------------------------------------------------------------------------


def test_the_loss_of_the_truth_is_nothing_and_grows_with_every_error():
    loss = FrameLoss(SMALL, RUNS.residues)
    clean = loss.clean(torch.tensor(RUNS.runs[0][:6]))
    time = torch.tensor([0.01, 0.1, 0.2, 0.4, 0.7, 1.0])
    rotations, _ = loss.noised(clean, torch.randn(6, 4, 6, generator=torch.Generator().manual_seed(1)), time)
    sines = torch.stack([clean.torsions.sin(), clean.torsions.cos()], dim=-1)
    truth = clean.rotations, clean.ca, sines
    for name, term in loss(truth, clean, rotations, time).items():
        assert float(term.abs().max()) < 1e-5, name
    wrong = {
        "position": (clean.rotations, clean.ca + 0.01, sines),
        "rotation": (rotations, clean.ca, sines),
        "torsion": (clean.rotations, clean.ca, sines.flip(-1)),
        "contact": (clean.rotations, 1.1 * clean.ca, sines),
    }
    for name, given in wrong.items():
        terms = loss(given, clean, rotations, time)
        late = time < 0.25 if name == "contact" else time > 0
        assert bool((terms[name][late] > 1e-4).all()), name
        assert bool((loss.total(terms) > 0).all())
    assert not bool(loss(wrong["contact"], clean, rotations, time)["contact"][3:].any())


def test_half_a_turn_of_a_flat_ring_counts_for_nothing():
    frames = peptide_frames("FVF", 3)
    loss = FrameLoss(SMALL, frames.residues)
    clean = loss.clean(torch.tensor(frames.positions))
    turned = clean.torsions.clone()
    turned[:, [0, 2], 4] += np.pi  # chi2 of PHE
    sines = torch.stack([turned.sin(), turned.cos()], dim=-1)
    time = torch.full((3,), 0.5)
    assert float(loss((clean.rotations, clean.ca, sines), clean, clean.rotations, time)["torsion"].abs().max()) < 1e-5
    turned[:, 1, 3] += np.pi  # chi1 of VAL
    sines = torch.stack([turned.sin(), turned.cos()], dim=-1)
    assert float(loss((clean.rotations, clean.ca, sines), clean, clean.rotations, time)["torsion"].min()) > 0.05


def test_the_loss_does_not_change_with_the_axes():
    loss = FrameLoss(SMALL, RUNS.residues)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)))[0]
    turn = turn * torch.det(turn)
    positions = torch.tensor(RUNS.runs[0][:2])
    clean, turned = loss.clean(positions), loss.clean(positions @ turn.T + 1.0)
    torch.testing.assert_close(turned.rotations, turn @ clean.rotations, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.ca, clean.ca @ turn.T, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.torsions, clean.torsions, atol=1e-4, rtol=0)


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_learns_which_frame_follows_which():
    """The hinge swings over each frame: after one side comes the other. By chance 21 of 24 right: 1 in 7000.

    The noise is the published one: with that of `tiny`, which goes on to finer motions, 400 steps do not suffice.
    """
    config = dataclasses.replace(
        SMALL, max_stride=1, n_windows=4, n_draws=16, n_steps=400, learning_rate=5e-3, average=0.97
    )
    config = dataclasses.replace(config, sigma_first=0.1, least_diffusion_time=0.01)
    losses = []
    model = train_confrover(
        [RUNS], config=config, objectives=["trajectory"], progress=lambda *told: losses.append(told[2])
    )
    assert losses[-1] < 0.5 * losses[0]
    loss, sampler = FrameLoss(config, RUNS.residues), FrameSampler(model.decoder, config, 20).eval()
    clean = loss.clean(torch.tensor(RUNS.runs[0][:24]))
    one = torch.ones(24, 1)
    with torch.no_grad():
        sequence = model.embed(torch.tensor(RUNS.residues.types), torch.tensor(RUNS.residues.chains))
        shown = clean.rotations[:, None], clean.ca[:, None], clean.torsions[:, None]
        single, pair = model.context(*sequence, *shown, one, one, one < 0)
        normals = torch.randn(24, 21, 4, 6, generator=torch.Generator().manual_seed(3))
        ca = sampler(single[:, 0], pair[:, 0], *sequence, normals)[1]
    ends = (ca[:, 0] - ca[:, 3]).norm(dim=-1)
    true = (clean.ca[:, 0] - clean.ca[:, 3]).norm(dim=-1)
    middle = 0.5 * (true.min() + true.max())
    assert int(((ends > middle) == (true < middle)).sum()) >= 21


@pytest.mark.parametrize("objectives", [["trajectory"], ["single"], ["interpolation"], list(OBJECTIVES)])
def test_training_repeats_and_objectives_differ(objectives):
    short = dataclasses.replace(SMALL, n_steps=2)
    first, again = (train_confrover([RUNS], config=short, objectives=objectives, seed=2) for _ in range(2))
    assert same(first, again)
    other = train_confrover([RUNS], config=short, objectives=["single", "trajectory"], seed=2)
    assert not same(first, other)


def test_windows_that_are_too_large_are_computed_in_parts(monkeypatch):
    short = dataclasses.replace(SMALL, n_steps=2)
    whole = train_confrover([RUNS], config=short, objectives=["trajectory"])
    monkeypatch.setattr("openmm_latent.training.confrover._MOST_KEPT", 0)
    parts = train_confrover([RUNS], config=short, objectives=["trajectory"])
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, atol=1e-5, rtol=1e-4)


def test_interpolation_shows_the_end_first_at_its_own_time_and_trajectories_do_not(monkeypatch):
    seen = []
    context = ConfRover.context

    def spy(self, single, pair, rotations, ca, torsions, times, gaps, is_masked):
        seen.append((times, gaps, is_masked))
        return context(self, single, pair, rotations, ca, torsions, times, gaps, is_masked)

    monkeypatch.setattr(ConfRover, "context", spy)
    short = dataclasses.replace(SMALL, n_steps=3, n_frames=5)
    train_confrover([RUNS], config=short, objectives=["interpolation"])
    for times, gaps, is_masked in seen:
        assert bool((times[:, 0] > times[:, -1]).all())
        assert times[:, 1].tolist() == [0.0, 0.0]
        assert gaps[:, 0].tolist() == [0.0, 0.0]
        assert bool((gaps[:, 1:] == (times[:, 2:3] if times.shape[1] > 2 else gaps[:, 1:])).all())
        assert not bool(is_masked.any())
    seen.clear()
    train_confrover([RUNS], config=short, objectives=["trajectory"])
    for times, gaps, is_masked in seen:
        if bool(is_masked.any()):  # the first frame, from nothing
            assert (tuple(times.shape), float(gaps.abs().max())) == ((1, 1), 0.0)
        else:
            torch.testing.assert_close(times[:, 1:] - times[:, :-1], gaps[:, :-1])
    assert {bool(is_masked.any()) for *_, is_masked in seen} == {True, False}


def test_interrupted_training_ends_where_it_would_have(tmp_path):
    config = dataclasses.replace(SMALL, dropout=0.2)
    whole = train_confrover([RUNS], config=config, validation=[RUNS.take([1])], seed=3)

    class Stop(Exception):
        pass

    def stop(done, total, training, judged):
        assert np.isfinite([training, judged]).all()
        if done >= 2:
            raise Stop

    given = {"config": config, "validation": [RUNS.take([1])], "seed": 3, "work_directory": tmp_path}
    with pytest.raises(Stop):
        train_confrover([RUNS], progress=stop, **given)
    told = []
    assert same(whole, train_confrover([RUNS], progress=lambda done, *_: told.append(done), **given))
    assert min(told) > 2
    assert same(whole, train_confrover([RUNS], progress=lambda *_: pytest.fail("nothing was left to do"), **given))


def test_the_masked_variant_is_always_judged_alike(monkeypatch):
    """With as many hidden frames at each look: else the first weights, judged on the easiest windows, are the best."""
    seen = []
    context = ConfRover.context

    def spy(self, *given):
        if not self.training:
            seen.append(given[-1].clone())
        return context(self, *given)

    monkeypatch.setattr(ConfRover, "context", spy)
    config = dataclasses.replace(SMALL, is_causal=False, n_frames=8, n_steps=3, max_stride=1)
    train_confrover([RUNS], config=config, validation=[RUNS], objectives=["trajectory"])
    assert len(seen) == 3
    assert all(torch.equal(one, seen[0]) for one in seen)
    assert seen[0].sum(dim=1).tolist() == [7] * 8


def test_checkpoints_of_other_features_are_not_gone_on_from(tmp_path):
    config = dataclasses.replace(SMALL, embedding="features", n_feature_single=5, n_feature_pair=3, n_steps=2)
    given = {"config": config, "work_directory": tmp_path}
    draws = torch.Generator().manual_seed(1)
    some, others = (
        {"swing": (torch.randn(4, 5, generator=draws), torch.randn(4, 4, 3, generator=draws))} for _ in range(2)
    )
    first = train_confrover([RUNS], features=some, **given)
    assert same(first, train_confrover([RUNS], features=some, **given))
    assert not same(first, train_confrover([RUNS], features=others, **given))


def test_training_goes_on_from_other_weights_and_leaves_them_alone():
    first = train_confrover([RUNS], config=SMALL, seed=1)
    before = {name: part.clone() for name, part in first.state_dict().items()}
    one = dataclasses.replace(SMALL, n_steps=1, learning_rate=1e-6, warm_up=1, average=0.0)
    second = train_confrover([RUNS], config=one, start=first, seed=2)
    for name, part in second.state_dict().items():
        torch.testing.assert_close(part, before[name], atol=1e-5, rtol=0)
        assert torch.equal(first.state_dict()[name], before[name])
    coarser = dataclasses.replace(one, sigma_first=0.3)
    tables = train_confrover([RUNS], config=coarser, start=first).decoder.noise_of_rotations.angles
    assert torch.equal(tables, ConfRover(coarser).decoder.noise_of_rotations.angles)
    wider = dataclasses.replace(SMALL, decoder_width=48)
    with pytest.raises(LatentError, match="start must have the sizes of config, got another network"):
        train_confrover([RUNS], config=wider, start=first)


def test_the_masked_variant_and_precomputed_features_train():
    masked = train_confrover([RUNS], config=dataclasses.replace(SMALL, is_causal=False, n_steps=3))
    assert not masked.config.is_causal
    config = dataclasses.replace(SMALL, embedding="features", n_feature_single=5, n_feature_pair=3, n_steps=2)
    features = {"swing": (torch.ones(4, 5), torch.ones(4, 4, 3))}
    train_confrover([RUNS], config=config, features=features)
    with pytest.raises(LatentError, match="features lack those of swing, which a configuration with embedding"):
        train_confrover([RUNS], config=config)


def test_weights_say_what_they_were_trained_on(tmp_path):
    out = tmp_path / "swing.weights.pt"
    model = train_confrover([RUNS], config=SMALL, out=out, facts={"temperature": 300.0}, objectives=["single"])
    read, training = load_weights(out)
    assert same(model, read)
    assert training["proteins"] == {"swing": {"residues": 4, "frames": 80, "frame_spacing": 1.0}}  # no lag was shown
    assert (training["temperature"], training["objectives"]) == (300.0, ["single"])
    assert re.fullmatch("[0-9a-f]{64}", training["digest"])


def test_the_learning_rate_rises_and_falls():
    config = dataclasses.replace(SMALL, n_steps=1000, warm_up=100)
    rates = [learning_rate(config, step) for step in range(1000)]
    assert rates[0] == pytest.approx(config.learning_rate / 100)
    assert int(np.argmax(rates)) in (99, 100)
    assert rates[-1] == pytest.approx(config.final_rate, rel=0.1)


def test_bad_arguments_are_told(tmp_path):
    for given, sentence in (
        ({"config": "huge"}, "config must be one of tiny, paper, got 'huge'"),
        ({"objectives": ["dance"]}, "objectives must be some of trajectory, single, interpolation, got 'dance'"),
        ({"objectives": []}, "objectives must be some of .*, got none"),
        ({"out": tmp_path / "no" / "a.pt"}, "out: the folder .* does not exist"),
    ):
        with pytest.raises(LatentError, match=sentence):
            train_confrover([RUNS], **{"config": SMALL, **given})
    two = dataclasses.replace(SMALL, n_frames=2)
    with pytest.raises(LatentError, match="n_frames must be at least 3 for the objective interpolation, got 2"):
        train_confrover([RUNS], config=two)
    with pytest.raises(LatentError, match="examples must hold at least one protein, got none"):
        train_confrover([], config=SMALL)
    alone = describe_residues(RUNS.residues.types[1:2], has_oxt=np.zeros(1, dtype=bool))
    one = ProteinRuns("one", alone, RUNS.disulphides, (RUNS.runs[0][:, 1:2],), 1.0)
    with pytest.raises(LatentError, match="examples hold proteins of one residue, which has no other to move against"):
        train_confrover([one])
    short = ProteinRuns(RUNS.name, RUNS.residues, RUNS.disulphides, (RUNS.runs[0][:3],), 1.0)
    with pytest.raises(LatentError, match="runs of at most 3 frames, and a window needs 4"):
        train_confrover([short], config=SMALL, objectives=["trajectory"])


# ---- commands --------------------------------------------------------------------------------------------------------


def write_data(folder):
    """Write the runs as a folder of one protein: heavy atoms, 2 ps apart; return its structure."""
    topology, places = app.Topology(), []
    chain = topology.addChain("A")
    for place, (kind, names) in enumerate(zip(RUNS.residues.types, RUNS.residues.atom_names, strict=True)):
        residue = topology.addResidue(RESIDUE_NAMES[kind], chain, str(place + 1))
        for slot, name in enumerate(names):
            if name:
                topology.addAtom(name, app.Element.getBySymbol(name[0]), residue)
                places.append((place, slot))
    topology.createStandardBonds()
    (folder / "swing").mkdir(parents=True)
    for number, run in enumerate(RUNS.runs):
        frames = np.stack([run[:, place, slot] for place, slot in places], axis=1)
        written = mdtraj.Trajectory(frames, mdtraj.Topology.from_openmm(topology), time=2.0 * np.arange(len(run)))
        written.save(str(folder / "swing" / f"swing_{number}.xtc"))
    written[0].save(str(folder / "swing" / "swing.pdb"))
    return folder / "swing" / "swing.pdb"


def run(*args):
    result = CliRunner().invoke(command, [*map(str, args)])
    return result.exit_code, re.sub(r"\s+", " ", result.output)


@pytest.mark.slow
def test_commands_train_bind_sample_and_interpolate(tmp_path):
    top = write_data(tmp_path / "data")
    weights, bundle, out = (tmp_path / name for name in ("a.weights.pt", "a.latent.pt", "a.xtc"))
    code, told = run("train", "confrover", "--data", tmp_path / "data", "--out", weights, "--steps", 2)
    assert code == 0, told
    assert "80 frames of 1 proteins to learn from, 0 proteins kept apart" in told
    model, training = load_weights(weights)
    assert model.config.time_unit == training["proteins"]["swing"]["frame_spacing"] == 2.0
    ca = np.concatenate(RUNS.runs)[:, :, 1]
    assert model.config.position_scale == pytest.approx((ca - ca.mean(1, keepdims=True)).std(), rel=0.1)
    bind = ("bind", weights, "--top", top, "--out", bundle)
    code, told = run(*bind, "--n-steps", 3, "--lag-time", 4)
    assert code == 0, told
    code, told = run("sample", "--model", bundle, "--n", 3, "--out", out)
    assert code == 0, told
    assert len(mdtraj.load(str(out), top=str(out.with_suffix(".pdb")))) == 3
    code, told = run("interpolate", "--model", bundle, "--start", top, "--end", top, "--frames", 4, "--out", out)
    assert code == 0, told
    assert mdtraj.load(str(out), top=str(out.with_suffix(".pdb"))).time.tolist() == [0.0, 4.0, 8.0, 12.0]
    code, told = run(*bind, "--lag-time", 1)
    assert code == 2
    assert "lag_time must lie between 2 and 10 ps, which these weights were trained on, got 1" in told  # 5 x 7 < 40
    code, told = run(*bind, "--relaxation-time", 5)
    assert code == 2
    assert "--relaxation-time means nothing to family 'confrover'" in told
    code, told = run("train", "confrover", "--data", tmp_path / "data", "--out", weights, "--objectives", "dance")
    assert code == 2
    assert "objectives must be some of trajectory, single, interpolation, got 'dance'" in told
