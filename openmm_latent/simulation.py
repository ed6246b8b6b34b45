"""From a bundle and a topology to an integrator that an unmodified `openmm.app.Simulation` runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from openmm import Force, Integrator, OpenMMException, System, unit
from openmm.app import Topology

from openmm_latent import topology as topo
from openmm_latent.bundle import Bundle, Manifest, load_bundle
from openmm_latent.errors import LatentError, require
from openmm_latent.openmmlatent import LatentIntegrator, LatentRestraintForce

#: Mode -> its number in C++.
MODES: dict[str, int] = {
    "exploratory": LatentIntegrator.Exploratory,
    "guarded": LatentIntegrator.Guarded,
    "exact": LatentIntegrator.Exact,
}
REALISATIONS: dict[str, int] = {"decode": LatentIntegrator.Decode, "steer": LatentIntegrator.Steer}
#: Who runs a bundle's methods; the words are those of C++.
RUNNERS = ("auto", "torchscript", "aoti")

#: Width of the driving restraint: in units of the slow coordinates (of unit variance), or in nm for model atoms.
_SIGMA_SLOW, _SIGMA_STRUCTURE = 0.15, 0.02

#: OpenMM's force groups, the last first: force fields count them from 0.
_GROUPS = range(31, -1, -1)

_VELOCITIES = ("redraw", "keep")


class LatentModel:
    """A loaded bundle.

    Parameters
    ----------
    path : path-like
        A `.latent.pt` file.

    Attributes
    ----------
    name : str
        The file's name.
    manifest : Manifest

    Raises
    ------
    LatentError
        The file is missing, truncated, altered, of another kind, or of another contract version.

    Examples
    --------
    >>> model = LatentModel("adp.latent.pt")
    >>> relaxation = LangevinMiddleIntegrator(300*kelvin, 1/picosecond, 2*femtosecond)
    >>> integrator = model.createIntegrator(topology, relaxation, jumpInterval=500, mode="guarded", seed=1)
    >>> simulation = Simulation(topology, system, integrator, platform)
    """

    def __init__(self, path: str | Path) -> None:
        self._bundle: Bundle = load_bundle(path)
        self.name = self._bundle.name
        self.manifest: Manifest = self._bundle.manifest

    @property
    def lagTime(self) -> unit.Quantity:
        """Physical time that one jump covers."""
        return self.manifest.lag_time * unit.picosecond

    def modelAtoms(self, topology: Topology) -> list[int]:
        """Return the topology's index of each model atom, in manifest order.

        Raises
        ------
        LatentError
            An atom is missing, differs, or is one too many; the sentence names it.
        """
        return topo.match_atoms(self.manifest.atoms, topology, f"bundle '{self.name}'")

    def slowCoordinates(self, positions: Any, topology: Topology) -> np.ndarray:
        """Return the slow coordinates of a frame.

        Parameters
        ----------
        positions : Quantity or array
            (n_particles, 3) [nm] of the whole System, molecules whole.
        topology : openmm.app.Topology

        Returns
        -------
        np.ndarray
            (n_slow,) dimensionless; empty if the model has none.
        """
        if "slow" not in self.manifest.capabilities:
            return np.zeros(0)
        if unit.is_quantity(positions):
            positions = positions.value_in_unit(unit.nanometer)
        positions = np.asarray(positions, dtype=np.float64)
        n_particles = topology.getNumAtoms()
        require(
            positions.shape == (n_particles, 3),
            f"positions must have shape (n_particles={n_particles}, 3) [nm], got {positions.shape}; "
            f"give those of the whole System",
        )
        return self._slowOf(positions[self.modelAtoms(topology)])

    def _slowOf(self, model_positions: np.ndarray) -> np.ndarray:
        """Return the slow coordinates (n_slow,) of the model atoms' positions, (n_atoms, 3) [nm]."""
        centred = torch.from_numpy(model_positions - model_positions.mean(axis=0)).float()
        with torch.inference_mode():
            return self._bundle.module.slow(self._bundle.module.encode(centred[None]))[0].double().numpy()

    def createIntegrator(
        self,
        topology: Topology,
        relaxation: Integrator,
        jumpInterval: int = 500,
        mode: str = "guarded",
        seed: int = 0,
        temperature: Any = None,
        velocities: str = "redraw",
        thresholds: Mapping[str, float] | None = None,
        others: Sequence[LatentModel] = (),
        realisation: str | None = None,
        drivenSteps: int = 500,
        stepsPerPerturbation: int = 2,
        sigma: float | None = None,
        drivingStepSize: Any = None,
        drivingFriction: Any = 1.0,
        drivenStepsPerDistance: float = 0.0,
        leastDrivenDistance: float = 0.0,
        proposal: Mapping[str, float] | None = None,
        runner: str = "auto",
        nProposals: int = 1,
    ) -> LatentIntegrator:
        """Wrap an OpenMM integrator so that it alternates with jumps of this model.

        Parameters
        ----------
        topology : openmm.app.Topology
            From which the System was made.
        relaxation : openmm.Integrator
            Does the physical MD between jumps; it belongs to the returned integrator afterwards.
        jumpInterval : int
            Relaxation steps between two jumps.
        mode : {"guarded", "exploratory", "exact"}
            "guarded" refuses unsound jumps (energy, force, constraints, chirality, omega, bonds, clashes);
            "exploratory" refuses only what is not finite. Neither gives Boltzmann frames. "exact" accepts by a
            Metropolis test on the work of driving the system to a proposal, and its frames are Boltzmann.
        seed : int
            One seed gives one trajectory of jumps.
        temperature : Quantity or float, optional
            Of the velocities drawn after a jump [K]; by default the relaxation integrator's own.
        velocities : {"redraw", "keep"}
            After an accepted jump.
        thresholds : dict of str to float, optional
            Of the guard and the minimisation, by name: maxEnergyIncrease [kJ/mol], maxForce [kJ/mol/nm], maxWork
            [kJ/mol] (in place of both when steering), maxConstraintError, maxBondChange (both relative),
            maxOmegaDeviation [rad], minDistance [nm], maxMinimizerIterations, minimizerTolerance [kJ/mol/nm].
        others : sequence of LatentModel
            Models that take turns with this one, jump by jump.
        realisation : {"decode", "steer"}, optional
            "decode" writes the decoded coordinates, needs a System without water, and is the default of "guarded" and
            "exploratory". "steer" drives the system there with MD under a restraint, in any solvent, and is what
            "exact" does. It needs `addRestraint` before.
        drivenSteps : int
            MD steps of one driven jump, rounded down to whole blocks.
        stepsPerPerturbation : int
            MD steps of a block: the restraint moves, and acts, between blocks.
        sigma : float, optional
            Width of the driving restraint, k = kT / sigma². In units of the slow coordinates (default 0.15); for a
            model without them, of each model atom's position [nm] (default 0.02).
        drivingStepSize : Quantity or float, optional
            Of the driven steps [ps]; by default the relaxation integrator's. Its error is work, and exact mode refuses
            work: 2 fs suit it better than a relaxation's 4 fs (`tune_driving` tries both).
        drivingFriction : Quantity or float
            Of the driven steps [1/ps].
        drivenStepsPerDistance : float
            Further MD steps for each unit of way along the slow coordinates, so that short ways cost little and long
            ones take their time. A model without slow coordinates has no use for it.
        leastDrivenDistance : float
            Exact mode drives to no proposal that is nearer, in units of the slow coordinates: within a state MD is the
            cheaper way. Such a jump is refused as "near" before anything moves, and velocities stay as they are. Frames
            stay Boltzmann, since the way back is as near.
        proposal : dict of str to float, optional
            Weights of the model's proposal kernels in exact mode, such as {"lag": 0.5, "independence": 0.5}; a kernel
            that is not named gets none. By default as the model was trained.
        runner : {"auto", "torchscript", "aoti"}
            "auto" runs methods that the bundle holds compiled (`openmm-latent export --runner aoti`) where they were
            made for this machine and the Context's platform, and TorchScript elsewhere; "aoti" refuses to be without.
        nProposals : int
            Candidate frames that one module call draws for a decoded jump. They are tried one after the other until one
            is accepted, and if none is, the jump is refused for the last one's reason: worth it where much is refused.
            The first candidate is the frame that nProposals=1 would draw. Several run as TorchScript, since methods are
            compiled for one frame. Driven jumps have one.

        Returns
        -------
        LatentIntegrator
            An `openmm.CompoundIntegrator`.

        Raises
        ------
        LatentError
            The topology does not fit, holds water (decode), the model cannot do what is asked, or an argument is out of
            range. `relaxation` stays the caller's.
        """
        models = [self, *others]
        require(mode in MODES, f"mode must be one of {sorted(MODES)}, got {mode!r}")
        if realisation is None:
            realisation = "steer" if mode == "exact" else "decode"
        require(realisation in REALISATIONS, f"realisation must be one of {sorted(REALISATIONS)}, got {realisation!r}")
        require(
            mode != "exact" or realisation == "steer",
            "realisation must be 'steer' (or left out) in exact mode, got 'decode': written coordinates have no work "
            "to test; use mode='guarded' to decode",
        )
        require(
            mode != "exact" or velocities == "redraw",
            "velocities must be 'redraw' in exact mode, got 'keep': velocities that depend on a jump's outcome bias it",
        )
        require(
            isinstance(nProposals, int) and nProposals >= 1,
            f"nProposals must be a whole number of frames, at least 1, got {nProposals!r}",
        )
        require(velocities in _VELOCITIES, f"velocities must be 'redraw' or 'keep', got {velocities!r}")
        require(
            isinstance(jumpInterval, int) and jumpInterval >= 1,
            f"jumpInterval must be a whole number of relaxation steps, at least 1, got {jumpInterval!r}",
        )
        require(isinstance(seed, int) and -(2**31) <= seed < 2**31, f"seed must be a 32-bit whole number, got {seed!r}")
        require(
            realisation == "steer" or not topo.has_water(topology),
            "topology holds water: a jump that writes decoded coordinates would leave the solvent where it is, on top "
            "of the moved atoms; give realisation='steer' and call model.addRestraint(system, topology) before",
        )
        require(
            nProposals == 1 or realisation == "decode",
            f"nProposals must be 1 when jumps are driven, got {nProposals}: in exact mode taking the first accepted of "
            f"several would bias the ensemble, and in a steered jump each would cost a whole drive; use mode='guarded' "
            f"and realisation='decode'",
        )
        for model in models:
            require(
                mode != "exact" or {"propose", "log_density", "slow"} <= set(model.manifest.capabilities),
                f"mode 'exact' needs a model with propose and log_density on slow coordinates, which bundle "
                f"'{model.name}' ({model.manifest.family}) lacks; use mode='guarded', or train the model with slow "
                f"coordinates",
            )
        bundles = [model._bind(topology, runner, model._proposalWeights(proposal)) for model in models]
        driving = self._driving(
            drivenSteps,
            stepsPerPerturbation,
            sigma,
            drivingStepSize,
            drivingFriction,
            drivenStepsPerDistance,
            leastDrivenDistance,
        )
        require(
            mode == "exact" or leastDrivenDistance == 0.0,
            f"leastDrivenDistance is for mode 'exact', got {leastDrivenDistance!r} in mode {mode!r}; leave it out",
        )
        structure = topo.find_structure(topology)
        kelvin = _temperature(temperature)
        checked = _thresholds(thresholds or {})
        # The constructor takes the relaxation integrator over: after it nothing may fail.
        try:
            integrator = LatentIntegrator(relaxation, jumpInterval)
        except OpenMMException as error:
            raise LatentError(str(error)) from error
        for name, value in checked.items():
            integrator.setThreshold(name, value)
        integrator.setMode(MODES[mode])
        integrator.setRealisation(REALISATIONS[realisation])
        integrator.setNumProposals(nProposals)
        integrator.setDriving(**driving)
        integrator.setRandomNumberSeed(seed)
        integrator.setTemperature(kelvin)
        integrator.setRedrawsVelocities(velocities == "redraw")
        integrator.setNumParticles(topology.getNumAtoms())
        for bundle in bundles:
            integrator._addBundle(*bundle.values())
        integrator._setStructureTerms(
            structure.bonds, structure.chiral_centres, structure.omegas, structure.heavy_atoms
        )
        return integrator

    def addRestraint(
        self, system: System, topology: Topology, name: str = "latentRestraint", runner: str = "auto"
    ) -> LatentRestraintForce:
        """Add the force that steers and drives, or a learned collective variable, to a System.

        E = k/2 sum_j w_j (slow_j(encode(x)) - target_j)^2, the differences taken the short way round where a coordinate
        is an angle. Every w_j is 1, as driven jumps need it, unless `setWeights` frees some coordinate (0). For a model
        without slow coordinates E = k/2 sum_i |x_i - R y_i - c|^2, with a structure y superposed on the frame by the
        proper rotation R and the shift c that make E least.

        | symbol | Context parameter | unit |
        |---|---|---|
        | k | `<name>_k` | kJ/mol, as slow coordinates have no dimension; kJ/mol/nm^2 for structures |
        | target_j | `<name>_target_1` ... | that of the slow coordinate |
        | way from start (0) to end (1) | `<name>_progress` | structures alone: both ends come from `setPath` |

        It is put into the force group of the System's other latent restraints, or else into the highest that no force
        is in, because driving asks for their forces apart from all others. Of several restraints of one model, the
        first drives. Integrators integrate all groups unless they are told otherwise.

        Parameters
        ----------
        system : openmm.System
            Made from the topology; before any Context is.
        topology : openmm.app.Topology
        name : str
            Of the force; begins the names of its Context parameters, so it must be an identifier.
        runner : {"auto", "torchscript", "aoti"}
            As in `createIntegrator`.

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
            f"the System has {system.getNumParticles()} particles, but the topology has {topology.getNumAtoms()} atoms"
            f"; pass the topology from which the System was made",
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
        bound = self._bind(topology, runner)
        force = LatentRestraintForce(
            bound["name"],
            bound["archive"],
            runner,
            bound["particles"],
            bound["wholeParent"],
            bound["slowPeriods"],
            name,
        )
        force.setForceGroup(free[0])
        system.addForce(force)
        return force

    def _bind(self, topology: Topology, runner: str, proposal_weights: Sequence[float] = ()) -> dict[str, Any]:
        """Return what C++ needs to know of this model in one System: the fields of LatentBundle."""
        require(runner in RUNNERS, f"runner must be one of {', '.join(RUNNERS)}, got {runner!r}")
        atoms = self.modelAtoms(topology)
        sizes = self.manifest.noise_sizes
        return {
            "name": self.name,
            "archive": self._bundle.archive,
            "runner": runner,
            "particles": atoms,
            "wholeParent": topo.whole_parents(topology, atoms, np.array(self.manifest.reference_positions)),
            "riders": topo.find_riders(topology, atoms),
            "numNoise": sizes["jump"],
            "numPropagateNoise": sizes.get("propagate", 0),
            "numProposeNoise": sizes.get("propose", 0),
            "slowPeriods": self.manifest.slow_periods,
            "proposalWeights": list(proposal_weights),
        }

    def _proposalWeights(self, proposal: Mapping[str, float] | None) -> list[float]:
        """Check and order the weights of the proposal kernels; empty for those of the bundle."""
        if proposal is None:
            return []
        known = self.manifest.proposals
        for name, weight in proposal.items():
            require(
                name in known,
                f"proposal names the kernel {name!r}, but bundle '{self.name}' has {', '.join(known) or 'none'}; "
                f"choose of these",
            )
            require(
                bool(isinstance(weight, int | float | np.number) and 0 <= weight < math.inf),
                f"proposal: the weight of '{name}' must be a number, zero or positive, got {weight!r}",
            )
        require(sum(proposal.values()) > 0, f"proposal must give one kernel a positive weight, got {dict(proposal)}")
        return [float(proposal.get(name, 0.0)) for name in known]

    def _driving(
        self,
        steps: int,
        block: int,
        sigma: float | None,
        step_size: Any,
        friction: Any,
        per_distance: float,
        least_distance: float,
    ) -> dict[str, Any]:
        """Check the driving arguments of createIntegrator and return those of LatentIntegrator.setDriving."""
        for name, value in (("drivenSteps", steps), ("stepsPerPerturbation", block)):
            require(
                isinstance(value, int) and value >= 1,
                f"{name} must be a whole number of MD steps, at least 1, got {value!r}",
            )
        require(block <= steps, f"stepsPerPerturbation must not exceed drivenSteps={steps}, got {block}; 2 is usual")
        if sigma is None:
            sigma = _SIGMA_SLOW if self.manifest.n_slow else _SIGMA_STRUCTURE
        require(
            bool(isinstance(sigma, int | float | np.number) and 0 < sigma < math.inf),
            f"sigma must be a positive width, in units of the slow coordinates (or nm), got {sigma!r}",
        )
        step_size = 0.0 if step_size is None else _plain(step_size, unit.picosecond)
        friction = _plain(friction, unit.picosecond**-1)
        require(0 <= step_size < math.inf, f"drivingStepSize must be a positive time in ps, got {step_size}")
        require(0 <= friction < math.inf, f"drivingFriction must be zero or more per ps, got {friction}")
        require(
            bool(isinstance(per_distance, int | float | np.number) and 0 <= per_distance < math.inf),
            f"drivenStepsPerDistance must be zero or more MD steps for each unit of way, got {per_distance!r}; try 500",
        )
        require(
            bool(isinstance(least_distance, int | float | np.number) and 0 <= least_distance < math.inf),
            f"leastDrivenDistance must be zero or a distance in units of the slow coordinates, got {least_distance!r}; "
            f"try 0.5",
        )
        return {
            "drivenSteps": steps,
            "stepsPerPerturbation": block,
            "sigma": float(sigma),
            "drivingStepSize": step_size,
            "drivingFriction": friction,
            "drivenStepsPerDistance": float(per_distance),
            "leastDrivenDistance": float(least_distance),
        }


def _groups_of(force: Force) -> list[int]:
    """Return the force groups in which a force computes something."""
    groups = [force.getForceGroup()]
    if hasattr(force, "getReciprocalSpaceForceGroup"):
        groups.append(force.getReciprocalSpaceForceGroup())  # -1: the same as the force's
    return groups


def _thresholds(thresholds: Mapping[str, Any]) -> dict[str, float]:
    """Check names and values of the guard's thresholds."""
    known = list(LatentIntegrator.getThresholdNames())
    for name, value in thresholds.items():
        require(name in known, f"threshold '{name}' is unknown; choose one of {', '.join(known)}")
        require(
            bool(isinstance(value, int | float | np.number) and value >= 0),
            f"threshold '{name}' must be a number, zero or positive, got {value!r}",
        )
    return {name: float(value) for name, value in thresholds.items()}


def _temperature(temperature: Any) -> float:
    """Return the temperature to redraw at [K], or -1 for the relaxation's own."""
    if temperature is None:
        # An AndersenThermostat in the System can give one, too; C++ finds it when the first jump is made.
        return -1.0
    kelvin = _plain(temperature, unit.kelvin)
    require(0 <= kelvin < math.inf, f"temperature must be zero or more kelvin, got {kelvin}")
    return kelvin


def _plain(value: Any, in_unit: Any) -> float:
    """Return a Quantity in a unit, or a number as it is."""
    return float(value.value_in_unit(in_unit) if unit.is_quantity(value) else value)
