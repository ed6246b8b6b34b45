"""The force that pulls a System along a model's slow coordinates: a learned collective variable in an OpenMM System.

E = k/2 sum_j w_j (slow_j(encode(x)) - target_j)^2, the differences taken the short way round where a coordinate is an
angle. Every w_j is 1, as driven jumps need it, unless `setWeights` frees some coordinate (0). For a model without slow
coordinates E = k/2 sum_i |x_i - R y_i - c|^2, with a structure y superposed on the frame by the proper rotation R and
the shift c that make E least.

| symbol | Context parameter | unit |
|---|---|---|
| k | `<name>_k` | kJ/mol, as slow coordinates have no dimension; kJ/mol/nm^2 for structures |
| target_j | `<name>_target_1` ... | that of the slow coordinate |
| way from start (0) to end (1) | `<name>_progress` | structures alone: start and end come from `setPath` |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openmm import Force, System
from openmm.app import Topology

from openmm_latent.errors import require
from openmm_latent.openmmlatent import LatentRestraintForce

if TYPE_CHECKING:
    from openmm_latent.simulation import LatentModel

#: OpenMM's force groups, the last first: force fields count them from 0.
_GROUPS = range(31, -1, -1)


def addRestraint(
    model: LatentModel, system: System, topology: Topology, name: str = "latentRestraint"
) -> LatentRestraintForce:
    """Add a LatentRestraintForce of a model to a System.

    It is put into the force group of the System's other latent restraints, or else into the highest that no force is
    in, because driving asks for their forces apart from all others. Of several restraints of one model, the first
    drives. Integrators integrate all groups unless they are told otherwise.

    Parameters
    ----------
    model : LatentModel
    system : openmm.System
        Made from the topology; before any Context is.
    topology : openmm.app.Topology
    name : str
        Of the force; begins the names of its Context parameters, so it must be an identifier.

    Returns
    -------
    LatentRestraintForce
        It belongs to the System. Its stiffness is 0, at which it costs nothing, until `<name>_k` is set.

    Raises
    ------
    LatentError
        The System does not fit the topology, or has a force of that name or no free force group.
    """
    require(
        isinstance(name, str) and name.isidentifier(),
        f"name must be an identifier, for it begins the names of Context parameters, got {name!r}",
    )
    require(
        system.getNumParticles() == topology.getNumAtoms(),
        f"the System has {system.getNumParticles()} particles, but the topology has {topology.getNumAtoms()} atoms; "
        f"pass the topology from which the System was made",
    )
    forces = system.getForces()
    require(
        all(force.getName() != name for force in forces),
        f"the System already has a force called '{name}'; add a restraint once, or give the second another name",
    )
    shared = [force.getForceGroup() for force in forces if LatentRestraintForce.isinstance(force)]
    used = {group for force in forces for group in _groups_of(force)}
    free = shared[:1] or [group for group in _GROUPS if group not in used]
    require(
        len(free) > 0,
        "every one of the System's 32 force groups is in use, but a restraint needs one of its own; "
        "put some forces into one group by setForceGroup",
    )
    bound = model._bind(topology)
    force = LatentRestraintForce(
        bound["name"], bound["archive"], bound["particles"], bound["wholeParent"], bound["slowPeriods"], name
    )
    force.setForceGroup(free[0])
    system.addForce(force)
    return force


def _groups_of(force: Force) -> list[int]:
    """Return the force groups in which a force computes something."""
    groups = [force.getForceGroup()]
    if hasattr(force, "getReciprocalSpaceForceGroup"):
        groups.append(force.getReciprocalSpaceForceGroup())  # -1: the same as the force's
    return groups
