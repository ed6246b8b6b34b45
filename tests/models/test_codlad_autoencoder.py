"""CODLAD's encoder, decoder and losses: symmetries, hands, graphs, terms by hand, scripted as eager, training."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from openmm_latent.errors import LatentError
from openmm_latent.models.codlad import CONFIGS, Autoencoder, CODLADConfig, Protein
from openmm_latent.models.codlad.decoder import BoundDecoder, TraceDecoder
from openmm_latent.models.codlad.graphs import (
    nearest_residues,
    radius_edges,
    separation_features,
    trace_features,
    trace_frames,
)
from openmm_latent.models.codlad.losses import (
    LossTables,
    exchanged,
    heavy_atom_rmsd,
    reconstruction_terms,
    term_weights,
    weighted_sum,
)
from openmm_latent.nn.internal_coordinates import Chirality
from openmm_latent.nn.residue_geometry import CA, describe_residues
from openmm_latent.training.codlad import _Training, reconstruction_scores, train_codlad_autoencoder
from trace_peptides import peptide_frames, wound_trace

ALL_TWENTY = "ARNDCQEGHILKMFPSTWYV"
SMALL = CODLADConfig(
    n_codes=32, n_scalars=4, n_vectors=2, encoder_hidden=8, decoder_width=16, n_decoder_layers=2, n_neighbours=8
)
#: One that sees internal coordinates, one whose messages must do it all.
BOTH = [SMALL, replace(SMALL, uses_internal_inputs=False, n_encoder_layers=2)]
TURN = torch.tensor(Rotation.random(random_state=3).as_matrix(), dtype=torch.float32)
SHIFT = torch.tensor([12.0, -30.0, 7.0])


@cache
def autoencoder(config=SMALL):
    """Return one whose weights are large enough that nothing hides in small outputs."""
    torch.manual_seed(1)
    model = Autoencoder(config).eval()
    torch.nn.init.normal_(model.decoder.weight, std=0.5)
    torch.nn.init.normal_(model.encoder.weight, std=1.0)
    return model


def some_frames(n_frames=2, sequence=ALL_TWENTY, seed=1):
    """Return frames of two chains, their protein and positions."""
    frames = peptide_frames(sequence, n_frames, seed, chains=np.arange(len(sequence)) // 10)
    return frames, Protein(frames.residues), torch.tensor(frames.positions)


@pytest.mark.parametrize("config", BOTH, ids=["internal inputs", "messages alone"])
def test_latents_are_invariant_and_tell_mirror_images(config):
    model, (_, protein, positions) = autoencoder(config), some_frames()
    with torch.no_grad():
        latent = model.encode(protein, positions)
        moved = model.encode(protein, positions @ TURN.T + SHIFT)
        mirrored = model.encode(protein, positions * torch.tensor([1.0, 1.0, -1.0]))
    assert latent.shape == (2, 20, 3)
    assert float(latent.std()) > 0.1
    assert float((moved - latent).abs().max()) < 1e-4
    assert float((mirrored - latent).abs().max()) > 1e-2


@pytest.mark.parametrize("config", BOTH, ids=["internal inputs", "messages alone"])
def test_a_batch_is_its_frames_one_by_one(config):
    model, (_, protein, positions) = autoencoder(config), some_frames(3)
    with torch.no_grad():
        latent = model.encode(protein, positions)
        alone = torch.cat([model.encode(protein, frame.unsqueeze(0)) for frame in positions])
        torch.testing.assert_close(latent, alone, atol=1e-5, rtol=1e-5)
        built = model.decode(protein, latent, positions[:, :, CA])[1]
        single = model.decode(protein, latent[1:2], positions[1:2, :, CA])[1]
    torch.testing.assert_close(built[1:2], single, atol=1e-6, rtol=0)


def test_the_encoder_sees_atoms_of_other_residues():
    model, (_, protein, positions) = autoencoder(BOTH[1]), some_frames()
    other = positions.clone()
    other[:, 5, 4:] += 0.05  # a side chain
    with torch.no_grad():
        apart = (model.encode(protein, other) - model.encode(protein, positions)).abs().amax((0, 2))
    assert float(apart[6]) > 1e-4
    assert float(apart[5]) > 1e-3


def test_empty_slots_are_not_read():
    model, (_, protein, positions) = autoencoder(), some_frames()
    filled = positions.clone()
    filled[:, ~protein.has_atom] = 3.0
    with torch.no_grad():
        assert torch.equal(model.encode(protein, filled), model.encode(protein, positions))


def test_decoded_atoms_turn_with_the_trace_and_keep_it():
    model, (_, protein, _) = autoencoder(), some_frames()
    trace = wound_trace(20, 2, seed=5)
    latent = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        internal, built = model.decode(protein, latent, trace)
        internal_moved, moved = model.decode(protein, latent, trace @ TURN.T + SHIFT)
    assert torch.equal(built[:, :, CA], trace)
    assert float((internal_moved - internal).abs().max()) < 1e-4 * 7  # torsions are of the order of pi
    assert float((moved - (built @ TURN.T + SHIFT)).abs().max()) < 1e-4


def test_residues_are_l_whatever_the_latent_and_weights():
    wrong, (frames, protein, _) = 0, some_frames()
    for seed in range(5):
        torch.manual_seed(seed)
        network = TraceDecoder(SMALL)
        torch.nn.init.normal_(network.weight, std=5.0)
        latent = 10.0 * torch.randn(20, 20, 3)
        with torch.no_grad():
            built = BoundDecoder(network, protein)(latent, wound_trace(20, 20, seed))[1]
        wrong += int((~Chirality(frames.residues)(built)).sum())
    assert wrong == 0


def test_scripted_decoder_is_the_eager_one():
    model, (_, protein, _) = autoencoder(), some_frames()
    scripted = torch.jit.script(model.bind(protein))
    for n_frames in (1, 3):
        trace = wound_trace(20, n_frames)
        latent = torch.randn(n_frames, 20, 3, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            for one, other in zip(scripted(latent, trace), model.decode(protein, latent, trace), strict=True):
                torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


def test_gradients_are_finite_even_on_a_straight_trace():
    model, (_, protein, _) = autoencoder(), some_frames()
    trace = torch.zeros(1, 20, 3)
    trace[0, :, 0] = 0.38 * torch.arange(20)
    latent = torch.zeros(1, 20, 3, requires_grad=True)
    trace.requires_grad_()
    built = model.decode(protein, latent, trace)[1]
    assert all(bool(torch.isfinite(one).all()) for one in torch.autograd.grad(built.sin().sum(), [latent, trace]))


def test_inputs_are_not_changed():
    model, (_, protein, positions) = autoencoder(), some_frames()
    trace = positions[:, :, CA].clone()
    kept = positions.clone()
    model.decode(protein, model.quantise(model.encode(protein, positions))[0], trace)
    assert torch.equal(positions, kept)
    assert torch.equal(trace, kept[:, :, CA])


def test_positions_of_another_protein_are_refused():
    model, (_, protein, positions) = autoencoder(), some_frames()
    with pytest.raises(LatentError, match=r"positions must have shape \(batch, n_residues=20, 15, 3\) \[nm\], got"):
        model.encode(protein, positions[:, :-1])


def test_edges_are_all_pairs_within_the_cutoff():
    points = np.random.default_rng(1).normal(size=(2, 30, 3))
    edges = radius_edges(points, 1.0)
    apart = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1)
    expected = {(30 * k + i, 30 * k + j) for k, i, j in np.argwhere(apart <= 1.0).tolist() if i != j}
    assert set(map(tuple, edges.T.tolist())) == expected
    assert len(edges.T) == len(expected)


@pytest.mark.parametrize("n_block", [7, 512])
def test_nearest_residues_are_the_nearest(n_block):
    trace = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(1)) + 50.0
    neighbours, distances = nearest_residues(trace, 6, n_block)
    apart = torch.cdist(trace.double(), trace.double()) + 1e9 * torch.eye(40)
    expected, indices = apart.topk(6, largest=False)
    assert torch.equal(neighbours.sort(2)[0], indices.sort(2)[0])
    torch.testing.assert_close(distances.double(), expected, atol=1e-5, rtol=0)
    assert nearest_residues(trace[:, :4], 6)[0].shape == (2, 4, 3)


def test_places_in_the_sequence_are_told_apart():
    chains = torch.tensor([0] * 8 + [1] * 4)
    neighbours = torch.tensor([[1, 4, 5, 8]]).expand(12, -1).unsqueeze(0)
    kind = separation_features(chains, neighbours)[0, 0].argmax(-1)  # seen from residue 0
    assert kind.tolist() == [5, 8, 9, 10]


def test_features_of_the_trace_are_its_angles_and_torsions():
    residues = describe_residues(np.zeros(12, dtype=int))
    protein, trace = Protein(residues), wound_trace(12, seed=4)
    found = trace_features(trace, protein.anchors)[0, 5]
    places = trace[0].double().numpy()
    arms = places[[4, 6]] - places[5]
    cosine = arms[0] @ arms[1] / np.prod(np.linalg.norm(arms, axis=1))
    from openmm_latent.geometry import dihedrals

    torsions = dihedrals(places, np.array([[3, 4, 5, 6], [4, 5, 6, 7]]))
    expected = [cosine, np.sqrt(1 - cosine**2)]
    for torsion in torsions:
        expected += [np.cos(torsion), np.sin(torsion)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    frames = trace_frames(trace, protein.anchors)
    torch.testing.assert_close(frames @ frames.transpose(-1, -2), torch.eye(3).expand(1, 12, 3, 3), atol=1e-5, rtol=0)
    assert float((torch.linalg.det(frames) - 1).abs().max()) < 1e-5


def terms_of(frames, protein, true, moved=None, internal=None, config=SMALL):
    """Return the loss's terms where positions or internal coordinates are changed."""
    tables = LossTables(frames.residues, frames.disulphides)
    moved = true if moved is None else moved
    internal = protein.coordinates.to_internal(moved) if internal is None else internal
    return reconstruction_terms(protein, tables, internal, moved, true, config)


def test_terms_vanish_at_the_truth():
    frames, protein, true = some_frames()
    terms = terms_of(frames, protein, true)
    for name in ("bond", "angle", "xyz", "graph"):
        assert float(terms[name]) < 1e-8, name
    assert float(terms["torsion"]) < 1.1e-3


def test_internal_terms_by_hand():
    frames, protein, true = some_frames(1)
    internal = protein.coordinates.to_internal(true)
    n_placed = int(frames.residues.has_atom.sum()) - 20
    changed = internal.clone()
    changed[0, 3, 0] += torch.tensor([0.01, 0.2, 0.0])  # N of residue 3: 0.1 Å, 0.2 rad
    changed[0, 6, 4, 2] += 1.0  # a chi
    changed[0, 0, 1, 2] += 2 * np.pi  # nothing
    terms = terms_of(frames, protein, true, internal=changed)
    assert float(terms["bond"]) == pytest.approx(0.01 / n_placed, rel=1e-3)
    assert float(terms["angle"]) == pytest.approx(0.04 / n_placed, rel=1e-3)
    assert float(terms["torsion"]) == pytest.approx(2 * np.sin(0.5) / n_placed, abs=2e-4)


def test_terms_of_positions_by_hand():
    frames, protein, true = some_frames(1, "AAAAA")
    moved = true.clone()
    moved[0, 2, 4] += torch.tensor([0.0, 0.0, 0.03])  # CB of residue 2 by 0.3 Å
    terms = terms_of(frames, protein, true, moved)
    assert float(terms["xyz"]) == pytest.approx(0.09 / 26, rel=1e-3)
    arms = [10 * float(torch.linalg.norm(x[0, 2, 4] - x[0, 2, 1])) for x in (moved, true)]
    assert float(terms["graph"]) == pytest.approx((arms[0] - arms[1]) ** 2 / 25, rel=1e-2)


def test_clashes_by_hand():
    frames, protein, _ = some_frames(1, "AAAAAAAAAA")
    apart = torch.zeros(1, 10, 15, 3)
    apart[..., 0] = 5.0 * torch.arange(10).unsqueeze(1)
    apart[..., 1] = 0.5 * torch.arange(15)  # every atom far from all others
    clash = lambda positions: float(terms_of(frames, protein, positions)["clash"])  # noqa: E731
    assert clash(apart) == 0.0
    near = apart.clone()
    near[0, 7, 4] = near[0, 2, 4] + torch.tensor([0.15, 0.0, 0.0])  # two CB at 1.5 Å
    assert clash(near) == pytest.approx(0.5 / 10, rel=1e-4)
    near[0, 7, 4] = near[0, 2, 1] + torch.tensor([0.0, 0.15, 0.0])  # CB and a CA
    assert clash(near) == pytest.approx(0.5 / 10, rel=1e-4)
    bonded = apart.clone()
    bonded[0, 3, 4] = bonded[0, 3, 1] + torch.tensor([0.15, 0.0, 0.0])  # CA and CB of one residue
    bonded[0, 3, 3] = bonded[0, 4, 0] + torch.tensor([0.15, 0.0, 0.0])  # O and the next N: a common C
    assert clash(bonded) == 0.0
    polar = apart.clone()
    polar[0, 6, 0] = polar[0, 1, 3] + torch.tensor([0.21, 0.0, 0.0])  # N and O at 2.1 Å
    assert clash(polar) == pytest.approx(0.1 / 10, rel=1e-3)


def test_the_gradient_of_a_clash_parts_the_atoms():
    frames, protein, true = some_frames(1, "AAAAAAAAAA")
    near = (true * 3.0).clone()
    near[0, 7, 4] = near[0, 2, 4] + torch.tensor([0.15, 0.0, 0.0])
    near.requires_grad_()
    gradient = torch.autograd.grad(terms_of(frames, protein, near.detach(), near)["clash"], near)[0]
    assert float(gradient[0, 7, 4, 0]) == pytest.approx(-1.0, rel=1e-4)  # 10 Å/nm over ten residues
    assert float(gradient[0, 2, 4, 0]) == pytest.approx(1.0, rel=1e-4)


def test_exchanged_names_cost_nothing():
    frames, protein, true = some_frames(1, "AFDEYRA")
    tables = LossTables(frames.residues, frames.disulphides)
    other = exchanged(true, tables)
    assert float((other - true).abs().max()) > 0.1
    terms = terms_of(frames, protein, true, other)
    for name in ("bond", "angle", "xyz", "graph"):
        assert float(terms[name]) < 1e-8, name
    assert float(heavy_atom_rmsd(other, true, protein, tables).max()) < 1e-6


def test_rmsd_counts_all_heavy_atoms_but_the_given():
    frames, protein, true = some_frames(1, "AAAAA")
    moved = true.clone()
    moved[0, 2, 4] += torch.tensor([0.0, 0.0, 0.03])
    found = heavy_atom_rmsd(moved, true, protein, LossTables(frames.residues))
    assert float(found) == pytest.approx(np.sqrt(0.03**2 / 21), rel=1e-3)


def test_weights_follow_the_epochs_and_the_switches():
    paper = CONFIGS["paper"]
    assert term_weights(paper, 0) == {"bond": 5.0, "angle": 1.0, "torsion": 1.0, "graph": 3.0}
    assert term_weights(paper, 1)["clash"] == term_weights(paper, 20)["clash"] == 5.0
    assert term_weights(paper, 21) == {
        "bond": 5.0,
        "angle": 1.0,
        "torsion": 1.0,
        "xyz": 1.0,
        "graph": 3.0,
        "clash": 10.0,
    }
    without = replace(paper, terms=("bond", "angle", "torsion", "xyz"))
    assert set(term_weights(without, 30)) == {"bond", "angle", "torsion", "xyz"}
    assert set(term_weights(replace(paper, terms=("xyz",)), 0)) == {"xyz"}
    terms = dict.fromkeys(("bond", "angle", "torsion", "xyz", "graph", "clash"), torch.tensor(1.0))
    assert float(weighted_sum(terms, paper, 0)) == 10.0
    assert float(weighted_sum(terms, paper, 21)) == 21.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_codes": 0}, "n_codes must be at least 1, got 0"),
        ({"clash_weight": -1.0}, "clash_weight must not be negative, got -1"),
        ({"atom_cutoff": 0.0}, "atom_cutoff must be positive, got 0"),
        ({"code_decay": 1.0}, "code_decay must lie between 0 and 1, got 1"),
        ({"terms": ("bond", "energy")}, "terms must be some of bond, angle, .* got bond, energy"),
        ({"terms": ()}, "terms must be some of bond, .* got none"),
        ({"n_exchanged": -1}, "n_exchanged must not be negative, got -1"),
        ({"rate_falls": "steps"}, "rate_falls must be 'cosine' or 'plateau', got 'steps'; the paper's is 'plateau'"),
        ({"n_sampling_steps": 2000}, "n_sampling_steps must be at most n_diffusion_steps=1000, got 2000"),
    ],
)
def test_wrong_configurations_are_told(values, message):
    with pytest.raises(LatentError, match=message):
        CODLADConfig(**values)


QUICK = replace(SMALL, steps_per_epoch=2, n_epochs=4, n_exchanged=4)


def states_equal(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_training_is_the_same_again_and_found_again(tmp_path):
    frames = peptide_frames("GAVLI", 6)
    one = train_codlad_autoencoder([frames], config=QUICK, validation=[frames], work_directory=tmp_path, device="cpu")
    other = train_codlad_autoencoder([frames], config=QUICK, validation=[frames], device="cpu")
    assert states_equal(one, other)
    assert float(one.latent_std.min()) > 0
    epochs = []
    found = train_codlad_autoencoder(
        [frames],
        config=QUICK,
        validation=[frames],
        work_directory=tmp_path,
        device="cpu",
        progress=lambda *told: epochs.append(told),
    )
    assert epochs == []
    assert states_equal(one, found)


@pytest.mark.parametrize("rate_falls", ["cosine", "plateau"])
def test_training_resumes_where_it_was_interrupted(tmp_path, rate_falls):
    frames = peptide_frames("GAVLI", 6)

    def interrupt(epoch, *_):
        if epoch == 2:
            raise KeyboardInterrupt

    settings = {"config": replace(QUICK, rate_falls=rate_falls), "device": "cpu"}
    with pytest.raises(KeyboardInterrupt):
        train_codlad_autoencoder([frames], work_directory=tmp_path, progress=interrupt, **settings)
    epochs = []
    resumed = train_codlad_autoencoder(
        [frames], work_directory=tmp_path, progress=lambda epoch, *_: epochs.append(epoch), **settings
    )
    assert epochs == [3, 4]
    assert states_equal(resumed, train_codlad_autoencoder([frames], **settings))
    assert [file.suffix for file in tmp_path.iterdir()] == [".pt"]


def test_statistics_are_those_of_each_kind_of_residue():
    """Of the frames as they came: exchanged ones do not count. Kinds that were not seen take any code."""
    frames = peptide_frames("GAVLIVV", 6)
    model = train_codlad_autoencoder([frames], config=QUICK, device="cpu")
    with torch.no_grad():
        protein = Protein(frames.residues)
        chosen = model.quantiser.codebook.nearest(model.encode(protein, torch.as_tensor(frames.positions)))
    codes = model.quantiser.codebook.embed(chosen)
    for kind in np.unique(frames.residues.types):
        where = frames.residues.types == kind
        its = codes[:, where].flatten(0, 1)
        torch.testing.assert_close(model.latent_mean[kind], its.mean(0), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            model.latent_std[kind], its.std(0, correction=0).clamp(min=1e-2), atol=1e-4, rtol=1e-3
        )
        used = torch.zeros(QUICK.n_codes, dtype=torch.bool)
        used[chosen[:, where].flatten()] = True
        assert torch.equal(model.known_codes[kind], used)
    absent = np.setdiff1d(np.arange(21), frames.residues.types)
    assert bool(model.known_codes[absent].all())
    assert float(model.latent_std[absent].min()) > 0


def test_large_proteins_come_with_fewer_frames():
    """A batch of at most 12 residues has 2 of 6 frames of a peptide of 5, and 1 of one of 14."""
    config = replace(QUICK, residues_per_batch=12)
    examples = [peptide_frames("GAVLI", 6), peptide_frames("GAVLIGAVLIGAVL", 6)]
    with torch.random.fork_rng():
        training = _Training(Autoencoder(config), examples, [], 1, "cpu")
    shapes = {(len(frames), frames.shape[1]) for _, frames in training._batches(0)}
    assert shapes == {(2, 5), (1, 14)}


def test_what_cannot_be_trained_on_is_told():
    with pytest.raises(LatentError, match="examples must hold at least one protein, got none"):
        train_codlad_autoencoder([])
    frames = peptide_frames("GAVLI", 2)
    with pytest.raises(LatentError, match="config must be one of tiny, paper, got 'huge'"):
        train_codlad_autoencoder([frames], config="huge")
    with pytest.raises(LatentError, match="device must be 'auto', 'cpu' or 'cuda', got 'tpu'"):
        train_codlad_autoencoder([frames], device="tpu")
    nothing = replace(frames, name="melted", positions=np.full_like(frames.positions, np.nan))
    with pytest.raises(LatentError, match="examples must hold frames of numbers, got none or others in melted"):
        train_codlad_autoencoder([frames], validation=[nothing])
    wild = replace(QUICK, learning_rate=1e30)
    with pytest.raises(LatentError, match="not finite; lower the configuration's learning_rate"):
        train_codlad_autoencoder([frames], config=wild, device="cpu")


@pytest.mark.slow
def test_a_few_frames_of_a_peptide_are_learned():
    """The tiny configuration with few codes on three frames with chi at random; about 22 s of one core."""
    frames = peptide_frames("YDPETGTWG", 3, seed=2)
    config = replace(CONFIGS["tiny"], n_codes=64, n_epochs=18, steps_per_epoch=25, learning_rate=3e-3, n_exchanged=0)
    scores = reconstruction_scores(train_codlad_autoencoder([frames], config=config, device="cpu"), frames)
    assert scores["rmsd_angstrom"] < 0.5
    assert scores["wrong_hands"] == 0
    assert scores["codes"] > 0.25
