"""What the restraint force computes, on every platform, and what it costs."""

import copy

import numpy as np
import openmm as mm
import pytest
import torch
from openmm import app, unit

import toys
from openmm_latent import LatentModel
from openmm_latent.geometry import superpose
from platforms import PLATFORMS
from restraints import evaluate, pull, restrained

HEAVY = 10
ADP_BUNDLE = toys.ADP_PDB.with_name("adp.latent.pt")


def difference_quotient(context, force, positions, direction, step=1e-3):
    """Derivative of the restraint's energy along a direction, of fourth order in the step."""
    energies = {}
    for n in (-2, -1, 1, 2):
        context.setPositions(positions + n * step * direction)
        energies[n] = evaluate(context, force)[0]
    return (8 * (energies[1] - energies[-1]) - (energies[2] - energies[-2])) / (12 * step)


def assert_forces_are_the_gradient(context, force, positions, relative, seed=5):
    """Three random directions of the whole System, each against the difference quotient of the energy."""
    energy, forces = evaluate(context, force)
    assert energy > 1.0
    rng = np.random.default_rng(seed)
    for _ in range(3):
        direction = rng.normal(size=positions.shape)
        direction /= np.linalg.norm(direction)
        slope = difference_quotient(context, force, positions, direction)
        assert -(forces * direction).sum() == pytest.approx(slope, abs=relative * np.linalg.norm(forces))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_forces_of_torsions_are_the_gradient_of_the_energy(adp, quadruples, model_of, platform):
    topology, positions = adp
    module = toys.Torsions(HEAVY, quadruples)
    context, force = restrained(model_of(module), topology, platform, positions=positions)
    k, target = 80.0, [1.0, -2.0]
    pull(context, force, k, target)
    energy, forces = evaluate(context, force)
    assert_forces_are_the_gradient(context, force, positions, 2e-3)
    # The same in double precision, by autograd of the eager module.
    heavy = toys.heavy_atoms(topology)
    x = torch.tensor(positions[heavy][None], dtype=torch.float64, requires_grad=True)
    difference = torch.remainder(module.encode(x)[0] - torch.tensor(target) + np.pi, 2 * np.pi) - np.pi
    expected = 0.5 * k * (difference**2).sum()
    expected.backward()
    assert energy == pytest.approx(expected.item(), rel=2e-5)
    np.testing.assert_allclose(forces[heavy], -x.grad[0].numpy(), atol=1e-4 * np.abs(forces).max())
    hydrogens = np.setdiff1d(np.arange(len(positions)), heavy)
    np.testing.assert_array_equal(forces[hydrogens], 0.0)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_forces_of_a_trained_model_are_the_gradient_of_the_energy(adp, platform):
    topology, positions = adp
    context, force = restrained(LatentModel(ADP_BUNDLE), topology, platform, positions=positions)
    pull(context, force, 50.0, np.array(force.getSlow(context)) + 0.5)
    assert_forces_are_the_gradient(context, force, positions, 2e-2)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_superposed_structures_pull_all_atoms(adp, model_of, platform):
    topology, positions = adp
    context, force = restrained(model_of(toys.Shake(HEAVY, 0.0)), topology, platform, positions=positions)
    assert force.getNumSlow() == 0
    assert list(force.getSlow(context)) == []
    heavy = toys.heavy_atoms(topology)
    rng = np.random.default_rng(3)
    start = positions[heavy] + 0.02 * rng.normal(size=(HEAVY, 3))
    end = positions[heavy] + 0.02 * rng.normal(size=(HEAVY, 3))
    turned = end @ np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + [3.0, -1.0, 2.0]
    force.setPath(context, start, turned)
    pull(context, force, 1000.0, [])
    context.setParameter(force.getProgressParameter(), 0.3)
    # y on the straight way from start to end, which lies on start; then y on the frame.
    y = 0.7 * start + 0.3 * superpose(end, start)
    difference = positions[heavy] - superpose(y, positions[heavy])
    energy, forces = evaluate(context, force)
    single = platform.endswith("single")
    assert energy == pytest.approx(500.0 * (difference**2).sum(), rel=1e-4 if single else 1e-9)
    np.testing.assert_allclose(forces[heavy], -1000.0 * difference, atol=1e-3 if single else 1e-6)
    assert_forces_are_the_gradient(context, force, positions, 2e-3 if single else 1e-6)


def test_a_mirror_image_is_not_superposed(adp, model_of):
    """A proper rotation alone: an improper one would bring the image of a flat enough structure closer."""
    topology, positions = adp
    context, force = restrained(model_of(toys.Shake(HEAVY, 0.0)), topology, positions=positions)
    heavy = toys.heavy_atoms(topology)
    mirrored = positions[heavy] * [-1, 1, 1]
    force.setPath(context, mirrored, mirrored)
    pull(context, force, 1000.0, [])
    energy, _ = evaluate(context, force)
    assert energy > 1.0
    assert energy == pytest.approx(500.0 * ((positions[heavy] - superpose(mirrored, positions[heavy])) ** 2).sum())


@pytest.mark.parametrize("platform", PLATFORMS)
def test_periodic_coordinates_take_the_short_way_round(adp, quadruples, model_of, platform):
    topology, positions = adp
    context, force = restrained(model_of(toys.Torsions(HEAVY, quadruples)), topology, platform, positions=positions)
    slow = np.array(force.getSlow(context))
    for difference in (0.4, -0.4, 0.4 + 2 * np.pi, 0.4 - 4 * np.pi):
        pull(context, force, 100.0, slow - [difference, 0.0])
        energy, forces = evaluate(context, force)
        assert energy == pytest.approx(50.0 * 0.4**2, rel=1e-4)
        sign = np.sign(difference if abs(difference) < 1 else 0.4)
        pull(context, force, 100.0, slow - [0.01 * sign, 0.0])
        nearby = evaluate(context, force)[1]
        assert (forces * nearby).sum() > 0


def test_weights_free_a_coordinate(adp, quadruples, model_of):
    topology, positions = adp
    model = model_of(toys.Torsions(HEAVY, quadruples))
    context, force = restrained(model, topology, positions=positions)
    phi, psi = force.getSlow(context)
    pull(context, force, 80.0, [phi + 0.3, psi])
    energy, forces = evaluate(context, force)
    assert energy == pytest.approx(40.0 * 0.3**2, rel=1e-5)
    for weights, k in (([1.0, 0.0], 80.0), ([0.25, 0.0], 320.0)):
        system = toys.adp_system(topology, constraints=None)
        model.addRestraint(system, topology).setWeights(weights)
        weighted = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
        weighted.setPositions(positions)
        pull(weighted, force, k, [phi + 0.3, psi - 1.0])
        weighted_energy, weighted_forces = evaluate(weighted, force)
        assert weighted_energy == pytest.approx(energy, rel=1e-6)
        np.testing.assert_allclose(weighted_forces, forces, atol=1e-5 * np.abs(forces).max())


def test_energy_and_forces_are_invariant(adp, quadruples, model_of):
    """No net force, no net torque, and the same energy wherever and however the molecule lies."""
    topology, positions = adp
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    for model in (model_of(toys.Torsions(HEAVY, quadruples)), LatentModel(ADP_BUNDLE)):
        context, force = restrained(model, topology, positions=positions)
        pull(context, force, 100.0, np.array(force.getSlow(context)) + 0.3)
        energy, forces = evaluate(context, force)
        scale = np.abs(forces).max()
        np.testing.assert_allclose(forces.sum(0), 0.0, atol=1e-5 * scale)
        np.testing.assert_allclose(np.cross(positions, forces).sum(0), 0.0, atol=1e-5 * scale)
        context.setPositions(positions @ turn + [50.0, -20.0, 30.0])
        moved_energy, moved_forces = evaluate(context, force)
        assert moved_energy == pytest.approx(energy, rel=1e-4)
        np.testing.assert_allclose(moved_forces, forces @ turn, atol=1e-3 * scale)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_at_zero_stiffness_the_module_is_not_asked(adp, model_of, platform):
    topology, positions = adp
    context, force = restrained(model_of(toys.Forbidden(HEAVY)), topology, platform, positions=positions)
    context.getIntegrator().step(5)
    assert evaluate(context, force)[0] == 0.0
    assert context.getParameter(force.getStiffnessParameter()) == force.getDefaultStiffness() == 0.0
    context.setParameter(force.getStiffnessParameter(), 1.0)
    with pytest.raises(mm.OpenMMException, match=r"bundle 'Forbidden.latent.pt' failed in slow: the toy was asked"):
        context.getIntegrator().step(1)
    # Another force group does not ask it, either.
    context.getState(energy=True, forces=True, groups={0})


@pytest.mark.parametrize("platform", PLATFORMS)
def test_broken_images_do_not_matter(adp, quadruples, model_of, platform):
    topology, positions = adp
    box = np.array([[2.4, 0, 0], [0.5, 2.5, 0], [-0.4, 0.7, 2.6]])
    topology = copy.deepcopy(topology)
    topology.setPeriodicBoxVectors(box * unit.nanometer)
    system = app.ForceField("amber14-all.xml").createSystem(
        topology, nonbondedMethod=app.CutoffPeriodic, nonbondedCutoff=1.0 * unit.nanometer
    )
    system.setDefaultPeriodicBoxVectors(*box)
    context, force = restrained(model_of(toys.Torsions(HEAVY, quadruples)), topology, platform, system, positions)
    pull(context, force, 80.0, [1.0, -2.0])
    energy, forces = evaluate(context, force)
    broken = positions + np.random.default_rng(8).integers(-2, 3, size=(len(positions), 3)) @ box
    context.setPositions(broken)
    broken_energy, broken_forces = evaluate(context, force)
    assert broken_energy == pytest.approx(energy, rel=1e-4)
    np.testing.assert_allclose(broken_forces, forces, atol=1e-3 * np.abs(forces).max())


@pytest.fixture(scope="module")
def water_box(adp):
    """Alanine dipeptide in 2.3 nm of TIP3P: topology, positions [nm]."""
    modeller = app.Modeller(adp[0], adp[1] * unit.nanometer)
    forcefield = app.ForceField("amber14-all.xml", "amber14/tip3p.xml")
    modeller.addSolvent(forcefield, boxSize=mm.Vec3(2.3, 2.3, 2.3) * unit.nanometer)
    system = forcefield.createSystem(
        modeller.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.9 * unit.nanometer,
        constraints=app.HBonds,
    )
    return modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer)), system


@pytest.mark.parametrize("platform", PLATFORMS)
def test_in_a_water_box(adp, water_box, model_of, quadruples, platform):
    """Driven for some steps; then the forces are those of the Reference platform at the same positions."""
    topology, positions, system = water_box
    model = model_of(toys.Torsions(HEAVY, quadruples))
    context, force = restrained(model, topology, platform, copy.deepcopy(system), positions, toys.langevin())
    context.setVelocitiesToTemperature(300, 5)
    phi, psi = force.getSlow(context)
    pull(context, force, 100.0, [phi + 0.5, psi - 0.5])
    context.getIntegrator().setStepSize(0.0005)
    context.getIntegrator().step(3 if platform == "Reference" else 60)
    for wraps in (False, True):
        state = context.getState(positions=True, enforcePeriodicBox=wraps)
        after = state.getPositions(asNumpy=True)._value
        other, other_force = restrained(model, topology, "Reference", copy.deepcopy(system), after)
        pull(other, other_force, 100.0, [context.getParameter(force.getTargetParameter(i)) for i in range(2)])
        expected_energy, expected = evaluate(other, other_force)
        energy, forces = evaluate(context, force)
        assert energy == pytest.approx(expected_energy, rel=1e-3)
        np.testing.assert_allclose(forces, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("platform", PLATFORMS)
def test_forces_find_their_atoms_after_the_platform_reordered_them(tmp_path, platform):
    """GPU platforms sort equal molecules in space after 250 steps."""
    topology, system, positions = toys.chains_in_a_box()
    atoms = [3 * 217 + k for k in range(3)]
    path = toys.export_toy(toys.Identity(3), tmp_path / "identity.latent.pt", topology, positions, atoms)
    context, force = restrained(LatentModel(path), topology, platform, system, positions, integrator=toys.langevin())
    context.setVelocitiesToTemperature(300, 3)
    pull(context, force, 5000.0, [0.15])
    context.getIntegrator().step(600)
    x = context.getState(positions=True).getPositions(asNumpy=True)._value[atoms]
    x = x - x.mean(axis=0)
    radius = np.sqrt((x**2).sum(1).mean())
    energy, forces = evaluate(context, force)
    assert force.getSlow(context)[0] == pytest.approx(radius, rel=1e-4)
    assert energy == pytest.approx(2500.0 * (radius - 0.15) ** 2, rel=1e-2, abs=1e-4)
    expected = np.zeros_like(positions)
    expected[atoms] = -5000.0 * (radius - 0.15) * x / (3 * radius)
    np.testing.assert_allclose(forces, expected, atol=1e-2 * np.abs(expected).max() + 1e-3)


def energies_along_verlet(context, n_steps, every=20):
    """Total energy [kJ/mol] along an NVE run."""
    energies = []
    for _ in range(n_steps // every):
        context.getIntegrator().step(every)
        state = context.getState(energy=True)
        energies.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
    return np.array(energies)


def nve(model, topology, positions, k, n_steps=4000):
    context, force = restrained(
        model, topology, positions=positions, integrator=mm.VerletIntegrator(0.0005), platform="Reference"
    )
    mm.LocalEnergyMinimizer.minimize(context, 1.0, 200)
    context.setVelocitiesToTemperature(300, 9)
    pull(context, force, k, np.array(force.getSlow(context)) + 0.2)
    return energies_along_verlet(context, n_steps)


@pytest.mark.slow
def test_energy_is_conserved_with_the_restraint_on(adp, model_of):
    """2 ps of NVE at 0.5 fs: the mean of the last quarter lies within 0.1 kJ/mol of that of the first."""
    topology, positions = adp

    def drift(energies):
        quarter = len(energies) // 4
        return abs(energies[-quarter:].mean() - energies[:quarter].mean())

    assert drift(nve(LatentModel(ADP_BUNDLE), topology, positions, 20.0)) < 0.1
    assert drift(nve(model_of(toys.Identity(HEAVY)), topology, positions, 2000.0)) < 0.1
    # The test can fail: a coordinate whose gradient autograd does not see.
    assert drift(nve(model_of(toys.Detached(HEAVY)), topology, positions, 200000.0)) > 0.1


def free_torsion(tmp_path):
    """Four atoms with stiff bonds and angles, whose torsion costs nothing: (System, topology, positions, model)."""
    topology, system = app.Topology(), mm.System()
    residue = topology.addResidue("TOR", topology.addChain())
    atoms = [topology.addAtom(f"C{i}", app.element.carbon, residue) for i in range(4)]
    bonds, angles = mm.HarmonicBondForce(), mm.HarmonicAngleForce()
    for _ in range(4):
        system.addParticle(12.0)
    for i in range(3):
        topology.addBond(atoms[i], atoms[i + 1])
        bonds.addBond(i, i + 1, 0.15, 5e4)
    for i in range(2):
        angles.addAngle(i, i + 1, i + 2, np.pi / 2, 500.0)
    system.addForce(bonds)
    system.addForce(angles)
    positions = np.array([[0, 0.15, 0], [0, 0, 0], [0.15, 0, 0], [0.15, 0.1, 0.1]])
    module = toys.Torsions(4, np.array([[0, 1, 2, 3]]))
    path = toys.export_toy(module, tmp_path / "torsion.latent.pt", topology, positions, [0, 1, 2, 3])
    return system, topology, positions, LatentModel(path)


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.5, 3.1])
def test_an_umbrella_window_has_the_mean_and_the_width_of_its_restraint(tmp_path, target):
    """The torsion is free, so in the window it is normal: mean target, variance kT/k, also across +-pi.

    False alarms: both bounds are five standard errors for 200 independent samples of the 1000 taken 0.2 ps apart, and
    at 5/ps they are closer to independent than that: less than one in a million.
    """
    system, topology, positions, model = free_torsion(tmp_path)
    integrator = mm.LangevinMiddleIntegrator(300, 5.0, 0.004)
    integrator.setRandomNumberSeed(17)
    context, force = restrained(model, topology, "Reference", system, positions, integrator)
    context.setVelocitiesToTemperature(300, 2)
    k = 40.0
    pull(context, force, k, [target])
    integrator.step(1000)
    samples = []
    for _ in range(1000):
        integrator.step(50)
        samples.append(force.getSlow(context)[0])
    difference = np.remainder(np.array(samples) - target + np.pi, 2 * np.pi) - np.pi
    variance = 0.0083144626 * 300 / k
    assert abs(difference.mean()) < 5 * np.sqrt(variance / 200)
    assert abs(difference.var() / variance - 1) < 5 * np.sqrt(2 / 200)
