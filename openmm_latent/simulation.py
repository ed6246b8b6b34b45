"""From a bundle and a topology to an integrator that an unmodified `openmm.app.Simulation` runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from openmm import Integrator, OpenMMException, unit
from openmm.app import Topology

from openmm_latent import topology as topo
from openmm_latent.bundle import Bundle, Manifest, load_bundle
from openmm_latent.errors import LatentError, require
from openmm_latent.openmmlatent import LatentIntegrator

#: Mode -> its number in C++. `exact` has no integrator yet.
MODES = {"exploratory": LatentIntegrator.Exploratory, "guarded": LatentIntegrator.Guarded}

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
    ) -> LatentIntegrator:
        """Wrap an OpenMM integrator so that it alternates with jumps of this model.

        Parameters
        ----------
        topology : openmm.app.Topology
            From which the System was made; implicit solvent or vacuum.
        relaxation : openmm.Integrator
            Does the physical MD between jumps; it belongs to the returned integrator afterwards.
        jumpInterval : int
            Relaxation steps between two jumps.
        mode : {"guarded", "exploratory"}
            "guarded" refuses unsound jumps (energy, force, constraints, chirality, omega, bonds, clashes);
            "exploratory" refuses only what is not finite. Neither gives Boltzmann frames.
        seed : int
            One seed gives one trajectory of jumps.
        temperature : Quantity or float, optional
            Of the velocities drawn after a jump [K]; by default the relaxation integrator's own.
        velocities : {"redraw", "keep"}
            After an accepted jump.
        thresholds : dict of str to float, optional
            Of the guard and the minimisation, by name: maxEnergyIncrease [kJ/mol], maxForce [kJ/mol/nm],
            maxConstraintError, maxBondChange (both relative), maxOmegaDeviation [rad], minDistance [nm],
            maxMinimizerIterations, minimizerTolerance [kJ/mol/nm].
        others : sequence of LatentModel
            Models that take turns with this one, jump by jump.

        Returns
        -------
        LatentIntegrator
            An `openmm.CompoundIntegrator`.

        Raises
        ------
        LatentError
            The topology does not fit, holds water, or an argument is out of range. `relaxation` stays the caller's.
        """
        models = [self, *others]
        require(mode in MODES, f"mode must be one of {sorted(MODES)}, got {mode!r}")
        require(velocities in _VELOCITIES, f"velocities must be 'redraw' or 'keep', got {velocities!r}")
        require(
            isinstance(jumpInterval, int) and jumpInterval >= 1,
            f"jumpInterval must be a whole number of relaxation steps, at least 1, got {jumpInterval!r}",
        )
        require(isinstance(seed, int) and -(2**31) <= seed < 2**31, f"seed must be a 32-bit whole number, got {seed!r}")
        require(
            not topo.has_water(topology),
            "topology holds water: a jump that writes decoded coordinates would leave the solvent where it is, on top "
            "of the moved atoms; use implicit solvent or vacuum (jumps in explicit solvent need steering, which this "
            "release does not have yet)",
        )
        bundles = [model._bind(topology) for model in models]
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
        integrator.setRandomNumberSeed(seed)
        integrator.setTemperature(kelvin)
        integrator.setRedrawsVelocities(velocities == "redraw")
        integrator.setNumParticles(topology.getNumAtoms())
        for bundle in bundles:
            integrator._addBundle(*bundle)
        integrator._setStructureTerms(
            structure.bonds, structure.chiral_centres, structure.omegas, structure.heavy_atoms
        )
        return integrator

    def _bind(self, topology: Topology) -> tuple[str, bytes, list[int], list[int], list[list[int]], int]:
        """Return what C++ needs to know of this model in one System."""
        atoms = self.modelAtoms(topology)
        return (
            self.name,
            self._bundle.archive,
            atoms,
            topo.whole_parents(topology, atoms, np.array(self.manifest.reference_positions)),
            topo.find_riders(topology, atoms),
            self.manifest.noise_sizes["jump"],
        )


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
    kelvin = float(temperature.value_in_unit(unit.kelvin) if unit.is_quantity(temperature) else temperature)
    require(0 <= kelvin < math.inf, f"temperature must be zero or more kelvin, got {kelvin}")
    return kelvin
