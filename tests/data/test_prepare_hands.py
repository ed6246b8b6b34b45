"""Side chains that are missing in a file come back with the right hand: pdbfixer's minimisation turns some over."""

from pathlib import Path

import numpy as np
import pytest
from openmm import app, unit

from openmm_latent.data import prepare as module
from openmm_latent.data.prepare import prepare
from openmm_latent.topology import find_structure

PEPTIDES = Path(__file__).parent / "l_peptides.pdb"


def volumes(topology, positions):
    """Return the signed volume of each stereocentre, by chain, residue and atom."""
    atoms = list(topology.atoms())
    found = {}
    for centre, *arms in find_structure(topology).chiral_centres:
        first, second, third = positions[arms] - positions[centre]
        atom = atoms[centre]
        found[atom.residue.chain.index, atom.residue.index, atom.name] = float(np.dot(np.cross(first, second), third))
    return found


@pytest.fixture(scope="module")
def stripped(tmp_path_factory):
    """A file without side chains, and the hands that its residues have when whole."""
    whole = app.PDBFile(str(PEPTIDES))
    positions = np.array(whole.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    modeller = app.Modeller(whole.topology, whole.positions)
    modeller.delete([atom for atom in whole.topology.atoms() if atom.name not in ("N", "CA", "C", "O")])
    path = tmp_path_factory.mktemp("stripped") / "backbone.pdb"
    with path.open("w") as out:
        app.PDBFile.writeFile(modeller.topology, modeller.positions, out)
    return path, volumes(whole.topology, positions)


@pytest.mark.parametrize("seed", [1, 2])
def test_added_side_chains_have_the_hands_of_the_whole_structure(stripped, seed):
    path, expected = stripped
    made = prepare(path, seed=seed)
    found = volumes(made.topology, made.positions)
    assert found.keys() == expected.keys()
    assert [key for key in found if found[key] * expected[key] < 0] == []


def test_pdbfixer_alone_turns_some_over(stripped, monkeypatch):
    """Without the mending the test above fails; if pdbfixer mends itself one day, the mending may go."""
    path, expected = stripped
    monkeypatch.setattr(module, "_mend_hands", lambda *_: None)
    wrong = 0
    for seed in (1, 2, 3):
        made = prepare(path, seed=seed)
        found = volumes(made.topology, made.positions)
        wrong += sum(found[key] * expected[key] < 0 for key in found)
    assert wrong > 0


def test_d_residues_of_the_file_stay_so(stripped, tmp_path):
    whole = app.PDBFile(str(PEPTIDES))
    positions = np.array(whole.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    positions[:, 0] *= -1.0  # a mirror image: every residue D
    modeller = app.Modeller(whole.topology, positions * unit.nanometer)
    last = {residue for residue in whole.topology.residues() if residue.name == "LYS"}
    modeller.delete([a for a in whole.topology.atoms() if a.residue in last and a.name in ("CD", "CE", "NZ")])
    path = tmp_path / "mirrored.pdb"
    with path.open("w") as out:
        app.PDBFile.writeFile(modeller.topology, modeller.positions, out)
    made = prepare(path)
    found, expected = volumes(made.topology, made.positions), stripped[1]
    assert [key for key in found if found[key] * expected[key] > 0] == []
    assert not [note for note in made.notes if "placed anew" in note]
