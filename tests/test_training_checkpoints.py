"""Checkpoints of training, and the loop that leaves them: interrupted and resumed is as if it had never stopped."""

import math

import pytest
import torch
from torch import nn

from openmm_latent.errors import LatentError
from openmm_latent.training.checkpoints import N_LOOKS, AveragedTraining, Checkpoint


class Line(AveragedTraining):
    """Fit a line through noisy points; judged by `judges` one after the other, or not at all."""

    def __init__(self, n_steps=80, judges=None, stops=None):
        torch.manual_seed(1)
        network = nn.Linear(1, 1)
        super().__init__(network, torch.optim.Adam(network.parameters(), lr=0.05), n_steps, decay=0.9)
        self.judges, self.stops = judges, stops

    def step(self):
        if self.done == self.stops:
            raise KeyboardInterrupt
        generator = torch.Generator().manual_seed(self.done)
        x = torch.randn(16, 1, generator=generator)
        loss = (self.network(x) - 3.0 * x - 1.0).square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())

    def judge(self):
        return math.nan if self.judges is None else self.judges[self.done // 2 - 1]


def weights_of(training):
    return torch.cat([parameter.detach().flatten() for parameter in training.kept().parameters()])


def test_resumed_is_as_if_it_had_never_stopped(tmp_path):
    whole = Line()
    whole.run(Checkpoint(None, "line.ckpt"), None)
    checkpoint = Checkpoint(tmp_path / "work", "line.ckpt")
    with pytest.raises(KeyboardInterrupt):
        Line(stops=51).run(checkpoint, None)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["line.ckpt"]
    again, seen = Line(), []
    again.run(Checkpoint(tmp_path / "work", "line.ckpt"), lambda *told: seen.append(told))
    assert torch.equal(weights_of(again), weights_of(whole))
    assert [told[0] for told in seen] == list(range(52, 81, 2))
    assert all(told[1] == 80 and math.isnan(told[3]) for told in seen)
    finished = Line(stops=80)
    finished.run(checkpoint, None)  # nothing is left to do
    assert torch.equal(weights_of(finished), weights_of(whole))


def test_the_running_mean_is_that_of_the_weights():
    training, mean = Line(n_steps=30), None
    step = training.step

    def remembering():
        nonlocal mean
        if mean is None:
            mean = [parameter.detach().clone() for parameter in training.network.parameters()]
        loss, decay = step(), min(0.9, (1 + training.done) / (10 + training.done))
        mean = [
            decay * old + (1 - decay) * new.detach()
            for old, new in zip(mean, training.network.parameters(), strict=True)
        ]
        return loss

    training.step = remembering
    training.run(Checkpoint(None, ""), None)
    torch.testing.assert_close(weights_of(training), torch.cat([part.flatten() for part in mean]))
    assert float((weights_of(training) - torch.tensor([3.0, 1.0])).abs().max()) < 2.0


def test_the_best_on_what_was_kept_apart_counts(tmp_path):
    judges = [float(abs(look - 10)) + 1.0 for look in range(N_LOOKS)]
    judged, stopped = Line(judges=judges), Line(judges=judges, stops=22)
    judged.run(Checkpoint(None, ""), None)
    with pytest.raises(KeyboardInterrupt):
        stopped.run(Checkpoint(tmp_path, "a.ckpt"), None)
    assert judged.best_loss == 1.0
    assert torch.equal(weights_of(judged), weights_of(stopped))  # as it was after 22 steps
    resumed = Line(judges=judges)
    resumed.run(Checkpoint(tmp_path, "a.ckpt"), None)
    assert torch.equal(weights_of(judged), weights_of(resumed))


def test_anew_means_anew(tmp_path):
    Line().run(Checkpoint(tmp_path, "line.ckpt"), None)
    assert Checkpoint(tmp_path, "line.ckpt").load()["done"] == 80
    assert Checkpoint(tmp_path, "line.ckpt", resume=False).load() is None
    assert Checkpoint(None, "line.ckpt").load() is None
    Checkpoint(None, "line.ckpt").save({})


def test_a_damaged_checkpoint_is_told_in_a_sentence(tmp_path):
    checkpoint = Checkpoint(tmp_path, "line.ckpt")
    Line(n_steps=2).run(checkpoint, None)
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:300])
    with pytest.raises(
        LatentError, match=r"checkpoint .*line.ckpt cannot be read \(.*\); remove it, and training begins"
    ):
        Checkpoint(tmp_path, "line.ckpt").load()
    checkpoint.path.write_text("no checkpoint")
    with pytest.raises(LatentError, match="cannot be read"):
        Checkpoint(tmp_path, "line.ckpt").load()
    checkpoint.remove()
    checkpoint.remove()
    assert checkpoint.load() is None
