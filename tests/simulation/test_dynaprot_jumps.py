"""DynaProt's Gaussian inside a Simulation: decoded, steered and exact jumps, a restart, and the binding of weights."""

from functools import partial

import numpy as np
import openmm as mm
import pytest
import torch
from openmm import app
from scipy import stats
from typer.testing import CliRunner

import known_density as kd
import toys
from gaussian_proteins import TWO_CHAINS, load_two_chains, smooth_covariance, trace_of
from openmm_latent import LatentError, LatentModel
from openmm_latent.bundle import load_bundle
from openmm_latent.cli import app as command
from openmm_latent.data.backbone import read_backbone
from openmm_latent.models.dynaprot import CONFIGS, DynaProt, save_weights
from openmm_latent.training.dynaprot_binding import bind_dynaprot, export_gaussian
from platforms import get_platform


@pytest.fixture(scope="module")
def protein():
    """Two chains in vacuum: topology, System as XML, positions of a frame at 300 K, and minimised ones [nm]."""
    topology, positions = load_two_chains()
    system = toys.adp_system(topology)
    context = mm.Context(system, toys.langevin(3), *get_platform("Reference"))
    context.setPositions(positions)
    context.setVelocitiesToTemperature(300, 3)
    context.getIntegrator().step(100)
    hot = context.getState(positions=True).getPositions(asNumpy=True)._value
    return topology, mm.XmlSerializer.serialize(system), hot, positions


@pytest.fixture(scope="module")
def bundle(protein, tmp_path_factory):
    """A Gaussian of 1 A a coordinate and more."""
    topology, _, _, positions = protein
    covariance = smooth_covariance(positions[read_backbone(topology).ca], 0.05)
    path = tmp_path_factory.mktemp("dynaprot") / "two_chains.latent.pt"
    return export_gaussian(
        topology, positions, covariance, path, lag_time=10.0, relaxation_time=20.0, temperature=300.0, n_slow=2
    )


def simulate(bundle, protein, platform="Reference", **arguments):
    topology, xml, hot, _ = protein
    system, model = mm.XmlSerializer.deserialize(xml), LatentModel(bundle)
    if arguments.get("mode") == "exact" or arguments.get("realisation") == "steer":
        model.addRestraint(system, topology)
    integrator = model.createIntegrator(topology, toys.langevin(), **({"jumpInterval": 10, "seed": 5} | arguments))
    simulation = app.Simulation(topology, system, integrator, *get_platform(platform))
    simulation.context.setPositions(hot)
    simulation.context.setVelocitiesToTemperature(300, 7)
    return simulation


def positions_of(simulation):
    return simulation.context.getState(positions=True).getPositions(asNumpy=True)._value


def test_most_decoded_jumps_pass_the_guard(bundle, protein):
    """Twelve draws from the kernel, the lag being half of the relaxation time; at least nine must pass."""
    simulation = simulate(bundle, protein)
    simulation.step(10 * 12 + 1)
    integrator = simulation.integrator
    assert integrator.getNumJumps() == 12
    assert integrator.getNumAccepted() >= 9, integrator.getRefusals()
    assert np.isfinite(positions_of(simulation)).all()


def test_a_decoded_jump_moves_residues_and_keeps_the_bridge(bundle, protein):
    topology, _, hot, _ = protein
    simulation = simulate(bundle, protein, mode="exploratory")
    assert simulation.integrator.jump()
    after = positions_of(simulation)
    cas = read_backbone(topology).ca
    assert 0.03 < np.sqrt(((after - hot)[cas] ** 2).sum(axis=1).mean()) < 0.3
    sulphurs = [atom.index for atom in topology.atoms() if atom.name == "SG"]
    assert abs(np.linalg.norm(after[sulphurs[0]] - after[sulphurs[1]]) - 0.205) < 0.02


def test_steered_jumps_reach_their_slow_coordinates(bundle, protein):
    simulation = simulate(
        bundle, protein, realisation="steer", drivenSteps=150, stepsPerPerturbation=5, thresholds={"maxWork": 1e4}
    )
    simulation.step(31)
    records = list(simulation.integrator.getJumpRecords(0))
    assert len(records) == 3
    assert all(record.accepted and record.isSteered for record in records)
    misses = np.array([np.subtract(record.reached, record.to) for record in records])
    moves = np.array([np.subtract(record.to, record.start) for record in records])
    assert np.sqrt((moves**2).mean()) > 0.3
    assert np.sqrt((misses**2).mean()) < 0.4


def exact_run(bundle, protein):
    return simulate(bundle, protein, mode="exact", drivenSteps=20, stepsPerPerturbation=5, jumpInterval=7)


def test_an_exact_run_goes_on_bitwise_from_its_checkpoint(bundle, protein):
    first = exact_run(bundle, protein)
    first.step(17)
    checkpoint = first.context.createCheckpoint()
    first.step(15)
    assert first.integrator.getNumJumps() == 4
    second = exact_run(bundle, protein)
    second.context.loadCheckpoint(checkpoint)
    second.step(15)
    assert np.array_equal(positions_of(first), positions_of(second))
    assert first.integrator.getRefusals() == second.integrator.getRefusals()


# ---- the density that exact frames have ------------------------------------------------------------------------------

#: Where four Cα atoms are held [nm]: far enough apart that the shape defines its orientation.
HOLDS = np.array([[0.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.5, 1.0, 0.2], [0.2, 0.5, 1.1]])
STIFFNESS = 800.0  # kJ/mol/nm^2: a standard deviation of 56 pm, where the model believes in about 100


def held_trace(path):
    """Write the bundle of four Cα atoms in harmonic wells; return topology and System.

    The Gaussian knows nothing of the wells: its mean is 1.6 deviations off along both slow coordinates.
    """
    covariance = smooth_covariance(HOLDS, 0.1, reach=0.5)
    right, _ = trace_of(HOLDS, covariance)
    mean = right.mean - 1.6 * (right.deviations * right.modes)[:, :2].sum(dim=1).reshape(-1, 3)
    module, topology = trace_of(HOLDS, covariance, mean=mean.numpy(), n_slow=2, relaxation_time=50.0)
    toys.export_toy(module, path, topology, HOLDS, atoms=list(range(4)))
    system, force = mm.System(), mm.CustomExternalForce("k/2*((x-x0)^2 + (y-y0)^2 + (z-z0)^2)")
    force.addGlobalParameter("k", STIFFNESS)
    for name in ("x0", "y0", "z0"):
        force.addPerParticleParameter(name)
    for atom, hold in enumerate(HOLDS):
        system.addParticle(kd.MASS)
        force.addParticle(atom, hold)
    system.addForce(force)
    return topology, system


def held_frames(path, seed, n_frames):
    """Run the exact mode with hardly any MD between jumps; displacements (n_frames, 4, 3) [nm] and the acceptance."""
    topology, system = held_trace(path)
    model = LatentModel(path)
    model.addRestraint(system, topology)
    relaxation = mm.LangevinMiddleIntegrator(kd.TEMPERATURE, 5.0, 0.0025)
    relaxation.setRandomNumberSeed(seed)
    integrator = model.createIntegrator(
        topology, relaxation, jumpInterval=4, mode="exact", seed=seed,
        drivenSteps=48, stepsPerPerturbation=6, sigma=0.3, drivingStepSize=0.01,
    )  # fmt: skip
    context = mm.Context(system, integrator, *get_platform("Reference"))
    context.setPositions(HOLDS)
    context.setVelocitiesToTemperature(kd.TEMPERATURE, seed)
    frames = []
    for _ in range(n_frames):
        integrator.step(4)
        frames.append(context.getState(positions=True).getPositions(asNumpy=True)._value - HOLDS)
    return np.array(frames[30:]), integrator.getNumAccepted() / integrator.getNumJumps()


def test_exact_frames_have_the_density_of_the_force_field(tmp_path):
    """Kolmogorov-Smirnov tests of three seeds together at a level of 1 in 1000; there are four: false alarm 1 in 250.

    The slow coordinates' distribution is that of 100 000 independent draws from the wells. With a density of zero for
    every proposal the first fell to 3e-6 (it is 0.80 as it is).
    """
    path = tmp_path / "trace.latent.pt"
    runs, acceptance = zip(*(held_frames(path, seed, 500) for seed in (1, 2, 3)), strict=True)
    assert min(acceptance) > 0.1
    width, module = np.sqrt(kd.KT / STIFFNESS), load_bundle(path).module

    def slow(displacements):
        with torch.no_grad():
            return module.slow(module.encode(torch.tensor(HOLDS + displacements).float())).double().numpy()

    drawn = np.sort(slow(width * np.random.default_rng(1).standard_normal((100_000, 4, 3))), axis=0)
    found = []
    for k in range(2):
        share = partial(np.interp, xp=drawn[:, k], fp=np.linspace(0.0, 1.0, len(drawn)))
        found.append(kd.ks_pvalue([slow(run)[:, k] for run in runs], share))
    harmonic = stats.norm(scale=width).cdf
    found += [kd.ks_pvalue([run[:, atom, axis] for run in runs], harmonic) for atom, axis in ((2, 0), (0, 2))]
    assert min(found) > kd.LEVEL, (found, drawn.mean(axis=0), drawn.std(axis=0))


# ---- binding ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a network that has learned nothing."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "tiny.weights.pt"
    return save_weights(path, DynaProt(CONFIGS["tiny"]), {"temperature": 310.0, "files": ["a.xtc"], "seed": 3})


def test_weights_and_a_structure_make_a_bundle_that_jumps(weights, protein, tmp_path):
    topology, _, _, positions = protein
    path = bind_dynaprot(weights, topology, positions, tmp_path / "bound.latent.pt", relaxation_time=1000.0)
    model = LatentModel(path)
    assert (model.manifest.family, model.manifest.lag_time, model.manifest.n_slow) == ("DynaProt", 100.0, 2)
    assert model.manifest.training["temperature"] == 310.0
    assert model.manifest.training["files"] == ["a.xtc"]
    assert model.manifest.config["relaxation_time"] == 1000.0
    assert model.manifest.config["network"]["width"] == CONFIGS["tiny"].width
    cas = read_backbone(topology).ca
    np.testing.assert_allclose(model.slowCoordinates(positions, topology), 0.0, atol=1e-4)  # the input is the mean
    simulation = simulate(path, protein, mode="exploratory")
    simulation.integrator.jump()
    assert np.abs(positions_of(simulation)[cas] - positions[cas]).max() > 0.01


def test_the_command_binds_weights_to_a_file(weights, tmp_path):
    out = tmp_path / "bound.latent.pt"
    words = ["bind", weights, "--top", TWO_CHAINS, "--out", out, "--lag-time", 50, "--relaxation-time", 0]
    done = CliRunner().invoke(command, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    manifest = LatentModel(out).manifest
    assert (manifest.family, manifest.lag_time, manifest.config["relaxation_time"]) == ("DynaProt", 50.0, 0.0)


def test_a_mean_and_a_covariance_of_ones_own_are_taken(protein, tmp_path):
    topology, _, hot, positions = protein
    cas = read_backbone(topology).ca
    arguments = {"mean": hot[cas], "temperature": 300.0}
    path = export_gaussian(topology, positions, smooth_covariance(hot[cas]), tmp_path / "own.latent.pt", **arguments)
    assert np.abs(LatentModel(path).slowCoordinates(hot, topology)).max() < 1e-4
    assert np.abs(LatentModel(path).slowCoordinates(positions, topology)).max() > 1e-2


def test_what_does_not_fit_is_refused(weights, protein, tmp_path):
    topology, _, _, positions = protein
    out = tmp_path / "b.latent.pt"
    with pytest.raises(LatentError, match=r"positions must be finite and of shape \(n_particles=187, 3\) \[nm\]"):
        bind_dynaprot(weights, topology, positions[:5], out)
    with pytest.raises(LatentError, match=r"covariance must have shape \(3 n_residues, 3 n_residues\) = \(39, 39\)"):
        export_gaussian(topology, positions, np.eye(6), out)
