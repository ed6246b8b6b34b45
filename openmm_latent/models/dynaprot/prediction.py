"""From a structure and a trained network to the Gaussian of its Cα atoms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from openmm.app import Topology
from torch import Tensor

from openmm_latent.data.backbone import Backbone, read_backbone
from openmm_latent.models.dynaprot.covariance import joint_covariance, without_rigid_motions
from openmm_latent.models.dynaprot.network import DynaProt


@dataclass(frozen=True)
class Prediction:
    """What a network says of one structure.

    Attributes
    ----------
    backbone : Backbone
        The residues it is about.
    mean : Tensor
        (n_residues, 3) [nm], Cα atoms of the structure given: the paper takes it for the mean of the ensemble.
    covariance : Tensor
        (3 n_residues, 3 n_residues) [nm^2] of Cα positions, in the axes of the structure given, without rigid motions.
    """

    backbone: Backbone
    mean: Tensor
    covariance: Tensor


def predict(model: DynaProt, topology: Topology, positions: np.ndarray) -> Prediction:
    """Predict how the Cα atoms of a structure fluctuate together.

    Parameters
    ----------
    model : DynaProt
        In evaluation mode.
    topology : openmm.app.Topology
        Residues without N, CA and C are left out, and so is what is no protein.
    positions : ndarray
        (n_atoms, 3) [nm]

    Returns
    -------
    Prediction

    Raises
    ------
    LatentError
        There is no such residue, or its three atoms lie on one line.
    """
    backbone = read_backbone(topology)
    rotations, mean = (torch.from_numpy(part) for part in backbone.frames(positions))
    types, chains = (torch.from_numpy(part)[None] for part in (backbone.residue_types, backbone.chains))
    with torch.no_grad():
        cholesky, coupling = model(
            types, rotations[None].float(), mean[None].float(), chains, torch.ones_like(types, dtype=torch.bool)
        )
    covariance = joint_covariance(cholesky[0], rotations, coupling[0])
    return Prediction(backbone, mean, without_rigid_motions(covariance, mean))
