"""A sample against a reference: everything that is measured, in one call."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from openmm_latent.data.trajectories import TrajectorySet
from openmm_latent.errors import require
from openmm_latent.report.comparison import Comparison, check_lags
from openmm_latent.report.drawings import collect_drawings
from openmm_latent.report.ensembles import Ensemble, Reader, open_reader
from openmm_latent.report.peers import check_peers
from openmm_latent.report.results import Evaluation
from openmm_latent.report.settings import EvaluationSettings
from openmm_latent.report.tables import read_energies, read_jumps
from openmm_latent.version import __version__

#: Fewer frames than these have no halves, or no fluctuations.
FEWEST_REFERENCE, FEWEST_SAMPLE = 6, 2
#: What a report repeats of the `.json` files beside trajectories.
_TOLD = ("temperature", "force_field", "mode", "bundle_sha256")


def evaluate(
    reference: Sequence[Path | str],
    sample: Sequence[Path | str],
    top: Path | str,
    *,
    sample_top: Path | str | None = None,
    structure: Path | str | None = None,
    md: Sequence[Path | str] = (),
    training: Sequence[Path | str] = (),
    jumps: Sequence[Path | str] = (),
    energies: Sequence[Path | str] = (),
    settings: EvaluationSettings | None = None,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Score a sample against reference MD.

    Parameters
    ----------
    reference, sample : sequence of path
        Trajectories, one run a file.
    top : path
        Topology of the reference's whole system.
    sample_top : path, optional
        Topology of the sample, where it is another one (heavy atoms only); atoms are matched by name.
    structure : path, optional
        Such as the crystal's: frames are superposed on it, and contacts, hands and peptide bonds compared with it.
        Unless given, that of `top`.
    md, training : sequence of path, optional
        Of the peers, with the topology `top`: a plain run, and what the Gaussian and the elastic network's size are
        fitted on (the reference's first half unless given).
    jumps, energies : sequence of path, optional
        CSV files of a LatentReporter and a StateDataReporter.
    settings : EvaluationSettings, optional
    progress : callable, optional
        Takes a word on what is done now.

    Raises
    ------
    LatentError
        A file, or a setting, is not what it should be.
    """
    chosen, say = settings or EvaluationSettings(), progress or (lambda words: None)
    started = time.monotonic()
    wanted = check_peers(chosen.peers, bool(md))
    check_lags(chosen.lag_time, chosen.lag_times)
    tables = _read_tables(_paths(jumps), _paths(energies))
    reader = open_reader(Path(top), chosen.atoms, None if structure is None else Path(structure), chosen.stride)
    say("reading the reference")
    files = _checked_files(reference, "reference")
    target, target_facts, reader = reader.read(chosen.reference_name, files, None, chosen.frame_spacing)
    _require_frames(target, "reference", FEWEST_REFERENCE)
    say("reading the sample")
    own, own_facts, _ = reader.read(
        chosen.name,
        _checked_files(sample, "sample"),
        None if sample_top is None else Path(sample_top),
        chosen.sample_frame_spacing,
        not chosen.is_independent,
    )
    _require_frames(own, "sample", FEWEST_SAMPLE)
    work = Comparison(chosen, reader, target, own, say)
    del target, own  # the comparison's have features, too
    work.make_peers(wanted, _paths(md), _paths(training))
    found = work.measure()
    say("gathering plots")
    temperature = _temperature(chosen, target_facts)
    drawings = collect_drawings(reader, work.reference, work.sample, work.peers, work.slow, temperature) | tables
    facts = _facts(chosen, reader, {"reference": (work.reference, target_facts), "sample": (work.sample, own_facts)})
    facts |= {"lag_time": None if work.slow is None else work.slow.lag_time, "peers": work.peer_facts}
    if "jumps" in tables:
        facts["jumps"] = {key: value for key, value in tables["jumps"].items() if key not in ("work", "is_accepted")}
    facts["seconds"] = round(time.monotonic() - started, 1)
    return Evaluation(chosen.name, found, facts, work.left_out, work.cautions, drawings, work.is_settled)


def _read_tables(jumps: list[Path], energies: list[Path]) -> dict[str, Any]:
    """Return tables of jumps and energies under the names of their plots, as far as there are any."""
    tables = {"jumps": read_jumps(jumps), "energies": read_energies(energies)}
    return {name: table for name, table in tables.items() if table}


def _require_frames(ensemble: Ensemble, argument: str, fewest: int) -> None:
    n_frames = ensemble.n_frames
    require(
        n_frames >= fewest,
        f"{argument} (--{argument}) must hold at least {fewest} frames, got {n_frames}; give a longer one or a smaller "
        "stride (--stride)",
    )


def _paths(files: Sequence[Path | str]) -> list[Path]:
    return [Path(file) for file in files]


def _checked_files(files: Sequence[Path | str], argument: str) -> list[Path]:
    paths = _paths(files)
    require(len(paths) > 0, f"{argument} (--{argument}) is empty; give at least one trajectory file")
    twice = [path for i, path in enumerate(paths) if path in paths[:i]]
    require(not twice, f"{argument} (--{argument}) names {twice[0] if twice else ''} twice; name each file once")
    return paths


def _temperature(settings: EvaluationSettings, facts: TrajectorySet) -> float | None:
    """Return the temperature given, or the one that the reference's files tell [K]."""
    if settings.temperature is not None:
        require(settings.temperature > 0, f"temperature (--temperature) must be positive, got {settings.temperature}")
        return settings.temperature
    told = facts.provenance.get("temperature")
    return float(told) if isinstance(told, int | float) else None


def _facts(settings: EvaluationSettings, reader: Reader, both: dict[str, tuple[Ensemble, TrajectorySet]]) -> dict:
    """Return what metrics.json says of input, settings and versions."""
    sides = {
        side: {
            "name": ensemble.name,
            "files": [Path(file).name for file in facts.files],
            "digest": facts.digest,
            "n_runs": len(ensemble.lengths),
            "n_frames": ensemble.n_frames,
            "frame_spacing": ensemble.frame_spacing,
            "provenance": {key: facts.provenance[key] for key in _TOLD if key in facts.provenance},
        }
        for side, (ensemble, facts) in both.items()
    }
    return {
        **sides,
        "atoms": settings.atoms,
        "n_atoms": len(reader.molecule.atoms),
        "n_residues": len(set(reader.molecule.labels)),
        "superposed_on": reader.structure_source,
        "stride": settings.stride,
        "seed": settings.seed,
        "date": datetime.date.today().isoformat(),
        "code_version": __version__,
        "versions": {package: version(package) for package in ("numpy", "mdtraj", "deeptime", "POT")},
    }
