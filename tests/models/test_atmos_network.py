"""The parts of ATMOS: chemistry, geometric encoder, losses and sizes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from atmos_models import REFERENCE, TOKENS, frames, random_model, small_config
from openmm_latent import LatentError
from openmm_latent.models.atmos import CONFIGS, ATMOSConfig, StateSpaceNetwork
from openmm_latent.models.atmos.alignment import superpose_each
from openmm_latent.models.atmos.chemistry import N_PLACES, describe_complex, edge_lengths, stiff_edges
from openmm_latent.models.atmos.geometry import token_frames
from openmm_latent.models.atmos.losses import atom_weights, denoising_loss, distogram_loss, geometry_loss
from openmm_latent.models.atmos.network import count_parameters
from openmm_latent.nn.superposition import Superposition

LENGTHS = edge_lengths(TOKENS, REFERENCE[None])
CHEMISTRY = describe_complex(TOKENS, small_config(), LENGTHS)
NOTHING = torch.zeros(10, 0), torch.zeros(10, 10, 0)
SUPERPOSITION = Superposition()


def turned(positions, seed=3):
    turn = torch.tensor(Rotation.random(random_state=seed).as_matrix(), dtype=positions.dtype)
    return positions @ turn.T + 0.7


# ---- chemistry -------------------------------------------------------------------------------------------------------


def test_chemistry_tells_bonds_places_and_residues():
    assert CHEMISTRY.atom_bonds.shape == (1, 14, 14)
    bonded = {tuple(pair) for pair in torch.nonzero(CHEMISTRY.atom_bonds[0]).tolist()}
    assert bonded == {tuple(pair) for pair in np.concatenate([TOKENS.bonds, TOKENS.bonds[:, ::-1]]).tolist()}
    assert CHEMISTRY.token_bonds[1, 3] > 0  # the acetyl's carbon to the alanine
    assert CHEMISTRY.token_bonds[3, 3] == 0
    assert CHEMISTRY.places[0, 6] == N_PLACES - 1  # another molecule
    assert CHEMISTRY.places[3, 4] == CHEMISTRY.places[4, 3] + 2
    assert CHEMISTRY.is_same_residue[6:, 6:].min() == 1
    assert CHEMISTRY.is_same_token.sum() == 5**2 + 9


def test_bond_orders_and_charges_reach_the_context():
    network = random_model().keyframes
    other = describe_complex(replace(TOKENS, orders=np.where(TOKENS.orders == 0, 2, 1)), small_config(), LENGTHS)
    charged = describe_complex(replace(TOKENS, charges=TOKENS.charges + 0.5), small_config(), LENGTHS)
    with torch.no_grad():
        plain, doubled, moved = (network.context(c, *NOTHING) for c in (CHEMISTRY, other, charged))
    assert float((plain.atom_pairs - doubled.atom_pairs).abs().max()) > 1e-3
    assert float((plain.pair - doubled.pair).abs().max()) > 1e-3
    assert float((plain.single - moved.single).abs().max()) > 1e-3


def test_windows_hold_the_bonds_of_their_atoms():
    config = small_config(n_queries=4, n_keys=8)
    chemistry = describe_complex(TOKENS, config, LENGTHS)
    assert chemistry.queries.shape == (4, 4)
    for w, i, k in torch.nonzero(chemistry.atom_bonds).tolist():
        pair = sorted((int(chemistry.queries[w, i]), int(chemistry.keys[w, k])))
        assert pair in TOKENS.bonds.tolist()


# ---- geometric encoder -----------------------------------------------------------------------------------------------


def test_frames_of_tokens_turn_with_the_complex_and_are_right_handed():
    positions = frames(2)
    axes = token_frames(positions, CHEMISTRY.frames, CHEMISTRY.has_frame)
    assert bool(CHEMISTRY.has_frame.all())
    eye = torch.eye(3).expand(2, 10, 3, 3)
    torch.testing.assert_close(axes.transpose(-1, -2) @ axes, eye, atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.linalg.det(axes), torch.ones(2, 10), atol=1e-4, rtol=0)
    turn = torch.tensor(Rotation.random(random_state=3).as_matrix()).float()
    there = token_frames(positions @ turn.T, CHEMISTRY.frames, CHEMISTRY.has_frame)
    torch.testing.assert_close(there, turn @ axes, atol=1e-4, rtol=0)
    lone = TOKENS.select([3, 6])[0]
    alone = describe_complex(lone, small_config(), np.ones(9))
    assert alone.has_frame.tolist() == [True, False]
    flat = token_frames(positions[:, [3, 4, 5, 6, 7, 10]], alone.frames, alone.has_frame)
    assert float(flat[:, 1].abs().max()) == 0.0


def test_the_encoder_sees_shapes_alone():
    network = random_model().keyframes
    positions = frames(2)
    with torch.no_grad():
        context = network.context(CHEMISTRY, *NOTHING)
        here = network.encoder(positions, CHEMISTRY, context)
        there = network.encoder(turned(positions), CHEMISTRY, context)
        mirrored = network.encoder(positions * torch.tensor([1.0, 1.0, -1.0]), CHEMISTRY, context)
    for one, other, mirror in zip(here, there, mirrored, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)
        assert float((one - mirror).abs().max()) > 1e-2


# ---- decoder ---------------------------------------------------------------------------------------------------------


def test_lengths_are_mended_where_there_is_little_noise_and_left_alone_where_there_is_much():
    decoder = random_model(n_refinements=8).keyframes.decoder
    torch.nn.init.zeros_(decoder.refinement.to_share.weight)
    torch.nn.init.zeros_(decoder.refinement.to_share.bias)
    broken, atoms = frames(2, size=0.01), torch.zeros(2, 14, 16)
    edges, lengths = CHEMISTRY.edges, CHEMISTRY.lengths

    def errors(positions):
        between = positions[:, edges[:, 0]] - positions[:, edges[:, 1]]
        return (between.norm(dim=-1) - lengths).square().mean(1).sqrt()

    with torch.no_grad():
        mended = decoder.refinement(broken, atoms, torch.tensor([0.001, 0.5]), edges, lengths)
        turned_too = decoder.refinement(turned(broken), atoms, torch.tensor([0.001, 0.5]), edges, lengths)
    before, after = errors(broken), errors(mended)
    assert float(after[0]) < 0.4 * float(before[0])
    assert float(after[1]) == pytest.approx(float(before[1]), rel=0.02)
    torch.testing.assert_close(turned_too, turned(mended), atol=1e-5, rtol=0)
    assert float((mended - broken).mean(1).abs().max()) < 5e-3


def test_edges_are_one_and_two_bonds():
    assert len(stiff_edges(TOKENS)) == len(TOKENS.bonds) + 11 + 3
    assert float(CHEMISTRY.lengths.min()) > 0.11
    assert float(CHEMISTRY.lengths.max()) < 0.27


# ---- losses ----------------------------------------------------------------------------------------------------------


def test_the_denoising_loss_does_not_depend_on_how_the_target_lies():
    weights = atom_weights(CHEMISTRY.is_ligand, CHEMISTRY.token, 10.0)
    denoised, target, counts = frames(3), frames(3, seed=8, size=0.05), torch.tensor([1.0, 2.0, 3.0])
    here = denoising_loss(denoised, target, weights, counts, SUPERPOSITION)
    there = denoising_loss(denoised, turned(target), weights, counts, SUPERPOSITION)
    assert float(here) > 1e-3
    assert float(there) == pytest.approx(float(here), rel=1e-4)
    same = denoising_loss(target, turned(target), weights, counts, SUPERPOSITION)
    assert float(same) < 1e-10
    mirrored = denoising_loss(target * torch.tensor([1.0, 1.0, -1.0]), target, weights, counts, SUPERPOSITION)
    assert float(mirrored) > 1e-3


def test_an_atom_of_a_ligand_counts_ten_times():
    weights = atom_weights(CHEMISTRY.is_ligand, CHEMISTRY.token, 10.0)
    assert weights.tolist() == [1.0] * 10 + [10.0] * 4
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(1, 14, 3, generator=generator, dtype=torch.float64)
    ones, moved = torch.ones(1), []
    for atom in (2, 12):
        denoised = target.clone()
        denoised[0, atom, 0] += 1e-3
        moved.append(float(denoising_loss(denoised, target, weights, ones, SUPERPOSITION)))
    assert 5.0 < moved[1] / moved[0] < 12.0  # ten, less what the superposition takes up


def test_superposing_each_finds_the_turn():
    target = frames(2, size=0.05).double()
    weights = torch.ones(14)
    found = superpose_each(SUPERPOSITION, turned(target), target, weights)
    torch.testing.assert_close(found, target, atol=1e-9, rtol=0)


def test_the_distogram_is_right_where_its_bins_are():
    centres = torch.tensor([[[0.0, 0, 0], [0.5, 0, 0], [3.0, 0, 0]]])
    edges = torch.linspace(0.2, 2.2, 63)
    bins = torch.bucketize(torch.cdist(centres, centres), edges)
    right = 20.0 * torch.nn.functional.one_hot(bins, 64).float()
    assert float(distogram_loss(right, centres)) < 1e-5
    assert float(distogram_loss(torch.zeros(1, 3, 3, 64), centres)) == pytest.approx(np.log(64), rel=1e-5)
    assert float(distogram_loss(right, centres * 0.5)) > 5.0
    assert float(distogram_loss(torch.zeros(1, 1, 1, 64), centres[:, :1])) == 0.0


def test_the_geometry_loss_looks_at_lengths_alone():
    pairs, counts = torch.from_numpy(TOKENS.bonds), torch.ones(2)
    target = frames(2)
    assert float(geometry_loss(turned(target), target, pairs, counts)) < 1e-10
    assert float(geometry_loss(1.1 * target, target, pairs, counts)) == pytest.approx(1.9e-4, rel=0.3)  # (14 pm)^2
    assert float(geometry_loss(target, target, pairs[:0], counts)) == 0.0


# ---- sizes -----------------------------------------------------------------------------------------------------------


def test_the_named_configurations_have_their_sizes():
    found = {}
    for name, config in CONFIGS.items():
        with torch.device("meta"):
            found[name] = count_parameters(StateSpaceNetwork(config)) / 1e6
    assert found["tiny"] == pytest.approx(0.57, abs=0.01)
    assert found["paper"] == pytest.approx(221.2, abs=0.5)
    paper = CONFIGS["paper"]
    assert (paper.n_single, paper.n_pair, paper.n_transition_blocks, paper.n_token_blocks) == (384, 128, 4, 24)
    assert (paper.data_scale, paper.n_token, paper.ligand_weight, paper.distogram_weight) == (1.6, 768, 10.0, 0.03)


def test_settings_that_cannot_work_are_refused():
    for wrong, sentence in (
        ({"n_pair": 0}, "n_pair must be at least 1, got 0"),
        ({"geometry_weight": -1.0}, "geometry_weight must not be negative"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"n_queries": 200}, "n_keys must be at least n_queries=200, got 128"),
        ({"n_frames": 1}, "n_frames must be at least 2, the one given and one to draw, got 1"),
        ({"n_time": 3}, "n_time must be even"),
        ({"dropout": 1.0}, "dropout must lie between 0 and 1, got 1.0"),
    ):
        with pytest.raises(LatentError, match=sentence):
            ATMOSConfig(**wrong)
