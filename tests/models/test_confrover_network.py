"""ConfRover's networks: what sees what, symmetries, the memory, and sizes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from openmm_latent.diffusion.rotations import RotationDiffusion, rotation_matrices, rotation_vectors
from openmm_latent.diffusion.translations import TranslationDiffusion
from openmm_latent.errors import LatentError
from openmm_latent.models.confrover import CONFIGS, ConfRover, ConfRoverConfig, load_weights, save_weights
from openmm_latent.models.confrover.geometry import PairGeometry
from openmm_latent.models.confrover.network import PARTS
from openmm_latent.models.confrover.sampler import FrameSampler
from openmm_latent.nn.frame_coordinates import FrameCoordinates, residue_frames
from openmm_latent.nn.recomputing import recompute
from openmm_latent.nn.residue_geometry import CB, describe_residues
from rovers import CONFIG, KnownFrame, random_model

N, N_FRAMES = 6, 4
TYPES, CHAINS = torch.tensor([0, 5, 7, 12, 19, 20]), torch.tensor([0, 0, 0, 0, 1, 1])
MODEL = random_model()


def draws(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rotations_of(*shape, seed=1):
    turns = Rotation.random(int(np.prod(shape)), random_state=seed).as_matrix()
    return torch.tensor(turns, dtype=torch.float32).view(*shape, 3, 3)


def windows(n_batch=2, n_frames=N_FRAMES, seed=1):
    """Return rotations, Cα [nm], torsions, times, gaps and masks of random windows."""
    return {
        "rotations": rotations_of(n_batch, n_frames, N, seed=seed),
        "ca": 0.5 * draws(n_batch, n_frames, N, 3, seed=seed),
        "torsions": draws(n_batch, n_frames, N, 7, seed=seed + 1),
        "frame_times": 10.0 * torch.arange(n_frames).float().expand(n_batch, -1),
        "gaps": torch.full((n_batch, n_frames), 10.0),
        "is_masked": torch.zeros(n_batch, n_frames, dtype=torch.bool),
    }


def context(given, model=MODEL):
    with torch.no_grad():
        return model.context(*model.embed(TYPES, CHAINS), **given)


def changed(given, frame, seed=7):
    """Return the windows with other positions in one frame."""
    other = {name: value.clone() for name, value in given.items()}
    other["ca"][:, frame] += 0.1 * draws(*other["ca"][:, frame].shape, seed=seed)
    other["torsions"][:, frame] += 0.5
    return other


# ---- what sees what --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_frames", [3, 7])  # within the window of 4, and beyond
@pytest.mark.parametrize("has_mask_token", [False, True])
def test_frames_before_a_change_stay_the_same_to_the_bit(n_frames, has_mask_token):
    given = windows(n_frames=n_frames)
    given["is_masked"][:, 0] = has_mask_token
    before, after = context(given), context(changed(given, 2))
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one[:, :2], other[:, :2])
        apart = (one - other).abs().flatten(2).amax(-1)
        assert bool((apart[:, 2:6] > 1e-5).all())


def test_frames_beyond_the_window_of_one_layer_count_less_and_less():
    """Three layers, each of which sees 3 frames back: the 10th after the change knows nothing of it."""
    given = windows(n_frames=12)
    before, after = context(given)[0], context(changed(given, 1))[0]
    assert torch.equal(before[:, 11:], after[:, 11:])
    assert not torch.equal(before[:, 10], after[:, 10])


def test_the_masked_variant_sees_both_ways_but_no_masked_frames():
    model, given = random_model(is_causal=False), windows()
    given["gaps"] = torch.zeros_like(given["gaps"])
    given["is_masked"][:, 1] = True
    before = context(given, model)[0]
    shown = context(changed(given, 3), model)[0]
    assert not torch.isclose(before, shown).all(-1).any()  # all frames, those before it among them
    assert torch.equal(before, context(changed(given, 1), model)[0])


def test_a_masked_frame_shows_the_protein_alone_and_only_to_itself():
    given = windows()
    given["is_masked"][:, 1] = True
    before, after = context(given), context(changed(given, 1))
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    without = {name: torch.cat([value[:, :1], value[:, 2:]], dim=1) for name, value in given.items()}
    rest = context(without)[0]
    torch.testing.assert_close(rest, before[0][:, [0, 2, 3]], atol=1e-5, rtol=0)


def test_single_frames_are_all_alike_and_independent():
    given = windows(n_batch=3, n_frames=1)
    given["is_masked"][:], given["gaps"][:] = True, 0.0
    single, pair = context(given)
    assert torch.equal(single, single[:1].expand_as(single))
    assert torch.equal(pair, pair[:1].expand_as(pair))


def test_only_differences_of_times_count_and_gaps_do():
    given = windows()
    later = given | {"frame_times": given["frame_times"] + 50.0}
    torch.testing.assert_close(context(later)[0], context(given)[0], atol=1e-4, rtol=0)
    slower = given | {"frame_times": 3.0 * given["frame_times"]}
    assert not torch.allclose(context(slower)[0][:, 1:], context(given)[0][:, 1:], atol=1e-3)
    ahead = given | {"gaps": 3.0 * given["gaps"]}
    assert not torch.allclose(context(ahead)[0], context(given)[0], atol=1e-3)


def test_a_batch_is_its_windows_one_by_one():
    given = windows(n_batch=3)
    whole = context(given)
    each = [context({name: value[i : i + 1] for name, value in given.items()}) for i in range(3)]
    for one, others in zip(whole, zip(*each, strict=True), strict=True):
        torch.testing.assert_close(one, torch.cat(others), atol=1e-5, rtol=0)


def test_work_in_pieces_is_the_same():
    given, model = windows(n_batch=3), random_model()
    model.encoder.most_pairs = 2 * N * N
    for block in model.trajectory_module.blocks:
        block.most_pairs = 2 * N * N
    for one, other in zip(context(given, model), context(given), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_parts_can_recompute_in_training():
    given, found = windows(), []
    for is_changed in (False, True):
        model = random_model().train()
        if is_changed:
            assert recompute(model, PARTS) == 1 + 2 + 3 + 2
        sequence = model.embed(TYPES, CHAINS)
        single, pair = (part.flatten(0, 1) for part in model.context(*sequence, **given))
        n = len(single)
        clean = model.denoise(single, pair, *sequence, rotations_of(n, N), draws(n, N, 3), torch.linspace(0.1, 0.9, n))
        sum(part.square().sum() for part in clean[1:]).backward()
        found.append(model.encoder.embed.weight.grad)
    torch.testing.assert_close(found[1], found[0])
    assert float(found[0].abs().max()) > 0


def test_inputs_stay_as_they_were():
    given = windows()
    kept = {name: value.clone() for name, value in given.items()}
    context(given)
    assert all(torch.equal(given[name], kept[name]) for name in given)


# ---- the memory ------------------------------------------------------------------------------------------------------


def test_cached_is_uncached_within_the_window_and_beyond():
    """Eleven frames through a ring of four."""
    given = windows(n_frames=11)
    expected = context(given)
    trajectory = MODEL.trajectory_module
    shape = (2, trajectory.n_layers, N + N * N, trajectory.n_context, trajectory.width)
    keys, values, length = torch.zeros(shape), torch.zeros(shape), torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        frames = MODEL.encode_frames(
            *MODEL.embed(TYPES, CHAINS), *(given[name] for name in ("rotations", "ca", "torsions", "is_masked"))
        )
        for i in range(11):
            single, pair, keys, values = trajectory.step(frames[0][:, i], frames[1][:, i], keys, values, length, 10.0)
            length = length + 1
            torch.testing.assert_close(single, expected[0][:, i], atol=2e-5, rtol=1e-5)
            torch.testing.assert_close(pair, expected[1][:, i], atol=2e-5, rtol=1e-5)


# ---- symmetries ------------------------------------------------------------------------------------------------------


def predicted(rotations, ca, time=0.4, model=MODEL, n_batch=2):
    features = (draws(n_batch, N, CONFIG.width), draws(n_batch, N, N, CONFIG.width))
    with torch.no_grad():
        return model.denoise(*features, *model.embed(TYPES, CHAINS), rotations, ca, torch.full((n_batch,), time))


@pytest.mark.parametrize("scaled", [True, False])
def test_the_decoder_turns_and_moves_with_the_noisy_frame(scaled):
    model = random_model(uses_preconditioning=scaled)
    rotations, ca = rotations_of(2, N), draws(2, N, 3)
    turn, shift = rotations_of(1, seed=5)[0], torch.tensor([1.0, -2.0, 0.5])
    expected = predicted(rotations, ca, model=model)
    found = predicted(turn @ rotations, ca @ turn.T + shift, model=model)
    torch.testing.assert_close(found[0], turn @ expected[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1], expected[1] @ turn.T + shift, atol=1e-4, rtol=0)
    torch.testing.assert_close(found[2], expected[2], atol=1e-4, rtol=0)


def test_the_decoder_returns_rotations_and_angles_about_the_same_centre():
    rotations, ca = rotations_of(2, N), draws(2, N, 3)
    turned, moved, torsions = predicted(rotations, ca)
    torch.testing.assert_close(turned @ turned.transpose(-1, -2), torch.eye(3).expand_as(turned), atol=1e-5, rtol=0)
    assert bool((torch.linalg.det(turned) > 0.99).all())
    torch.testing.assert_close(moved.mean(1), ca.mean(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(torsions.norm(dim=-1), torch.ones(2, N, 7), atol=1e-4, rtol=0)
    assert float((moved - ca).abs().max()) > 0.01


def test_a_context_sees_neither_place_nor_orientation():
    given, turn = windows(), rotations_of(1, seed=5)[0]
    moved = given | {"rotations": turn @ given["rotations"], "ca": given["ca"] @ turn.T + 1.0}
    torch.testing.assert_close(context(moved)[0], context(given)[0], atol=1e-4, rtol=0)


def test_little_noise_leaves_little_to_do():
    """At the last diffusion time the scaled decoder hardly moves a frame, the published one as far as before."""
    rotations, ca = rotations_of(2, N), 0.5 * draws(2, N, 3)

    def moves(time, **changes):
        _, moved, _ = predicted(rotations, ca, time, random_model(**changes))
        return float((moved - ca).norm(dim=-1).mean())

    assert moves(1e-4) < 0.1 * moves(0.5)
    assert moves(1e-4, uses_preconditioning=False) > 0.5 * moves(0.5, uses_preconditioning=False)


def test_mirror_images_differ_for_tiny_and_not_in_the_papers_bins():
    rotations, ca = rotations_of(1, N), draws(1, N, 3)
    flip = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    mirrored = flip @ rotations @ flip, ca @ flip
    tiny, paper = PairGeometry(CONFIGS["tiny"]), PairGeometry(CONFIGS["paper"])
    assert not torch.allclose(tiny(*mirrored), tiny(rotations, ca), atol=1e-2)
    torch.testing.assert_close(paper(*mirrored), paper(rotations, ca))


def test_bins_are_those_of_their_distances():
    geometry = PairGeometry(replace(CONFIGS["paper"], n_distance_bins=3, least_distance=1.0, largest_distance=3.0))
    places = torch.tensor([[0.0, 0.5, 1.5, 2.5, 9.0]])
    ca = torch.stack([places, torch.zeros(1, 5), torch.zeros(1, 5)], dim=-1)
    binned = geometry(torch.eye(3).expand(1, 5, 3, 3), ca)[0, 0]
    assert binned.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_pseudo_cb_is_where_the_atom_is():
    residues = describe_residues(np.array([0, 19]))
    coordinates = FrameCoordinates(residues)
    rotations, ca = rotations_of(1, 2), draws(1, 2, 3)
    built = coordinates.to_cartesian(rotations, ca, torch.zeros(1, 2, 7))
    torch.testing.assert_close(residue_frames(built)[0], rotations, atol=1e-5, rtol=0)
    assert float((PairGeometry(CONFIG).cb(rotations, ca) - built[:, :, CB]).norm(dim=-1).max()) < 0.01


# ---- the protein -----------------------------------------------------------------------------------------------------


def test_chains_and_types_count():
    with torch.no_grad():
        single, pair = MODEL.embed(TYPES, CHAINS)
        joined = MODEL.embed(TYPES, torch.zeros_like(CHAINS))
        other = MODEL.embed(TYPES.flip(0), CHAINS)
    assert torch.equal(single, joined[0])
    is_same = (pair - joined[1]).abs().amax(-1) == 0
    assert torch.equal(is_same, CHAINS.unsqueeze(0) == CHAINS.unsqueeze(1))
    assert not torch.allclose(single, other[0], atol=1e-2)


def test_features_of_a_folding_network_are_taken_and_checked():
    model = random_model(embedding="features", n_feature_single=5, n_feature_pair=3)
    features = draws(N, 5), draws(N, N, 3)
    with torch.no_grad():
        first = model.embed(TYPES, CHAINS, features)
        second = model.embed(TYPES, CHAINS, (features[0], 2.0 + draws(N, N, 3, seed=4)))
    assert torch.equal(first[0], second[0])
    assert not torch.allclose(first[1], second[1], atol=1e-2)
    with pytest.raises(LatentError, match=r"features must be of shapes \(\(6, 5\), \(6, 6, 3\)\) .* got none; read th"):
        model.embed(TYPES, CHAINS)
    with pytest.raises(LatentError, match="features must be left out with embedding='learned', got"):
        MODEL.embed(TYPES, CHAINS, features)


# ---- sampling --------------------------------------------------------------------------------------------------------


def test_a_decoder_that_knows_the_frame_draws_it():
    rotations, ca, torsions = rotations_of(1, N)[0], draws(N, 3), 3.0 * torch.tanh(draws(N, 7))
    sampler = FrameSampler(KnownFrame(CONFIG, rotations, ca, torsions), CONFIG)
    nothing = torch.zeros(2, N, CONFIG.width), torch.zeros(2, N, N, CONFIG.width)
    assert sampler.n_draws == CONFIG.n_sampling_steps + 1
    found = sampler(*nothing, nothing[0][0], nothing[1][0], draws(2, sampler.n_draws, N, 6))
    torch.testing.assert_close(found[0], rotations.expand(2, -1, -1, -1))
    torch.testing.assert_close(found[1], (ca - ca.mean(0)).expand(2, -1, -1))
    torch.testing.assert_close(found[2], torsions.expand(2, -1, -1))


class StiffFrames(nn.Module):
    """A decoder that knows frames to lie about one another by so much: Cα [nm], and turns [rad], each by itself."""

    def __init__(self, config, width, turn):
        super().__init__()
        self.translations = TranslationDiffusion(config.beta_first, config.beta_last)
        self.noise_of_rotations = RotationDiffusion(config.sigma_first, config.sigma_last)
        self.width, self.turn = width, turn

    def forward(self, single, pair, sequence_single, sequence_pair, rotations, ca, time):
        signal = self.translations.signal(time).float().view(-1, 1, 1)
        share = self.turn**2 / (self.turn**2 + self.noise_of_rotations.noise_level(time).float().view(-1, 1, 1) ** 2)
        clean = signal.sqrt() * self.width**2 / (signal * self.width**2 + 1.0 - signal) * ca
        return rotation_matrices(share * rotation_vectors(rotations)), clean, torch.ones(*ca.shape[:2], 7, 2)


def test_tiny_draws_small_motions_and_not_their_mean():
    """Of a residue's jitter of 0.03 nm and 0.1 rad four fifths are left; as published less than two thirds."""
    config, n = CONFIGS["tiny"], 500  # a standard error of 2 %
    kept = []
    for chosen in (config, replace(config, sigma_first=0.1, least_diffusion_time=0.01)):
        sampler = FrameSampler(StiffFrames(chosen, 0.03, 0.1), chosen)
        normals = draws(2, sampler.n_draws, n, 6)
        rotations, ca, _ = sampler(torch.zeros(2, n, 1), torch.zeros(0), torch.zeros(0), torch.zeros(0), normals)
        kept.append((float(ca.std()) / 0.03, float(rotation_vectors(rotations).square().mean().sqrt()) / 0.1))
    assert min(kept[0]) > 0.8
    assert max(kept[1]) < 0.7


def test_every_normal_counts():
    sampler = FrameSampler(MODEL.decoder, CONFIG, n_steps=2)
    features = (draws(1, N, CONFIG.width), draws(1, N, N, CONFIG.width))
    with torch.no_grad():
        protein, normals = MODEL.embed(TYPES, CHAINS), draws(1, 3, N, 6)
        before = sampler(*features, *protein, normals)
        for place in range(3):
            for half in (slice(0, 3), slice(3, 6)):
                other = normals.clone()
                other[0, place, 2, half] += torch.tensor([0.5, -0.3, 0.4])
                found = sampler(*features, *protein, other)
                assert float((found[1] - before[1]).abs().max()) > 1e-5, (place, half)
    with pytest.raises(LatentError, match="n_steps must be a whole number, at least 1, got 0; 4 is this model's"):
        FrameSampler(MODEL.decoder, CONFIG, n_steps=0)


# ---- sizes, files ----------------------------------------------------------------------------------------------------


def test_tiny_remembers_what_its_windows_show():
    """The last frame of a window is predicted alone: more frames than the others no training ever shows."""
    assert CONFIGS["tiny"].n_context == CONFIGS["tiny"].n_frames - 1


def test_paper_has_about_the_published_number_of_parameters():
    """19.6 M are published; the parts whose sizes are not, ours, make the difference of 6 %."""
    model = ConfRover(CONFIGS["paper"])
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert n_parameters == pytest.approx(19.6e6, rel=0.06)
    assert len(model.trajectory_module.blocks) == 4
    assert [len(block.layers) for block in model.trajectory_module.blocks] == [2, 2, 2, 2]


def test_weights_come_back_as_they_were(tmp_path):
    path = save_weights(tmp_path / "a.weights.pt", MODEL, {"seed": 3})
    model, training = load_weights(path)
    assert (model.config, training) == (CONFIG, {"seed": 3})
    assert torch.equal(context(windows(), model)[1], context(windows())[1])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": 12}, "width must be a multiple of twice n_temporal_heads and of n_single_heads, got 12"),
        ({"embedding": "esm"}, "embedding must be one of 'learned', 'features', got 'esm'"),
        ({"n_feature_pair": 3}, "n_feature_single and n_feature_pair must be positive with embedding='features', and"),
        ({"largest_distance": 0.2}, "least_distance must be less than largest_distance, got 0.3 and 0.2"),
        ({"n_context": 0}, "n_context must be at least 1, got 0"),
        ({"time_unit": 0.0}, "time_unit must be positive, got 0.0"),
        ({"skip_width": 3}, r"decoder_width \+ skip_width must be a multiple of n_transformer_heads=4, got 67"),
        ({"dropout": 1.0}, "dropout must lie between 0 and 1, got 1.0; 0.25 is published"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, sentence):
    with pytest.raises(LatentError, match=sentence):
        ConfRoverConfig(**changes)
