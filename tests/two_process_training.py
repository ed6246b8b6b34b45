"""Train the autoencoder's stages on so many processes: `python two_process_training.py DEVICES WORK OUT`."""

import sys
import warnings
from dataclasses import replace

import torch

from openmm_latent.models.gldp import CONFIGS
from openmm_latent.training import train_autoencoder
from peptides import capped_alanine_trajectories

if __name__ == "__main__":
    # TorchScript's, which the tests' own settings do not reach
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.set_num_threads(1)
    devices, work, out = sys.argv[1:]
    steps = {"encoder_steps": 12, "decoder_steps": 12, "validate_every": 6, "batch_size": 32}
    config = replace(CONFIGS["tiny"], dihedral_fraction=0.5, histogram_weight=0.1, **steps)
    model, latents = train_autoencoder(
        capped_alanine_trajectories(200),
        config,
        work_directory=work,
        devices=int(devices),
        device="cpu",
        progress=False,
    )
    torch.save({"weights": model.state_dict(), "latents": latents}, out)
