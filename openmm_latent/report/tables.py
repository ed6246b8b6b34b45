"""What a hybrid run wrote beside its frames: jumps (LatentReporter) and energies (StateDataReporter), as CSV."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openmm_latent.errors import LatentError, require

#: Columns of a LatentReporter that must be there.
_JUMP_COLUMNS = ("jump", "mode", "outcome", "reason")
_POTENTIAL, _TEMPERATURE, _TIME, _STEP = "Potential Energy (kJ/mole)", "Temperature (K)", "Time (ps)", "Step"


def read_jumps(files: Sequence[Path]) -> dict[str, Any] | None:
    """Read CSV files of a LatentReporter; None without any.

    Returns
    -------
    dict: n_jumps, n_accepted, modes (list), reasons (refusals by reason), work, is_accepted (arrays, of those jumps
    that have a work [kJ/mol]), mean_acceptance (of exact jumps, else None)

    Raises
    ------
    LatentError
        A file is absent, or is no table of jumps.
    """
    if not files:
        return None
    rows = [row for file in files for row in _rows(file, "jumps (--jumps)", _JUMP_COLUMNS, "a LatentReporter")]
    require(len(rows) > 0, f"jumps (--jumps) {files[0]} has no rows; the run made no jump yet, or leave it out")
    # neither of jumps that were not driven nor of drives that blew up
    worked = [row for row in rows if math.isfinite(_number(row.get("work_kj_per_mol") or "nan", files[0]))]
    acceptances = [_number(row["acceptance"], files[0]) for row in rows if row.get("acceptance")]
    return {
        "n_jumps": len(rows),
        "n_accepted": sum(row["outcome"] == "accepted" for row in rows),
        "modes": sorted({row["mode"] for row in rows}),
        "reasons": dict(Counter(row["reason"] or "refused" for row in rows if row["outcome"] != "accepted")),
        "work": np.array([_number(row["work_kj_per_mol"], files[0]) for row in worked]),
        "is_accepted": np.array([row["outcome"] == "accepted" for row in worked], dtype=bool),
        "mean_acceptance": float(np.mean(acceptances)) if acceptances else None,
    }


def read_energies(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Read CSV files of a StateDataReporter with potential energies.

    Returns
    -------
    list of dict, one a file: name, time (n,) [ps] or, without it, steps; is_time, potential (n,) [kJ/mol], temperature
    (n,) [K] or None

    Raises
    ------
    LatentError
        A file is absent, or has no potential energies.
    """
    found = []
    for file in files:
        rows = _rows(file, "energies (--energies)", (_POTENTIAL,), "a StateDataReporter(potentialEnergy=True)")
        require(len(rows) > 0, f"energies (--energies) {file} has no rows; leave it out")
        axis = next((name for name in (_TIME, _STEP) if name in rows[0]), None)
        column = [str(i) for i in range(len(rows))] if axis is None else [row[axis] for row in rows]
        has_temperature = _TEMPERATURE in rows[0]
        found.append(
            {
                "name": Path(file).stem,
                "time": np.array([_number(text, file) for text in column]),
                "is_time": axis == _TIME,
                "potential": np.array([_number(row[_POTENTIAL], file) for row in rows]),
                "temperature": np.array([_number(row[_TEMPERATURE], file) for row in rows])
                if has_temperature
                else None,
            }
        )
    return found


def _rows(file: Path, argument: str, needed: Sequence[str], writer: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file by column, after checking its columns."""
    require(Path(file).is_file(), f"{argument} {file} does not exist; check the name")
    try:
        lines = Path(file).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LatentError(f"{argument} {file} is not a text file ({error}); give the CSV file of {writer}") from error
    rows = list(csv.reader(lines))
    names = [name.strip().lstrip("#").strip('"') for name in rows[0]] if rows else []
    missing = [name for name in needed if name not in names]
    require(
        not missing,
        f"{argument} {file} has no column {missing[0] if missing else ''!r}; give the CSV file of {writer}",
    )
    # A run that was killed may leave half a line at the end.
    return [dict(zip(names, row, strict=True)) for row in rows[1:] if len(row) == len(names)]


def _number(text: str, file: Path) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise LatentError(
            f"{file} has {text!r} where a number should be; write the table again or leave it out"
        ) from error
