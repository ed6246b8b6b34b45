"""Several Simulations in one process whose jumps share one module call."""

from __future__ import annotations

from collections.abc import Sequence

from openmm import OpenMMException
from openmm.app import Simulation

from openmm_latent.errors import LatentError, require
from openmm_latent.openmmlatent import LatentIntegrator


class Walkers:
    """Simulations that step together: each by itself from jump to jump, and all jumps by one call of the module.

    A network takes less time for a batch than for its frames one by one. Everything but that call stays each walker's
    own: its Context, reporters, noise (from its seed and its jump number), guard, model memory, velocities. So a
    walker's jumps are those that it would make alone, to float32 rounding.

    Parameters
    ----------
    simulations : sequence of openmm.app.Simulation
        Each with a LatentIntegrator of its own, made by `LatentModel.createIntegrator` from the same bundle, guarded or
        exploratory, with `realisation="decode"`, and with a seed that no other has; on the same platform and device.
        Systems, topologies, jump intervals and phases may differ.

    Attributes
    ----------
    simulations : tuple of openmm.app.Simulation

    Raises
    ------
    LatentError
        There is none, or one of them does not fit; the sentence names it.

    Notes
    -----
    OpenMM's Reference platform has one random generator for all Contexts of a process, so there the thermostat's noise
    depends on who else steps, and only the jumps are as if alone.

    Examples
    --------
    >>> walkers = Walkers([make_simulation(seed=i) for i in range(32)])
    >>> walkers.step(100_000)
    """

    def __init__(self, simulations: Sequence[Simulation]) -> None:
        self.simulations = tuple(simulations)
        require(len(self.simulations) > 0, "simulations must hold at least one Simulation, got none")
        owner_of: dict[int, int] = {}
        for i, simulation in enumerate(self.simulations):
            integrator = getattr(simulation, "integrator", None)
            require(
                isinstance(integrator, LatentIntegrator),
                f"walker {i} must be a Simulation whose integrator is a LatentIntegrator, got "
                f"{type(simulation).__name__} with {type(integrator).__name__}; make it with "
                f"LatentModel.createIntegrator",
            )
        _require_together(self._integrators())
        for i, integrator in enumerate(self._integrators()):
            other = owner_of.setdefault(integrator.getRandomNumberSeed(), i)
            require(
                other == i,
                f"walkers {other} and {i} have the same seed {integrator.getRandomNumberSeed()}, so the network would "
                f"draw the same noise for both; give each its own to createIntegrator",
            )

    def step(self, steps: int) -> None:
        """Take `steps` relaxation steps with every walker, and the jumps that fall due on the way.

        Each walker runs up to its next jump, reporters as always; then all that have a jump before them make it
        together, at whatever step each of them is.

        Parameters
        ----------
        steps : int
            As for `Simulation.step`.

        Raises
        ------
        OpenMMException
            A step or a jump failed. When the module did, no walker has jumped. Each walker can go on from where it is.
        """
        require(isinstance(steps, int) and steps >= 0, f"steps must be a whole number, zero or more, got {steps!r}")
        remaining = [steps] * len(self.simulations)
        while any(remaining):
            due = []
            for i, simulation in enumerate(self.simulations):
                taken = min(remaining[i], simulation.integrator.getStepsUntilJump())
                if taken > 0:
                    simulation.step(taken)
                    remaining[i] -= taken
                if remaining[i] > 0:
                    due.append(simulation.integrator)
            if due:
                LatentIntegrator.jumpTogether(due)

    def _integrators(self) -> list[LatentIntegrator]:
        return [simulation.integrator for simulation in self.simulations]


def _require_together(integrators: list[LatentIntegrator]) -> None:
    """Turn the sentence of C++ into a LatentError."""
    try:
        LatentIntegrator.requireTogether(integrators)
    except OpenMMException as error:
        raise LatentError(str(error)) from error
