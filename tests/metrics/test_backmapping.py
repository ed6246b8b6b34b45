"""Bond graphs against real topologies, networkx and brute force."""

from pathlib import Path

import mdtraj
import networkx
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from openmm_latent import metrics
from openmm_latent.errors import LatentError

ADP = mdtraj.load(Path(__file__).parents[2] / "examples" / "data" / "adp.pdb")


def test_bonds_of_alanine_dipeptide_are_those_of_its_topology():
    """Oracles: the topology's bonds; all pairs by brute force."""
    radii = metrics.covalent_radii([atom.element.symbol for atom in ADP.topology.atoms])
    found = metrics.bond_graph(ADP.xyz[0], radii)
    expected = sorted(sorted([a.index, b.index]) for a, b in ADP.topology.bonds)
    assert found.tolist() == expected
    stretched = 1.9 * ADP.xyz[0].astype(np.float64)
    brute = [
        [i, j]
        for i in range(22)
        for j in range(i + 1, 22)
        if np.linalg.norm(stretched[i] - stretched[j]) < 2.5 * (radii[i] + radii[j])
    ]
    assert metrics.bond_graph(stretched, radii, scale=2.5).tolist() == brute


@pytest.mark.parametrize("seed", range(8))
def test_graph_edit_distance_agrees_with_networkx(seed):
    """Oracle: networkx.graph_edit_distance, atoms as labels that cannot change (a very high price)."""
    random = np.random.default_rng(seed)
    pairs = np.stack(np.triu_indices(5, 1), axis=1)
    first, second = (pairs[random.uniform(size=10) < 0.4] for _ in range(2))
    graphs = []
    for bonds in (first, second):
        graph = networkx.Graph()
        graph.add_nodes_from((k, {"atom": k}) for k in range(5))
        graph.add_edges_from(bonds.tolist())
        graphs.append(graph)
    expected = networkx.graph_edit_distance(*graphs, node_subst_cost=lambda a, b: 0 if a["atom"] == b["atom"] else 1000)
    assert metrics.graph_edit_distance(first, second) == expected
    assert metrics.graph_edit_distance(first[:, ::-1], first[::-1]) == 0


def test_atoms_are_not_exchanged():
    """A star about atom 0 against one about atom 1: exchanging the two labels would cost 2, the true answer is 8."""
    first, second = [[0, k] for k in (1, 2, 3, 4, 5)], [[1, k] for k in (0, 2, 3, 4, 5)]
    assert metrics.graph_edit_distance(first, second) == 8
    assert metrics.graph_edit_distance(np.zeros((0, 2), dtype=int), first) == 5


def test_scores_of_one_broken_bond():
    """Closed form: one end atom of a chain of five carbons moves away by 0.1 nm in one of two frames."""
    chain = np.zeros((2, 5, 3))
    chain[:, :, 0] = 0.154 * np.arange(5)
    rebuilt = chain.copy()
    rebuilt[1, 4, 0] += 0.1
    scores = metrics.bond_graph_scores(rebuilt, chain, metrics.covalent_radii("CCCCC"))
    assert scores["ged"] == 0.5
    assert scores["gdr"] == 1 / 8
    assert np.isclose(scores["bond_mse"], 0.1**2 / 8)
    assert metrics.backmapping_rmsd(rebuilt, chain)["unsuperposed"] == pytest.approx(0.5 * 0.1 / np.sqrt(5))


def test_collapsed_structures_have_too_many_bonds():
    """A cheat: all atoms at the centre of mass have a small RMSD and every bond there is."""
    random = np.random.default_rng(1)
    true = np.tile(0.154 * np.arange(6)[:, None] * [1.0, 0.0, 0.0], (3, 1, 1))
    collapsed = true.mean(axis=1, keepdims=True) + 0.01 * random.standard_normal((3, 6, 3))
    assert metrics.bond_graph_scores(collapsed, true, metrics.covalent_radii("C" * 6))["ged"] == 15 - 5


def test_backmapping_rmsd_agrees_with_mdtraj():
    """Oracle: mdtraj.rmsd, frame by frame, superposed and not."""
    random = np.random.default_rng(2)
    true = ADP.xyz[0] + 0.02 * random.standard_normal((6, 22, 3))
    rebuilt = (true + 0.03 * random.standard_normal((6, 22, 3))) @ Rotation.from_euler("z", 20, True).as_matrix()
    first, second = (mdtraj.Trajectory(x, topology=None) for x in (rebuilt, true))
    expected = [mdtraj.rmsd(first[k], second[k])[0] for k in range(6)]
    lying = [mdtraj.rmsd(first[k], second[k], superpose=False)[0] for k in range(6)]
    found = metrics.backmapping_rmsd(rebuilt, true)
    assert np.isclose(found["superposed"], np.mean(expected), rtol=1e-3)
    assert np.isclose(found["unsuperposed"], np.mean(lying), rtol=1e-3)
    assert found["superposed"] < found["unsuperposed"]


def test_diversity_agrees_with_mdtraj():
    """Oracle: mdtraj.rmsd to the mean of the samples and to the true frame; each direction of the ratio."""
    random = np.random.default_rng(3)
    true = ADP.xyz[0] + 0.02 * random.standard_normal((4, 22, 3))
    samples = true + 0.03 * random.standard_normal((5, 4, 22, 3)) + 0.02 * random.standard_normal((4, 22, 3))
    spread, error = [], []
    for frame in range(4):
        trajectory = mdtraj.Trajectory(samples[:, frame], topology=None)
        spread.append(mdtraj.rmsd(trajectory, mdtraj.Trajectory(samples[:, frame].mean(axis=0), topology=None)))
        error.append(mdtraj.rmsd(trajectory, mdtraj.Trajectory(true[frame], topology=None)))
    found = metrics.diversity(samples, true)
    assert np.isclose(found["ratio"], np.mean(spread) / np.mean(error), rtol=1e-3)
    assert found["div"] == 1.0 - found["ratio"]
    same = metrics.diversity(np.repeat(samples[:1], 5, axis=0), true)
    assert np.isclose(same["div"], 1.0)


def test_mistakes_are_told_in_a_sentence():
    true = ADP.xyz
    with pytest.raises(LatentError, match=r"elements must be among .* got 'Xx'"):
        metrics.covalent_radii(["C", "Xx"])
    with pytest.raises(LatentError, match=r"structure must have shape \(n_atoms=3, 3\)"):
        metrics.bond_graph(true[0], np.ones(3))
    with pytest.raises(LatentError, match="positions must have the shape of reference"):
        metrics.backmapping_rmsd(true[:, :5], true)
    with pytest.raises(LatentError, match="reference must have bonds, got none; are its positions in nm"):
        metrics.bond_graph_scores(10 * true, 10 * true, np.full(22, 0.03))
    with pytest.raises(LatentError, match="rebuild each frame several times"):
        metrics.diversity(true[None], true)
    with pytest.raises(LatentError, match="DIV is not defined"):
        metrics.diversity(np.stack([0 * true, 0 * true]), 0 * true)
