"""`openmm-latent evaluate` end to end on hot alanine dipeptide, and each mistake in one sentence."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import mdtraj
import numpy as np
import pytest

from conftest import run
from ensembles_of import write_runs
from openmm_latent.report import evaluate
from openmm_latent.report import files as report_files
from openmm_latent.report.catalogue import CATALOGUE
from toys import ADP_PDB


@pytest.fixture(scope="module")
def content(report):
    return json.loads((report / "metrics.json").read_text())


def test_every_number_has_unit_definition_bins_and_floor(content):
    keys = {one["key"].partition("@")[0] for one in content["metrics"]}
    expected = "backbone_jsd phi_psi_jsd rmwd rmsf_r pca_w2 state_f1 t1 slow_population lagged_pairs_jsd clashes"
    assert set(expected.split()) <= keys
    for one in content["metrics"]:
        assert one["definition"]
        assert "{" not in one["definition"]
        assert one["unit"] == CATALOGUE[one["key"].partition("@")[0]].unit
        assert one["floor"] is not None or one["key"] == "sample_size"
        if "JSD" in one["name"]:
            assert one["bins"] or one["key"] == "phi_psi_jsd"
            assert one["square_root"] ** 2 == pytest.approx(one["value"])


def test_quoted_numbers_have_intervals(content):
    by_key = {one["key"]: one for one in content["metrics"]}
    for key in ("backbone_jsd", "phi_psi_jsd", "rmsf_r", "slow_population", "slow_timescale", "t1"):
        low, high = by_key[key]["interval"]
        assert low <= by_key[key]["value"] <= high, key


def test_lags_asked_for_are_there(content):
    assert {8.0, 40.0} == {one["lag_time"] for one in content["metrics"] if "@" in one["key"]}


def test_peers_stand_beside(content):
    row = next(one for one in content["metrics"] if one["key"] == "phi_psi_jsd")
    assert set(row["peers"]) == {"md", "anm", "gaussian", "marginals"}
    assert row["peers"]["gaussian"] > row["value"]
    assert content["peers"]["md"]["n_frames"] == 1000
    assert "first half" in content["peers"]["gaussian"]["what"]
    assert content["jumps"]["n_jumps"] == 60


def test_hot_md_matches_hot_md_where_it_is_settled(content):
    """Halves of one run: no backbone score may be off by more than 3 floors (the seed and the files are fixed)."""
    rows = [one for one in content["metrics"] if one["group"] in ("Torsions", "Structure") and one["n_floors"]]
    assert rows
    assert all(one["n_floors"] < 3 for one in rows if one["unit"] == "nats")


def test_the_table_says_the_same(report, content):
    rows = list(csv.DictReader((report / "metrics.csv").read_text().splitlines()))
    assert [row["key"] for row in rows] == [one["key"] for one in content["metrics"]]
    for row, one in zip(rows, content["metrics"], strict=True):
        assert float(row["value"] or "nan") == pytest.approx(float(one["value"] or "nan"), rel=1e-5, nan_ok=True) or (
            one["value"] == 0.0
        )
        assert row["verdict"] == one["verdict"]


def test_what_is_printed(report):
    text = (report / "printed.txt").read_text()
    assert re.search(r"\d+ of \d+ scores match the reference", text)
    assert "report.html" in text


def test_the_page_needs_nothing_else(report):
    page = (report / "report.html").read_text()
    assert "hot &lt;run&gt; &amp; more" in page
    assert "<run>" not in re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL)
    assert not re.search(r'<(script|img|iframe)[^>]*\ssrc=|<link[^>]*href="(?!data:)', page)
    assert "default-src 'none'" in page
    for name in ("lines", "surfaces", "rmsf", "torsions", "components", "timescales", "jumps", "energies"):
        assert f'data-plot="{name}"' in page, name
    assert len(page) < 3_000_000


def test_the_same_seed_gives_the_same_numbers(tmp_path):
    (one, two) = write_runs(tmp_path, (0, 300), (300, 500))
    first, second = (evaluate([one], [two], ADP_PDB).as_csv() for _ in range(2))
    assert first == second


def test_independent_draws_have_no_kinetics(tmp_path):
    (one, two) = write_runs(tmp_path, (0, 300), (300, 500))
    out = tmp_path / "out"
    text = run(
        "evaluate",
        "--top",
        ADP_PDB,
        "--reference",
        one,
        "--sample",
        two,
        "--out",
        out,
        "--independent",
        "--atoms",
        "all",
    )
    assert "independent draws" in text
    keys = {one["key"] for one in json.loads((out / "metrics.json").read_text())["metrics"]}
    assert "slow_population" in keys
    assert not keys & {"t1", "slow_timescale", "slow_crossings", "sample_size"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--reference absent.xtc --sample {xtc}", "trajectory file absent.xtc does not exist"),
        ("--reference {xtc} --sample {xtc} --peers fish", "must be among anm, gaussian, md, got 'fish'"),
        ("--reference {xtc} --sample {xtc} --peers md", "needs files: give --md"),
        ("--reference {xtc} --sample {xtc} --atoms some", "must be heavy, all or ca, got 'some'"),
        ("--reference {xtc} --sample {xtc} --stride 20", "must hold at least 6 frames, got 2"),
        ("--reference {xtc} {xtc} --sample {xtc}", "twice; name each file once"),
        ("--reference {xtc} --sample {xtc} --lag-time -1", "must be positive [ps], got -1"),
        ("--reference {xtc} --sample {xtc} --lag-time 3", "multiple of the reference's frame spacing (2 ps)"),
        ("--reference {xtc} --sample {xtc} --lag-times 8000", "lag_times (--lag-times) must be a multiple"),
        ("--reference {xtc} --sample {xtc} --temperature -3", "temperature (--temperature) must be positive"),
        ("--reference {xtc} --sample {xtc} --jumps {pdb}", "has no column 'jump'"),
        ("--reference {xtc} --sample {xtc} --structure nothing.pdb", "nothing.pdb does not exist"),
    ],
)
def test_mistakes_are_told_in_one_sentence_and_write_nothing(tmp_path, words, sentence):
    (xtc,) = write_runs(tmp_path, (0, 40))
    filled = words.format(xtc=xtc, pdb=ADP_PDB).split()
    text = run("evaluate", "--top", ADP_PDB, *filled, "--out", tmp_path / "out", code=2)
    assert sentence in text
    assert "Traceback" not in text
    assert list((tmp_path / "out").iterdir()) == []


def test_a_truncated_file_is_told(tmp_path):
    (xtc,) = write_runs(tmp_path, (0, 40))
    (tmp_path / "cut.xtc").write_bytes(xtc.read_bytes()[:-37])
    text = run(
        "evaluate", "--top", ADP_PDB, "--reference", xtc, "--sample", tmp_path / "cut.xtc", "--out", tmp_path, code=2
    )
    assert "cut.xtc cannot be read" in text


def test_a_folder_that_is_a_file_is_told_before_anything_is_read(tmp_path):
    (tmp_path / "taken").write_text("")
    words = ["--top", ADP_PDB, "--reference", "absent.xtc", "--sample", "absent.xtc", "--out", tmp_path / "taken"]
    assert "is a file; give the name of a folder" in run("evaluate", *words, code=2)


def test_a_report_that_fails_half_way_leaves_the_earlier_one(tmp_path, monkeypatch):
    (one, two) = write_runs(tmp_path, (0, 100), (100, 140))
    words = ["--top", ADP_PDB, "--reference", one, "--sample", two, "--out", tmp_path / "out"]
    run("evaluate", *words)
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}

    def fail(evaluation):
        raise KeyboardInterrupt

    monkeypatch.setattr(report_files, "make_page", fail)
    run("evaluate", *words, "--name", "other", code=130)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before


def test_help_has_an_example():
    text = run("evaluate", "--help")
    assert "openmm-latent evaluate --top" in text.split("Example", 1)[1]


def test_an_installed_package_has_the_page_s_parts(tmp_path):
    """`build_py` is what a wheel is made of, without the C++ side."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "lib")]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    assets = tmp_path / "lib" / "openmm_latent" / "report" / "assets"
    names = {file.name for file in assets.iterdir()}
    assert {"3Dmol-min.js", "3Dmol-LICENSE.txt", "page.css", "page.js"} <= names


def test_a_few_frames_are_scored_with_a_caution(tmp_path):
    (one, two) = write_runs(tmp_path, (0, 6), (6, 8))
    text = run("evaluate", "--top", ADP_PDB, "--reference", one, "--sample", two, "--out", tmp_path / "out")
    assert "The reference holds 6 frames: numbers from fewer than 100 are rough" in text
    assert "The sample holds 2 frames" in text
    assert "scores match" in text


def test_rebuilt_frames_a_ligand_and_finer_surfaces_are_scored_on_request(tmp_path):
    (one,) = write_runs(tmp_path, (0, 300))
    rough = mdtraj.load(str(one), top=str(ADP_PDB))
    random = np.random.default_rng(1)
    files = []
    for number in range(2):
        noisy = mdtraj.Trajectory(rough.xyz + random.normal(scale=0.01, size=rough.xyz.shape), rough.topology)
        noisy.time = rough.time
        files.append(tmp_path / f"rebuilt_{number}.xtc")
        noisy.save_xtc(str(files[-1]))
    words = ["--top", ADP_PDB, "--reference", one, "--sample", *files, "--out", tmp_path / "out"]
    run("evaluate", *words, "--backmap", "--fine-surfaces", "--ligand", "NME")
    found = {one["key"]: one for one in json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]}
    # 0.01 nm along each of three axes, on ten atoms, less what superposition takes
    assert 0.01 < found["rebuilt_rmsd_superposed"]["value"] < 0.01 * 3**0.5
    assert found["ged"]["unit"] == "edits a frame"
    assert found["gdr"]["value"] < 0.2
    assert found["diversity"]["value"] == pytest.approx(1.0 - found["diversity_ratio"]["value"])
    assert found["phi_psi_jsd_72"]["bins"].startswith("72 x 72")
    assert {"complex_rmsf_r", "complex_rmwd", "ligand_rmwd", "clashes_between"} <= set(found)
    assert found["complex_rmwd"]["floor"] is not None
    page = (tmp_path / "out" / "report.html").read_text()
    for group in ("Ligand and pocket", "Rebuilt frames"):
        assert f">{group}</th>" in page
    text = run("evaluate", *words[:4], "--sample", files[0], "--out", tmp_path, "--ligand", "XYZ", code=2)
    assert "must name residues among the scored ones, got 'XYZ'" in text
