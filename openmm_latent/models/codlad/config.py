"""What a CODLAD model is made of and how it is trained: one frozen dataclass and its named values."""

from __future__ import annotations

from dataclasses import dataclass

from openmm_latent.errors import require

#: Terms of the autoencoder's loss, each of which can be left out (`CODLADConfig.terms`).
TERMS = ("bond", "angle", "torsion", "xyz", "graph", "clash")


@dataclass(frozen=True)
class CODLADConfig:
    """Sizes and training of the autoencoder and of the diffusion in its latent space.

    Source: CODLAD; its published values are those of `CONFIGS["paper"]`.
    DISCREPANCY(CODLAD, settings): unpublished are the decoder's width and neighbours, hidden sizes, patience, the
    length of an epoch, when a code counts as dead and when codes begin; the values here are ours. `tiny` also learns
    from exchanged side chains, and its rate falls by a cosine: it has few proteins and few steps.
    """

    # latent: three numbers a residue, snapped to the nearest code
    n_latent: int = 3
    n_codes: int = 4096
    code_decay: float = 0.99  # of the running means that codes are
    commitment: float = 0.25
    dead_after: int = 100  # training steps without being chosen, after which a code moves to where it is needed
    first_epoch_with_codes: int = 2  # before, latents are decoded as they are

    # encoder: equivariant messages between atoms, between residues (at their Cα), and between an atom and its residue
    n_scalars: int = 4  # of either parity
    n_vectors: int = 1  # of either parity
    max_degree: int = 1  # of the spherical harmonics
    n_encoder_layers: int = 1
    embedding: int = 36
    encoder_hidden: int = 12  # hidden units of the networks that make an edge's weights
    atom_cutoff: float = 0.3  # [nm]
    residue_cutoff: float = 1.2  # [nm]
    uses_internal_inputs: bool = True  # the encoder also sees residues' own internal coordinates

    # decoder: invariant convolutions on the graph of the Cα trace
    decoder_width: int = 96
    n_decoder_layers: int = 4
    n_radial: int = 15  # radial functions of a distance, in both networks
    n_neighbours: int = 16  # at most, the nearest within `residue_cutoff`

    # the autoencoder's loss: weights of its terms, and the schedule of the last two
    terms: tuple[str, ...] = TERMS
    bond_weight: float = 5.0
    angle_weight: float = 1.0
    torsion_weight: float = 1.0
    xyz_weight: float = 1.0
    graph_weight: float = 3.0
    clash_weight: float = 5.0
    clash_distance: float = 0.20  # [nm] between atoms that are not bonded
    clash_distance_n_o: float = 0.22  # [nm] between N and O of the backbone
    first_epoch_with_xyz: int = 1  # before, xyz and clash are off
    clash_doubles_after: int = 20  # epochs

    # training of the autoencoder
    n_epochs: int = 45
    steps_per_epoch: int = 100
    batch_size: int = 4  # frames of one protein
    residues_per_batch: int = 192  # at most, where one frame has fewer: large proteins come with fewer frames
    n_exchanged: int = 48  # frames of each protein with other side chains, learned from beside its own; may be 0
    learning_rate: float = 1e-3
    rate_falls: str = "cosine"  # over all epochs, or "plateau": when the validation loss no longer gets better
    weight_decay: float = 0.01
    plateau_factor: float = 0.3
    plateau_patience: int = 8  # epochs without a better validation loss before the rate falls
    gradient_clip: float = 1.0

    # denoiser
    denoiser_width: int = 64
    n_denoiser_encoder_layers: int = 2
    n_denoiser_decoder_layers: int = 2
    n_denoiser_neighbours: int = 24

    # diffusion
    n_diffusion_steps: int = 1000
    n_sampling_steps: int = 50
    diffusion_steps: int = 5000  # training steps
    diffusion_batch_size: int = 8  # frames of one protein, at most
    diffusion_residues: int = 256  # in a batch, at most, where one frame has fewer
    diffusion_rate: float = 1e-3
    diffusion_final_rate: float = 1e-5
    diffusion_warm_up: int = 200  # training steps
    diffusion_average: float = 0.995  # decay of the running mean of weights

    def __post_init__(self) -> None:
        """Refuse values that cannot work, each with its sentence."""
        counts = """
            n_latent n_codes dead_after n_scalars n_vectors max_degree n_encoder_layers embedding encoder_hidden
            decoder_width n_decoder_layers n_radial n_neighbours n_epochs steps_per_epoch batch_size plateau_patience
            denoiser_width n_denoiser_encoder_layers n_denoiser_decoder_layers n_denoiser_neighbours n_diffusion_steps
            n_sampling_steps diffusion_steps diffusion_batch_size residues_per_batch diffusion_residues
        """
        for name in counts.split():
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        weights = [f"{term}_weight" for term in TERMS]
        starts = ("first_epoch_with_codes", "first_epoch_with_xyz", "clash_doubles_after")
        for name in ("commitment", "weight_decay", "diffusion_warm_up", "n_exchanged", *starts, *weights):
            require(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        positive = "atom_cutoff residue_cutoff clash_distance clash_distance_n_o learning_rate gradient_clip"
        for name in f"{positive} diffusion_rate diffusion_final_rate".split():
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        for name in ("code_decay", "plateau_factor", "diffusion_average"):
            require(0.0 < getattr(self, name) < 1.0, f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        unknown = sorted(set(self.terms) - set(TERMS))
        require(
            len(self.terms) > 0 and not unknown,
            f"terms must be some of {', '.join(TERMS)}, got {', '.join(self.terms) or 'none'}; leave out the terms to "
            f"do without",
        )
        require(
            self.rate_falls in ("cosine", "plateau"),
            f"rate_falls must be 'cosine' or 'plateau', got {self.rate_falls!r}; the paper's is 'plateau'",
        )
        require(
            self.n_sampling_steps <= self.n_diffusion_steps,
            f"n_sampling_steps must be at most n_diffusion_steps={self.n_diffusion_steps}, got {self.n_sampling_steps}",
        )


#: `tiny` learns on two cores in minutes; `paper` has the published sizes.
CONFIGS: dict[str, CODLADConfig] = {
    "tiny": CODLADConfig(),
    "paper": CODLADConfig(
        dead_after=200,
        first_epoch_with_codes=1,
        n_scalars=12,
        n_vectors=4,
        max_degree=2,
        n_encoder_layers=3,
        encoder_hidden=36,
        atom_cutoff=0.9,
        residue_cutoff=2.1,
        uses_internal_inputs=False,
        decoder_width=128,
        n_neighbours=64,
        n_epochs=100,
        steps_per_epoch=1000,
        residues_per_batch=4096,
        n_exchanged=0,
        rate_falls="plateau",
        denoiser_width=128,
        n_denoiser_encoder_layers=3,
        n_denoiser_decoder_layers=3,
        n_denoiser_neighbours=64,
        n_sampling_steps=100,
        diffusion_steps=800_000,
        diffusion_batch_size=128,
        diffusion_residues=65_536,
        diffusion_rate=3e-4,
        diffusion_warm_up=80_000,
        diffusion_average=0.9999,
    ),
}
