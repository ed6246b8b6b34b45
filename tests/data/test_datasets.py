"""Data sets of many proteins: layouts, random access, streaming in bounded memory, and the sentence of each mistake."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import mdtraj
import numpy as np
import pytest

from formats import (
    ALANINE,
    N_HEAVY,
    alanines_pdb,
    frame_numbers,
    frames,
    write_atlas,
    write_mdcath,
    write_misato,
    write_xtc,
)
from openmm_latent.data import open_dataset
from openmm_latent.data.random_access import spans
from openmm_latent.errors import LatentError


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("atlas")
    for name, n_residues in (("1abc_A", 3), ("2xyz_B", 4)):
        write_atlas(root / name, name, n_residues=n_residues)
    return root


@pytest.fixture(scope="module")
def mdcath(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mdcath")
    for domain in ("1abcA00", "2xyzB01"):
        write_mdcath(root / f"mdcath_dataset_{domain}.h5", domain)
    return root


@pytest.fixture(scope="module")
def misato(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("misato") / "MD.hdf5"
    write_misato(path)
    return path


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as target:
        for file in sorted(folder.iterdir()):
            target.write(file, file.name)
    return archive


# -- what is found ---------------------------------------------------------------------------------------------------


def test_atlas_is_found_in_folders(atlas: Path) -> None:
    dataset = open_dataset(atlas)
    assert (dataset.kind, dataset.names) == ("ATLAS", ["1abc_A", "2xyz_B"])
    runs = dataset["2xyz_B"].runs
    assert [(run.name, run.n_frames, run.frame_spacing, run.temperature) for run in runs] == [
        ("R1", 20, 10.0, 300.0),
        ("R2", 20, 10.0, 300.0),
        ("R3", 20, 10.0, 300.0),
    ]
    assert "NC" in dataset.licence


def test_older_names_and_a_flat_folder_are_atlas_too(tmp_path: Path) -> None:
    write_atlas(tmp_path, "7jfl_C", n_replicas=1)
    (tmp_path / "7jfl_C_R1.xtc").rename(tmp_path / "7jfl_C_prod_R1_fit.xtc")
    (tmp_path / "6j56_A_start.pdb").write_text(alanines_pdb(3))  # a structure without frames is no entry
    dataset = open_dataset(tmp_path)
    assert (dataset.kind, dataset.names, [run.name for run in dataset["7jfl_C"].runs]) == ("ATLAS", ["7jfl_C"], ["R1"])


def test_an_archive_reads_as_its_folder_does(atlas: Path, tmp_path: Path) -> None:
    archive = zipped(atlas / "1abc_A", tmp_path / "1abc_A_protein.zip")
    for path in (archive, tmp_path):
        from_zip, from_folder = open_dataset(path)["1abc_A"], open_dataset(atlas)["1abc_A"]
        for ours, theirs in zip(from_zip.runs, from_folder.runs, strict=True):
            np.testing.assert_array_equal(from_zip.frames(ours, [7, 3]), from_folder.frames(theirs, [7, 3]))
    assert from_zip.files == [archive]


def test_mdcath_has_temperatures_and_replicas(mdcath: Path) -> None:
    dataset = open_dataset(mdcath)
    assert (dataset.kind, dataset.names) == ("mdCATH", ["1abcA00", "2xyzB01"])
    runs = dataset["1abcA00"].runs
    assert [(run.name, run.temperature, run.frame_spacing) for run in runs] == [
        ("320/0", 320.0, 1000.0),
        ("320/1", 320.0, 1000.0),
        ("450/0", 450.0, 1000.0),
        ("450/1", 450.0, 1000.0),
    ]
    assert open_dataset(mdcath / "mdcath_dataset_1abcA00.h5").names == ["1abcA00"]


def test_mdcath_takes_bonds_from_the_psf(mdcath: Path, tmp_path: Path) -> None:
    entry = open_dataset(mdcath)["1abcA00"]
    assert entry.topology.getNumBonds() == 3 * 9 + 2
    assert entry.notes == []
    path = tmp_path / "mdcath_dataset_1abcA00.h5"
    shutil.copy(entry.path, path)
    with h5py.File(path, "r+") as store:
        del store["1abcA00/psf"]
        store["1abcA00/psf"] = b"PSF of something else"
    assert "PSF does not match" in open_dataset(path)["1abcA00"].notes[0]


def test_own_files_are_grouped_by_name(tmp_path: Path) -> None:
    for name in ("pep", "pep2"):
        (tmp_path / f"{name}.pdb").write_text(alanines_pdb(2))
        for k in range(2):
            write_xtc(tmp_path / f"{name}_{k:02d}.xtc", frames(6, 2), 2.0)
    (tmp_path / "pep_00.json").write_text('{"temperature": 310.0}')
    dataset = open_dataset(tmp_path)
    assert (dataset.kind, dataset.names) == ("files", ["pep", "pep2"])
    assert [(run.name, run.temperature) for run in dataset["pep"].runs] == [("00", 310.0), ("01", None)]


@pytest.mark.parametrize("suffix", ["xtc", "trr", "dcd", "nc"])
def test_every_seekable_format_gives_the_frames_asked_for(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "pep.pdb").write_text(alanines_pdb(3))
    top = mdtraj.load_topology(str(tmp_path / "pep.pdb"))
    positions = frames(30, 3)
    mdtraj.Trajectory(positions / 10, top, time=2.0 * np.arange(30)).save(str(tmp_path / f"pep_a.{suffix}"))
    entry = open_dataset(tmp_path, frame_spacing=2.0)["pep"]
    wanted = [17, 3, 4, 5, 29, 0, 17]
    got = entry.frames(entry.runs[0], wanted, "all")
    np.testing.assert_allclose(got, positions[wanted] / 10, atol=6e-4)  # XTC rounds to 0.001 nm


# -- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["atlas", "mdcath", "misato"])
def test_streams_hold_what_random_access_reads(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openmm_latent.data.datasets.CHUNK_ATOMS", 100)  # three frames a chunk
    entry = next(iter(open_dataset(request.getfixturevalue(kind))))
    run = entry.runs[0]
    chunks = list(entry.stream(run, start=1, stop=9, stride=2))
    assert len(chunks) > 1
    together = np.concatenate(chunks)
    np.testing.assert_array_equal(together, entry.frames(run, [1, 3, 5, 7]))
    assert together.dtype == np.float32
    assert list(frame_numbers(together)) == [1, 3, 5, 7]


def test_heavy_atoms_are_in_nanometres(mdcath: Path) -> None:
    entry = open_dataset(mdcath)["1abcA00"]
    with h5py.File(entry.path) as store:
        stored = store["1abcA00/450/1/coords"][5] / 10
    heavy = [i for i in range(30) if ALANINE[i % 10][1] != "H"]
    np.testing.assert_allclose(entry.frames(entry.run("450/1"), [5])[0], stored[heavy], atol=1e-6)
    assert len(heavy) == 3 * N_HEAVY


def test_molecules_that_the_box_cut_are_made_whole(mdcath: Path, tmp_path: Path) -> None:
    path = tmp_path / "mdcath_dataset_1abcA00.h5"
    shutil.copy(mdcath / path.name, path)
    with h5py.File(path, "r+") as store:
        coords = store["1abcA00/320/0/coords"][()]
        coords[:, 15:, 1] += 90.0  # [Å], one box edge
        store["1abcA00/320/0/coords"][...] = coords
    cut, whole = open_dataset(path)["1abcA00"], open_dataset(mdcath)["1abcA00"]
    np.testing.assert_allclose(cut.frames(cut.runs[0], [2]), whole.frames(whole.runs[0], [2]), atol=1e-5)


def test_one_entry_loads_as_a_trajectory_set(atlas: Path, mdcath: Path) -> None:
    loaded = open_dataset(atlas).load("1abc_A", stride=2)
    assert [part.shape for part in loaded.positions] == [(10, 3 * N_HEAVY, 3)] * 3
    assert loaded.frame_spacing == 20.0
    assert loaded.provenance["temperature"] == 300.0
    hot = open_dataset(mdcath).load("1abcA00", temperature=450)
    assert [name[-5:] for name in hot.files] == ["450/0", "450/1"]
    assert hot.digest != open_dataset(mdcath).load("1abcA00", temperature=320).digest


def test_spans_serve_any_order() -> None:
    wanted = np.array([5, 2, 3, 9, 3])
    assert [(start, list(wanted[places])) for start, places in spans(wanted)] == [
        (2, [2, 3]),
        (3, [3]),
        (5, [5]),
        (9, [9]),
    ]
    assert [start for start, _ in spans(wanted, reach=3)] == [2, 9]
    assert spans(np.array([], dtype=int)) == []


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_a_large_file_is_streamed_in_little_memory(tmp_path: Path) -> None:
    """300 MB of frames, read from end to end and at random, with less than 80 MB on top."""
    path, n_residues, n_frames = tmp_path / "mdcath_dataset_9bigA00.h5", 60, 1750
    write_mdcath(path, "9bigA00", n_residues=n_residues, n_frames=2, temperatures=(320, 348, 379, 413, 450))
    block = frames(n_frames, n_residues)
    with h5py.File(path, "r+") as store:
        for temperature in ("320", "348", "379", "413", "450"):
            for replica in range(5):
                run = store["9bigA00"].require_group(f"{temperature}/{replica}")
                run.pop("coords", None)
                run["coords"] = block
    assert path.stat().st_size > 300e6
    program = """
import re, sys
from pathlib import Path
from openmm_latent.data import open_dataset
from openmm_latent.data.pairs import stream_lag_pairs
def kilobytes(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
dataset = open_dataset(sys.argv[1])
entry = dataset["9bigA00"]
entry.frames(entry.runs[0], [0])
before = kilobytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
n = sum(len(chunk) for run in entry.runs for chunk in entry.stream(run))
pairs = sum(len(batch.now) for batch in stream_lag_pairs(dataset, 5000.0, batch_size=64, n_batches=20))
print(n, pairs, (kilobytes("VmHWM") - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    n_read, n_pairs, megabytes = done.stdout.split()
    assert (int(n_read), int(n_pairs)) == (25 * n_frames, 20 * 64)
    assert float(megabytes) < 80


# -- mistakes --------------------------------------------------------------------------------------------------------


def test_what_is_no_data_set_is_told(tmp_path: Path) -> None:
    for name, content, sentence in [
        ("notes.txt", b"hello", "is no data set; expected"),
        ("absent", None, "does not exist"),
    ]:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(LatentError, match=sentence):
            open_dataset(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LatentError, match="holds no trajectories of proteins; expected"):
        open_dataset(tmp_path / "empty")


def test_foreign_hdf5_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "qm.hdf5", "w") as store:
        store.create_group("10GS/atom_properties")
    with h5py.File(tmp_path / "mdtraj.h5", "w") as store:
        store["coordinates"], store["topology"] = np.zeros((1, 2, 3)), b"{}"
    with h5py.File(tmp_path / "other.h5", "w") as store:
        store["x"] = 1
    with pytest.raises(LatentError, match="quantum-mechanical properties and no trajectories"):
        open_dataset(tmp_path / "qm.hdf5")
    with pytest.raises(LatentError, match="read it with load_trajectories"):
        open_dataset(tmp_path / "mdtraj.h5")
    with pytest.raises(LatentError, match="is of no known layout"):
        open_dataset(tmp_path / "other.h5")


def test_truncated_files_are_told(atlas: Path, mdcath: Path, tmp_path: Path) -> None:
    shutil.copytree(atlas / "1abc_A", tmp_path / "a")
    xtc = tmp_path / "a" / "1abc_A_R2.xtc"
    xtc.write_bytes(xtc.read_bytes()[:-40])
    with pytest.raises(LatentError, match=r"1abc_A_R2.xtc cannot be read as .xtc \(.*\); it may be truncated"):
        _ = open_dataset(tmp_path / "a")["1abc_A"].runs
    whole = (mdcath / "mdcath_dataset_1abcA00.h5").read_bytes()
    cut = tmp_path / "mdcath_dataset_1abcA00.h5"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LatentError, match=r"HDF5 file .* cannot be read as .h5 \(.*truncated file.*\); it may be"):
        open_dataset(cut)
    archive = zipped(atlas / "1abc_A", tmp_path / "b.zip")
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(LatentError, match=r"archive .*b.zip cannot be read as .zip \(.*\); it may be truncated"):
        open_dataset(archive)


def test_a_topology_of_other_atoms_is_told(atlas: Path, tmp_path: Path) -> None:
    shutil.copytree(atlas / "1abc_A", tmp_path / "a")
    (tmp_path / "a" / "1abc_A.pdb").write_text(alanines_pdb(4))
    with pytest.raises(LatentError, match=r"R1.xtc has 30 atoms, but the topology 1abc_A.pdb of 1abc_A has 40"):
        _ = open_dataset(tmp_path / "a")["1abc_A"].runs


def test_atoms_in_another_order_are_told(atlas: Path, tmp_path: Path) -> None:
    shutil.copytree(atlas / "1abc_A", tmp_path / "a")
    write_xtc(tmp_path / "a" / "1abc_A_R1.xtc", frames(20, 3)[:, ::-1], 10.0)
    with pytest.raises(LatentError, match=r"run R1 of 1abc_A does not fit its topology: \d+ % of the bonds"):
        open_dataset(tmp_path / "a").load("1abc_A")


def test_mdcath_tables_must_agree(mdcath: Path, tmp_path: Path) -> None:
    def altered(name: str, change) -> Path:
        path = tmp_path / name / "mdcath_dataset_1abcA00.h5"
        path.parent.mkdir()
        shutil.copy(mdcath / path.name, path)
        with h5py.File(path, "r+") as store:
            change(store["1abcA00"])
        return path

    def other_element(group):
        group["z"][4] = 16

    def fewer_atoms(group):
        del group["320/0/coords"]
        group["320/0/coords"] = np.zeros((5, 29, 3), np.float32)

    with pytest.raises(
        LatentError, match=r"atomic number 16 in its table z for atom 4, which pdbProteinAtoms calls CB"
    ):
        _ = open_dataset(altered("z", other_element))["1abcA00"].topology
    with pytest.raises(LatentError, match=r"coords of shape \(5, 29, 3\) in 320/0, expected \(n_frames, 30, 3\)"):
        _ = open_dataset(altered("coords", fewer_atoms))["1abcA00"].runs


def test_a_replica_that_is_there_twice_is_told(tmp_path: Path) -> None:
    write_atlas(tmp_path, "1abc_A", n_replicas=1)
    shutil.copy(tmp_path / "1abc_A_R1.xtc", tmp_path / "1abc_A_prod_R1_fit.xtc")
    with pytest.raises(LatentError, match="holds replica R1 of 1abc_A twice"):
        open_dataset(tmp_path)


def test_missing_frames_are_seen_in_the_time_stamps(tmp_path: Path) -> None:
    write_atlas(tmp_path, "1abc_A", n_replicas=1)
    with mdtraj.open(str(tmp_path / "1abc_A_R1.xtc"), "w") as file:
        times = np.array([0, 10, 20, 50, 60], np.float32)
        file.write(frames(5, 3) / 10, time=times)
    with pytest.raises(LatentError, match=r"uneven time stamps: the first two frames are 10 ps .*, the mean is 15 ps"):
        _ = open_dataset(tmp_path)["1abc_A"].runs


def test_asking_for_what_is_not_there_is_told(mdcath: Path) -> None:
    dataset = open_dataset(mdcath)
    entry = dataset["1abcA00"]
    with pytest.raises(LatentError, match="has no entry '9zzz'; it has 2: 1abcA00, 2xyzB01"):
        dataset["9zzz"]
    with pytest.raises(LatentError, match=r"run must be one of 1abcA00's \(320/0, .*\), got '300/0'"):
        entry.run("300/0")
    with pytest.raises(LatentError, match="frames must lie between 0 and 11 in run 320/0"):
        entry.frames(entry.runs[0], [12])
    with pytest.raises(LatentError, match="has runs at 320, 450 K; give the temperature"):
        dataset.load("1abcA00")
    with pytest.raises(LatentError, match=r"temperature must be one of 1abcA00's \(320, 450 K\), got 300 K"):
        dataset.load("1abcA00", temperature=300)


def test_coordinates_that_are_no_numbers_are_told(mdcath: Path, tmp_path: Path) -> None:
    path = tmp_path / "mdcath_dataset_1abcA00.h5"
    shutil.copy(mdcath / path.name, path)
    with h5py.File(path, "r+") as store:
        store["1abcA00/320/0/coords"][7, 3] = np.nan
    entry = open_dataset(path)["1abcA00"]
    with pytest.raises(LatentError, match=r"run 320/0 of 1abcA00 .* has coordinates that are not numbers in frame 7"):
        list(entry.stream(entry.runs[0]))


def test_a_trajectory_without_a_topology_of_its_name_is_told(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.pdb").write_text(alanines_pdb(2))
    write_xtc(tmp_path / "other.xtc", frames(3, 2), 1.0)
    with pytest.raises(LatentError, match=r"other\.xtc is left out: none of the"):
        open_dataset(tmp_path)


def test_a_frame_spacing_is_believed_over_uneven_stamps(tmp_path: Path) -> None:
    write_atlas(tmp_path, "1abc_A", n_replicas=1)
    with mdtraj.open(str(tmp_path / "1abc_A_R1.xtc"), "w") as file:
        file.write(frames(5, 3) / 10, time=np.array([0, 10, 20, 50, 60], np.float32))
    (run,) = open_dataset(tmp_path, frame_spacing=10.0)["1abc_A"].runs
    assert run.frame_spacing == 10.0
