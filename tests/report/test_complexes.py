"""A ligand and its pocket in a toy complex."""

from itertools import pairwise

import numpy as np
import pytest
from openmm import app
from openmm.app.element import carbon

from openmm_latent import metrics
from openmm_latent.errors import LatentError
from openmm_latent.report import complexes
from openmm_latent.report.ensembles import make_ensemble
from openmm_latent.report.molecule import make_molecule

N_RESIDUES, N_LIGAND = 20, 6


def molecule():
    """Cα atoms in a row, and a chain of carbons as ligand."""
    topology = app.Topology()
    protein, other = topology.addChain(), topology.addChain()
    chain = [topology.addAtom("CA", carbon, topology.addResidue("GLY", protein, str(i + 1))) for i in range(N_RESIDUES)]
    ligand = topology.addResidue("LIG", other, "1")
    atoms = [topology.addAtom(f"C{i + 1}", carbon, ligand) for i in range(N_LIGAND)]
    for group in (chain, atoms):
        for first, second in pairwise(group):
            topology.addBond(first, second)
    return make_molecule(topology, list(range(N_RESIDUES + N_LIGAND)))


def structure():
    """Residues 0.38 nm apart along a wavy line; the ligand above the first ones."""
    number = np.arange(N_RESIDUES)
    protein = np.stack([0.38 * number, 0.2 * np.sin(number), 0.1 * np.cos(2 * number)], axis=1)
    ligand = np.stack([0.15 * np.arange(N_LIGAND), np.zeros(N_LIGAND), np.full(N_LIGAND, 0.6)], axis=1)
    return np.concatenate([protein, ligand])


def ensemble(seed: int, spread: float = 0.02):
    random = np.random.default_rng(seed)
    frames = structure() + spread * random.standard_normal((200, N_RESIDUES + N_LIGAND, 3))
    return make_ensemble("complex", molecule(), [frames.astype(np.float32)], structure(), 1.0)


def test_the_pocket_is_what_is_near():
    site = complexes.find_site(molecule(), structure(), ["LIG"])
    assert site.ligand.tolist() == list(range(N_RESIDUES, N_RESIDUES + N_LIGAND))
    distances = np.linalg.norm(structure()[:N_RESIDUES, None] - structure()[None, N_RESIDUES:], axis=2).min(axis=1)
    assert site.pocket.tolist() == np.flatnonzero(distances < metrics.POCKET_CUTOFF).tolist()
    assert len(site.atoms) == len(site.ligand) + len(site.pocket)
    assert complexes.find_site(molecule(), structure(), ()) is None


def test_a_ligand_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(LatentError, match=r"got 'MOL'; those that are no amino acids are LIG"):
        complexes.find_site(molecule(), structure(), ["MOL"])
    with pytest.raises(LatentError, match="must leave a protein beside it"):
        complexes.find_site(molecule(), structure(), ["LIG", "GLY"])
    assert complexes.possible_ligands(molecule()) == ["LIG"]


def test_scores_are_the_metrics_of_ligand_and_pocket():
    """Oracle: metrics.rmwd of the chosen atoms."""
    site = complexes.find_site(molecule(), structure(), ["LIG"])
    first, second = ensemble(1), ensemble(2, spread=0.03)
    found = complexes.complex_scores(second, first, site)
    chosen = [one.positions[:, site.atoms] for one in (second, first)]
    assert found["complex_rmwd"] == pytest.approx(metrics.rmwd(*chosen, None)["rmwd"])
    # a Gaussian against a wider one: |0.03 - 0.02| along each of three axes, and what superposition adds
    assert found["ligand_rmwd"] == pytest.approx(0.01 * np.sqrt(3.0), rel=0.3)
    assert complexes.complex_scores(first, first, site)["complex_rmsf_r"] == pytest.approx(1.0)


def test_clashes_are_split():
    site = complexes.find_site(molecule(), structure(), ["LIG"])
    one = ensemble(1, spread=0.001)
    assert set(complexes.complex_clashes(one, site).values()) == {0.0}
    one.positions[:, N_RESIDUES] = one.positions[:, 10] + np.float32(0.03)
    assert complexes.complex_clashes(one, site) == {
        "clashes_protein": 0.0,
        "clashes_ligand": 0.0,
        "clashes_between": 1.0,
    }
