"""DynaProt: the fluctuations of a protein as multiscale Gaussians, from one structure."""

from openmm_latent.models.dynaprot.config import CONFIGS, DynaProtConfig
from openmm_latent.models.dynaprot.network import DynaProt
from openmm_latent.models.dynaprot.weights import load_weights, save_weights

__all__ = ["CONFIGS", "DynaProt", "DynaProtConfig", "load_weights", "save_weights"]
