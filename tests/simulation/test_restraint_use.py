"""How the restraint force is added, copied and saved, and what it refuses."""

import copy
import pickle

import numpy as np
import openmm as mm
import pytest

import toys
from openmm_latent import LatentError
from openmm_latent.openmmlatent import LatentRestraintForce
from platforms import PLATFORMS
from restraints import evaluate, pull, restrained

HEAVY = 10


def test_the_force_is_in_a_group_of_its_own(adp, quadruples, model_of):
    topology, positions = adp
    system = toys.adp_system(topology)
    nonbonded = next(force for force in system.getForces() if isinstance(force, mm.NonbondedForce))
    nonbonded.setForceGroup(31)
    nonbonded.setReciprocalSpaceForceGroup(30)
    model = model_of(toys.Torsions(HEAVY, quadruples))
    context, force = restrained(model, topology, system=system, positions=positions)
    assert force.getForceGroup() == 29
    pull(context, force, 80.0, [1.0, -2.0])
    whole = context.getState(energy=True).getPotentialEnergy()._value
    rest = context.getState(energy=True, groups=set(range(32)) - {29}).getPotentialEnergy()._value
    energy, _ = evaluate(context, force)
    assert energy > 10
    assert whole == pytest.approx(rest + energy)
    # Whoever integrates all groups, as is the default, feels it.
    assert context.getIntegrator().getIntegrationForceGroups() & (1 << 29)


def test_two_restraints_have_parameters_of_their_own(adp, quadruples, model_of):
    topology, positions = adp
    system = toys.adp_system(topology)
    model = model_of(toys.Torsions(HEAVY, quadruples))
    first, second = (model.addRestraint(system, topology, name) for name in ("first", "second"))
    assert (first.getForceGroup(), second.getForceGroup()) == (31, 31)  # driving asks for all restraints at once
    assert first.getStiffnessParameter() == "first_k"
    assert [second.getTargetParameter(i) for i in range(2)] == ["second_target_1", "second_target_2"]
    first.setDefaultStiffness(50.0)
    first.setDefaultTarget([0.1, 0.2])
    context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    parameters = dict(context.getParameters())
    assert parameters["first_k"] == 50.0
    assert (parameters["first_target_1"], parameters["first_target_2"], parameters["second_k"]) == (0.1, 0.2, 0.0)
    alone = evaluate(context, first)[0]  # of their common group: the second has no stiffness yet
    assert alone > 0
    for parameter, value in (("second_target_1", 0.1), ("second_target_2", 0.2), ("second_k", 25.0)):
        context.setParameter(parameter, value)
    assert evaluate(context, first)[0] == pytest.approx(1.5 * alone)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda system: pickle.loads(pickle.dumps(system))])
def test_a_system_with_the_force_is_copied_whole(adp, quadruples, model_of, clone):
    topology, positions = adp
    system = toys.adp_system(topology)
    for module in (toys.Torsions(HEAVY, quadruples), toys.Shake(HEAVY, 0.1)):
        model_of(module).addRestraint(system, topology, type(module).__name__)
    force = LatentRestraintForce.cast(system.getForce(system.getNumForces() - 2))
    force.setDefaultStiffness(12.0)
    force.setDefaultTarget([0.1, 1 / 3])
    force.setWeights([0.5, 0.0])
    again = clone(system)
    assert mm.XmlSerializer.serialize(again) == mm.XmlSerializer.serialize(system)
    copied = again.getForce(again.getNumForces() - 2)
    assert LatentRestraintForce.isinstance(copied)
    assert not LatentRestraintForce.isinstance(again.getForce(0))
    copied = LatentRestraintForce.cast(copied)
    assert (copied.getName(), copied.getForceGroup()) == ("Torsions", 31)
    assert (copied.getDefaultStiffness(), list(copied.getDefaultTarget())) == (12.0, [0.1, 1 / 3])
    assert list(copied.getWeights()) == [0.5, 0.0]
    assert list(copied.getSlowPeriods()) == [2 * np.pi] * 2
    assert copied.getBundleName() == "Torsions.latent.pt"
    energies = []
    for one, of in ((force, system), (copied, again)):
        context = mm.Context(of, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
        context.setPositions(positions)
        energies.append(evaluate(context, one)[0])
    assert energies[0] == energies[1] > 1.0


def test_the_force_itself_is_copied(adp, quadruples, model_of):
    system = toys.adp_system(adp[0])
    force = model_of(toys.Torsions(HEAVY, quadruples)).addRestraint(system, adp[0])
    for again in (copy.deepcopy(force), copy.copy(force), pickle.loads(pickle.dumps(force))):
        assert type(again) is LatentRestraintForce
        assert mm.XmlSerializer.serialize(again) == mm.XmlSerializer.serialize(force)
        system.addForce(again)  # it is the caller's, to give away


def test_the_parameters_are_in_checkpoints(adp, quadruples, model_of):
    topology, positions = adp
    context, force = restrained(model_of(toys.Torsions(HEAVY, quadruples)), topology, positions=positions)
    pull(context, force, 80.0, [1.0, -2.0])
    energy, _ = evaluate(context, force)
    checkpoint = context.createCheckpoint()
    pull(context, force, 0.0, [0.0, 0.0])
    context.loadCheckpoint(checkpoint)
    assert evaluate(context, force)[0] == energy


def test_what_add_restraint_refuses(adp, quadruples, model_of):
    topology, _ = adp
    model = model_of(toys.Torsions(HEAVY, quadruples))
    system = toys.adp_system(topology)
    for name in ("", "two words", 7):
        with pytest.raises(LatentError, match="name must be an identifier"):
            model.addRestraint(system, topology, name)
    model.addRestraint(system, topology)
    with pytest.raises(LatentError, match="already has a force called 'latentRestraint'; add a restraint once"):
        model.addRestraint(system, topology)
    small = mm.System()
    small.addParticle(1.0)
    with pytest.raises(LatentError, match="the System has 1 particles, but the topology has 22 atoms"):
        model.addRestraint(small, topology)
    crowded = toys.adp_system(topology)
    for group in range(32):
        force = mm.CustomExternalForce("x")
        force.setForceGroup(group)
        crowded.addForce(force)
    with pytest.raises(LatentError, match="every one of the System's 32 force groups is in use"):
        model.addRestraint(crowded, topology)


def test_what_the_force_refuses(adp, quadruples, model_of):
    topology, positions = adp
    model = model_of(toys.Torsions(HEAVY, quadruples))
    system = toys.adp_system(topology)
    force = model.addRestraint(system, topology)
    with pytest.raises(mm.OpenMMException, match="stiffness must be zero or positive, got -1"):
        force.setDefaultStiffness(-1.0)
    with pytest.raises(mm.OpenMMException, match=r"one component for each of the 2 slow coordinates .* got 3"):
        force.setDefaultTarget([0.0, 0.0, 0.0])
    with pytest.raises(mm.OpenMMException, match="target must be finite"):
        force.setDefaultTarget([0.0, float("nan")])
    with pytest.raises(
        mm.OpenMMException, match=r"one for each of the 2 slow coordinates of bundle 'Torsions\.latent\.pt'"
    ):
        force.setWeights([1.0])
    with pytest.raises(mm.OpenMMException, match=r"weights must be zero or positive, got -0\.5"):
        force.setWeights([1.0, -0.5])
    with pytest.raises(mm.OpenMMException, match=r"index must be in \[0, 2\), got 2"):
        force.getTargetParameter(2)
    other = mm.System()
    for _ in range(5):
        other.addParticle(1.0)
    other.addForce(copy.deepcopy(force))
    with pytest.raises(mm.OpenMMException, match=r"pulls particle .*, which is outside the System's 5 particles"):
        mm.Context(other, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    with pytest.raises(mm.OpenMMException, match=r"not structures; set its target parameters instead"):
        force.setPath(context, positions[:HEAVY], positions[:HEAVY])
    context.setParameter("latentRestraint_k", -2.0)
    with pytest.raises(mm.OpenMMException, match="'latentRestraint_k' must be zero or positive, it is -2"):
        evaluate(context, force)
    pull(context, force, 1.0, [float("nan"), 0.0])
    with pytest.raises(mm.OpenMMException, match=r"bundle 'Torsions.latent.pt': the slow coordinates or their target"):
        evaluate(context, force)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_slow_coordinates_that_are_not_finite_are_refused(adp, model_of, platform):
    topology, positions = adp
    context, force = restrained(model_of(toys.BrokenSlow(HEAVY)), topology, platform, positions=positions)
    pull(context, force, 1.0, [0.0])
    with pytest.raises(mm.OpenMMException, match=r"bundle 'BrokenSlow.latent.pt': the slow coordinates .* not finite"):
        evaluate(context, force)


def test_what_superposed_structures_refuse(adp, model_of):
    topology, positions = adp
    context, force = restrained(model_of(toys.Shake(HEAVY, 0.0)), topology, positions=positions)
    assert evaluate(context, force)[0] == 0.0
    pull(context, force, 1.0, [])
    with pytest.raises(mm.OpenMMException, match=r"has no structure to pull to: .* call setPath before"):
        evaluate(context, force)
    with pytest.raises(mm.OpenMMException, match=r"must hold the 10 model atoms of bundle .*, got 3 and 10"):
        force.setPath(context, positions[:3], positions[:HEAVY])
    with pytest.raises(mm.OpenMMException, match="must be finite"):
        force.setPath(context, positions[:HEAVY] * np.nan, positions[:HEAVY])
    force.setPath(context, positions[:HEAVY], positions[:HEAVY])
    assert evaluate(context, force)[0] > 0
    context.setParameter(force.getProgressParameter(), float("nan"))
    with pytest.raises(mm.OpenMMException, match="is not finite"):
        evaluate(context, force)
