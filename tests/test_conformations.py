"""Drawing outside a Simulation, with a bundle of no family: independent frames, ways between two; and the commands."""

import dataclasses
import re
from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import mdtraj
import numpy as np
import pytest
import torch
from openmm import app, unit
from torch import Tensor
from typer.testing import CliRunner

import toys
from backmapped import load_l_peptides
from openmm_latent import conformations
from openmm_latent.bundle import export_bundle, load_bundle
from openmm_latent.cli import app as command
from openmm_latent.conformations import (
    interpolate_conformations,
    load_able,
    model_topology,
    read_model_atoms,
    sample_conformations,
    sample_trajectory,
)
from openmm_latent.errors import LatentError
from openmm_latent.geometry import rmsd
from openmm_latent.model import LatentModule
from openmm_latent.topology import AtomRecord, describe_atoms, heavy_atoms

TOPOLOGY, POSITIONS = load_l_peptides()
CHOSEN = heavy_atoms(TOPOLOGY)
SPREAD = 0.002


class Wanderer(LatentModule):
    """Draws its reference, jiggled; jumps further each time; goes straight from start to end, in equal steps."""

    def __init__(self, reference, factor=1.0):
        super().__init__()
        self.n_atoms, self.n_latent, self.n_slow = len(reference), 0, 0
        self.n_propagate_noise, self.n_decode_noise = 3 * self.n_atoms, 0
        self.factor = factor
        self.register_buffer("reference", torch.tensor(reference, dtype=torch.float32))

    def noise_sizes(self):
        return dict.fromkeys(("jump", "sample", "interpolate", "fill"), 3 * self.n_atoms)

    def initial_state(self, positions: Tensor) -> List[Tensor]:  # noqa: UP006
        return [torch.zeros(positions.shape[0], 1)]

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        count = state[0] + 1.0  # the memory: how many jumps there were
        moved = positions + 0.01 * count.unsqueeze(-1) + 0.002 * noise.view(-1, self.n_atoms, 3)
        return self.factor * moved, [count]

    def fill(self, start: Tensor, end: Tensor, noise: Tensor) -> Tensor:
        shares = torch.tensor([0.25, 0.5, 0.75]).view(1, 3, 1, 1)
        straight = start.unsqueeze(1) + shares * (end - start).unsqueeze(1)
        return straight + 1e-4 * noise.view(-1, 1, self.n_atoms, 3)

    def sample(self, noise: Tensor) -> Tensor:
        return self.factor * (self.reference + 0.002 * noise.view(-1, self.n_atoms, 3))

    def interpolate(self, start: Tensor, end: Tensor, remaining: Tensor, noise: Tensor) -> Tensor:
        return self.factor * (start + (end - start) / remaining.view(-1, 1, 1))


def written(path, factor=1.0, fine_time=5.0):
    return export_bundle(
        Wanderer(POSITIONS[CHOSEN], factor),
        path,
        family="Wanderer",
        atoms=describe_atoms(TOPOLOGY, CHOSEN),
        masses=[list(TOPOLOGY.atoms())[atom].element.mass._value for atom in CHOSEN],
        lag_time=20.0,
        config={} if fine_time is None else {"fine_time": fine_time},
        training={},
        reference_positions=POSITIONS[CHOSEN],
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return written(tmp_path_factory.mktemp("wanderer") / "wanderer.latent.pt")


@pytest.fixture(scope="module")
def bundle(path):
    return load_bundle(path)


def bent(positions):
    """Return the structure with its first chain moved apart, and all turned and shifted: (n, 3) [nm]."""
    moved = positions.copy()
    moved[:60] += [0.0, 0.0, 0.3]
    return moved[:, [1, 2, 0]] + 2.0


def write_pdb(path, topology, positions):
    with open(path, "w") as handle:
        app.PDBFile.writeFile(topology, positions * unit.nanometer, handle, keepIds=True)
    return path


# ---- drawing ---------------------------------------------------------------------------------------------------------


def test_each_sample_depends_on_the_seed_and_its_number_alone(bundle):
    drawn = list(sample_conformations(bundle, 130, seed=3))
    assert np.shape(drawn) == (130, len(CHOSEN), 3)
    few = list(sample_conformations(bundle, 2, seed=3))
    assert np.array_equal(drawn[:2], few)
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(next(sample_conformations(bundle, 1, seed=4)), drawn[0])
    assert abs(np.std(drawn - POSITIONS[CHOSEN]) / SPREAD - 1.0) < 0.05  # a hundred standard errors


def test_a_way_goes_from_the_start_to_the_end(bundle):
    start, end = POSITIONS[CHOSEN], bent(POSITIONS[CHOSEN])
    way = np.array(list(interpolate_conformations(bundle, start, end, 6)))
    np.testing.assert_allclose(way[0], start, atol=1e-6)
    assert rmsd(way[-1:], end)[0] < 1e-6
    steps = np.diff(way, axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[:1], steps.shape), atol=1e-5)
    assert np.linalg.norm(way[-1].mean(0) - start.mean(0)) < 1e-5


def test_the_topology_of_model_atoms_has_their_bonds_under_any_force_fields_names(bundle):
    topology = model_topology(bundle.manifest)
    place = {atom: number for number, atom in enumerate(CHOSEN)}
    wanted = {
        frozenset((place[a.index], place[b.index])) for a, b in TOPOLOGY.bonds() if {a.index, b.index} <= set(place)
    }
    assert {frozenset((a.index, b.index)) for a, b in topology.bonds()} == wanted
    assert [atom.name for atom in topology.atoms()] == [record.name for record in bundle.manifest.atoms]
    assert [chain.id for chain in topology.chains()] == ["A", "B"]


def test_disulphides_of_the_reference_are_bonds(bundle):
    names = ["N", "CA", "C", "O", "CB", "SG"]
    records = [AtomRecord("0", "CYX", place, name, name[0]) for place in (0, 1) for name in names]
    apart = np.array([[0.3 * i, 0.0, 1.0 * place] for place in (0, 1) for i in range(6)])
    for distance, n_bridges in ((0.205, 1), (0.5, 0)):
        apart[11] = apart[5] + [0.0, 0.0, distance]
        manifest = dataclasses.replace(bundle.manifest, atoms=records, reference_positions=apart.tolist())
        bonds = [{a.index, b.index} for a, b in model_topology(manifest).bonds()]
        assert bonds.count({5, 11}) == n_bridges


def test_model_atoms_are_found_in_another_order(bundle, tmp_path):
    modeller = app.Modeller(TOPOLOGY, POSITIONS * unit.nanometer)
    modeller.delete([atom for atom in modeller.topology.atoms() if atom.element.symbol == "H"])
    path = write_pdb(tmp_path / "heavy.pdb", modeller.topology, np.array(modeller.positions._value))
    found = read_model_atoms(path, bundle.manifest, bundle.name, "start")
    np.testing.assert_allclose(found, POSITIONS[CHOSEN], atol=1e-4)


def test_what_cannot_be_is_told(bundle, path, tmp_path):
    module, topology = toys.Identity(len(CHOSEN)), TOPOLOGY
    other = toys.export_toy(module, tmp_path / "other.latent.pt", topology, POSITIONS, CHOSEN)
    for method, sentence in (("sample", "draw independent conformations"), ("interpolate", "go from one structure")):
        with pytest.raises(LatentError, match=f"bundle 'other.latent.pt' of family .* cannot {sentence}"):
            load_able(other, method)
    start = POSITIONS[CHOSEN]
    with pytest.raises(LatentError, match="count must be at least 1, got 0"):
        next(sample_conformations(bundle, 0))
    with pytest.raises(LatentError, match="n_frames must be at least 3, start and end among them, got 2"):
        next(interpolate_conformations(bundle, start, start, 2))
    with pytest.raises(LatentError, match=r"end must be finite and of shape \(n_atoms="):
        next(interpolate_conformations(bundle, start, start[1:], 5))
    broken = load_bundle(written(tmp_path / "broken.latent.pt", float("nan")))
    with pytest.raises(LatentError, match=r"'broken.latent.pt' drew frame 0 with numbers that are not finite"):
        next(sample_conformations(broken, 1))


# ---- in time order ---------------------------------------------------------------------------------------------------


def test_a_trajectory_is_jump_after_jump_with_the_models_memory(bundle):
    start = POSITIONS[CHOSEN] + 1.0
    frames = np.array(list(sample_trajectory(bundle, 5, start, seed=3)))
    np.testing.assert_allclose(frames[0], start, atol=1e-6)
    steps = np.diff(frames, axis=0).mean(axis=(1, 2))
    np.testing.assert_allclose(steps, [0.01, 0.02, 0.03, 0.04], atol=1e-3)  # six standard errors
    assert np.array_equal(frames[:3], list(sample_trajectory(bundle, 3, start, seed=3)))
    assert not np.array_equal(frames[1], list(sample_trajectory(bundle, 2, start, seed=4))[1])
    alone = next(iter(sample_trajectory(bundle, 2)))
    np.testing.assert_allclose(alone, POSITIONS[CHOSEN], atol=1e-5)


def test_between_jumps_the_model_fills(bundle):
    keys = np.array(list(sample_trajectory(bundle, 4, seed=3)))
    frames = np.array(list(sample_trajectory(bundle, 12, seed=3, is_filled=True)))
    assert np.array_equal(frames[::4], keys[:3])  # the last interval is cut: the fourth key frame is not asked for
    middle = (keys[:-1] + keys[1:]) / 2
    assert np.abs(frames[2::4] - middle).max() < 1e-3
    noise = frames[1] - keys[0] - 0.25 * (keys[1] - keys[0]), frames[5] - keys[1] - 0.25 * (keys[2] - keys[1])
    assert np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1] < 0.5  # each interval has noise of its own
    assert len(list(sample_trajectory(bundle, 13, is_filled=True))) == 13


def test_intervals_are_filled_in_batches_and_only_one_is_held(bundle, monkeypatch):
    """Memory does not grow with the number of frames: what has been drawn before a frame is never a batch ahead."""
    expected = list(sample_trajectory(bundle, 60, seed=3, is_filled=True))
    monkeypatch.setattr("openmm_latent.conformations._BATCH_ATOMS", 3 * len(CHOSEN))
    drawn, asked = [], []
    keys = conformations._key_frames
    monkeypatch.setattr(conformations, "_key_frames", lambda *a: (asked.append(1) or key for key in keys(*a)))
    for number, frame in enumerate(sample_trajectory(bundle, 60, seed=3, is_filled=True)):
        drawn.append(frame)
        assert len(asked) <= number / 4 + 1 + 3
    np.testing.assert_allclose(drawn, expected, atol=1e-6)


def test_what_cannot_be_in_time_order_is_told(bundle, tmp_path):
    path = toys.export_toy(toys.Identity(len(CHOSEN)), tmp_path / "o.latent.pt", TOPOLOGY, POSITIONS, CHOSEN)
    other = load_bundle(path)
    assert len(list(sample_trajectory(other, 3))) == 3  # any family jumps
    with pytest.raises(
        LatentError, match=r"bundle 'o.latent.pt' of family .* cannot fill the frames between two jumps"
    ):
        next(sample_trajectory(other, 3, is_filled=True))
    with pytest.raises(LatentError, match="n_frames must be at least 2, the start among them, got 1"):
        next(sample_trajectory(bundle, 1))
    with pytest.raises(LatentError, match=r"start must be finite and of shape \(n_atoms="):
        next(sample_trajectory(bundle, 2, POSITIONS))
    broken = load_bundle(written(tmp_path / "broken.latent.pt", 1e39))
    with pytest.raises(LatentError, match=r"'broken.latent.pt' drew frame 1 with numbers that are not finite"):
        list(sample_trajectory(broken, 3))


# ---- commands --------------------------------------------------------------------------------------------------------


def run(*args):
    return CliRunner().invoke(command, [*map(str, args)])


def mistake(*args):
    """Run a command, and return its one sentence."""
    result = run(*args)
    assert result.exit_code == 2, result.output
    text = re.sub(r"\s+", " ", result.output).strip()
    assert text.startswith("openmm-latent:"), text
    return text


def test_samples_are_written_as_a_trajectory_beside_its_structure(path, tmp_path):
    out = tmp_path / "frames.xtc"
    result = run("sample", "--model", path, "--n", 4, "--out", out)
    assert result.exit_code == 0, result.output
    read = mdtraj.load(str(out), top=str(tmp_path / "frames.pdb"))
    expected = np.array(list(sample_conformations(load_bundle(path), 4)))
    np.testing.assert_allclose(read.xyz, expected, atol=1e-3)
    assert "4 conformations of" in result.output


@pytest.mark.parametrize(("options", "spacing"), [((), 5.0), (("--no-fill",), 20.0)])
def test_a_trajectory_is_written_with_its_times(path, tmp_path, options, spacing):
    start, out = write_pdb(tmp_path / "start.pdb", TOPOLOGY, POSITIONS), tmp_path / "traj.xtc"
    args = ("--trajectory", "-n", 6, "--start", start, "--out", out, "--seed", 3, *options)
    result = run("sample", "--model", path, *args)
    assert result.exit_code == 0, result.output
    read = mdtraj.load(str(out), top=str(tmp_path / "traj.pdb"))
    np.testing.assert_allclose(read.time, spacing * np.arange(6), rtol=1e-6)
    expected = sample_trajectory(load_bundle(path), 6, POSITIONS[CHOSEN], 3, is_filled=not options)
    np.testing.assert_allclose(read.xyz, list(expected), atol=2e-3)
    assert f"6 frames of {len(CHOSEN)} atoms in time order, {spacing:g} ps apart" in result.output


def test_a_way_tells_the_time_between_its_frames(path, tmp_path):
    start = write_pdb(tmp_path / "start.pdb", TOPOLOGY, POSITIONS)
    out = tmp_path / "way.xtc"
    args = ("interpolate", "--model", path, "--start", start, "--end", start, "--out", out)
    result = run(*args)
    assert f"5 frames of {len(CHOSEN)} atoms, 5 ps apart\n" in result.output  # those of one lag time
    np.testing.assert_allclose(mdtraj.load(str(out), top=str(tmp_path / "way.pdb")).time, 5.0 * np.arange(5))
    result = run(*args, "--frames", 7)
    assert "5 ps apart; the model was trained on ways of one lag time, 5 frames, and guesses" in result.output
    coarse = written(tmp_path / "coarse.latent.pt", fine_time=None)
    result = run("interpolate", "--model", coarse, *args[3:])
    assert f"9 frames of {len(CHOSEN)} atoms, 20 ps apart\n" in result.output


def test_a_way_is_relaxed_and_has_hydrogens(path, tmp_path):
    start = write_pdb(tmp_path / "start.pdb", TOPOLOGY, POSITIONS)
    end = write_pdb(tmp_path / "end.pdb", TOPOLOGY, POSITIONS[:, [1, 2, 0]] + 1.0)
    out = tmp_path / "way.pdb"
    args = ("--start", start, "--end", end, "--frames", 3, "--out", out, "--relax", "--solvent", "vacuum")
    result = run("interpolate", "--model", path, *args, "--platform", "Reference")
    assert result.exit_code == 0, result.output
    read = mdtraj.load(str(out))
    assert len(read) == 3
    assert read.topology.n_atoms > len(CHOSEN)
    assert "energy after minimisation" in result.output
    heavy = read.atom_slice([a.index for a in read.topology.atoms if a.element.symbol != "H"])
    assert float(rmsd(heavy.xyz, POSITIONS[CHOSEN]).max()) < 0.1


def test_mistakes_of_the_commands_are_one_sentence(path, tmp_path):
    start = write_pdb(tmp_path / "start.pdb", TOPOLOGY, POSITIONS)
    out = tmp_path / "a.xtc"
    assert "must end in .xtc or .pdb, got 'a.dcd'" in mistake("sample", "--model", path, "--out", tmp_path / "a.dcd")
    assert "n (--n) must be at least 1, got 0" in mistake("sample", "--model", path, "--out", out, "--n", 0)
    sample = ("sample", "--model", path, "--out", out)
    assert "n (--n) must be at least 2, got 1" in mistake(*sample, "--trajectory", "-n", 1)
    told = mistake(*sample, "--start", start, "--no-fill")
    assert "--start and --fill is for frames in time order; give --trajectory, too" in told
    ways = ("interpolate", "--model", path, "--out", out, "--start", start)
    assert "end (--end) file" in mistake(*ways, "--end", tmp_path / "no.pdb")
    assert "frames (--frames) must be at least 3" in mistake(*ways, "--end", start, "--frames", 2)
    modeller = app.Modeller(TOPOLOGY, POSITIONS * unit.nanometer)
    modeller.delete([next(iter(modeller.topology.residues()))])
    short = write_pdb(tmp_path / "short.pdb", modeller.topology, np.array(modeller.positions._value))
    assert "bundle 'wanderer.latent.pt'" in mistake(*ways, "--end", short)
    assert not out.exists()
