"""Jumps that draw side chains anew in a Simulation: caps, a bridge and histidines kept; alone and after DynaProt."""

from pathlib import Path

import numpy as np
import openmm as mm
import pytest
import torch
from openmm import app, unit
from typer.testing import CliRunner

import toys
from backmapped import load_l_peptides, random_model, taught_model
from gaussian_proteins import smooth_covariance
from openmm_latent import LatentError, LatentModel
from openmm_latent.bundle import load_bundle
from openmm_latent.cli import app as command
from openmm_latent.data.backbone import read_backbone
from openmm_latent.geometry import dihedrals
from openmm_latent.model import check_module
from openmm_latent.topology import find_structure
from openmm_latent.training.codlad_binding import export_backmapping
from openmm_latent.training.dynaprot_binding import export_gaussian
from platforms import get_platform

FILE = Path(__file__).parents[1] / "data" / "capped_peptide.pdb"
PDB = app.PDBFile(str(FILE))
TOPOLOGY, POSITIONS = PDB.topology, np.array(PDB.positions.value_in_unit(unit.nanometer))
COVARIANCE = smooth_covariance(POSITIONS[read_backbone(TOPOLOGY).ca], 0.02)
TIMES = {"lag_time": 10.0, "relaxation_time": 20.0}
CAPS = [atom.index for atom in TOPOLOGY.atoms() if atom.residue.name in ("ACE", "NME")]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """CODLAD that knows the peptide and one that knows nothing, and DynaProt on top of each."""
    folder, made = tmp_path_factory.mktemp("two_stages"), {}
    for name, model in (("taught", taught_model(TOPOLOGY, POSITIONS)), ("random", random_model())):
        path = export_backmapping(model, TOPOLOGY, POSITIONS, folder / f"{name}.latent.pt")
        out = folder / f"{name}_gaussian.latent.pt"
        made[name] = path
        made[f"{name} gaussian"] = export_gaussian(TOPOLOGY, POSITIONS, COVARIANCE, out, backmap=path, **TIMES)
    return made


def simulate(bundle, mode="guarded", **arguments):
    model = LatentModel(bundle)
    integrator = model.createIntegrator(TOPOLOGY, toys.langevin(), jumpInterval=10, mode=mode, seed=5, **arguments)
    simulation = app.Simulation(TOPOLOGY, toys.adp_system(TOPOLOGY), integrator, *get_platform("Reference"))
    simulation.context.setPositions(POSITIONS)
    simulation.context.setVelocitiesToTemperature(300, 7)
    return simulation


def positions_of(simulation):
    return simulation.context.getState(positions=True).getPositions(asNumpy=True)._value


def assert_sound(positions):
    """Bonds hold, the bridge and those to and in caps among them; peptide bonds are trans, residues L."""
    structure = find_structure(TOPOLOGY)
    bonds, centres = np.array(structure.bonds), np.array(structure.chiral_centres)
    lengths, expected = (np.linalg.norm(p[bonds[:, 0]] - p[bonds[:, 1]], axis=1) for p in (positions, POSITIONS))
    assert np.abs(lengths / expected - 1.0).max() < 0.15
    assert np.abs(np.cos(dihedrals(positions[None], np.array(structure.omegas))) + 1.0).max() < 0.35
    hands = [np.sign(np.linalg.det(p[centres[:, 1:]] - p[centres[:, :1]])) for p in (positions, POSITIONS)]
    np.testing.assert_array_equal(*hands)


@pytest.mark.parametrize("name", ["taught", "taught gaussian"])
def test_most_jumps_pass_the_guard(bundles, name):
    """Eight jumps by a model that knows the peptide's side chains; at least five must pass."""
    simulation = simulate(bundles[name])
    simulation.step(81)
    integrator = simulation.integrator
    assert integrator.getNumJumps() == 8
    assert integrator.getNumAccepted() >= 5, integrator.getRefusals()
    assert_sound(positions_of(simulation))
    atoms = {residue.index: {atom.name for atom in residue.atoms()} for residue in TOPOLOGY.residues()}
    assert [{"HD1", "HE2"} & atoms[place] for place in (2, 5, 7)] == [{"HD1"}, {"HD1", "HE2"}, {"HE2"}]


@pytest.mark.parametrize("name", ["random", "random gaussian"])
def test_jumps_that_clash_are_refused_and_leave_the_frame_as_it_was(bundles, name):
    simulation = simulate(bundles[name])
    before = positions_of(simulation)
    assert not simulation.integrator.jump()
    assert np.array_equal(positions_of(simulation), before)
    assert sum(simulation.integrator.getRefusals().values()) == 1


def test_caps_ride_along_with_a_jump(bundles):
    """Before any minimisation: a cap keeps its shape and its place about the residue that it hangs on."""
    model = LatentModel(bundles["taught gaussian"])
    assert not set(CAPS) & set(model.modelAtoms(TOPOLOGY))
    thresholds = {"maxMinimizerIterations": 0}
    simulation = simulate(bundles["taught gaussian"], mode="exploratory", thresholds=thresholds)
    assert simulation.integrator.jump()
    after = positions_of(simulation)
    assert np.linalg.norm(after[CAPS] - POSITIONS[CAPS], axis=1).min() > 0.003
    for residue in (0, 9):
        own = [atom.index for atom in TOPOLOGY.atoms() if atom.residue.index == residue]
        held = [a.index for bond in TOPOLOGY.bonds() for a, b in (bond, bond[::-1]) if b.index in own]
        both = sorted({*own, *held})
        distances = [np.linalg.norm(p[both][:, None] - p[both][None], axis=2) for p in (after, POSITIONS)]
        np.testing.assert_allclose(*distances, atol=1e-4)  # lengths of hydrogens are constraints


# ---- DynaProt, then a second bundle ----------------------------------------------------------------------------------


def test_cas_go_where_the_gaussian_alone_would_send_them_and_atoms_are_the_second_bundles(bundles, tmp_path):
    alone = load_bundle(export_gaussian(TOPOLOGY, POSITIONS, COVARIANCE, tmp_path / "alone.latent.pt", **TIMES)).module
    both, second = load_bundle(bundles["random gaussian"]), load_bundle(bundles["random"]).module
    model = LatentModel(bundles["random gaussian"])
    frame = torch.tensor(POSITIONS[model.modelAtoms(TOPOLOGY)]).float()[None]
    generator = torch.Generator().manual_seed(3)
    latent = torch.randn(1, both.manifest.n_latent, generator=generator)
    noise = torch.randn(1, both.manifest.noise_sizes["decode"], generator=generator)
    cas = [i for i, atom in enumerate(both.manifest.atoms) if atom.name == "CA"]
    with torch.no_grad():
        decoded = both.module.decode(latent, frame, noise)
        assert decoded.shape == frame.shape
        torch.testing.assert_close(second.backmap(decoded[:, cas], noise), decoded, atol=2e-3, rtol=0)
        heavy = [a.index for a in TOPOLOGY.atoms() if a.element.symbol != "H"]
        rigid = alone.decode(latent, torch.tensor(POSITIONS[heavy]).float()[None], noise[:, :0])
    rigid_cas = [i for i, atom in enumerate(heavy) if atom in {model.modelAtoms(TOPOLOGY)[ca] for ca in cas}]
    # rigid bodies give way to bonds afterwards
    assert float((rigid[:, rigid_cas] - decoded[:, cas]).norm(dim=2).max()) < 0.03
    assert float((decoded - frame)[:, cas].norm(dim=2).max()) > 0.02


def test_what_is_exported_keeps_the_contract_and_names_both(bundles):
    bundle = load_bundle(bundles["random gaussian"])
    manifest = bundle.manifest
    assert manifest.family == "DynaProt"
    assert manifest.config["backmap"] == {"family": "CODLAD", "sha256": load_bundle(bundles["random"]).manifest.sha256}
    assert [line.split(",")[0] for line in manifest.references] == ["DynaProt", "CODLAD"]
    sizes = manifest.noise_sizes
    assert sizes["jump"] == sizes["propagate"] + sizes["decode"] == sizes["sample"]
    drawn = bundle.module.sample(torch.randn(3, sizes["sample"], generator=torch.Generator().manual_seed(1)))
    assert drawn.shape == (3, len(manifest.atoms), 3)
    assert len(manifest.atoms) == 62
    assert "backmap" not in manifest.capabilities


def test_the_module_keeps_the_contract_before_it_is_scripted(bundles):
    from openmm_latent.models.dynaprot.backmapped import BackmappedGaussian
    from openmm_latent.topology import describe_atoms
    from openmm_latent.training.dynaprot_binding import protein_atoms

    second = load_bundle(bundles["taught"])
    drawn = LatentModel(bundles["taught"]).modelAtoms(TOPOLOGY)
    chosen, bonds, residues = protein_atoms(TOPOLOGY, read_backbone(TOPOLOGY), drawn)
    shown = [describe_atoms(TOPOLOGY, chosen), bonds, residues, POSITIONS[chosen], COVARIANCE]
    module = BackmappedGaussian(second.module, second.manifest.noise_sizes["backmap"], *shown, **TIMES).eval()
    check_module(module, torch.tensor(POSITIONS[chosen]).float().expand(2, -1, -1).clone())
    with pytest.raises(
        LatentError, match="backmap has 8 Cα atoms, and the Gaussian 7, of other residues or in another"
    ):
        BackmappedGaussian(second.module, 1, shown[0], bonds, residues[:7], shown[3], COVARIANCE[:21, :21], **TIMES)


def test_bundles_that_do_not_fit_are_refused(bundles, tmp_path):
    other, positions = load_l_peptides()
    out, covariance = tmp_path / "x.latent.pt", smooth_covariance(positions[read_backbone(other).ca])
    with pytest.raises(
        LatentError, match=r"topology (has|lacks) .*, which bundle 'taught.latent.pt'|where bundle 'tau"
    ):
        export_gaussian(other, positions, covariance, out, backmap=bundles["taught"], **TIMES)
    with pytest.raises(
        LatentError, match=r"backmap: bundle 'taught_gaussian.latent.pt' of family DynaProt cannot build"
    ):
        export_gaussian(TOPOLOGY, POSITIONS, COVARIANCE, out, backmap=bundles["taught gaussian"], **TIMES)


def test_the_command_binds_both(bundles, tmp_path):
    out = tmp_path / "both.latent.pt"
    words = ["bind", "dynaprot", "--top", FILE, "--out", out, "--backmap", bundles["taught"]]
    done = CliRunner().invoke(command, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert LatentModel(out).manifest.config["backmap"]["family"] == "CODLAD"


def test_a_run_goes_on_bitwise_from_its_checkpoint(bundles):
    first = simulate(bundles["taught gaussian"])
    first.step(15)
    checkpoint = first.context.createCheckpoint()
    first.step(10)
    second = simulate(bundles["taught gaussian"])
    second.context.loadCheckpoint(checkpoint)
    second.step(10)
    assert np.array_equal(positions_of(first), positions_of(second))
    assert mm.XmlSerializer.serialize(first.integrator) == mm.XmlSerializer.serialize(second.integrator)
