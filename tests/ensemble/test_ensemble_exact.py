"""Exact adaptive campaigns: one tuning a round, averages of Boltzmann frames, retraining, and resuming."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch

from ensembles import make_config
from openmm_latent import LatentModel, hybrid
from openmm_latent.analysis import find_runs
from openmm_latent.bundle import inspect_bundle
from openmm_latent.ensemble import AdaptiveConfig, EnsembleConfig, WalkerTask, run_walker
from openmm_latent.ensemble import adaptive as adaptive_module
from openmm_latent.ensemble.adaptive import Round, run_adaptive
from openmm_latent.ensemble.judging import FEWEST_CROSSINGS
from openmm_latent.models import gldp
from openmm_latent.tuning import tune_driving
from toys import ADP_PDB

N_FRAMES, N_DROPPED = 90, 18
RUN = {
    "mode": "exact",
    "is_tuned": True,
    "jump_interval": 250,
    "report_interval": 50,
    "duration": 9.0,
    "driven_steps": 10,
    "driving_friction": 0.5,
}
RT = 0.00831446261815324 * 400.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> EnsembleConfig:
    """Two walkers, two rounds, a model of a few training steps that is not there yet, all of it retrained."""
    folder = tmp_path_factory.mktemp("exact")
    cut = folder / "cut.xtc"
    mdtraj.load(str(ADP_PDB.with_name("adp_400K.xtc")), top=str(ADP_PDB))[:200].save(str(cut))
    # omega lies at 180 degrees, so that its sign changes all the time
    states = ["turned=omega[2]>0", "left=phi>0"]
    adaptive = AdaptiveConfig(
        states,
        rounds=2,
        training=[cut],
        lag_time=2.0,
        refit="retrain",
        slow_features="angles",
        proposal={"n_components": 4},
        compiled_for="cpu",
    )
    bundle = folder / "adp.latent.pt"
    return make_config(bundle, folder / "store", 2, 9.0, temperature=400.0, run=RUN, adaptive=adaptive)


@pytest.fixture(scope="module")
def finished(campaign: EnsembleConfig) -> tuple[Round, list[str]]:
    """What the campaign says, cut once in its second tuning and once among the second round's walkers."""
    lines: list[str] = []
    asked: list[str] = []

    def run_round(tasks: list[WalkerTask], folder: Path) -> None:
        asked.append(str(folder.relative_to(campaign.out)))
        is_cut = asked.count(asked[-1]) == 1 and asked[-1].startswith("round_01")
        for task in tasks[:1] if is_cut else tasks:
            run_walker(task, lambda kind, n: None, lambda: False)
        if is_cut:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        small = replace(gldp.CONFIGS["tiny"], encoder_steps=20, decoder_steps=20, validate_every=20)
        patch.setitem(gldp.CONFIGS, "tiny", small)
        few = {"sigmas": (0.3, 0.4), "steps": (10,), "blocks": (1,), "per_distance": (2.0,), "step_shares": (0.5,)}
        few |= {"least_distances": (0.1,)}
        patch.setattr(hybrid, "tune_driving", partial(tune_driving, n_jumps=2, **few))
        # a C++ compiler takes a minute; its own tests have it
        patch.setattr(adaptive_module, "compile_bundle", lambda path, out, device: shutil.copy(path, out))
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                run_adaptive(campaign, run_round, lines.append)
        found = run_adaptive(campaign, run_round, lines.append)
    assert asked == ["round_00/tuning", "round_00", *["round_01/tuning"] * 2, *["round_01"] * 2]
    return found, lines


def facts(campaign: EnsembleConfig, number: int) -> list[dict]:
    return [json.loads((campaign.out / f"round_{number:02d}/walker_{i:03d}/adp.json").read_text()) for i in range(2)]


def frames(campaign: EnsembleConfig, number: int) -> list[mdtraj.Trajectory]:
    return [
        mdtraj.load(str(campaign.out / f"round_{number:02d}/walker_{i:03d}/adp.xtc"), top=str(ADP_PDB))
        for i in range(2)
    ]


def test_a_round_is_tuned_once_and_its_walkers_driven_alike(
    campaign: EnsembleConfig, finished: tuple[Round, list[str]]
) -> None:
    for number in range(2):
        chosen = json.loads((campaign.out / f"round_{number:02d}/tuning.json").read_text())["chosen"]
        for one in facts(campaign, number):
            assert one["mode"] == "exact"
            assert not one["is_tuned"]
            assert one["sigma"] == chosen["sigma"]
            assert one["steps_per_perturbation"] == chosen["stepsPerPerturbation"] == 1
            assert one["driving_timestep"] == chosen["drivingStepSize"] == 0.001
            assert one["driven_steps_per_distance"] == chosen["drivenStepsPerDistance"] == 2.0
            assert one["least_driven_distance"] == chosen["leastDrivenDistance"] == 0.1
            assert one["driving_friction"] == chosen["drivingFriction"] == 0.5
    # the walker that tuned is thrown away
    folders = [str(table.parent.relative_to(campaign.out)) for table in find_runs([campaign.out])]
    assert folders == [f"round_{number:02d}/walker_{i:03d}" for number in range(2) for i in range(2)]


def test_frames_of_all_rounds_are_averaged_after_the_burn_in(
    campaign: EnsembleConfig, finished: tuple[Round, list[str]]
) -> None:
    found, lines = finished
    runs = [run for number in range(2) for run in frames(campaign, number)]
    assert [len(run) for run in runs] == [N_FRAMES] * 4
    kept = mdtraj.join([run[N_DROPPED:] for run in runs])
    share = float((mdtraj.compute_dihedrals(kept, [[8, 14, 16, 18]]) > 0).mean())
    assert found.free_energies["turned"] == pytest.approx(-RT * np.log(share / (1 - share)))
    n_effective = found.evidence["turned"]["effective_samples"]
    assert found.errors["turned"] == pytest.approx(RT / np.sqrt(n_effective * share * (1 - share)))
    assert 20 < n_effective < len(kept) + 1e-6
    assert found.md_time == pytest.approx(0.1 * len(kept))
    assert found.free_energies["left"] is None
    # tuning goes by CPU time, so that what the walkers do differs from run to run
    is_left = [mdtraj.compute_phi(run[N_DROPPED:])[1][:, 0] > 0 for run in runs]
    changes = np.concatenate([np.diff(one.astype(int)) for one in is_left])
    n_entries, n_exits = (changes > 0).sum(), (changes < 0).sum()
    assert min(n_entries, n_exits) < FEWEST_CROSSINGS
    sentence = f"left: no number, as after the burn-in it was entered {n_entries} and left {n_exits} times"
    assert sentence in lines[-1]


def test_the_next_round_starts_from_frames_that_count(
    campaign: EnsembleConfig, finished: tuple[Round, list[str]]
) -> None:
    kept = np.concatenate([run.xyz[N_DROPPED:] for run in frames(campaign, 0)])
    for i in range(2):
        start = mdtraj.load(str(campaign.out / f"round_01/starts/{i:03d}/adp.pdb")).xyz[0]
        assert np.abs(kept - start).max(axis=(1, 2)).min() < 1e-3


def test_the_whole_model_is_retrained_on_the_relaxations(
    campaign: EnsembleConfig, finished: tuple[Round, list[str]]
) -> None:
    lines = finished[1]
    bundle = campaign.out / "models" / "model_01.latent.pt"
    assert "round 1: retrain, into model_01.latent.pt" in lines
    assert [one["bundle_sha256"] for one in facts(campaign, 1)] == [inspect_bundle(bundle)["sha256"]] * 2
    assert set(inspect_bundle(bundle)["training"]["files"]) == {"adp.xtc"}
    assert inspect_bundle(campaign.model)["training"]["files"] == ["cut.xtc"]
    positions = torch.tensor(inspect_bundle(bundle)["reference_positions"])[None].float()
    first, second = (LatentModel(path)._bundle.module.encode(positions) for path in (campaign.model, bundle))
    assert (first - second).abs().max() > 0.01  # another autoencoder
    assert inspect_bundle(bundle)["config"]["proposal_config"]["n_components"] == 4
    # what was not yet compiled is gone
    assert sorted(path.name for path in bundle.parent.iterdir()) == [bundle.name]
    assert not campaign.model.with_name(f"plain_{campaign.model.name}").exists()
