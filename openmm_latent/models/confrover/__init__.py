"""ConfRover: trajectories, ensembles and ways between structures, frame after frame, by one network."""

from openmm_latent.models.confrover.config import CONFIGS, ConfRoverConfig
from openmm_latent.models.confrover.network import ConfRover
from openmm_latent.models.confrover.weights import load_weights, save_weights

__all__ = ["CONFIGS", "ConfRover", "ConfRoverConfig", "load_weights", "save_weights"]
