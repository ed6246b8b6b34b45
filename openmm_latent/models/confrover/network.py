"""ConfRover's network: the protein, its frames, their order in time, and the decoder of one frame.

| part | what it does |
|---|---|
| `SequenceEmbedding` | what no frame changes |
| `FrameEncoder` | each frame by itself |
| `TrajectoryModule` | each frame after those before |
| `Decoder` | one step of the diffusion of the next frame |
"""

from __future__ import annotations

from typing import Optional, Tuple  # noqa: UP035  TorchScript reads these annotations

from torch import Tensor, nn

from openmm_latent.errors import require
from openmm_latent.models.confrover.config import ConfRoverConfig
from openmm_latent.models.confrover.decoder import Decoder, DecoderBlock
from openmm_latent.models.confrover.encoder import FrameEncoder, SequenceEmbedding
from openmm_latent.models.confrover.trajectory import TrajectoryModule
from openmm_latent.nn.pair_blocks import PairBlock
from openmm_latent.nn.pairformer import PairformerBlock
from openmm_latent.nn.rotary import TemporalLayer

#: What `openmm_latent.nn.recomputing.recompute` should be told of, where windows are too large for the memory.
PARTS = (PairBlock, PairformerBlock, TemporalLayer, DecoderBlock)


class ConfRover(nn.Module):
    """Windows of frames of one protein in, clean predictions of noisy frames out.

    Parameters
    ----------
    config : ConfRoverConfig

    Source: ConfRover (seed paper), figure 3.
    """

    def __init__(self, config: ConfRoverConfig):
        super().__init__()
        self.config = config
        self.sequence = SequenceEmbedding(config)
        self.encoder = FrameEncoder(config)
        self.trajectory_module = TrajectoryModule(config)
        self.decoder = Decoder(config)

    def embed(
        self,
        types: Tensor,
        chains: Tensor,
        features: Optional[Tuple[Tensor, Tensor]] = None,  # noqa: UP006, UP045
    ) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Return the protein's features, (n, width) and (n, n, width); see `SequenceEmbedding`.

        Raises
        ------
        LatentError
            The configuration has precomputed features and none came, or the other way, or they have other shapes.
        """
        n, config = len(types), self.config
        wanted = ((n, config.n_feature_single), (n, n, config.n_feature_pair))
        needs = config.embedding == "features"
        found = None if features is None else tuple(tuple(part.shape) for part in features)
        require(
            found == (wanted if needs else None),
            f"features must be {'of shapes ' + str(wanted) if needs else 'left out'} with embedding="
            f"{config.embedding!r}, got {'none' if found is None else found}; read them by read_features, or choose a "
            f"configuration that fits",
        )
        return self.sequence(types, chains, features)

    def encode_frames(
        self,
        sequence_single: Tensor,
        sequence_pair: Tensor,
        rotations: Tensor,
        ca: Tensor,
        torsions: Tensor,
        is_masked: Tensor,
    ) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Encode windows of frames, each frame by itself.

        Parameters
        ----------
        sequence_single, sequence_pair : Tensor
            (n, width), (n, n, width)
        rotations : Tensor
            (b, f, n, 3, 3), columns are the axes
        ca : Tensor
            (b, f, n, 3) [nm]
        torsions : Tensor
            (b, f, n, 7) [rad]
        is_masked : Tensor of bool
            (b, f)

        Returns
        -------
        single : Tensor
            (b, f, n, width)
        pair : Tensor
            (b, f, n, n, width)
        """
        n_batch, n_frames = is_masked.shape[0], is_masked.shape[1]
        single, pair = self.encoder(
            sequence_single,
            sequence_pair,
            rotations.flatten(0, 1),
            ca.flatten(0, 1),
            torsions.flatten(0, 1),
            is_masked.flatten(),
        )
        return single.unflatten(0, [n_batch, n_frames]), pair.unflatten(0, [n_batch, n_frames])

    def trajectory(
        self, single: Tensor, pair: Tensor, frame_times: Tensor, gaps: Tensor, is_masked: Tensor
    ) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Let frames see one another; see `TrajectoryModule.forward`."""
        return self.trajectory_module(single, pair, frame_times, gaps, is_masked)

    def context(
        self,
        sequence_single: Tensor,
        sequence_pair: Tensor,
        rotations: Tensor,
        ca: Tensor,
        torsions: Tensor,
        frame_times: Tensor,
        gaps: Tensor,
        is_masked: Tensor,
    ) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Encode windows and let frames see one another: what the decoder is told of each frame that is predicted."""
        single, pair = self.encode_frames(sequence_single, sequence_pair, rotations, ca, torsions, is_masked)
        return self.trajectory(single, pair, frame_times, gaps, is_masked)

    def denoise(
        self,
        single: Tensor,
        pair: Tensor,
        sequence_single: Tensor,
        sequence_pair: Tensor,
        noisy_rotations: Tensor,
        noisy_ca: Tensor,
        diffusion_time: Tensor,
    ) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
        """Predict clean frames, (b, n, 3, 3) and (b, n, 3) [nm], and torsions, (b, n, 7, 2); see `Decoder.forward`."""
        return self.decoder(single, pair, sequence_single, sequence_pair, noisy_rotations, noisy_ca, diffusion_time)
