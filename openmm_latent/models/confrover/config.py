"""What a ConfRover model is made of and how it is trained: one frozen dataclass and its named values."""

from __future__ import annotations

from dataclasses import dataclass

from openmm_latent.errors import require

#: Where a protein's own features come from: learned here, or computed before by a folding network.
EMBEDDINGS = ("learned", "features")


@dataclass(frozen=True)
class ConfRoverConfig:
    """Sizes, diffusion and training of encoder, trajectory module and decoder.

    Source: ConfRover, tables 5 to 7; its published values are those of `CONFIGS["paper"]`.
    DISCREPANCY(ConfRover, table 6): `tiny` goes on to a tenth of the published least time, and to a fifth of the least
    turn. What the network takes for clean at the last step is a mean, in which motions smaller than the noise that is
    left are lost: 0.045 nm and 0.13 rad as published, half of a small peptide's jitter; 0.01 nm and 0.02 rad here.
    DISCREPANCY(ConfRover, appendix D.1): unpublished are the frame encoder's sizes (AlphaFlow's here), the width of the
    embedding of types, and the network that reads torsions out; the values here are ours.
    """

    # the protein itself
    embedding: str = "learned"
    n_feature_single: int = 0  # features a residue from a folding network; for "features" alone
    n_feature_pair: int = 0  # the same for a pair
    type_width: int = 16  # of the embedding of residue types, and of that of places in the chain

    # frame encoder: distances of Cβ and triangular updates of pairs
    n_distance_bins: int = 24
    least_distance: float = 0.3  # [nm] first bin
    largest_distance: float = 2.5  # [nm] last bin
    uses_smooth_bins: bool = True  # overlapping Gaussians instead of bins with edges
    uses_orientations: bool = True  # also sees where residues point, and their torsions; else Cβ alone
    encoder_width: int = 24
    n_encoder_blocks: int = 1
    n_encoder_heads: int = 2
    encoder_head_width: int = 12
    encoder_transition_factor: int = 2

    # latent of a frame: one width for residues and pairs, as the layers over frames serve both
    width: int = 32

    # trajectory module: layers over frames, and a Pairformer before every so many of them
    is_causal: bool = True  # False is the masked variant, in which frames see those after them, too
    n_temporal_layers: int = 4
    temporal_hidden: int = 64
    n_temporal_heads: int = 4
    layers_per_pairformer: int = 2
    n_single_heads: int = 4
    n_triangle_heads: int = 2
    triangle_head_width: int = 16
    transition_factor: int = 2
    dropout: float = 0.0
    n_context: int = 7  # frames that a frame sees at most, itself included: the window of the memory, as in training
    time_unit: float = 10.0  # [ps] in which times between frames are told to the network
    rotary_base: float = 10_000.0  # the longest wavelength of rotary angles is about 6 of it, in time units

    # decoder: invariant point attention on noisy frames
    decoder_width: int = 64
    decoder_pair_width: int = 32
    n_decoder_blocks: int = 3
    n_decoder_heads: int = 4
    n_scalar: int = 16  # dimensions of queries, keys and values a head
    n_query_points: int = 4
    n_value_points: int = 4
    n_transformer_layers: int = 1
    n_transformer_heads: int = 4
    skip_width: int = 16  # of the block's first features, shown again to its transformer; 0 is none
    uses_preconditioning: bool = True  # scales updates and the noisy frame by the noise level

    # diffusion of translations (in nm, which is the paper's scale of 0.1 per Å) and of rotations
    beta_first: float = 0.1
    beta_last: float = 20.0
    sigma_first: float = 0.02  # [rad]
    sigma_last: float = 1.5  # [rad]
    least_diffusion_time: float = 0.001
    n_sampling_steps: int = 50
    position_scale: float = 0.6  # [nm] spread of one coordinate of Cα about their centre, for the preconditioning

    # training
    n_frames: int = 8  # of a window
    max_stride: int = 1024  # between frames of a window, in frame spacings
    n_windows: int = 2  # of one protein in a step of the trajectory and interpolation objectives
    n_singles: int = 16  # frames of one protein in a step of the single-frame objective
    n_draws: int = 2  # diffusion times at which each of them is shown
    n_steps: int = 4000
    learning_rate: float = 2e-3
    final_rate: float = 5e-5
    warm_up: int = 100  # steps
    gradient_clip: float = 1.0
    average: float = 0.998  # of the running mean of weights
    rotation_weight: float = 1.0  # of losses, beside 1 for positions
    torsion_weight: float = 0.5
    contact_weight: float = 0.25  # of distances between near backbone atoms, at the last diffusion times
    least_masked: float = 0.45  # share of masked frames of the masked variant, when training begins
    most_masked: float = 0.88  # and when it ends

    def __post_init__(self) -> None:
        """Refuse values that cannot work, each with its sentence."""
        counts = """
            type_width n_distance_bins encoder_width n_encoder_heads encoder_head_width encoder_transition_factor
            width n_temporal_layers temporal_hidden n_temporal_heads layers_per_pairformer n_single_heads
            n_triangle_heads triangle_head_width transition_factor n_context decoder_width decoder_pair_width
            n_decoder_blocks n_decoder_heads n_scalar n_query_points n_value_points n_transformer_heads n_sampling_steps
            max_stride n_windows n_singles n_draws n_steps
        """
        for name in counts.split():
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in "n_feature_single n_feature_pair n_encoder_blocks n_transformer_layers skip_width".split():
            require(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        positive = "least_distance time_unit rotary_base beta_first sigma_first least_diffusion_time position_scale"
        for name in positive.split():
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        require(
            self.embedding in EMBEDDINGS,
            f"embedding must be one of {', '.join(map(repr, EMBEDDINGS))}, got {self.embedding!r}",
        )
        require(
            (self.embedding == "features") == (self.n_feature_single > 0) == (self.n_feature_pair > 0),
            f"n_feature_single and n_feature_pair must be positive with embedding='features', and 0 otherwise, got "
            f"{self.n_feature_single} and {self.n_feature_pair} with {self.embedding!r}; give the widths of the file",
        )
        for low, high in (("least_distance", "largest_distance"), ("beta_first", "beta_last")):
            self._require_order(low, high)
        self._require_order("sigma_first", "sigma_last")
        heads = (self.n_temporal_heads, self.n_single_heads)
        require(
            self.width % (2 * self.n_temporal_heads) == 0 and self.width % self.n_single_heads == 0,
            f"width must be a multiple of twice n_temporal_heads and of n_single_heads, got {self.width} with {heads}",
        )
        require(
            (self.decoder_width + self.skip_width) % self.n_transformer_heads == 0,
            f"decoder_width + skip_width must be a multiple of n_transformer_heads={self.n_transformer_heads}, got "
            f"{self.decoder_width + self.skip_width}",
        )
        require(0.0 <= self.dropout < 1.0, f"dropout must lie between 0 and 1, got {self.dropout}; 0.25 is published")
        require(self.n_frames >= 2, f"n_frames must be at least 2, got {self.n_frames}; 8 is published")
        for name in "learning_rate final_rate gradient_clip".split():
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        require(0.0 <= self.average < 1.0, f"average must lie between 0 and 1, got {self.average}; 0.999 is usual")
        require(
            0.0 < self.least_masked <= self.most_masked < 1.0,
            f"least_masked and most_masked must rise between 0 and 1, got {self.least_masked} and {self.most_masked}",
        )
        require(
            self.least_diffusion_time < 1.0,
            f"least_diffusion_time must be less than 1, got {self.least_diffusion_time}; 0.01 is published",
        )

    def _require_order(self, low: str, high: str) -> None:
        require(
            getattr(self, low) < getattr(self, high),
            f"{low} must be less than {high}, got {getattr(self, low)} and {getattr(self, high)}",
        )


#: `tiny` learns on one core in minutes; `paper` has the published sizes.
CONFIGS: dict[str, ConfRoverConfig] = {
    "tiny": ConfRoverConfig(),
    "paper": ConfRoverConfig(
        embedding="features",
        n_feature_single=384,
        n_feature_pair=128,
        type_width=128,
        n_distance_bins=39,
        least_distance=0.325,
        largest_distance=5.075,
        uses_smooth_bins=False,
        uses_orientations=False,
        encoder_width=64,
        n_encoder_blocks=4,
        n_encoder_heads=4,
        encoder_head_width=16,
        width=128,
        n_temporal_layers=8,
        temporal_hidden=256,
        n_triangle_heads=4,
        triangle_head_width=32,
        transition_factor=4,
        dropout=0.25,
        n_context=8,
        decoder_width=256,
        decoder_pair_width=128,
        n_decoder_blocks=4,
        n_scalar=256,
        n_query_points=8,
        n_value_points=12,
        n_transformer_layers=2,
        skip_width=64,
        uses_preconditioning=False,
        sigma_first=0.1,
        least_diffusion_time=0.01,
        n_sampling_steps=200,
        n_windows=1,
        n_singles=8,
        n_draws=1,
        n_steps=194_400,
        learning_rate=1e-4,
        final_rate=1e-4,
        average=0.999,
    ),
}
