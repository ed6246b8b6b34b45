"""Splits by protein, and lag pairs streamed from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from formats import frame_numbers, write_atlas, write_mdcath
from openmm_latent.data import open_dataset
from openmm_latent.data.pairs import count_lag_pairs, stream_lag_pairs
from openmm_latent.data.splits import protein_groups, split_at_random, split_by_names
from openmm_latent.errors import LatentError

NAMES = [f"{i}abc_{chain}" for i in range(1, 10) for chain in ("A", "B")] + ["1xyz_A", "2xyz_A"]


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("atlas")
    for name in NAMES:
        write_atlas(root / name, name, n_residues=1, n_frames=12, n_replicas=2)
    return open_dataset(root)


@pytest.fixture(scope="module")
def mdcath(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("mdcath")
    write_mdcath(root / "mdcath_dataset_1abcA00.h5", "1abcA00", n_frames=12)
    write_mdcath(root / "mdcath_dataset_2xyzA00.h5", "2xyzA00", n_frames=36)
    return open_dataset(root)


def pdb_ids(dataset) -> set[str]:
    return {name[:4] for name in dataset.names}


# -- splits ----------------------------------------------------------------------------------------------------------


def test_no_protein_is_in_two_parts_and_none_is_lost(atlas) -> None:
    for seed in range(20):
        parts = split_at_random(atlas, (0.6, 0.2, 0.2), seed=seed)
        assert sorted(name for part in parts for name in part.names) == sorted(NAMES)
        assert [len(part) for part in parts] == [12, 4, 4]
        ids = [pdb_id for part in parts for pdb_id in pdb_ids(part)]
        assert len(ids) == len(set(ids))


def test_a_seed_gives_one_split_whatever_the_order(atlas) -> None:
    turned = atlas.subset(atlas.names[::-1])
    first, again = split_at_random(atlas, seed=3), split_at_random(turned, seed=3)
    assert [part.names for part in first] == [part.names for part in again]
    assert [part.names for part in first] != [part.names for part in split_at_random(atlas, seed=4)]


def test_clusters_and_chains_hold_together(atlas, tmp_path: Path) -> None:
    table = tmp_path / "clusters.tsv"
    # 1abc and 2abc are joined by a cluster of one chain each, 2abc and 3abc by another
    clusters = {name: name for name in NAMES} | {"1abc_A": "x", "2abc_B": "x", "2abc_A": "y", "3abc_A": "y"}
    table.write_text("\n".join(f"{cluster}\t{name}" for name, cluster in clusters.items()) + "\n")
    groups = protein_groups(atlas, table)
    assert ["1abc_A", "1abc_B", "2abc_A", "2abc_B", "3abc_A", "3abc_B"] in groups
    assert len(groups) == 9
    assert groups == protein_groups(atlas, clusters)
    for seed in range(10):
        parts = split_at_random(atlas, (0.5, 0.5), seed=seed, clusters=table)
        assert len({k for k, part in enumerate(parts) if {"1abc", "2abc", "3abc"} & pdb_ids(part)}) == 1


def test_every_part_gets_something(atlas) -> None:
    few = atlas.subset(["1abc_A", "1abc_B", "2abc_A"])
    assert [part.names for part in split_at_random(few, (0.99, 0.01))] == [["1abc_A", "1abc_B"], ["2abc_A"]]


def test_lists_and_files_of_names(atlas, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("# training\n1ABC_A\n2abc_B\n")
    train, test = split_by_names(atlas, tmp_path / "train.txt", ["3abc_A", "9zzz_A"], skips_absent=True)
    assert (train.names, test.names) == (["1abc_A", "2abc_B"], ["3abc_A"])


def test_mistakes_in_splits_are_told(atlas, tmp_path: Path) -> None:
    with pytest.raises(LatentError, match="fractions must be two or more positive shares that add up to 1"):
        split_at_random(atlas, (0.8, 0.1))
    with pytest.raises(LatentError, match=r"has 1 groups of proteins, too few for 3 parts"):
        split_at_random(atlas.subset(["1abc_A", "1abc_B"]))
    with pytest.raises(LatentError, match=r"1 names of the split are not in data set .* \(9zzz_A\)"):
        split_by_names(atlas, ["1abc_A"], ["9zzz_A"])
    with pytest.raises(LatentError, match="the parts of the split share 1abc_A"):
        split_by_names(atlas, ["1abc_A"], ["1abc_A"])
    with pytest.raises(LatentError, match="parts 1 and 2 of the split share a protein or cluster: 1abc_A and 1abc_B"):
        split_by_names(atlas, ["1abc_A"], ["1abc_B"])
    with pytest.raises(LatentError, match="clusters name no cluster for 19 of 20 entries"):
        protein_groups(atlas, {"1abc_A": "x"})
    (tmp_path / "bad.tsv").write_text("a\tb\tc\n")
    with pytest.raises(LatentError, match="has 3 columns in line 1, expected two"):
        protein_groups(atlas, tmp_path / "bad.tsv")


# -- lag pairs -------------------------------------------------------------------------------------------------------


def test_pairs_are_one_lag_apart_in_one_run(mdcath) -> None:
    for batch in stream_lag_pairs(mdcath, 3000.0, batch_size=16, n_batches=6):
        entry = mdcath[batch.entry]
        assert list(frame_numbers(batch.later) - frame_numbers(batch.now)) == [3] * 16
        np.testing.assert_array_equal(frame_numbers(batch.now), batch.frames)
        for k in (0, 9):
            run = entry.run(batch.runs[k])
            np.testing.assert_array_equal(batch.later[k], entry.frames(run, [batch.frames[k] + 3])[0])
            assert batch.temperatures[k] == run.temperature


def test_a_batch_depends_on_seed_and_number_alone(mdcath) -> None:
    batches = list(stream_lag_pairs(mdcath, 2000.0, batch_size=4, n_batches=6, seed=5))
    resumed = list(stream_lag_pairs(mdcath, 2000.0, batch_size=4, n_batches=2, seed=5, first_batch=4))
    second_worker = list(stream_lag_pairs(mdcath, 2000.0, batch_size=4, n_batches=3, seed=5, first_batch=1, step=2))
    for ours, theirs in [(batches[4:], resumed), (batches[1::2], second_worker)]:
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one.now, other.now)
    other_seed = next(stream_lag_pairs(mdcath, 2000.0, batch_size=4, seed=6))
    assert not (other_seed.entry == batches[0].entry and np.array_equal(other_seed.now, batches[0].now))


def test_all_pairs_are_drawn_evenly(mdcath) -> None:
    """2500 draws of 40 pairs: chi-squared (39 degrees of freedom) beyond 82.1 at most once in 10 000 runs."""
    counts: dict[tuple[str, int], int] = {}
    one = mdcath.subset(["1abcA00"])
    for batch in stream_lag_pairs(one, 2000.0, batch_size=10, n_batches=250):
        drawn = list(zip(batch.runs, batch.frames.tolist(), strict=True))
        assert len(set(drawn)) == 10  # no doubles within a batch
        for pair in drawn:
            counts[pair] = counts.get(pair, 0) + 1
    assert len(counts) == 4 * 10
    expected = 2500 / 40
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 82.1


def test_weighting_by_pairs_prefers_long_entries(mdcath) -> None:
    """136 of 176 pairs are the long entry's; 300 draws stay within 0.65 and 0.89 but once in 10^6 runs."""
    assert count_lag_pairs(mdcath, 2000.0) == {"1abcA00": 40, "2xyzA00": 136}
    drawn = [b.entry for b in stream_lag_pairs(mdcath, 2000.0, batch_size=1, n_batches=300, weighting="pair")]
    assert 0.65 < drawn.count("2xyzA00") / 300 < 0.89


def test_one_temperature_can_be_asked_for(mdcath) -> None:
    batches = stream_lag_pairs(mdcath, 1000.0, batch_size=8, n_batches=4, temperature=450)
    assert {float(t) for batch in batches for t in batch.temperatures} == {450.0}


def test_lags_that_cannot_be_are_told(mdcath, atlas) -> None:
    with pytest.raises(LatentError, match=r"lag_time must be a multiple of the frame spacing \(1000 ps\), got 1500 ps"):
        next(stream_lag_pairs(mdcath, 1500.0))
    with pytest.raises(LatentError, match=r"lag_time 40000 ps is longer than every run of"):
        next(stream_lag_pairs(mdcath, 40000.0))
    with pytest.raises(LatentError, match="weighting must be one of protein, pair, got 'frame'"):
        next(stream_lag_pairs(mdcath, 1000.0, weighting="frame"))
    with pytest.raises(LatentError, match="no entries to draw pairs from"):
        next(stream_lag_pairs(atlas.subset([]), 10.0))
