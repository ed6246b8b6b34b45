"""Particles in closed-form potentials, bad proposal networks, and how samples are held against the density.

Particle 0 has no mass and stays at the origin; the others move in an external potential of it, so their configurational
density is known without any simulation. Lengths inside are in units of LENGTH; energies in kJ/mol, temperature 300 K.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import openmm as mm
import torch
from openmm import app
from scipy import stats
from torch import Tensor

import toys
from openmm_latent import LatentModel
from openmm_latent.model import ExplicitLatentModule

LENGTH = 0.1  # nm
TEMPERATURE = 300.0
KT = 0.00831446261815324 * TEMPERATURE
MASS = 10.0  # amu

#: A setting passes if the p-value of its seeds together is above this: one false alarm in 1000 settings.
LEVEL = 1e-3
#: A deliberate fault must fall below this.
DECISIVE = 1e-4


# ---- modules: exact for each other in propose and log_density, and wrong about everything else -----------------------


class Displacement(ExplicitLatentModule):
    """Slow coordinates: the first components of the particles' displacements from particle 0."""

    def __init__(self, n_particles: int, n_slow: int, step: float = 0.5, drift: float = 0.3) -> None:
        super().__init__()
        self.n_atoms, self.n_latent, self.n_slow = n_particles, 3 * (n_particles - 1), n_slow
        self.n_propagate_noise, self.n_decode_noise, self.n_propose_noise = n_slow + 1, 0, n_slow + 1
        self.step, self.drift, self.length = step, drift, LENGTH
        self.register_buffer("proposal_weights", torch.ones(1))

    def proposal_names(self) -> List[str]:  # noqa: UP006
        """One kernel."""
        return ["bad"]

    def encode(self, positions: Tensor) -> Tensor:
        """Displacements, (b, 3 (n_particles - 1))."""
        return ((positions[:, 1:] - positions[:, :1]) / self.length).flatten(1)

    def slow(self, latent: Tensor) -> Tensor:
        """The first of them."""
        return latent[:, : self.n_slow]

    def propose(self, slow: Tensor, noise: Tensor) -> Tensor:
        """Walk off to the right, or draw from a Gaussian in the wrong place: one as often as the other."""
        walk = slow + self.drift + self.step * noise[:, : self.n_slow]
        draw = 0.7 + 1.1 * noise[:, : self.n_slow]
        return torch.where(noise[:, self.n_slow :] > 0, walk, draw)

    def log_density(self, to: Tensor, start: Tensor) -> Tensor:
        """That of `propose`, but for a constant."""
        walk = -0.5 * ((to - start - self.drift) / self.step).square().sum(1) - self.n_slow * math_log(self.step)
        draw = -0.5 * ((to - 0.7) / 1.1).square().sum(1) - self.n_slow * math_log(1.1)
        return torch.logaddexp(walk, draw)

    def propagate(self, latent: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """The proposal, put in place of the slow coordinates: what jumps decode without a test."""
        return torch.cat([self.propose(self.slow(latent), noise), latent[:, self.n_slow :]], dim=1), state

    def decode(self, latent: Tensor, positions: Tensor, noise: Tensor) -> Tensor:
        """Put the particles where the latent says."""
        moved = positions[:, :1] + self.length * latent.reshape(latent.shape[0], -1, 3)
        return torch.cat([positions[:, :1], moved], dim=1)


def math_log(value: float) -> float:
    """Natural logarithm, scriptable."""
    return float(torch.log(torch.tensor(value)))


class Stay(Displacement):
    """Proposes where it is: what is then refused is the drive's own doing."""

    def propose(self, slow: Tensor, noise: Tensor) -> Tensor:
        """No move."""
        return slow * 1.0

    def log_density(self, to: Tensor, start: Tensor) -> Tensor:
        """The same both ways."""
        return torch.zeros_like(to[:, 0])


class Rebuilt(Displacement):
    """Jumps as a neighbour graph does that is rebuilt per frame: by 0.6, every half unit, unseen by autograd."""

    def slow(self, latent: Tensor) -> Tensor:
        """The first displacements, plus steps."""
        first = latent[:, : self.n_slow]
        return first + 0.6 * (torch.floor(2.0 * first) % 2.0)


class Ring(Displacement):
    """Slow coordinate: the angle about z, of period 2 pi, proposed across the boundary as well."""

    def slow_periods(self) -> List[float]:  # noqa: UP006
        """A full turn."""
        return [2 * np.pi]

    def slow(self, latent: Tensor) -> Tensor:
        """atan2(y, x), (b, 1)."""
        return torch.atan2(latent[:, 1:2], latent[:, :1])

    def wrap(self, angle: Tensor) -> Tensor:
        """Into (-pi, pi]."""
        return torch.atan2(torch.sin(angle), torch.cos(angle))

    def propose(self, slow: Tensor, noise: Tensor) -> Tensor:
        """Turn to the left."""
        return self.wrap(slow + self.drift + self.step * noise[:, :1])

    def log_density(self, to: Tensor, start: Tensor) -> Tensor:
        """Wrapped normal: images up to four turns away, (b,)."""
        turns = 6.283185307179586 * torch.arange(-4, 5, device=to.device, dtype=to.dtype)
        distance = to - start - self.drift + turns  # (b, 9)
        return torch.logsumexp(-0.5 * (distance / self.step).square(), dim=1)

    def propagate(self, latent: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Turn without a test."""
        turn = self.propose(self.slow(latent), noise[:, :1]) - self.slow(latent)
        x, y = latent[:, :1], latent[:, 1:2]
        c, s = torch.cos(turn), torch.sin(turn)
        return torch.cat([c * x - s * y, s * x + c * y, latent[:, 2:]], dim=1), state


class Rod(Displacement):
    """Slow coordinate: the z component of the way from particle 1 to particle 2, which are a rigid rod."""

    def slow(self, latent: Tensor) -> Tensor:
        """Cosine of the rod's angle to z if it is of unit length, (b, 1)."""
        return latent[:, 5:6] - latent[:, 2:3]

    def propagate(self, latent: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Move particle 2 along z, rod or no rod."""
        shift = self.propose(self.slow(latent), noise) - self.slow(latent)
        return torch.cat([latent[:, :5], latent[:, 5:] + shift], dim=1), state


# ---- targets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A potential and what is known of its density.

    Attributes
    ----------
    energy : str
        External potential of a moving particle, of u, v, w in units of LENGTH [kJ/mol].
    start : tuple
        Where each moving particle starts, in units of LENGTH.
    module : Callable
        Makes the module of its bundle.
    observables : dict
        Name -> (function of displacements (n, n_moving, 3), distribution function).
    rod : str
        Energy of a rigid rod of unit length between two moving particles, of the cosine c of its angle to z [kJ/mol];
        empty for particles that are free.
    """

    energy: str
    start: tuple[float, float, float]
    module: Callable[[], Displacement]
    observables: dict[str, tuple[Callable, Callable]] = field(default_factory=dict)
    n_moving: int = 1
    rod: str = ""


def distribution(grid: np.ndarray, weight: np.ndarray) -> Callable:
    """Return the distribution function of a density given on an even grid."""
    cumulated = np.concatenate([[0.0], np.cumsum(0.5 * (weight[1:] + weight[:-1]))])
    return lambda values: np.interp(values, grid, cumulated / cumulated[-1])


def double_well(u):
    return 8 * (u**2 - 1) ** 2 + 1.5 * u


def coupled_wells(u, v):
    return 5 * (u**2 - 1) ** 2 + 4 * (v**2 - 1) ** 2 + 2.5 * u * v + u


def angular(theta):
    return 4 * np.cos(theta) + 2.5 * np.cos(2 * theta + 0.5)


def _coupled_marginals() -> dict:
    grid = np.linspace(-2.5, 2.5, 1501)
    u, v = np.meshgrid(grid, grid, indexing="ij")
    weight = np.exp(-coupled_wells(u, v) / KT)
    sums = np.linspace(-5.0, 5.0, 3001)  # of u + v: along each anti-diagonal
    along = [np.trapezoid(np.exp(-coupled_wells(grid, s - grid) / KT), grid) for s in sums]
    return {
        "u": (lambda d: d[:, 0, 0], distribution(grid, weight.sum(axis=1))),
        "v": (lambda d: d[:, 0, 1], distribution(grid, weight.sum(axis=0))),
        "u+v": (lambda d: d[:, 0, 0] + d[:, 0, 1], distribution(sums, np.array(along))),
    }


_LINE = np.linspace(-2.6, 2.6, 5201)
_CIRCLE = np.linspace(-np.pi, np.pi, 5001)

DOUBLE_WELL = Target(
    energy="8*(u^2-1)^2 + 1.5*u + 4*(v-0.5*u)^2 + 4*w^2",
    start=(-1.0, -0.5, 0.0),
    module=lambda: Displacement(2, 1),
    # v - 0.5 u and w are Gaussian whatever u is, so u has the density of the first two terms.
    observables={"u": (lambda d: d[:, 0, 0], distribution(_LINE, np.exp(-double_well(_LINE) / KT)))},
)
COUPLED = Target(
    energy="5*(u^2-1)^2 + 4*(v^2-1)^2 + 2.5*u*v + u + 4*w^2",
    start=(-1.0, 1.0, 0.0),
    module=lambda: Displacement(2, 2),
    observables=_coupled_marginals(),
)
HARMONIC = Target(
    energy="10*u^2 + 4*v^2 + 4*w^2",
    start=(0.1, 0.0, 0.0),
    module=lambda: Displacement(2, 1, step=0.4, drift=0.25),
    observables={"u": (lambda d: d[:, 0, 0], distribution(_LINE, np.exp(-10 * _LINE**2 / KT)))},
)
RING = Target(
    # The radius is independent of the angle, and the angle's density is that of the rest.
    energy="100*(r-1)^2 + 10*w^2 + 4*c + 2.5*(cos(0.5)*(2*c*c-1) - sin(0.5)*2*s*c); c=u/r; s=v/r; r=sqrt(u*u+v*v)",
    start=(-1.0, 0.0, 0.0),
    module=lambda: Ring(2, 1, step=0.9, drift=1.2),
    observables={
        "theta": (lambda d: np.arctan2(d[:, 0, 1], d[:, 0, 0]), distribution(_CIRCLE, np.exp(-angular(_CIRCLE) / KT)))
    },
)


def _rod(c):
    return 4 * c + 20 * (c**2 - 0.5) ** 2


_COSINE = np.linspace(-1, 1, 4001)
ROD = Target(
    # The centre's density is independent of the rod's direction, which is even on the sphere but for the rod's energy.
    energy="4*(u^2+v^2+w^2)",
    start=(0.0, 0.0, 0.5),
    module=lambda: Rod(3, 1, step=0.4, drift=0.2),
    observables={
        "cosine": (lambda d: d[:, 1, 2] - d[:, 0, 2], distribution(_COSINE, np.exp(-_rod(_COSINE) / KT))),
    },
    n_moving=2,
    rod="4*c + 20*(c^2-0.5)^2",
)
#: Force constant of each component of a stiff particle [kJ/mol per LENGTH^2]: angular frequency 63/ps, period 0.1 ps.
STIFFNESS = 400.0


def stiff(n_driven: int, n_moving: int) -> Target:
    """Return stiff isotropic wells, of which the first components are driven and the others stand by."""
    return Target(
        energy=f"{STIFFNESS / 2}*(u^2 + v^2 + w^2)",
        start=(0.02, 0.0, 0.0),
        module=lambda: Displacement(1 + n_moving, n_driven, step=0.03, drift=0.01),
        n_moving=n_moving,
    )


# ---- running ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """How a known density is sampled: driving and relaxation. Times in ps, frictions in 1/ps, n_jumps of each seed."""

    steps: int = 50
    block: int = 5
    sigma: float = 0.2
    step_size: float = 0.005
    friction: float = 1.0
    steps_per_distance: float = 0.0
    least_distance: float = 0.0
    relax_steps: int = 20
    relax_step_size: float = 0.0025
    relax_friction: float = 5.0
    n_jumps: int = 1000


#: The wells' own period is 0.25 ps.
SMALL = Setting()
#: Of drives that stay where they are, half and fewer are accepted: the rest is the step's error.
LARGE = Setting(steps=10, block=2, step_size=0.03, n_jumps=1500)
HUGE = Setting(steps=8, block=1, sigma=0.35, step_size=0.09, relax_steps=4, n_jumps=2500)
#: Drives whose length is that of the way.
PACED = Setting(steps=5, block=5, steps_per_distance=30.0)
#: Shorter ways than a third of that from well to well, or a tenth of a ring, are left to MD.
FAR = Setting(least_distance=0.6)
#: Hardly anything is driven but from well to well.
FARTHER = Setting(least_distance=1.4, n_jumps=1500)
#: Hardly any friction: after a quarter of the harmonic period the velocities that a jump left have become positions.
BALLISTIC = Setting(
    steps=11, block=11, sigma=0.6, step_size=0.01, friction=0.01,
    relax_steps=11, relax_step_size=0.01, relax_friction=0.01, n_jumps=4000,
)  # fmt: skip
SEEDS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Chain:
    """What a run gave: displacements (n_jumps, n_moving, 3) in units of LENGTH after each relaxation, and a tally."""

    displacements: np.ndarray
    acceptance: float
    work: np.ndarray


def make_system(target: Target) -> tuple[app.Topology, mm.System, np.ndarray]:
    """Return topology, System and starting positions (1 + n_moving, 3) [nm] of a target."""
    topology, system = app.Topology(), mm.System()
    chain = topology.addChain()
    for i in range(1 + target.n_moving):
        topology.addAtom("C1", app.Element.getBySymbol("C"), topology.addResidue("TOY", chain))
        system.addParticle(0.0 if i == 0 else MASS)
    force = mm.CustomExternalForce(f"{target.energy}; u=x/{LENGTH}; v=y/{LENGTH}; w=z/{LENGTH}")
    for i in range(target.n_moving):
        force.addParticle(1 + i, [])
    system.addForce(force)
    positions = np.array([[0.0, 0.0, 0.0]] + target.n_moving * [list(target.start)]) * LENGTH
    if target.rod:
        positions[1] -= [0.0, 0.0, LENGTH]
        system.addConstraint(1, 2, LENGTH)
        along = mm.CustomCompoundBondForce(2, f"{target.rod}; c=(z2-z1)/{LENGTH}")
        along.addBond([1, 2], [])
        system.addForce(along)
    return topology, system, positions


def export(target: Target, path: Path, module: Displacement | None = None) -> Path:
    """Write the bundle of a target's bad network, or of another module."""
    topology, _, positions = make_system(target)
    # Somewhere in general position: export tries the module out there.
    trial = positions + 0.01 * np.random.default_rng(1).standard_normal(positions.shape)
    return toys.export_toy(
        target.module() if module is None else module, path, topology, trial, atoms=list(range(1 + target.n_moving))
    )


def make_simulation(target: Target, bundle: Path, setting: Setting, seed: int, mode: str = "exact") -> app.Simulation:
    """Return a Simulation of a target on the Reference platform, ready to run."""
    topology, system, positions = make_system(target)
    model = LatentModel(bundle)
    if mode == "exact":
        model.addRestraint(system, topology)
    relaxation = mm.LangevinMiddleIntegrator(TEMPERATURE, setting.relax_friction, setting.relax_step_size)
    relaxation.setRandomNumberSeed(seed)
    integrator = model.createIntegrator(
        topology,
        relaxation,
        jumpInterval=setting.relax_steps,
        mode=mode,
        seed=seed,
        drivenSteps=setting.steps,
        stepsPerPerturbation=setting.block,
        sigma=setting.sigma,
        drivingStepSize=setting.step_size,
        drivingFriction=setting.friction,
        drivenStepsPerDistance=setting.steps_per_distance,
        leastDrivenDistance=setting.least_distance if mode == "exact" else 0.0,
    )
    simulation = app.Simulation(topology, system, integrator, mm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(positions)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    return simulation


def run(simulation: app.Simulation, n_jumps: int, relax_steps: int, n_dropped: int = 50) -> Chain:
    """Take the frame after each relaxation; the first are dropped, as the start is no sample."""
    frames = []
    for _ in range(n_dropped + n_jumps):
        simulation.integrator.step(relax_steps)
        positions = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
        frames.append((positions[1:] - positions[:1]) / LENGTH)
    integrator = simulation.integrator
    records = integrator.getJumpRecords(max(0, integrator.getNumJumps() - 10000))
    acceptance = integrator.getNumAccepted() / max(1, integrator.getNumJumps())
    return Chain(np.array(frames[n_dropped:]), acceptance, np.array([record.work for record in records]))


def sample(target: Target, bundle: Path, setting: Setting, seed: int, mode: str = "exact") -> Chain:
    """Make a Simulation and run it."""
    return run(make_simulation(target, bundle, setting, seed, mode), setting.n_jumps, setting.relax_steps)


def sample_seeds(target: Target, bundle: Path, setting: Setting, mode: str = "exact") -> list[Chain]:
    """Run every seed."""
    return [sample(target, bundle, setting, seed, mode) for seed in SEEDS]


# ---- judging ---------------------------------------------------------------------------------------------------------


def correlation_time(runs: list[np.ndarray]) -> float:
    """Return how many frames one independent sample takes, for the slowest of nine quantiles' indicators.

    tau = 1 + 2 sum rho up to the first lag of at least 5 tau, over all runs (n_frames,) of one process: a sum up to the
    first negative rho is too noisy here. Source: A. Sokal, lectures (1997), section 3.
    """
    edges = np.quantile(np.concatenate(runs), np.arange(1, 10) / 10)
    shares = np.mean([(run[:, None] <= edges).mean(axis=0) for run in runs], axis=0)
    n = len(runs[0])
    products = np.zeros((n // 2, 9))
    for run in runs:
        spectrum = np.fft.rfft((run[:, None] <= edges) - shares, 2 * n, axis=0)
        products += np.fft.irfft(np.abs(spectrum) ** 2, 2 * n, axis=0)[: n // 2]
    sums = 2 * np.cumsum(products / products[0], axis=0) - 1  # (n // 2, 9): tau by the window's length
    lags = np.arange(len(sums))[:, None]
    ends = np.argmax(lags >= 5 * sums, axis=0)
    return float(max(1.0, *sums[ends, np.arange(9)]))


def ks_pvalue(runs: list[np.ndarray], cdf: Callable) -> float:
    """Return the Kolmogorov-Smirnov p-value of correlated runs (n_frames,), which count as their effective size."""
    values = np.concatenate(runs)
    distance = stats.kstest(values, cdf).statistic
    return float(stats.kstwobign.sf(distance * np.sqrt(len(values) / correlation_time(runs))))


def pvalues(target: Target, chains: list[Chain]) -> dict[str, float]:
    """Return the p-value of each observable, over all seeds."""
    return {
        name: ks_pvalue([observe(chain.displacements) for chain in chains], cdf)
        for name, (observe, cdf) in target.observables.items()
    }
