"""What a complex's structure file does not tell: Systems, positions, and which SDF file is whose ligand."""

import numpy as np
import openmm as mm
import pytest
from openmm import app, unit

import toys
from complexes import SDF, complex_system, load_complex
from openmm_latent import LatentError
from openmm_latent.data.complex_files import describe_tokens, ligands_in, read_positions, read_system
from openmm_latent.data.complex_frames import read_complex_frames
from openmm_latent.data.complex_tokens import read_tokens
from openmm_latent.data.recognise import open_dataset
from openmm_latent.data.trajectories import load_topology
from peptides import capped_alanine_topology

TOPOLOGY, POSITIONS = load_complex()
#: Format and content of an Amber file for carbon monoxide beside a nitrogen, with one bond.
_AMBER = {
    "TITLE": ("20a4", ["gas"]),
    "POINTERS": ("10I8", [3, 2, 0, 1, 0, 0, 0, 0, 0, 0, 3, 2, 1, 0, 0, 1, 0, 0, 2, 0, *[0] * 8, 2, 0, 0]),
    "ATOM_NAME": ("20a4", ["C1", "O1", "N1"]),
    "CHARGE": ("5E16.8", [0.5 * 18.2223, -0.5 * 18.2223, 0.0]),
    "ATOMIC_NUMBER": ("10I8", [6, 8, 7]),
    "MASS": ("5E16.8", [12.01, 16.0, 14.01]),
    "ATOM_TYPE_INDEX": ("10I8", [1, 2, 1]),
    "NUMBER_EXCLUDED_ATOMS": ("10I8", [1, 1, 1]),
    "NONBONDED_PARM_INDEX": ("10I8", [1, 2, 2, 3]),
    "RESIDUE_LABEL": ("20a4", ["GAS", "NIT"]),
    "RESIDUE_POINTER": ("10I8", [1, 3]),
    "BOND_FORCE_CONSTANT": ("5E16.8", [500.0]),
    "BOND_EQUIL_VALUE": ("5E16.8", [1.13]),
    "ANGLE_FORCE_CONSTANT": ("5E16.8", []),
    "ANGLE_EQUIL_VALUE": ("5E16.8", []),
    "DIHEDRAL_FORCE_CONSTANT": ("5E16.8", []),
    "DIHEDRAL_PERIODICITY": ("5E16.8", []),
    "DIHEDRAL_PHASE": ("5E16.8", []),
    "LENNARD_JONES_ACOEF": ("5E16.8", [1e6, 1e6, 1e6]),
    "LENNARD_JONES_BCOEF": ("5E16.8", [500.0, 500.0, 500.0]),
    "BONDS_INC_HYDROGEN": ("10I8", []),
    "BONDS_WITHOUT_HYDROGEN": ("10I8", [0, 3, 1]),
    "ANGLES_INC_HYDROGEN": ("10I8", []),
    "ANGLES_WITHOUT_HYDROGEN": ("10I8", []),
    "DIHEDRALS_INC_HYDROGEN": ("10I8", []),
    "DIHEDRALS_WITHOUT_HYDROGEN": ("10I8", []),
    "EXCLUDED_ATOMS_LIST": ("10I8", [2, 0, 0]),
    "HBOND_ACOEF": ("5E16.8", []),
    "HBOND_BCOEF": ("5E16.8", []),
    "AMBER_ATOM_TYPE": ("20a4", ["C", "O", "C"]),
}


def write_amber(folder):
    """Write gas.prmtop and gas.inpcrd; return their paths."""
    lines = ["%VERSION  VERSION_STAMP = V0001.000  DATE = 01/01/00  00:00:00"]
    for flag, (form, values) in _AMBER.items():
        n = {"20a4": 20, "10I8": 10, "5E16.8": 5}[form]
        words = [f"{v:<4}" if form == "20a4" else f"{v:8d}" if form == "10I8" else f"{v:16.8E}" for v in values]
        rows = ["".join(words[i : i + n]) for i in range(0, len(words), n)] or [""]
        lines += [f"%FLAG {flag}", f"%FORMAT({form})", *rows]
    (folder / "gas.prmtop").write_text("\n".join(lines) + "\n")
    numbers = "".join(f"{value:12.7f}" for value in (0.0, 0.0, 0.0, 1.13, 0.0, 0.0))
    (folder / "gas.inpcrd").write_text(f"gas\n    3\n{numbers}\n" + "".join(f"{v:12.7f}" for v in (4.0, 0, 0)) + "\n")
    return folder / "gas.prmtop", folder / "gas.inpcrd"


def test_an_amber_complex_has_system_and_positions(tmp_path):
    prmtop, inpcrd = write_amber(tmp_path)
    topology, nothing = load_topology(prmtop)
    assert nothing is None
    np.testing.assert_allclose(read_positions(inpcrd, topology)[:, 0], [0.0, 0.113, 0.4], atol=1e-6)
    system = read_system(prmtop, topology)
    tokens = read_tokens(topology, system)
    np.testing.assert_allclose(tokens.charges, [0.5, -0.5, 0.0], atol=1e-6)
    words = "residues: 0, single atoms: 3; 2 ligands of 2, 1 heavy atoms, orders of 0 of 1 bonds known, charges of the"
    assert describe_tokens(tokens).startswith(words)
    with pytest.raises(LatentError, match="must hold positions of the 31 atoms of the structure, got 3"):
        read_positions(inpcrd, TOPOLOGY)


def test_a_system_is_read_from_xml_and_must_be_one(tmp_path):
    path = tmp_path / "complex.xml"
    path.write_text(mm.XmlSerializer.serialize(complex_system(TOPOLOGY)))
    assert read_tokens(TOPOLOGY, read_system(path, TOPOLOGY)).knows_charges
    with pytest.raises(LatentError, match=r"complex.xml has 31 particles, but the structure has 10 atoms; give the"):
        read_system(path, capped_alanine_topology())
    (tmp_path / "force.xml").write_text(mm.XmlSerializer.serialize(mm.NonbondedForce()))
    with pytest.raises(LatentError, match=r"force.xml cannot be read \(it holds a NonbondedForce\)"):
        read_system(tmp_path / "force.xml", TOPOLOGY)
    (tmp_path / "complex.pdb").write_text("")
    with pytest.raises(LatentError, match=r"system \(--system\) must be a System's .xml .* got 'complex.pdb'"):
        read_system(tmp_path / "complex.pdb", TOPOLOGY)
    with pytest.raises(LatentError, match=r"no.xml does not exist; check the name given to system \(--system\)"):
        read_system(tmp_path / "no.xml", TOPOLOGY)


def test_positions_come_from_pdb_and_gro_too(tmp_path):
    pdb, gro = tmp_path / "a.pdb", tmp_path / "a.gro"
    with open(pdb, "w") as file:
        app.PDBFile.writeFile(TOPOLOGY, POSITIONS * unit.nanometer, file)
    rows = [f"{1:5d}{'LIG':<5}{'C':>5}{i:5d}" + "".join(f"{x:8.3f}" for x in p) for i, p in enumerate(POSITIONS)]
    gro.write_text("\n".join(["complex", "31", *rows, "   9.0 9.0 9.0"]) + "\n")
    for path in (pdb, gro):
        np.testing.assert_allclose(read_positions(path, TOPOLOGY), POSITIONS, atol=1e-3)
    with pytest.raises(LatentError, match=r"no.rst7 does not exist; check the name given to --coordinates"):
        read_positions(tmp_path / "no.rst7", TOPOLOGY)
    (tmp_path / "bad.rst7").write_text("x")
    with pytest.raises(LatentError, match=r"coordinates file .*bad.rst7 cannot be read"):
        read_positions(tmp_path / "bad.rst7", TOPOLOGY)


def data_set(folder):
    """Write a folder with a peptide and a peptide with a ligand; return the data set."""
    import mdtraj

    alone, positions = toys.load_adp()
    for name, topology, frame in (("alone", alone, positions), ("bound", TOPOLOGY, POSITIONS)):
        (folder / name).mkdir(parents=True)
        with open(folder / name / f"{name}.pdb", "w") as file:
            app.PDBFile.writeFile(topology, frame * unit.nanometer, file)
        top = mdtraj.load(str(folder / name / f"{name}.pdb")).topology
        frames = np.repeat(frame[None], 3, axis=0)
        mdtraj.Trajectory(frames, top, time=1.0 * np.arange(3)).save(str(folder / name / f"{name}_1.xtc"))
    return open_dataset(folder)


def test_each_ligand_file_goes_to_the_complex_that_it_fits(tmp_path):
    dataset, sdf = data_set(tmp_path / "data"), tmp_path / "acetamide.sdf"
    sdf.write_text(SDF)
    assert ligands_in(dataset["bound"].topology, [sdf]) == [sdf]
    assert ligands_in(dataset["alone"].topology, [sdf]) == []
    alone, bound = read_complex_frames(dataset, ligands=[sdf])
    assert not (alone.tokens.orders > 0).any()
    assert sorted(bound.tokens.orders[bound.tokens.orders > 0]) == [1, 1, 2]
    other = tmp_path / "other.sdf"
    other.write_text(SDF.replace(" O   0", " S   0"))
    with pytest.raises(LatentError, match=r"ligand file .*other.sdf fits no residue of alone, bound; give the ligand"):
        read_complex_frames(dataset, ligands=[sdf, other])
    with pytest.raises(LatentError, match="systems lack one for alone; give one for each complex, or none"):
        read_complex_frames(dataset, systems={"bound": complex_system(TOPOLOGY)})
    (frames,) = read_complex_frames(dataset, ["bound"], systems={"bound": complex_system(TOPOLOGY)})
    assert frames.tokens.knows_charges
