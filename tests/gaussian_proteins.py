"""Proteins with a Gaussian made by hand: two made-up peptides, and a few free Cα atoms."""

from pathlib import Path

import numpy as np
import torch
from openmm import app, unit

from openmm_latent.data.backbone import read_backbone
from openmm_latent.models.dynaprot.covariance import joint_covariance
from openmm_latent.models.dynaprot.module import GaussianProtein
from openmm_latent.topology import describe_atoms
from openmm_latent.training.dynaprot_binding import protein_atoms

#: Two chains, 8 and 5 residues, 187 atoms; a proline and a disulphide bridge (made by make_two_chains.py beside it).
TWO_CHAINS = Path(__file__).parents[1] / "examples" / "data" / "two_chains.pdb"


def load_two_chains():
    """Return topology and positions (187, 3) [nm]."""
    pdb = app.PDBFile(str(TWO_CHAINS))
    return pdb.topology, np.array(pdb.positions.value_in_unit(unit.nanometer))


def smooth_covariance(cas, deviation=0.06, reach=0.8, seed=1):
    """Return a covariance (3 n, 3 n) [nm^2] that falls off in space, of marginals that are not round."""
    rng = np.random.default_rng(seed)
    factors = deviation * (np.eye(3) + 0.3 * np.tril(rng.normal(size=(len(cas), 3, 3)), -1))
    coupling = np.exp(-((np.linalg.norm(cas[:, None] - cas[None], axis=2) / reach) ** 2)) + 0.02 * np.eye(len(cas))
    rotations = np.tile(np.eye(3), (len(cas), 1, 1))
    return joint_covariance(*(torch.tensor(part) for part in (factors, rotations, coupling)))


def gaussian_of(topology, positions, deviation=0.06, **arguments):
    """Return the module of a topology's protein, and the topology's indices of its model atoms."""
    backbone = read_backbone(topology)
    chosen, bonds, residues = protein_atoms(topology, backbone)
    arguments = {"lag_time": 10.0, "relaxation_time": 20.0} | arguments
    covariance = smooth_covariance(positions[backbone.ca], deviation)
    atoms = describe_atoms(topology, chosen)
    return GaussianProtein(atoms, bonds, residues, positions[chosen], covariance, **arguments).eval(), chosen


def trace_of(cas, covariance, **arguments):
    """Return the module of free Cα atoms, (n, 3) [nm], one a chain, and their topology."""
    topology = app.Topology()
    for _ in cas:
        topology.addAtom("CA", app.element.carbon, topology.addResidue("ALA", topology.addChain()))
    atoms = describe_atoms(topology, range(len(cas)))
    residues = [{"CA": i} for i in range(len(cas))]
    arguments = {"lag_time": 10.0, "relaxation_time": 20.0} | arguments
    return GaussianProtein(atoms, np.zeros((0, 2), int), residues, cas, covariance, **arguments).eval(), topology
