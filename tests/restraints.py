"""A System with a restraint, and what the restraint alone gives."""

import openmm as mm

import toys
from platforms import get_platform


def restrained(model, topology, platform="Reference", system=None, positions=None, integrator=None):
    """Return (Context, LatentRestraintForce) of a System with the model's restraint."""
    system = toys.adp_system(topology, constraints=None) if system is None else system
    force = model.addRestraint(system, topology)
    integrator = mm.VerletIntegrator(0.001) if integrator is None else integrator
    context = mm.Context(system, integrator, *get_platform(platform))
    if positions is not None:
        context.setPositions(positions)
    return context, force


def pull(context, force, k, target):
    """Set the restraint's parameters."""
    context.setParameter(force.getStiffnessParameter(), k)
    for i, value in enumerate(target):
        context.setParameter(force.getTargetParameter(i), value)


def evaluate(context, force):
    """Energy [kJ/mol] and forces (n, 3) [kJ/mol/nm] of the restraint alone."""
    state = context.getState(energy=True, forces=True, groups={force.getForceGroup()})
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value
