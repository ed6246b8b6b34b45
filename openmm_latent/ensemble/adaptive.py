"""Rounds of sampling, judging and refitting, until free energies have converged.

Within a round the model is frozen. What is learned from a round serves the next one alone, and what a round says of
equilibrium does not hang on the model at all: relaxations are unbiased MD, and exact rounds are Boltzmann whatever
their network has learned. `judging` has both ways to judge, `refitting` makes the bundles.

| file of the store | what |
|---|---|
| `ensemble.json` | the campaign: settings, and each round's free energies |
| `round_00/` ... | an ensemble each |
| `round_00/starts/` | where its walkers start |
| `round_00/tuning.json` | exact rounds with `run.is_tuned`: how its walkers are driven, and what else was tried |
| `round_00/round.json` | what all rounds so far say of equilibrium |
| `models/model_01.latent.pt` ... | the bundle of each round but the first |
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from openmm_latent.analysis import State, trajectory_of
from openmm_latent.bundle import inspect_bundle
from openmm_latent.compiling import compile_bundle
from openmm_latent.data.resume import write_whole
from openmm_latent.ensemble.config import EnsembleConfig
from openmm_latent.ensemble.judging import Findings, read_rounds
from openmm_latent.ensemble.refitting import refit, train_first
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
        [ps] of relaxation that counts.
    bundle_sha256 : str
        Of the round's model.
    evidence : dict of str to dict
        Exact mode: what each number rests on.
    """

    number: int
    free_energies: dict[str, float | None]
    errors: dict[str, float | None]
    refusals: dict[str, str]
    md_time: float
    bundle_sha256: str
    evidence: dict[str, dict[str, float]] = field(default_factory=dict)

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
    require(config.adaptive is not None, "config key adaptive is missing; give the section, or run a plain ensemble")
    campaign = _Campaign(config)
    adaptive = campaign.adaptive
    _refuse_another(campaign)
    rounds: list[Round] = []
    config.out.mkdir(parents=True, exist_ok=True)
    if not (config.out / MARK).exists():
        _write_mark(campaign, rounds)
    for number in range(adaptive.rounds):
        bundle = campaign.bundle(number)
        if not bundle.exists():
            tell(f"round {number}: {'training' if number == 0 else adaptive.refit}, into {bundle.name}")
            _make_bundle(campaign, number)
        ensemble = _of_round(campaign, number)
        if config.is_exact and config.run.get("is_tuned"):
            ensemble = _tuned(ensemble, run_round, tell)
        tasks = open_store(ensemble)
        if any(task.n_saved < task.config.n_blocks for task in tasks):
            tell(f"round {number}: {len(tasks)} walkers with {bundle.name}")
            run_round(tasks, ensemble.out)
        rounds.append(_judge_round(campaign, number))
        _write_mark(campaign, rounds)
        tell(_line(rounds[-1]))
        if rounds[-1].has_converged(rounds[-2] if number else None, adaptive.error):
            tell(f"converged to {adaptive.error:g} kJ/mol after {number + 1} rounds")
            break
    return rounds[-1]


class _Campaign:
    """Where its files are, and what its rounds have found."""

    def __init__(self, config: EnsembleConfig) -> None:
        assert config.adaptive is not None
        assert isinstance(config.model, Path)
        assert isinstance(config.structure, Path)
        self.config, self.adaptive, self.first = config, config.adaptive, config.model
        self.name = config.structure.stem  # of the walkers' files
        self.states = [State.parse(text) for text in self.adaptive.states]
        self._found: tuple[int, Findings] | None = None

    def folder(self, number: int) -> Path:
        return self.config.out / f"round_{number:02d}"

    def bundle(self, number: int) -> Path:
        return self.first if number == 0 else self.config.out / "models" / f"model_{number:02d}.latent.pt"

    def findings(self, n_rounds: int) -> Findings:
        """Return what the first rounds have found; one round's are asked for again to refit and to start the next."""
        if self._found is None or self._found[0] != n_rounds:
            folders = [self.folder(number) for number in range(n_rounds)]
            config = self.config
            found = read_rounds(folders, self.name, self.states, self.adaptive, config.is_exact, config.seeds[0])
            self._found = n_rounds, found
        return self._found[1]


def _make_bundle(campaign: _Campaign, number: int) -> None:
    bundle, device = campaign.bundle(number), campaign.adaptive.compiled_for
    bundle.parent.mkdir(parents=True, exist_ok=True)
    made = bundle if device is None else bundle.with_name(f"plain_{bundle.name}")
    if number == 0:
        train_first(campaign.config, campaign.adaptive, campaign.first, made)
    else:
        refit(campaign.config, campaign.adaptive, campaign.findings(number), campaign.first, made)
    if device is not None:
        compile_bundle(made, bundle, device)
        made.unlink()


def _of_round(campaign: _Campaign, number: int) -> EnsembleConfig:
    """Return the ensemble of one round: its model, seeds and starts."""
    config, folder = campaign.config, campaign.folder(number)
    changes: dict[str, Any] = {
        "out": folder,
        "model": campaign.bundle(number),
        "adaptive": None,
        "seed": [seed + number * _SEED_STEP for seed in config.seeds],
    }
    if number > 0:
        starts = [folder / "starts" / f"{i:03d}" / f"{campaign.name}.pdb" for i in range(config.walkers)]
        if not all(path.exists() for path in starts):
            _choose_starts(campaign, number, starts)
        changes |= {"structure": starts, "starts": None}
    return replace(config, **changes)


def _choose_starts(campaign: _Campaign, number: int, starts: list[Path]) -> None:
    """Write a frame for each walker, drawn from all rounds before."""
    found = campaign.findings(number)
    place = {run.name: i for i, run in enumerate(found.runs)}
    owner = np.concatenate([np.full(len(part), place[part.run]) for part in found.segments])
    frame = np.concatenate([part.first_frame + np.arange(len(part)) for part in found.segments])
    weight = np.concatenate(found.start_weights)
    rng = np.random.default_rng([campaign.config.seeds[0], number])
    is_repeated = bool(np.count_nonzero(weight) < len(starts))
    chosen = rng.choice(len(frame), size=len(starts), replace=is_repeated, p=weight / weight.sum())
    for path, i in zip(starts, chosen, strict=True):
        table = found.tables[owner[i]]
        write_frame(table.with_name(f"{campaign.name}.pdb"), trajectory_of(table), int(frame[i]), path)


def _tuned(ensemble: EnsembleConfig, run_round: RunRound, tell: Callable[[str], None]) -> EnsembleConfig:
    """Return an exact round driven as a further walker finds best, whose frames are then thrown away.

    So no walker adapts, and all of a round are driven alike.
    """
    record = ensemble.out / "tuning.json"
    if not record.exists():
        hybrid = ensemble.hybrid(0, 300.0)
        alone = replace(
            ensemble,
            out=ensemble.out / "tuning",
            walkers=1,
            structure=ensemble.of("structure", 0),
            starts=None if ensemble.starts is None else replace(ensemble.starts, frames=None),
            seed=max(ensemble.seeds) + 1,
            run=ensemble.run | {"duration": hybrid.timestep * hybrid.steps_per_report},
        )
        tell(f"{ensemble.out.name}: tuning the driving")
        tasks = open_store(alone)
        run_round(tasks, alone.out)
        found = tasks[0].folder / f"{tasks[0].name}.tuning.json"
        write_whole(record, found.read_bytes())
    # also where it was cut between the two
    shutil.rmtree(ensemble.out / "tuning", ignore_errors=True)
    chosen = json.loads(record.read_text())["chosen"]
    driving = {
        "driven_steps": chosen["drivenSteps"],
        "steps_per_perturbation": chosen["stepsPerPerturbation"],
        "sigma": chosen["sigma"],
        "driving_timestep": chosen["drivingStepSize"],
        "driving_friction": chosen.get("drivingFriction", 1.0),  # of a record by a version before
        "driven_steps_per_distance": chosen.get("drivenStepsPerDistance", 0.0),
        "least_driven_distance": chosen.get("leastDrivenDistance", 0.0),
    }
    return replace(ensemble, run=ensemble.run | driving | {"is_tuned": False})


def _judge_round(campaign: _Campaign, number: int) -> Round:
    """Return what the rounds so far say, from round.json or by judging all of them."""
    file = campaign.folder(number) / "round.json"
    if file.exists():
        return Round(**json.loads(file.read_text()))
    findings = campaign.findings(number + 1)
    found = Round(
        number,
        {one.name: one.free_energy for one in findings.estimates},
        {one.name: one.error for one in findings.estimates},
        {one.name: one.refusal for one in findings.estimates if one.refusal},
        float(findings.md_time),
        inspect_bundle(campaign.bundle(number))["sha256"],
        {one.name: one.evidence for one in findings.estimates if one.evidence},
    )
    write_whole(file, (json.dumps(asdict(found), indent=1) + "\n").encode())
    return found


def _line(found: Round) -> str:
    told = []
    for name, value in found.free_energies.items():
        sd = found.errors[name]
        if value is None or sd is None:
            told.append(f"{name}: no number, as {found.refusals.get(name, 'the data do not suffice')}")
        else:
            told.append(f"{name}: {value:.2f} +- {sd:.2f} kJ/mol")
    return f"round {found.number}: {found.md_time / 1000:g} ns of relaxation; {'; '.join(told)}"


def _settings(campaign: _Campaign) -> dict[str, Any]:
    """Return what makes this campaign itself; rounds and their precision may change as it goes on."""
    config = campaign.config
    settings = {key: value for key, value in asdict(campaign.adaptive).items() if key not in ("rounds", "error")}
    settings |= {"model": config.model, "structure": config.structure, "walkers": config.walkers, "run": config.run}
    return json.loads(json.dumps(settings, default=str))


def _refuse_another(campaign: _Campaign) -> None:
    out = campaign.config.out
    mark = out / MARK
    if not mark.exists():
        return
    before = json.loads(mark.read_text()).get("adaptive")
    require(before is not None, f"out {out} holds a plain ensemble; give another folder for the campaign")
    for key, value in _settings(campaign).items():
        require(
            before.get(key, value) == value,
            f"out {out} holds a campaign with {key} {before.get(key)!r}, and {value!r} is asked for; give another "
            f"folder, or the same {key}",
        )


def _write_mark(campaign: _Campaign, rounds: list[Round]) -> None:
    found = {
        "code_version": __version__,
        "adaptive": _settings(campaign),
        "rounds": [asdict(one) for one in rounds],
    }
    write_whole(campaign.config.out / MARK, (json.dumps(found, indent=1) + "\n").encode())
