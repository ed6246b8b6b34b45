"""Methods compiled ahead of time give what TorchScript gives, run where they fit, and say when they cannot."""

import json
import shutil
import zipfile
from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import openmm as mm
import pytest
import torch
from openmm import app
from torch import Tensor
from typer.testing import CliRunner

import toys
from openmm_latent import LatentError, LatentIntegrator, LatentModel
from openmm_latent.bundle import inspect_bundle, load_bundle, write_compiled
from openmm_latent.cli import app as command_line
from openmm_latent.compiling import _methods, compile_bundle, made_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler"),
]

METHODS = ["jump", "propagate_slow", "slow", "slow_with_gradient"]


@pytest.fixture(scope="module")
def torsions(tmp_path_factory):
    """A bundle of phi and psi, compiled: angles, so that the short way round is compiled, too."""
    topology, positions = toys.load_adp()
    # of the heavy atoms: C-N-CA-C and N-CA-C-N
    module = toys.Torsions(10, np.array([[1, 3, 4, 6], [3, 4, 6, 8]]))
    path = toys.export_toy(module, tmp_path_factory.mktemp("compiled") / "torsions.latent.pt", topology, positions)
    result = CliRunner().invoke(command_line, ["export", str(path), "--out", str(path.with_name("aoti.latent.pt"))])
    assert result.exit_code == 0, result.output
    assert "largest difference" in result.output
    return path, path.with_name("aoti.latent.pt")


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    """A bundle with memory, compiled in place."""
    path = toys.export_toy(
        toys.Counter(10, 0.001), tmp_path_factory.mktemp("c") / "counter.latent.pt", *toys.load_adp()
    )
    assert compile_bundle(path, path).keys() == {"jump"}
    return path


def restrained(bundle, runner, platform="Reference"):
    """Return a Context with nothing but a restraint, pulled across the end of an angle."""
    topology, positions = toys.load_adp()
    system = mm.System()
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)
    force = LatentModel(bundle).addRestraint(system, topology, runner=runner)
    context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName(platform))
    context.setPositions(positions)
    for name, value in (("k", 50.0), ("target_1", 2.9), ("target_2", -2.9)):
        context.setParameter(f"latentRestraint_{name}", value)
    return context, force


def test_a_restraint_has_the_same_energy_and_forces(torsions):
    plain, compiled = torsions
    states = [
        restrained(bundle, runner)[0].getState(energy=True, forces=True)
        for bundle, runner in ((plain, "auto"), (compiled, "aoti"), (compiled, "torchscript"))
    ]
    energies = [state.getPotentialEnergy()._value for state in states]
    forces = [state.getForces(asNumpy=True)._value for state in states]
    np.testing.assert_allclose(energies[1:], energies[0], rtol=1e-5)
    for found in forces[1:]:
        np.testing.assert_allclose(found, forces[0], atol=1e-4 * np.abs(forces[0]).max())
    assert np.array_equal(forces[2], forces[0]), "TorchScript is the same module in both bundles"


def test_compiled_forces_are_the_energy_s_derivative(torsions):
    context, force = restrained(torsions[1], "aoti")
    state = context.getState(positions=True, forces=True)
    positions, forces = (state.getPositions(asNumpy=True)._value, state.getForces(asNumpy=True)._value)
    step, worst = 1e-4, 0.0
    for atom in force.getParticles():
        for axis in range(3):
            energies = []
            for sign in (1, -1):
                moved = positions.copy()
                moved[atom, axis] += sign * step
                context.setPositions(moved)
                energies.append(context.getState(energy=True).getPotentialEnergy()._value)
            worst = max(worst, abs(forces[atom, axis] + (energies[0] - energies[1]) / (2 * step)))
    assert worst < 2e-3 * np.abs(forces).max()


def test_what_the_slow_coordinates_do_not_read_is_left_out(tmp_path):
    """A latent of two parts, of which slow reads the second: its gradient needs no call of the first's functions."""

    class TwoParts(toys.Identity):
        def __init__(self) -> None:
            super().__init__(10)
            self.n_latent = 4

        def encode(self, positions: Tensor) -> Tensor:
            """The largest singular values, and two squared distances."""
            near = (positions[:, 0] - positions[:, 5]).pow(2).sum(1, keepdim=True)
            far = (positions[:, 0] - positions[:, 9]).pow(2).sum(1, keepdim=True)
            return torch.cat([torch.linalg.svdvals(positions)[:, :2], near, far], dim=1)

        def slow(self, latent: Tensor) -> Tensor:
            """The first distance."""
            distances = latent[:, 2:]
            return distances[:, :1]

    bundle = load_bundle(toys.export_toy(TwoParts(), tmp_path / "two.latent.pt", *toys.load_adp()))
    methods = {method.name: method for method in _methods(bundle, "cpu")}
    called = {str(node.target) for node in methods["slow"].function.graph.nodes}
    assert "aten.pow.Tensor_Scalar" in called
    assert not any("svd" in name for name in called)
    inputs = methods["slow_with_gradient"].draw(torch.Generator().manual_seed(1))
    positions = inputs[0].clone().requires_grad_(True)
    slow = bundle.module.slow(bundle.module.encode(positions))
    pull = inputs[2] * (slow.detach() - inputs[1])
    expected = torch.autograd.grad([slow], [positions], [pull])[0]
    found = methods["slow_with_gradient"].function(*inputs)
    torch.testing.assert_close(found, (slow.detach(), expected))


def jumps(bundle, runner, n_steps=6):
    """Return positions after jumps of the model with memory, and the integrator."""
    topology, positions = toys.load_adp()
    integrator = LatentModel(bundle).createIntegrator(
        topology, toys.langevin(), jumpInterval=2, mode="exploratory", seed=4, runner=runner
    )
    simulation = app.Simulation(
        topology, toys.adp_system(topology), integrator, mm.Platform.getPlatformByName("Reference")
    )
    simulation.context.setPositions(positions)
    simulation.context.setVelocitiesToTemperature(300, 5)
    simulation.step(n_steps)
    return simulation


def positions_of(simulation):
    return simulation.context.getState(positions=True).getPositions(asNumpy=True)._value


def test_a_jump_with_memory_is_the_same(counter):
    compiled, scripted = jumps(counter, "aoti"), jumps(counter, "torchscript")
    assert compiled.integrator.getNumJumps() >= 2
    np.testing.assert_allclose(positions_of(compiled), positions_of(scripted), atol=1e-4)


def test_a_batch_does_not_reach_what_was_compiled_for_one_frame(counter):
    ends = []
    for together in (False, True):
        walkers = [jumps(counter, "aoti", n_steps=1) for _ in range(2)]
        integrators = [walker.integrator for walker in walkers]
        integrators[1].setNumProposals(2)
        if together:
            assert all(LatentIntegrator.jumpTogether(integrators))
        else:
            assert all(integrator.jump() for integrator in integrators)
        ends.append([positions_of(walker) for walker in walkers])
    np.testing.assert_allclose(ends[1], ends[0], atol=1e-6)


def test_a_restart_is_bitwise(counter, tmp_path):
    first = jumps(counter, "aoti")
    first.saveCheckpoint(str(tmp_path / "here.chk"))
    first.step(6)
    second = jumps(counter, "aoti", n_steps=1)
    second.loadCheckpoint(str(tmp_path / "here.chk"))
    second.step(6)
    assert np.array_equal(positions_of(first), positions_of(second))


def test_the_choice_survives_serialisation(counter):
    simulation = jumps(counter, "aoti")
    xml = mm.XmlSerializer.serialize(simulation.integrator)
    assert 'runner="aoti"' in xml
    assert 'runner="aoti"' in mm.XmlSerializer.serialize(mm.XmlSerializer.deserialize(xml))


def test_the_manifest_tells_what_is_compiled(torsions):
    plain, compiled = torsions
    assert inspect_bundle(plain)["compiled"] == {}
    assert inspect_bundle(compiled)["compiled"] == {"methods": METHODS, "made_for": made_for("cpu")}
    for seed in (1, 2):  # the module itself is untouched
        x = torch.randn(1, 10, 3, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(load_bundle(plain).module.encode(x), load_bundle(compiled).module.encode(x))


def test_compiling_again_replaces_what_was_compiled(counter):
    with zipfile.ZipFile(counter) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names))
    assert sum(name.endswith("compiled/jump.pt2") for name in names) == 1
    with zipfile.ZipFile(write_compiled(counter, counter.with_name("again.pt"), {"slow": b""}, "nobody")) as archive:
        assert [n.rsplit("/", 1)[-1] for n in archive.namelist() if "/compiled/" in n] == ["slow.pt2", "made_for"]


def test_an_altered_package_is_refused(counter, tmp_path):
    content = bytearray(counter.read_bytes())
    at = content.find(b"/compiled/jump.pt2") + 5000
    content[at] ^= 1
    altered = tmp_path / "altered.latent.pt"
    altered.write_bytes(content)
    with pytest.raises(LatentError, match=r"altered|damaged"):
        LatentModel(altered)


def test_code_for_another_machine_is_left_to_torchscript(torsions, tmp_path):
    with zipfile.ZipFile(torsions[1]) as archive:
        packages = {m: next(archive.read(n) for n in archive.namelist() if n.endswith(f"/{m}.pt2")) for m in METHODS}
    foreign = write_compiled(torsions[0], tmp_path / "foreign.latent.pt", packages, "torch 1.0.0 cpu Z80")
    energies = [
        restrained(bundle, "auto")[0].getState(energy=True).getPotentialEnergy()._value
        for bundle in (foreign, torsions[0])
    ]
    assert energies[0] == energies[1]
    with pytest.raises(mm.OpenMMException, match=r"compiled for torch 1.0.0 cpu Z80, but runner 'aoti' needs them for"):
        restrained(foreign, "aoti")
    with pytest.raises(mm.OpenMMException, match=r"has no compiled methods, but runner 'aoti'.*export --runner aoti"):
        restrained(torsions[0], "aoti")


class Deciding(toys.Shake):
    """Takes another way when its first noise is positive."""

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        if bool((noise[0, 0] > 0).item()):
            return positions + 1.0, state
        return positions - 1.0, state


def test_a_model_that_decides_by_its_input_is_refused_and_nothing_is_written(tmp_path):
    path = toys.export_toy(Deciding(10, 0.1), tmp_path / "deciding.latent.pt", *toys.load_adp())
    with pytest.raises(LatentError, match=r"jump .*(cannot be compiled|differs)"):
        compile_bundle(path, tmp_path / "out.latent.pt")
    assert [entry.name for entry in tmp_path.iterdir()] == ["deciding.latent.pt"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"device": "tpu"}, "device must be 'cpu' or 'cuda', got 'tpu'"),
        ({"device": "cuda"}, "torch sees no CUDA device"),
    ],
)
def test_bad_arguments_are_told(counter, tmp_path, arguments, sentence):
    if arguments["device"] == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(LatentError, match=sentence):
        compile_bundle(counter, tmp_path / "out.latent.pt", **arguments)


def test_an_unknown_runner_is_refused(counter):
    with pytest.raises(LatentError, match=r"runner must be one of auto, torchscript, aoti, got 'onnx'"):
        jumps(counter, "onnx")
    result = CliRunner().invoke(command_line, ["export", str(counter), "--runner", "onnx"])
    assert result.exit_code == 2


def test_old_bundles_without_the_field_still_load(torsions, tmp_path):
    """The field came after the first bundles; those that lack it are whole."""
    with zipfile.ZipFile(torsions[0]) as archive:
        name = next(n for n in archive.namelist() if n.endswith("manifest.json"))
        assert "compiled" in json.loads(archive.read(name))
    shipped = toys.ADP_PDB.with_name("adp.latent.pt")
    assert inspect_bundle(shipped)["compiled"] == {}
