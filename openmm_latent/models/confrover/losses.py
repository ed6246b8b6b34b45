"""What ConfRover is taught: rotations and positions by denoising score matching, torsions, near backbone distances."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openmm_latent.diffusion.rotations import RotationDiffusion
from openmm_latent.diffusion.translations import TranslationDiffusion, centred
from openmm_latent.models.confrover.config import ConfRoverConfig
from openmm_latent.nn.frame_coordinates import FrameCoordinates, residue_frames
from openmm_latent.nn.residue_geometry import Residues, residue_tables

#: Distances of backbone atoms count below this in the clean frame [nm], and at diffusion times below this.
_NEAR, _LATE = 0.6, 0.25


@dataclass(frozen=True)
class CleanFrames:
    """Frames of one protein as the network sees and predicts them.

    Attributes
    ----------
    rotations : Tensor
        (..., n_residues, 3, 3), columns are the axes
    ca : Tensor
        (..., n_residues, 3) [nm], centred
    torsions : Tensor
        (..., n_residues, 7) [rad]
    """

    rotations: Tensor
    ca: Tensor
    torsions: Tensor

    def __getitem__(self, chosen: slice | Tensor | tuple) -> CleanFrames:
        """Return some of the frames."""
        return CleanFrames(self.rotations[chosen], self.ca[chosen], self.torsions[chosen])

    def flat(self) -> CleanFrames:
        """Return frames of windows, (b, f, ...), as (b f, ...)."""
        return CleanFrames(self.rotations.flatten(0, 1), self.ca.flatten(0, 1), self.torsions.flatten(0, 1))

    def joined(self, others: CleanFrames) -> CleanFrames:
        """Return these frames and then others, (b, ...)."""
        pairs = ((self.rotations, others.rotations), (self.ca, others.ca), (self.torsions, others.torsions))
        return CleanFrames(*(torch.cat(pair) for pair in pairs))

    def repeated(self, count: int) -> CleanFrames:
        """Return each of (b, ...) frames `count` times, one after another."""
        parts = (part.repeat_interleave(count, dim=0) for part in (self.rotations, self.ca, self.torsions))
        return CleanFrames(*parts)


class FrameLoss(nn.Module):
    """The loss of one protein's frames.

    Parameters
    ----------
    config : ConfRoverConfig
    residues : Residues

    Source: ConfRover, equation 7 and table 6. DISCREPANCY(ConfRover, equation 7): weights in diffusion time and further
    terms are unpublished. Positions weigh as in Karras et al., arXiv 2206.00364, table 1, so that each time counts the
    same; scores of rotations are divided by their mean square, distances of near backbone atoms are added at late
    times, as in Yim et al., arXiv 2302.02277; torsions count by 1 - cos.
    """

    def __init__(self, config: ConfRoverConfig, residues: Residues):
        super().__init__()
        self.config = config
        self.translations = TranslationDiffusion(config.beta_first, config.beta_last)
        self.rotations = RotationDiffusion(config.sigma_first, config.sigma_last)
        self.coordinates = FrameCoordinates(residues)
        is_half_turn = torch.zeros(len(residues), 7, dtype=torch.bool)
        is_half_turn[:, 3:] = torch.as_tensor(residue_tables().is_half_turn[residues.types])
        self.register_buffer("is_half_turn", is_half_turn)
        self.register_buffer("whole", torch.ones(len(residues), dtype=torch.bool))

    @torch.no_grad()
    def clean(self, positions: Tensor) -> CleanFrames:
        """Measure frames in slots: (..., n_residues, 15, 3) [nm]."""
        flat = positions.reshape(-1, *positions.shape[-3:])
        rotations, ca = residue_frames(flat)
        found = CleanFrames(rotations, ca - ca.mean(dim=1, keepdim=True), self.coordinates.torsions(flat))
        lead = positions.shape[:-3]
        return CleanFrames(*(part.view(*lead, *part.shape[1:]) for part in (found.rotations, found.ca, found.torsions)))

    def noised(self, clean: CleanFrames, normals: Tensor, diffusion_time: Tensor) -> tuple[Tensor, Tensor]:
        """Return noisy rotations (b, n, 3, 3) and positions (b, n, 3) [nm]: (b, n, ...), (b, n, 6), (b,)."""
        moves = centred(normals[..., :3], self.whole.expand(len(normals), -1))
        rotations = self.rotations.noised(clean.rotations, normals[..., 3:], diffusion_time)
        return rotations, self.translations.noised(clean.ca, moves, diffusion_time)

    def forward(
        self,
        predicted: tuple[Tensor, Tensor, Tensor],
        clean: CleanFrames,
        noisy_rotations: Tensor,
        diffusion_time: Tensor,
    ) -> dict[str, Tensor]:
        """Return the terms, unweighted, (b,) each.

        Parameters
        ----------
        predicted : tuple of Tensor
            Clean rotations (b, n, 3, 3), positions (b, n, 3) [nm], sines and cosines of torsions (b, n, 7, 2).
        clean : CleanFrames
            (b, n, ...)
        noisy_rotations : Tensor
            (b, n, 3, 3)
        diffusion_time : Tensor
            (b,)

        Returns
        -------
        dict: position, rotation, torsion, contact
        """
        rotations, ca, sines = predicted
        weight = self._position_weight(diffusion_time)
        position = weight * (ca - clean.ca).square().mean(dim=(1, 2))
        wanted = self.rotations.score(noisy_rotations, clean.rotations, diffusion_time)
        found = self.rotations.score(noisy_rotations, rotations, diffusion_time)
        square = self.rotations.mean_square_score(diffusion_time)
        rotation = ((found - wanted).square().sum(dim=-1).mean(dim=-1) / square).to(ca.dtype)
        contact = weight * self._contacts(rotations, ca, clean) * (diffusion_time < _LATE)
        return {
            "position": position,
            "rotation": rotation,
            "torsion": self._torsions(sines, clean.torsions),
            "contact": contact,
        }

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum, (b,)."""
        config = self.config
        rotation, torsion = config.rotation_weight * terms["rotation"], config.torsion_weight * terms["torsion"]
        return terms["position"] + rotation + torsion + config.contact_weight * terms["contact"]

    def _position_weight(self, diffusion_time: Tensor) -> Tensor:
        """Return one over the variance that noise leaves open about a Gaussian as wide as positions are, [nm^-2]."""
        signal = self.translations.signal(diffusion_time)
        noise = (1.0 - signal) / signal
        return (1.0 / noise + 1.0 / self.config.position_scale**2).float()

    def _torsions(self, sines: Tensor, torsions: Tensor) -> Tensor:
        """Return 1 - cos of the error, of a torsion that means the same half a turn on its absolute value: (b,)."""
        cosine = sines[..., 0] * torch.sin(torsions) + sines[..., 1] * torch.cos(torsions)
        cosine = torch.where(self.is_half_turn, cosine.abs(), cosine)
        counts = self.coordinates.has_torsion.to(cosine.dtype)
        return ((1.0 - cosine) * counts).sum(dim=(1, 2)) / counts.sum().clamp(min=1.0)

    def _contacts(self, rotations: Tensor, ca: Tensor, clean: CleanFrames) -> Tensor:
        """Return the mean square error of distances between N, CA and C of different residues, near ones: (b,)."""
        found, wanted = self._backbone(rotations, ca), self._backbone(clean.rotations, clean.ca)
        distances = torch.cdist(wanted, wanted)
        residue = torch.arange(wanted.shape[1], device=ca.device) // 3
        is_near = (distances < _NEAR) & (residue.unsqueeze(0) != residue.unsqueeze(1))
        places = is_near.nonzero()  # a pair each: frame, atom, atom
        frame, first, second = places[:, 0], places[:, 1], places[:, 2]
        length = (found[frame, first] - found[frame, second]).square().sum(dim=-1).clamp(min=1e-12).sqrt()
        error = (length - distances[frame, first, second]).square()
        sums = torch.zeros(len(ca), dtype=ca.dtype, device=ca.device).index_add(0, frame, error)
        return sums / is_near.sum(dim=(1, 2)).clamp(min=1)

    def _backbone(self, rotations: Tensor, ca: Tensor) -> Tensor:
        """Return N, CA and C of frames, of ideal geometry: (b, 3 n, 3) [nm]."""
        atoms = torch.matmul(self.coordinates.local, rotations.transpose(2, 3)) + ca.unsqueeze(2)
        return atoms.flatten(1, 2)
