"""CODLAD: heavy atoms for Cα traces, by diffusion in the latent space of an autoencoder that keeps the constraints."""

from openmm_latent.models.codlad.autoencoder import Autoencoder
from openmm_latent.models.codlad.config import CONFIGS, CODLADConfig
from openmm_latent.models.codlad.graphs import Protein

__all__ = ["CONFIGS", "Autoencoder", "CODLADConfig", "Protein"]
