"""openmm-torch beside us: physics from a TorchForce, jumps from a bundle, both on one libtorch in one process.

All but one test need openmm-torch, for which `make test-openmm-torch` makes an environment.
"""

import importlib.util
import subprocess
import sys

import numpy as np
import openmm as mm
import pytest
import torch

import toys
from openmm_latent import LatentModel
from platforms import get_platform
from torch_amber import Amber

needs_openmm_torch = pytest.mark.skipif(
    importlib.util.find_spec("openmmtorch") is None,
    reason="openmmtorch is not installed; `make test-openmm-torch` runs this in an environment that has it",
)
#: Between the same forces by OpenMM and by torch, both in double precision on Reference.
CLOSE = {"rtol": 1e-5, "atol": 1e-4}


@pytest.fixture(scope="module")
def adp():
    return toys.load_adp()


@pytest.fixture
def simulate(adp, tmp_path):
    """Return a function that makes a Context of alanine dipeptide around a module or the model that it is given."""
    topology, positions = adp

    def make(model, physics, platform="Reference", restrained=False, **arguments):
        if isinstance(model, torch.nn.Module):
            model = LatentModel(toys.export_toy(model, tmp_path / "toy.latent.pt", topology, positions))
        system = toys.adp_system(topology)
        if physics == "torch":
            system = with_torch_force(system)
        if restrained:
            model.addRestraint(system, topology)
        arguments = {"jumpInterval": 10, "seed": 3} | arguments
        integrator = model.createIntegrator(topology, toys.langevin(), **arguments)
        context = mm.Context(system, integrator, *get_platform(platform))
        context.setPositions(positions)
        context.setVelocitiesToTemperature(300, 7)
        return context

    return make


@pytest.fixture(scope="module")
def adp_model():
    return LatentModel(toys.ADP_PDB.with_name("adp.latent.pt"))


def with_torch_force(system):
    """Return the same System with all its forces in one TorchForce."""
    from openmmtorch import TorchForce

    physics = torch.jit.script(Amber(system))
    while system.getNumForces():
        system.removeForce(0)
    system.addForce(TorchForce(physics))
    return system


def energy_and_forces(context):
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def frame(context):
    state = context.getState(positions=True, velocities=True)
    return np.stack([state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value])


def test_the_examples_amber_is_openmms(adp):
    topology, positions = adp
    system = toys.adp_system(topology)
    context = mm.Context(system, mm.VerletIntegrator(0.001), *get_platform("Reference"))
    strained = positions + 0.01 * np.random.default_rng(1).standard_normal(positions.shape)
    context.setPositions(strained)
    energy, forces = energy_and_forces(context)
    x = torch.tensor(strained, requires_grad=True)
    found = torch.jit.script(Amber(system))(x)
    (gradient,) = torch.autograd.grad(found, x)
    assert found.item() == pytest.approx(energy, rel=1e-6)
    np.testing.assert_allclose(-gradient.numpy(), forces, **CLOSE)


@needs_openmm_torch
@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_torch_force_and_restraint_add_up_also_after_jumps(simulate, adp_model, platform):
    by_torch = simulate(adp_model, "torch", platform, restrained=True, mode="exploratory")
    by_openmm = simulate(adp_model, "openmm", restrained=True, mode="exploratory")
    for _ in range(2):
        for context in (by_torch, by_openmm):
            context.setPositions(frame(by_torch)[0])
            context.setParameter("latentRestraint_k", 20.0)
        (energy, forces), (expected, expected_forces) = map(energy_and_forces, (by_torch, by_openmm))
        assert energy == pytest.approx(expected, abs=1e-3)
        np.testing.assert_allclose(forces, expected_forces, rtol=1e-4, atol=1e-2)  # positions in float32 on CPU
        by_torch.getIntegrator().step(21)
        assert by_torch.getIntegrator().getNumJumps() >= 2


@needs_openmm_torch
def test_the_same_guarded_jumps_as_with_openmms_own_forces(simulate, adp_model):
    records = {}
    for physics in ("openmm", "torch"):
        context = simulate(adp_model, physics, mode="guarded")
        context.getIntegrator().step(41)
        records[physics] = context.getIntegrator().getJumpRecords(0)
    assert len(records["torch"]) == 4
    for found, expected in zip(records["torch"], records["openmm"], strict=True):
        assert (found.accepted, found.reason) == (expected.accepted, expected.reason)
        assert found.energyBefore == pytest.approx(expected.energyBefore, abs=0.01)
        assert found.energyAfter == pytest.approx(expected.energyAfter, abs=0.01)


@needs_openmm_torch
def test_a_refused_jump_leaves_no_trace(simulate):
    context = simulate(toys.NotANumber(10), "torch", mode="guarded")
    context.getIntegrator().step(5)
    before = frame(context)
    assert not context.getIntegrator().jump()
    np.testing.assert_array_equal(frame(context), before)
    context.getIntegrator().step(5)
    assert np.isfinite(frame(context)).all()


@needs_openmm_torch
def test_the_same_work_of_exact_jumps_as_with_openmms_own_forces(simulate, adp_model):
    records = {}
    for physics in ("openmm", "torch"):
        context = simulate(
            adp_model, physics, restrained=True, mode="exact", drivenSteps=20, stepsPerPerturbation=2, sigma=0.3
        )
        context.getIntegrator().step(21)
        records[physics] = context.getIntegrator().getJumpRecords(0)
    assert len(records["torch"]) == 2
    for found, expected in zip(records["torch"], records["openmm"], strict=True):
        assert found.accepted == expected.accepted
        assert found.work == pytest.approx(expected.work, abs=0.01)


@needs_openmm_torch
@pytest.mark.parametrize("order", ["torch, openmmtorch, openmm_latent", "openmm_latent, openmmtorch"])
def test_either_may_be_imported_first(order, tmp_path):
    script = (
        f"import {order}, openmm\n"
        "failures = [line for line in openmm.Platform.getPluginLoadFailures() if 'TorchReference' in line]\n"
        "print(openmm_latent.plugin.load_failures.get('Reference', 'loaded'), *failures)"
    )
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)  # as a user would, not in the sources
    assert done.stdout.split() == ["loaded"], done.stderr
