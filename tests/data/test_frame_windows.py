"""Windows of frames: equal strides inside one run, every place and timescale reached, ends first, held-out files."""

import numpy as np
import pytest
import torch

from openmm_latent.data.frame_windows import ProteinRuns, draw_windows, read_protein_runs, runs_of
from openmm_latent.data.recognise import open_dataset
from openmm_latent.data.trajectories import TrajectorySet
from openmm_latent.errors import LatentError
from openmm_latent.nn.residue_geometry import describe_residues
from trace_peptides import peptide_frames


def counted_runs(*lengths):
    """Return runs whose every coordinate is 1000 times the run's number plus the frame's."""
    frames = [1000.0 * run + np.arange(length) for run, length in enumerate(lengths)]
    runs = tuple(np.broadcast_to(one[:, None, None, None], (len(one), 2, 15, 3)).astype(np.float32) for one in frames)
    return ProteinRuns("counted", describe_residues(np.zeros(2, dtype=int)), np.zeros((0, 2), dtype=int), runs, 2.0)


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def test_windows_are_equally_spaced_and_never_cross_from_run_to_run():
    windows = draw_windows(counted_runs(40, 25), 400, 5, generator())
    numbers, times = windows.positions[..., 0, 0, 0], windows.times
    steps = np.diff(numbers, axis=1)
    assert (steps == steps[:, :1]).all()
    assert (numbers // 1000 == numbers[:, :1] // 1000).all()
    np.testing.assert_array_equal(times, 2.0 * (numbers - numbers[:, :1]))
    assert set(steps[:, 0]) == set(range(1, 10))  # 4 strides of 9 reach over 36 of 40 frames
    assert set(numbers[:, 0] // 1000) == {0.0, 1.0}
    assert set(draw_windows(counted_runs(40), 300, 5, generator(), max_stride=3).times[:, 1]) == {2.0, 4.0, 6.0}


def test_single_frames_come_equally_often():
    """Chi-squared over 65 frames with 6500 draws: one false alarm in 10^4 above 115."""
    drawn = draw_windows(counted_runs(40, 25), 6500, 1, generator()).positions[:, 0, 0, 0, 0]
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) == 65
    assert ((counts - 100.0) ** 2 / 100.0).sum() < 115


def test_strides_are_log_uniform():
    """Half of all strides from 1 to 1023 lie below 32; the bound is four standard errors of 2000 draws."""
    windows = draw_windows(counted_runs(3000), 2000, 2, generator(), max_stride=1023)
    assert abs((windows.times[:, 1] / 2.0 < 32).mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)


def test_the_end_comes_first_with_its_own_time():
    windows = draw_windows(counted_runs(30), 3, 5, generator(), max_stride=1)
    turned = windows.with_end_first(3)
    np.testing.assert_array_equal(turned.times, np.tile([6.0, 0.0, 2.0, 4.0], (3, 1)))
    np.testing.assert_array_equal(turned.positions[:, 0], windows.positions[:, 3])
    with pytest.raises(LatentError, match="end must lie between 2 and 4 in windows of 5, got 1"):
        windows.with_end_first(1)


def test_runs_are_held_out_by_number_or_by_their_last_part():
    runs = counted_runs(40, 25)
    assert runs.n_frames == 65
    assert float(runs.take([1]).runs[0][0, 0, 0, 0]) == 1000.0
    first, rest = runs.split(0.8)
    assert [len(run) for run in (*first.runs, *rest.runs)] == [32, 20, 8, 5]
    with pytest.raises(LatentError, match=r"chosen must name some of the 2 runs of counted from 0 to 1, got \[2\]"):
        runs.take([2])
    with pytest.raises(LatentError, match="fraction must leave frames on both sides"):
        runs.split(1.0)


def test_runs_that_are_too_short_are_told():
    with pytest.raises(LatentError, match="runs of at most 25 frames, and a window needs 26"):
        draw_windows(counted_runs(25), 1, 26, generator())


def test_files_become_runs():
    frames = peptide_frames("GAV", 7)
    topology, places = heavy_chain("GAV")
    positions = np.stack([frames.positions[:, i, s] for i, s in places], axis=1)
    read = TrajectorySet(topology, list(range(len(places))), [positions[:4], positions[4:]], 5.0, ["a", "b"], "")
    found = runs_of(read, name="gav")
    assert [len(run) for run in found.runs] == [4, 3]
    assert (found.name, found.frame_spacing) == ("gav", 5.0)
    np.testing.assert_array_equal(np.concatenate(found.runs), frames.positions)


def heavy_chain(sequence):
    """Return a topology of heavy atoms, and each atom's (residue, slot)."""
    from openmm import app

    from openmm_latent.nn.residue_geometry import OXT, RESIDUE_NAMES, residue_tables
    from trace_peptides import types_of

    topology, places = app.Topology(), []
    chain = topology.addChain("A")
    for place, kind in enumerate(types_of(sequence)):
        residue = topology.addResidue(RESIDUE_NAMES[kind], chain, str(place + 1))
        names = residue_tables().atom_names[kind]
        for slot in [s for s in range(OXT) if names[s]] + [OXT] * (place == len(sequence) - 1):
            topology.addAtom(names[slot], app.Element.getBySymbol(names[slot][0]), residue)
            places.append((place, slot))
    return topology, places


def test_a_data_set_is_read_run_by_run(tmp_path):
    import mdtraj

    frames = peptide_frames("GAV", 6)
    topology, places = heavy_chain("GAV")
    positions = np.stack([frames.positions[:, i, s] for i, s in places], axis=1)
    folder = tmp_path / "gav"
    folder.mkdir()
    for number, part in enumerate((positions[:4], positions[4:])):
        whole = mdtraj.Trajectory(part, mdtraj.Topology.from_openmm(topology), time=5.0 * np.arange(len(part)))
        whole.save(str(folder / f"gav_{number}.xtc"))
        whole[0].save(str(folder / "gav.pdb"))
    (found,) = read_protein_runs(open_dataset(tmp_path))
    assert [len(run) for run in found.runs] == [4, 2]
    assert found.frame_spacing == 5.0
    assert read_protein_runs(open_dataset(tmp_path), stride=2)[0].frame_spacing == 10.0
