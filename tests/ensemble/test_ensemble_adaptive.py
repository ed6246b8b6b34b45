"""Adaptive campaigns: rounds, versioned models, resuming at any point, and when to stop."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from ensembles import contents, make_config
from openmm_latent.analysis import find_runs
from openmm_latent.bundle import inspect_bundle
from openmm_latent.cli import app
from openmm_latent.ensemble import AdaptiveConfig, EnsembleConfig, WalkerTask, run_walker
from openmm_latent.ensemble.adaptive import Round, run_adaptive
from openmm_latent.errors import LatentError
from openmm_latent.models import gldp
from toys import ADP_PDB

RUN = {"duration": 9.0, "jump_interval": 1500, "report_interval": 100}


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> EnsembleConfig:
    """Two walkers, two rounds, and a model of a few training steps that is not there yet."""
    folder = tmp_path_factory.mktemp("campaign")
    cut = folder / "cut.xtc"
    mdtraj.load(str(ADP_PDB.with_name("adp_400K.xtc")), top=str(ADP_PDB))[:200].save(str(cut))
    adaptive = AdaptiveConfig(["up=psi>60", "left=phi>0"], rounds=2, training=[cut], lag_time=2.0, dropped_time=0.4)
    bundle = folder / "adp.latent.pt"
    return make_config(bundle, folder / "store", 2, 9.0, temperature=400.0, run=RUN, adaptive=adaptive)


@pytest.fixture(scope="module")
def finished(campaign: EnsembleConfig) -> tuple[Round, list[str]]:
    """What the campaign says when it runs through."""
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        found = run_adaptive(campaign, run_round, lines.append)
    return found, lines


def make_small(patch: pytest.MonkeyPatch) -> None:
    small = replace(gldp.CONFIGS["tiny"], encoder_steps=20, decoder_steps=20, validate_every=20)
    patch.setitem(gldp.CONFIGS, "tiny", small)


def run_round(tasks: list[WalkerTask], folder: Path) -> None:
    for task in tasks:
        run_walker(task, lambda kind, n: None, lambda: False)


@pytest.mark.slow
def test_each_round_has_its_own_model_and_starts(campaign: EnsembleConfig, finished: tuple[Round, list[str]]) -> None:
    found, lines = finished
    refitted = campaign.out / "models" / "model_01.latent.pt"
    assert found.number == 1
    assert found.bundle_sha256 == inspect_bundle(refitted)["sha256"] != inspect_bundle(campaign.model)["sha256"]
    assert inspect_bundle(refitted)["config"]["propagator"] == "koopman"
    assert inspect_bundle(refitted)["training"]["temperature"] == 400.0
    assert lines[:2] == ["round 0: training, into adp.latent.pt", "round 0: 2 walkers with adp.latent.pt"]
    assert "round 1: koopman, into model_01.latent.pt" in lines
    used = [json.loads((campaign.out / f"round_{r:02d}/walker_000/adp.json").read_text()) for r in range(2)]
    assert used[0]["bundle_sha256"] != used[1]["bundle_sha256"]
    assert used[0]["seed"] != used[1]["seed"]
    starts = mdtraj.load(str(campaign.out / "round_01/starts/000/adp.pdb")).xyz[0]
    before = np.concatenate(
        [
            mdtraj.load(str(campaign.out / f"round_00/walker_{i:03d}/adp.xtc"), top=str(ADP_PDB)).xyz
            for i in range(campaign.walkers)
        ]
    )
    assert np.abs(before - starts).max(axis=(1, 2)).min() < 1e-3  # one of the frames of the round before


@pytest.mark.slow
def test_the_store_is_read_whole(campaign: EnsembleConfig, finished: tuple[Round, list[str]]) -> None:
    tables = find_runs([campaign.out])
    assert [table.parent.parent.name for table in tables] == ["round_00"] * 2 + ["round_01"] * 2
    rounds = json.loads((campaign.out / "ensemble.json").read_text())["rounds"]
    assert [one["number"] for one in rounds] == [0, 1]
    assert set(rounds[1]["free_energies"]) == {"up", "left"}
    for name, value in rounds[1]["free_energies"].items():
        assert (value is None) == (name in rounds[1]["refusals"])  # a number, or why there is none


@pytest.mark.slow
def test_a_campaign_that_is_cut_goes_on_to_the_same_end(
    campaign: EnsembleConfig, finished: tuple[Round, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch)
    other = replace(campaign, out=tmp_path / "cut")
    n_rounds = 0

    def cut_in_the_second(tasks: list[WalkerTask], folder: Path) -> None:
        nonlocal n_rounds
        n_rounds += 1
        run_round(tasks[:1] if n_rounds == 2 else tasks, folder)
        if n_rounds == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_adaptive(other, cut_in_the_second)
    found = run_adaptive(other, cut_in_the_second)
    assert n_rounds == 3  # the first round is not run again
    assert found.free_energies == finished[0].free_energies
    for number in range(2):
        folder = f"round_{number:02d}"
        here, there = (
            [text for text in contents(store / folder, 2) if not text.startswith(b"{")]
            for store in (other.out, campaign.out)
        )
        assert here == there


def outputs(folder: Path) -> list[bytes]:
    """Return what two walkers wrote, but for the provenance, whose bundle says when it was made."""
    return [text for text in contents(folder, 2) if not text.startswith(b"{")]


@pytest.mark.slow
def test_another_campaign_in_the_folder_is_refused(campaign: EnsembleConfig, finished: tuple[Round, list[str]]) -> None:
    assert campaign.adaptive is not None
    wrong = replace(campaign, adaptive=replace(campaign.adaptive, n_microstates=7))
    with pytest.raises(LatentError, match="holds a campaign with n_microstates 40, and 7 is asked for"):
        run_adaptive(wrong, run_round)
    with pytest.raises(LatentError, match="config key adaptive is missing"):
        run_adaptive(replace(campaign, adaptive=None), run_round)


@pytest.mark.slow
def test_the_command_tells_what_a_finished_campaign_found(
    campaign: EnsembleConfig, finished: tuple[Round, list[str]], tmp_path: Path
) -> None:
    assert campaign.adaptive is not None
    named = {key: str(getattr(campaign, key)) for key in ("structure", "model", "out", "platform")}
    plain = {key: getattr(campaign, key) for key in ("walkers", "temperature", "run")}
    adaptive = asdict(campaign.adaptive) | {"training": [str(path) for path in campaign.adaptive.training]}
    file = tmp_path / "walkers.yaml"
    file.write_text(yaml.safe_dump(named | plain | {"adaptive": adaptive}))
    result = CliRunner().invoke(app, ["ensemble", str(file)])
    assert result.exit_code == 0, result.output
    assert finished[1][-1] in result.output
    assert f"next: openmm-latent reweight --run {campaign.out}" in result.output


def test_it_converges_when_errors_and_changes_are_small() -> None:
    def found(value: float | None, error: float | None) -> Round:
        return Round(1, {"a": value, "b": 1.0}, {"a": error, "b": 0.1}, {}, 1.0, "")

    assert found(5.0, 0.4).has_converged(found(5.4, 2.0), 0.5)
    assert not found(5.0, 0.4).has_converged(found(5.6, 0.1), 0.5)  # still moving
    assert not found(5.0, 0.6).has_converged(found(5.0, 0.1), 0.5)  # not known well enough
    assert not found(None, None).has_converged(found(5.0, 0.1), 0.5)
    assert not found(5.0, 0.4).has_converged(None, 0.5)
