"""Memory and order of frames taken in pieces."""

import tracemalloc

import numpy as np
import pytest

from openmm_latent import geometry, metrics
from openmm_latent.errors import LatentError
from openmm_latent.metrics.chunks import frame_chunks, frame_subset


def peak_megabytes(call) -> float:
    """Return how much memory a call takes at most."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def test_scores_of_long_runs_take_little_memory():
    # 36 MB of single precision would be 72 MB in double; each score may take two thirds of that.
    random = np.random.default_rng(0)
    frames = random.standard_normal((3000, 1000, 3), dtype=np.float32)
    structure = frames[0].astype(np.float64)
    quadruples = np.stack([np.arange(k, k + 300) for k in range(4)], axis=1)
    scores = {
        "superpose": lambda: metrics.superpose(frames, structure, out=frames),
        "rmsd": lambda: geometry.rmsd(frames, structure),
        "dihedrals": lambda: geometry.dihedrals(frames, quadruples),
        "rmsf": lambda: metrics.rmsf(frames, structure),
        "rmwd": lambda: metrics.rmwd(frames, frames, None),
        "coordinate_jsd": lambda: metrics.coordinate_jsd(frames, frames, structure),
        "contacts": lambda: metrics.contact_frequencies(frames[:, :40], metrics.contact_pairs(40)),
        "t_rmsd": lambda: metrics.t_rmsd(frames),
        "chirality": lambda: metrics.chirality_violations(frames, quadruples, structure),
    }
    for name, score in scores.items():
        assert peak_megabytes(score) < 48, name


def test_pieces_are_in_order_and_copies(monkeypatch):
    monkeypatch.setattr("openmm_latent.metrics.chunks.CHUNK_VALUES", 30)
    frames = np.arange(7 * 4 * 3, dtype=np.float32).reshape(7, 4, 3)
    pieces = list(frame_chunks(frames))
    assert [len(piece) for piece in pieces] == [2, 2, 2, 1]
    assert np.array_equal(np.concatenate(pieces), frames)
    pieces[0][:] = 0.0
    assert frames[0, 0, 1] == 1.0
    frames[5, 0, 0] = np.inf
    with pytest.raises(LatentError, match="sample must be finite, got NaN or infinity in frame 5"):
        list(frame_chunks(frames, name="sample"))


def test_subsets_are_seeded_sorted_and_without_repeats():
    assert np.array_equal(frame_subset(5, 10, 1), np.arange(5))
    chosen = frame_subset(100, 10, 1)
    assert np.array_equal(chosen, np.unique(chosen))
    assert len(chosen) == 10
    assert np.array_equal(chosen, frame_subset(100, 10, 1))
    assert not np.array_equal(chosen, frame_subset(100, 10, 2))


def test_superpose_into_an_array_and_by_some_atoms():
    """Oracle: the same without `out`; atoms of weight 0 do not pull."""
    random = np.random.default_rng(1)
    structure = random.standard_normal((6, 3))
    frames = structure + 0.1 * random.standard_normal((5, 6, 3))
    expected = metrics.superpose(frames, structure)
    given = frames.astype(np.float32)
    assert metrics.superpose(given, structure, out=given) is given
    assert np.allclose(given, expected, atol=1e-6)
    weights = np.array([1, 1, 1, 1, 0, 0.0])
    moved = metrics.superpose(frames, structure, weights)
    assert np.allclose(moved[:, :4], metrics.superpose(frames[:, :4], structure[:4]))
    with pytest.raises(LatentError, match="out must have the shape of positions"):
        metrics.superpose(frames, structure, out=given[:2])
