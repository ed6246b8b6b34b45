"""ATMOS: trajectories of proteins and complexes by a state space model with a diffusion decoder."""

from openmm_latent.models.atmos.config import CONFIGS, ATMOSConfig
from openmm_latent.models.atmos.network import ATMOS, StateSpaceNetwork

__all__ = ["ATMOS", "CONFIGS", "ATMOSConfig", "StateSpaceNetwork"]
