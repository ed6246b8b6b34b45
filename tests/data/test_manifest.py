"""Manifests, what a look at an entry finds, and the command that shows both."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from formats import alanines_pdb, write_atlas, write_mdcath
from openmm_latent.cli import app
from openmm_latent.data import open_dataset
from openmm_latent.data.manifest import check_manifest, look_at, write_manifest
from openmm_latent.errors import LatentError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "atlas"
    for name in ("1abc_A", "2xyz_B"):
        write_atlas(root / name, name, n_replicas=2)
    return root


def test_a_manifest_tells_files_runs_and_licence(folder: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    content = write_manifest(open_dataset(folder), tmp_path / "m.json", lambda *step: steps.append(step))
    assert json.loads((tmp_path / "m.json").read_text()) == content
    assert (content["data_set"], content["n_entries"], "NC" in content["licence"]) == ("ATLAS", 2, True)
    file = folder / "2xyz_B" / "2xyz_B_R1.xtc"
    told = {entry["file"]: entry for entry in content["files"]}["2xyz_B/2xyz_B_R1.xtc"]
    assert told["bytes"] == file.stat().st_size
    assert told["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    entry = content["entries"][1]
    assert (entry["n_atoms"], entry["protein"]) == (30, "2xyz")
    assert entry["runs"][0] == {"name": "R1", "n_frames": 20, "frame_spacing_ps": 10.0, "temperature_K": 300.0}
    assert steps[-1][:2] == (6, 6)


def test_a_check_finds_what_changed(folder: Path, tmp_path: Path) -> None:
    write_manifest(open_dataset(folder), tmp_path / "m.json")
    assert check_manifest(tmp_path / "m.json", folder) == []
    first, second, third = sorted(folder.rglob("*.xtc"))[:3]
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    second.write_bytes(second.read_bytes()[:-4])
    third.unlink()
    problems = check_manifest(tmp_path / "m.json", folder)
    assert [problem.split(";")[0].split(" ", 1)[1].split(" ")[0] for problem in problems] == ["has", "has", "is"]
    assert "another SHA-256" in problems[0]
    assert "bytes, the manifest says" in problems[1]
    assert "is in the manifest and not here" in problems[2]
    assert len(check_manifest(tmp_path / "m.json", folder, reads_contents=False)) == 2


def test_a_manifest_of_one_file(tmp_path: Path) -> None:
    write_mdcath(tmp_path / "mdcath_dataset_1abcA00.h5", "1abcA00")
    dataset = open_dataset(tmp_path / "mdcath_dataset_1abcA00.h5")
    write_manifest(dataset, tmp_path / "m.json")
    assert check_manifest(tmp_path / "m.json", dataset.path) == []


def test_what_is_no_manifest_is_told(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"files": []}')
    with pytest.raises(LatentError, match=r"m.json cannot be read \(KeyError: 'manifest'\); make it anew"):
        check_manifest(tmp_path / "m.json", tmp_path)
    with pytest.raises(LatentError, match=r"absent.json does not exist; make it with `openmm-latent dataset manifest`"):
        check_manifest(tmp_path / "absent.json", tmp_path)


def test_missing_atoms_and_gaps_are_found(tmp_path: Path) -> None:
    """Residue 2 as serine lacks OG; residue 4 lies 1 nm away, as after missing residues."""
    write_atlas(tmp_path, "1abc_A", n_residues=4, n_replicas=1)
    lines = [line.replace("ALA A   2", "SER A   2") for line in alanines_pdb(4).splitlines()]
    moved = [line[:38] + f"{float(line[38:46]) + 10:8.3f}" + line[46:] if "A   4" in line else line for line in lines]
    (tmp_path / "1abc_A.pdb").write_text("\n".join(moved) + "\n")
    found = look_at(open_dataset(tmp_path)["1abc_A"])
    assert found.missing == ["SER 2 of chain A lacks OG"]
    assert found.gaps == ["C of ALA 3 and N of ALA 4 are bonded, but 1.01 nm apart"]
    assert found.stretched == []
    assert (found.n_residues, found.n_frames) == (4, 20)


def test_the_command_shows_writes_and_checks(folder: Path, tmp_path: Path) -> None:
    def run(*words: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["dataset", *map(str, words)])
        return result.exit_code, result.output

    code, shown = run("show", folder)
    assert code == 0
    assert "ATLAS, 2 entries; licence: CC BY-NC" in shown
    code, shown = run("show", folder, "--entry", "1abc_A")
    assert "1abc_A: 3 residues, 30 atoms, 40 frames" in shown
    assert "run R2: 20 frames, 10 ps apart, 300 K" in shown
    assert "nothing missing" in shown
    assert json.loads(run("show", folder, "--json")[1])["entries"] == ["1abc_A", "2xyz_B"]
    assert run("manifest", folder, "--out", tmp_path / "m.json")[0] == 0
    assert run("check", folder, "--manifest", tmp_path / "m.json")[0] == 0
    next(iter(sorted(folder.rglob("*.xtc")))).unlink()
    code, shown = run("check", folder, "--manifest", tmp_path / "m.json")
    assert code == 2
    assert "not here" in shown
    assert run("show", tmp_path / "absent")[0] == 2
