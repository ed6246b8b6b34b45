"""Every example and every Python block of the README runs, from another folder than the project's."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openmm_latent.cli import app

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))
README = (ROOT / "README.md").read_text()
README_BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
README_COMMANDS = re.findall(r"^openmm-latent ([^#\n]*)", README, flags=re.MULTILINE)


def run(script: Path, folder: Path, *options: str) -> str:
    """Run a script in a folder; warnings are allowed to be printed, failures are not."""
    done = subprocess.run(
        [sys.executable, str(script), *options], cwd=folder, capture_output=True, text=True, timeout=540
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example(script: Path, tmp_path: Path) -> None:
    if "openmmtorch" in script.read_text() and find_spec("openmmtorch") is None:
        pytest.skip("openmmtorch is not installed; `make test-openmm-torch` runs this where it is")
    text = run(script, tmp_path)
    assert len(script.read_text().splitlines()) < 60
    if script.stem.startswith("01"):
        accepted, tried = re.search(r"(\d+) of (\d+) jumps accepted", text).groups()
        assert int(tried) == 39
        assert int(accepted) > 0
    if script.stem.startswith("04"):
        assert "free energy from" in text
    if script.stem.startswith("03"):
        assert "13 jumps in hybrid.latent.csv" in text
        assert "restart equals the run that went on: True" in text
    if script.stem.startswith("05"):
        assert re.search(r"([1-9]\d*) of 10 jumps accepted", text)
        by_torch, by_openmm = (float(energy) for energy in re.findall(r"(\S+) kJ/mol", text))
        assert abs(by_torch - by_openmm) < 1e-3
    if script.stem.startswith("07"):
        assert "ligand of 4 heavy atoms, orders of 3 of 3 bonds known, charges of the System" in text
        accepted, n_filled = re.search(r"(\d) of 3 jumps accepted, (\d+) frames of them", text).groups()
        assert int(n_filled) == 6 * int(accepted) > 0
        assert "11 frames of 14 atoms without MD, 0.1 ps apart" in text


@pytest.mark.slow
def test_demo_in_short(tmp_path: Path) -> None:
    text = run(ROOT / "examples" / "demo.py", tmp_path, "--quick", "--out", str(tmp_path / "out"))
    assert "physically sound, not Boltzmann" in text
    assert (tmp_path / "out" / "demo.png").stat().st_size > 50_000


@pytest.mark.parametrize("block", README_BLOCKS, ids=lambda block: block.strip().splitlines()[0][:40])
def test_readme(block: str, tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    shutil.copytree(ROOT / "examples" / "data", tmp_path / "examples" / "data")
    for name in ("adp.pdb", "adp.latent.pt", "adp_400K.xtc", "adp_400K.json"):
        shutil.copy(ROOT / "examples" / "data" / name, tmp_path / name)
    (tmp_path / "block.py").write_text(block)
    run(tmp_path / "block.py", tmp_path)


@pytest.mark.parametrize("command", README_COMMANDS)
def test_readme_commands_have_these_options(command: str) -> None:
    words = command.split()
    name = words[:2] if words[0] == "train" else words[:1]
    known = CliRunner().invoke(app, [*name, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    assert [word for word in words if word.startswith("--") and f"{word} " not in known] == []
