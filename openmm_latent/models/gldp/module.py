"""GLDP as the exported contract sees it: encode, propagate, decode, slow."""

from __future__ import annotations

import math
from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.errors import require
from openmm_latent.geometry import torsion_quadruples
from openmm_latent.model import ExplicitLatentModule
from openmm_latent.models.gldp.autoencoder import Decoder, Encoder, Pooling, SingleFrameEncoder
from openmm_latent.models.gldp.config import GLDPConfig
from openmm_latent.nn.superposition import Superposition
from openmm_latent.nn.torsions import torsion_features

TORSION_KINDS = ("phi", "psi", "omega", "chi1", "chi2", "chi3", "chi4")


class Persistence(nn.Module):
    """The propagator of a model that has none yet: the latent stays."""

    n_noise = 0

    def forward(self, latent: Tensor, noise: Tensor) -> Tensor:
        """Return (batch, n_latent) as it came."""
        return latent


class Absent(nn.Module):
    """Stands where a part is not there yet; it is never called."""

    def forward(self, anything: Tensor) -> Tensor:
        """Return what came."""
        return anything


class GLDP(ExplicitLatentModule):
    """Graph autoencoder, propagator in its standardised latent space, slow coordinates and proposals on them.

    What the contract calls the latent is the autoencoder's, `n_learned` wide, and behind it, where the slow coordinates
    are made of them, cosines and then sines of torsion angles. Decoder and propagator see the first part alone.

    Parameters
    ----------
    config : GLDPConfig
    atoms : list of AtomRecord
        Model atoms, in order.
    reference : ndarray
        (n_atoms, 3) [nm], the structure on which frames are superposed and from which the graph is made.

    Raises
    ------
    LatentError
        `reference` has another shape, holds NaN, or its atoms lie on one line.

    Source: GLDP, ICLR 2026 (openreview AwowReRWXI), on LD-FPG (arXiv 2506.17064).
    """

    __constants__ = ("is_folded", "n_learned", "n_slow_torsions", "uses_angles")

    def __init__(self, config: GLDPConfig, atoms: list, reference: np.ndarray):
        super().__init__()
        reference = np.array(reference, dtype=np.float64)
        _check_reference(reference, len(atoms))
        reference -= reference.mean(axis=0)
        self.config = config
        self.encoder = Encoder(reference, config)
        self.pooling = Pooling(atoms, config)
        self.decoder = Decoder(self.pooling, config)
        self.propagator: nn.Module = Persistence()
        self.proposal: nn.Module = Absent()
        self.superposition = Superposition()
        self.single_frame_encoder: nn.Module = Absent()
        self.is_folded = False
        self.n_atoms = len(atoms)
        self.n_learned = self.n_latent = self.pooling.n_latent
        self.n_slow = self.n_slow_torsions = 0
        self.uses_angles = False
        self.n_propagate_noise = 0
        self.n_decode_noise = 0
        self.n_propose_noise = 0
        quadruples = [torsion_quadruples(atoms, kind) for kind in TORSION_KINDS]
        self.register_buffer("torsions", torch.tensor(np.concatenate(quadruples)))
        self.n_backbone_torsions = len(quadruples[0]) + len(quadruples[1])  # the first ones: phi and psi
        self.register_buffer("reference", torch.tensor(reference))  # float64
        self.register_buffer("reference_embedding", torch.zeros(self.n_atoms, config.encoder_width))
        self.register_buffer("mean_structure", torch.tensor(reference, dtype=torch.float32))
        self.register_buffer("displacement_scale", torch.ones(()))
        self.register_buffer("latent_mean", torch.zeros(self.n_learned))
        self.register_buffer("latent_scale", torch.ones(self.n_learned))
        self.register_buffer("slow_torsions", self.torsions[:0])  # those that lie behind the learned latent
        self.register_buffer("slow_offset", torch.zeros(0))
        self.register_buffer("slow_matrix", torch.zeros(0, self.n_learned))
        self.register_buffer("proposal_weights", torch.zeros(0))

    def jump(
        self,
        positions: Tensor,
        state: List[Tensor],  # noqa: UP006
        noise: Tensor,
    ) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Encode, propagate, decode: as the base class does it, without the torsions, which decoding does not read."""
        learned = self.encode_superposed(self.superposition(positions, self.reference)[0].to(torch.float32))
        return self.decode(self.propagator(learned, noise), positions, noise), state

    def encode(self, positions: Tensor) -> Tensor:
        """Return the latent, (batch, n_latent), of frames at any place and orientation."""
        superposed = self.superposition(positions, self.reference)[0].to(torch.float32)
        return self.with_torsions(self.encode_superposed(superposed), positions)

    def with_torsions(self, learned: Tensor, positions: Tensor) -> Tensor:
        """Put the torsions of a structure behind its learned latent, where slow coordinates need them."""
        if self.n_slow_torsions > 0:
            return torch.cat([learned, torsion_features(positions, self.slow_torsions)], dim=1)
        return learned

    def encode_superposed(self, superposed: Tensor) -> Tensor:
        """Return the standardised learned latent of frames that lie on the reference, (batch, n_atoms, 3) [nm]."""
        if self.is_folded and superposed.shape[0] == 1:
            return self.single_frame_encoder(superposed)
        return (self.pooling(self.encoder(superposed)) - self.latent_mean) / self.latent_scale

    def decode(self, latent: Tensor, positions: Tensor, noise: Tensor) -> Tensor:
        """Return the latent's structure placed on the current frame: (batch, n_atoms, 3) [nm]."""
        _, rotation, centre = self.superposition(positions, self.reference)
        structure = self.decode_superposed(latent).to(torch.float64)
        placed = torch.matmul(structure, rotation.transpose(1, 2)) + centre
        return placed.to(torch.float32)

    def decode_superposed(self, latent: Tensor) -> Tensor:
        """Return the latent's structure as it lies on the reference: (batch, n_atoms, 3) [nm]."""
        learned = latent[:, : self.n_learned]
        return self.mean_structure + self.displacement_scale * self.decoder(learned, self.reference_embedding)

    def propagate(
        self,
        latent: Tensor,
        state: List[Tensor],  # noqa: UP006
        noise: Tensor,
    ) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Move the latent by one lag time; its torsions become those of the structure it then decodes to."""
        learned = self.propagator(latent[:, : self.n_learned], noise)
        if self.n_slow_torsions > 0:
            return self.with_torsions(learned, self.decode_superposed(learned)), state
        return learned, state

    def slow(self, latent: Tensor) -> Tensor:
        """Return the slow coordinates, (batch, n_slow): linear in a part of the latent, of unit variance; or [rad]."""
        part = latent[:, self.n_learned :] if self.n_slow_torsions > 0 else latent
        if self.uses_angles:
            cosines, sines = part[:, : self.n_slow_torsions], part[:, self.n_slow_torsions :]
            return torch.atan2(sines, cosines)
        return nn.functional.linear(part, self.slow_matrix, self.slow_offset)

    def slow_periods(self) -> list[float]:
        """Return a whole turn for angles, 0.0 for coordinates that are none."""
        return [2.0 * math.pi if self.uses_angles else 0.0] * self.n_slow

    def propose(self, slow: Tensor, noise: Tensor) -> Tensor:
        """Draw where to go from slow coordinates (batch, n_slow); noise is (batch, n_propose_noise)."""
        return self.proposal.propose(slow, noise, self.proposal_weights)

    def log_density(self, to: Tensor, start: Tensor) -> Tensor:
        """Return the logarithm of the density with which `propose` goes from start to to, (batch, n_slow) each."""
        return self.proposal.log_density(to, start, self.proposal_weights)

    def proposal_names(self) -> list[str]:
        """Return the names of the proposal kernels."""
        return list(self.proposal.names) if self.n_propose_noise > 0 else []

    def train(self, mode: bool = True) -> GLDP:
        """Switch; weights that may change are not folded."""
        if mode:
            self.is_folded = False
        return super().train(mode)

    def fold(self) -> None:
        """Multiply the trained encoder's constants together, for the speed of single frames; small graphs only.

        Once in evaluation mode with its last weights; `train()` undoes it.
        """
        require(not self.training, "a model is folded in evaluation mode; call eval() first")
        if self.encoder.last.basis.uses_dense:
            self.single_frame_encoder = SingleFrameEncoder(
                self.encoder, self.pooling, self.latent_mean, self.latent_scale
            )
            self.is_folded = True

    def set_structure_statistics(self, superposed: Tensor) -> None:
        """Take mean and displacement scale of training frames (n_frames, n_atoms, 3) [nm] for the decoder."""
        mean = superposed.double().mean(dim=0)
        scale = (superposed.double() - mean).pow(2).mean().sqrt().clamp(min=1e-6)
        self.mean_structure.copy_(mean)
        self.displacement_scale.copy_(scale)

    def set_reference_embedding(self) -> None:
        """Freeze what the decoder knows of each atom: the encoder's embedding of the reference."""
        with torch.no_grad():
            self.reference_embedding.copy_(self.encoder(self.reference.float().unsqueeze(0))[0])

    def set_latent_statistics(self, mean: Tensor, scale: Tensor) -> None:
        """Set what standardises the learned latent, in raw latent units: (n_learned,) each."""
        self.latent_mean.copy_(mean)
        self.latent_scale.copy_(scale)

    def set_propagator(self, propagator: nn.Module) -> None:
        """Put a propagator in; it works in the standardised latent space."""
        self.propagator = propagator
        self.n_propagate_noise = int(propagator.n_noise)

    def set_slow(self, mean: np.ndarray, matrix: np.ndarray, uses_torsions: bool = False) -> None:
        """Set the slow coordinates (features - mean) @ matrix.T: (n_features,) and (n_slow, n_features).

        The features are the learned latent, or cosines and sines of all torsions.
        """
        n_features = 2 * len(self.torsions) if uses_torsions else self.n_learned
        require(
            matrix.ndim == 2 and matrix.shape[1] == n_features,
            f"matrix must have shape (n_slow, n_features={n_features}), got {matrix.shape}",
        )
        offset = -np.asarray(matrix, dtype=np.float64) @ np.asarray(mean, dtype=np.float64)
        self._set_slow(self.torsions if uses_torsions else self.torsions[:0], matrix, offset, uses_angles=False)

    def set_slow_angles(self, torsions: np.ndarray) -> None:
        """Let torsion angles be the slow coordinates: (n_slow,) indices of the model's torsions.

        In radians, whatever their spread in the data: that of an angle with several basins says nothing of how stiff a
        restraint may pull within one.
        """
        self._set_slow(self.torsions[torsions], np.ones((len(torsions), 1)), np.zeros(len(torsions)), uses_angles=True)

    def _set_slow(self, torsions: Tensor, matrix: np.ndarray, offset: np.ndarray, uses_angles: bool) -> None:
        device = self.latent_mean.device
        self.slow_torsions = torsions
        self.slow_offset = torch.tensor(offset, dtype=torch.float32, device=device)
        self.slow_matrix = torch.tensor(matrix, dtype=torch.float32, device=device)
        self.uses_angles = uses_angles
        self.n_slow_torsions = len(torsions)
        self.n_latent = self.n_learned + 2 * len(torsions)
        self.n_slow = len(matrix)

    def set_proposal(self, proposal: nn.Module) -> None:
        """Put proposal kernels on the slow coordinates in, all with the same share."""
        require(
            proposal.n_slow == self.n_slow,
            f"proposal must be on n_slow={self.n_slow} slow coordinates, got {proposal.n_slow}; fit it on theirs",
        )
        self.proposal = proposal
        self.n_propose_noise = int(proposal.n_noise)
        n_kernels = len(proposal.names)
        self.proposal_weights = torch.full((n_kernels,), 1.0 / n_kernels, device=self.latent_mean.device)


def _check_reference(reference: np.ndarray, n_atoms: int) -> None:
    require(
        reference.shape == (n_atoms, 3),
        f"reference must have shape (n_atoms={n_atoms}, 3) [nm], got {reference.shape}; give the model atoms alone",
    )
    require(bool(np.isfinite(reference).all()), "reference must be finite, got NaN or infinite positions [nm]")
    spread = np.linalg.svd(reference - reference.mean(axis=0), compute_uv=False)
    require(
        n_atoms >= 3 and spread[1] > 1e-3,
        f"reference needs at least 3 atoms that do not lie on one line to define an orientation, got {n_atoms}; "
        "choose more model atoms",
    )
