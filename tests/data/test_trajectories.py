"""Trajectory sets: formats, lag pairs, splits, periodic images, provenance, and the sentence of each mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from openmm import app

from openmm_latent.data.imaging import bond_walk, make_whole
from openmm_latent.data.trajectories import load_trajectories, select_atoms
from openmm_latent.errors import LatentError

ADP = Path(__file__).parents[2] / "examples" / "data" / "adp.pdb"
N_FRAMES = 40


@pytest.fixture(scope="module")
def traj() -> mdtraj.Trajectory:
    """Jiggled alanine dipeptide, a frame every 2 ps."""
    pdb = app.PDBFile(str(ADP))
    start = np.array(pdb.getPositions(asNumpy=True)._value)
    jiggle = 0.01 * np.random.default_rng(1).standard_normal((N_FRAMES, *start.shape))
    topology = mdtraj.Topology.from_openmm(pdb.topology)
    return mdtraj.Trajectory(start + jiggle, topology, time=2.0 * np.arange(N_FRAMES))


@pytest.fixture
def xtc(traj: mdtraj.Trajectory, tmp_path: Path) -> Path:
    path = tmp_path / "run.xtc"
    traj.save(str(path))
    return path


def heavy(traj: mdtraj.Trajectory) -> np.ndarray:
    return traj.xyz[:, [a.index for a in traj.topology.atoms if a.element.symbol != "H"]]


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "nc", "trr", "pdb"])
def test_formats_give_the_same_heavy_atoms(traj: mdtraj.Trajectory, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"run.{suffix}"
    traj.save(str(path))
    loaded = load_trajectories(ADP, path, frame_spacing=2.0)
    assert loaded.positions[0].dtype == np.float32
    assert loaded.positions[0].shape == (N_FRAMES, 10, 3)
    np.testing.assert_allclose(loaded.positions[0], heavy(traj), atol=6e-4)  # XTC and PDB round to 0.001 nm or Å
    assert loaded.frame_spacing == 2.0


def test_mdtraj_hdf5_is_read_without_pytables(traj: mdtraj.Trajectory, tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "run.h5", "w") as store:
        store["coordinates"] = traj.xyz
        store["time"] = traj.time
    loaded = load_trajectories(ADP, tmp_path / "run.h5")
    np.testing.assert_array_equal(loaded.positions[0], heavy(traj))
    assert loaded.frame_spacing == 2.0


def test_stride_multiplies_the_frame_spacing(xtc: Path, traj: mdtraj.Trajectory) -> None:
    loaded = load_trajectories(ADP, xtc, stride=3)
    assert loaded.frame_spacing == 6.0
    np.testing.assert_allclose(loaded.positions[0], heavy(traj)[::3], atol=6e-4)


def test_stride_runs_on_across_chunks(xtc: Path, traj: mdtraj.Trajectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openmm_latent.data.readers._CHUNK_ATOMS", 22 * 7)
    loaded = load_trajectories(ADP, xtc, stride=3)
    np.testing.assert_allclose(loaded.positions[0], heavy(traj)[::3], atol=6e-4)


def test_lag_pairs_never_cross_files(xtc: Path) -> None:
    loaded = load_trajectories(ADP, [xtc, xtc])
    now, later = loaded.lag_pairs(6.0)
    assert np.all(later - now == 3)
    assert len(now) == 2 * (N_FRAMES - 3)
    assert np.all((now < N_FRAMES) == (later < N_FRAMES))


def test_splits(xtc: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.xtc"
    shutil.copy(xtc, other)
    loaded = load_trajectories(ADP, [xtc, other])
    train, test = loaded.split_chronological(0.75)
    assert [len(p) for p in train.positions] == [30, 30]
    assert [len(p) for p in test.positions] == [10, 10]
    np.testing.assert_array_equal(test.positions[0], loaded.positions[0][30:])
    for by_file in (loaded.split_by_file(1), loaded.split_by_file(["other.xtc"])):
        assert [Path(f).name for f in by_file[0].files] == ["run.xtc"]
        assert [Path(f).name for f in by_file[1].files] == ["other.xtc"]
    assert len({loaded.digest, train.digest, test.digest}) == 3


def test_split_into_blocks(xtc: Path) -> None:
    loaded = load_trajectories(ADP, [xtc, xtc])
    train, test = loaded.split_blocks(8, [2, 3, 7])
    assert [len(p) for p in train.positions] == [10, 15, 10, 15]
    assert [len(p) for p in test.positions] == [10, 5, 10, 5]
    np.testing.assert_array_equal(train.positions[1], loaded.positions[0][20:35])
    np.testing.assert_array_equal(test.positions[1], loaded.positions[0][35:])
    assert len(train.files) == len(test.files) == 4
    with pytest.raises(LatentError, match=r"test_blocks must be some, not all, of the blocks 0 to 7, got \[8\]"):
        loaded.split_blocks(8, [8])
    with pytest.raises(LatentError, match=r"n_blocks must lie between 2 and 40 frames a file, got 1"):
        loaded.split_blocks(1, [0])


def test_digest_follows_content_not_place(xtc: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    moved = tmp_path / "sub" / "moved.xtc"
    shutil.copy(xtc, moved)
    assert load_trajectories(ADP, xtc).digest == load_trajectories(ADP, moved).digest
    assert load_trajectories(ADP, xtc).digest != load_trajectories(ADP, xtc, stride=2).digest


def test_provenance_is_read_from_beside_the_file(xtc: Path) -> None:
    assert load_trajectories(ADP, xtc).provenance == {}
    xtc.with_suffix(".json").write_text(json.dumps({"temperature": 400.0, "force_field": "amber14"}))
    assert load_trajectories(ADP, xtc).provenance["temperature"] == 400.0


def test_split_molecules_are_joined_in_a_triclinic_box() -> None:
    rng = np.random.default_rng(3)
    box = np.array([[3.0, 0, 0], [1.0, 2.8, 0], [-1.0, 0.9, 2.6]])
    chain = np.cumsum(0.09 * rng.standard_normal((12, 3)), axis=0)
    partner = chain[:5] + np.array([0.4, 0.3, -0.3])
    reference = np.concatenate([chain, partner])
    bonds = [(i, i + 1) for i in range(11)] + [(i, i + 1) for i in range(12, 16)]
    walk, molecules = bond_walk(17, bonds)
    shifts = rng.integers(-2, 3, (6, 17, 3)) @ box  # every atom in an image of its own
    boxes = np.repeat(box[None], 6, axis=0)
    whole = make_whole(reference + shifts, boxes, walk, molecules, reference)
    np.testing.assert_allclose(whole - whole[:, :1], np.broadcast_to(reference - reference[0], whole.shape), atol=1e-5)


def test_water_and_ions_are_no_model_atoms() -> None:
    pdb = app.PDBFile(str(ADP))
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addSolvent(app.ForceField("amber14-all.xml", "amber14/tip3p.xml"), boxSize=(2.5, 2.5, 2.5))
    assert len(select_atoms(modeller.topology, "heavy")) == 10
    assert len(select_atoms(modeller.topology, "all")) == 22


def test_topology_mismatch(xtc: Path) -> None:
    pdb = app.PDBFile(str(ADP))
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.delete([list(pdb.topology.residues())[-1]])
    with pytest.raises(LatentError, match=r"has 22 atoms, but the topology has 16; give the topology \(--top\)"):
        load_trajectories(modeller.topology, xtc)


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "nc", "trr"])
def test_truncated_file(traj: mdtraj.Trajectory, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"run.{suffix}"
    traj.save(str(path))
    content = path.read_bytes()
    path.write_bytes(content[: int(0.713 * len(content))])  # inside a frame: a cut between two cannot be seen
    with pytest.raises(LatentError, match=r"truncated|uneven time stamps"):
        load_trajectories(ADP, path)


def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "run.xtc"
    path.write_bytes(b"not a trajectory at all, only words " * 20)
    with pytest.raises(LatentError, match=r"cannot be read as .xtc"):
        load_trajectories(ADP, path)
    with pytest.raises(LatentError, match=r"does not exist; check the name given to files"):
        load_trajectories(ADP, tmp_path / "absent.xtc")
    strange = tmp_path / "run.docx"
    strange.write_bytes(b"words")
    with pytest.raises(LatentError, match=r"cannot be read as .docx"):
        load_trajectories(ADP, strange)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "run.xtc").write_bytes(b"")
    with pytest.raises(LatentError, match=r"holds no frames|cannot be read"):
        load_trajectories(ADP, tmp_path / "run.xtc")
    with pytest.raises(LatentError, match=r"files .--traj. is empty"):
        load_trajectories(ADP, [])


def test_coordinates_that_are_not_numbers(traj: mdtraj.Trajectory, tmp_path: Path) -> None:
    broken = traj[:]
    broken.xyz[17, 3, 1] = np.nan
    broken.save(str(tmp_path / "run.trr"))
    with pytest.raises(LatentError, match=r"not numbers in frame 17"):
        load_trajectories(ADP, tmp_path / "run.trr")


def test_frames_on_one_point(traj: mdtraj.Trajectory, tmp_path: Path) -> None:
    broken = traj[:]
    broken.xyz[30] = 0.0
    broken.save(str(tmp_path / "run.xtc"))
    with pytest.raises(LatentError, match=r"all atoms on one point in frame 30"):
        load_trajectories(ADP, tmp_path / "run.xtc", stride=5)


def test_a_frame_spacing_is_believed_over_time_stamps(traj: mdtraj.Trajectory, xtc: Path, tmp_path: Path) -> None:
    times = traj.time.copy()
    times[5:] += 7.0
    uneven = mdtraj.Trajectory(traj.xyz, traj.topology, time=times)
    uneven.save_xtc(str(tmp_path / "uneven.xtc"))
    with pytest.raises(LatentError, match="uneven time stamps"):
        load_trajectories(ADP, tmp_path / "uneven.xtc")
    loaded = load_trajectories(ADP, [tmp_path / "uneven.xtc", xtc], frame_spacing=3.0, stride=2)
    assert loaded.frame_spacing == 6.0
    assert len(loaded.positions[0]) == len(loaded.positions[1])


def test_uneven_and_differing_time_stamps(traj: mdtraj.Trajectory, xtc: Path, tmp_path: Path) -> None:
    gap = traj[list(range(10)) + list(range(12, 30))]
    gap.save(str(tmp_path / "gap.xtc"))
    with pytest.raises(LatentError, match=r"frame 10 comes 6 ps after frame 9, most come after 2 ps"):
        load_trajectories(ADP, tmp_path / "gap.xtc")
    traj[::2].save(str(tmp_path / "slow.xtc"))
    with pytest.raises(LatentError, match=r"different frame spacings: .*run.xtc 2 ps, .*slow.xtc 4 ps"):
        load_trajectories(ADP, [xtc, tmp_path / "slow.xtc"])


def test_a_format_without_time_asks_for_it(traj: mdtraj.Trajectory, tmp_path: Path) -> None:
    traj.save(str(tmp_path / "run.dcd"))
    with pytest.raises(LatentError, match=r"stores no time between frames; give frame_spacing"):
        load_trajectories(ADP, tmp_path / "run.dcd")
    (tmp_path / "run.json").write_text('{"frame_spacing": 2.0}')
    assert load_trajectories(ADP, tmp_path / "run.dcd").frame_spacing == 2.0


@pytest.mark.parametrize("lag_time", [3.0, 0.5, 2.1])
def test_lag_time_not_a_multiple(xtc: Path, lag_time: float) -> None:
    with pytest.raises(LatentError, match=r"lag_time must be a multiple of the frame spacing \(2 ps\), got"):
        load_trajectories(ADP, xtc).lag_pairs(lag_time)


@pytest.mark.parametrize("lag_time", [0.0, -2.0, float("nan")])
def test_lag_time_not_a_time(xtc: Path, lag_time: float) -> None:
    with pytest.raises(LatentError, match=r"lag_time must be a positive time in ps"):
        load_trajectories(ADP, xtc).lag_pairs(lag_time)


def test_lag_time_longer_than_every_file(xtc: Path) -> None:
    with pytest.raises(LatentError, match=r"lag_time 80 ps is 40 frames, but the longest file has 40 frames"):
        load_trajectories(ADP, xtc).lag_pairs(80.0)


def test_mixed_temperatures(xtc: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.xtc"
    shutil.copy(xtc, other)
    xtc.with_suffix(".json").write_text('{"temperature": 300.0}')
    other.with_suffix(".json").write_text('{"temperature": 400.0}')
    with pytest.raises(
        LatentError, match=r"differ in temperature: .* has 300.0, .* has 400.0; train one model on each"
    ):
        load_trajectories(ADP, [xtc, other])
    other.with_suffix(".json").write_text("{temperature")
    with pytest.raises(LatentError, match=r"is not valid JSON"):
        load_trajectories(ADP, [xtc, other])


def test_wrong_arguments(xtc: Path) -> None:
    with pytest.raises(LatentError, match=r"stride must be a positive whole number, got 0"):
        load_trajectories(ADP, xtc, stride=0)
    with pytest.raises(LatentError, match=r"atoms must be 'heavy', 'all' or a list of indices, got 'CA'"):
        load_trajectories(ADP, xtc, atoms="CA")
    with pytest.raises(LatentError, match=r"atoms must be different indices from 0 to 21"):
        load_trajectories(ADP, xtc, atoms=[1, 22])
    with pytest.raises(LatentError, match=r"fraction must lie between 0 and 1, got 1.5"):
        load_trajectories(ADP, xtc).split_chronological(1.5)
    with pytest.raises(LatentError, match=r"at least one file on each side, got 1 of 1 files"):
        load_trajectories(ADP, xtc).split_by_file(1)
    with pytest.raises(LatentError, match=r"topology file .* does not exist"):
        load_trajectories("absent.pdb", xtc)
    with pytest.raises(LatentError, match=r"frame_spacing must be a positive time"):
        load_trajectories(ADP, xtc, frame_spacing=-1.0)
