"""Reference MD: structures prepared, energies right, an interrupted run equal to an uninterrupted one."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_latent.data import platforms
from openmm_latent.data.forcefields import build_system, force_field, use_native_gb
from openmm_latent.data.generate import GenerateConfig, generate
from openmm_latent.data.prepare import prepare
from openmm_latent.data.trajectories import load_trajectories
from openmm_latent.errors import LatentError

ADP = Path(__file__).parents[2] / "examples" / "data" / "adp.pdb"
TRIPEPTIDE = Path(__file__).parent / "thr_trp_tyr_neutral.pdb"
SHORT = GenerateConfig(duration=0.6, frame_spacing=0.02, equilibration=0.1, save_every=1e9)


def energy(system: openmm.System, positions: np.ndarray) -> float:
    """[kJ/mol] on the Reference platform."""
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(positions)
    return context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


@pytest.mark.parametrize("pdb", [ADP, TRIPEPTIDE])
def test_native_gb_has_the_energy_of_the_custom_force(pdb: Path) -> None:
    made = prepare(pdb)
    jiggle = np.random.default_rng(2).standard_normal(made.positions.shape)
    custom = force_field("obc2").createSystem(made.topology, nonbondedMethod=app.NoCutoff)
    native = use_native_gb(force_field("obc2").createSystem(made.topology, nonbondedMethod=app.NoCutoff))
    for scale in (0.0, 0.005, 0.02):
        positions = made.positions + scale * jiggle
        assert energy(native, positions) == pytest.approx(energy(custom, positions), rel=1e-5, abs=1e-3)


def test_build_system_constrains_hydrogens_and_moves_mass() -> None:
    made = prepare(ADP)
    plain = build_system(made.topology)
    heavy = build_system(made.topology, hydrogen_mass=3.0)
    assert plain.getNumConstraints() == heavy.getNumConstraints() == 12
    masses = [[s.getParticleMass(i).value_in_unit(unit.amu) for i in range(22)] for s in (plain, heavy)]
    assert sum(masses[0]) == pytest.approx(sum(masses[1]))
    assert min(masses[1]) == pytest.approx(3.0)
    kinds = {type(force).__name__ for force in build_system(made.topology, "vacuum").getForces()}
    assert not kinds & {"GBSAOBCForce", "CustomGBForce"}


def test_caps_and_their_hydrogens_are_kept() -> None:
    made = prepare(ADP)
    assert [r.name for r in made.topology.residues()] == ["ACE", "ALA", "NME"]
    assert made.notes == ["hydrogens kept as in the file"]


def test_neutral_termini_are_rebuilt() -> None:
    made = prepare(TRIPEPTIDE)
    names = [[a.name for a in r.atoms()] for r in made.topology.residues()]
    assert {"H", "H2", "H3"} <= set(names[0]) or {"H1", "H2", "H3"} <= set(names[0])
    assert {"O", "OXT"} <= set(names[-1])
    assert any("hydrogens rebuilt" in note for note in made.notes)
    again = prepare(TRIPEPTIDE)
    np.testing.assert_array_equal(made.positions, again.positions)


def test_missing_atoms_come_back(tmp_path: Path) -> None:
    lines = [line for line in TRIPEPTIDE.read_text().splitlines() if " CB  TYR" not in line and " CD1 TYR" not in line]
    (tmp_path / "holes.pdb").write_text("\n".join(lines) + "\n")
    made = prepare(tmp_path / "holes.pdb")
    assert made.topology.getNumAtoms() == prepare(TRIPEPTIDE).topology.getNumAtoms()
    assert "2 missing heavy atoms added" in made.notes


def test_ligands_are_refused_unless_left_out(tmp_path: Path) -> None:
    ligand = "HETATM  900  C1  LIG A 501      10.000  10.000  10.000  1.00  0.00           C\n"
    (tmp_path / "complex.pdb").write_text(ADP.read_text().replace("END", ligand + "END"))
    with pytest.raises(LatentError, match=r"no protein or nucleic acid: LIG 501; .* --remove-heterogens"):
        prepare(tmp_path / "complex.pdb")
    made = prepare(tmp_path / "complex.pdb", remove_heterogens=True)
    assert made.topology.getNumAtoms() == 22
    assert "1 residues removed: LIG" in made.notes


def test_structures_that_cannot_be_prepared(tmp_path: Path) -> None:
    with pytest.raises(LatentError, match=r"PDB file .*absent.pdb does not exist"):
        prepare(tmp_path / "absent.pdb")
    (tmp_path / "words.pdb").write_text("no atoms here\n")
    with pytest.raises(LatentError, match=r"has no atoms|cannot be read"):
        prepare(tmp_path / "words.pdb")
    (tmp_path / "water.pdb").write_text(
        "HETATM    1  O   HOH A   1       1.000   1.000   1.000  1.00  0.00           O\n"
    )
    with pytest.raises(LatentError, match=r"holds only water, ions and ligands"):
        prepare(tmp_path / "water.pdb")


class InterruptAt:
    """Progress callback that sends Ctrl-C to its own process after some frames."""

    def __init__(self, *frames: int) -> None:
        self.frames = set(frames)

    def __call__(self, replica: int, done: int, total: int) -> None:
        if done in self.frames:
            self.frames.remove(done)
            os.kill(os.getpid(), signal.SIGINT)


def test_interrupted_run_equals_uninterrupted_one(tmp_path: Path) -> None:
    whole = generate(ADP, tmp_path / "whole", SHORT, platform="Reference")[0]
    cut = tmp_path / "cut"
    for frame in (-2, 7, 19):  # while equilibrating, and twice in production
        with pytest.raises(KeyboardInterrupt):
            generate(ADP, cut, SHORT, platform="Reference", progress=InterruptAt(frame))
    cut_xtc = generate(ADP, cut, SHORT, platform="Reference")[0]
    assert cut_xtc.read_bytes() == whole.read_bytes()
    assert mdtraj.load(str(whole), top=str(tmp_path / "whole" / "adp.pdb")).n_frames == SHORT.n_frames
    assert json.loads(cut_xtc.with_suffix(".json").read_text())["is_complete"] is True


def test_frames_after_the_last_checkpoint_are_made_again(tmp_path: Path) -> None:
    whole = generate(ADP, tmp_path / "whole", SHORT, platform="Reference")[0]

    def die(replica: int, done: int, total: int) -> None:
        if done == 11:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match=r"power cut"):  # nothing saved since the start
        generate(ADP, tmp_path / "cut", SHORT, platform="Reference", progress=die)
    assert (tmp_path / "cut" / "adp_00.xtc").stat().st_size > 0
    assert generate(ADP, tmp_path / "cut", SHORT, platform="Reference")[0].read_bytes() == whole.read_bytes()


def test_a_longer_run_and_more_replicas_go_on(tmp_path: Path) -> None:
    longer = replace(SHORT, duration=0.8, n_replicas=2)
    whole = generate(ADP, tmp_path / "whole", longer, platform="Reference")
    generate(ADP, tmp_path / "grown", SHORT, platform="Reference")
    grown = generate(ADP, tmp_path / "grown", longer, platform="Reference")
    assert [p.read_bytes() for p in grown] == [p.read_bytes() for p in whole]
    assert grown[0].read_bytes() != grown[1].read_bytes()


def test_output_is_ready_for_training(tmp_path: Path) -> None:
    files = generate(ADP, tmp_path, SHORT, platform="Reference")
    loaded = load_trajectories(tmp_path / "adp.pdb", files)
    assert loaded.positions[0].shape == (30, 10, 3)
    assert loaded.frame_spacing == pytest.approx(0.02)
    facts = loaded.provenance
    assert facts["temperature"] == 300.0
    assert facts["force_field"].startswith("amber14")
    assert facts["seed"] == 1
    assert len(facts["input_sha256"]) == len(facts["topology_sha256"]) == 64
    assert facts["openmm_version"] == openmm.version.version
    assert facts["platform"] == "Reference"


def test_another_configuration_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    generate(ADP, tmp_path, SHORT, platform="Reference")
    with pytest.raises(LatentError, match=r"run with temperature 300.0, and 400.0 is asked for; give another folder"):
        generate(ADP, tmp_path, replace(SHORT, temperature=400.0), platform="Reference")
    with pytest.raises(LatentError, match=r"holds a run with solvent 'obc2', and 'vacuum' is asked for"):
        generate(ADP, tmp_path, replace(SHORT, solvent="vacuum"), platform="Reference")


def test_damaged_resume_files_are_told(tmp_path: Path) -> None:
    generate(ADP, tmp_path, SHORT, platform="Reference")
    resume, xtc = tmp_path / "adp_00.resume", tmp_path / "adp_00.xtc"
    content = resume.read_bytes()
    resume.write_bytes(content[:-10])
    with pytest.raises(LatentError, match=r"save point .*adp_00.resume cannot be loaded"):
        generate(ADP, tmp_path, SHORT, platform="Reference")
    resume.write_bytes(content)
    xtc.write_bytes(xtc.read_bytes()[:-50])
    with pytest.raises(LatentError, match=r"adp_00.xtc is shorter .* than when the run was saved"):
        generate(ADP, tmp_path, SHORT, platform="Reference")


def test_the_input_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "adp.pdb").write_text(ADP.read_text())
    with pytest.raises(LatentError, match=r"would overwrite; give another folder"):
        generate(tmp_path / "adp.pdb", tmp_path, SHORT, platform="Reference")
    assert (tmp_path / "adp.pdb").read_text() == ADP.read_text()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"timestep": 0.004}, "timestep 0.004 ps needs heavier hydrogens; give hydrogen_mass=3"),
        ({"timestep": 2.0, "hydrogen_mass": 3.0}, "timestep must not exceed 0.005 ps, got 2.0"),
        ({"frame_spacing": 0.003}, "frame_spacing must be a multiple of the timestep"),
        ({"duration": 0.01}, "duration 0.01 ps is shorter than one frame spacing"),
        ({"solvent": "water"}, "solvent must be one of obc2, vacuum, tip3p, got 'water'"),
        ({"n_replicas": 0}, "n_replicas must be at least 1, got 0"),
        ({"seed": 0}, "seed must be at least 1, got 0"),
        ({"hydrogen_mass": 40.0}, "hydrogen_mass must lie between 1 and 4.5 amu, got 40.0"),
    ],
)
def test_configurations_that_cannot_run(tmp_path: Path, change: dict, sentence: str) -> None:
    with pytest.raises(LatentError, match=sentence):
        generate(ADP, tmp_path, replace(SHORT, **change), platform="Reference")


@pytest.mark.slow
def test_explicit_solvent_runs_and_resumes(tmp_path: Path) -> None:
    config = GenerateConfig(solvent="tip3p", duration=0.06, frame_spacing=0.02, equilibration=0.02)
    with pytest.raises(KeyboardInterrupt):
        generate(ADP, tmp_path, config, platform="CPU", progress=InterruptAt(1))
    files = generate(ADP, tmp_path, config, platform="CPU")
    loaded = load_trajectories(tmp_path / "adp.pdb", files)
    assert loaded.positions[0].shape == (3, 10, 3)
    assert sum(r.name == "HOH" for r in loaded.topology.residues()) > 200
    assert loaded.topology.getPeriodicBoxVectors() is not None


def test_platform_choice() -> None:
    with pytest.raises(LatentError, match=r"platform 'Abacus' is not available; this OpenMM has .*Reference"):
        platforms.choose_platform("Abacus", 22)
    named, _, _ = platforms.choose_platform("reference", 5000)
    assert named.getName() == "Reference"
    chosen, properties, reason = platforms.choose_platform(None, 22)
    assert chosen.getName() in reason
    if not {"CUDA", "HIP", "OpenCL"} & set(platforms.available_platforms()):
        assert chosen.getName() == "Reference"
        chosen, properties, _ = platforms.choose_platform(None, 166)
        assert (chosen.getName(), properties) == ("CPU", {"Threads": "1"})
        assert platforms.choose_platform(None, 22, is_periodic=True)[0].getName() == "CPU"


@pytest.mark.parametrize(("is_gpu", "chosen"), [(True, "OpenCL"), (False, "Reference")])
def test_opencl_on_a_cpu_is_never_chosen_silently(monkeypatch: pytest.MonkeyPatch, is_gpu: bool, chosen: str) -> None:
    picked = []
    monkeypatch.setattr(platforms, "available_platforms", lambda: ["Reference", "CPU", "OpenCL"])
    monkeypatch.setattr(platforms, "_opencl_is_gpu", lambda: is_gpu)
    monkeypatch.setattr(platforms, "_with_properties", lambda name, n_atoms, reason: picked.append(name))
    platforms.choose_platform(None, 22)
    platforms.choose_platform("opencl", 22)  # by name it is the user's choice
    assert picked == [chosen, "OpenCL"]


@pytest.mark.opencl
def test_pocl_is_known_by_its_name() -> None:
    context = platforms._probe("OpenCL")
    maker = openmm.Platform.getPlatform("OpenCL").getPropertyValue(context, "OpenCLPlatformName")
    is_pocl = "portable computing language" in maker.lower()
    assert platforms._opencl_is_gpu() is not is_pocl
