"""The bundle of each round: trained for the first, refitted on the relaxations of all rounds before for the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from openmm_latent.analysis import trajectory_of
from openmm_latent.bundle import inspect_bundle
from openmm_latent.data.trajectories import TrajectorySet, load_trajectories
from openmm_latent.ensemble.config import AdaptiveConfig, EnsembleConfig
from openmm_latent.ensemble.judging import Findings
from openmm_latent.errors import require


def train_first(config: EnsembleConfig, adaptive: AdaptiveConfig, first: Path, bundle: Path) -> None:
    """Train the first model, and write it as `bundle`.

    Raises
    ------
    LatentError
        The file names no lag time, or as `train_gldp`.
    """
    from openmm_latent.training import train_gldp

    require(
        adaptive.lag_time is not None,
        f"config key adaptive.lag_time is missing; give it, as model {first} is to be trained",
    )
    assert adaptive.lag_time is not None
    data, settings = _data(config, adaptive), _settings(config, adaptive, first, bundle)
    train_gldp(data, lag_time=adaptive.lag_time, **settings)


def refit(config: EnsembleConfig, adaptive: AdaptiveConfig, findings: Findings, first: Path, bundle: Path) -> None:
    """Fit the model of the next round on all relaxations so far.

    Parameters
    ----------
    findings : Findings
        Of the rounds before.
    first, bundle : Path
        The model of the first round, and the one to write.

    Raises
    ------
    LatentError
        As `train_gldp`, as where no relaxation is longer than the lag time.
    """
    from openmm_latent.training import train_gldp

    lag_time = adaptive.lag_time or float(inspect_bundle(first)["lag_time"])
    data, settings = _data(config, adaptive), _settings(config, adaptive, first, bundle)
    series = _series(data, findings)
    if adaptive.refit == "koopman":
        train_gldp(data, lag_time=lag_time, series=series, **{**settings, "propagator": "koopman"})
    else:
        train_gldp(series, lag_time=lag_time, **settings)


def _data(config: EnsembleConfig, adaptive: AdaptiveConfig) -> TrajectorySet:
    assert isinstance(config.structure, Path)
    return load_trajectories(config.structure, adaptive.training)


def _settings(config: EnsembleConfig, adaptive: AdaptiveConfig, first: Path, bundle: Path) -> dict[str, Any]:
    return {
        "config": adaptive.config,
        "propagator": adaptive.propagator,
        "slow_features": adaptive.slow_features,
        "proposal_config": adaptive.proposal_config,
        "seed": config.seeds[0],
        "out": bundle,
        "progress": False,
        # one folder for all rounds: the autoencoder of the first is found there
        "work_directory": Path(f"{first}.work"),
    }


def _series(data: TrajectorySet, findings: Findings) -> TrajectorySet:
    """Return the positions of the segments as training data, one entry a segment."""
    tables, runs = findings.tables, findings.runs
    files = [trajectory_of(table) for table in tables]
    top = tables[0].with_name(tables[0].name.removesuffix(".latent.csv") + ".pdb")
    whole = load_trajectories(top, files, atoms=data.model_atoms)
    place = {run.name: i for i, run in enumerate(runs)}
    # single frames, too: they have no successor, but where jumps are often accepted there is little else
    used = [part for part in findings.segments if len(part) > 0]
    positions = [whole.positions[place[part.run]][part.first_frame : part.first_frame + len(part)] for part in used]
    names = [str(files[place[part.run]]) for part in used]
    facts = {key: runs[0].facts.get(key) for key in ("temperature", "force_field")}
    return replace(
        whole, positions=positions, files=names, digest=f"{whole.digest} {len(used)} segments", provenance=facts
    )
