"""Walkers that share a module call: each gets what it would get alone, and none suffers from another."""

import functools
from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import openmm as mm
import pytest
import torch
from openmm import app, unit
from torch import Tensor

import toys
from openmm_latent import LatentError, LatentIntegrator, LatentModel, LatentReporter, Walkers
from platforms import PLATFORMS, get_platform, tolerance

HEAVY, SIZE = 10, 0.002
EXAMPLE = toys.ADP_PDB.with_name("adp.latent.pt")


class BatchCounter(toys.Shake):
    """Moves every atom along x by `size` times the number of frames that came in one call."""

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Tell the batch's size."""
        shift = self.size * positions.shape[0]
        return torch.stack([positions[:, :, 0] + shift, positions[:, :, 1], positions[:, :, 2]], dim=2), state


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Return a function that exports a toy once and gives its path."""
    folder, topology_and_positions = tmp_path_factory.mktemp("toys"), toys.load_adp()

    def export(module):
        path = folder / f"{type(module).__name__}.latent.pt"
        return path if path.exists() else toys.export_toy(module, path, *topology_and_positions)

    return export


@functools.cache
def adp():
    """Topology, positions and System, made once."""
    topology, positions = toys.load_adp()
    return topology, positions, toys.adp_system(topology)


@functools.cache
def model_of(path):
    """Load a bundle once."""
    return LatentModel(path)


def verlet():
    """No noise: on the Reference platform all Contexts share one random generator."""
    return mm.VerletIntegrator(0.001)


def make(path, seed, platform="Reference", relaxation=None, system=None, others=(), start=0, **arguments):
    """A Simulation of alanine dipeptide; `start` picks velocities."""
    topology, positions, own_system = adp()
    arguments = {"jumpInterval": 7, "temperature": 300 * unit.kelvin} | arguments
    integrator = model_of(path).createIntegrator(
        topology, relaxation or verlet(), seed=seed, others=[model_of(other) for other in others], **arguments
    )
    simulation = app.Simulation(topology, system or own_system, integrator, *get_platform(platform))
    simulation.context.setPositions(positions)
    simulation.context.setVelocitiesToTemperature(300, 100 + start)
    return simulation


def frame_of(simulation):
    """Positions [nm] and velocities [nm/ps], (2, 22, 3)."""
    state = simulation.context.getState(positions=True, velocities=True)
    return np.stack([state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value])


def memory_of(simulation):
    xml = mm.XmlSerializer.serialize(simulation.context.getState(integratorParameters=True))
    return xml[xml.index("<ModelStates>") : xml.index("</ModelStates>")]


def test_walkers_go_where_each_would_go_alone(toy):
    path = toy(toys.Counter(HEAVY, SIZE))
    settings = [{}, {"jumpInterval": 5}, {"nProposals": 3}, {"thresholds": {"maxForce": 0.0}}, {"velocities": "keep"}]
    alone = [make(path, seed=i, start=i, **setting) for i, setting in enumerate(settings)]
    for simulation in alone:
        simulation.step(40)
    walkers = Walkers([make(path, seed=i, start=i, **setting) for i, setting in enumerate(settings)])
    walkers.step(13)
    walkers.step(27)
    for one, other in zip(alone, walkers.simulations, strict=True):
        # This toy computes nothing that depends on the batch, and its memory goes into every jump.
        np.testing.assert_array_equal(frame_of(other), frame_of(one))
        assert memory_of(other) == memory_of(one)
        assert other.integrator.getRefusals() == one.integrator.getRefusals()
        steps = [[record.step for record in s.integrator.getJumpRecords(0)] for s in (one, other)]
        assert steps[0] == steps[1]
        assert len(steps[0]) in (5, 7)
        assert other.currentStep == other.context.getStepCount() == 40


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_jump_of_a_network_is_the_same_to_rounding(platform):
    topology, positions, _ = adp()
    frozen, still = toys.adp_system(topology, constraints=None), toys.heavy_atoms(topology)[2]
    frozen.setParticleMass(still, 0.0)
    settings = [{"mode": "guarded"}, {"nProposals": 2}, {"system": frozen}, {}]
    ends, common = [], {"platform": platform, "mode": "exploratory", "thresholds": {"maxMinimizerIterations": 0}}
    for together in (False, True):
        simulations = [make(EXAMPLE, i, **(common | own)) for i, own in enumerate(settings)]
        integrators = [simulation.integrator for simulation in simulations]
        found = LatentIntegrator.jumpTogether(integrators) if together else [i.jump() for i in integrators]
        assert list(found) == [True] * 4
        ends.append(np.stack([frame_of(simulation) for simulation in simulations]))
    assert np.ptp(ends[0][:, 0], axis=0).max() > 1e-3, "each has noise of its own"
    np.testing.assert_allclose(ends[1][2, 0, still], positions[still], atol=tolerance(platform))
    # A decoder's float32 rounding, on coordinates of 1 nm.
    np.testing.assert_allclose(ends[1][:, 0], ends[0][:, 0], atol=tolerance(platform) + 3e-6)


def test_due_walkers_share_one_call_whatever_their_steps(toy):
    path = toy(BatchCounter(HEAVY, 0.001))
    walkers = Walkers([make(path, seed=i, jumpInterval=n, mode="exploratory") for i, n in enumerate((4, 6, 9))])
    x = [[], [], []]
    for i, simulation in enumerate(walkers.simulations):
        jump = simulation.integrator
        simulation.reporters.append(_FirstFrames(x[i], jump))
    walkers.step(10)
    # After 4, 6 and 9 steps all three jump together; then the first has two steps to go to its next jump.
    records = [simulation.integrator.getJumpRecords(0) for simulation in walkers.simulations]
    assert [[record.step for record in own] for own in records] == [[4, 8], [6], [9]]
    assert x == [[3, 1], [3], [3]]


class _FirstFrames:
    """A reporter that notes the size of each batch that moved its walker by SIZE times it."""

    def __init__(self, found, integrator):
        self.found, self.integrator, self.last, self.n = found, integrator, None, 0

    def describeNextReport(self, simulation):
        return {"steps": 1, "periodic": False, "include": ["positions"]}

    def report(self, simulation, state):
        """Compare the centroid with that of the step before: momentum moves it much less than a jump."""
        centroid = state.getPositions(asNumpy=True)._value[toys.heavy_atoms(simulation.topology), 0].mean()
        if self.integrator.getNumJumps() > self.n:
            self.found.append(round((centroid - self.last) / 0.001))
        self.last, self.n = centroid, self.integrator.getNumJumps()


def test_reporters_see_the_end_of_each_relaxation(toy, tmp_path):
    path = toy(toys.Identity(HEAVY))
    simulations = [make(path, seed=i, jumpInterval=10) for i in range(2)]
    for i, simulation in enumerate(simulations):
        simulation.reporters.append(LatentReporter(tmp_path / f"{i}.csv", 10))
    Walkers(simulations).step(40)
    for i in range(2):
        rows = (tmp_path / f"{i}.csv").read_text().splitlines()[1:]
        assert [row.split(",")[:2] for row in rows] == [["1", "10"], ["2", "20"], ["3", "30"]]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_module_that_throws_leaves_every_walker_as_it_was(toy, platform):
    walkers = Walkers([make(toy(toys.Failing(HEAVY, 0.0)), i, platform, start=i) for i in range(3)])
    walkers.step(7)
    before = [(frame_of(s), memory_of(s)) for s in walkers.simulations]
    with pytest.raises(mm.OpenMMException, match=r"^bundle 'Failing.latent.pt' failed in jump: the toy fails on"):
        walkers.step(1)
    for simulation, (frame, memory) in zip(walkers.simulations, before, strict=True):
        np.testing.assert_array_equal(frame_of(simulation), frame)
        assert memory_of(simulation) == memory
        assert (simulation.integrator.getNumJumps(), simulation.integrator.getStepsUntilJump()) == (0, 0)
        simulation.integrator.setJumpInterval(1000)
    walkers.step(5)


def test_a_walker_that_throws_is_named_and_the_others_stay_whole(toy):
    walkers = Walkers([make(toy(toys.Counter(HEAVY, SIZE)), seed=i) for i in range(3)])
    walkers.step(7)
    broken = walkers.simulations[1]
    positions = np.array(broken.context.getState(positions=True).getPositions(asNumpy=True)._value)
    broken.context.setPositions(np.where(positions == positions[0, 0], np.nan, positions))
    before = [frame_of(s) for s in walkers.simulations]
    with pytest.raises(mm.OpenMMException, match=r"^walker 1: jump 1: the energy before the jump is not finite"):
        walkers.step(1)
    for simulation, frame in zip(walkers.simulations, before, strict=True):
        np.testing.assert_array_equal(frame_of(simulation), frame)
    broken.context.setPositions(positions)
    walkers.step(1)
    assert [s.integrator.getNumJumps() for s in walkers.simulations] == [1, 1, 1]


def test_walkers_whose_models_take_turns_are_called_model_by_model(toy):
    first, second = toy(BatchCounter(HEAVY, 0.001)), toy(toys.Identity(HEAVY))
    walkers = [make(first, seed=i, others=[second], mode="exploratory") for i in range(3)]
    walkers[1].integrator.jump()
    LatentIntegrator.jumpTogether([walker.integrator for walker in walkers])
    assert [w.integrator.getJumpRecords(0)[-1].bundle for w in walkers] == [0, 1, 0]


def test_a_checkpoint_of_a_walker_goes_on(toy):
    path = toy(toys.Counter(HEAVY, SIZE))
    first = Walkers([make(path, seed=i, start=i) for i in range(2)])
    first.step(17)
    checkpoints = [s.context.createCheckpoint() for s in first.simulations]
    first.step(20)
    second = Walkers([make(path, seed=i) for i in range(2)])
    for simulation, checkpoint in zip(second.simulations, checkpoints, strict=True):
        simulation.context.loadCheckpoint(checkpoint)
    second.step(20)
    for one, other in zip(first.simulations, second.simulations, strict=True):
        np.testing.assert_array_equal(frame_of(other), frame_of(one))


def test_no_walkers_make_no_jump():
    assert list(LatentIntegrator.jumpTogether([])) == []


def test_walkers_that_do_not_fit_are_named(toy):
    path = toy(toys.Identity(HEAVY))
    first = make(path, seed=0)
    plain = app.Simulation(first.topology, first.system, verlet(), *get_platform("Reference"))
    steered_system = toys.adp_system(first.topology)
    model_of(path).addRestraint(steered_system, first.topology)
    steered = make(path, 1, system=steered_system, realisation="steer")
    cases = [
        ([], "simulations must hold at least one Simulation, got none"),
        (
            [first, plain],
            "walker 1 must be a Simulation whose integrator is a LatentIntegrator, got Simulation",
        ),
        ([first, first], "walker 1 is there twice; give each walker a Simulation and an integrator of its own"),
        ([first, make(toy(toys.Rotate(HEAVY)), 1)], "walker 1 has another bundle than walker 0, or another number"),
        (
            [first, make(path, 1, "CPU")],
            "walker 1 is on platform CPU, but walker 0 on Reference",
        ),
        ([first, steered], "walker 1 drives its jumps, and a drive cannot be shared"),
        ([first, make(path, 0)], "walkers 0 and 1 have the same seed 0"),
    ]
    for simulations, sentence in cases:
        with pytest.raises(LatentError, match=sentence):
            Walkers(simulations)
    with pytest.raises(LatentError, match="steps must be a whole number, zero or more, got -1"):
        Walkers([first]).step(-1)
    with pytest.raises(mm.OpenMMException, match="walker 0 is not bound to a Context"):
        LatentIntegrator.jumpTogether([LatentIntegrator(verlet(), 5)])
    with pytest.raises((mm.OpenMMException, TypeError)):
        LatentIntegrator.jumpTogether([first.integrator, None])
