"""Training DynaProt: it fits, it generalises where there is a rule, it repeats, it stops early; the command."""

import re
from dataclasses import replace

import mdtraj
import numpy as np
import pytest
import torch
from openmm import app
from typer.testing import CliRunner

from openmm_latent.cli import app as command
from openmm_latent.data.fluctuations import ProteinExample
from openmm_latent.errors import LatentError
from openmm_latent.models.dynaprot import DynaProtConfig, load_weights
from openmm_latent.training.dynaprot import train_dynaprot

QUICK = DynaProtConfig(
    width=32,
    n_layers=2,
    n_heads=2,
    n_scalar=8,
    pair_width=8,
    n_triangle_heads=2,
    dropout=0.0,
    learning_rate=3e-3,
    pair_learning_rate=3e-3,
)
#: As published: no inputs but types and frames, and nothing to start from.
PLAIN = replace(QUICK, uses_surroundings=False, uses_elastic_network=False, position_noise=0.0)


def coil(n, rng):
    """Return Cα of a random compact chain, (n, 3) [nm]: steps of 0.38 nm, drawn to the middle, no two within 0.4 nm."""
    places = [np.zeros(3)]
    while len(places) < n:
        tries = rng.normal(size=(40, 3)) - 0.6 * np.mean(places, axis=0)
        tries = places[-1] + 0.38 * tries / np.linalg.norm(tries, axis=1, keepdims=True)
        gaps = np.linalg.norm(tries[:, None] - np.array(places)[None, :], axis=-1).min(axis=1)
        places.append(tries[int(np.argmax(np.minimum(gaps, 0.4) - 0.01 * np.arange(40)))])
    return np.array(places)


def made_example(name, n, seed):
    """Return a protein whose RMSF falls with the number of Cα within 1 nm, and whose couplings with distance."""
    rng = np.random.default_rng(seed)
    places = coil(n, rng)
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    crowd = (distances < 1.0).sum(axis=1)
    variances = 0.04 / crowd  # [nm^2], about 0.5 Å each
    correlations = np.exp(-distances / 0.6)
    turns = np.linalg.qr(rng.normal(size=(n, 3, 3)))[0]
    turns[..., 0] *= np.linalg.det(turns)[:, None]
    scale = np.sqrt(variances)
    coupling = correlations * scale[:, None] * scale
    centre = np.eye(n) - 1 / n
    return ProteinExample(
        name=name,
        residue_types=rng.integers(0, 20, size=n),
        chains=np.zeros(n, dtype=np.int64),
        rotations=turns,
        positions=places,
        marginal=variances[:, None, None] * np.diag([1.5, 1.0, 0.5]),
        coupling=centre @ coupling @ centre,
        n_frames=100,
    )


def shown(model, example):
    """Return what a network says of an example: RMSF (n,) [nm] and coupling (n, n) [nm^2]."""
    parts = (example.residue_types, example.rotations, example.positions, example.chains)
    types, turns, places, chains = (torch.as_tensor(part)[None] for part in parts)
    with torch.no_grad():
        cholesky, coupling = model(types, turns.float(), places.float(), chains, torch.ones_like(types).bool())
    return cholesky[0].square().sum((1, 2)).sqrt().numpy(), coupling[0].double().numpy()


def course_of(examples, **options):
    """Train; return the network and, by its name, the first and the last loss that was told."""
    losses = {}
    model = train_dynaprot(
        examples, progress=lambda name, *told: losses.setdefault(name, []).append(told[-1]), **options
    )
    return model, {name: (told[0], told[-1]) for name, told in losses.items()}


@pytest.mark.parametrize(
    ("config", "share"), [(QUICK, 0.7), (PLAIN, 0.5)], ids=["from an elastic network", "as published"]
)
def test_two_proteins_can_be_learned_by_heart(config, share):
    """M's loss falls to a tenth; J's to half, or less far by springs, which cannot meet a label that was made up."""
    examples = [made_example("one", 12, 1), made_example("two", 16, 2)]
    config = replace(config, n_steps=100, validate_every=5, position_noise=0.0)
    losses = course_of(examples, config=config)[1]
    assert losses["marginal"][1] < 0.1 * losses["marginal"][0], losses
    assert losses["pair"][1] < share * losses["pair"][0], losses


def test_a_rule_of_density_is_found_in_other_proteins():
    """Mean r of RMSF above 0.5 on five proteins apart, 0.7 when written; without the rule it is 0 +- 0.08."""
    examples = [made_example(str(seed), 20 + seed % 6, seed) for seed in range(16)]
    config = replace(QUICK, uses_elastic_network=False, n_layers=1, n_pair_blocks=0, n_steps=100, learning_rate=1e-2)
    model = train_dynaprot(examples, config=config)
    apart = [made_example("apart", 30, seed) for seed in range(100, 105)]
    found = [np.corrcoef(shown(model, example)[0], example.rmsf)[0, 1] for example in apart]
    assert np.mean(found) > 0.5, found


def test_one_seed_gives_one_network_and_leaves_torch_alone():
    examples = [made_example("one", 10, 1), made_example("two", 12, 2)]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    config = replace(QUICK, n_steps=3, dropout=0.2)
    first, again, other = (train_dynaprot(examples, config=config, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not torch.equal(shown_tensor(first, examples[0]), shown_tensor(other, examples[0]))


def shown_tensor(model, example):
    return torch.tensor(shown(model, example)[1])


def test_mse_learns_as_well_where_it_is_asked_for():
    examples = [made_example("one", 12, 1), made_example("two", 16, 2)]
    losses = course_of(examples, config=replace(PLAIN, n_steps=50, validate_every=5), loss="mse")[1]
    assert losses["marginal"][1] < 0.2 * losses["marginal"][0], losses


def test_training_stops_when_other_proteins_get_no_better(tmp_path):
    """Labels of the proteins apart are turned upside down, so that learning makes them worse."""
    examples = [made_example(str(seed), 12, seed) for seed in range(3)]
    apart = made_example("apart", 12, 9)
    apart = replace(apart, marginal=100.0 * apart.marginal, coupling=100.0 * apart.coupling)
    config = replace(QUICK, n_steps=200, validate_every=2, patience=3)
    out = tmp_path / "w.pt"
    train_dynaprot(examples, config=config, validation=[apart], out=out)
    training = load_weights(out)[1]
    assert training["course"]["marginal"]["steps"] < 60
    assert training["validation"] == ["apart"]
    assert set(training["proteins"]) == {"0", "1", "2"}
    assert len(training["digest"]) == 64


def test_mistakes_are_told(tmp_path):
    one = [made_example("one", 10, 1)]
    with pytest.raises(LatentError, match="config must be one of tiny, paper, got 'huge'"):
        train_dynaprot(one, config="huge")
    with pytest.raises(LatentError, match="loss must be one of log_frobenius, mse, got 'l1'"):
        train_dynaprot(one, loss="l1")
    with pytest.raises(LatentError, match="examples must hold at least one protein"):
        train_dynaprot([])
    with pytest.raises(LatentError, match=r"out: the folder .* does not exist"):
        train_dynaprot(one, out=tmp_path / "nowhere" / "w.pt")
    with pytest.raises(LatentError, match="device must be 'auto', 'cpu' or 'cuda', got 'tpu'"):
        train_dynaprot(one, device="tpu")
    broken = replace(one[0], marginal=np.full((10, 3, 3), np.inf))
    with pytest.raises(LatentError, match="marginal network gave a loss that is not finite; lower"):
        train_dynaprot([broken], config=replace(QUICK, n_steps=2), loss="mse")


def run(*words, code=0):
    result = CliRunner().invoke(command, [str(word) for word in words], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == code, result.output
    return re.sub(r"\s+", " ", result.output)


def write_protein(folder, name, n, seed):
    """Write PDB and XTC of a made-up protein that shakes."""
    topology, rng = app.Topology(), np.random.default_rng(seed)
    chain = topology.addChain()
    for _ in range(n):
        residue = topology.addResidue("ALA", chain)
        for atom, symbol in (("N", "N"), ("CA", "C"), ("C", "C")):
            topology.addAtom(atom, app.Element.getBySymbol(symbol), residue)
    places = coil(n, rng)[:, None] + np.array([[0.0, 0.14, 0.0], [0.0, 0.0, 0.0], [0.15, 0.0, 0.0]])
    frames = places.reshape(-1, 3) + 0.03 * rng.normal(size=(40, 3 * n, 3))
    trajectory = mdtraj.Trajectory(frames, mdtraj.Topology.from_openmm(topology), time=np.arange(40.0))
    (folder / name).mkdir()
    trajectory[0].save(str(folder / name / f"{name}.pdb"))
    trajectory.save(str(folder / name / f"{name}.xtc"))


def test_the_command_trains_from_a_folder(tmp_path, monkeypatch):
    from openmm_latent.models.dynaprot import config

    monkeypatch.setitem(config.CONFIGS, "tiny", replace(QUICK, n_steps=2))
    data = tmp_path / "proteins"
    data.mkdir()
    for k, name in enumerate(("abc", "def", "ghi")):
        write_protein(data, name, 8 + k, k)
    out = tmp_path / "protein.weights.pt"
    text = run("train", "dynaprot", "--data", data, "--out", out, "--validation", 0.3)
    assert "2 proteins of" in text
    assert "1 kept apart" in text
    assert "next: openmm-latent flexibility" in text
    training = load_weights(out)[1]
    assert len(training["proteins"]) == 2
    assert training["data_set"] == "files"
    assert "must be a share of the proteins" in run(
        "train", "dynaprot", "--data", data, "--out", out, "--validation", 2, code=2
    )
    assert "openmm-latent train dynaprot " in run("train", "dynaprot", "--help").split("Example", 1)[1]
