"""What an ATMOS model is made of and how it is trained: one frozen dataclass and its named values."""

from __future__ import annotations

from dataclasses import dataclass

from openmm_latent.errors import require


@dataclass(frozen=True)
class ATMOSConfig:
    """Sizes, noise and training of the key-frame network and of the interpolator, which is one of the same shape.

    Source: ATMOS; its published values, and where it is silent those of AlphaFold 3, are in `CONFIGS["paper"]`.
    """

    # state and context
    n_single: int = 48  # features a token
    n_pair: int = 24  # features a pair of tokens
    n_context_blocks: int = 0  # Pairformer blocks that embed chemistry before anything moves
    n_trunk_single: int = 0  # features a token of another model's trunk, read from a file; 0 is none
    n_trunk_pair: int = 0

    # geometric encoder
    n_distance_bins: int = 32
    n_atom_distance_bins: int = 12

    # atoms, in the encoder and on either side of the decoder
    n_atom: int = 48
    n_atom_pair: int = 12
    n_atom_blocks: int = 2
    n_atom_heads: int = 4
    n_queries: int = 32
    n_keys: int = 128

    # transition: Pairformer blocks with an embedding of the time step
    n_transition_blocks: int = 2
    n_heads: int = 4
    n_triangle_heads: int = 2
    triangle_head_width: int = 8
    transition_factor: int = 2
    dropout: float = 0.0
    n_time: int = 16  # features of a time

    # decoder
    n_token: int = 64
    n_token_blocks: int = 3
    n_token_heads: int = 4
    predicts_shift: bool = True  # the decoder sees the frame before and draws the way from it, instead of positions
    n_refinements: int = 4  # rounds in which distances over one and two bonds are mended; 0 is none, as published
    n_sweeps: int = 40  # over bonds, angles, hands and contacts of what was drawn; 0 is none, as published
    turns: bool = False  # frames are turned at random in training; without it they lie on the reference structure

    # noise, in the decoder's training and sampling
    data_scale: float = 0.0  # [nm] standard deviation of one coordinate of what is drawn; 0: training measures it
    fine_data_scale: float = 0.0  # [nm] the same of the interpolator
    log_mean: float = 0.0  # of ln(noise level / data_scale) in training: shifts hold no detail far below their scale
    log_std: float = 1.2
    n_sampling_steps: int = 16
    level_least: float = 0.02  # in units of data_scale
    level_most: float = 20.0
    rho: float = 7.0
    churn: float = 0.4
    churn_above: float = 0.005  # [nm]
    noise_scale: float = 1.0
    step_scale: float = 1.0

    # objective
    n_distogram_bins: int = 64
    diffusion_weight: float = 4.0
    distogram_weight: float = 0.03
    geometry_weight: float = 4.0  # of distances over one and two bonds; 0 is none, as published
    ligand_weight: float = 10.0

    # training
    upsampling: int = 5  # steps of the interpolator in one of the key-frame network
    n_frames: int = 4  # of a window, the first being given
    n_windows: int = 4  # of one system, a step
    n_draws: int = 6  # noise draws of each target
    n_crop: int = 256  # tokens
    n_steps: int = 1500  # of each network
    learning_rate: float = 2e-3
    frame_noise: float = 0.15  # added to frames that are given, in units of data_scale: those drawn are never as smooth
    gradient_clip: float = 1.0
    average: float = 0.995  # of the running mean of weights, which is what is kept

    def __post_init__(self) -> None:
        """Refuse values that cannot work, each with its sentence."""
        counts = "n_single n_pair n_distance_bins n_atom_distance_bins n_atom n_atom_pair n_atom_blocks n_atom_heads"
        counts += " n_queries n_transition_blocks n_heads n_triangle_heads triangle_head_width transition_factor n_time"
        counts += " n_token n_token_blocks n_token_heads n_distogram_bins upsampling n_windows n_draws n_crop n_steps"
        for name in counts.split():
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        sizes = "n_context_blocks n_trunk_single n_trunk_pair n_refinements n_sweeps data_scale fine_data_scale"
        sizes += " geometry_weight churn frame_noise"
        for name in sizes.split():
            require(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        for name in "learning_rate gradient_clip log_std ligand_weight noise_scale step_scale rho".split():
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        for whole, part in (("n_single", "n_heads"), ("n_atom", "n_atom_heads"), ("n_token", "n_token_heads")):
            require(
                getattr(self, whole) % getattr(self, part) == 0,
                f"{whole} must be a multiple of {part}, got {getattr(self, whole)} and {getattr(self, part)}",
            )
        require(self.n_keys >= self.n_queries, f"n_keys must be at least n_queries={self.n_queries}, got {self.n_keys}")
        require(self.n_frames >= 2, f"n_frames must be at least 2, the one given and one to draw, got {self.n_frames}")
        require(self.n_sampling_steps >= 2, f"n_sampling_steps must be at least 2, got {self.n_sampling_steps}")
        require(self.n_time % 2 == 0, f"n_time must be even, sines and cosines, got {self.n_time}")
        require(0.0 <= self.dropout < 1.0, f"dropout must lie between 0 and 1, got {self.dropout}; 0.25 is published")
        require(0.0 <= self.average < 1.0, f"average must lie between 0 and 1, got {self.average}; 0.999 is usual")


#: `tiny` trains in minutes on one core, with 0.57 million parameters a network; `paper` has the published sizes, 221
#: million, most of them in the decoder. DISCREPANCY(ATMOS, A.1): four Pairformer blocks stand for Protenix's trunk.
CONFIGS: dict[str, ATMOSConfig] = {
    "tiny": ATMOSConfig(),
    "paper": ATMOSConfig(
        n_single=384,
        n_pair=128,
        n_context_blocks=4,
        n_distance_bins=64,
        n_atom_distance_bins=16,
        n_atom=128,
        n_atom_pair=16,
        n_atom_blocks=3,
        n_transition_blocks=4,
        n_heads=16,
        n_triangle_heads=4,
        triangle_head_width=32,
        transition_factor=4,
        dropout=0.25,
        n_time=64,
        n_token=768,
        n_token_blocks=24,
        n_token_heads=16,
        predicts_shift=False,
        n_refinements=0,
        n_sweeps=0,
        turns=True,
        data_scale=1.6,
        fine_data_scale=1.6,
        log_mean=-1.2,
        log_std=1.5,
        n_sampling_steps=200,
        level_least=4e-4,
        level_most=160.0,
        churn=0.8,
        churn_above=0.1,
        noise_scale=1.003,
        step_scale=1.5,
        geometry_weight=0.0,
        upsampling=20,
        n_frames=20,
        n_windows=4,
        n_draws=12,
        n_steps=40_000,
        learning_rate=1e-4,
        frame_noise=0.0,
        average=0.999,
    ),
}
