"""Reading, cutting and halving of ensembles."""

import mdtraj
import numpy as np
import pytest

from ensembles_of import SPACING, adp_ensemble, chain_ensemble, write_runs
from openmm_latent.errors import LatentError
from openmm_latent.geometry import dihedrals
from openmm_latent.report.ensembles import open_reader
from openmm_latent.report.molecule import choose_atoms
from toys import ADP_PDB


def test_torsions_are_named_by_residue_and_follow_the_frames():
    one = adp_ensemble((0, 30))
    assert one.molecule.torsions == ["phi ALA 2", "psi ALA 2"]
    assert one.molecule.phi_psi.tolist() == [[0, 1]]
    assert one.molecule.trace_name.startswith("all atoms")
    assert one.angles == pytest.approx(dihedrals(one.positions, one.molecule.quadruples), abs=1e-4)
    assert one.trace is one.positions


def test_runs_are_views_of_all_frames():
    one = adp_ensemble((0, 30), (40, 60))
    runs = one.runs(one.positions)
    assert [len(run) for run in runs] == [30, 20]
    assert np.shares_memory(runs[1], one.positions)


def test_halves_of_one_run_are_its_two_ends():
    one = chain_ensemble(5, 41, seed=1)
    ((first, second),) = one.halves()
    assert first.n_frames == second.n_frames == 20
    assert first.trace == pytest.approx(one.trace[:20])
    assert second.trace == pytest.approx(one.trace[20:40])


def test_halves_of_four_runs_part_them_three_ways_without_a_shared_run():
    one = chain_ensemble(5, 40, seed=1, n_runs=4)
    runs = one.runs(one.trace)
    parted = []
    for first, second in one.halves():
        sides = [
            {k for k, run in enumerate(runs) for part in side.runs(side.trace) if np.array_equal(run, part)}
            for side in (first, second)
        ]
        assert len(sides[0]) == len(sides[1]) == 2
        assert not sides[0] & sides[1]
        parted.append(frozenset(map(frozenset, sides)))
    assert len(set(parted)) == 3


def test_first_frames_keep_runs_and_thinned_frames_lose_time():
    one = chain_ensemble(5, 40, seed=1, n_runs=4)
    cut, thin = one.first(25), one.thinned(7)
    assert cut.lengths == (10, 10, 5)
    assert cut.frame_spacing == one.frame_spacing
    assert thin.lengths == (7,)
    assert thin.frame_spacing is None
    assert one.thinned(40) is one


def test_too_few_frames_have_no_halves():
    with pytest.raises(LatentError, match="at least four frames, got 3"):
        chain_ensemble(5, 3, seed=1).halves()


def test_a_sample_of_heavy_atoms_in_another_order_is_matched_by_name(tmp_path):
    (file,) = write_runs(tmp_path, (0, 20))
    frames = mdtraj.load(str(file), top=str(ADP_PDB))
    shuffled = frames.atom_slice([a.index for a in frames.topology.atoms if a.element.symbol != "H"])
    shuffled[0].save_pdb(str(tmp_path / "heavy.pdb"))
    shuffled.save_xtc(str(tmp_path / "heavy.xtc"))
    reader = open_reader(ADP_PDB, "heavy", None, 1)
    whole, _, _ = reader.read("all", [file], None, None)
    heavy, facts, _ = reader.read("heavy", [tmp_path / "heavy.xtc"], tmp_path / "heavy.pdb", None)
    assert heavy.positions == pytest.approx(whole.positions, abs=2e-3)  # two roundings of the format
    assert heavy.frame_spacing == SPACING
    assert facts.positions == []


def test_stride_thins_and_keeps_time(tmp_path):
    (file,) = write_runs(tmp_path, (0, 20))
    one, _, _ = open_reader(ADP_PDB, "heavy", None, 4).read("x", [file], None, None)
    assert one.n_frames == 5
    assert one.frame_spacing == 4 * SPACING


def test_independent_draws_need_no_time(tmp_path):
    frames = mdtraj.load(str(write_runs(tmp_path, (0, 6))[0]), top=str(ADP_PDB))
    frames.save_dcd(str(tmp_path / "draws.dcd"))
    reader = open_reader(ADP_PDB, "heavy", None, 1)
    one, _, _ = reader.read("x", [tmp_path / "draws.dcd"], None, None, has_time=False)
    assert one.frame_spacing is None
    with pytest.raises(LatentError, match="stores no time between frames"):
        reader.read("x", [tmp_path / "draws.dcd"], None, None)


def test_the_words_for_atoms():
    with pytest.raises(LatentError, match=r"must be heavy, all or ca, got 'some'"):
        open_reader(ADP_PDB, "some", None, 1)
    from openmm.app import Topology

    with pytest.raises(LatentError, match="no atom named CA"):
        choose_atoms(Topology(), "ca")
    assert len(open_reader(ADP_PDB, "ca", None, 1).molecule.atoms) == 1
