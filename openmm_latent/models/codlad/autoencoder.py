"""CODLAD's autoencoder: heavy atoms to three numbers a residue, those to a code, and back on a Cα trace.

| call | in -> out |
|---|---|
| `encode(protein, positions)` | (b, n, 15, 3) [nm] -> (b, n, 3), invariant to rotation and translation |
| `quantise(latent)` | (b, n, 3) -> codes (b, n, 3), their numbers (b, n), commitment loss |
| `decode(protein, quantised, trace)` | (b, n, 3), (b, n, 3) [nm] -> internal coordinates, (b, n, 15, 3) [nm] |
| `bind(protein)` | a `BoundDecoder`: decode alone, for one protein, to be exported |

b frames of one protein of n residues; slots of atoms are those of `openmm_latent.nn.residue_geometry`. Encoding runs
eagerly, since its graphs come from k-d trees; what a bundle needs, `BoundDecoder` and `Codebook`, is TorchScript's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openmm_latent.errors import require
from openmm_latent.models.codlad.config import CODLADConfig
from openmm_latent.models.codlad.decoder import BoundDecoder, TraceDecoder
from openmm_latent.models.codlad.encoder import AtomGraphs, Encoder
from openmm_latent.models.codlad.graphs import Protein
from openmm_latent.models.codlad.quantiser import VectorQuantiser
from openmm_latent.nn.residue_geometry import UNKNOWN


class Autoencoder(nn.Module):
    """Encoder, quantiser and decoder, of any protein.

    Parameters
    ----------
    config : CODLADConfig

    Attributes
    ----------
    latent_mean, latent_std : Tensor
        (21, n_latent) of quantised latents of each kind of residue over the training data, set when training ends: what
        diffusion standardises by. Kinds lie apart, and what matters is where a residue lies within its own.
    known_codes : Tensor of bool
        (21, n_codes) which codes each kind had in the training data: a sample takes one of these

    Source: CODLAD, stage a.
    DISCREPANCY(CODLAD, codes): the paper snaps a sample to any code, and says nothing of how latents are standardised.
    """

    def __init__(self, config: CODLADConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantiser = VectorQuantiser(
            config.n_codes, config.n_latent, config.code_decay, config.commitment, config.dead_after
        )
        self.decoder = TraceDecoder(config)
        self.register_buffer("latent_mean", torch.zeros(UNKNOWN + 1, config.n_latent))
        self.register_buffer("latent_std", torch.ones(UNKNOWN + 1, config.n_latent))
        self.register_buffer("known_codes", torch.ones(UNKNOWN + 1, config.n_codes, dtype=torch.bool))

    def encode(self, protein: Protein, positions: Tensor, graphs: AtomGraphs | None = None) -> Tensor:
        """Return latents before quantisation.

        Parameters
        ----------
        protein : Protein
        positions : Tensor
            (batch, n_residues, 15, 3) [nm], anywhere; slots without atom are not read
        graphs : AtomGraphs, optional
            Of these positions, where they are known already.

        Returns
        -------
        Tensor
            (batch, n_residues, n_latent)
        """
        n_residues = len(protein.types)
        require(
            positions.ndim == 4 and positions.shape[1:] == (n_residues, 15, 3),
            f"positions must have shape (batch, n_residues={n_residues}, 15, 3) [nm], got {tuple(positions.shape)}; "
            f"were they put into slots for another protein?",
        )
        return self.encoder(protein, positions, graphs)

    def quantise(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return codes (b, n, n_latent), their numbers (b, n) and the commitment loss; see `VectorQuantiser`."""
        return self.quantiser(latent)

    def decode(self, protein: Protein, quantised: Tensor, trace: Tensor) -> tuple[Tensor, Tensor]:
        """Return internal coordinates (b, n, 14, 3) and positions (b, n, 15, 3) [nm]; see `BoundDecoder`."""
        return self.bind(protein)(quantised, trace)

    def bind(self, protein: Protein) -> BoundDecoder:
        """Return the decoder for one protein; it shares weights with this one."""
        return BoundDecoder(self.decoder, protein)
