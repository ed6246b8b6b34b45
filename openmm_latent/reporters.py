"""A reporter that writes what became of each jump."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, TextIO

from openmm import State, unit
from openmm.app import Simulation

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
        n_jumps = self._integrator(simulation).getNumJumps()
        if self._last_jump is None or n_jumps < self._last_jump:  # the latter after an older checkpoint was loaded
            self._last_jump = n_jumps
        if self._model is not None and not self._atoms:
            self._atoms = self._model.modelAtoms(simulation.topology)
        steps = self._interval - simulation.currentStep % self._interval
        include = ["positions"] if self._model is not None and self._model.manifest.n_slow else []
        return {"steps": steps, "periodic": False, "include": include}

    def report(self, simulation: Simulation, state: State) -> None:
        """Write a row for each jump since the last report."""
        integrator = self._integrator(simulation)
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
                f"{record.work:.6g}" if record.isSteered else "",
                f"{record.logProposalRatio:.6g}" if is_exact else "",
                f"{record.acceptance:.6g}" if is_exact else "",
                record.drivenSteps if record.isSteered else "",
                record.stepsPerPerturbation if record.isSteered else "",
                f"{record.sigma:.6g}" if record.isSteered else "",
                f"{time:.6f}",
                f"{accepted * lag_time:.6f}",
            ]
            is_last = record is records[-1]
            for values in (record.start, record._from, record.to, record.reached, slow if is_last else ()):
                row += [f"{value:.6f}" for value in values] if len(values) == n_slow else [""] * n_slow
            self._writer.writerow(row)
        self._file.flush()

    def _integrator(self, simulation: Simulation) -> LatentIntegrator:
        integrator = simulation.integrator
        require(
            isinstance(integrator, LatentIntegrator),
            f"LatentReporter needs a Simulation whose integrator is a LatentIntegrator, got "
            f"{type(integrator).__name__}; make it with LatentModel.createIntegrator",
        )
        return integrator

    def __del__(self) -> None:
        if getattr(self, "_owns_file", False):
            self._file.close()


def _require_columns(path: Path, columns: list[str]) -> None:
    """Refuse to append to a table of other columns, which rows would not fit."""
    with open(path, newline="") as file:
        found = next(csv.reader(file))
    require(
        found == columns,
        f"file {path} has other columns than this reporter ({len(found)} and {len(columns)}), so it was written with "
        f"another model or by another version; give another file, or append=False",
    )
