"""Reporters: what became of each jump, and the frames that a model draws between the two ends of one."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from openmm import State, unit
from openmm.app import PDBFile, Simulation

from openmm_latent.conformations import fill_intervals, fine_time, model_topology
from openmm_latent.data.imaging import ModelAtoms
from openmm_latent.errors import require
from openmm_latent.simulation import MODES, LatentIntegrator, LatentModel

_COLUMNS = (
    "jump",
    "step",
    "mode",
    "realisation",
    "model",
    "outcome",
    "reason",
    "energy_before_kj_per_mol",
    "energy_after_kj_per_mol",
    "largest_force_kj_per_mol_nm",
    "minimizer_iterations",
    "candidates",
    "work_kj_per_mol",
    "log_proposal_ratio",
    "acceptance",
    "driven_steps",
    "steps_per_perturbation",
    "sigma",
    "md_time_ps",
    "accepted_jumps_x_lag_time_ps",
)
_MODE_NAMES = {number: name for name, number in MODES.items()}


class LatentReporter:
    """Write one CSV row a jump, with the slow coordinates of the reported frame beside the last one.

    Parameters
    ----------
    file : path-like or text file
        Where to write.
    reportInterval : int
        Steps between reports; every jump since the last report gets a row, so none is lost. Equal to jumpInterval,
        each row carries the slow coordinates at the end of its relaxation.
    model : LatentModel, optional
        Gives the slow coordinates (without it those columns are left out) and the lag time.
    append : bool
        Go on with an existing file, after a restart; its columns must be the same.

    Notes
    -----
    `md_time_ps` is the Context's time, that of relaxation alone. `accepted_jumps_x_lag_time_ps` is the physical time
    that accepted jumps stand for if the model's lag time is taken at its word; nan without `model`, or with several.
    `candidates` counts the frames that a jump tried (`nProposals`); energy after, force, iterations and reason are of
    the last one. Work, driven steps, steps per perturbation and sigma are those of a steered or exact jump; the
    logarithm of q(from | to) / q(to | from) and the acceptance, which is the probability of the Metropolis test, of an
    exact one.
    Slow coordinates: `start_i` of the frame that such a jump left, `from_i` and `to_i` between which it was driven (in
    exact mode those that were drawn), `reached_i` of the frame at the drive's end, accepted or not. What
    does not apply stays empty.
    """

    def __init__(
        self, file: str | Path | TextIO, reportInterval: int, model: LatentModel | None = None, append: bool = False
    ) -> None:
        require(
            isinstance(reportInterval, int) and reportInterval >= 1,
            f"reportInterval must be a whole number of steps, at least 1, got {reportInterval!r}",
        )
        self._interval = reportInterval
        self._model = model
        self._last_jump: int | None = None
        self._atoms: list[int] = []  # the model's, once the topology is known
        n_slow = 0 if model is None else model.manifest.n_slow
        columns = [*_COLUMNS]
        columns += [f"{name}_{i + 1}" for name in ("start", "from", "to", "reached", "slow") for i in range(n_slow)]
        has_rows = False
        if isinstance(file, str | Path):
            has_rows = append and Path(file).exists() and Path(file).stat().st_size > 0
            if has_rows:
                _require_columns(Path(file), columns)
            self._file: TextIO = open(file, "a" if append else "w", newline="")  # noqa: SIM115  closed by __del__
        else:
            self._file = file
        self._owns_file = self._file is not file
        self._writer = csv.writer(self._file)
        if not has_rows:
            self._writer.writerow(columns)
            self._file.flush()

    def describeNextReport(self, simulation: Simulation) -> dict[str, Any]:
        """Ask for positions every `reportInterval` steps."""
        n_jumps = _integrator_of(simulation, self).getNumJumps()
        if self._last_jump is None or n_jumps < self._last_jump:  # the latter after an older checkpoint was loaded
            self._last_jump = n_jumps
        if self._model is not None and not self._atoms:
            self._atoms = self._model.modelAtoms(simulation.topology)
        steps = self._interval - simulation.currentStep % self._interval
        include = ["positions"] if self._model is not None and self._model.manifest.n_slow else []
        return {"steps": steps, "periodic": False, "include": include}

    def report(self, simulation: Simulation, state: State) -> None:
        """Write a row for each jump since the last report."""
        integrator = _integrator_of(simulation, self)
        records = list(integrator.getJumpRecords(self._last_jump or 0))
        if not records:
            return
        self._last_jump = records[-1].number
        slow: Any = (
            self._model._slowOf(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)[self._atoms])
            if self._model is not None and self._model.manifest.n_slow
            else []
        )
        time = state.getTime().value_in_unit(unit.picosecond)
        accepted = integrator.getNumAccepted() - sum(record.accepted for record in records)
        lag_time = float("nan")
        if self._model is not None and integrator.getNumBundles() == 1:
            lag_time = self._model.manifest.lag_time
        n_slow = len(slow)
        for record in records:
            accepted += record.accepted
            is_exact = record.mode == LatentIntegrator.Exact
            was_driven = record.isSteered and record.drivenSteps > 0
            row = [
                record.number,
                record.step,
                _MODE_NAMES[record.mode],
                "steer" if record.isSteered else "decode",
                integrator._getBundleName(record.bundle),
                "accepted" if record.accepted else "refused",
                record.reason,
                f"{record.energyBefore:.6g}",
                f"{record.energyAfter:.6g}",
                f"{record.largestForce:.6g}",
                record.minimizerIterations,
                record.candidates,
                f"{record.work:.6g}" if was_driven else "",
                f"{record.logProposalRatio:.6g}" if is_exact else "",
                f"{record.acceptance:.6g}" if is_exact else "",
                record.drivenSteps if was_driven else "",
                record.stepsPerPerturbation if was_driven else "",
                f"{record.sigma:.6g}" if was_driven else "",
                f"{time:.6f}",
                f"{accepted * lag_time:.6f}",
            ]
            is_last = record is records[-1]
            for values in (record.start, record._from, record.to, record.reached, slow if is_last else ()):
                row += [f"{value:.6f}" for value in values] if len(values) == n_slow else [""] * n_slow
            self._writer.writerow(row)
        self._file.flush()

    def __del__(self) -> None:
        if getattr(self, "_owns_file", False):
            self._file.close()


@dataclass(frozen=True)
class _Left:
    """A frame that a jump is about to leave: where, when, and after how many jumps."""

    positions: np.ndarray  # (n_atoms, 3) [nm], the model atoms
    time: float  # [ps]
    step: int
    n_jumps: int
    n_accepted: int


class FilledTrajectoryReporter:
    """Write, for each accepted jump, the frames that the model draws between the frame it left and the one it made.

    They are not physical, so they never go into a Simulation's own trajectory but into a file of their own, whose table
    tells the model's frames from the Simulation's. A refused jump leaves nothing.

    Parameters
    ----------
    file : path-like
        Of the frames, ending in .xtc; a table ending in .csv and a structure ending in .pdb go beside it.
    model : LatentModel
        The only one of the Simulation; its bundle must have `fill`.
    append : bool
        Go on with existing files, after a restart.

    Raises
    ------
    LatentError
        The file's ending is another, the bundle cannot fill, or, as the Simulation begins, its integrator is of another
        kind or model.

    Notes
    -----
    Files hold the model atoms, in the manifest's order. Of each accepted jump: the frame that it left, those drawn
    (`fine_time` apart, placed on the first), and the frame that it made, one MD step later. The column `made_by` says
    "simulation", "model" and "simulation" of them. `time_ps` is that of MD and a lag time for each accepted jump. What
    is drawn depends on both frames, the integrator's seed and the jump's number, so a restart draws the same.
    """

    def __init__(self, file: str | Path, model: LatentModel, append: bool = False) -> None:
        self._path, self._model = Path(file), model
        require(self._path.suffix == ".xtc", f"file must end in .xtc, got '{self._path.name}'; .csv and .pdb go beside")
        require(
            "fill" in model.manifest.capabilities,
            f"bundle '{model.name}' of family {model.manifest.family} cannot fill the frames between two jumps; use "
            f"one that can, such as ATMOS with an interpolator, bound by this version",
        )
        self._table, has_rows = self._path.with_suffix(".csv"), False
        if append and self._table.exists():
            _require_columns(self._table, _FILLED_COLUMNS)
            has_rows = True
        self._n_frames = _count_rows(self._table) if has_rows else 0
        if not has_rows:
            self._path.unlink(missing_ok=True)
            with open(self._table, "w", newline="") as file_:
                csv.writer(file_).writerow(_FILLED_COLUMNS)
        self._atoms: ModelAtoms | None = None  # the model's, once the topology is known
        self._left: _Left | None = None

    def describeNextReport(self, simulation: Simulation) -> dict[str, Any]:
        """Ask for a look before the next jump and, where that is due, one step after it."""
        if self._atoms is None:
            self._bind(simulation)
        self._look(simulation)
        return {"steps": max(1, simulation.integrator.getStepsUntilJump()), "periodic": False, "include": []}

    def report(self, simulation: Simulation, state: State) -> None:
        """Write what a jump just made leaves, and keep the frame that one about to be made will leave."""
        self._look(simulation)

    def _bind(self, simulation: Simulation) -> None:
        """Find the model's atoms in a Simulation, and write their structure."""
        integrator = _integrator_of(simulation, self)
        names = [integrator._getBundleName(i) for i in range(integrator.getNumBundles())]
        require(
            names == [self._model.name],
            f"FilledTrajectoryReporter needs a Simulation whose only model is '{self._model.name}', got "
            f"{', '.join(names)}; give the model from which its integrator was made",
        )
        self._atoms = ModelAtoms(simulation.topology, self._model.modelAtoms(simulation.topology), None)
        manifest = self._model.manifest
        with open(self._path.with_suffix(".pdb"), "w") as file:
            structure = np.array(manifest.reference_positions) * unit.nanometer
            PDBFile.writeFile(model_topology(manifest, simulation.topology), structure, file, keepIds=True)

    def _look(self, simulation: Simulation) -> None:
        """Fill if a jump was made since the frame kept; keep the present one if a jump is due."""
        integrator, left = simulation.integrator, self._left
        is_due = integrator.getStepsUntilJump() == 0
        n_made = 0 if left is None else integrator.getNumJumps() - left.n_jumps
        if n_made == 0 and not is_due:
            return
        frame = self._frame(simulation)
        # more jumps or steps: made by hand, or another checkpoint was loaded; then this frame is not the jump's end
        if left is not None and n_made == 1 and frame.step - left.step in (0, 1):
            (record,) = integrator.getJumpRecords(left.n_jumps)
            if record.accepted:
                self._write(left, frame, record.number, integrator.getRandomNumberSeed())
        self._left = frame if is_due else None

    def _frame(self, simulation: Simulation) -> _Left:
        """Return where the Simulation is; molecules are whole and in one image."""
        assert self._atoms is not None  # for mypy: found before the first look
        state = simulation.context.getState(positions=True)
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)[self._atoms.kept]
        boxes = None
        if simulation.system.usesPeriodicBoundaryConditions():
            boxes = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)[None]
        integrator = simulation.integrator
        return _Left(
            self._atoms.take(positions[None], boxes)[0],
            state.getTime().value_in_unit(unit.picosecond),
            state.getStepCount(),
            integrator.getNumJumps(),
            integrator.getNumAccepted(),
        )

    def _write(self, left: _Left, made: _Left, number: int, seed: int) -> None:
        """Draw the frames between the two ends of a jump, and append them all."""
        manifest, bundle = self._model.manifest, self._model._bundle
        drawn = fill_intervals(bundle, left.positions[None], made.positions[None], [number], seed % 2**32)[0]
        frames = np.concatenate([left.positions[None], drawn, made.positions[None]])
        before = left.time + left.n_accepted * manifest.lag_time
        times = [before + i * fine_time(manifest) for i in range(len(drawn) + 1)]
        times.append(made.time + made.n_accepted * manifest.lag_time)
        makers = ["simulation", *["model"] * len(drawn), "simulation"]
        numbers = range(self._n_frames, self._n_frames + len(frames))
        _append_xtc(self._path, frames, np.array(times), np.array(numbers))
        with open(self._table, "a", newline="") as file:
            rows = zip(numbers, times, makers, strict=True)
            csv.writer(file).writerows([frame, f"{time:.6f}", number, left.step, maker] for frame, time, maker in rows)
        self._n_frames += len(frames)


_FILLED_COLUMNS = ["frame", "time_ps", "jump", "step", "made_by"]


def _append_xtc(path: Path, frames: np.ndarray, times: np.ndarray, steps: np.ndarray) -> None:
    """Append (n_frames, n_atoms, 3) [nm] at times [ps]: an XTC file is its frames, one after the other."""
    from mdtraj.formats import XTCTrajectoryFile  # which itself cannot append

    part = path.with_name(path.name + ".part")
    with XTCTrajectoryFile(str(part), "w") as file:
        file.write(frames.astype(np.float32), time=times.astype(np.float32), step=steps.astype(np.int32))
    with open(path, "ab") as whole:
        whole.write(part.read_bytes())
    part.unlink()


def _count_rows(path: Path) -> int:
    with open(path, newline="") as file:
        return sum(1 for _ in csv.reader(file)) - 1


def _integrator_of(simulation: Simulation, reporter: object) -> LatentIntegrator:
    """Return a Simulation's integrator if jumps are its."""
    integrator = simulation.integrator
    require(
        isinstance(integrator, LatentIntegrator),
        f"{type(reporter).__name__} needs a Simulation whose integrator is a LatentIntegrator, got "
        f"{type(integrator).__name__}; make it with LatentModel.createIntegrator",
    )
    return integrator


def _require_columns(path: Path, columns: list[str]) -> None:
    """Refuse to append to a table of other columns, which rows would not fit."""
    with open(path, newline="") as file:
        found = next(csv.reader(file))
    require(
        found == columns,
        f"file {path} has other columns than this reporter ({len(found)} and {len(columns)}), so it was written with "
        f"another model or by another version; give another file, or append=False",
    )
