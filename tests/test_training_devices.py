"""Training on several processes: the same batches, the same statistics, the same model as on one."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from openmm_latent.errors import LatentError
from openmm_latent.models.gldp import CONFIGS, GLDP
from openmm_latent.models.gldp.objectives import AutoencoderObjective, DecoderObjective, LinearObjective
from openmm_latent.nn.distributed import GatheredBatchNorm1d, gathered, gathered_batch_norms, shared_rows, summed
from openmm_latent.nn.superposition import superpose
from openmm_latent.topology import describe_atoms
from openmm_latent.training import train_gldp
from openmm_latent.training.loop import FrameTable, RandomBatches, StageSettings
from peptides import capped_alanine_trajectories

SCRIPT = Path(__file__).with_name("two_process_training.py")


def test_processes_share_the_batch_that_one_would_see():
    table = FrameTable(torch.arange(60.0).reshape(20, 1, 3), torch.arange(20.0)[:, None])
    settings = StageSettings("a", 3, 6, 1e-3, 0.5, 3, 1, seed=4)

    def batches(rank, n_processes):
        one = RandomBatches(table, 2, settings)
        one.epoch, one.rank, one.n_processes = 7, rank, n_processes
        return list(one)

    parts = [batches(rank, 3) for rank in range(3)]
    for number, whole in enumerate(batches(0, 1)):
        for column in range(3):
            joined = torch.stack([part[number][column] for part in parts], dim=1).flatten(0, 1)
            assert torch.equal(joined, whole[column])
        assert {part[number][3] for part in parts} == {whole[3]}


@pytest.mark.parametrize("shape", [(12, 4), (12, 4, 5)])
def test_gathered_batch_norm_is_torchs_in_one_process(tmp_path, shape):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(shape, generator=generator) * 2 + 3
    plain = torch.nn.Sequential(torch.nn.BatchNorm1d(4))
    other = torch.nn.Sequential(torch.nn.BatchNorm1d(4))
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        expected = plain(features)
        with gathered_batch_norms(other), shared_rows(other, 1):
            assert type(other[0]) is GatheredBatchNorm1d
            found = other(features)
            other.eval()
            assert other(features).shape == shape
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(other[0].running_var, plain[0].running_var)
    torch.testing.assert_close(other[0].running_mean, plain[0].running_mean)
    assert type(other[0]) is torch.nn.BatchNorm1d
    assert gathered(features) is features


def make_objective(kind):
    """Return a training objective in double precision, its frames, latents and noise."""
    published = {"decoder": "per_atom", "uses_decoder_batch_norm": True, "activation": "relu"}
    config = replace(CONFIGS["tiny"], **(published if kind != "autoencoder" else {}))
    data = capped_alanine_trajectories(40, 1)
    torch.manual_seed(3)
    model = GLDP(config, describe_atoms(data.topology, data.model_atoms), data.positions[0][0])
    frames = superpose(torch.as_tensor(data.positions[0]), model.reference)[0].float()
    model.set_structure_statistics(frames)
    model.set_reference_embedding()
    objective = {"autoencoder": AutoencoderObjective, "linear": LinearObjective, "decoder": DecoderObjective}[kind]
    generator = torch.Generator().manual_seed(5)
    latents, noise = (torch.randn(40, model.n_latent, generator=generator).double() for _ in range(2))
    return objective(model).double().train(), frames.double(), latents, noise


def gradients(objective, *batch):
    """Return the loss and its gradient, after one another."""
    loss = objective(*batch, True)
    found = torch.autograd.grad(loss, objective.trainable(), allow_unused=True)
    return torch.cat([loss.detach()[None], *(one.flatten() for one in found if one is not None)])


def part_of_the_batch(rank, kind, folder):
    """Run in one of two processes: take every other frame, and average loss and gradients as data-parallel training."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    objective, *batch = make_objective(kind)
    with gathered_batch_norms(objective):
        total = summed(gradients(objective, *(one[rank::2] for one in batch))) / 2
    if rank == 0:
        torch.save((total, objective.state_dict()), folder / "parts.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["autoencoder", "linear", "decoder"])
def test_loss_and_gradients_of_two_halves_are_those_of_the_batch(tmp_path, kind):
    torch.multiprocessing.spawn(part_of_the_batch, (kind, tmp_path), nprocs=2)
    found, state = torch.load(tmp_path / "parts.pt")
    objective, *batch = make_objective(kind)
    expected = gradients(objective, *batch)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    for name, values in objective.state_dict().items():  # running means and variances
        torch.testing.assert_close(state[name], values, rtol=1e-9, atol=1e-11)


def train(folder, devices):
    """Train in a process of its own, which starts the further ones; return weights and latents."""
    out = folder / f"{devices}.pt"
    command = [sys.executable, str(SCRIPT), str(devices), str(folder / f"work-{devices}"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return torch.load(out, weights_only=False)


@pytest.mark.slow
def test_two_processes_train_the_model_of_one(tmp_path):
    """Single precision rounds otherwise, and Adam enlarges that where a gradient is almost zero."""
    one, two = (train(tmp_path, devices) for devices in (1, 2))
    first, second = (torch.cat([w.float().flatten() for w in run["weights"].values()]) for run in (one, two))
    assert float((first - second).norm() / first.norm()) < 0.005
    assert {path.name.split("-")[0] for path in (tmp_path / "work-2").glob("*.*")} == {"decoder", "encoder", "latents"}


@pytest.mark.parametrize(
    ("devices", "sentence"),
    [(0, "devices and nodes must be at least 1, got 0 and 1"), (7, "must divide the batch of 256 frames, got 7 x 1")],
)
def test_wrong_numbers_of_devices_are_told(tmp_path, devices, sentence):
    with pytest.raises(LatentError, match=sentence):
        train_gldp(
            capped_alanine_trajectories(50), lag_time=1.0, work_directory=tmp_path, devices=devices, progress=False
        )
