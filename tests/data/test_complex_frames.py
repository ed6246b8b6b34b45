"""Frames of complexes: which atoms, which windows, which crops."""

from dataclasses import replace

import numpy as np
import pytest

from complexes import complex_system, load_complex
from gaussian_proteins import load_two_chains
from openmm_latent import LatentError
from openmm_latent.data.complex_frames import (
    ComplexFrames,
    complex_frames,
    complex_of,
    crop_tokens,
    read_complex_frames,
    stride_of,
)
from openmm_latent.data.complex_tokens import read_tokens
from openmm_latent.data.recognise import open_dataset
from peptides import capped_alanine_trajectories

TOPOLOGY, POSITIONS = load_complex()


def counted(n_frames=20, n_runs=2):
    """Return frames whose first coordinate says the run and the frame: 100 run + frame."""
    numbers = [100 * run + np.arange(n_frames) for run in range(n_runs)]
    runs = [np.broadcast_to(number[:, None, None], (n_frames, 31, 3)).astype(float) for number in numbers]
    return complex_frames(TOPOLOGY, runs, 2.0)


def test_heavy_atoms_are_taken_ligand_included():
    system = complex_system(TOPOLOGY)
    frames = complex_frames(TOPOLOGY, [POSITIONS[None]], 1.0, system=system)
    assert frames.tokens.knows_charges
    np.testing.assert_allclose(frames.reference, POSITIONS[frames.tokens.atoms], atol=1e-6)
    held = frames.tokens.atoms[::-1]
    other = complex_frames(TOPOLOGY, [POSITIONS[None][:, held]], 1.0, atoms=held)
    np.testing.assert_array_equal(other.reference, frames.reference)


def test_windows_never_cross_runs_and_keep_their_stride():
    frames = counted()
    drawn = frames.windows(4, 5, 200, np.random.default_rng(1))[:, :, 0, 0]
    assert drawn.shape == (200, 4)
    assert (np.diff(drawn, axis=1) == 5).all()
    assert set(drawn[:, 0]) == {0, 1, 2, 3, 4, 100, 101, 102, 103, 104}
    assert frames.n_windows(4, 5) == [5, 5]
    with pytest.raises(LatentError, match=r"complex has no run of 21 frames, which a window of 5 frames 10 ps apart"):
        frames.windows(5, 5, 1, np.random.default_rng(1))
    assert stride_of(frames, 10.0) == 5
    with pytest.raises(LatentError, match="complex: lag_time"):
        stride_of(frames, 3.0)


def test_a_trajectory_set_is_taken_as_it_is():
    frames = complex_of(capped_alanine_trajectories(n_frames=5))
    assert (len(frames), frames.frame_spacing, frames.tokens.names) == (10, 1.0, ["C", "C", "O", "ALA", "N", "C"])


def test_a_folder_of_proteins_is_read_by_name(tmp_path):
    from openmm import app, unit

    folder = tmp_path / "one"
    folder.mkdir()
    with open(folder / "one.pdb", "w") as file:
        app.PDBFile.writeFile(TOPOLOGY, POSITIONS * unit.nanometer, file)
    import mdtraj

    top = mdtraj.load(str(folder / "one.pdb")).topology
    mdtraj.Trajectory(np.repeat(POSITIONS[None], 6, axis=0), top, time=2.0 * np.arange(6)).save(str(folder / "a.xtc"))
    (found,) = read_complex_frames(open_dataset(tmp_path), stride=2)
    assert (found.name, len(found), found.frame_spacing) == ("one", 3, 4.0)
    assert found.tokens.same_as(read_tokens(TOPOLOGY))


def test_a_crop_of_a_protein_is_a_stretch_and_one_of_a_complex_holds_the_ligand():
    topology, positions = load_two_chains()
    tokens = read_tokens(topology)
    rng = np.random.default_rng(1)
    found = {tuple(crop_tokens(tokens, positions[tokens.atoms], 9, rng).tolist()) for _ in range(60)}
    assert found == {tuple(range(first, first + 9)) for first in range(5)}
    assert crop_tokens(tokens, positions[tokens.atoms], 13, rng).tolist() == list(range(13))
    complex_tokens = read_tokens(TOPOLOGY)
    for _ in range(5):
        kept = crop_tokens(complex_tokens, POSITIONS[complex_tokens.atoms], 6, rng)
        assert len(kept) == 6
        assert set(kept) >= {6, 7, 8, 9}


def test_what_does_not_fit_is_refused():
    with pytest.raises(LatentError, match=r"trajectory 0 of complex must have shape \(n_frames, n_atoms=31, 3\)"):
        complex_frames(TOPOLOGY, [POSITIONS[None, :5]], 1.0)
    with pytest.raises(LatentError, match="atoms lack 13 heavy atoms of complex; give all but those of water and ions"):
        complex_frames(TOPOLOGY, [POSITIONS[None, 1:2]], 1.0, atoms=[1])
    with pytest.raises(LatentError, match="hold positions that are no numbers"):
        complex_frames(TOPOLOGY, [POSITIONS[None] * np.nan], 1.0)
    with pytest.raises(LatentError, match="frame_spacing must be a positive time in ps, got 0"):
        complex_frames(TOPOLOGY, [POSITIONS[None]], 0.0)
    with pytest.raises(LatentError, match="trajectories of complex must hold at least one, got none"):
        complex_frames(TOPOLOGY, [], 1.0)


def test_the_length_is_that_of_all_runs():
    frames = counted(7, 3)
    assert len(frames) == 21
    assert isinstance(replace(frames, name="other"), ComplexFrames)
