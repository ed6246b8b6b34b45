"""Uninterrupted pieces of MD: hybrid runs cut at their accepted jumps, and plain MD as it is."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from openmm_latent.analysis.torsions import TorsionTable
from openmm_latent.errors import LatentError, require

#: Energies of OpenMM's StateDataReporter that the settling test looks at.
_ENERGIES = ("Potential Energy (kJ/mole)", "Kinetic Energy (kJ/mole)")
#: What must be the same in all runs for one Markov model to describe them.
_COMMON = ("temperature", "force_field")
#: File that marks the store of an ensemble.
_STORE = "ensemble.json"


@dataclass(frozen=True)
class Segment:
    """MD that no accepted jump interrupts.

    Attributes
    ----------
    features : np.ndarray
        (n_frames, n_features) that the Markov model is built on.
    is_in : np.ndarray
        (n_frames, n_states) bool: which of the named states each frame is in.
    since_start : np.ndarray
        (n_frames,) [ps] since the accepted jump, or the start of the run, that the segment follows.
    axes : np.ndarray
        (n_frames, n_axes) of free-energy surfaces.
    observables : np.ndarray
        (n_frames, n_observables), such as energies, that the settling test compares beside the features.
    run : str
        Where it comes from.
    first_frame : int
        Its place in the run's trajectory.
    """

    features: np.ndarray
    is_in: np.ndarray
    since_start: np.ndarray
    axes: np.ndarray
    observables: np.ndarray
    run: str = ""
    first_frame: int = 0

    def __len__(self) -> int:
        return len(self.features)

    def after(self, dropped_time: float) -> Segment:
        """Return the part later than `dropped_time` [ps] after the start."""
        n_dropped = int(np.searchsorted(self.since_start, dropped_time * (1 + 1e-9) + 1e-9, side="right"))
        names = ("features", "is_in", "since_start", "axes", "observables")
        parts = {name: getattr(self, name)[n_dropped:] for name in names}
        return replace(self, first_frame=self.first_frame + n_dropped, **parts)


def make_segments(
    features: Sequence[np.ndarray],
    frame_spacing: float,
    is_in: Sequence[np.ndarray] | None = None,
    axes: Sequence[np.ndarray] | None = None,
    observables: Sequence[np.ndarray] | None = None,
    since_start: Sequence[np.ndarray] | None = None,
) -> list[Segment]:
    """Make segments of plain arrays, one array a segment.

    Parameters
    ----------
    features : list of array, (n_frames, n_features)
    frame_spacing : float [ps]
    is_in : list of array of bool, (n_frames, n_states), optional
    axes, observables : list of array, (n_frames, n), optional
    since_start : list of array, (n_frames,) [ps], optional
        By default the first frame comes one frame spacing after the start.

    Raises
    ------
    LatentError
        The arrays differ in length, or hold what is not a number.
    """
    series = [_table(part, "features") for part in features]
    require(len(series) > 0, "features is empty; give at least one segment")

    def given(parts: Sequence[np.ndarray] | None, name: str) -> list[np.ndarray]:
        if parts is None:
            return [np.zeros((len(part), 0)) for part in series]
        tables = [_table(part, name) for part in parts]
        require(
            [len(table) for table in tables] == [len(part) for part in series],
            f"{name} must have as many segments and frames as features; cut both alike",
        )
        return tables

    memberships = [table.astype(bool) for table in given(is_in, "is_in")]
    drawn, looked_at = given(axes, "axes"), given(observables, "observables")
    if since_start is None:
        times = [frame_spacing * np.arange(1, len(part) + 1) for part in series]
    else:
        times = [table[:, 0] for table in given(since_start, "since_start")]
    parts = zip(series, memberships, times, drawn, looked_at, strict=True)
    return [Segment(*part, run=f"segment {number}") for number, part in enumerate(parts)]


def _table(values: Any, name: str) -> np.ndarray:
    table = np.asarray(values, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    require(table.ndim == 2, f"{name} must have shape (n_frames, n) a segment, got {table.shape}")
    require(bool(np.isfinite(table).all()), f"{name} holds what is not a number; leave those frames out")
    return table


# --- runs on disk ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One trajectory: its frames' torsions and features, and where it is cut.

    Attributes
    ----------
    name : str
    torsions : np.ndarray
        (n_frames, n_torsions) [rad], in the order of the `TorsionTable`.
    features : np.ndarray or None
        (n_frames, n_features) of the user's function; None without one.
    observables : np.ndarray
        (n_frames, 2) potential and kinetic energy [kJ/mol], or (n_frames, 0).
    cuts : np.ndarray
        (n_cuts,) number of frames before each accepted jump.
    since_start : np.ndarray
        (n_frames,) [ps] since the accepted jump, or the start of the run.
    frame_spacing : float
        [ps]
    n_jumps, n_accepted : int
    facts : dict
        The run's provenance; {} where there is none.
    digest : str
        SHA-256 of trajectory and jump table.
    """

    name: str
    torsions: np.ndarray
    features: np.ndarray | None
    observables: np.ndarray
    cuts: np.ndarray
    since_start: np.ndarray
    frame_spacing: float
    n_jumps: int
    n_accepted: int
    facts: dict[str, Any]
    digest: str


def find_runs(places: Sequence[Path]) -> list[Path]:
    """Return the jump table, NAME.latent.csv, of each hybrid run.

    A place is a folder or a file of the run, or the store of an ensemble, which stands for all its walkers.
    """
    tables: list[Path] = []
    for place in places:
        require(place.exists(), f"run (--run) {place} does not exist; give the folder that `simulate` wrote")
        if (place / _STORE).is_file():
            here = sorted(place.glob("**/*.latent.csv"))
        elif place.is_dir():
            here = sorted(place.glob("*.latent.csv"))
        else:
            here = [place.with_name(place.name.split(".")[0] + ".latent.csv")]
        require(
            len(here) > 0 and all(table.is_file() for table in here),
            f"run (--run) {place} has no jump table (NAME.latent.csv); give the folder that `simulate` or `ensemble` "
            f"wrote, and plain MD as md (--md)",
        )
        tables += here
    require(len(set(tables)) == len(tables), "run (--run) names the same run twice; its frames would count double")
    return tables


def trajectory_of(table: Path) -> Path:
    """Return the trajectory of the run that a jump table, NAME.latent.csv, belongs to."""
    stem = table.name.removesuffix(".latent.csv")
    facts = _read_facts(table.with_name(f"{stem}.json"), needed=True)
    return table.with_name(f"{stem}.{facts.get('trajectory_format', 'xtc')}")


def read_hybrid_run(
    table: Path,
    torsions: TorsionTable | None = None,
    feature_function: Callable[[np.ndarray], np.ndarray] | None = None,
    is_for_reweighting: bool = True,
) -> Run:
    """Read a run of `openmm-latent simulate`.

    Parameters
    ----------
    table : Path
        Its NAME.latent.csv; NAME.json, NAME.pdb and NAME.xtc or NAME.dcd lie beside it.
    torsions : TorsionTable, optional
        Made from NAME.pdb by default.
    feature_function : callable, optional
        (n_frames, n_atoms, 3) [nm] -> (n_frames, n_features).
    is_for_reweighting : bool
        False takes runs in the exact mode, too, whose frames are Boltzmann as they are.

    Raises
    ------
    LatentError
        A file is missing, the run is in the exact mode and to be reweighted, or the files do not belong together.
    """
    stem = table.name.removesuffix(".latent.csv")
    facts = _read_facts(table.with_name(f"{stem}.json"), needed=True)
    mode = facts.get("mode")
    require(
        mode != "exact" or not is_for_reweighting,
        f"run {table.parent} is in the mode exact: its frames are Boltzmann already and need no reweighting; average "
        f"them as they are",
    )
    require(
        mode in ("guarded", "exploratory", "exact"),
        f"run {table.parent} has mode {mode!r}; only guarded and exploratory runs are reweighted",
    )
    trajectory = trajectory_of(table)
    top = table.with_name(f"{stem}.pdb")
    known = torsions or TorsionTable.from_topology(top)
    angles, features = known.measure(trajectory, feature_function)
    spacing, timestep = float(facts["frame_spacing"]), float(facts["timestep"])
    # A run that was stopped between two save points can have frames after the last one; they are sound, too.
    frame_steps = np.round(spacing / timestep) * np.arange(1, len(angles) + 1)
    jumps, accepted = _read_jumps(table)
    cuts, since = cut_at(frame_steps, accepted[accepted <= frame_steps[-1]])
    return Run(
        name=str(table.parent / stem),
        torsions=angles,
        features=features,
        observables=_read_energies(table.with_name(f"{stem}.csv"), len(angles)),
        cuts=cuts,
        since_start=since * timestep,
        frame_spacing=spacing,
        n_jumps=len(jumps),
        n_accepted=len(accepted),
        facts=facts,
        digest=_digest(trajectory, table),
    )


def read_plain_md(
    trajectory: Path,
    torsions: TorsionTable,
    frame_spacing: float | None = None,
    stride: int = 1,
    feature_function: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Run:
    """Read a trajectory of plain MD: one segment.

    Parameters
    ----------
    frame_spacing : float, optional
        [ps] in the file; by default that of the JSON file beside it, or else of its time stamps.
    stride : int
        Keep every stride-th frame.
    """
    angles, features = torsions.measure(trajectory, feature_function)
    facts = _read_facts(trajectory.with_suffix(".json"), needed=False)
    told = frame_spacing or facts.get("frame_spacing") or torsions.frame_spacing(trajectory)
    require(
        told is not None,
        f"md (--md) {trajectory} stores no time between frames; give frame_spacing (--frame-spacing) in ps",
    )
    require(stride >= 1, f"md_stride (--md-stride) must be a positive whole number, got {stride}")
    angles, features = angles[::stride], features if features is None else features[::stride]
    spacing = float(told or 0.0) * stride
    return Run(
        name=str(trajectory),
        torsions=angles,
        features=features,
        observables=np.zeros((len(angles), 0)),
        cuts=np.zeros(0, dtype=int),
        since_start=spacing * np.arange(1, len(angles) + 1),
        frame_spacing=spacing,
        n_jumps=0,
        n_accepted=0,
        facts=facts,
        digest=_digest(trajectory),
    )


def cut_at(frame_steps: np.ndarray, jump_steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut frames at accepted jumps.

    Parameters
    ----------
    frame_steps : array, (n_frames,)
        MD steps done when each frame was written, rising.
    jump_steps : array, (n_jumps,)
        MD steps done when each jump was made: a frame at the same step was written before it.

    Returns
    -------
    cuts : array of int, (n_cuts,)
        Frames before each cut; jumps with no frame between them share one.
    since : array, (n_frames,)
        Steps since the last accepted jump, or since step 0.
    """
    jumps = np.sort(np.asarray(jump_steps, dtype=float))
    cuts = np.unique(np.searchsorted(frame_steps, jumps, side="right"))
    last = np.searchsorted(jumps, frame_steps, side="left") - 1
    since = frame_steps - np.where(last >= 0, np.append(jumps, 0.0)[last], 0.0)
    return cuts[(cuts > 0) & (cuts < len(frame_steps))], since


def require_one_ensemble(runs: Sequence[Run]) -> None:
    """Raise `LatentError` unless all runs have one frame spacing and, where they say so, one ensemble."""
    first = runs[0]
    for other in runs[1:]:
        require(
            abs(other.frame_spacing - first.frame_spacing) <= 1e-3 * first.frame_spacing,
            f"runs have different frame spacings: {first.name} {first.frame_spacing:g} ps, {other.name} "
            f"{other.frame_spacing:g} ps; write them alike, or read plain MD with a stride (--md-stride)",
        )
    for key in _COMMON:
        told = [(run.name, run.facts[key]) for run in runs if run.facts.get(key) is not None]
        for name, value in told[1:]:
            require(
                value == told[0][1],
                f"runs differ in {key}: {told[0][0]} has {told[0][1]}, {name} has {value}; one Markov model describes "
                f"one ensemble, so reweight them apart",
            )


def to_segments(
    runs: Sequence[Run], torsions: TorsionTable, states: Sequence[Any], axes: Sequence[str]
) -> list[Segment]:
    """Cut runs into segments, with the membership of each frame in the states and the axes [degrees]."""
    segments = []
    has_energies = all(run.observables.shape[1] == len(_ENERGIES) for run in runs)
    for run in runs:
        features = torsions.features(run.torsions) if run.features is None else run.features
        is_in = np.stack([state.holds(torsions, run.torsions) for state in states], axis=1) if states else None
        is_in = np.zeros((len(features), 0), dtype=bool) if is_in is None else is_in
        drawn = np.degrees(run.torsions[:, [torsions.index(name) for name in axes]])
        observables = run.observables if has_energies else run.observables[:, :0]
        edges = [0, *run.cuts.tolist(), len(features)]
        for start, stop in pairwise(edges):
            here = slice(start, stop)
            segments.append(
                Segment(
                    features[here], is_in[here], run.since_start[here], drawn[here], observables[here], run.name, start
                )
            )
    return segments


def _read_facts(path: Path, needed: bool) -> dict[str, Any]:
    if not path.is_file():
        require(not needed, f"{path}, the provenance of the run, does not exist; give the folder as it was written")
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise LatentError(f"{path}, the provenance of the run, is not valid JSON ({error}); mend it") from error
    require(isinstance(content, dict), f"{path}, the provenance of the run, holds no table; mend it")
    if needed:
        missing = [key for key in ("mode", "frame_spacing", "timestep", "temperature") if key not in content]
        require(not missing, f"{path} does not tell {', '.join(missing)}; was it written by `simulate`?")
    return content


def _read_jumps(table: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps of all jumps and of the accepted ones."""
    rows = list(csv.DictReader(table.read_text().splitlines()))
    require(
        all(row.get("step") and row.get("outcome") in ("accepted", "refused") for row in rows),
        f"jump table {table} has a row without step or outcome; it may be truncated: run the same command again",
    )
    steps = np.array([int(row["step"]) for row in rows], dtype=int)
    return steps, steps[np.array([row["outcome"] == "accepted" for row in rows], dtype=bool)]


def _read_energies(path: Path, n_frames: int) -> np.ndarray:
    """Return (n_frames, 2) energies [kJ/mol], or (n_frames, 0) if the table is not there or of other steps."""
    if not path.is_file():
        return np.zeros((n_frames, 0))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    if len(rows) < n_frames or not rows or not all(name in rows[0] for name in _ENERGIES):
        return np.zeros((n_frames, 0))
    return np.array([[float(row[name]) for name in _ENERGIES] for row in rows[:n_frames]])


def _digest(*paths: Path) -> str:
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as handle:
            total.update(hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()
