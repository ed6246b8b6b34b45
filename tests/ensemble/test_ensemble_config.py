"""The YAML file of an ensemble: what it says, and one sentence, with the key, for what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from openmm_latent.ensemble import load_config
from openmm_latent.errors import LatentError

GOOD = {"structure": "a.pdb", "model": "m.latent.pt", "out": "store", "walkers": "2"}
ADAPTIVE = "{states: ['phi>0'], training: [md.xtc]}"
EXACT = "{mode: exact}"


def with_keys(more: str) -> str:
    return ADAPTIVE.replace("}", f", {more}}}")


def write(folder: Path, **keys: str) -> Path:
    """Write the file with some keys changed; None leaves one out."""
    path = folder / "walkers.yaml"
    path.write_text("".join(f"{key}: {text}\n" for key, text in {**GOOD, **keys}.items() if text is not None))
    return path


def test_paths_are_taken_from_the_folder_of_the_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, model="[m.latent.pt, /other/n.latent.pt]", starts="{trajectory: md/p.xtc}"))
    assert config.structure == tmp_path / "a.pdb"
    assert config.model == [tmp_path / "m.latent.pt", Path("/other/n.latent.pt")]
    assert config.starts is not None
    assert config.starts.trajectory == tmp_path / "md" / "p.xtc"


def test_one_value_serves_all_walkers_and_a_list_each(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, temperature="[300, 350]", seed="7", run="{timestep: 1e-3, duration: 50}", walkers="2")
    )
    first, second = (config.hybrid(i, None) for i in range(2))
    assert (first.temperature, second.temperature) == (300.0, 350.0)
    assert (first.seed, second.seed) == (7, 8)
    assert first.timestep == second.timestep == 0.001  # YAML reads 1e-3 as a word
    assert load_config(write(tmp_path)).hybrid(0, 310.0).temperature == 310.0


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"temprature": "3"}, "config key temprature is unknown; did you mean temperature?"),
        ({"temperature": "warm"}, "config key temperature is wrong: input should be a valid number"),
        ({"walkers": "2.5"}, "config key walkers is wrong: input should be a valid integer"),
        ({"walkers": "0"}, "config key walkers must be at least 1, got 0"),
        ({"walkers": None}, "config key walkers is missing"),
        ({"walkers": "["}, "is not valid YAML"),
        ({"cluster": "{kind: pbs}"}, "config key cluster.kind is wrong: input should be 'local', 'address' or 'slurm'"),
        ({"cluster": "{wrkers: 3}"}, "config key cluster.wrkers is unknown; did you mean workers?"),
        ({"cluster": "{workers: 0}"}, "config key cluster.workers must be at least 1"),
        ({"cluster": "{kind: address}"}, "give one of them with cluster.kind address"),
        ({"cluster": "{address: 'tcp://a:1'}"}, "got kind local and 1 of them"),
        ({"cluster": "{slurm: {qeue: a}}"}, "config key cluster.slurm.qeue is unknown; did you mean queue?"),
        ({"cluster": "{slurm: {cores_per_worker: 0}}"}, "config key cluster.slurm.cores_per_worker must be at least 1"),
        ({"cluster": "{slurm: {gpus_per_job: 4}}"}, "config key cluster.slurm.gpus_per_job must be 0 or 1, got 4"),
        ({"run": "{durtion: 3}"}, "config key run.durtion is unknown; did you mean duration?"),
        ({"run": "{duration: x}"}, "config key run.duration is wrong: input should be a valid number"),
        ({"run": "{mode: funny}"}, "config key run: mode must be one of guarded, exploratory, exact, got 'funny'"),
        ({"run": "{seed: 3}"}, "config key run.seed is a walker's own; write seed at the top level"),
        ({"seed": "[1, 1]"}, "config key seed must give each walker its own, got [1, 1]"),
        ({"temperature": "[300]"}, "config key temperature must be one value or a list of 2, one a walker"),
        ({"starts": "{trajectory: x.xtc, frames: [1]}"}, "config key starts.frames must have 2 numbers"),
        ({"starts": "{trajectory: x.xtc, frames: [1, a]}"}, "config key starts.frames.1 is wrong"),
        ({"adaptive": "{}"}, "config key adaptive.states is missing"),
        ({"adaptive": "{states: ['phi>0']}"}, "config key adaptive.training is empty"),
        ({"adaptive": ADAPTIVE, "model": "[a, b]"}, "config key model must be one value in an adaptive campaign"),
        ({"adaptive": ADAPTIVE}, "config key run.report_interval must let an adaptive campaign see at least 4 frames"),
        ({"adaptive": with_keys("burn_in: 1"), "run": EXACT}, "config key adaptive.burn_in must lie between 0 and 1"),
        (
            {"adaptive": with_keys("dropped_time: 2"), "run": EXACT},
            "adaptive.dropped_time is of reweighting",
        ),
        ({"adaptive": ADAPTIVE, "run": "{mode: exact, duration: 9}"}, "at least 10 frames, got 9"),
        (
            {"adaptive": with_keys("proposal: {broad: 1}")},
            "adaptive.proposal.broad is unknown; did you mean",
        ),
        ({"adaptive": with_keys("proposal: {broad_weight: 2}")}, "broad_weight must lie between 0 and 1, got 2"),
    ],
)
def test_mistakes_name_their_key(tmp_path: Path, keys: dict[str, str], sentence: str) -> None:
    with pytest.raises(LatentError) as caught:
        load_config(write(tmp_path, **keys))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(LatentError, match=r"config .*absent\.yaml does not exist"):
        load_config(tmp_path / "absent.yaml")
    (tmp_path / "words.yaml").write_text("just words")
    with pytest.raises(LatentError, match="must hold keys and values, got str"):
        load_config(tmp_path / "words.yaml")
