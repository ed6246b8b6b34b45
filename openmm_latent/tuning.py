"""Tuning of driven jumps before production: how they are driven, and how far a proposal must lie to be driven to."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from openmm.app import Simulation
from openmm.unit import picosecond

from openmm_latent.errors import require
from openmm_latent.openmmlatent import LatentIntegrator

_STEP_SHARES = (1.0, 0.5)
_SIGMAS = (0.1, 0.15, 0.2, 0.3)
_STEPS = (100, 200, 500, 1000)
_PER_DISTANCE = (0.0, 250.0, 500.0, 1000.0)
_BLOCKS = (1, 2, 4)
_LEAST_DISTANCES = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Trial:
    """What one setting gave.

    Attributes
    ----------
    drivenSteps, drivenStepsPerDistance, stepsPerPerturbation, sigma
        The setting, as far as it has no unit of time.
    drivingStepSize, drivingFriction
        The rest of it [ps, 1/ps].
    n_jumps : int
        Jumps tried.
    acceptance : float
        Mean of their acceptance probabilities, by `start_weights` as all means; zero for those that were too near to be
        driven.
    seconds_per_jump : float
        Mean CPU time of one [s], relaxation included.
    speed : float
        Mean of acceptance times squared distance between the two centres, per CPU-second: how fast the slow coordinates
        would diffuse by jumps alone [squared slow coordinates / s].
    leastDrivenDistance
        Of the setting, too.
    """

    drivenSteps: int
    drivenStepsPerDistance: float
    stepsPerPerturbation: int
    sigma: float
    drivingStepSize: float
    drivingFriction: float
    n_jumps: int
    acceptance: float
    seconds_per_jump: float
    speed: float
    leastDrivenDistance: float = 0.0  # not in records of before

    @property
    def setting(self) -> dict[str, float]:
        """The keywords of `LatentIntegrator.setDriving`."""
        return {
            "drivenSteps": self.drivenSteps,
            "drivenStepsPerDistance": self.drivenStepsPerDistance,
            "stepsPerPerturbation": self.stepsPerPerturbation,
            "sigma": self.sigma,
            "drivingStepSize": self.drivingStepSize,
            "drivingFriction": self.drivingFriction,
            "leastDrivenDistance": self.leastDrivenDistance,
        }


@dataclass(frozen=True)
class Tuning:
    """The record of a tuning phase: every trial, and the one whose setting is in use from then on."""

    trials: list[Trial]
    chosen: Trial

    def write(self, path: str | Path) -> None:
        """Write the record as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n")


def tune_driving(
    simulation: Simulation,
    n_jumps: int = 50,
    sigmas: Sequence[float] = _SIGMAS,
    steps: Sequence[int] = _STEPS,
    blocks: Sequence[int] = _BLOCKS,
    per_distance: Sequence[float] = _PER_DISTANCE,
    step_shares: Sequence[float] = _STEP_SHARES,
    least_distances: Sequence[float] = _LEAST_DISTANCES,
    starts: np.ndarray | None = None,
    start_weights: Sequence[float] | None = None,
) -> Tuning:
    """Choose how the jumps of an exact-mode Simulation are driven; run it before production.

    One after another, six settings are varied while the others stay: the driven steps' size, the restraint's width,
    the driven steps, those for each unit of way, the steps per perturbation, and the least distance that is driven over
    rather than left to MD; the friction stays, and what has one candidate is set before all. The size comes first
    since its error is work as well, the more the larger the molecule: a pentapeptide whose relaxation takes 4 fs
    accepts ten times as many jumps driven at 2 fs.

    Each candidate makes jumps with the usual relaxation between them; that with the largest `Trial.speed` is kept. That
    is a noisy measure, carried by few long moves, which a tuning that stays in one state hardly sees: give it jumps
    enough, and where states are rare `starts` in each of them. The frames of the phase are no sample of production: add
    reporters after it. Its end is final: nothing adapts later, as an exact chain demands. Time and step count are put
    back, and with `starts` positions and velocities.

    Parameters
    ----------
    simulation : openmm.app.Simulation
        Whose integrator is a LatentIntegrator in exact mode, equilibrated.
    n_jumps : int
        Jumps a candidate makes.
    sigmas, steps, blocks, per_distance : sequence
        Candidates for `sigma`, `drivenSteps`, `stepsPerPerturbation` and `drivenStepsPerDistance`, in the units of
        `LatentModel.createIntegrator`.
    step_shares : sequence of float
        Candidates for `drivingStepSize`, as shares of what it is before.
    least_distances : sequence of float
        Candidates for `leastDrivenDistance`.
    starts : ndarray, optional
        (n_starts, n_particles, 3) [nm], frames such as training data has of each state, equally many of each: each
        jump is made after a relaxation from the next of these, and not from where the one before ended. They must fit
        the Simulation's box, if it has one.
    start_weights : sequence of float, optional
        (n_starts,) how often production jumps from such a frame, as far as one knows: the share of its state, divided
        by the state's number of starts. Without, a rare state counts as much as any other, and so does the time that
        its long drives take.

    Returns
    -------
    Tuning

    Raises
    ------
    LatentError
        The Simulation has another integrator or mode, reporters already, no candidate is given, or `starts` are of
        other atoms.
    """
    integrator = simulation.integrator
    require(
        isinstance(integrator, LatentIntegrator) and integrator.getMode() == LatentIntegrator.Exact,
        f"tune_driving needs a Simulation whose integrator is a LatentIntegrator in exact mode, got "
        f"{type(integrator).__name__}; make it with LatentModel.createIntegrator(..., mode='exact')",
    )
    require(1 <= n_jumps <= 10000, f"n_jumps must be at least 1 and at most 10000, got {n_jumps}; 50 is usual")
    require(
        not simulation.reporters,
        f"simulation must have no reporters yet, got {len(simulation.reporters)}: frames of the tuning phase are no "
        f"sample; add reporters after it",
    )
    require(
        min(map(len, (sigmas, steps, blocks, per_distance, step_shares, least_distances))) > 0,
        "sigmas, steps, blocks, per_distance, step_shares and least_distances must each give at least one candidate",
    )
    require(min(step_shares) > 0, f"step_shares must be positive, got {list(step_shares)}; 1 and 0.5 are usual")
    context = simulation.context
    if starts is not None:
        n_particles = context.getSystem().getNumParticles()
        require(
            np.ndim(starts) == 3
            and len(starts) > 0
            and np.shape(starts)[1:] == (n_particles, 3)
            and bool(np.isfinite(starts).all()),
            f"starts must be finite and of shape (n_starts, n_particles={n_particles}, 3) [nm], got "
            f"{np.shape(starts)}; give frames of all atoms of the Simulation",
        )
        before = context.getState(positions=True, velocities=True)
    if start_weights is not None:
        n_starts = 0 if starts is None else len(starts)
        require(
            np.shape(start_weights) == (n_starts,)
            and bool(np.isfinite(start_weights).all())
            and min(start_weights) > 0,
            f"start_weights must be positive numbers, one for each of {n_starts} starts, got {list(start_weights)}; "
            f"leave them out to count all alike",
        )
    start_time, start_step = context.getTime(), context.getStepCount()
    trials: list[Trial] = []
    candidates: dict[str, Sequence[float]] = {
        "drivingStepSize": [share * _step_size(integrator) for share in step_shares],
        "sigma": sigmas,
        "drivenSteps": steps,
        "drivenStepsPerDistance": per_distance,
        "stepsPerPerturbation": blocks,
        "leastDrivenDistance": least_distances,
    }
    varied = {name: values for name, values in candidates.items() if len(values) > 1}
    settled = {name: values[0] for name, values in candidates.items() if name not in varied}
    require(
        min(blocks) <= max(steps),
        f"blocks and steps: none of {list(blocks)} fits into any of {list(steps)}; give steps of at least a block",
    )
    setting = integrator.getDriving() | settled
    if setting["stepsPerPerturbation"] > setting["drivenSteps"]:  # what is varied begins where the other fits
        setting |= {"drivenSteps": max(steps)} if "drivenSteps" in varied else {"stepsPerPerturbation": min(blocks)}
    integrator.setDriving(**setting)
    for name, values in (varied or {"sigma": sigmas}).items():
        best: Trial | None = None
        for value in values:
            setting = {**integrator.getDriving(), name: value}
            if setting["stepsPerPerturbation"] > setting["drivenSteps"]:
                continue
            integrator.setDriving(**setting)
            trial = _try(simulation, n_jumps, starts, start_weights)
            trials.append(trial)
            if best is None or trial.speed > best.speed:
                best = trial
        require(best is not None, f"{name}: no candidate of {list(values)} fits the others; give other candidates")
        assert best is not None  # for mypy
        integrator.setDriving(**best.setting)
        chosen = best
    if starts is not None:
        context.setPeriodicBoxVectors(*before.getPeriodicBoxVectors())
        context.setPositions(before.getPositions())
        context.setVelocities(before.getVelocities())
    context.setTime(start_time)
    context.setStepCount(start_step)
    return Tuning(trials, chosen)


def _step_size(integrator: LatentIntegrator) -> float:
    """Return the size of the driven steps [ps]: the relaxation's where none is set."""
    size = integrator.getDriving()["drivingStepSize"]
    return float(size if size > 0 else integrator.getIntegrator(0).getStepSize().value_in_unit(picosecond))


def _try(
    simulation: Simulation, n_jumps: int, starts: np.ndarray | None, start_weights: Sequence[float] | None
) -> Trial:
    """Make jumps with relaxation between them and take their measure."""
    integrator, context = simulation.integrator, simulation.context
    if starts is not None and integrator.getStepsUntilJump() == 0:
        integrator.step(1)  # past a jump from elsewhere, which counts for nothing
    first = integrator.getNumJumps()
    velocities = context.getState(velocities=True).getVelocities(asNumpy=True)
    seconds: list[float] = []  # of each jump
    began = time.process_time()
    while len(seconds) < n_jumps:
        if starts is not None:
            context.setPositions(starts[len(seconds) % len(starts)])
            context.applyConstraints(integrator.getConstraintTolerance())
            context.setVelocities(velocities)  # or each projection on other constraints would cool them further
            context.applyVelocityConstraints(integrator.getConstraintTolerance())
        integrator.step(integrator.getJumpInterval() if starts is None else integrator.getStepsUntilJump() + 1)
        if integrator.getNumJumps() > first + len(seconds):
            now = time.process_time()
            seconds.append(now - began)
            began = now
    records = list(integrator.getJumpRecords(first))
    acceptances = [record.acceptance for record in records]
    gains = [
        record.acceptance * _squared_distance(record._from, record.to, integrator._getSlowPeriods(record.bundle))
        for record in records
    ]
    weights = np.ones(n_jumps) if start_weights is None else np.resize(start_weights, n_jumps)
    seconds_per_jump = float(np.average(seconds, weights=weights))
    driving = integrator.getDriving()
    return Trial(
        **driving | {"drivingStepSize": _step_size(integrator)},
        n_jumps=n_jumps,
        acceptance=float(np.average(acceptances, weights=weights)),
        seconds_per_jump=seconds_per_jump,
        speed=float(np.average(gains, weights=weights)) / seconds_per_jump,
    )


def _squared_distance(start: Sequence[float], end: Sequence[float], periods: Sequence[float]) -> float:
    """Return |end - start|², the short way round where a coordinate is an angle."""
    total = 0.0
    for a, b, period in zip(start, end, periods, strict=True):
        distance = b - a
        if period > 0:
            distance -= period * round(distance / period)
        total += distance**2
    return total
