"""The YAML file of an ensemble: read, checked, and told in one sentence what is wrong with it."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from openmm_latent.errors import LatentError, require
from openmm_latent.hybrid import HybridConfig
from openmm_latent.propagators.proposal import ProposalConfig

#: Keys of a walker's own, which stand at the top level of the file.
_OF_WALKERS = ("temperature", "seed")
#: Of a walker in an exact campaign.
_FEWEST_FRAMES = 10


@dataclass(frozen=True)
class StartsConfig:
    """Frames of a trajectory that walkers start from."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    trajectory: Path  # of all atoms of the structure
    frames: list[int] | None = None  # one a walker, from 0; None: spread evenly


@dataclass(frozen=True)
class SlurmConfig:
    """Jobs of the kind "slurm"; each runs as many workers as `workers_per_job`."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    queue: str | None = None
    account: str | None = None
    walltime: str = "04:00:00"
    memory: str = "4GB"  # of a job
    workers_per_job: int = 1
    cores_per_worker: int = 1
    gpus_per_job: int = 0  # or 1, which the workers of the job share
    setup: list[str] = field(default_factory=list)  # lines of the job script before the workers, as `module load`
    directives: list[str] = field(default_factory=list)  # further ones, as "--qos=long"
    interface: str | None = None  # network that workers reach the scheduler by, as "ib0"
    logs: str | None = None  # folder of the jobs' output; None: logs in `out`


@dataclass(frozen=True)
class ClusterConfig:
    """Where walkers run."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["local", "address", "slurm"] = "local"
    workers: int | None = None  # processes; None: as many as cores (local), one a walker (slurm)
    address: str | None = None  # of a running scheduler, as "tcp://node01:8786"
    scheduler_file: Path | None = None  # or the file that `dask scheduler --scheduler-file` wrote
    dashboard: int = 8787  # port of the live dashboard; another is taken if it is in use
    slurm: SlurmConfig = field(default_factory=SlurmConfig)


@dataclass(frozen=True)
class AdaptiveConfig:
    """Rounds of sampling, judging and refitting."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    states: list[str]  # whose free energies must converge, as "left=phi>0"
    rounds: int = 5  # at most
    error: float = 1.0  # [kJ/mol] of each free energy, at which the rounds end, if it changed by no more
    training: list[Path] = field(default_factory=list)  # what the first model was, or is to be, trained on

    # "koopman" keeps the autoencoder, and fits a propagator in closed form, slow coordinates and proposals anew;
    # "retrain" trains the whole model on relaxations alone
    refit: Literal["koopman", "retrain"] = "koopman"
    lag_time: float | None = None  # [ps] of the refitted model; None: the first model's
    config: str = "tiny"  # size of the model
    propagator: Literal["autoregressive", "koopman", "langevin"] = "koopman"  # of the first model and of `retrain`
    slow_features: Literal["auto", "torsions", "angles", "backbone", "latent"] = "auto"  # as `train gldp` has them
    proposal: dict[str, Any] = field(default_factory=dict)  # of ProposalConfig, as broad_weight
    compiled_for: Literal["cpu", "cuda"] | None = None  # compiles bundles, as `export --runner aoti`

    # mode exact
    burn_in: float = 0.2  # share of each walker that does not count

    # other modes, whose relaxations are reweighted
    dropped_time: float | None = None  # [ps] after each accepted jump; None lets a test choose
    markov_lag_time: float | None = None  # [ps]; None chooses
    n_microstates: int = 40

    @property
    def proposal_config(self) -> ProposalConfig:
        """How the kernels of the exact mode are fitted."""
        config: ProposalConfig = _validated(ProposalConfig, self.proposal, "adaptive.proposal")
        return config


@dataclass(frozen=True)
class EnsembleConfig:
    """What to run. Paths are taken from the folder of the YAML file."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    structure: Path | list[Path]  # PDB of the system; or one a walker
    model: Path | list[Path]  # bundle; or one a walker
    out: Path  # the store: one folder with a folder a walker
    walkers: int
    temperature: float | list[float] | None = None  # [K]; None: that of the training data
    seed: int | list[int] = 1  # walker i has seed + i, unless a list says otherwise
    starts: StartsConfig | None = None  # None: each from the structure
    run: dict[str, Any] = field(default_factory=dict)  # of HybridConfig, the settings of `simulate`
    platform: str | None = None  # of OpenMM; None chooses
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    adaptive: AdaptiveConfig | None = None

    def check(self) -> None:
        """Raise `LatentError` for values that cannot run."""
        require(self.walkers >= 1, f"config key walkers must be at least 1, got {self.walkers}")
        for key in ("structure", "model", "temperature", "seed"):
            value = getattr(self, key)
            require(
                not isinstance(value, list) or len(value) == self.walkers,
                f"config key {key} must be one value or a list of {self.walkers}, one a walker, got a list of "
                f"{len(value) if isinstance(value, list) else 1}",
            )
        seeds = self.seeds
        require(
            len(set(seeds)) == len(seeds),
            f"config key seed must give each walker its own, got {seeds}; walkers of one seed draw the same noise",
        )
        for key in _OF_WALKERS:
            require(key not in self.run, f"config key run.{key} is a walker's own; write {key} at the top level")
        for i in range(self.walkers):
            self.hybrid(i, 300.0)
        frames = None if self.starts is None else self.starts.frames
        require(
            frames is None or len(frames) == self.walkers,
            f"config key starts.frames must have {self.walkers} numbers, one a walker, got {len(frames or [])}",
        )
        _check_cluster(self.cluster)
        if self.adaptive is not None:
            _check_adaptive(self)

    @property
    def is_exact(self) -> bool:
        """Whether frames are Boltzmann as they are."""
        return self.run.get("mode") == "exact"

    @property
    def seeds(self) -> list[int]:
        """One a walker."""
        return self.seed if isinstance(self.seed, list) else [self.seed + i for i in range(self.walkers)]

    def of(self, key: str, walker: int) -> Any:
        """Return a walker's value of a key that takes one value or a list."""
        value = getattr(self, key)
        return value[walker] if isinstance(value, list) else value

    def hybrid(self, walker: int, trained_at: float | None) -> HybridConfig:
        """Return a walker's settings; `trained_at` [K] is taken where the file names no temperature."""
        temperature = self.of("temperature", walker)
        temperature = trained_at if temperature is None else temperature
        require(
            temperature is not None,
            f"bundle {self.of('model', walker)} does not say at which temperature its data was made; give the config "
            f"key temperature",
        )
        values = {**self.run, "temperature": temperature, "seed": self.seeds[walker]}
        config = _validated(HybridConfig, values, "run")
        try:
            config.check()
        except LatentError as error:
            raise LatentError(f"config key run: {error}") from error
        return config


def load_config(path: Path) -> EnsembleConfig:
    """Read the YAML file of an ensemble.

    Raises
    ------
    LatentError
        It is not there, no YAML, or a key is unknown, missing or has a wrong value; the sentence names the key.
    """
    require(path.is_file(), f"config {path} does not exist; give a YAML file")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LatentError(f"config {path} is not valid YAML ({' '.join(str(error).split())}); mend it") from error
    require(isinstance(content, dict), f"config {path} must hold keys and values, got {type(content).__name__}")
    config: EnsembleConfig = _located(_validated(EnsembleConfig, content, ""), path.resolve().parent)
    config.check()
    return config


def _validated(kind: Any, values: dict[str, Any], section: str) -> Any:
    """Return the dataclass of these values, or raise one sentence on the first of them that is wrong."""
    known = {one.name for one in fields(kind)}
    for key in values:
        where = f"{section}.{key}" if section else key
        require(key in known, _unknown(where, str(key), known))
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
    keys = [str(part) for part in first["loc"] if not re.search(r"\W|^(float|int|path|list|dict)$", str(part))]
    where = ".".join([section, *keys] if section else keys)
    if first["type"] == "missing":
        raise LatentError(f"config key {where} is missing; give it")
    if first["type"] == "unexpected_keyword_argument":
        raise LatentError(_unknown(where, keys[-1], _keys_of(kind, keys[:-1])))
    raise LatentError(f"config key {where} is wrong: {first['msg'].lower()}, got {first['input']!r}")


def _unknown(where: str, key: str, known: set[str]) -> str:
    near = difflib.get_close_matches(key, sorted(known), 1)
    advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
    return f"config key {where} is unknown; {advice}"


def _keys_of(kind: Any, keys: list[str]) -> set[str]:
    """Return the keys of the section that `keys` lead to."""
    for key in keys:
        hint = get_type_hints(kind)[key]
        kind = next(one for one in (hint, *get_args(hint)) if is_dataclass(one))
    return {one.name for one in fields(kind)}


def _located(value: Any, folder: Path) -> Any:
    """Return the configuration with its relative paths taken from a folder."""
    if isinstance(value, Path):
        return folder / value
    if isinstance(value, list):
        return [_located(one, folder) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: _located(getattr(value, one.name), folder) for one in fields(value)})
    return value


def _check_cluster(cluster: ClusterConfig) -> None:
    require(
        cluster.workers is None or cluster.workers >= 1,
        f"config key cluster.workers must be at least 1, got {cluster.workers}",
    )
    n_places = (cluster.address is not None) + (cluster.scheduler_file is not None)
    require(
        n_places == (cluster.kind == "address"),
        f"config keys cluster.address and cluster.scheduler_file name a running scheduler: give one of them with "
        f"cluster.kind address, and none with another, got kind {cluster.kind} and {n_places} of them",
    )
    for key in ("workers_per_job", "cores_per_worker"):
        value = getattr(cluster.slurm, key)
        require(value >= 1, f"config key cluster.slurm.{key} must be at least 1, got {value}")
    n_gpus = cluster.slurm.gpus_per_job
    require(
        n_gpus in (0, 1),
        f"config key cluster.slurm.gpus_per_job must be 0 or 1, got {n_gpus}; all workers of a job would take its "
        f"first GPU, so ask for more jobs (cluster.workers)",
    )


def _check_adaptive(config: EnsembleConfig) -> None:
    adaptive = config.adaptive
    assert adaptive is not None
    require(len(adaptive.states) > 0, "config key adaptive.states is empty; name a state, as 'left=phi>0'")
    require(adaptive.rounds >= 1, f"config key adaptive.rounds must be at least 1, got {adaptive.rounds}")
    require(adaptive.error > 0, f"config key adaptive.error must be positive, got {adaptive.error} kJ/mol")
    require(
        len(adaptive.training) > 0,
        "config key adaptive.training is empty; name the trajectories that the first model was trained on",
    )
    for key in ("structure", "model", "temperature"):
        require(
            not isinstance(getattr(config, key), list),
            f"config key {key} must be one value in an adaptive campaign, got a list: one Markov model describes one "
            f"ensemble",
        )
    _ = adaptive.proposal_config
    hybrid = config.hybrid(0, 300.0)
    if config.is_exact:
        _check_exact(adaptive, hybrid)
        return
    n_frames = hybrid.jump_interval // hybrid.steps_per_report
    require(
        n_frames >= 4,
        f"config key run.report_interval must let an adaptive campaign see at least 4 frames between two jumps, got "
        f"{n_frames}; give at most {hybrid.jump_interval // 4} steps",
    )


def _check_exact(adaptive: AdaptiveConfig, hybrid: HybridConfig) -> None:
    require(
        0 < adaptive.burn_in < 1,
        f"config key adaptive.burn_in must lie between 0 and 1, a share of each walker, got {adaptive.burn_in}",
    )
    for key in ("dropped_time", "markov_lag_time"):
        require(
            getattr(adaptive, key) is None,
            f"config key adaptive.{key} is of reweighting, which frames of run.mode exact do not need, got "
            f"{getattr(adaptive, key)}; leave it out",
        )
    require(
        hybrid.n_blocks >= _FEWEST_FRAMES,
        f"config key run.duration must give a walker of an exact campaign at least {_FEWEST_FRAMES} frames, got "
        f"{hybrid.n_blocks}; run longer, or write frames more often (run.report_interval)",
    )
