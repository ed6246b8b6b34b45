"""MISATO's atoms get names: residues and bonds from elements in Amber's order, the ligand's from distances."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from formats import LIGAND, PEPTIDE, write_misato
from openmm_latent.data import open_dataset
from openmm_latent.data.misato_topology import misato_topology
from openmm_latent.data.residues import missing_heavy_atoms
from openmm_latent.errors import LatentError

NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "S": 16}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_misato(tmp_path / "MD.hdf5")
    return tmp_path / "MD.hdf5"


def tables(residues, places=None):
    """Return what `misato_topology` takes, for (kind, elements) residues of one molecule."""
    symbols = [symbol for _, elements in residues for symbol in elements.split()]
    kinds = np.array([kind for kind, elements in residues for _ in elements.split()])
    positions = np.zeros((len(symbols), 3)) if places is None else places
    positions[:, 0] += np.arange(len(symbols))
    return np.array([NUMBERS[symbol] for symbol in symbols]), kinds, np.array([0]), positions


def names_of(topology):
    return [(residue.name, [atom.name for atom in residue.atoms()]) for residue in topology.residues()]


def bonds_of(topology):
    return {frozenset((a.name, b.name)) for a, b in topology.bonds() if a.residue is b.residue}


def test_residues_and_atoms_get_their_names(path: Path) -> None:
    entry = open_dataset(path)["1A28"]
    residues = names_of(entry.topology)
    assert [name for name, _ in residues] == ["SER", "CYS", "ILE", "HIS", "CYS", "GLY", "MOL"]
    assert residues[0][1] == "N H1 H2 H3 CA HA CB HB2 HB3 OG HG C O".split()
    assert residues[2][1][6:11] == ["CG2", "HG21", "HG22", "HG23", "CG1"]
    assert residues[3][1][9:15] == ["CE1", "HE1", "NE2", "HE2", "CD2", "HD2"]
    assert residues[5][1][-1] == "OXT"
    assert [chain.index for chain in entry.topology.chains()] == [0, 1]
    assert missing_heavy_atoms(entry.topology) == []


def test_the_ligand_is_the_last_molecule_with_bonds_by_distance(path: Path) -> None:
    entry = open_dataset(path)["1A28"]
    n_protein = sum(len(elements.split()) for _, elements in PEPTIDE)
    assert entry.ligand == list(range(n_protein, n_protein + len(LIGAND)))
    ligand = list(entry.topology.residues())[-1]
    assert [atom.name for atom in ligand.atoms()] == ["C1", "C2", "O1", "H1", "H2", "H3", "H4", "H5", "H6"]
    bonds = {frozenset((a.name, b.name)) for a, b in entry.topology.bonds() if a.residue is ligand}
    expected = "C1-C2 C2-O1 C1-H1 C1-H2 C1-H3 C2-H4 C2-H5 O1-H6".split()
    assert bonds == {frozenset(bond.split("-")) for bond in expected}


def test_neighbours_and_near_sulfurs_are_bonded(path: Path) -> None:
    topology = open_dataset(path)["1A28"].topology
    between = {
        (f"{a.name} {a.residue.index}", f"{b.name} {b.residue.index}")
        for a, b in topology.bonds()
        if a.residue is not b.residue
    }
    assert between == {(f"C {i}", f"N {i + 1}") for i in range(5)} | {("SG 1", "SG 4")}


def test_without_hydrogens_kinds_tell_leucine_from_isoleucine() -> None:
    heavy = "N C C C C C C O"
    topology, notes = misato_topology(*tables([(13, heavy), (12, heavy)]))
    assert names_of(topology) == [
        ("LEU", ["N", "CA", "CB", "CG", "CD1", "CD2", "C", "O"]),
        ("ILE", ["N", "CA", "CB", "CG2", "CG1", "CD1", "C", "O"]),
    ]
    assert notes == []
    assert frozenset(("CG", "CD2")) in bonds_of(topology)


def test_elements_win_over_a_kind_that_says_otherwise() -> None:
    """Tables of kinds differ from file to file; the hydrogens show that this is HID."""
    hid = "N H C H C H H C N H C H N C H C O"
    topology, _ = misato_topology(*tables([(11, hid)]))
    assert names_of(topology)[0][0] == "HIS"
    assert [atom.name for atom in topology.atoms()][8:10] == ["ND1", "HD1"]


def test_chains_held_by_a_disulfide_are_told_apart() -> None:
    end, start = "N H C H H C O O", "N H H H C H H C O"
    topology, _ = misato_topology(*tables([(10, end), (10, start)]))
    assert [len(list(chain.residues())) for chain in topology.chains()] == [1, 1]


def test_what_matches_nothing_is_noted() -> None:
    topology, notes = misato_topology(*tables([(2, "N H C H C H H H C O"), (40, "C C S")]))
    assert names_of(topology)[1] == ("UNK", ["C1", "C2", "S1"])
    assert len(notes) == 1
    assert "atoms 10 to 12 (kind 40, UNK) match no residue of ff14SB" in notes[0]


def test_a_structure_without_frames_has_a_topology_and_no_runs(path: Path) -> None:
    with h5py.File(path, "r+") as store:
        group = store["2B3C"]
        group["atoms_coordinates_ref"] = group["trajectory_coordinates"][0]
        del group["trajectory_coordinates"]
    dataset = open_dataset(path)
    assert dataset["2B3C"].topology.getNumResidues() == 7
    assert dataset["2B3C"].runs == ()
    with pytest.raises(LatentError, match="entry 2B3C has no runs to load; 2B3C: the file holds no trajectory_coord"):
        dataset.load("2B3C")


def test_tables_of_other_lengths_are_told(path: Path) -> None:
    with h5py.File(path, "r+") as store:
        del store["1A28/atoms_residue"]
        store["1A28/atoms_residue"] = np.zeros(5, int)
    with pytest.raises(LatentError, match=r"has 86 atoms_number and 5 atoms_residue in 1A28; the file is damaged"):
        _ = open_dataset(path)["1A28"].topology
