"""RMSF, ellipsoids and couplings as files: what other programs read from them."""

import csv
from pathlib import Path

import numpy as np
import prody
import pytest
from openmm import unit
from openmm.app import PDBFile

from openmm_latent.data.backbone import read_backbone
from openmm_latent.errors import LatentError
from openmm_latent.report.flexibility import Flexibility

PEPTIDE = Path(__file__).parents[1] / "data" / "thr_trp_tyr_neutral.pdb"


@pytest.fixture(scope="module")
def flexibility():
    """Three residues with covariances of known eigenvalues."""
    read = PDBFile(str(PEPTIDE))
    backbone = read_backbone(read.topology)
    turns, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3, 3)))
    lengths = np.array([[0.09, 0.05, 0.02], [0.04, 0.04, 0.04], [0.1, 0.01, 0.01]])
    marginals = np.einsum("nij,nj,nkj->nik", turns, lengths**2, turns)
    couplings = np.array([[1.0, 0.5, -0.25], [0.5, 1.0, 0.0], [-0.25, 0.0, 1.0]])
    positions = read.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    return Flexibility(read.topology, positions, backbone, marginals, couplings), lengths


def test_tables_hold_the_numbers(flexibility, tmp_path):
    made, lengths = flexibility
    made.write(tmp_path / "peptide")
    with (tmp_path / "peptide.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["THR", "TRP", "TYR"]
    found = [[float(row[f"axis_{k}_nm"]) for k in (1, 2, 3)] for row in rows]
    np.testing.assert_allclose(found, lengths, atol=1e-5)
    np.testing.assert_allclose([float(r["rmsf_nm"]) for r in rows], np.sqrt((lengths**2).sum(1)), atol=1e-5)
    with (tmp_path / "peptide.couplings.csv").open() as file:
        table = list(csv.reader(file))
    np.testing.assert_allclose(np.array(table[1:])[:, 1:].astype(float), made.couplings, atol=1e-4)


def test_other_programs_read_b_factors_and_ellipsoids(flexibility, tmp_path):
    made, lengths = flexibility
    paths = made.write(tmp_path / "peptide")
    atoms = prody.parsePDB(str(tmp_path / "peptide.pdb"), long_resname=False)
    np.testing.assert_allclose(atoms.getCoords(), 10 * made.positions, atol=1e-3)
    expected = 8 * np.pi**2 / 3 * (100 * lengths**2).sum(1)
    np.testing.assert_allclose(atoms.select("name CB").getBetas(), expected, atol=0.006)
    tensors = atoms.select("name CA").getAnisous()  # xx, yy, zz, xy, xz, yz [Å^2]
    for found, marginal in zip(tensors, made.marginals, strict=True):
        wanted = 100 * marginal[(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert PDBFile(str(tmp_path / "peptide.pdb")).topology.getNumAtoms() == made.topology.getNumAtoms()
    assert all(path.stat().st_size > 100 for path in paths)


def test_a_missing_folder_is_said_before_anything_is_written(flexibility, tmp_path):
    with pytest.raises(LatentError, match=r"out: the folder .* does not exist; create it first"):
        flexibility[0].write(tmp_path / "nowhere" / "peptide")
