"""Mistakes that users make, each answered by a sentence: what was given, what came, what was expected, what to do."""

import io
import json
import re
import shutil
import zipfile

import numpy as np
import openmm as mm
import pytest
import torch
from openmm import app, unit

from openmm_latent import LatentError, LatentModel, LatentReporter
from openmm_latent.bundle import export_bundle, load_bundle
from openmm_latent.data.trajectories import load_trajectories
from openmm_latent.topology import describe_atoms, heavy_atoms
from toys import ADP_PDB, Failing, Identity, Shake, adp_system, export_toy, langevin, load_adp

ADP_XTC = ADP_PDB.parent / "adp_400K.xtc"


@pytest.fixture(scope="module")
def adp():
    return load_adp()


@pytest.fixture(scope="module")
def bundle(adp, tmp_path_factory):
    topology, positions = adp
    module = Shake(len(heavy_atoms(topology)), 0.001)
    return export_toy(module, tmp_path_factory.mktemp("bundle") / "adp.latent.pt", topology, positions)


@pytest.fixture(scope="module")
def model(bundle):
    return LatentModel(bundle)


@pytest.fixture(scope="module")
def trajectories():
    return load_trajectories(ADP_PDB, [ADP_XTC], stride=50)


def refuses(sentence, kind=LatentError):
    """Expect an error whose message has these words; a message is one line."""
    return pytest.raises(kind, match=re.escape(sentence))


def rebuild_topology(old, change=lambda name, residue: (name, residue), leave_out=()):
    """Copy a topology, renaming or leaving out atoms."""
    new = app.Topology()
    kept = {}
    for chain in old.chains():
        new_chain = new.addChain()
        for residue in chain.residues():
            new_residue = new.addResidue(change("", residue.name)[1], new_chain)
            for atom in residue.atoms():
                if atom.index not in leave_out:
                    kept[atom] = new.addAtom(change(atom.name, residue.name)[0], atom.element, new_residue)
    for first, second in old.bonds():
        if first in kept and second in kept:
            new.addBond(kept[first], kept[second])
    return new


def rewrite(source, target, edit):
    """Copy a bundle, passing each entry's name and content through `edit`; None leaves the entry out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = edit(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def edit_manifest(source, target, **changes):
    def edit(name, content):
        if not name.endswith("manifest.json"):
            return content
        manifest = {**json.loads(content), **changes}
        return json.dumps({key: value for key, value in manifest.items() if value is not ...})

    return rewrite(source, target, edit)


# ---- bundle files ---------------------------------------------------------------------------------------------------


def test_a_bundle_that_is_not_there(tmp_path):
    with refuses("no_such.latent.pt' does not exist or is no file; give a file that `openmm-latent train`"):
        LatentModel(tmp_path / "no_such.latent.pt")


def test_a_truncated_bundle(bundle, tmp_path):
    short = tmp_path / "short.latent.pt"
    short.write_bytes(bundle.read_bytes()[:-2000])
    with refuses("'short.latent.pt' is no openmm-latent bundle, or is truncated"):
        LatentModel(short)


def test_a_bundle_with_damaged_bytes(bundle, tmp_path):
    # One bit in each of many places; wherever it falls there must be a sentence, never a crash or silence.
    content = bundle.read_bytes()
    intact = load_bundle(bundle).manifest
    damaged = tmp_path / "damaged.latent.pt"
    sentences = []
    for place in np.random.default_rng(5).integers(0, len(content), 200):
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            # zip files hold bytes that mean nothing (padding, dates): a change there changes nothing.
            assert load_bundle(damaged).manifest == intact
        except LatentError as error:
            sentences.append(str(error))
    assert len(sentences) > 100
    assert all("'damaged.latent.pt'" in sentence for sentence in sentences)


def test_a_bundle_whose_weights_or_code_were_exchanged(bundle, tmp_path):
    def edit(name, content):
        return content.replace(b"0.001", b"0.100") if name.endswith(".py") else content + b" " * name.endswith(".pkl")

    altered = rewrite(bundle, tmp_path / "altered.latent.pt", edit)
    with refuses("bundle 'altered.latent.pt' was altered: its contents have SHA-256"):
        LatentModel(altered)


def test_a_foreign_file(tmp_path):
    foreign = tmp_path / "photo.jpg"
    foreign.write_bytes(b"\xff\xd8\xff\xe0 not a bundle")
    with refuses("'photo.jpg' is no openmm-latent bundle, or is truncated"):
        LatentModel(foreign)


def test_torch_weights_instead_of_a_bundle(tmp_path):
    weights = tmp_path / "weights.pt"
    torch.save({"weight": torch.zeros(3)}, weights)
    with refuses("'weights.pt' is no openmm-latent bundle: it has no manifest; give a file that"):
        LatentModel(weights)


def test_a_bundle_of_another_contract_version(bundle, tmp_path):
    newer = edit_manifest(bundle, tmp_path / "newer.latent.pt", contract_version=99)
    with refuses("bundle 'newer.latent.pt' follows contract version 99, this openmm_latent"):
        LatentModel(newer)


def test_a_bundle_with_a_field_left_out(bundle, tmp_path):
    partial = edit_manifest(bundle, tmp_path / "partial.latent.pt", lag_time=...)
    with refuses("has a manifest with missing or unknown fields ['lag_time']"):
        LatentModel(partial)


def test_a_bundle_that_names_more_atoms_than_masses(bundle, tmp_path):
    uneven = edit_manifest(bundle, tmp_path / "uneven.latent.pt", masses=[12.0])
    with refuses("masses and reference_positions must be numbers for each of 10 atoms"):
        LatentModel(uneven)


# ---- topologies -----------------------------------------------------------------------------------------------------


def test_a_topology_that_lacks_an_atom(model, adp):
    missing = next(atom.index for atom in adp[0].atoms() if atom.name == "CB")
    with refuses("topology lacks CB of residue ALA 2 in chain 1, which bundle 'adp.latent.pt' expects"):
        model.modelAtoms(rebuild_topology(adp[0], leave_out=[missing]))


def test_a_topology_with_another_residue(model, adp):
    glycine = rebuild_topology(adp[0], lambda name, residue: (name, "GLY" if residue == "ALA" else residue))
    with refuses("topology has N of residue GLY 2 in chain 1 where bundle 'adp.latent.pt' expects N of residue ALA 2"):
        model.modelAtoms(glycine)


def test_a_topology_with_an_extra_heavy_atom(model, adp):
    # One of the methyl group's hydrogens stands for an oxygen put there.
    topology = rebuild_topology(adp[0], lambda name, residue: ("OG" if name == "HB3" else name, residue))
    next(atom for atom in topology.atoms() if atom.name == "OG").element = app.Element.getBySymbol("O")
    with refuses("topology has the extra atom OG of residue ALA 2 in chain 1, unknown to bundle 'adp.latent.pt'"):
        model.modelAtoms(topology)


def test_a_topology_with_water(model, adp):
    topology = rebuild_topology(adp[0])
    residue = topology.addResidue("HOH", topology.addChain())
    topology.addAtom("O", app.Element.getBySymbol("O"), residue)
    with refuses("topology holds water: a jump that writes decoded coordinates would leave the solvent where it is"):
        model.createIntegrator(topology, langevin())


def test_a_topology_that_is_not_the_systems(model, adp):
    system = mm.System()
    for _ in range(23):
        system.addParticle(1.0)
    integrator = model.createIntegrator(adp[0], langevin())
    with refuses("the System has 23 particles, but the topology given to createIntegrator has 22", mm.OpenMMException):
        mm.Context(system, integrator, mm.Platform.getPlatformByName("Reference"))


# ---- createIntegrator -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"mode": "brave"}, "mode must be one of ['exact', 'exploratory', 'guarded'], got 'brave'"),
        ({"jumpInterval": 0}, "jumpInterval must be a whole number of relaxation steps, at least 1, got 0"),
        ({"jumpInterval": 0.5}, "jumpInterval must be a whole number of relaxation steps, at least 1, got 0.5"),
        ({"seed": 2**40}, "seed must be a 32-bit whole number, got 1099511627776"),
        ({"velocities": "double"}, "velocities must be 'redraw' or 'keep', got 'double'"),
        ({"temperature": -5 * unit.kelvin}, "temperature must be zero or more kelvin, got -5.0"),
        ({"thresholds": {"maxEnergy": 1.0}}, "threshold 'maxEnergy' is unknown; choose one of"),
        ({"thresholds": {"maxForce": -1.0}}, "threshold 'maxForce' must be a number, zero or positive, got -1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_argument_out_of_range(model, adp, arguments, sentence):
    with refuses(sentence):
        model.createIntegrator(adp[0], langevin(), **arguments)


def test_a_ring_polymer_integrator(model, adp):
    with refuses("relaxation must not be an RPMDIntegrator: a jump moves one copy of the system"):
        model.createIntegrator(adp[0], mm.RPMDIntegrator(4, 300, 1, 0.001))


def test_a_drude_integrator(model, adp):
    with refuses("relaxation must not be a Drude integrator: after a jump Drude particles would be left behind"):
        model.createIntegrator(adp[0], mm.DrudeLangevinIntegrator(300, 1, 1, 1, 0.001))


def test_a_compound_integrator(model, adp):
    compound = mm.CompoundIntegrator()
    compound.addIntegrator(mm.VerletIntegrator(0.001))
    with refuses("relaxation must be a single integrator, got a CompoundIntegrator"):
        model.createIntegrator(adp[0], compound)


def test_a_relaxation_integrator_stays_the_callers_after_a_mistake(model, adp):
    relaxation = langevin()
    with refuses("mode must be one of"):
        model.createIntegrator(adp[0], relaxation, mode="brave")
    assert model.createIntegrator(adp[0], relaxation).getNumIntegrators() >= 1


# ---- while it runs --------------------------------------------------------------------------------------------------


def make_simulation(adp, integrator):
    topology, positions = adp
    reference = mm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(topology, adp_system(topology), integrator, reference)
    simulation.context.setPositions(positions * unit.nanometer)
    return simulation


def test_an_integrator_without_a_temperature(model, adp):
    simulation = make_simulation(adp, model.createIntegrator(adp[0], mm.VerletIntegrator(0.001), jumpInterval=2))
    with refuses("has no temperature of its own, so velocities cannot be redrawn after a jump", mm.OpenMMException):
        simulation.step(3)


def test_positions_that_are_not_finite(model, adp):
    simulation = make_simulation(adp, model.createIntegrator(adp[0], langevin(), jumpInterval=2))
    broken = adp[1].copy()
    broken[4, 1] = np.nan
    simulation.context.setPositions(broken * unit.nanometer)
    with refuses("the energy before the jump is not finite; the positions were broken before it", mm.OpenMMException):
        simulation.integrator.jump()


def test_a_module_that_fails_names_its_bundle(adp, tmp_path):
    topology, positions = adp
    path = export_toy(Failing(len(heavy_atoms(topology)), 0.0), tmp_path / "failing.latent.pt", topology, positions)
    simulation = make_simulation(adp, LatentModel(path).createIntegrator(topology, langevin(), jumpInterval=1))
    with refuses("bundle 'failing.latent.pt'", mm.OpenMMException):
        simulation.step(2)


def test_an_integrator_bound_twice(model, adp):
    simulation = make_simulation(adp, model.createIntegrator(adp[0], langevin()))
    with refuses("already bound to a", mm.OpenMMException):
        make_simulation(adp, simulation.integrator)


def test_a_step_without_a_context(model, adp):
    with refuses("This Integrator is not bound to a context!", mm.OpenMMException):
        model.createIntegrator(adp[0], langevin()).step(1)


def test_a_checkpoint_of_another_integrator(model, adp):
    other = make_simulation(adp, langevin())
    stream = io.BytesIO()
    other.saveCheckpoint(stream)
    simulation = make_simulation(adp, model.createIntegrator(adp[0], langevin()))
    stream.seek(0)
    with pytest.raises(mm.OpenMMException):
        simulation.loadCheckpoint(stream)


def test_a_state_of_a_simulation_with_another_bundle(model, adp, tmp_path):
    topology, positions = adp
    path = export_toy(Identity(len(heavy_atoms(topology))), tmp_path / "other.latent.pt", topology, positions)
    other = make_simulation(adp, LatentModel(path).createIntegrator(topology, langevin()))
    other.saveState(str(tmp_path / "state.xml"))
    simulation = make_simulation(adp, model.createIntegrator(topology, langevin()))
    with refuses("the State ", mm.OpenMMException):
        simulation.loadState(str(tmp_path / "state.xml"))


def test_a_reporter_beside_a_plain_integrator(model, adp, tmp_path):
    simulation = make_simulation(adp, langevin())
    simulation.reporters.append(LatentReporter(tmp_path / "jumps.csv", 1, model))
    with refuses("LatentReporter needs a Simulation whose integrator is a LatentIntegrator, got LangevinMiddle"):
        simulation.step(1)


def test_a_report_interval_of_zero(model, tmp_path):
    with refuses("reportInterval must be a whole number of steps, at least 1, got 0"):
        LatentReporter(tmp_path / "jumps.csv", 0, model)


def test_slow_coordinates_of_a_part_of_the_system(adp, tmp_path):
    topology, positions = adp
    path = export_toy(Identity(len(heavy_atoms(topology))), tmp_path / "slow.latent.pt", topology, positions)
    with refuses("positions must have shape (n_particles=22, 3) [nm], got (10, 3)"):
        LatentModel(path).slowCoordinates(positions[:10], topology)


# ---- export ---------------------------------------------------------------------------------------------------------


def export_arguments(adp):
    topology, positions = adp
    atoms = heavy_atoms(topology)
    return {
        "family": "toy",
        "atoms": describe_atoms(topology, atoms),
        "masses": [12.0] * len(atoms),
        "lag_time": 1.0,
        "config": {},
        "training": {},
        "reference_positions": positions[atoms],
    }


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"masses": [12.0]}, "must describe the module's 10 model atoms, got 10, 1 and shape (10, 3)"),
        ({"reference_positions": np.zeros((22, 3))}, "10 model atoms, got 10, 10 and shape (22, 3)"),
        ({"lag_time": 0.0}, "lag_time must be a positive time in ps, got 0.0"),
    ],
    ids=["masses", "reference", "lag_time"],
)
def test_an_export_with_sizes_that_disagree(adp, tmp_path, change, sentence):
    with refuses(sentence):
        export_bundle(Shake(10, 0.1), tmp_path / "x.latent.pt", **{**export_arguments(adp), **change})
    assert list(tmp_path.iterdir()) == []


def test_an_export_into_a_folder_that_is_not_there(adp, tmp_path):
    with refuses("does not exist; create it first"):
        export_bundle(Shake(10, 0.1), tmp_path / "absent" / "x.latent.pt", **export_arguments(adp))


# ---- trajectories ---------------------------------------------------------------------------------------------------


def test_a_trajectory_that_is_not_there(tmp_path):
    with refuses("does not exist; check the name given to files (--traj)"):
        load_trajectories(ADP_PDB, [tmp_path / "absent.xtc"])


def test_a_topology_file_that_is_not_there(tmp_path):
    with refuses("does not exist; check the name given to top (--top)"):
        load_trajectories(tmp_path / "absent.pdb", [ADP_XTC])


def test_an_unreadable_trajectory(tmp_path):
    broken = tmp_path / "broken.xtc"
    broken.write_bytes(b"this is no XTC file")
    with refuses(f"trajectory file {broken} "):
        load_trajectories(ADP_PDB, [broken])


def test_a_trajectory_of_an_unknown_kind(tmp_path):
    odd = tmp_path / "frames.xyzzy"
    shutil.copy(ADP_XTC, odd)
    with refuses(f"trajectory file {odd} "):
        load_trajectories(ADP_PDB, [odd])


def test_a_lag_time_that_is_no_multiple_of_the_frame_spacing(trajectories):
    spacing = trajectories.frame_spacing
    with refuses(f"lag_time must be a multiple of the frame spacing ({spacing:g} ps), got {1.5 * spacing:g} ps"):
        trajectories.lag_pairs(1.5 * spacing)


def test_a_lag_time_below_zero(trajectories):
    with refuses("lag_time must be a positive time in ps, got -1"):
        trajectories.lag_pairs(-1.0)


def test_a_lag_time_longer_than_the_files(trajectories):
    with refuses("give a shorter lag_time or longer trajectories"):
        trajectories.lag_pairs(trajectories.frame_spacing * 10**6)


def test_no_files_at_all():
    with refuses("files (--traj) is empty; give at least one trajectory file"):
        load_trajectories(ADP_PDB, [])


def test_a_test_file_that_is_not_among_the_files(trajectories):
    with refuses("test_files names ['other.xtc'], which are not among the files"):
        trajectories.split_by_file(["other.xtc"])


def test_a_share_of_training_frames_above_one(trajectories):
    with refuses("fraction must lie between 0 and 1, got 1.5"):
        trajectories.split_chronological(1.5)
