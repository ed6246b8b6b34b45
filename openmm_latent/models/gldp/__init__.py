"""GLDP: graph latent dynamics propagators on LD-FPG's autoencoder."""

from openmm_latent.models.gldp.config import CONFIGS, GLDPConfig
from openmm_latent.models.gldp.module import GLDP

__all__ = ["CONFIGS", "GLDP", "GLDPConfig"]
