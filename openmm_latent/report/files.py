"""Written whole or not at all: metrics.json, metrics.csv and report.html in one folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from openmm_latent.errors import LatentError, require
from openmm_latent.report.page import make_page
from openmm_latent.report.results import Evaluation

#: Files of a report.
NAMES = ("metrics.json", "metrics.csv", "report.html")


def check_folder(folder: Path) -> None:
    """Raise `LatentError` early if a report could not be written there."""
    require(
        not folder.exists() or folder.is_dir(),
        f"out (--out) {folder} is a file; give the name of a folder for the report",
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise LatentError(f"out (--out) {folder} cannot be written to ({error}); give another folder") from error


def write_report(evaluation: Evaluation, folder: Path | str) -> list[Path]:
    """Write metrics.json, metrics.csv and report.html.

    Each is written to a temporary file first and then renamed: an interrupted or failed report leaves the files of an
    earlier one as they were.

    Returns
    -------
    list of Path

    Raises
    ------
    LatentError
        The folder cannot be written to.
    """
    out = Path(folder)
    check_folder(out)
    texts = evaluation.as_json(), evaluation.as_csv(), make_page(evaluation)
    with tempfile.TemporaryDirectory(dir=out, prefix=".report-") as scratch:
        for name, text in zip(NAMES, texts, strict=True):
            Path(scratch, name).write_text(text, encoding="utf-8")
        for name in NAMES:
            os.replace(Path(scratch, name), out / name)
    return [out / name for name in NAMES]
