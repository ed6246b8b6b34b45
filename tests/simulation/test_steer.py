"""Driven jumps in whole systems: steering in vacuum and in water, and restarts and refusals of the exact mode."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import openmm as mm
import pytest
import torch
from openmm import app, unit
from torch import Tensor

import known_density as kd
import toys
from openmm_latent import LatentError, LatentIntegrator, LatentModel
from openmm_latent.geometry import dihedrals, torsion_quadruples
from openmm_latent.model import LatentModule
from platforms import PLATFORMS, get_platform

HEAVY = 10
PSI = [6, 8, 14, 16]  # N CA C N of the whole molecule


class Turner(toys.Torsions):
    """Leads psi on by a fixed angle and some noise, and proposes the same."""

    def __init__(self, n_atoms: int, quadruples: np.ndarray, angle: float = 0.8) -> None:
        super().__init__(n_atoms, quadruples)
        self.n_propagate_noise, self.n_propose_noise, self.angle = 1, 1, angle
        self.register_buffer("proposal_weights", torch.ones(1))

    def proposal_names(self) -> List[str]:  # noqa: UP006
        return ["turn"]

    def propose(self, slow: Tensor, noise: Tensor) -> Tensor:
        """Turn on, in (-pi, pi]."""
        turned = slow + self.angle + 0.3 * noise
        return torch.atan2(torch.sin(turned), torch.cos(turned))

    def log_density(self, to: Tensor, start: Tensor) -> Tensor:
        """Wrapped normal, (b,)."""
        images = to - start - self.angle + 6.283185307179586 * torch.arange(-3, 4, device=to.device, dtype=to.dtype)
        return torch.logsumexp(-0.5 * (images / 0.3).square(), dim=1)

    def propagate(self, latent: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        return self.propose(latent, noise), state


class TurnAtoms(LatentModule):
    """Has no latent: turns the heavy atoms behind psi's axis by 0.7, and the whole molecule by a right angle."""

    def __init__(self, n_atoms: int) -> None:
        super().__init__()
        self.n_atoms, self.n_latent, self.n_slow = n_atoms, 0, 0
        self.n_propagate_noise, self.n_decode_noise = 0, 0

    def initial_state(self, positions: Tensor) -> List[Tensor]:  # noqa: UP006
        state: List[Tensor] = []  # noqa: UP006
        return state

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        # Heavy atoms 4 and 6 are CA and C; O, N and CH3 come behind. Rodrigues' formula.
        start, axis = positions[:, 6:7], positions[:, 6:7] - positions[:, 4:5]
        axis = (axis / axis.square().sum(2, keepdim=True).sqrt()).expand(-1, 3, -1)
        arm = positions[:, 7:] - start
        across, along = torch.cross(axis, arm, dim=2), axis * (axis * arm).sum(2, keepdim=True)
        turned = start + along + 0.764842187 * (arm - along) + 0.644217687 * across  # cos and sin of 0.7
        moved = torch.cat([positions[:, :7], turned], dim=1)
        return torch.stack([1.0 - moved[:, :, 1], moved[:, :, 0], moved[:, :, 2]], dim=2), state


@pytest.fixture(scope="module")
def psi_quadruple(adp):
    atoms = toys.describe_atoms(adp[0], toys.heavy_atoms(adp[0]))
    return torsion_quadruples(atoms, "psi")


@pytest.fixture
def turner(model_of, psi_quadruple):
    return model_of(Turner(HEAVY, psi_quadruple))


def simulate(model, topology, system, positions, platform="Reference", relaxation=None, **arguments):
    """Add the restraint, wrap the relaxation and make a Simulation at 300 K."""
    if arguments.get("mode") == "exact" or arguments.get("realisation") == "steer":
        model.addRestraint(system, topology)
    arguments = {"jumpInterval": 10, "seed": 5, "drivenSteps": 300, "sigma": 0.1} | arguments
    integrator = model.createIntegrator(topology, relaxation or toys.langevin(), **arguments)
    simulation = app.Simulation(topology, system, integrator, *get_platform(platform))
    simulation.context.setPositions(positions)
    simulation.context.setVelocitiesToTemperature(300, 7)
    return simulation


def steered(model, adp, **arguments):
    topology, positions = adp
    arguments = {"realisation": "steer", "thresholds": {"maxWork": 1e4}} | arguments
    return simulate(model, topology, toys.adp_system(topology), positions, **arguments)


def everything(context):
    """All that a refused jump must put back, as one dict."""
    state = context.getState(positions=True, velocities=True, parameters=True)
    return {
        "positions": state.getPositions(asNumpy=True)._value.tolist(),
        "velocities": state.getVelocities(asNumpy=True)._value.tolist(),
        "box": state.getPeriodicBoxVectors(asNumpy=True)._value.tolist(),
        "parameters": dict(state.getParameters()),
        "time": context.getTime()._value,
        "steps": context.getStepCount(),
    }


def wrapped(angle):
    return (np.asarray(angle) + np.pi) % (2 * np.pi) - np.pi


# ---- steering --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", PLATFORMS)
def test_steering_reaches_the_proposed_coordinates(turner, adp, platform):
    """Sigma is 0.1: ten drives end 0.1 from their targets, root mean square, if the drive is slow; 0.25 is asked."""
    simulation = steered(turner, adp, platform=platform)
    simulation.integrator.step(101)
    records = list(simulation.integrator.getJumpRecords(0))
    assert len(records) == 10
    assert all(record.accepted and record.isSteered for record in records)
    misses = wrapped([record.reached[0] - record.to[0] for record in records])
    moves = wrapped([record.to[0] - record.start[0] for record in records])
    assert np.sqrt((moves**2).mean()) > 0.5
    assert np.sqrt((misses**2).mean()) < 0.25
    assert simulation.context.getParameter("latentRestraint_k") == 0


def test_what_a_record_says_was_reached_is_where_the_frame_is(turner, adp):
    simulation = steered(turner, adp)
    assert simulation.integrator.jump()
    (record,) = simulation.integrator.getJumpRecords(0)
    positions = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
    psi = dihedrals(positions[None], np.array([PSI]))[0, 0]
    assert abs(wrapped(psi - record.reached[0])) < 1e-4


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_family_without_a_latent_steers_its_superposed_atoms(model_of, adp, platform):
    """The target is turned as a whole, too, which superposition takes out: else the work would be some 5e5 kJ/mol."""
    # Blocks of 5 steps of 2 fs, half the period of the C=O bonds, would resonate with them under so stiff a restraint.
    simulation = steered(model_of(TurnAtoms(HEAVY)), adp, platform=platform, sigma=0.005, stepsPerPerturbation=2)
    turns = []
    for _ in range(6):
        simulation.integrator.step(1)
        before = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
        assert simulation.integrator.jump()
        after = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
        turns.append(np.diff(dihedrals(np.stack([before, after]), np.array([PSI]))[:, 0])[0])
    assert abs(wrapped(turns).mean() - 0.7) < 0.15
    assert max(record.work for record in simulation.integrator.getJumpRecords(0)) < 100


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("family", ["latent", "none"])
def test_a_refused_steered_jump_puts_everything_back(turner, model_of, adp, platform, family):
    model = turner if family == "latent" else model_of(TurnAtoms(HEAVY))
    sigma = 0.1 if family == "latent" else 0.005
    simulation = steered(model, adp, platform=platform, sigma=sigma, drivenSteps=20, thresholds={"maxWork": 0.0})
    simulation.integrator.step(5)
    before = everything(simulation.context)
    assert not simulation.integrator.jump()  # such haste does work
    assert simulation.integrator.getRefusals()["work"] == 1
    assert everything(simulation.context) == before


def test_a_refused_exact_jump_puts_all_but_the_velocities_back(turner, adp):
    simulation = steered(turner, adp, mode="exact", drivenSteps=10)
    simulation.integrator.step(5)
    before = everything(simulation.context)
    while simulation.integrator.jump():
        before = everything(simulation.context)
    after = everything(simulation.context)
    assert before.pop("velocities") != after.pop("velocities")
    assert after == before


@pytest.mark.parametrize("mode", ["guarded", "exact"])
def test_a_drive_that_blows_up_is_refused_as_nan(turner, adp, mode):
    simulation = steered(turner, adp, mode=mode, drivingStepSize=0.02, sigma=0.01, drivenSteps=50)
    simulation.integrator.step(5)
    before = everything(simulation.context)
    assert not simulation.integrator.jump()
    assert simulation.integrator.getRefusals()["nan"] == 1
    assert everything(simulation.context)["positions"] == before["positions"]


@pytest.fixture(scope="module", params=["tip3p", "tip4pew"])
def water_box(request, adp):
    """Alanine dipeptide and 0.3 M of salt in 1.8 nm of water, minimised: topology, positions [nm], System as XML."""
    random.seed(1)  # addSolvent draws which waters become ions; some draws leave a start too strained for Verlet
    modeller = app.Modeller(adp[0], adp[1] * unit.nanometer)
    forcefield = app.ForceField("amber14-all.xml", f"amber14/{request.param}.xml")
    if request.param == "tip4pew":
        modeller.addExtraParticles(forcefield)
    modeller.addSolvent(
        forcefield, request.param, boxSize=mm.Vec3(1.8, 1.8, 1.8) * unit.nanometer, ionicStrength=0.3 * unit.molar
    )
    system = forcefield.createSystem(
        modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.75 * unit.nanometer, constraints=app.HBonds
    )
    context = mm.Context(system, mm.VerletIntegrator(0.001), *get_platform("CPU"))
    context.setPositions(modeller.positions)
    context.computeVirtualSites()
    mm.LocalEnergyMinimizer.minimize(context, 100, 50)
    minimised = context.getState(positions=True).getPositions(asNumpy=True)._value
    assert sum(residue.name in ("NA", "CL") for residue in modeller.topology.residues()) >= 2
    return modeller.topology, minimised, mm.XmlSerializer.serialize(system)


def constraint_errors(system, positions):
    errors = []
    for i in range(system.getNumConstraints()):
        a, b, length = system.getConstraintParameters(i)
        errors.append(np.linalg.norm(positions[a] - positions[b]) / length._value - 1)
    return np.abs(errors)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_steering_runs_in_a_water_box_with_ions_and_a_barostat(water_box, turner, platform):
    topology, positions, xml = water_box
    system = mm.XmlSerializer.deserialize(xml)
    system.addForce(mm.MonteCarloBarostat(1.0, 300.0, 2))
    is_slow = platform == "Reference"
    simulation = simulate(
        turner, topology, system, positions, platform, realisation="steer", thresholds={"maxWork": 1e4},
        drivenSteps=10 if is_slow else 100, jumpInterval=4, drivingStepSize=0.001,
    )  # fmt: skip
    simulation.integrator.step(13)  # three jumps
    assert simulation.integrator.getNumJumps() == 3
    assert simulation.integrator.getNumAccepted() == 3, simulation.integrator.getRefusals()
    state = simulation.context.getState(positions=True, energy=True)
    after = state.getPositions(asNumpy=True)._value
    assert constraint_errors(system, after).max() < 1e-4
    assert np.isfinite(state.getPotentialEnergy()._value)
    before = after.copy()
    simulation.context.computeVirtualSites()  # they were in their places
    after = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
    assert np.abs(after - before).max() < 1e-5


def test_virtual_sites_follow_their_atoms_in_every_small_step_of_a_drive(water_box, turner):
    """Without friction and with next to no pull a drive is velocity Verlet, whatever its blocks.

    Sites that stay behind for the length of a block would give other forces, and another energy at its end.
    """
    topology, positions, xml = water_box
    works = []
    for block in (1, 10):
        simulation = simulate(
            turner, topology, mm.XmlSerializer.deserialize(xml), positions, "CPU", realisation="steer",
            drivenSteps=40, stepsPerPerturbation=block, drivingStepSize=0.001, drivingFriction=0.0, sigma=1e4,
        )  # fmt: skip
        simulation.integrator.jump()
        works.append(simulation.integrator.getJumpRecords(0)[0].work)
    assert abs(works[0]) < 20  # kJ/mol, in 3 MJ/mol: Verlet's own error at 1 fs
    assert abs(works[1] - works[0]) < 0.1


def test_decoding_in_water_is_refused_and_steering_recommended(water_box, turner):
    with pytest.raises(LatentError, match=r"realisation='steer' and call model.addRestraint"):
        turner.createIntegrator(water_box[0], toys.langevin())


# ---- work ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [kd.SMALL, kd.LARGE], ids=["small steps", "large steps"])
def test_the_work_of_a_cycle_obeys_crooks(tmp_path, setting):
    """Drives that end where they began, from equilibrium: P(-W) = P(W) exp(-W/kT), whatever the step size.

    So P(W < 0) is the mean of exp(-W/kT) over W > 0. Jarzynski's <exp(-W/kT)> = 1 follows from the same, but at large
    steps its mean lives on a few drives in ten thousand: 0.88 +- 0.04 in 10 000 of them, where this is right to 0.006.
    Four standard errors (blocks of 50 jumps): one false alarm in 16 000.
    """
    target = kd.DOUBLE_WELL
    path = kd.export(target, tmp_path / "stay.latent.pt", kd.Stay(2, 1))
    simulation = kd.make_simulation(target, path, setting, seed=2)
    chain = kd.run(simulation, 3001, setting.relax_steps, n_dropped=0)  # the first relaxation comes before a jump
    work = chain.work / kd.KT
    balance = np.where(work > 0, np.exp(-np.abs(work)), -1.0).reshape(-1, 50).mean(axis=1)
    assert work.std() > 0.04
    assert abs(balance.mean()) < 4 * balance.std() / np.sqrt(len(balance))


# ---- restarts --------------------------------------------------------------------------------------------------------


def exact_run(path, adp):
    """A Simulation in exact mode of a bundle of `Turner`; the restraint comes from the bundle, too."""
    return steered(LatentModel(path), adp, mode="exact", drivenSteps=20, stepsPerPerturbation=4, jumpInterval=7)


@pytest.fixture
def turner_file(tmp_path, adp, psi_quadruple):
    return toys.export_toy(Turner(HEAVY, psi_quadruple, angle=0.1), tmp_path / "turner.latent.pt", *adp)


def test_an_exact_run_continues_bitwise_in_a_new_process(turner_file, adp, tmp_path):
    simulation = exact_run(turner_file, adp)
    simulation.integrator.setDriving(drivenSteps=12, sigma=0.15)  # tuned since
    simulation.step(45)
    assert 0 < simulation.integrator.getNumAccepted() < simulation.integrator.getNumJumps()
    checkpoint = tmp_path / "run.chk"
    checkpoint.write_bytes(simulation.context.createCheckpoint())
    code = (
        "import json, sys; sys.path[:0] = sys.argv[1:3]\n"
        "import toys, test_steer as t\n"
        "from pathlib import Path\n"
        "simulation = t.exact_run(sys.argv[3], toys.load_adp())\n"
        "simulation.context.loadCheckpoint(Path(sys.argv[4]).read_bytes())\n"
        "simulation.step(60)\n"
        "print(json.dumps([t.everything(simulation.context), simulation.integrator.getRefusals(),\n"
        "                  simulation.integrator.getDriving()]))\n"
    )
    here = Path(__file__).parent
    command = [sys.executable, "-c", code, *map(str, [here, here.parent, turner_file, checkpoint])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    simulation.step(60)
    state, refusals, driving = json.loads(done.stdout.splitlines()[-1])
    assert state == everything(simulation.context)
    assert refusals == simulation.integrator.getRefusals()
    assert driving == simulation.integrator.getDriving()
    assert driving["drivenSteps"] == 12


def test_a_state_xml_brings_tally_phase_and_driving(turner_file, adp, tmp_path):
    first = exact_run(turner_file, adp)
    first.integrator.setDriving(sigma=0.15)
    first.step(24)
    first.saveState(str(tmp_path / "state.xml"))
    second = exact_run(turner_file, adp)
    second.loadState(str(tmp_path / "state.xml"))
    assert second.integrator.getDriving() == first.integrator.getDriving()
    assert second.integrator.getRefusals() == first.integrator.getRefusals()
    assert everything(second.context) == everything(first.context)
    second.step(5)  # 24 = 3 * 7 + 3: the next jump comes after four more steps
    assert second.integrator.getNumJumps() == 4


def test_xml_keeps_mode_realisation_and_driving(turner, adp):
    integrator = turner.createIntegrator(
        adp[0], toys.langevin(), mode="exact", drivenSteps=60, stepsPerPerturbation=6, sigma=0.3,
        drivingStepSize=1 * unit.femtosecond, drivingFriction=5 / unit.picosecond, proposal={"turn": 2.0},
        drivenStepsPerDistance=20, leastDrivenDistance=0.5,
    )  # fmt: skip
    copied = LatentIntegrator._adopt(mm.XmlSerializer.deserialize(mm.XmlSerializer.serialize(integrator)))
    assert copied.getMode() == LatentIntegrator.Exact
    assert copied.getRealisation() == LatentIntegrator.Steer
    assert copied.getDriving() == {
        "drivenSteps": 60, "stepsPerPerturbation": 6, "sigma": 0.3, "drivingStepSize": 0.001, "drivingFriction": 5.0,
        "drivenStepsPerDistance": 20.0, "leastDrivenDistance": 0.5,
    }  # fmt: skip
    assert mm.XmlSerializer.serialize(copied) == mm.XmlSerializer.serialize(integrator)


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"mode": "exact", "velocities": "keep"}, "velocities must be 'redraw' in exact mode, got 'keep'"),
        ({"mode": "exact", "realisation": "decode"}, "realisation must be 'steer' .* in exact mode, got 'decode'"),
        ({"realisation": "drag"}, "realisation must be one of .* got 'drag'"),
        ({"drivenSteps": 3, "stepsPerPerturbation": 5}, "stepsPerPerturbation must not exceed drivenSteps=3, got 5"),
        ({"drivenSteps": 0}, "drivenSteps must be a whole number of MD steps, at least 1, got 0"),
        ({"sigma": 0.0}, "sigma must be a positive width"),
        ({"drivingStepSize": -0.1}, "drivingStepSize must be a positive time"),
        ({"drivingFriction": -1.0}, "drivingFriction must be zero or more"),
        ({"drivenStepsPerDistance": -1.0}, "drivenStepsPerDistance must be zero or more MD steps for each unit of way"),
        ({"mode": "exact", "leastDrivenDistance": -1.0}, "leastDrivenDistance must be zero or a distance"),
        ({"realisation": "steer", "leastDrivenDistance": 0.5}, "leastDrivenDistance is for mode 'exact', got 0.5"),
        ({"mode": "exact", "proposal": {"leap": 1.0}}, "proposal names the kernel 'leap', but bundle .* has turn"),
        ({"mode": "exact", "proposal": {"turn": -1.0}}, "the weight of 'turn' must be a number, zero or positive"),
        ({"mode": "exact", "proposal": {"turn": 0.0}}, "proposal must give one kernel a positive weight"),
    ],
)
def test_what_create_integrator_refuses(turner, adp, arguments, sentence):
    with pytest.raises(LatentError, match=sentence):
        turner.createIntegrator(adp[0], toys.langevin(), **arguments)


@pytest.mark.parametrize("toy", ["without propose", "without a latent"])
def test_exact_is_refused_for_models_that_cannot_propose(model_of, adp, psi_quadruple, toy):
    model = model_of(toys.Torsions(HEAVY, psi_quadruple) if toy == "without propose" else TurnAtoms(HEAVY))
    with pytest.raises(LatentError, match=r"mode 'exact' needs a model with propose and log_density .* lacks"):
        model.createIntegrator(adp[0], toys.langevin(), mode="exact")


@pytest.mark.parametrize("arguments", [{"mode": "exact"}, {"realisation": "steer"}])
def test_a_system_without_the_restraint_is_refused(turner, adp, arguments):
    integrator = turner.createIntegrator(adp[0], toys.langevin(), **arguments)
    with pytest.raises(mm.OpenMMException, match=r"needs the restraint of bundle .* call model.addRestraint"):
        mm.Context(toys.adp_system(adp[0]), integrator, *get_platform("Reference"))


def test_a_restraint_of_another_model_is_not_taken_for_it(turner, model_of, adp):
    topology, _ = adp
    system = toys.adp_system(topology)
    model_of(toys.Identity(HEAVY)).addRestraint(system, topology)
    integrator = turner.createIntegrator(topology, toys.langevin(), mode="exact")
    with pytest.raises(mm.OpenMMException, match=r"needs the restraint of bundle 'Turner\.latent\.pt'"):
        mm.Context(system, integrator, *get_platform("Reference"))


def test_a_force_in_the_restraints_group_is_refused(turner, adp):
    topology, _ = adp
    system = toys.adp_system(topology)
    restraint = turner.addRestraint(system, topology)
    system.getForce(0).setForceGroup(restraint.getForceGroup())
    integrator = turner.createIntegrator(topology, toys.langevin(), mode="exact")
    with pytest.raises(mm.OpenMMException, match="shares force group 31 with the latent restraint"):
        mm.Context(system, integrator, *get_platform("Reference"))


def test_a_restraint_that_is_on_between_exact_jumps_is_refused(turner, adp):
    simulation = steered(turner, adp, mode="exact", drivenSteps=10)
    simulation.context.setParameter("latentRestraint_k", 5.0)
    with pytest.raises(mm.OpenMMException, match="parameter 'latentRestraint_k' must be 0 between jumps"):
        simulation.integrator.jump()


def test_driving_cannot_be_chosen_too_late(turner, adp):
    topology, positions = adp
    simulation = simulate(turner, topology, toys.adp_system(topology), positions)
    with pytest.raises(mm.OpenMMException, match="exact mode must be chosen before the Context"):
        simulation.integrator.setMode(LatentIntegrator.Exact)
    with pytest.raises(mm.OpenMMException, match="steering must be chosen before the Context"):
        simulation.integrator.setRealisation(LatentIntegrator.Steer)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sigma": -1.0}, "sigma must be positive"),
        ({"drivenSteps": 2, "stepsPerPerturbation": 5}, "driven steps and steps per perturbation must be at least 1"),
        ({"drivenStepsPerDistance": -1.0}, "driven steps per distance must not be negative"),
        ({"leastDrivenDistance": -1.0}, "least driven distance must not be negative"),
        ({"width": 1.0}, "setDriving: width is unknown; choose of drivenSteps"),
    ],
)
def test_what_set_driving_refuses(turner, adp, changes, sentence):
    integrator = turner.createIntegrator(adp[0], toys.langevin(), mode="exact")
    with pytest.raises(mm.OpenMMException, match=sentence):
        integrator.setDriving(**changes)
    assert integrator.getDriving()["sigma"] == 0.15


def test_steps_are_rounded_down_to_whole_blocks(turner, adp):
    integrator = turner.createIntegrator(adp[0], toys.langevin(), mode="exact", drivenSteps=23, stepsPerPerturbation=5)
    assert integrator.getDriving()["drivenSteps"] == 20


def test_longer_ways_take_more_steps_in_whole_blocks(turner, adp):
    simulation = steered(
        turner, adp, mode="exact", drivenSteps=10, stepsPerPerturbation=5, drivenStepsPerDistance=20, jumpInterval=1
    )
    simulation.step(13)
    records = list(simulation.integrator.getJumpRecords(0))
    ways = np.array([[b - a for a, b in zip(record._from, record.to, strict=True)] for record in records])
    ways -= 2 * np.pi * np.round(ways / (2 * np.pi))
    expected = 10 + 5 * np.floor(20 * np.linalg.norm(ways, axis=1) / 5)
    assert [record.drivenSteps for record in records] == expected.tolist()
    assert len(set(expected)) > 3
    assert simulation.integrator.getDriving()["drivenSteps"] == 10
