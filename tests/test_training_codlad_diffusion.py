"""CODLAD's second stage: it learns codes that the sequence decides, resumes where it was, and repeats; the command."""

import copy
import dataclasses
import re

import numpy as np
import pytest
import torch
from openmm import app, unit
from typer.testing import CliRunner

from backmapped import CONFIG, load_l_peptides
from openmm_latent.cli import app as command
from openmm_latent.data.residue_slots import protein_frames, read_residue_slots
from openmm_latent.errors import LatentError
from openmm_latent.models.codlad import Autoencoder
from openmm_latent.models.codlad.module import CODLAD, BackmappedProtein
from openmm_latent.models.codlad.weights import load_weights
from openmm_latent.training.codlad_diffusion import encode_frames, learning_rate, train_codlad_diffusion

TOPOLOGY, POSITIONS = load_l_peptides()
QUICK = dataclasses.replace(
    CONFIG,
    n_codes=8,
    n_sampling_steps=10,
    diffusion_steps=150,
    diffusion_warm_up=10,
    diffusion_batch_size=32,
    diffusion_rate=1e-2,
    diffusion_average=0.95,
)


class CodesOfTypes(Autoencoder):
    """Gives every residue one of two corners of a cube, which its type decides; the first three times as often."""

    def encode(self, protein, positions, graphs=None):
        choice = (positions.sum((2, 3)) * 1e5).round().long() % 4 == 3  # as good as random
        return self.quantiser.codebook.codes[2 * (protein.types % 4) + choice.long()]


@pytest.fixture(scope="module")
def example():
    """64 frames of the peptides, jiggled."""
    frames = POSITIONS + 0.005 * np.random.default_rng(1).normal(size=(64, *POSITIONS.shape))
    return protein_frames(TOPOLOGY, [frames])


@pytest.fixture(scope="module")
def autoencoder(example):
    torch.manual_seed(1)
    model = CodesOfTypes(QUICK).eval()
    model.quantiser.codes.copy_(torch.cartesian_prod(*3 * [torch.tensor([0.5, 2.5])]))
    model.latent_mean.fill_(1.5)
    return model


def test_codes_are_those_of_the_autoencoder_standardised(autoencoder, example):
    encoded = encode_frames(autoencoder, example)
    assert encoded.codes.shape == (64, 13, 3)
    kinds = encoded.protein.types
    codes = encoded.codes * autoencoder.latent_std[kinds] + autoencoder.latent_mean[kinds]
    found = autoencoder.quantiser.codebook.nearest(codes) // 2
    torch.testing.assert_close(found, (encoded.protein.types % 4).expand(64, -1))
    second = (autoencoder.quantiser.codebook.nearest(codes) % 2).double().mean()
    assert 0.15 < float(second) < 0.35


@pytest.mark.slow
def test_it_learns_which_codes_a_residue_has_and_how_often(autoencoder, example):
    """Nine in ten right by type, a quarter by chance; the rarer quarter within 8 errors of 520 independent draws."""
    losses = []
    denoiser = train_codlad_diffusion(
        autoencoder, [example], validation=[example], progress=lambda *told: losses.append(told[2:])
    )
    assert losses[-1][0] < 0.7 * losses[0][0]
    assert np.isfinite(losses).all()
    model = CODLAD(QUICK)
    model.autoencoder, model.denoiser = autoencoder, denoiser
    slots = read_residue_slots(TOPOLOGY, POSITIONS)
    module = BackmappedProtein(model, slots.residues, np.flatnonzero(slots.residues.has_atom)).eval()
    traces = torch.tensor(slots.take(POSITIONS)[None, :, 1], dtype=torch.float32).expand(40, -1, -1)
    with torch.no_grad():
        drawn = module.draw(traces, torch.randn(40, module.n_noise, generator=torch.Generator().manual_seed(1)))
    codes = module.codebook.nearest(drawn)
    right = codes // 2 == torch.tensor(slots.residues.types) % 4
    assert float(right.double().mean()) > 0.9
    assert abs(float((codes[right] % 2).double().mean()) - 0.25) < 0.15


def test_interrupted_training_ends_where_it_would_have(autoencoder, example, tmp_path):
    short = copy.copy(autoencoder)
    short.config = dataclasses.replace(autoencoder.config, diffusion_steps=12)
    whole = train_codlad_diffusion(short, [example], seed=3)

    class Stop(Exception):
        pass

    def stop(done, total, training, judged):
        if done >= 6:
            raise Stop

    with pytest.raises(Stop):
        train_codlad_diffusion(short, [example], seed=3, work_directory=tmp_path, progress=stop)
    told = []
    resumed = train_codlad_diffusion(
        short, [example], seed=3, work_directory=tmp_path, progress=lambda done, *_: told.append(done)
    )
    assert min(told) > 6
    other = train_codlad_diffusion(short, [example], seed=4)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in whole.state_dict().items())


def test_the_learning_rate_rises_and_falls():
    config = dataclasses.replace(CONFIG, diffusion_steps=1000, diffusion_warm_up=100)
    rates = [learning_rate(config, step) for step in range(1000)]
    assert rates[0] == pytest.approx(config.diffusion_rate / 100)
    assert int(np.argmax(rates)) in (99, 100)
    assert rates[99] == pytest.approx(config.diffusion_rate)
    assert rates[-1] == pytest.approx(config.diffusion_final_rate, rel=0.01)


def test_training_needs_a_protein_and_a_known_device(autoencoder, example):
    with pytest.raises(LatentError, match="examples must hold at least one protein, got none"):
        train_codlad_diffusion(autoencoder, [])
    with pytest.raises(LatentError, match="device must be 'auto', 'cpu' or 'cuda', got 'abacus'"):
        train_codlad_diffusion(autoencoder, [example], device="abacus")


@pytest.mark.slow
def test_both_stages_by_the_command(tmp_path):
    folder = tmp_path / "proteins" / "two"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(2)
    with open(folder / "two.pdb", "w") as handle:
        app.PDBFile.writeFile(TOPOLOGY, POSITIONS * unit.nanometer, handle, keepIds=True)
    import mdtraj

    frames = POSITIONS + 0.003 * rng.normal(size=(20, *POSITIONS.shape))
    trajectory = mdtraj.Trajectory(frames, mdtraj.load(str(folder / "two.pdb")).topology, time=10.0 * np.arange(20))
    trajectory.save_xtc(str(folder / "two.xtc"))
    out = tmp_path / "two.weights.pt"
    args = ["train", "codlad", "--data", str(tmp_path / "proteins"), "--out", str(out), "--epochs", "1", "--steps", "5"]
    result = CliRunner().invoke(command, args)
    assert result.exit_code == 0, result.output
    assert "20 frames of 1 proteins to learn from, 0 proteins kept apart" in re.sub(r"\s+", " ", result.output)
    model, training = load_weights(out)
    assert model.config.diffusion_steps == 5
    assert training["proteins"] == {"two": {"residues": 13, "frames": 20}}
