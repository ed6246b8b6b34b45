"""LatentReporter: one row a jump, whatever the report interval."""

import csv
import io

import pytest
from openmm import Platform, VerletIntegrator, app, unit

import toys
from openmm_latent import LatentError, LatentIntegrator, LatentModel, LatentReporter


@pytest.fixture
def model(tmp_path):
    topology, positions = toys.load_adp()
    return LatentModel(toys.export_toy(toys.Identity(10), tmp_path / "identity.latent.pt", topology, positions))


def make(model, **arguments):
    topology, positions = toys.load_adp()
    integrator = model.createIntegrator(topology, toys.langevin(), **{"jumpInterval": 10, **arguments})
    system = toys.adp_system(topology)
    simulation = app.Simulation(topology, system, integrator, Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(positions)
    return simulation


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_a_jump_with_slow_coordinates_of_the_reported_frame(model, tmp_path):
    simulation = make(model)
    simulation.reporters.append(LatentReporter(tmp_path / "jumps.csv", 10, model))
    simulation.step(50)
    rows = rows_of(tmp_path / "jumps.csv")
    assert [int(row["jump"]) for row in rows] == [1, 2, 3, 4]
    assert [int(row["step"]) for row in rows] == [10, 20, 30, 40]
    assert [float(row["md_time_ps"]) for row in rows] == pytest.approx([0.04, 0.06, 0.08, 0.10])
    assert [float(row["accepted_jumps_x_lag_time_ps"]) for row in rows] == pytest.approx([1, 2, 3, 4])
    assert {row["mode"] for row in rows} == {"guarded"}
    positions = simulation.context.getState(positions=True).getPositions()
    slow = model.slowCoordinates(positions, simulation.topology)
    assert float(rows[-1]["slow_1"]) == pytest.approx(slow[0], abs=1e-6)


def test_no_jump_is_lost_between_rare_reports(model, tmp_path):
    simulation = make(model)
    simulation.reporters.append(LatentReporter(tmp_path / "jumps.csv", 25, model))
    simulation.step(75)
    rows = rows_of(tmp_path / "jumps.csv")
    assert [int(row["jump"]) for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [bool(row["slow_1"]) for row in rows] == [False, True, False, True, False, False, True]


def test_refusals_are_written_with_their_reason(model, tmp_path):
    simulation = make(model, thresholds={"maxForce": 0.0})
    simulation.reporters.append(LatentReporter(tmp_path / "jumps.csv", 10, model))
    simulation.step(30)
    rows = rows_of(tmp_path / "jumps.csv")
    assert [(row["outcome"], row["reason"]) for row in rows] == [("refused", "force")] * 2
    assert float(rows[-1]["accepted_jumps_x_lag_time_ps"]) == 0


def test_appending_after_a_restart_writes_no_second_header_and_no_jump_twice(model, tmp_path):
    simulation = make(model)
    simulation.reporters.append(LatentReporter(tmp_path / "jumps.csv", 10, model))
    simulation.step(40)
    checkpoint = simulation.context.createCheckpoint()
    again = make(model)
    again.context.loadCheckpoint(checkpoint)
    again.currentStep = 40
    again.reporters.append(LatentReporter(tmp_path / "jumps.csv", 10, model, append=True))
    again.step(20)
    assert [int(row["jump"]) for row in rows_of(tmp_path / "jumps.csv")] == [1, 2, 3, 4, 5]


def test_rows_go_on_after_an_older_checkpoint_is_loaded(model, tmp_path):
    simulation = make(model)
    checkpoint = tmp_path / "run.chk"
    simulation.reporters.append(LatentReporter(tmp_path / "jumps.csv", 10, model))
    simulation.step(20)
    simulation.saveCheckpoint(str(checkpoint))
    simulation.step(30)
    simulation.loadCheckpoint(str(checkpoint))
    simulation.step(20)
    assert [int(row["jump"]) for row in rows_of(tmp_path / "jumps.csv")] == [1, 2, 3, 4, 2, 3]


def test_the_mode_of_a_row_is_that_of_its_jump(model, tmp_path):
    simulation = make(model)
    simulation.reporters.append(LatentReporter(tmp_path / "jumps.csv", 30, model))
    simulation.step(15)
    simulation.integrator.setMode(LatentIntegrator.Exploratory)
    simulation.step(15)
    assert [row["mode"] for row in rows_of(tmp_path / "jumps.csv")] == ["guarded", "exploratory"]


def test_an_open_file_is_written_to_and_left_open(model):
    file = io.StringIO()
    simulation = make(model)
    simulation.reporters.append(LatentReporter(file, 20))
    simulation.step(40)
    simulation.reporters.clear()
    assert len(file.getvalue().splitlines()) == 4


def test_it_refuses_what_it_cannot_report(model, tmp_path):
    with pytest.raises(LatentError, match="reportInterval must be a whole number of steps"):
        LatentReporter(tmp_path / "jumps.csv", 0)
    topology, positions = toys.load_adp()
    simulation = app.Simulation(topology, toys.adp_system(topology), VerletIntegrator(0.001 * unit.picosecond))
    simulation.context.setPositions(positions)
    simulation.reporters.append(LatentReporter(tmp_path / "jumps.csv", 5))
    with pytest.raises(LatentError, match="whose integrator is a LatentIntegrator, got VerletIntegrator"):
        simulation.step(5)
