"""What a GLDP model is made of and how it is trained: one frozen dataclass and its named values."""

from __future__ import annotations

from dataclasses import dataclass, replace

from openmm_latent.errors import require

POOLINGS = ("blind", "residue", "sequential")
DECODERS = ("per_atom", "modulated")
ACTIVATIONS = ("relu", "silu")
ENCODER_TARGETS = ("linear", "structure")


@dataclass(frozen=True)
class GLDPConfig:
    """Sizes and training of the autoencoder; the propagators have configurations of their own.

    Source: GLDP and LD-FPG; the values of their public code are those of `CONFIGS["paper"]`.
    """

    # graph and encoder
    n_neighbours: int = 4  # nearest neighbours in the reference structure
    n_terms: int = 4  # Chebyshev terms a convolution (the papers' K)
    encoder_width: int = 16  # features an atom (the papers' h)
    activation: str = "silu"  # "relu": leaky, leaky, ReLU as published; "silu": smooth, so that slow coordinates are

    # pooling
    pooling: str = "blind"  # "blind", "residue" or "sequential"
    pool_rows: int = 24  # windows of atoms (blind), of backbone atoms (sequential); residue pooling has one a residue
    pool_rows_side_chain: int = 24  # windows of side-chain atoms (sequential)
    pool_columns: int = 2  # windows of features
    rows_per_atom: float = 0.6  # at most so many windows an atom: small molecules get a compact latent

    # decoder
    decoder: str = "modulated"  # "per_atom" as published; "modulated": a trunk on the latent, then two layers an atom
    decoder_width: int = 64
    decoder_layers: int = 3  # linear layers (per atom), or of the trunk, twice as wide (modulated)
    decoder_layers_backbone: int = 3  # the backbone decoder of sequential pooling
    uses_decoder_batch_norm: bool = False

    # training: first the encoder, then the decoder on the frozen encoder's latents
    encoder_target: str = "structure"  # "linear": a linear head to coordinates, as published; "structure": the decoder
    encoder_steps: int = 3000
    decoder_steps: int = 2500
    batch_size: int = 256
    encoder_rate: float = 5e-3  # Adam, peak of a one-cycle schedule
    decoder_rate: float = 2e-3
    latent_noise: float = 0.05  # added to standardised latents in training: near latents decode to near structures
    torsion_weight: float = 10.0  # of 1 - cos; the coordinate error is in units of the data's variance
    histogram_weight: float = 0.1  # of the soft histogram divergence
    histogram_bins: int = 36
    histogram_concentration: float = 100.0  # von Mises kernel, about 6 degrees
    dihedral_fraction: float = 1.0  # share of batches that carry the dihedral terms
    validation_fraction: float = 0.1  # last part of every training segment, for early stopping
    patience: int = 8  # validations without a better loss before it stops
    validate_every: int = 250  # steps; a checkpoint is written as often

    def __post_init__(self) -> None:
        """Refuse values that cannot work, each with its sentence."""
        words = {"pooling": POOLINGS, "decoder": DECODERS, "activation": ACTIVATIONS, "encoder_target": ENCODER_TARGETS}
        for name, allowed in words.items():
            value = getattr(self, name)
            require(value in allowed, f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        sizes = "n_neighbours n_terms encoder_width pool_rows pool_rows_side_chain pool_columns decoder_width"
        counts = "batch_size encoder_steps decoder_steps validate_every patience histogram_bins"
        for name in f"{sizes} {counts}".split():
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        require(
            self.pool_columns <= self.encoder_width,
            f"pool_columns must not exceed encoder_width={self.encoder_width}, got {self.pool_columns}",
        )
        require(
            0.0 < self.validation_fraction < 1.0,
            f"validation_fraction must lie between 0 and 1, got {self.validation_fraction}; 0.1 is usual",
        )

    def with_pooling(self, pooling: str) -> GLDPConfig:
        """Return this configuration with another pooling, at LD-FPG's window sizes for it."""
        if pooling == "blind":
            return replace(self, pooling=pooling)
        # LD-FPG: 1 x 3 a residue; 22 x 3 backbone and 24 x 3 side chain; h = 4 for both
        width = min(self.encoder_width, 4) if self.encoder_target == "linear" else self.encoder_width
        return replace(
            self, pooling=pooling, pool_columns=3, pool_rows=22, pool_rows_side_chain=24, encoder_width=width
        )


#: `tiny` trains in a minute on one core; `paper` has the published sizes (blind pooling, 50 x 2).
CONFIGS: dict[str, GLDPConfig] = {
    "tiny": GLDPConfig(),
    "paper": GLDPConfig(
        encoder_width=8,
        activation="relu",
        pool_rows=50,
        decoder="per_atom",
        decoder_width=128,
        decoder_layers=12,
        uses_decoder_batch_norm=True,
        encoder_target="linear",
        # the paper: 4000 epochs of the encoder; of some 10 000 frames
        encoder_steps=2_500_000,
        decoder_steps=500_000,
        batch_size=16,
        encoder_rate=1e-4,
        decoder_rate=3e-4,
        latent_noise=0.0,
        torsion_weight=1.0,
        dihedral_fraction=0.1,
        patience=20,
        validate_every=2000,
    ),
}
