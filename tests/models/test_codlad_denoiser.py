"""CODLAD's denoiser: what it may depend on, that it can be exported, and that its sizes are those published."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from openmm_latent.diffusion.gaussian_diffusion import AncestralSampler, GaussianDiffusion
from openmm_latent.models.codlad import CONFIGS, Protein
from openmm_latent.models.codlad.denoiser import Denoiser
from openmm_latent.nn.residue_geometry import describe_residues

CONFIG = dataclasses.replace(CONFIGS["tiny"], denoiser_width=16, n_denoiser_neighbours=6)
N_RESIDUES = 12
PROTEIN = Protein(describe_residues(np.arange(N_RESIDUES) % 20, np.repeat([0, 1], [8, 4])))


def random_denoiser(seed=1):
    """Return a denoiser whose zeroed layers have weights, too."""
    torch.manual_seed(seed)
    network = Denoiser(CONFIG)
    for parameter in network.parameters():
        if parameter.ndim == 2 and not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


NETWORK = random_denoiser()


def traces(n, seed=1):
    """Return Cα positions (n, 12, 3) [nm] along random walks of the right steps."""
    steps = np.random.default_rng(seed).normal(size=(n, N_RESIDUES, 3))
    walk = np.cumsum(0.38 * steps / np.linalg.norm(steps, axis=2, keepdims=True), axis=1)
    return torch.tensor(walk, dtype=torch.float32)


def noise(*shape, seed=2):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def denoised(trace, noisy, times, network=NETWORK, protein=PROTEIN):
    with torch.no_grad():
        context = network.prepare(trace, protein.types, protein.chains, protein.anchors)
        return network(noisy, times, context)


NOISY, TIMES = noise(3, N_RESIDUES, 3), torch.tensor([0.1, 0.5, 0.9])


def test_output_holds_noise_and_variance_and_depends_on_all_that_it_is_told():
    trace = traces(3)
    output = denoised(trace, NOISY, TIMES)
    assert output.shape == (3, N_RESIDUES, 6)
    other = Protein(describe_residues((np.arange(N_RESIDUES) + 1) % 20, np.repeat([0, 1], [8, 4])))
    for changed in (
        denoised(traces(3, seed=9), NOISY, TIMES),
        denoised(trace, NOISY + 0.1, TIMES),
        denoised(trace, NOISY, TIMES + 0.05),
        denoised(trace, NOISY, TIMES, protein=other),
    ):
        assert float((changed - output).abs().max()) > 1e-3


def test_place_and_orientation_do_not_matter_but_the_hand_does():
    trace = traces(3)
    turn = torch.tensor(Rotation.random(random_state=1).as_matrix(), dtype=torch.float32)
    output = denoised(trace, NOISY, TIMES)
    moved = denoised(trace @ turn.T + torch.tensor([1.0, -2.0, 0.5]), NOISY, TIMES)
    torch.testing.assert_close(moved, output, atol=1e-4, rtol=1e-4)
    assert float((denoised(-trace, NOISY, TIMES) - output).abs().max()) > 1e-3


def test_a_batch_is_its_frames_one_by_one():
    trace = traces(3)
    batch = denoised(trace, NOISY, TIMES)
    for i in range(3):
        one = slice(i, i + 1)
        torch.testing.assert_close(denoised(trace[one], NOISY[one], TIMES[one]), batch[one], atol=1e-5, rtol=1e-5)


def test_a_new_network_predicts_no_noise_and_the_middle_variance():
    network = Denoiser(CONFIG)
    assert not bool(denoised(traces(3), NOISY, TIMES, network).any())


def test_scripted_samples_are_the_eager_ones():
    class Draw(torch.nn.Module):
        """Prepare and sample, as a bundle's module does."""

        def __init__(self):
            super().__init__()
            self.sampler, self.protein = AncestralSampler(NETWORK, GaussianDiffusion(1000, 5, bound=5.0)), PROTEIN

        def forward(self, trace, noise):
            protein = self.protein
            context = self.sampler.denoiser.prepare(trace, protein.types, protein.chains, protein.anchors)
            return self.sampler(noise, context)

    draw = Draw().eval()
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        scripted = torch.jit.script(draw)
    trace, normals = traces(2), noise(2, 5, N_RESIDUES, 3)
    with torch.no_grad():
        torch.testing.assert_close(scripted(trace, normals), draw(trace, normals), atol=1e-5, rtol=1e-5)


def test_sizes_of_the_paper():
    config = CONFIGS["paper"]
    network = Denoiser(config)
    assert len(network.encoder) == len(network.decoder) == 3
    assert (network.from_latent.out_features, network.n_neighbours) == (128, 64)
    assert (config.n_diffusion_steps, config.n_sampling_steps, config.diffusion_average) == (1000, 100, 0.9999)
    assert (config.diffusion_rate, config.diffusion_final_rate, config.diffusion_warm_up) == (3e-4, 1e-5, 80_000)
