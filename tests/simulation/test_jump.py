"""What one jump does to a Context, and what it leaves alone."""

import threading
import time

import numpy as np
import openmm as mm
import pytest
from openmm import app, unit

import toys
from openmm_latent import LatentError, LatentModel
from platforms import PLATFORMS, get_platform, tolerance

HEAVY = 10


@pytest.fixture
def adp():
    return toys.load_adp()


@pytest.fixture
def simulate(tmp_path, adp):
    """Return a function that makes a Simulation of alanine dipeptide around a toy module."""
    topology, positions = adp

    def make(module, platform="Reference", system=None, relaxation=None, **arguments):
        path = toys.export_toy(module, tmp_path / f"{type(module).__name__}.latent.pt", topology, positions)
        arguments = {"jumpInterval": 10, "seed": 3, "mode": "exploratory"} | arguments
        integrator = LatentModel(path).createIntegrator(topology, relaxation or toys.langevin(), **arguments)
        simulation = app.Simulation(topology, system or toys.adp_system(topology), integrator, *get_platform(platform))
        simulation.context.setPositions(positions)
        simulation.context.setVelocitiesToTemperature(300, 7)
        return simulation

    return make


def positions_of(simulation):
    return simulation.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def velocities_of(simulation):
    state = simulation.context.getState(velocities=True)
    return state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)


NO_MINIMISATION = {"maxMinimizerIterations": 0}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_jump_moves_model_atoms_and_hydrogens_ride_along(simulate, adp, platform):
    topology, _ = adp
    system = toys.adp_system(topology, constraints=None)
    simulation = simulate(toys.Rotate(HEAVY), platform, system=system, thresholds=NO_MINIMISATION)
    before = positions_of(simulation)
    heavy = [a.index for a in topology.atoms() if a.element.symbol != "H"]
    centre = before[heavy].mean(axis=0)
    assert simulation.integrator.jump()
    x, y, z = (before - centre).T
    expected = centre + np.stack([1.0 - y, x, z], axis=1)
    # The whole molecule turns rigidly: hydrogens, too, though the module never saw them.
    np.testing.assert_allclose(positions_of(simulation), expected, atol=tolerance(platform))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_identity_jump_changes_no_bit_of_the_model_atoms(simulate, adp, platform):
    topology, _ = adp
    heavy = [a.index for a in topology.atoms() if a.element.symbol != "H"]
    system = toys.adp_system(topology, constraints=None)
    simulation = simulate(toys.Identity(HEAVY), platform, system=system, thresholds=NO_MINIMISATION)
    before = positions_of(simulation)
    assert simulation.integrator.jump()
    np.testing.assert_array_equal(positions_of(simulation)[heavy], before[heavy])
    np.testing.assert_allclose(positions_of(simulation), before, atol=tolerance(platform))


@pytest.mark.parametrize("platform", [p for p in PLATFORMS if "CUDA" in str(p)])
@pytest.mark.parametrize("toy", [toys.Shake, toys.Counter, toys.InPlace])
def test_jumps_played_from_a_cuda_graph_are_those_of_the_module(simulate, platform, toy, monkeypatch, capfd):
    """From the third on they are played, from the fifth on without being compared: see test_graphed_runner.py."""
    frames = []
    for wish in ("0", "1"):
        monkeypatch.setenv("OPENMM_LATENT_CUDA_GRAPHS", wish)
        simulation = simulate(toy(HEAVY, 0.005), platform, thresholds=NO_MINIMISATION)
        for _ in range(8):
            assert simulation.integrator.jump()
        frames.append(positions_of(simulation))
    np.testing.assert_allclose(frames[1], frames[0], atol=8 * tolerance(platform))
    assert "not played from recordings" not in capfd.readouterr().err


@pytest.mark.parametrize("platform", PLATFORMS)
def test_constraints_hold_after_a_jump(simulate, platform):
    simulation = simulate(toys.Shake(HEAVY, 0.005), platform)
    system = simulation.system
    for _ in range(5):
        assert simulation.integrator.jump()
        positions = positions_of(simulation)
        for i in range(system.getNumConstraints()):
            first, second, length = system.getConstraintParameters(i)
            distance = np.linalg.norm(positions[first] - positions[second])
            assert abs(distance - length._value) < 1e-4 * length._value


@pytest.mark.parametrize("platform", PLATFORMS)
def test_jumps_come_before_step_k_interval_plus_one_across_step_calls(simulate, platform):
    simulation = simulate(toys.Identity(HEAVY), platform)
    counts = []
    for _ in range(8):
        simulation.integrator.step(5)
        counts.append(simulation.integrator.getNumJumps())
    # After 5, 10, 15, ... steps: the jump due after 10 is made at the start of the next call.
    assert counts == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [r.step for r in simulation.integrator.getJumpRecords(0)] == [10, 20, 30]


def test_time_and_step_count_are_those_of_the_relaxation(simulate):
    simulation = simulate(toys.Rotate(HEAVY))
    simulation.step(35)
    state = simulation.context.getState()
    assert simulation.integrator.getNumJumps() == 3
    assert state.getStepCount() == simulation.currentStep == 35
    assert state.getTime().value_in_unit(unit.picosecond) == pytest.approx(0.070)


def test_the_interval_can_change_between_steps(simulate):
    simulation = simulate(toys.Identity(HEAVY), jumpInterval=100)
    simulation.step(50)
    simulation.integrator.setJumpInterval(20)
    simulation.step(1)  # 50 steps have passed since the last jump: one is due at once
    assert simulation.integrator.getNumJumps() == 1
    simulation.step(40)
    assert simulation.integrator.getNumJumps() == 3


def test_a_jump_by_hand_leaves_the_phase(simulate):
    simulation = simulate(toys.Identity(HEAVY))
    simulation.step(5)
    assert simulation.integrator.jump()
    simulation.step(5)
    assert simulation.integrator.getNumJumps() == 1
    simulation.step(1)
    assert simulation.integrator.getNumJumps() == 2


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_refused_jump_restores_everything_bit_for_bit(simulate, platform):
    simulation = simulate(toys.Mirror(HEAVY), platform, mode="guarded", thresholds=NO_MINIMISATION)
    simulation.step(3)
    before = positions_of(simulation), velocities_of(simulation)
    assert not simulation.integrator.jump()
    assert sum(simulation.integrator.getRefusals().values()) == 1
    np.testing.assert_array_equal(positions_of(simulation), before[0])
    np.testing.assert_array_equal(velocities_of(simulation), before[1])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_trajectory_of_refused_jumps_is_plain_md(simulate, platform):
    refused = simulate(toys.NotANumber(HEAVY), platform)
    refused.step(40)
    plain = simulate(toys.NotANumber(HEAVY), platform, jumpInterval=1000)
    plain.step(40)
    assert refused.integrator.getNumRefused("nan") == 3
    np.testing.assert_allclose(positions_of(refused), positions_of(plain), atol=tolerance(platform))


def test_velocities_are_redrawn_at_the_relaxations_temperature(simulate):
    simulation = simulate(toys.Identity(HEAVY), thresholds=NO_MINIMISATION)
    n_dof = 3 * 22 - simulation.system.getNumConstraints()
    kinetic = []
    for _ in range(400):
        simulation.integrator.jump()
        kinetic.append(simulation.context.getState(energy=True).getKineticEnergy()._value)
    temperature = 2 * np.mean(kinetic) / (n_dof * 0.00831446)
    # Standard error 300 K * sqrt(2 / (n_dof * 400)) = 2.8 K; 4 sigma: false alarm 6e-5 (and the seed is fixed).
    assert abs(temperature - 300) < 12


def test_velocities_can_be_kept(simulate):
    simulation = simulate(toys.Identity(HEAVY), thresholds=NO_MINIMISATION, velocities="keep")
    before = velocities_of(simulation)
    assert simulation.integrator.jump()
    np.testing.assert_allclose(velocities_of(simulation), before, atol=1e-4)


def test_kept_velocities_respect_the_constraints_of_the_new_frame(simulate):
    simulation = simulate(toys.Rotate(HEAVY), thresholds=NO_MINIMISATION, velocities="keep")
    assert simulation.integrator.jump()
    positions, velocities = positions_of(simulation), velocities_of(simulation)
    for i in range(simulation.system.getNumConstraints()):
        first, second, length = simulation.system.getConstraintParameters(i)
        along = (positions[first] - positions[second]) @ (velocities[first] - velocities[second]) / length._value
        assert abs(along) < 1e-3


def test_a_relaxation_without_temperature_is_refused_before_anything_moves(simulate):
    simulation = simulate(toys.Rotate(HEAVY), relaxation=mm.VerletIntegrator(0.001))
    before = positions_of(simulation)
    with pytest.raises(mm.OpenMMException, match="has no temperature of its own"):
        simulation.integrator.jump()
    np.testing.assert_array_equal(positions_of(simulation), before)
    given = simulate(toys.Rotate(HEAVY), relaxation=mm.VerletIntegrator(0.001), temperature=300 * unit.kelvin)
    assert given.integrator.jump()


@pytest.mark.parametrize(
    "relaxation",
    [
        lambda: mm.LangevinIntegrator(300, 1, 0.002),
        lambda: mm.BrownianIntegrator(300, 50, 0.0005),
        lambda: mm.VariableLangevinIntegrator(300, 1, 0.001),
        lambda: mm.NoseHooverIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.002),
    ],
    ids=["Langevin", "Brownian", "VariableLangevin", "NoseHoover"],
)
def test_other_relaxation_integrators_work_unchanged(simulate, relaxation):
    simulation = simulate(toys.Shake(HEAVY, 0.002), relaxation=relaxation())
    simulation.step(25)
    assert simulation.integrator.getNumAccepted() == 2


def test_an_andersen_thermostat_gives_the_temperature(simulate, adp):
    system = toys.adp_system(adp[0])
    system.addForce(mm.AndersenThermostat(300, 1))
    simulation = simulate(toys.Identity(HEAVY), system=system, relaxation=mm.VerletIntegrator(0.001))
    assert simulation.integrator.jump()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_error_in_torch_names_the_bundle_and_leaves_the_context_usable(simulate, platform):
    simulation = simulate(toys.Failing(HEAVY, 0.0), platform)
    before = positions_of(simulation)
    with pytest.raises(mm.OpenMMException, match=r"bundle 'Failing.latent.pt' failed in jump: the toy fails on"):
        simulation.integrator.jump()
    np.testing.assert_array_equal(positions_of(simulation), before)
    simulation.integrator.setJumpInterval(1000)
    simulation.step(5)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_virtual_sites_follow_and_frozen_particles_stay(adp, tmp_path, platform):
    topology, positions = adp
    system = toys.adp_system(topology, constraints=None)
    heavy = [a.index for a in topology.atoms() if a.element.symbol != "H"]
    carried = next(a.index for a in topology.atoms() if a.element.symbol == "H")
    system.setParticleMass(heavy[0], 0.0)
    system.setParticleMass(carried, 0.0)
    system.setVirtualSite(carried, mm.TwoParticleAverageSite(heavy[1], heavy[2], 0.5, 0.5))
    path = toys.export_toy(toys.Rotate(HEAVY), tmp_path / "rotate.latent.pt", topology, positions)
    integrator = LatentModel(path).createIntegrator(
        topology, toys.langevin(), mode="exploratory", thresholds=NO_MINIMISATION
    )
    context = mm.Context(system, integrator, *get_platform(platform))
    context.setPositions(positions)
    context.computeVirtualSites()
    integrator.jump()
    after = context.getState(positions=True).getPositions(asNumpy=True)._value
    np.testing.assert_allclose(after[heavy[0]], positions[heavy[0]], atol=tolerance(platform))
    np.testing.assert_allclose(after[carried], 0.5 * (after[heavy[1]] + after[heavy[2]]), atol=tolerance(platform))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_hydrogens_of_a_frozen_molecule_stay_with_it(adp, tmp_path, platform):
    topology, positions = adp
    system = toys.adp_system(topology, constraints=None)
    for atom in topology.atoms():
        if atom.element.symbol != "H":
            system.setParticleMass(atom.index, 0.0)
    path = toys.export_toy(toys.Rotate(HEAVY), tmp_path / "rotate.latent.pt", topology, positions)
    integrator = LatentModel(path).createIntegrator(
        topology, toys.langevin(), mode="exploratory", thresholds=NO_MINIMISATION
    )
    context = mm.Context(system, integrator, *get_platform(platform))
    context.setPositions(positions)
    integrator.jump()
    after = context.getState(positions=True).getPositions(asNumpy=True)._value
    np.testing.assert_allclose(after, positions, atol=tolerance(platform))


def test_force_groups_that_the_relaxation_leaves_out_do_not_count(adp, simulate):
    system = toys.adp_system(adp[0])
    foreign = mm.CustomExternalForce("1e6*x")
    for i in range(system.getNumParticles()):
        foreign.addParticle(i)
    foreign.setForceGroup(31)
    system.addForce(foreign)
    relaxation = toys.langevin()
    relaxation.setIntegrationForceGroups({0})
    simulation = simulate(toys.Identity(HEAVY), system=system, relaxation=relaxation, mode="guarded")
    simulation.context.setVelocities(np.zeros((22, 3)))  # the fixture's setVelocitiesToTemperature uses all groups
    simulation.step(45)
    assert simulation.integrator.getNumAccepted() == simulation.integrator.getNumJumps() == 4
    assert max(abs(r.energyAfter) for r in simulation.integrator.getJumpRecords(0)) < 1000


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_molecule_broken_by_periodic_images_reaches_the_module_whole(adp, tmp_path, platform):
    topology, positions = adp
    box = np.array([[2.4, 0, 0], [0.5, 2.5, 0], [-0.4, 0.7, 2.6]])
    topology.setPeriodicBoxVectors(box * unit.nanometer)
    system = app.ForceField("amber14-all.xml").createSystem(
        topology, nonbondedMethod=app.CutoffPeriodic, nonbondedCutoff=1.0 * unit.nanometer
    )
    system.setDefaultPeriodicBoxVectors(*box)
    path = toys.export_toy(toys.Rotate(HEAVY), tmp_path / "rotate.latent.pt", topology, positions)
    moves = []
    broken = positions.copy()
    broken[6:] += box[0] - 2 * box[2]
    broken[12:] -= box[1]
    for start in (positions, broken):
        integrator = LatentModel(path).createIntegrator(
            topology, toys.langevin(), mode="exploratory", thresholds=NO_MINIMISATION
        )
        context = mm.Context(system, integrator, *get_platform(platform))
        context.setPositions(start)
        integrator.jump()
        moved = context.getState(positions=True).getPositions(asNumpy=True)._value
        moves.append(moved - start)
    np.testing.assert_allclose(moves[1], moves[0], atol=5 * tolerance(platform))


def test_several_models_take_turns(adp, tmp_path):
    topology, positions = adp
    models = [
        LatentModel(toys.export_toy(module, tmp_path / f"{i}.latent.pt", topology, positions))
        for i, module in enumerate([toys.Identity(HEAVY), toys.Rotate(HEAVY), toys.Shake(HEAVY, 0.001)])
    ]
    integrator = models[0].createIntegrator(
        topology, toys.langevin(), jumpInterval=2, mode="exploratory", others=models[1:]
    )
    context = mm.Context(toys.adp_system(topology), integrator, mm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    integrator.step(11)
    assert [record.bundle for record in integrator.getJumpRecords(0)] == [0, 1, 2, 0, 1]


def test_other_python_threads_run_during_steps(simulate):
    simulation = simulate(toys.Identity(HEAVY))
    ticks = []
    stop = threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.perf_counter()
    simulation.integrator.step(4000)
    end = time.perf_counter()
    stop.set()
    thread.join()
    assert sum(start < moment < end for moment in ticks) >= 5


def test_rpmd_drude_and_compound_integrators_are_refused(adp, tmp_path):
    topology, positions = adp
    path = toys.export_toy(toys.Identity(HEAVY), tmp_path / "toy.latent.pt", topology, positions)
    model = LatentModel(path)
    compound = mm.CompoundIntegrator()
    compound.addIntegrator(mm.VerletIntegrator(0.001))
    for relaxation, word in (
        (mm.RPMDIntegrator(4, 300, 1, 0.001), "RPMDIntegrator"),
        (mm.DrudeLangevinIntegrator(300, 1, 1, 20, 0.001), "Drude integrator"),
        (compound, "CompoundIntegrator"),
    ):
        with pytest.raises(LatentError, match=word):
            model.createIntegrator(topology, relaxation)
        assert relaxation.thisown  # what was refused stays the caller's


def test_a_refused_argument_leaves_the_relaxation_integrator_usable(adp, tmp_path):
    topology, positions = adp
    model = LatentModel(toys.export_toy(toys.Identity(HEAVY), tmp_path / "toy.latent.pt", topology, positions))
    relaxation = toys.langevin()
    for thresholds in ({"maxForse": 1.0}, {"maxForce": -1.0}, {"maxForce": "much"}):
        with pytest.raises(LatentError, match="threshold"):
            model.createIntegrator(topology, relaxation, thresholds=thresholds)
        assert relaxation.getTemperature()._value == 300.0
    integrator = model.createIntegrator(topology, relaxation)
    with pytest.raises(mm.OpenMMException, match="one relaxation integrator"):
        integrator.addIntegrator(toys.langevin())
    with pytest.raises(LatentError, match="already belongs to"):
        model.createIntegrator(topology, relaxation)


def test_either_of_integrator_and_context_can_go_first(simulate):
    simulation = simulate(toys.Identity(HEAVY))
    simulation.step(12)
    integrator, context = simulation.integrator, simulation.context
    del simulation
    del context
    with pytest.raises(mm.OpenMMException, match="not bound to a context"):
        integrator.step(1)
    del integrator
    simulation = simulate(toys.Identity(HEAVY))
    context = simulation.context
    integrator = simulation.integrator
    del simulation, integrator
    del context


@pytest.mark.parametrize("platform", PLATFORMS)
def test_jumps_find_their_atoms_after_the_platform_reordered_them(tmp_path, platform):
    """300 three-atom chains in a periodic box: GPU platforms sort them in space after 250 steps."""
    chosen = 217
    topology, system, positions = toys.chains_in_a_box()
    model_atoms = [3 * chosen + k for k in range(3)]
    path = toys.export_toy(toys.Rotate(3), tmp_path / "rotate.latent.pt", topology, positions, model_atoms)
    integrator = LatentModel(path).createIntegrator(
        topology, toys.langevin(), jumpInterval=10**6, mode="exploratory", thresholds=NO_MINIMISATION, velocities="keep"
    )
    context = mm.Context(system, integrator, *get_platform(platform))
    context.setPositions(positions)
    context.setVelocitiesToTemperature(300, 3)
    integrator.step(600)
    before = context.getState(positions=True).getPositions(asNumpy=True)._value
    assert integrator.jump()
    after = context.getState(positions=True).getPositions(asNumpy=True)._value
    expected = before.copy()
    centre = before[model_atoms].mean(axis=0)
    x, y, z = (before[model_atoms] - centre).T
    expected[model_atoms] = centre + np.stack([1.0 - y, x, z], axis=1)
    np.testing.assert_allclose(after, expected, atol=10 * tolerance(platform))
