"""Checkpoints, States, XML, pickle and deepcopy; and one seed, one trajectory."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm as mm
import pytest
from openmm import app, unit

import toys
from openmm_latent import LatentIntegrator, LatentModel
from platforms import BITWISE, PLATFORMS, get_platform, tolerance

HEAVY = 10


def make(path, platform, jumpInterval=7, seed=3):
    """A Simulation with a model that has memory: `toys.Counter`."""
    topology, positions = toys.load_adp()
    integrator = LatentModel(path).createIntegrator(
        topology, toys.langevin(), jumpInterval=jumpInterval, seed=seed, mode="guarded"
    )
    simulation = app.Simulation(topology, toys.adp_system(topology), integrator, *get_platform(platform))
    simulation.context.setPositions(positions)
    simulation.context.setVelocitiesToTemperature(300, 1)
    return simulation


def positions_of(simulation):
    return simulation.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)


@pytest.fixture
def counter(tmp_path):
    topology, positions = toys.load_adp()
    return toys.export_toy(toys.Counter(HEAVY, 0.002), tmp_path / "counter.latent.pt", topology, positions)


def memory_of(simulation):
    """The model's state as the State XML holds it."""
    xml = mm.XmlSerializer.serialize(simulation.context.getState(integratorParameters=True))
    return xml[xml.index("<ModelStates>") : xml.index("</ModelStates>")]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_checkpoint_at_any_step_continues_the_same_trajectory(counter, platform):
    step = int(np.random.default_rng(5).integers(15, 60))
    first = make(counter, platform)
    first.step(step)
    checkpoint = first.context.createCheckpoint()
    first.step(30)
    second = make(counter, platform)
    second.context.loadCheckpoint(checkpoint)
    second.step(30)
    assert second.integrator.getNumJumps() == first.integrator.getNumJumps()
    assert second.integrator.getRefusals() == first.integrator.getRefusals()
    difference = np.abs(positions_of(first) - positions_of(second)).max()
    assert difference == 0 if platform in BITWISE else difference < 1e-3


def continue_in_new_process(counter, platform, checkpoint, output):
    """Load a checkpoint in a fresh interpreter, take 30 steps and save the positions."""
    code = (
        "import sys, numpy as np; sys.path[:0] = sys.argv[1:3]\n"
        "import test_saving as t\n"
        "from pathlib import Path\n"
        "simulation = t.make(sys.argv[3], sys.argv[4])\n"
        "simulation.context.loadCheckpoint(Path(sys.argv[5]).read_bytes())\n"
        "simulation.step(30)\n"
        "np.save(sys.argv[6], t.positions_of(simulation))\n"
    )
    here = Path(__file__).parent
    arguments = [here, here.parent, counter, platform, checkpoint, output]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, capture_output=True)


@pytest.mark.parametrize("platform", ["Reference", pytest.param("OpenCL-mixed", marks=pytest.mark.opencl)])
def test_a_restart_in_a_new_process_is_the_same_bit_for_bit(counter, tmp_path, platform):
    simulation = make(counter, platform)
    simulation.step(38)
    checkpoint = tmp_path / "run.chk"
    checkpoint.write_bytes(simulation.context.createCheckpoint())
    simulation.step(30)
    continue_in_new_process(counter, platform, checkpoint, tmp_path / "end.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "end.npy"), positions_of(simulation))


def test_one_seed_gives_one_trajectory_and_another_seed_another(counter):
    runs = []
    for seed in (3, 3, 4):
        simulation = make(counter, "Reference", seed=seed)
        simulation.step(25)
        runs.append(positions_of(simulation))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 1e-4


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_state_xml_brings_phase_tally_and_memory(counter, tmp_path, platform):
    first = make(counter, platform)
    first.step(24)
    first.saveState(str(tmp_path / "state.xml"))
    second = make(counter, platform)
    second.loadState(str(tmp_path / "state.xml"))
    assert memory_of(second) == memory_of(first)
    assert second.integrator.getNumJumps() == 3
    second.step(5)  # 24 = 3 * 7 + 3: the next jump comes after four more steps
    assert second.integrator.getNumJumps() == 4


def test_a_state_of_plain_md_gives_its_frame_and_leaves_the_tally(counter, tmp_path):
    topology, positions = toys.load_adp()
    plain = app.Simulation(topology, toys.adp_system(topology), toys.langevin(), *get_platform("Reference"))
    plain.context.setPositions(positions)
    plain.step(20)
    plain.saveState(str(tmp_path / "plain.xml"))
    simulation = make(counter, "Reference")
    simulation.step(15)
    simulation.loadState(str(tmp_path / "plain.xml"))
    np.testing.assert_array_equal(positions_of(simulation), positions_of(plain))
    assert simulation.integrator.getNumJumps() == 2
    assert 'bytes=""' in memory_of(simulation)


def test_memory_is_kept_from_jump_to_jump_and_dropped_with_new_positions(counter):
    simulation = make(counter, "Reference")
    simulation.step(24)
    kept = memory_of(simulation)
    assert 'bytes=""' not in kept
    simulation.context.setPositions(positions_of(simulation))
    assert 'bytes=""' in memory_of(simulation)


@pytest.mark.parametrize("toy", [toys.Counter, toys.InPlace])
def test_a_refused_jump_leaves_the_memory_as_it_was(toy, tmp_path):
    topology, positions = toys.load_adp()
    path = toys.export_toy(toy(HEAVY, 0.0), tmp_path / "still.latent.pt", topology, positions)
    simulation = make(path, "Reference")
    assert simulation.integrator.jump()
    before = memory_of(simulation)
    simulation.integrator.setThreshold("maxForce", 0.0)
    assert not simulation.integrator.jump()
    assert memory_of(simulation) == before
    simulation.integrator.setThreshold("maxForce", 5000.0)
    assert simulation.integrator.jump()
    assert memory_of(simulation) != before


@pytest.mark.parametrize("platform", PLATFORMS)
def test_reinitialize_keeps_phase_and_memory(counter, platform):
    simulation = make(counter, platform)
    simulation.step(24)
    before = memory_of(simulation)
    simulation.context.reinitialize(preserveState=True)
    assert memory_of(simulation) == before
    simulation.step(5)
    assert simulation.integrator.getNumJumps() == 4


@pytest.mark.parametrize(
    "clone",
    [
        copy.copy,
        copy.deepcopy,
        lambda integrator: pickle.loads(pickle.dumps(integrator)),
        lambda integrator: LatentIntegrator._adopt(
            mm.XmlSerializer.deserialize(mm.XmlSerializer.serialize(integrator))
        ),
    ],
    ids=["copy", "deepcopy", "pickle", "xml"],
)
def test_a_copied_integrator_runs_the_same_trajectory_without_the_file(counter, clone):
    first = make(counter, "Reference")
    twin = clone(first.integrator)
    assert isinstance(twin, LatentIntegrator)
    assert mm.XmlSerializer.serialize(twin) == mm.XmlSerializer.serialize(first.integrator)
    Path(counter).unlink()
    start = positions_of(first)
    first.step(20)
    # Contexts of the Reference platform share one random generator, which a new Context seeds: one after the other.
    second = app.Simulation(first.topology, first.system, twin, first.context.getPlatform())
    second.context.setPositions(start)
    second.context.setVelocitiesToTemperature(300, 1)
    second.step(20)
    np.testing.assert_array_equal(positions_of(first), positions_of(second))


def test_a_deserialised_integrator_can_be_cast(counter):
    integrator = make(counter, "Reference").integrator
    plain = mm.XmlSerializer.deserialize(mm.XmlSerializer.serialize(integrator))
    assert LatentIntegrator.isinstance(plain)
    assert LatentIntegrator.cast(plain).getJumpInterval() == 7
    assert not LatentIntegrator.isinstance(mm.VerletIntegrator(0.001))


def test_a_checkpoint_of_other_bundles_is_refused(counter, tmp_path):
    topology, positions = toys.load_adp()
    other = toys.export_toy(toys.Counter(HEAVY, 0.001), tmp_path / "other.latent.pt", topology, positions)
    checkpoint = make(counter, "Reference").context.createCheckpoint()
    with pytest.raises(mm.OpenMMException, match="was written with other bundles"):
        make(other, "Reference").context.loadCheckpoint(checkpoint)


def test_platforms_agree_on_the_noise(counter):
    ends = []
    for platform in ("Reference", "CPU"):
        simulation = make(counter, platform)
        simulation.integrator.jump()
        ends.append(positions_of(simulation))
    np.testing.assert_allclose(ends[0], ends[1], atol=100 * tolerance("CPU"))
