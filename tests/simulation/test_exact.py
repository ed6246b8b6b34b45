"""The exact mode against densities known in closed form, with proposal networks that are wrong on purpose.

Every Kolmogorov-Smirnov test joins five seeds, counts correlated frames as their effective size and has a level of 1 in
1000; there are twenty-one p-values here, so one false alarm in 47 choices of seeds. The seeds are fixed.
"""

from dataclasses import replace

import numpy as np
import openmm as mm
import pytest
from openmm import app
from scipy import stats

import known_density as kd
import toys
from openmm_latent import LatentModel, LatentReporter
from openmm_latent.report.tables import read_jumps

CASES = {
    "double well, small steps": (kd.DOUBLE_WELL, kd.SMALL),
    "double well, large steps": (kd.DOUBLE_WELL, kd.LARGE),
    "double well, narrow": (kd.DOUBLE_WELL, kd.Setting(steps=24, block=1, sigma=0.1, step_size=0.01, n_jumps=800)),
    "double well, wide and in few blocks": (kd.DOUBLE_WELL, kd.Setting(steps=40, block=10, sigma=0.4, n_jumps=1200)),
    "double well, longer ways in more steps": (kd.DOUBLE_WELL, kd.PACED),
    "an angle, longer ways in more steps": (kd.RING, kd.PACED),
    "double well, near ways left to MD": (kd.DOUBLE_WELL, kd.FAR),
    "double well, all ways within a well left to MD": (kd.DOUBLE_WELL, kd.FARTHER),
    "an angle, near ways left to MD": (kd.RING, kd.FAR),
    "harmonic, steps at the edge of stability": (kd.HARMONIC, replace(kd.HUGE, n_jumps=1500)),
    "harmonic, hardly any friction": (kd.HARMONIC, replace(kd.BALLISTIC, n_jumps=1500)),
    "two coupled coordinates, small steps": (kd.COUPLED, kd.SMALL),
    "two coupled coordinates, large steps": (kd.COUPLED, kd.LARGE),
    "an angle, small steps": (kd.RING, replace(kd.SMALL, steps=30)),
    "an angle, large steps": (kd.RING, kd.LARGE),
    "a constrained rod, small steps": (kd.ROD, replace(kd.SMALL, n_jumps=500)),
    "a constrained rod, large steps": (kd.ROD, replace(kd.LARGE, n_jumps=700)),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Return a function that gives the bundle of a target, or of another module for it."""
    folder, made = tmp_path_factory.mktemp("bundles"), {}

    def give(target, module=None):
        key = (id(target), type(module).__name__)
        if key not in made:
            made[key] = kd.export(target, folder / f"{len(made)}.latent.pt", module)
        return made[key]

    return give


@pytest.mark.parametrize("case", CASES)
def test_samples_have_the_known_density(bundle, case):
    target, setting = CASES[case]
    chains = kd.sample_seeds(target, bundle(target), setting)
    assert min(chain.acceptance for chain in chains) > (0.02 if setting.least_distance == 0 else 0.005)
    found = kd.pvalues(target, chains)
    assert min(found.values()) > kd.LEVEL, found


@pytest.mark.parametrize("target", [kd.DOUBLE_WELL, kd.COUPLED, kd.RING], ids=["double well", "coupled", "angle"])
def test_the_same_network_without_a_test_of_its_jumps_fails(bundle, target):
    chains = kd.sample_seeds(target, bundle(target), replace(kd.SMALL, n_jumps=300), "exploratory")
    found = kd.pvalues(target, chains)
    assert max(found.values()) < kd.DECISIVE, found


@pytest.mark.parametrize(
    ("target", "setting", "range_of_acceptance"),
    [(kd.DOUBLE_WELL, kd.SMALL, (0.75, 1.0)), (kd.DOUBLE_WELL, kd.LARGE, (0.4, 0.65))],
    ids=["small steps", "large steps"],
)
def test_what_the_step_size_alone_refuses(bundle, target, setting, range_of_acceptance):
    path = bundle(target, kd.Stay(2, 1))
    chain = kd.sample(target, path, replace(setting, n_jumps=400), seed=1)
    assert range_of_acceptance[0] < chain.acceptance < range_of_acceptance[1]


def test_a_walk_whose_every_proposal_is_too_near_is_plain_md(bundle, tmp_path):
    """To the bit: a proposal that is not driven to leaves velocities alone as well."""
    setting = replace(kd.FAR, least_distance=1e6)
    states = []
    # one after the other: the Reference platform has one generator of random numbers, seeded with each new Context
    for interval in (10**6, setting.relax_steps):
        simulation = kd.make_simulation(
            kd.DOUBLE_WELL, bundle(kd.DOUBLE_WELL), replace(setting, relax_steps=interval), seed=3
        )
        simulation.reporters.append(LatentReporter(str(tmp_path / f"{interval}.csv"), setting.relax_steps))
        simulation.step(10 * setting.relax_steps)
        states.append(simulation.context.getState(positions=True, velocities=True))
    assert np.array_equal(*(state.getPositions(asNumpy=True)._value for state in states))
    assert np.array_equal(*(state.getVelocities(asNumpy=True)._value for state in states))
    assert simulation.integrator.getRefusals()["near"] == simulation.integrator.getNumJumps() == 9
    found = read_jumps([tmp_path / f"{setting.relax_steps}.csv"])
    assert (found["reasons"], len(found["work"]), found["mean_acceptance"]) == ({"near": 9}, 0, 0.0)


def test_relaxation_without_a_thermostat_gets_new_velocities_though_all_is_too_near(bundle):
    topology, system, positions = kd.make_system(kd.DOUBLE_WELL)
    model = LatentModel(bundle(kd.DOUBLE_WELL))
    model.addRestraint(system, topology)
    integrator = model.createIntegrator(
        topology, mm.VerletIntegrator(0.002), jumpInterval=5, mode="exact", temperature=300, leastDrivenDistance=1e6
    )
    simulation = app.Simulation(topology, system, integrator, mm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(positions)
    simulation.context.setVelocitiesToTemperature(300, 1)
    energies = []
    for _ in range(4):
        simulation.step(5)
        state = simulation.context.getState(energy=True)
        energies.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
    assert integrator.getRefusals()["near"] == integrator.getNumJumps() == 3
    assert np.ptp(energies) > 0.1


def test_a_drive_that_blows_up_is_refused(bundle):
    """Beyond the edge of stability energies reach 1e20 and more: their difference is rounding, of either sign."""
    setting = replace(kd.LARGE, steps=60, step_size=12 * kd.HUGE.step_size, n_jumps=60)
    chain = kd.sample(kd.HARMONIC, bundle(kd.HARMONIC), setting, seed=2)
    assert chain.acceptance == 0.0
    assert np.abs(chain.displacements).max() < 6.0


@pytest.mark.parametrize("independent", [0.1, 0.5, 1.0], ids=["correlated", "less so", "independent"])
def test_the_judge_passes_an_oracle(independent):
    """Chains of the true density and of the same make (a frame stays, or is new) may fail a 5 % test in 5 % of cases.

    False alarm of this test: 400 chains of a rate of 0.05 give more than 0.08 in less than 1 of 200 cases.
    """
    random, alarms = np.random.default_rng(7), 0
    for _ in range(400):
        runs = []
        for _seed in range(5):
            is_new = random.random(400) < independent
            values = random.standard_normal(400)
            latest = np.maximum.accumulate(np.where(is_new, np.arange(400), 0))
            runs.append(values[latest])
        alarms += kd.ks_pvalue(runs, stats.norm.cdf) < 0.05
    assert alarms / 400 < 0.08


@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_the_judge_sees_a_shift(shift):
    """A chain of 2500 frames that is worth 250 fails by a quarter of its standard deviation; false alarm: LEVEL."""
    random = np.random.default_rng(8)
    runs = [np.repeat(random.standard_normal(50) + shift, 10) for _ in range(5)]
    assert (kd.ks_pvalue(runs, stats.norm.cdf) < 1e-2) == (shift > 0)


def test_the_variance_of_stiff_modes_is_right_to_one_percent(bundle):
    """Modes that stand by while another is driven show whether velocities are drawn in step with the relaxation.

    288 modes of period 0.1 ps at steps of 1 fs. Their variance has a standard error below 0.25 % (asserted), and the
    step's own error is 0.1 %: a false alarm needs 3.6 standard errors.
    """
    n_moving = 97
    target = kd.stiff(1, n_moving)
    setting = kd.Setting(
        steps=10, block=2, sigma=0.05, step_size=0.002,
        relax_steps=15, relax_step_size=0.001, relax_friction=5.0, n_jumps=2000,
    )  # fmt: skip
    chain = kd.sample(target, bundle(target), setting, seed=1)
    assert 0.05 < chain.acceptance < 0.95
    ratios = (chain.displacements[:, 1:] ** 2).mean(axis=0).ravel() * kd.STIFFNESS / kd.KT  # (288,)
    error = ratios.std() / np.sqrt(len(ratios))
    assert error < 0.0025
    assert abs(ratios.mean() - 1) < 0.01


def total_energies(module, tmp_path, stiffness, steps=8000):
    """Run Verlet at 0.25 fs on alanine dipeptide with a restraint on; total energies every 40 steps [kJ/mol]."""
    topology, positions = toys.load_adp()
    system = toys.adp_system(topology, constraints=None)
    model = LatentModel(toys.export_toy(module, tmp_path / "nve.latent.pt", topology, positions))
    restraint = model.addRestraint(system, topology)
    simulation = app.Simulation(
        topology, system, mm.VerletIntegrator(0.00025), mm.Platform.getPlatformByName("Reference")
    )
    simulation.context.setPositions(positions)
    mm.LocalEnergyMinimizer.minimize(simulation.context, 10)
    start = np.array(restraint.getSlow(simulation.context))
    simulation.context.setVelocitiesToTemperature(300, 3)
    simulation.context.setParameter(restraint.getStiffnessParameter(), stiffness)
    simulation.context.setParameter(restraint.getTargetParameter(0), float(start[0]) + 0.02)
    energies = []
    for _ in range(steps // 40):
        simulation.step(40)
        state = simulation.context.getState(energy=True)
        energies.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
    return np.array(energies)


class Rebuilt(toys.Identity):
    """The radius of gyration with steps, as of a graph that is rebuilt per frame: autograd does not see them."""

    def slow(self, latent):
        return latent + 0.004 * (latent * 400).floor().remainder(2.0)


@pytest.mark.parametrize(("module", "is_conserved"), [(toys.Identity(10), True), (Rebuilt(10), False)])
def test_verlet_conserves_energy_under_the_restraint(tmp_path, module, is_conserved):
    """Over 2 ps the total energy keeps within 1 kJ/mol (0.4 kT of 66 degrees of freedom), drifting by less than 0.3."""
    energies = total_energies(module, tmp_path, stiffness=50000.0)
    drift = np.polyfit(np.linspace(0, 1, len(energies)), energies, 1)[0]
    assert (abs(drift) < 0.3 and np.ptp(energies) < 1.0) == is_conserved
