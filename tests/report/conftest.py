"""One report of alanine dipeptide, made by the command and shared by the tests that look at it."""

import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ensembles_of import write_runs
from openmm_latent.cli import app
from toys import ADP_PDB


def run(*words: object, code: int = 0) -> str:
    """Run the command in this process; return what it printed, in one line."""
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == code, result.output
    return re.sub(r"\s+", " ", result.output)


def write_tables(folder: Path) -> tuple[Path, Path]:
    """Write a table of jumps and one of energies, as the reporters have them."""
    random = np.random.default_rng(1)
    rows = ["jump,step,mode,realisation,outcome,reason,work_kj_per_mol,acceptance"]
    for number in range(1, 61):
        work = random.normal(10, 5)
        outcome = "accepted," if random.random() < np.exp(-work / 10) else "refused,metropolis"
        rows.append(f"{number},{500 * number},exact,steer,{outcome},{work:.4g},{min(1, np.exp(-work / 10)):.4g}")
    (folder / "jumps.csv").write_text("\n".join(rows) + "\n")
    lines = ['#"Step","Time (ps)","Potential Energy (kJ/mole)","Temperature (K)"']
    lines += [f"{i},{0.002 * i},{random.normal(-50, 5):.3f},{random.normal(300, 20):.2f}" for i in range(100)]
    (folder / "energies.csv").write_text("\n".join(lines) + "\n")
    return folder / "jumps.csv", folder / "energies.csv"


@pytest.fixture(scope="session")
def report(tmp_path_factory) -> Path:
    """A folder with metrics.json, metrics.csv, report.html and printed.txt: hot alanine dipeptide against itself."""
    folder = tmp_path_factory.mktemp("report")
    files = write_runs(folder, (0, 1500), (1500, 3000), (3000, 4500), (4500, 5500))
    jumps, energies = write_tables(folder)
    words = ["--top", ADP_PDB, "--reference", *files[:2], "--sample", files[2], "--out", folder / "out"]
    words += ["--jumps", jumps, "--energies", energies, "--peers", "anm,gaussian", "--md", files[3]]
    words += ["--name", "hot <run> & more", "--temperature", 400, "--lag-times", 8, 40, "--cpu-seconds", 12]
    (folder / "printed.txt").write_text(run("evaluate", *words))
    (folder / "printed.txt").rename(folder / "out" / "printed.txt")
    return folder / "out"
