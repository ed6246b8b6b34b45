"""From a structure to its Gaussian: what must hold whatever the weights are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from openmm import unit
from openmm.app import PDBFile
from scipy.spatial.transform import Rotation

from openmm_latent.errors import LatentError
from openmm_latent.models.dynaprot import CONFIGS, DynaProt
from openmm_latent.models.dynaprot.covariance import marginals, rigid_motions
from openmm_latent.models.dynaprot.prediction import predict

PEPTIDE = Path(__file__).parents[1] / "data" / "thr_trp_tyr_neutral.pdb"


@pytest.fixture(scope="module")
def peptide():
    read = PDBFile(str(PEPTIDE))
    return read.topology, np.array(read.getPositions(asNumpy=True).value_in_unit(unit.nanometer))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return DynaProt(CONFIGS["tiny"]).eval()


def test_the_covariance_turns_with_the_structure(peptide, network):
    topology, positions = peptide
    turn = Rotation.random(random_state=2).as_matrix()
    here, there = (predict(network, topology, moved) for moved in (positions, positions @ turn.T + 3.0))
    turn = torch.tensor(turn)
    turned = torch.einsum("ab,ibjc,dc->iajd", turn, here.covariance.reshape(3, 3, 3, 3), turn)
    torch.testing.assert_close(there.covariance, turned.reshape(9, 9), atol=1e-7, rtol=1e-4)


def test_nothing_is_left_of_rigid_motions(peptide, network):
    found = predict(network, *peptide)
    basis = rigid_motions(found.mean)
    assert float((found.covariance @ basis).abs().max()) < 1e-12
    # of three atoms nothing but rigid motions leads out of their plane
    assert float(torch.linalg.eigvalsh(marginals(found.covariance)).min()) > -1e-12
    np.testing.assert_allclose(found.mean.numpy(), peptide[1][found.backbone.ca])


def test_a_structure_without_protein_is_refused(network):
    read = PDBFile(str(PEPTIDE))
    for atom in read.topology.atoms():
        atom.name = "X" + atom.name[:3]
    positions = np.array(read.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    with pytest.raises(LatentError, match="no residue with atoms N, CA and C"):
        predict(network, read.topology, positions)
