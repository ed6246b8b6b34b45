"""ATMOS inside a Simulation of a peptide with a ligand: decoded and steered jumps, memory, and restarts."""

import numpy as np
import openmm as mm
import pytest
from openmm import app, unit

import toys
from atmos_models import POSITIONS, TOKENS, TOPOLOGY, random_model
from complexes import LIGAND_XML, complex_frames, complex_system
from openmm_latent import LatentError, LatentModel
from openmm_latent.data.complex_frames import complex_frames as frames_of
from openmm_latent.models.atmos import CONFIGS
from openmm_latent.training.atmos import train_atmos
from openmm_latent.training.atmos_binding import bind_atmos, export_complex
from platforms import get_platform

LIGAND = range(22, 31)


@pytest.fixture(scope="module")
def hot():
    """The last of two frames of MD at 300 K, (31, 3) [nm]."""
    return complex_frames(2, seed=4)[-1]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A model with random weights that moves atoms by 2 pm: what it draws the guard lets pass."""
    path = tmp_path_factory.mktemp("atmos") / "complex.latent.pt"
    model = random_model(turns=True, data_scale=0.002, level_least=0.1, churn_above=0.0005)
    return export_complex(model, TOPOLOGY, POSITIONS, path, tokens=TOKENS)


def simulate(bundle, hot, platform="Reference", system=None, topology=TOPOLOGY, **arguments):
    system, model = complex_system(topology) if system is None else system, LatentModel(bundle)
    if arguments.get("realisation") == "steer":
        model.addRestraint(system, topology)
    integrator = model.createIntegrator(topology, toys.langevin(), **({"jumpInterval": 10, "seed": 5} | arguments))
    simulation = app.Simulation(topology, system, integrator, *get_platform(platform))
    simulation.context.setPositions(hot)
    simulation.context.setVelocitiesToTemperature(300, 7)
    return simulation


def positions_of(simulation):
    return simulation.context.getState(positions=True).getPositions(asNumpy=True)._value


def test_the_ligand_is_among_the_model_atoms(bundle):
    model = LatentModel(bundle)
    named = {record.residue_name for record in model.manifest.atoms}
    assert named == {"ACE", "ALA", "NME", "LIG"}
    assert model.modelAtoms(TOPOLOGY) == TOKENS.atoms.tolist()
    other, _ = toys.load_adp()
    with pytest.raises(LatentError, match="topology lacks C1 of residue LIG 1 in chain 2, which bundle"):
        model.modelAtoms(other)


def test_decoded_jumps_pass_the_guard_and_move_peptide_and_ligand(bundle, hot):
    simulation = simulate(bundle, hot)
    before = positions_of(simulation)
    assert simulation.integrator.jump(), simulation.integrator.getRefusals()
    moved = np.linalg.norm(positions_of(simulation) - before, axis=1)
    assert moved[:22].max() > 1e-4
    assert moved[list(LIGAND)].max() > 1e-4
    simulation.step(41)
    assert simulation.integrator.getNumJumps() == 5
    assert simulation.integrator.getNumAccepted() >= 4, simulation.integrator.getRefusals()


def test_memory_goes_into_the_checkpoint_and_the_run_goes_on_bitwise(bundle, hot):
    first = simulate(bundle, hot)
    first.step(25)
    checkpoint = first.context.createCheckpoint()
    first.step(20)
    second = simulate(bundle, hot)
    second.context.loadCheckpoint(checkpoint)
    second.step(20)
    assert np.array_equal(positions_of(first), positions_of(second))
    forgetful = simulate(bundle, hot)
    forgetful.context.loadCheckpoint(checkpoint)
    forgetful.context.setPositions(forgetful.context.getState(positions=True).getPositions())  # a new start: no memory
    forgetful.step(20)
    assert not np.array_equal(positions_of(first), positions_of(forgetful))


def test_a_wild_model_is_refused_and_changes_nothing(tmp_path, hot):
    path = export_complex(
        random_model(turns=True, data_scale=0.3, n_refinements=0),
        TOPOLOGY,
        POSITIONS,
        tmp_path / "wild.latent.pt",
        tokens=TOKENS,
    )
    simulation = simulate(path, hot)
    before = positions_of(simulation)
    assert not simulation.integrator.jump()
    assert np.array_equal(positions_of(simulation), before)


def test_in_water_jumps_are_driven(bundle, hot):
    """Decoding in water is refused; steering moves the heavy atoms of both molecules to where the model has them."""
    import io

    field = app.ForceField("amber14-all.xml", "amber14/tip3p.xml", io.StringIO(LIGAND_XML))
    modeller = app.Modeller(TOPOLOGY, hot * unit.nanometer)
    modeller.addSolvent(field, boxSize=mm.Vec3(2.0, 2.0, 2.2) * unit.nanometer)
    topology = modeller.topology
    system = field.createSystem(
        topology, nonbondedMethod=app.CutoffPeriodic, nonbondedCutoff=0.9 * unit.nanometer, constraints=app.HBonds
    )
    start = np.array(modeller.positions.value_in_unit(unit.nanometer))
    with pytest.raises(LatentError, match="topology holds water"):
        LatentModel(bundle).createIntegrator(topology, toys.langevin())
    simulation = simulate(
        bundle, start, "CPU", system, topology,
        realisation="steer", drivenSteps=30, stepsPerPerturbation=3, sigma=0.01, thresholds={"maxWork": 1e5},
    )  # fmt: skip
    mm.LocalEnergyMinimizer.minimize(simulation.context, maxIterations=100)
    simulation.context.setVelocitiesToTemperature(300, 7)
    assert simulation.integrator.jump(), simulation.integrator.getRefusals()
    record = simulation.integrator.getJumpRecords(0)[-1]
    assert record.accepted
    assert record.isSteered
    assert np.isfinite(positions_of(simulation)).all()


@pytest.mark.slow
def test_a_trained_model_jumps_and_is_accepted(tmp_path):
    """A minute's training on 20 ps of MD of the complex; half of ten guarded jumps pass."""
    system = complex_system(TOPOLOGY)
    example = frames_of(TOPOLOGY, [complex_frames(400, seed=2, interval=25)], 0.05, system=system, name="complex")
    weights = tmp_path / "complex.weights.pt"
    train_atmos([example], lag_time=0.5, config=CONFIGS["tiny"], out=weights, n_steps=150)
    path = bind_atmos(weights, TOPOLOGY, POSITIONS, tmp_path / "complex.latent.pt", system=system)
    simulation = simulate(path, complex_frames(2, seed=4)[-1], jumpInterval=50)
    simulation.step(501)
    assert simulation.integrator.getNumJumps() == 10
    assert simulation.integrator.getNumAccepted() >= 5, simulation.integrator.getRefusals()
