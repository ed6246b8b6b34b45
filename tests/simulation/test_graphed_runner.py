"""Jumps played from recordings (CUDA graphs): what is decided, with a module and recordings of the tests' own."""

import subprocess
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch

import openmm_latent

SOURCES = Path(__file__).parents[2] / "cpp"
PROGRAM = Path(__file__).with_name("graphed_runner.cpp")


@pytest.fixture(scope="module")
def jumps(tmp_path_factory):
    """Return a function that makes eight jumps of one kind and returns what they printed, and the warnings."""
    program = tmp_path_factory.mktemp("graphed") / "graphed_runner"
    ours, torchs = Path(openmm_latent.__file__).parent / "lib", Path(torch.__file__).parent
    openmms = Path(openmm.version.openmm_library_path)
    folders = [ours, torchs / "lib", openmms]
    command = ["g++", "-std=c++20", "-O0", f"-I{SOURCES}", f"-I{SOURCES / 'include'}", f"-I{SOURCES / 'torch'}"]
    command += ["-isystem", torchs / "include", "-isystem", openmms.parent / "include", PROGRAM, "-o", program]
    command += ["-Wl,--no-as-needed"]  # so that this program finds what our libraries need, wherever they lie
    command += [option for folder in folders for option in (f"-L{folder}", f"-Wl,-rpath,{folder}")]
    command += ["-lOpenMMLatentTorch", "-lOpenMMLatent", "-lOpenMM", "-ltorch", "-ltorch_cpu", "-lc10"]
    subprocess.run(command, check=True)

    def make(kind):
        done = subprocess.run([program, kind], capture_output=True, text=True, check=True)
        return done.stdout.splitlines(), done.stderr

    return make


def numbers(lines):
    """Columns: first coordinate, state, times that the module ran, plays, whether the state before was left alone."""
    return np.array([[float(word) for word in line.split()] for line in lines])


#: 10 k + 0.5 k + k, and k + 1 jumps made.
MOVED, STATE = 11.5 * np.arange(8), np.arange(1.0, 9.0)


def test_a_module_is_played_from_the_third_jump_on(jumps):
    lines, warnings = jumps("plain")
    moved, state, runs, plays, is_kept = numbers(lines).T
    np.testing.assert_array_equal(moved, MOVED)
    np.testing.assert_array_equal(state, STATE)
    np.testing.assert_array_equal(runs, [1, 2, 3, 4, 4, 4, 4, 4])  # two to warm up, two to compare with
    np.testing.assert_array_equal(plays, [0, 0, 1, 2, 3, 4, 5, 6])
    assert is_kept.all()
    assert not warnings


def test_each_shape_has_a_recording_of_its_own(jumps):
    lines, warnings = jumps("batches")
    moved, _, _, plays, _ = numbers(lines).T
    np.testing.assert_array_equal(moved, MOVED)
    np.testing.assert_array_equal(plays, [0, 0, 0, 0, 1, 2, 3, 4])
    assert not warnings


@pytest.mark.parametrize(
    ("kind", "reason", "n_plays"),
    [
        ("waits", "operation not permitted when stream is capturing", 0),
        ("stale", "what it plays back is not what the module gives", 1),
        # of the frame with which it was recorded
        ("takes a value", "what it plays back is not what the module gives", 2),
    ],
)
def test_a_module_that_cannot_be_recorded_runs_as_before(jumps, kind, reason, n_plays):
    lines, warnings = jumps(kind)
    moved, state, _, plays, is_kept = numbers(lines).T
    np.testing.assert_array_equal(moved, MOVED)
    np.testing.assert_array_equal(state, STATE)
    assert plays[-1] == n_plays
    assert is_kept.all()
    assert warnings.count("jumps of bundle 'toy' are not played from recordings") == 1
    assert reason in warnings
    assert "and a stack" not in warnings


def test_a_module_that_throws_is_heard(jumps):
    lines, _ = jumps("throws")
    assert lines[2:] == ["threw: the module's own words"] * 6
