"""An entry of a data set as PDB and XTC: the same atoms, frames, times and origin."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from formats import write_atlas, write_mdcath, write_misato
from openmm_latent.cli import app
from openmm_latent.data import datasets, open_dataset
from openmm_latent.data.export import export_entry
from openmm_latent.data.trajectories import load_trajectories
from openmm_latent.errors import LatentError


def write(kind: str, folder: Path) -> tuple[Path, str]:
    if kind == "ATLAS":
        write_atlas(folder / "atlas", "1abc_A", n_replicas=2)
        return folder / "atlas", "1abc_A"
    if kind == "mdCATH":
        path = folder / "mdcath_dataset_1abcA00.h5"
        write_mdcath(path, "1abcA00")
        return path, "1abcA00"
    write_misato(folder / "MD.hdf5")
    return folder / "MD.hdf5", "1A28"


@pytest.mark.parametrize(("kind", "temperature"), [("ATLAS", 300.0), ("mdCATH", 320.0), ("MISATO", 300.0)])
def test_files_hold_what_the_data_set_holds(tmp_path, monkeypatch, kind, temperature):
    """Oracle: DataSet.load, which reads the data set itself; XTC rounds to 0.001 nm."""
    monkeypatch.setattr(datasets, "LONGEST_BOND", 99.0)  # the atoms of the small MISATO file lie in a row
    path, name = write(kind, tmp_path)
    dataset = open_dataset(path)
    top, *files = export_entry(dataset, name, tmp_path / "out", temperature=temperature)
    found = load_trajectories(top, files, atoms="all")
    expected = dataset.load(name, temperature=temperature, atoms="all")
    assert len(found.positions) == len(expected.positions)
    for one, other in zip(found.positions, expected.positions, strict=True):
        assert one == pytest.approx(other, abs=6e-4)
    assert found.frame_spacing == pytest.approx(expected.frame_spacing)
    assert found.provenance["temperature"] == temperature
    assert found.provenance["licence"] == dataset.licence
    # not names: OpenMM's reader has its own for some hydrogens
    atoms = [[(a.element.symbol, a.residue.index) for a in t.atoms()] for t in (found.topology, expected.topology)]
    assert atoms[0] == atoms[1]
    again = open_dataset(tmp_path / "out")
    assert (again.kind, again.names) == ("ATLAS" if kind == "ATLAS" else "files", [name])


def test_the_command_takes_runs_and_strides(tmp_path):
    path, name = write("mdCATH", tmp_path)
    words = ["dataset", "export", str(path), name, "--out", str(tmp_path / "out"), "--run", "450/1", "--stride", "3"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "1abcA00.pdb",
        "1abcA00_450_1.xtc",
        "1abcA00_450_1.json",
    }
    told = json.loads((tmp_path / "out" / "1abcA00_450_1.json").read_text())
    assert (told["frame_spacing"], told["temperature"]) == (3000.0, 450.0)
    found = load_trajectories(tmp_path / "out" / "1abcA00.pdb", tmp_path / "out" / "1abcA00_450_1.xtc")
    assert found.frame_spacing == 3000.0
    run = open_dataset(path)[name].run("450/1")
    assert found.n_frames == len(np.arange(0, run.n_frames, 3))


def test_what_cannot_be_exported_is_told(tmp_path):
    path, name = write("mdCATH", tmp_path)
    dataset = open_dataset(path)
    with pytest.raises(LatentError, match="has no entry '9zzz'"):
        export_entry(dataset, "9zzz", tmp_path / "out")
    with pytest.raises(LatentError, match="run must be one of"):
        export_entry(dataset, name, tmp_path / "out", runs=["300/0"])
    with pytest.raises(LatentError, match="stride must be a positive"):
        export_entry(dataset, name, tmp_path / "out", stride=0)
    (tmp_path / "taken").write_text("")
    with pytest.raises(LatentError, match=r"taken cannot be written to \(.*\); give another folder"):
        export_entry(dataset, name, tmp_path / "taken")
