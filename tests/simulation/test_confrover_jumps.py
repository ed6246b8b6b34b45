"""ConfRover inside a Simulation: jumps that the guard accepts, the memory, and a restart."""

from dataclasses import asdict

import numpy as np
import openmm as mm
import pytest
from openmm import app

import toys
from openmm_latent import LatentModel
from openmm_latent.bundle import export_bundle
from openmm_latent.topology import describe_atoms
from platforms import get_platform
from rovers import CONFIG, knowing_module, module_of, peptides, random_model

TOPOLOGY, POSITIONS, _, CHOSEN, _, _ = peptides()


def written(module, path):
    return export_bundle(
        module,
        path,
        family="ConfRover",
        atoms=describe_atoms(TOPOLOGY, CHOSEN),
        masses=[list(TOPOLOGY.atoms())[atom].element.mass._value for atom in CHOSEN],
        lag_time=50.0,
        config=asdict(CONFIG),
        training={"temperature": 300.0},
        reference_positions=POSITIONS[CHOSEN],
    )


@pytest.fixture(scope="module")
def roving(tmp_path_factory):
    """A bundle of random weights, whose jumps are wild."""
    return written(module_of(random_model()), tmp_path_factory.mktemp("confrover") / "random.latent.pt")


def simulate(path, mode="exploratory"):
    integrator = LatentModel(path).createIntegrator(TOPOLOGY, toys.langevin(), jumpInterval=4, mode=mode, seed=3)
    simulation = app.Simulation(TOPOLOGY, toys.adp_system(TOPOLOGY), integrator, *get_platform("Reference"))
    simulation.context.setPositions(POSITIONS)
    simulation.context.setVelocitiesToTemperature(300, 7)
    return simulation


def positions_of(simulation):
    return simulation.context.getState(positions=True).getPositions(asNumpy=True)._value


def test_drawn_frames_of_a_known_structure_pass_the_guard(tmp_path):
    """Frames built from rigid residues and torsions, joined by the repair, hydrogens and all."""
    simulation = simulate(written(knowing_module(), tmp_path / "known.latent.pt"), "guarded")
    simulation.step(17)
    integrator = simulation.integrator
    assert integrator.getNumJumps() == 4
    assert integrator.getNumAccepted() >= 3, integrator.getRefusals()
    after = positions_of(simulation)
    bonds = [(a.index, b.index) for a, b in TOPOLOGY.bonds() if "H" in (a.element.symbol, b.element.symbol)]
    lengths = np.array([np.linalg.norm(after[a] - after[b]) for a, b in bonds])
    assert (np.abs(lengths - 0.105) < 0.03).all()


def test_a_run_goes_on_bitwise_from_its_checkpoint_with_its_memory(roving):
    """The memory is part of the checkpoint: with an empty one the next jump would go elsewhere."""
    first = simulate(roving)
    first.step(10)  # two jumps, then half of a relaxation
    checkpoint = first.context.createCheckpoint()
    first.step(7)
    assert first.integrator.getNumJumps() == 4
    second = simulate(roving)
    second.context.loadCheckpoint(checkpoint)
    second.step(7)
    assert np.array_equal(positions_of(first), positions_of(second))


def test_the_memory_counts_and_is_lost_when_positions_are_set(roving):
    """The same frame, seed and number of jump: only what went before differs."""
    first = simulate(roving)
    first.step(10)
    state = first.context.getState(positions=True, velocities=True)
    checkpoint = first.context.createCheckpoint()
    first.integrator.jump()
    remembered = positions_of(first)
    first.context.loadCheckpoint(checkpoint)
    first.context.setPositions(state.getPositions())  # the memory is reset
    first.integrator.jump()
    assert np.abs(positions_of(first) - remembered).max() > 1e-4


def test_the_bundle_says_what_it_can_and_how_long_it_remembers(roving):
    manifest = LatentModel(roving).manifest
    assert {"jump", "sample", "interpolate"} <= set(manifest.capabilities)
    assert (manifest.family, manifest.config["n_context"], manifest.n_latent) == ("ConfRover", CONFIG.n_context, 0)
    assert isinstance(mm.XmlSerializer.serialize(simulate(roving).integrator), str)
