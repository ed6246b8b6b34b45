"""The tuning phase of driven jumps: what it tries, what it keeps, and that it ends."""

import json
from dataclasses import replace

import numpy as np
import openmm as mm
import pytest
from openmm import app

import known_density as kd
import toys
from openmm_latent import LatentError
from openmm_latent.tuning import Trial, _squared_distance, tune_driving


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return kd.export(kd.HARMONIC, tmp_path_factory.mktemp("tuning") / "bad.latent.pt")


@pytest.fixture
def simulation(bundle):
    return kd.make_simulation(kd.HARMONIC, bundle, kd.SMALL, seed=3)


def tune(simulation, **arguments):
    return tune_driving(
        simulation,
        **(
            {
                "n_jumps": 10,
                "sigmas": (0.1, 0.3),
                "steps": (10, 30),
                "blocks": (1, 5),
                "per_distance": (0.0, 40.0),
                "step_shares": (1.0, 0.5),
                "least_distances": (0.0, 0.1),
            }
            | arguments
        ),
    )


def test_six_settings_are_varied_in_turn_and_the_fastest_is_in_use(simulation):
    tuning = tune(simulation)
    assert len(tuning.trials) == 12
    assert [trial.drivingStepSize for trial in tuning.trials[:2]] == [kd.SMALL.step_size, 0.5 * kd.SMALL.step_size]
    assert [trial.sigma for trial in tuning.trials[2:4]] == [0.1, 0.3]
    assert [trial.drivenSteps for trial in tuning.trials[4:6]] == [10, 30]
    assert [trial.drivenStepsPerDistance for trial in tuning.trials[6:8]] == [0.0, 40.0]
    assert [trial.stepsPerPerturbation for trial in tuning.trials[8:10]] == [1, 5]
    assert [trial.leastDrivenDistance for trial in tuning.trials[10:]] == [0.0, 0.1]
    # Each choice is kept while the next setting is varied.
    best = max(tuning.trials[2:4], key=lambda trial: trial.speed)
    assert {trial.sigma for trial in tuning.trials[4:]} == {best.sigma}
    assert tuning.chosen == max(tuning.trials[10:], key=lambda trial: trial.speed)
    driving = simulation.integrator.getDriving()
    assert {name: driving[name] for name in tuning.chosen.setting} == tuning.chosen.setting


def test_driven_steps_too_long_to_be_accepted_are_halved(simulation):
    """Beyond the limit of stability, 2 / frequency, nothing is accepted."""
    simulation.integrator.setDriving(drivingStepSize=0.05)
    tuning = tune(simulation, step_shares=(1.0, 0.1))
    assert tuning.trials[0].acceptance < 0.05 < tuning.trials[1].acceptance
    assert simulation.integrator.getDriving()["drivingStepSize"] == pytest.approx(0.005)


def test_trials_measure_what_they_say(simulation):
    tuning = tune(simulation, n_jumps=40)
    assert simulation.integrator.getNumJumps() == 12 * 40
    for trial in tuning.trials:
        assert 0 < trial.acceptance < 1
        assert trial.seconds_per_jump > 0
        assert trial.speed > 0
    records = list(simulation.integrator.getJumpRecords(11 * 40))
    last = tuning.trials[-1]
    assert last.acceptance == pytest.approx(sum(record.acceptance for record in records) / 40)
    gain = sum(record.acceptance * (record.to[0] - record._from[0]) ** 2 for record in records)
    assert last.speed == pytest.approx(gain / (40 * last.seconds_per_jump), rel=1e-6)


def test_a_setting_at_which_nothing_is_accepted_is_not_chosen(simulation):
    """Drives of steps beyond stability are all refused."""
    simulation.integrator.setDriving(drivingStepSize=0.05)
    tuning = tune(
        simulation,
        sigmas=(0.01, 0.4),
        steps=(10,),
        blocks=(2,),
        per_distance=(0.0,),
        step_shares=(1.0,),
        least_distances=(0.0,),
    )
    assert tuning.trials[0].acceptance < 0.05
    assert tuning.chosen.sigma == 0.4


def test_time_and_step_count_are_put_back_and_nothing_adapts_later(simulation):
    simulation.step(100)
    before = simulation.context.getTime(), simulation.context.getStepCount()
    tuning = tune(simulation)
    assert (simulation.context.getTime(), simulation.context.getStepCount()) == before
    driving = simulation.integrator.getDriving()
    simulation.step(200)
    assert simulation.integrator.getDriving() == driving
    assert driving["sigma"] == tuning.chosen.sigma


def test_starts_are_taken_in_turn_and_the_frame_is_put_back(tmp_path):
    """Two wells, and jumps that stay where they are: every other record begins in the other well."""
    bundle = kd.export(kd.DOUBLE_WELL, tmp_path / "stay.latent.pt", kd.Stay(2, 1))
    simulation = kd.make_simulation(kd.DOUBLE_WELL, bundle, replace(kd.SMALL, relax_steps=2), seed=3)
    simulation.step(5)
    state = simulation.context.getState(positions=True, velocities=True)
    frame = state.getPositions(asNumpy=True)._value
    mirrored = frame.copy()
    mirrored[1:, 0] = 2 * frame[0, 0] - frame[1:, 0]
    tuning = tune(simulation, starts=np.array([frame, mirrored]), n_jumps=6)
    assert len(tuning.trials) == 12
    starts = [record.start[0] for record in simulation.integrator.getJumpRecords(0)][-6:]
    assert np.sign(starts).tolist() == [np.sign(starts[0]), -np.sign(starts[0])] * 3
    after = simulation.context.getState(positions=True, velocities=True)
    np.testing.assert_array_equal(after.getPositions(asNumpy=True)._value, frame)
    np.testing.assert_array_equal(after.getVelocities(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value)


def test_a_jump_that_was_due_is_none_of_a_trials(tmp_path):
    bundle = kd.export(kd.DOUBLE_WELL, tmp_path / "stay.latent.pt", kd.Stay(2, 1))
    simulation = kd.make_simulation(kd.DOUBLE_WELL, bundle, replace(kd.SMALL, relax_steps=4), seed=3)
    simulation.step(4)
    frame = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
    tuning = tune(simulation, starts=frame[None], n_jumps=3)
    assert simulation.integrator.getNumJumps() == 1 + 3 * len(tuning.trials)
    accepted = [record.acceptance for record in simulation.integrator.getJumpRecords(1)][-3:]
    assert tuning.trials[-1].acceptance == pytest.approx(np.mean(accepted))


def test_a_checkpoint_keeps_what_was_tuned(simulation, bundle):
    simulation.integrator.setDriving(sigma=0.37, drivenSteps=12, stepsPerPerturbation=3, leastDrivenDistance=0.3)
    simulation.step(400)
    assert simulation.integrator.getRefusals()["near"] > 0
    checkpoint = simulation.context.createCheckpoint()
    other = kd.make_simulation(kd.HARMONIC, bundle, kd.SMALL, seed=3)
    assert other.integrator.getDriving()["sigma"] == kd.SMALL.sigma
    other.context.loadCheckpoint(checkpoint)
    assert other.integrator.getDriving() == simulation.integrator.getDriving()
    assert other.integrator.getRefusals() == simulation.integrator.getRefusals()


def test_blocks_longer_than_the_drive_are_left_out(simulation):
    simulation.integrator.setDriving(drivenSteps=10, stepsPerPerturbation=1)
    tuning = tune(
        simulation,
        sigmas=(0.2,),
        steps=(10,),
        blocks=(2, 20),
        per_distance=(0.0,),
        step_shares=(1.0,),
        least_distances=(0.0,),
    )
    assert [trial.stepsPerPerturbation for trial in tuning.trials] == [2]


def test_what_has_one_candidate_is_set_and_not_tried(simulation):
    alone = {"sigmas": (0.2,), "steps": (10,), "blocks": (2,), "per_distance": (3.0,), "step_shares": (0.5,)}
    tuning = tune(simulation, **alone, least_distances=(0.1,))
    expected = {"drivenSteps": 10, "stepsPerPerturbation": 2, "sigma": 0.2, "drivenStepsPerDistance": 3.0}
    expected |= {"drivingStepSize": 0.5 * kd.SMALL.step_size, "leastDrivenDistance": 0.1}
    assert len(tuning.trials) == 1
    assert tuning.chosen.setting == simulation.integrator.getDriving() == expected | {"drivingFriction": 1.0}
    with pytest.raises(LatentError, match=r"blocks and steps: none of \[20\] fits into any of \[10\]"):
        tune(simulation, **alone | {"blocks": (20,)})


def test_weights_of_starts_count_in_every_mean(tmp_path):
    bundle = kd.export(kd.DOUBLE_WELL, tmp_path / "bad.latent.pt")
    simulation = kd.make_simulation(kd.DOUBLE_WELL, bundle, replace(kd.SMALL, relax_steps=2), seed=3)
    simulation.step(5)
    frame = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
    mirrored = frame.copy()
    mirrored[1:, 0] = 2 * frame[0, 0] - frame[1:, 0]
    tuning = tune(simulation, starts=np.array([frame, mirrored]), start_weights=(3.0, 1.0), n_jumps=6)
    records, weights = list(simulation.integrator.getJumpRecords(0))[-6:], [3, 1, 3, 1, 3, 1]
    acceptances = [record.acceptance for record in records]
    gains = [record.acceptance * (record.to[0] - record._from[0]) ** 2 for record in records]
    trial = tuning.trials[-1]
    assert trial.acceptance == pytest.approx(np.average(acceptances, weights=weights))
    assert trial.acceptance != pytest.approx(np.mean(acceptances))
    assert trial.speed * trial.seconds_per_jump == pytest.approx(np.average(gains, weights=weights))


def test_a_candidate_may_fit_what_is_varied_and_not_what_is_set(simulation):
    simulation.integrator.setDriving(drivenSteps=10, stepsPerPerturbation=5)
    tuning = tune(simulation, steps=(10, 40), blocks=(20,), n_jumps=2)
    assert {trial.stepsPerPerturbation for trial in tuning.trials} == {20}
    assert tuning.chosen.drivenSteps == 40


def test_the_record_is_json(simulation, tmp_path):
    tuning = tune(simulation)
    tuning.write(tmp_path / "tuning.json")
    read = json.loads((tmp_path / "tuning.json").read_text())
    assert [Trial(**trial) for trial in read["trials"]] == tuning.trials
    assert Trial(**read["chosen"]) == tuning.chosen


def test_angles_are_measured_the_short_way_round():
    assert _squared_distance([3.0, 1.0], [-3.0, 2.0], [6.0, 0.0]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"n_jumps": 0}, "n_jumps must be at least 1 and at most 10000, got 0"),
        (
            {"sigmas": ()},
            "per_distance, step_shares and least_distances must each give at least one candidate",
        ),
        ({"step_shares": (0.0,)}, "step_shares must be positive, got"),
        (
            {"starts": np.zeros((3, 4, 3))},
            r"starts must be finite and of shape \(n_starts, n_particles=2, 3\) .* \(3, 4,",
        ),
        ({"starts": np.zeros((0, 2, 3))}, "starts must be finite and of shape"),
        ({"blocks": (100,)}, r"blocks and steps: none of \[100\] fits into any of \[10, 30\]"),
        ({"start_weights": (1.0,)}, r"start_weights must be positive numbers, one for each of 0 starts, got \[1.0\]"),
        ({"n_jumps": 10001}, "n_jumps must be at least 1 and at most 10000, got 10001"),
    ],
)
def test_what_tuning_refuses(simulation, arguments, sentence):
    with pytest.raises(LatentError, match=sentence):
        tune(simulation, **arguments)


def test_tuning_is_for_exact_simulations_without_reporters(simulation, bundle, tmp_path):
    topology, _ = toys.load_adp()
    plain = app.Simulation(topology, toys.adp_system(topology), toys.langevin(), mm.Platform.getPlatform("Reference"))
    with pytest.raises(LatentError, match="in exact mode, got LangevinMiddleIntegrator"):
        tune(plain)
    guarded = kd.make_simulation(kd.HARMONIC, bundle, kd.SMALL, seed=3, mode="guarded")
    with pytest.raises(LatentError, match="in exact mode, got LatentIntegrator"):
        tune(guarded)
    simulation.reporters.append(app.StateDataReporter(str(tmp_path / "log.csv"), 10, step=True))
    with pytest.raises(LatentError, match="must have no reporters yet, got 1"):
        tune(simulation)
