"""Where runs are cut, and what is refused before any model is made."""

import csv
import json
from pathlib import Path

import mdtraj
import numpy as np
import pytest

from openmm_latent.analysis import (
    State,
    TorsionTable,
    cut_at,
    find_runs,
    make_segments,
    read_hybrid_run,
    read_plain_md,
    require_one_ensemble,
    to_segments,
)
from openmm_latent.errors import LatentError
from openmm_latent.hybrid import HybridConfig, HybridRun
from toys import ADP_PDB, Shake, export_toy, load_adp

XTC = ADP_PDB.with_name("adp_400K.xtc")


def test_frames_at_the_step_of_a_jump_lie_before_it():
    cuts, since = cut_at(np.array([10, 20, 30, 40, 50]), np.array([20, 35, 38]))
    assert cuts.tolist() == [2, 3]
    assert since.tolist() == [10, 20, 10, 2, 12]


def test_jumps_at_either_end_cut_nothing():
    cuts, since = cut_at(np.array([10, 20]), np.array([5, 20]))
    assert cuts.tolist() == []
    assert since.tolist() == [5, 15]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run whose jumps are made between frames, some of them refused."""
    topology, positions = load_adp()
    bundle = export_toy(Shake(10, 0.05), tmp_path_factory.mktemp("b") / "shake.latent.pt", topology, positions)
    out = tmp_path_factory.mktemp("run")
    config = HybridConfig(temperature=300.0, duration=4.0, jump_interval=50, report_interval=20)
    tally = HybridRun(bundle, ADP_PDB, out, config, "Reference").run()
    assert 0 < tally["accepted"] < tally["jumps"]
    return out


def test_a_run_is_cut_at_accepted_jumps_only(folder):
    run = read_hybrid_run(find_runs([folder])[0])
    rows = list(csv.DictReader((folder / "adp.latent.csv").read_text().splitlines()))
    accepted = [int(row["step"]) for row in rows if row["outcome"] == "accepted"]
    assert run.n_jumps == len(rows)
    assert run.n_accepted == len(accepted) < run.n_jumps
    assert run.cuts.tolist() == sorted({step // 20 for step in accepted})
    assert run.observables.shape == (len(run.torsions), 2)
    # A jump at step 50 comes between the frames of steps 40 and 60.
    step = accepted[0]
    assert run.since_start[step // 20] == pytest.approx((20 * (step // 20 + 1) - step) * 0.002)


def test_segments_hold_all_frames_and_drop_from_their_start(folder):
    run = read_hybrid_run(find_runs([folder])[0])
    table = TorsionTable.from_topology(ADP_PDB)
    segments = to_segments([run], table, [State.parse("phi>0")], ["phi", "psi"])
    assert sum(len(part) for part in segments) == len(run.torsions)
    phi = np.concatenate([part.axes[:, 0] for part in segments])
    np.testing.assert_array_equal(np.concatenate([part.is_in[:, 0] for part in segments]), phi > 0)
    late = segments[1].after(0.05)
    assert np.all(late.since_start > 0.05)
    assert late.first_frame == segments[1].first_frame + len(segments[1]) - len(late)


def test_a_user_function_gives_the_features(folder):
    run = read_hybrid_run(find_runs([folder])[0], feature_function=lambda positions: positions[:, 0])
    assert run.features.shape == (len(run.torsions), 3)


def test_plain_md_is_one_segment():
    table = TorsionTable.from_topology(ADP_PDB)
    run = read_plain_md(XTC, table, stride=5)
    assert run.frame_spacing == pytest.approx(10.0)
    (segment,) = to_segments([run], table, [], ["phi"])
    frames = mdtraj.load(str(XTC), top=str(ADP_PDB))[::5]
    np.testing.assert_allclose(np.radians(segment.axes), mdtraj.compute_phi(frames)[1], atol=1e-5)


def altered(folder: Path, out: Path, **facts) -> Path:
    for file in folder.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    told = json.loads((folder / "adp.json").read_text()) | facts
    (out / "adp.json").write_text(json.dumps(told))
    return out


def test_exact_runs_need_no_reweighting(folder, tmp_path):
    with pytest.raises(LatentError, match=r"in the mode exact: its frames are Boltzmann already and need no"):
        read_hybrid_run(find_runs([altered(folder, tmp_path, mode="exact")])[0])


def test_one_temperature(folder, tmp_path):
    runs = [read_hybrid_run(find_runs([place])[0]) for place in (folder, altered(folder, tmp_path, temperature=310.0))]
    with pytest.raises(LatentError, match=r"runs differ in temperature: .* has 300.0, .* has 310.0"):
        require_one_ensemble(runs)


def test_one_frame_spacing(folder):
    runs = [read_hybrid_run(find_runs([folder])[0]), read_plain_md(XTC, TorsionTable.from_topology(ADP_PDB))]
    with pytest.raises(LatentError, match=r"different frame spacings: .* 0.04 ps, .* 2 ps"):
        require_one_ensemble(runs)


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(LatentError, match=r"run \(--run\) .*absent does not exist"):
        find_runs([tmp_path / "absent"])
    with pytest.raises(LatentError, match=r"has no jump table"):
        find_runs([tmp_path])
    with pytest.raises(LatentError, match=r"names the same run twice"):
        find_runs([folder, folder / "adp.latent.csv"])
    out = altered(folder, tmp_path)
    (out / "adp.json").unlink()
    with pytest.raises(LatentError, match=r"adp.json, the provenance of the run, does not exist"):
        read_hybrid_run(find_runs([out])[0])


def test_arrays_must_fit():
    with pytest.raises(LatentError, match=r"is_in must have as many segments and frames as features"):
        make_segments([np.zeros(5)], 1.0, is_in=[np.zeros(4)])
    with pytest.raises(LatentError, match=r"features holds what is not a number"):
        make_segments([np.array([0.0, np.nan])], 1.0)


# --- states ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peptide():
    return TorsionTable.from_topology(Path(__file__).parents[1] / "data" / "thr_trp_tyr_neutral.pdb")


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("phi>0", "phi>0", [False, True, True, False]),
        ("left = phi > 0", "left", [False, True, True, False]),
        ("phi>=100 or psi<-100", "phi>=100 or psi<-100", [True, False, True, False]),
        ("a=-100 < phi < 50 and not psi > 0", "a", [False, True, False, False]),
        ("a=phi[2]<=50", "a", [True, True, False, True]),
    ],
)
def test_states_are_expressions_in_degrees(text, name, expected):
    table = TorsionTable.from_topology(ADP_PDB)
    angles = np.zeros((4, len(table.names)))
    angles[:, table.index("phi")] = np.radians([-150, 40, 120, -60])
    angles[:, table.index("psi")] = np.radians([-170, -40, 30, 150])
    state = State.parse(text)
    assert state.name == name
    assert state.holds(table, angles).tolist() == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("phi>", "it cannot be read"),
        ("phi", "'phi' is no comparison"),
        ("phi > psi", "a comparison has one torsion and otherwise numbers"),
        ("phi == 3", "only <, <=, >, >= compare"),
        ("__import__('os').system('true') > 0", "a comparison has one torsion and otherwise numbers"),
        ("open('x')", "is no comparison"),
        ("phi > 10**9", "a comparison has one torsion and otherwise numbers"),
        ("theta > 0", "a comparison has one torsion and otherwise numbers"),
    ],
)
def test_nothing_else_is_run(text, why):
    with pytest.raises(LatentError, match=r"state \(--state\) .* is not understood") as error:
        State.parse(text)
    assert why in str(error.value)


def test_a_torsion_is_named_by_its_residue(peptide):
    assert "psi[1]" in peptide.names
    with pytest.raises(LatentError, match=r"torsion 'psi' is not unique: write one of psi\[1\], psi\[2\]"):
        State.parse("psi>0").require_known(peptide)
    with pytest.raises(LatentError, match=r"torsion 'phi\[9\]' is unknown; this molecule has phi\[2\]"):
        State.parse("phi[9]>0").require_known(peptide)
