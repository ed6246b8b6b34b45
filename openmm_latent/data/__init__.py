"""Trajectories in: reading what users have, and running reference MD where they have none."""

from openmm_latent.data.recognise import open_dataset

__all__ = ["open_dataset"]
