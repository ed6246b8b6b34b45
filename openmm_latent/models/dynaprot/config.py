"""What a DynaProt network is made of and how it is trained: one frozen dataclass and its named values."""

from __future__ import annotations

from dataclasses import dataclass

from openmm_latent.errors import require

LOSSES = ("log_frobenius", "mse")


@dataclass(frozen=True)
class DynaProtConfig:
    """Sizes and training of the marginal and the pair network, which have a backbone of this shape each.

    Source: DynaProt; its published values are those of `CONFIGS["paper"]`.
    """

    # backbone: invariant point attention on residues
    width: int = 64  # features a residue
    n_layers: int = 3
    n_heads: int = 4
    n_scalar: int = 16  # dimensions of queries, keys and values a head
    n_query_points: int = 4
    n_value_points: int = 4
    transition_factor: int = 2  # two-layer network after each attention, so many times as wide; 0 is none, as published
    uses_surroundings: bool = True  # further inputs: crowding, ends of chains, distances and separations of pairs

    uses_elastic_network: bool = True  # predict what an elastic network gets wrong, instead of all

    # pair network
    pair_width: int = 16
    n_pair_blocks: int = 1
    n_triangle_heads: int = 2
    triangle_head_width: int = 8
    pair_transition_factor: int = 2
    n_pair_layers: int = 2  # hidden layers of the network that reads a pair out

    dropout: float = 0.2
    initial_scale_angstrom: float = 0.6  # one coordinate's fluctuation before anything is learned

    # training
    n_steps: int = 150  # of each network
    batch_size: int = 4  # proteins
    learning_rate: float = 5e-4  # of the marginal network: AdamW, peak of a rise and a fall by half a cosine
    pair_learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    gradient_clip: float = 1.0
    position_noise: float = 0.01  # [nm] added to Cα in training, and as much to the frames [rad / 0.1 nm]
    validate_every: int = 25  # steps
    patience: int = 8  # validations without a better loss before it stops

    def __post_init__(self) -> None:
        """Refuse values that cannot work, each with its sentence."""
        sizes = "width n_layers n_heads n_scalar n_query_points n_value_points pair_width n_triangle_heads"
        counts = "triangle_head_width pair_transition_factor n_pair_layers n_steps batch_size validate_every patience"
        for name in f"{sizes} {counts}".split():
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("transition_factor", "n_pair_blocks", "weight_decay", "position_noise"):
            require(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("initial_scale_angstrom", "learning_rate", "pair_learning_rate", "gradient_clip"):
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        require(0.0 <= self.dropout < 1.0, f"dropout must lie between 0 and 1, got {self.dropout}; 0.2 is usual")


#: `tiny` trains in a minute on one core; `paper` has the published sizes.
CONFIGS: dict[str, DynaProtConfig] = {
    "tiny": DynaProtConfig(),
    "paper": DynaProtConfig(
        width=128,
        n_layers=8,
        n_heads=8,
        transition_factor=0,
        uses_surroundings=False,
        uses_elastic_network=False,
        pair_width=128,
        n_triangle_heads=4,
        n_pair_blocks=2,
        triangle_head_width=16,
        pair_transition_factor=4,
        n_pair_layers=4,
        n_steps=200_000,
        batch_size=1,
        learning_rate=1e-4,
        pair_learning_rate=1e-4,
        weight_decay=1e-5,
        position_noise=0.0,
        validate_every=1000,
        patience=20,
    ),
}
