"""What the walkers of the rounds so far say of each state, and what they leave to the next round.

Guarded and exploratory rounds are reweighted: a Markov model of all their relaxations gives equilibrium. An exact round
is Boltzmann for its own frozen model, whatever that has learned, so frames of all rounds are averaged as they are. Two
rules keep the average honest:

- A walker's first `burn_in`, a share that is fixed before anything is seen, does not count. There it forgets where it
  started: at the first structure, or in a later round at a frame drawn evenly from those that count, which lets errors
  of earlier rounds live on no longer than the burn-in.
- A state has no number if it was entered or left fewer than `FEWEST_CROSSINGS` times, or if its correlation time, the
  frames' time over the effective samples, is longer than the burn-in of the shortest walker: walkers that have not
  forgotten their starts tell of those. At the limit, with exponential memory and a fifth dropped, 2 % of what starts
  are off by is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from openmm_latent.analysis import (
    ReweightConfig,
    Run,
    Segment,
    State,
    TorsionTable,
    find_runs,
    read_hybrid_run,
    require_one_ensemble,
    reweight,
    to_segments,
)
from openmm_latent.analysis.results import GAS_CONSTANT
from openmm_latent.ensemble.config import AdaptiveConfig
from openmm_latent.metrics import effective_sample_size

#: Entries and exits of a state, each, that its free energy needs.
FEWEST_CROSSINGS = 5


@dataclass(frozen=True)
class Estimate:
    """What is known of one state: a number, or why there is none."""

    name: str
    refusal: str = ""
    free_energy: float | None = None  # [kJ/mol] -RT ln(p / (1 - p)), of the state against all others
    error: float | None = None  # [kJ/mol] one standard deviation
    evidence: dict[str, float] = field(default_factory=dict)  # exact mode: crossings, effective samples, times [ps]


@dataclass(frozen=True)
class Findings:
    """What some rounds have found.

    Attributes
    ----------
    estimates : list of Estimate
        One a state.
    md_time : float
        [ps] of relaxation that counts.
    segments : list of Segment
        MD without accepted jumps, on which the next model is fitted.
    start_weights : list of np.ndarray
        (n_frames,) of each segment: how readily the next round starts from a frame.
    runs : list of Run
    tables : list of Path
        The runs' jump tables.
    """

    estimates: list[Estimate]
    md_time: float
    segments: list[Segment]
    start_weights: list[np.ndarray]
    runs: list[Run]
    tables: list[Path]


def read_rounds(
    folders: Sequence[Path], name: str, states: Sequence[State], adaptive: AdaptiveConfig, is_exact: bool, seed: int
) -> Findings:
    """Read all walkers of some rounds and judge them together.

    Parameters
    ----------
    folders : sequence of Path
        A store each.
    name : str
        Of the walkers' files.
    seed : int
        Of the reweighting.

    Raises
    ------
    LatentError
        Files are missing or do not fit, or the molecule lacks a state's torsion.
    """
    tables = find_runs(folders)
    torsions = TorsionTable.from_topology(tables[0].with_name(f"{name}.pdb"))
    for state in states:
        state.require_known(torsions)
    runs = [read_hybrid_run(table, torsions, is_for_reweighting=not is_exact) for table in tables]
    require_one_ensemble(runs)
    segments = to_segments(runs, torsions, states, [])
    temperature, spacing = float(runs[0].facts["temperature"]), runs[0].frame_spacing
    if not is_exact:
        estimates, segments, weights = _judge_relaxations(segments, spacing, states, temperature, adaptive, seed)
        return Findings(estimates, spacing * sum(map(len, segments)), segments, weights, runs, tables)
    n_dropped = {run.name: _n_dropped(len(run.torsions), adaptive.burn_in) for run in runs}
    estimates = [
        judge_visits(
            state.name, [state.holds(torsions, run.torsions) for run in runs], spacing, temperature, adaptive.burn_in
        )
        for state in states
    ]
    counts = [part.first_frame + np.arange(len(part)) >= n_dropped[part.run] for part in segments]
    md_time = spacing * float(sum(count.sum() for count in counts))
    return Findings(estimates, md_time, segments, [count.astype(float) for count in counts], runs, tables)


def _judge_relaxations(
    segments: list[Segment],
    spacing: float,
    states: Sequence[State],
    temperature: float,
    adaptive: AdaptiveConfig,
    seed: int,
) -> tuple[list[Estimate], list[Segment], list[np.ndarray]]:
    """Reweight; return estimates, the segments that were kept, and start weights.

    Starts come more often from microstates that few relaxations have seen.

    Source: least-counts adaptive sampling, G. R. Bowman, D. L. Ensign & V. S. Pande, J. Chem. Theory Comput. 6, 787
    (2010).
    """
    settings = ReweightConfig(
        temperature=temperature,
        lag_time=adaptive.markov_lag_time,
        dropped_time=adaptive.dropped_time,
        n_microstates=adaptive.n_microstates,
        seed=seed,
    )
    result = reweight(segments, spacing, [state.name for state in states], settings)
    estimates = [
        Estimate(one.name, "; ".join(one.refusals), one.free_energy, one.free_energy_sd) for one in result.populations
    ]
    labels = result.labels or [np.zeros(len(part), dtype=int) for part in result.segments]
    n_frames = np.bincount(np.concatenate(labels))
    return estimates, result.segments, [1.0 / n_frames[label] for label in labels]


def _n_dropped(n_frames: int, burn_in: float) -> int:
    return math.ceil(burn_in * n_frames)


def judge_visits(
    name: str, is_in: Sequence[np.ndarray], frame_spacing: float, temperature: float, burn_in: float
) -> Estimate:
    """Return a state's free energy from the frames of exact walkers.

    Parameters
    ----------
    name : str
    is_in : list of array of bool, (n_frames,)
        Which frames are in the state, one array a walker.
    frame_spacing : float [ps]
    temperature : float [K]
    burn_in : float
        Share of each walker that is dropped.

    Notes
    -----
    The error is RT / sqrt(n p (1 - p)) with n effective samples, of one mean for all walkers: those that are stuck
    count about one apiece. Where rounds move differently, n holds the mean of their correlation times, which is what
    the error of the common mean depends on.
    """
    kept = [part[_n_dropped(len(part), burn_in) :] for part in is_in]
    steps = np.concatenate([np.diff(part.astype(int)) for part in kept])
    n_entries, n_exits = int((steps > 0).sum()), int((steps < 0).sum())
    evidence: dict[str, float] = {"n_entries": n_entries, "n_exits": n_exits}
    if min(n_entries, n_exits) < FEWEST_CROSSINGS:
        refusal = (
            f"after the burn-in it was entered {n_entries} and left {n_exits} times, fewer than {FEWEST_CROSSINGS} "
            f"each: run longer (run.duration) or further rounds, or start walkers in it, too (starts)"
        )
        return Estimate(name, refusal, evidence=evidence)
    everything = np.concatenate(kept)
    share, size = float(everything.mean()), effective_sample_size([part.astype(float) for part in kept])
    correlation_time = frame_spacing * len(everything) / size
    shortest = frame_spacing * min(_n_dropped(len(part), burn_in) for part in is_in)
    evidence |= {"effective_samples": size, "correlation_time": correlation_time, "burn_in": shortest}
    if correlation_time > shortest:
        refusal = (
            f"walkers remember their starts for longer ({correlation_time:.3g} ps) than is dropped of each "
            f"({shortest:.3g} ps): run longer (run.duration), or drop more (adaptive.burn_in)"
        )
        return Estimate(name, refusal, evidence=evidence)
    rt = GAS_CONSTANT * temperature
    free_energy = -rt * math.log(share / (1.0 - share))
    return Estimate(name, "", free_energy, rt / math.sqrt(size * share * (1.0 - share)), evidence)
