"""Rounds of sampling, reweighting and refitting, until free energies have converged.

Within a round the model is frozen. What is learned from a round's relaxations serves the next one alone, and what
they say of equilibrium does not hang on the model at all: they are unbiased MD.

| file of the store | what |
|---|---|
| `ensemble.json` | the campaign: settings, and each round's free energies |
| `round_00/` ... | an ensemble each |
| `round_00/starts/` | where its walkers start |
| `round_00/round.json` | what all rounds so far say of equilibrium |
| `models/model_01.latent.pt` ... | the bundle of each round but the first |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from openmm_latent.analysis import (
    ReweightConfig,
    Reweighting,
    Run,
    Segment,
    State,
    TorsionTable,
    find_runs,
    read_hybrid_run,
    require_one_ensemble,
    reweight,
    to_segments,
    trajectory_of,
)
from openmm_latent.bundle import inspect_bundle
from openmm_latent.data.resume import write_whole
from openmm_latent.data.trajectories import TrajectorySet, load_trajectories
from openmm_latent.ensemble.config import AdaptiveConfig, EnsembleConfig
from openmm_latent.ensemble.store import MARK, open_store, write_frame
from openmm_latent.ensemble.walkers import WalkerTask
from openmm_latent.errors import require
from openmm_latent.version import __version__

#: Between the seeds of two rounds.
_SEED_STEP = 100_003


@dataclass(frozen=True)
class Round:
    """What the rounds up to this one say.

    Attributes
    ----------
    number : int
        From 0.
    free_energies, errors : dict of str to float or None
        [kJ/mol] of each state against all others, and one standard deviation; None where the data do not suffice.
    refusals : dict of str to str
        Why there is no number.
    md_time : float
        [ps] of relaxation MD in the Markov model.
    bundle_sha256 : str
        Of the round's model.
    """

    number: int
    free_energies: dict[str, float | None]
    errors: dict[str, float | None]
    refusals: dict[str, str]
    md_time: float
    bundle_sha256: str

    def has_converged(self, before: Round | None, error: float) -> bool:
        """Whether each free energy is known to `error` [kJ/mol] and, within it, is what it was a round before."""
        if before is None:
            return False
        for name, now in self.free_energies.items():
            sd, then = self.errors[name], before.free_energies.get(name)
            if now is None or then is None or sd is None or sd > error or abs(now - then) > error:
                return False
        return True


#: Runs the walkers of one round: (tasks, folder of the round).
RunRound = Callable[[list[WalkerTask], Path], None]


def run_adaptive(config: EnsembleConfig, run_round: RunRound, tell: Callable[[str], None] = lambda line: None) -> Round:
    """Run rounds until the free energies have converged, or as many as the file allows; made again, it goes on.

    Parameters
    ----------
    config : EnsembleConfig
        With an `adaptive` section. Its model is trained on `adaptive.training` if it is not there.
    run_round : callable
        Runs walkers to their ends, such as `run_walkers` on a cluster.
    tell : callable
        Told one line at a time what happens.

    Returns
    -------
    Round
        The last.

    Raises
    ------
    LatentError
        A file is missing or does not fit, or the folder holds another campaign.
    """
    adaptive = config.adaptive
    require(adaptive is not None, "config key adaptive is missing; give the section, or run a plain ensemble")
    assert adaptive is not None
    states = [State.parse(text) for text in adaptive.states]
    _refuse_another(config, adaptive)
    rounds: list[Round] = []
    config.out.mkdir(parents=True, exist_ok=True)
    if not (config.out / MARK).exists():
        _write_mark(config, adaptive, rounds)
    for number in range(adaptive.rounds):
        folder = config.out / f"round_{number:02d}"
        bundle = _bundle(config, adaptive, number)
        if not bundle.exists():
            tell(f"round {number}: {'training' if number == 0 else adaptive.refit}, into {bundle.name}")
            _make_bundle(config, adaptive, number, bundle, states)
        tasks = open_store(_of_round(config, adaptive, number, folder, bundle, states))
        if any(task.n_saved < task.config.n_blocks for task in tasks):
            tell(f"round {number}: {len(tasks)} walkers with {bundle.name}")
            run_round(tasks, folder)
        rounds.append(_judge_round(config, adaptive, number, folder, bundle, states))
        _write_mark(config, adaptive, rounds)
        tell(_line(rounds[-1]))
        if rounds[-1].has_converged(rounds[-2] if number else None, adaptive.error):
            tell(f"converged to {adaptive.error:g} kJ/mol after {number + 1} rounds")
            break
    return rounds[-1]


def _bundle(config: EnsembleConfig, adaptive: AdaptiveConfig, number: int) -> Path:
    assert isinstance(config.model, Path)
    return config.model if number == 0 else config.out / "models" / f"model_{number:02d}.latent.pt"


def _of_round(
    config: EnsembleConfig, adaptive: AdaptiveConfig, number: int, folder: Path, bundle: Path, states: list[State]
) -> EnsembleConfig:
    """Return the ensemble of one round: its model, seeds and starts."""
    changes: dict[str, Any] = {
        "out": folder,
        "model": bundle,
        "adaptive": None,
        "seed": [seed + number * _SEED_STEP for seed in config.seeds],
    }
    if number > 0:
        starts = [folder / "starts" / f"{i:03d}" / f"{_name(config)}.pdb" for i in range(config.walkers)]
        if not all(path.exists() for path in starts):
            _choose_starts(config, adaptive, number, starts, states)
        changes |= {"structure": starts, "starts": None}
    return replace(config, **changes)


def _name(config: EnsembleConfig) -> str:
    assert isinstance(config.structure, Path)
    return config.structure.stem


def _analyse(
    config: EnsembleConfig, adaptive: AdaptiveConfig, n_rounds: int, states: list[State]
) -> tuple[Reweighting, list[Run], list[Path]]:
    """Reweight the relaxations of the first rounds; return the result, the runs and their jump tables."""
    tables = find_runs([config.out / f"round_{number:02d}" for number in range(n_rounds)])
    torsions = TorsionTable.from_topology(tables[0].with_name(f"{_name(config)}.pdb"))
    for state in states:
        state.require_known(torsions)
    runs = [read_hybrid_run(table, torsions) for table in tables]
    require_one_ensemble(runs)
    settings = ReweightConfig(
        temperature=float(runs[0].facts["temperature"]),
        lag_time=adaptive.markov_lag_time,
        dropped_time=adaptive.dropped_time,
        n_microstates=adaptive.n_microstates,
        seed=config.seeds[0],
    )
    segments = to_segments(runs, torsions, states, [])
    result = reweight(segments, runs[0].frame_spacing, [state.name for state in states], settings)
    return result, runs, tables


def _judge_round(
    config: EnsembleConfig, adaptive: AdaptiveConfig, number: int, folder: Path, bundle: Path, states: list[State]
) -> Round:
    """Return what the rounds so far say, from round.json or by reweighting all of their segments."""
    file = folder / "round.json"
    if file.exists():
        return Round(**json.loads(file.read_text()))
    result, _, _ = _analyse(config, adaptive, number + 1, states)
    found = Round(
        number,
        {one.name: one.free_energy for one in result.populations},
        {one.name: one.free_energy_sd for one in result.populations},
        {one.name: "; ".join(one.refusals) for one in result.populations if one.refusals},
        float(sum(len(part) for part in result.segments) * result.frame_spacing),
        inspect_bundle(bundle)["sha256"],
    )
    write_whole(file, (json.dumps(asdict(found), indent=1) + "\n").encode())
    return found


def _choose_starts(
    config: EnsembleConfig, adaptive: AdaptiveConfig, number: int, starts: Sequence[Path], states: list[State]
) -> None:
    """Write a frame for each walker, more often from microstates that few relaxations have seen.

    Source: least-counts adaptive sampling, G. R. Bowman, D. L. Ensign & V. S. Pande, J. Chem. Theory Comput. 6, 787
    (2010).
    """
    result, runs, tables = _analyse(config, adaptive, number, states)
    place = {run.name: i for i, run in enumerate(runs)}
    owner = np.concatenate([np.full(len(part), place[part.run]) for part in result.segments])
    frame = np.concatenate([part.first_frame + np.arange(len(part)) for part in result.segments])
    labels = np.concatenate(result.labels) if result.labels else np.zeros(len(frame), dtype=int)
    weight = 1.0 / np.bincount(labels)[labels]
    rng = np.random.default_rng([config.seeds[0], number])
    chosen = rng.choice(len(frame), size=len(starts), replace=len(frame) < len(starts), p=weight / weight.sum())
    for path, i in zip(starts, chosen, strict=True):
        table = tables[owner[i]]
        write_frame(table.with_name(f"{_name(config)}.pdb"), trajectory_of(table), int(frame[i]), path)


def _make_bundle(
    config: EnsembleConfig, adaptive: AdaptiveConfig, number: int, bundle: Path, states: list[State]
) -> None:
    """Train the first model, or refit it on the relaxations of all rounds before."""
    from openmm_latent.training import train_gldp

    bundle.parent.mkdir(parents=True, exist_ok=True)
    first = _bundle(config, adaptive, 0)
    assert isinstance(config.structure, Path)
    data = load_trajectories(config.structure, adaptive.training)
    settings: dict[str, Any] = {
        "config": adaptive.config,
        "propagator": adaptive.propagator,
        "seed": config.seeds[0],
        "out": bundle,
        "progress": False,
        # one folder for all rounds: the autoencoder of the first is found there
        "work_directory": Path(f"{first}.work"),
    }
    if number == 0:
        require(
            adaptive.lag_time is not None,
            f"config key adaptive.lag_time is missing; give it, as model {bundle} is to be trained",
        )
        train_gldp(data, lag_time=float(adaptive.lag_time or 0), **settings)
        return
    lag_time = adaptive.lag_time or float(inspect_bundle(first)["lag_time"])
    result, runs, tables = _analyse(config, adaptive, number, states)
    series = _series(config, data, result.segments, runs, tables)
    if adaptive.refit == "koopman":
        train_gldp(data, lag_time=lag_time, series=series, **{**settings, "propagator": "koopman"})
    else:
        train_gldp(series, lag_time=lag_time, **settings)


def _series(
    config: EnsembleConfig, data: TrajectorySet, segments: list[Segment], runs: list[Run], tables: list[Path]
) -> TrajectorySet:
    """Return the positions of relaxation segments as training data, one entry a segment."""
    files = [trajectory_of(table) for table in tables]
    whole = load_trajectories(tables[0].with_name(f"{_name(config)}.pdb"), files, atoms=data.model_atoms)
    place = {run.name: i for i, run in enumerate(runs)}
    # a single frame has no successor
    used = [part for part in segments if len(part) >= 2]
    positions = [whole.positions[place[part.run]][part.first_frame : part.first_frame + len(part)] for part in used]
    names = [str(files[place[part.run]]) for part in used]
    facts = {key: runs[0].facts.get(key) for key in ("temperature", "force_field")}
    return replace(
        whole, positions=positions, files=names, digest=f"{whole.digest} {len(used)} segments", provenance=facts
    )


def _line(found: Round) -> str:
    told = []
    for name, value in found.free_energies.items():
        sd = found.errors[name]
        if value is None or sd is None:
            told.append(f"{name}: no number, as {found.refusals.get(name, 'the data do not suffice')}")
        else:
            told.append(f"{name}: {value:.2f} +- {sd:.2f} kJ/mol")
    return f"round {found.number}: {found.md_time / 1000:g} ns of relaxation; {'; '.join(told)}"


def _settings(config: EnsembleConfig, adaptive: AdaptiveConfig) -> dict[str, Any]:
    """Return what makes this campaign itself; rounds and their precision may change as it goes on."""
    settings = {key: value for key, value in asdict(adaptive).items() if key not in ("rounds", "error")}
    settings |= {"model": config.model, "structure": config.structure, "walkers": config.walkers, "run": config.run}
    return json.loads(json.dumps(settings, default=str))


def _refuse_another(config: EnsembleConfig, adaptive: AdaptiveConfig) -> None:
    mark = config.out / MARK
    if not mark.exists():
        return
    before = json.loads(mark.read_text()).get("adaptive")
    require(before is not None, f"out {config.out} holds a plain ensemble; give another folder for the campaign")
    for key, value in _settings(config, adaptive).items():
        require(
            before.get(key) == value,
            f"out {config.out} holds a campaign with {key} {before.get(key)!r}, and {value!r} is asked for; give "
            f"another folder, or the same {key}",
        )


def _write_mark(config: EnsembleConfig, adaptive: AdaptiveConfig, rounds: list[Round]) -> None:
    found = {
        "code_version": __version__,
        "adaptive": _settings(config, adaptive),
        "rounds": [asdict(r) for r in rounds],
    }
    write_whole(config.out / MARK, (json.dumps(found, indent=1) + "\n").encode())
