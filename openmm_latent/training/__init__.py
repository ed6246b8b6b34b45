"""Training: what turns trajectories into models, stage by stage, resumable after Ctrl-C."""

from openmm_latent.training.gldp import export_gldp, train_autoencoder, train_gldp

__all__ = ["export_gldp", "train_autoencoder", "train_gldp"]
