"""FilledTrajectoryReporter: what the model draws within accepted jumps, apart from the physical trajectory."""

import csv
from dataclasses import replace

import mdtraj
import numpy as np
import pytest
import torch
from openmm import Platform, app, unit
from torch import Tensor

import toys
from openmm_latent import FilledTrajectoryReporter, LatentError, LatentModel, Walkers
from openmm_latent.bundle import export_bundle
from openmm_latent.hybrid import HybridConfig, HybridRun
from openmm_latent.topology import describe_atoms, heavy_atoms

TOPOLOGY, POSITIONS = toys.load_adp()
ATOMS = heavy_atoms(TOPOLOGY)
LAG_TIME, FINE_TIME = 3.0, 1.0  # ps


class Straight(toys.Shake):
    """Shakes; between two frames it draws those at a third and two thirds of the way, jiggled."""

    def noise_sizes(self):
        return {"jump": 3 * self.n_atoms, "fill": 3 * self.n_atoms}

    def fill(self, start: Tensor, end: Tensor, noise: Tensor) -> Tensor:
        """(b, 2, n, 3)."""
        shares = torch.tensor([1.0 / 3.0, 2.0 / 3.0]).view(1, 2, 1, 1)
        straight = start.unsqueeze(1) + shares * (end - start).unsqueeze(1)
        return straight + 0.001 * noise.view(-1, 1, self.n_atoms, 3)


def written(path):
    return export_bundle(
        Straight(len(ATOMS), 0.001),
        path,
        family="Toy",
        atoms=describe_atoms(TOPOLOGY, ATOMS),
        masses=[list(TOPOLOGY.atoms())[atom].element.mass._value for atom in ATOMS],
        lag_time=LAG_TIME,
        config={"fine_time": FINE_TIME},
        training={},
        reference_positions=POSITIONS[ATOMS],
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return LatentModel(written(tmp_path_factory.mktemp("straight") / "straight.latent.pt"))


def make(model, jumpInterval=10, seed=5, **arguments):
    integrator = model.createIntegrator(TOPOLOGY, toys.langevin(), jumpInterval=jumpInterval, seed=seed, **arguments)
    platform = Platform.getPlatformByName("Reference")
    simulation = app.Simulation(TOPOLOGY, toys.adp_system(TOPOLOGY), integrator, platform)
    simulation.context.setPositions(POSITIONS)
    simulation.context.setVelocitiesToTemperature(300, 7)
    return simulation


def positions_of(simulation):
    return simulation.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def read(path):
    """Return the frames and the table's rows."""
    with open(path.with_suffix(".csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    frames = mdtraj.load(str(path), top=str(path.with_suffix(".pdb")))
    assert [int(row["frame"]) for row in rows] == list(range(len(frames)))
    np.testing.assert_allclose(frames.time, [float(row["time_ps"]) for row in rows], atol=1e-4)
    return frames, rows


def test_each_accepted_jump_leaves_its_ends_and_what_lies_between(model, tmp_path):
    simulation, path = make(model), tmp_path / "run.filled.xtc"
    simulation.reporters.append(FilledTrajectoryReporter(path, model))
    ends = []
    for n_steps in (10, 1, 9, 1, 14):  # look at both ends of the first two jumps; the third is made on the way
        simulation.step(n_steps)
        ends.append(positions_of(simulation)[ATOMS])
    assert simulation.integrator.getNumAccepted() == simulation.integrator.getNumJumps() == 3
    frames, rows = read(path)
    assert [row["made_by"] for row in rows] == ["simulation", "model", "model", "simulation"] * 3
    assert [int(row["jump"]) for row in rows] == [1] * 4 + [2] * 4 + [3] * 4
    assert [int(row["step"]) for row in rows] == [10] * 4 + [20] * 4 + [30] * 4
    np.testing.assert_allclose(frames.xyz[[0, 3, 4, 7]], ends[:4], atol=1e-3)  # the format's precision
    middle = (2 * frames.xyz[[0, 4]] + frames.xyz[[3, 7]]) / 3
    assert 1e-4 < np.abs(frames.xyz[[1, 5]] - middle).max() < 0.008
    times = np.array([float(row["time_ps"]) for row in rows])
    np.testing.assert_allclose(times[:5], [0.02, 1.02, 2.02, 3.022, 3.04], atol=1e-6)
    assert (np.diff(times) > 0).all()
    assert [atom.name for atom in frames.topology.atoms] == [record.name for record in model.manifest.atoms]


def test_refused_jumps_leave_nothing(model, tmp_path):
    simulation, path = make(model, thresholds={"maxForce": 0.0}), tmp_path / "run.filled.xtc"
    simulation.reporters.append(FilledTrajectoryReporter(path, model))
    simulation.step(35)
    assert simulation.integrator.getRefusals()["force"] == 3
    assert not path.exists()
    assert path.with_suffix(".csv").read_text() == "frame,time_ps,jump,step,made_by\n"


def test_it_changes_nothing_of_the_run(model, tmp_path):
    plain, watched = make(model), make(model)
    watched.reporters.append(FilledTrajectoryReporter(tmp_path / "run.filled.xtc", model))
    for simulation in (plain, watched):
        simulation.integrator.getIntegrator(0).setRandomNumberSeed(3)
        simulation.context.reinitialize()
        simulation.context.setPositions(POSITIONS)
        simulation.step(32)
    assert np.array_equal(positions_of(plain), positions_of(watched))


def test_a_restart_appends_what_the_whole_run_would_have_written(model, tmp_path):
    """The checkpoint is made where a jump is due: the new reporter must see the frame that it leaves."""
    whole, cut = tmp_path / "whole.filled.xtc", tmp_path / "cut.filled.xtc"
    first = make(model)
    first.reporters += [FilledTrajectoryReporter(path, model) for path in (whole, cut)]
    first.step(20)
    checkpoint = first.context.createCheckpoint()
    del first.reporters[1]
    first.step(15)
    second = make(model)
    second.context.loadCheckpoint(checkpoint)
    second.currentStep = 20
    second.reporters.append(FilledTrajectoryReporter(cut, model, append=True))
    second.step(15)
    (frames, rows), (again, others) = read(whole), read(cut)
    assert rows == others
    np.testing.assert_allclose(frames.xyz, again.xyz, atol=2e-3)
    FilledTrajectoryReporter(cut, model)  # without append the files begin anew
    assert not cut.exists()


def test_jumps_of_each_step_and_of_walkers_are_filled(model, tmp_path):
    simulation, path = make(model, jumpInterval=1), tmp_path / "each.filled.xtc"
    simulation.reporters.append(FilledTrajectoryReporter(path, model))
    simulation.step(4)
    frames, rows = read(path)
    assert [int(row["jump"]) for row in rows[::4]] == [1, 2, 3]
    np.testing.assert_allclose(frames.xyz[3], frames.xyz[4], atol=1e-6)  # the end of one is the start of the next
    walkers = [make(model, seed=seed) for seed in (5, 6)]
    paths = [tmp_path / f"{seed}.filled.xtc" for seed in (5, 6)]
    for walker, path in zip(walkers, paths, strict=True):
        walker.reporters.append(FilledTrajectoryReporter(path, model))
    Walkers(walkers).step(25)
    for path in paths:
        frames, rows = read(path)
        assert [int(row["step"]) for row in rows[::4]] == [10, 20]
        assert 1e-3 < np.abs(frames.xyz[3] - frames.xyz[0]).max() < 0.02


def test_a_jump_by_hand_away_from_its_time_is_not_filled(model, tmp_path):
    simulation, path = make(model), tmp_path / "run.filled.xtc"
    simulation.reporters.append(FilledTrajectoryReporter(path, model))
    simulation.step(5)
    assert simulation.integrator.jump()
    simulation.step(10)
    assert [int(row["jump"]) for row in read(path)[1][::4]] == [2]


def test_what_it_cannot_do_is_told(model, tmp_path):
    with pytest.raises(LatentError, match=r"file must end in .xtc, got 'run.dcd'"):
        FilledTrajectoryReporter(tmp_path / "run.dcd", model)
    other = LatentModel(toys.export_toy(toys.Identity(10), tmp_path / "identity.latent.pt", TOPOLOGY, POSITIONS))
    with pytest.raises(LatentError, match=r"'identity.latent.pt' of family toy cannot fill the frames between two"):
        FilledTrajectoryReporter(tmp_path / "run.filled.xtc", other)
    simulation = make(other)
    simulation.reporters.append(FilledTrajectoryReporter(tmp_path / "run.filled.xtc", model))
    with pytest.raises(LatentError, match=r"whose only model is 'straight.latent.pt', got identity.latent.pt"):
        simulation.step(1)


def test_a_hybrid_run_writes_it_beside_its_trajectory_and_goes_on(model, tmp_path):
    path = written(tmp_path / "straight.latent.pt")
    config = HybridConfig(temperature=300.0, duration=0.12, jump_interval=10, is_filled=True, solvent="vacuum")
    HybridRun(path, toys.ADP_PDB, tmp_path / "whole", config, "Reference").run()
    HybridRun(path, toys.ADP_PDB, tmp_path / "cut", replace(config, duration=0.06), "Reference").run()
    HybridRun(path, toys.ADP_PDB, tmp_path / "cut", config, "Reference").run()
    (frames, rows), (again, others) = (read(tmp_path / name / "adp.filled.xtc") for name in ("whole", "cut"))
    assert rows == others
    assert len(rows) == 5 * 4
    np.testing.assert_allclose(frames.xyz, again.xyz, atol=2e-3)
    n_physical = len(mdtraj.load(str(tmp_path / "whole" / "adp.xtc"), top=str(toys.ADP_PDB)))
    assert n_physical == 6
