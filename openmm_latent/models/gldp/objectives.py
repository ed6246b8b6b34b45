"""What GLDP's encoder and decoder are trained to do: losses on superposed frames, without any training loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openmm_latent.models.gldp.module import GLDP
from openmm_latent.nn.distributed import gathered, shared_rows
from openmm_latent.nn.torsions import histogram_divergence, torsion_angles, torsion_loss

#: Share of a new batch in the running mean and variance of the latents while the encoder still moves.
_MOMENTUM = 0.02


def structure_loss(model: GLDP, structure: Tensor, target: Tensor, uses_dihedrals: bool) -> Tensor:
    """Return the coordinate error, in units of the data's variance, with the dihedral terms where asked.

    Parameters
    ----------
    structure, target : Tensor
        (batch, n_atoms, 3) [nm], superposed
    """
    config = model.config
    loss = ((structure - target) / model.displacement_scale).pow(2).mean()
    if uses_dihedrals and len(model.torsions) > 0:
        angles, reference = torsion_angles(structure, model.torsions), torsion_angles(target, model.torsions)
        loss = loss + config.torsion_weight * torsion_loss(angles, reference)
        if config.histogram_weight > 0:
            batches = gathered(angles), gathered(reference)
            divergence = histogram_divergence(*batches, config.histogram_bins, config.histogram_concentration)
            loss = loss + config.histogram_weight * divergence
    return loss


class LinearObjective(nn.Module):
    """Pre-train the encoder with a linear head from embeddings to displacements, as published."""

    def __init__(self, model: GLDP):
        super().__init__()
        self.model = model
        self.head = nn.Linear(model.config.encoder_width, 3)

    def trainable(self) -> list[nn.Parameter]:
        """Return what the optimiser moves."""
        return [*self.model.encoder.parameters(), *self.head.parameters()]

    def forward(self, frames: Tensor, latent: Tensor, noise: Tensor, uses_dihedrals: bool) -> Tensor:
        """Return the loss of frames (batch, n_atoms, 3) [nm]; latent and noise are not used."""
        target = (frames - self.model.mean_structure) / self.model.displacement_scale
        return (self.head(self.model.encoder(frames)) - target).pow(2).mean()


class AutoencoderObjective(nn.Module):
    """Train encoder and decoder together.

    DISCREPANCY(LD-FPG, encoder pre-training): the paper pre-trains the encoder with a linear head on every atom and
    freezes it; what the average pooling then keeps is left to chance. Here the pooled latent must carry the structure.
    """

    def __init__(self, model: GLDP):
        super().__init__()
        self.model = model

    def trainable(self) -> list[nn.Parameter]:
        """Return what the optimiser moves."""
        return [*self.model.encoder.parameters(), *self.model.decoder.parameters()]

    def forward(self, frames: Tensor, latent: Tensor, noise: Tensor, uses_dihedrals: bool) -> Tensor:
        """Return the loss of frames (batch, n_atoms, 3) [nm] with noise (batch, n_latent); latent is not used."""
        model = self.model
        # the reference rides along as one more frame, so that its embedding has a gradient
        with shared_rows(model.encoder, 1):
            embedding = model.encoder(torch.cat([frames, model.reference.to(frames.dtype).unsqueeze(0)]))
        raw = model.pooling(embedding[:-1])
        if self.training:
            batch = gathered(raw)  # of all processes
            mean, scale = batch.mean(dim=0), batch.std(dim=0).clamp(min=1e-5)
            with torch.no_grad():
                model.latent_mean.lerp_(mean, _MOMENTUM)
                model.latent_scale.lerp_(scale, _MOMENTUM)
            standard = (raw - mean) / scale + model.config.latent_noise * noise
        else:
            standard = (raw - model.latent_mean) / model.latent_scale
        structure = model.mean_structure + model.displacement_scale * model.decoder(standard, embedding[-1])
        return structure_loss(model, structure, frames, uses_dihedrals)


class DecoderObjective(nn.Module):
    """Train the decoder on latents of the frozen encoder."""

    def __init__(self, model: GLDP):
        super().__init__()
        self.model = model

    def trainable(self) -> list[nn.Parameter]:
        """Return what the optimiser moves."""
        return list(self.model.decoder.parameters())

    def train(self, mode: bool = True) -> DecoderObjective:
        """Switch the decoder; the encoder stays in evaluation mode."""
        super().train(mode)
        self.model.encoder.eval()
        return self

    def forward(self, frames: Tensor, latent: Tensor, noise: Tensor, uses_dihedrals: bool) -> Tensor:
        """Return the loss of frames (batch, n_atoms, 3) [nm] with their latent and noise, (batch, n_latent) each."""
        if self.training:
            latent = latent + self.model.config.latent_noise * noise
        return structure_loss(self.model, self.model.decode_superposed(latent), frames, uses_dihedrals)
