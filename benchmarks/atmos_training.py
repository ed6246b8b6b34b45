"""Data and training of atmos_small.py: WLALL, the 60-residue protein, small proteins, and thrombin's pocket."""

import time
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from atmos_pocket import FRAME_SPACING as POCKET_SPACING
from atmos_pocket import SEEDS, pocket, replica_path
from confrover_training import protein_data, wlall
from openmm import app
from results import shared_data

from openmm_latent.data.complex_frames import ComplexFrames, complex_frames, complex_of
from openmm_latent.data.complex_tokens import ComplexTokens, read_tokens
from openmm_latent.data.trajectories import TrajectorySet, load_trajectories
from openmm_latent.models.atmos import ATMOS, CONFIGS, ATMOSConfig
from openmm_latent.models.atmos.module import BoundComplex
from openmm_latent.models.atmos.weights import load_weights
from openmm_latent.training.atmos import STAGES, train_atmos
from openmm_latent.training.atmos_binding import reference_of

OUT = Path(__file__).parents[1] / "benchmark_output" / "atmos_small"
TRAINED_PROTEINS = ("chignolin", "trp_cage", "villin", "adk_nmp", "ubiquitin")
UNSEEN_PROTEINS = ("bba", "atlas_7lp1", "adk_lid")
#: Share of the one trajectory of the 60-residue protein that trains; what comes after it tests.
TIME_SPLIT = 0.8
SIXTY_SPACING = 500.0  # [ps]

#: `tiny` with one window over all atoms of a peptide; chosen by training files alone.
WLALL_CONFIG = replace(
    CONFIGS["tiny"],
    n_queries=44,
    n_keys=44,
    n_windows=8,
    n_draws=4,
    n_atom_blocks=1,
    n_token_blocks=2,
    n_transition_blocks=1,
)
#: `tiny` with less in each step, for molecules of hundreds of atoms.
LARGER_CONFIG = replace(CONFIGS["tiny"], n_windows=1, n_frames=3, n_draws=4, n_queries=16, n_keys=64, average=0.99)


@dataclass(frozen=True)
class Variant:
    """One training: on what, how far apart key frames are, and how long."""

    data: str
    lag_time: float  # [ps]
    n_steps: int
    config: ATMOSConfig = field(default=LARGER_CONFIG)


#: "one level" steps as far as an interpolator does, and of WLALL is trained as long as both networks together.
VARIANTS = {
    "wlall": Variant("wlall", 500.0, 1400, WLALL_CONFIG),
    "pocket": Variant("pocket", 5.0, 700),
    "wlall one level": Variant("wlall", 100.0, 2800, replace(WLALL_CONFIG, upsampling=1)),
    "proteins": Variant("proteins", 2.5, 320, replace(LARGER_CONFIG, turns=True, n_crop=40)),
    "sixty": Variant("sixty", 2500.0, 4000),
    "pocket one level": Variant("pocket", 1.0, 700, replace(LARGER_CONFIG, upsampling=1)),
}

#: Of the stochastic sampler's fresh noise: what gives frames as far apart as MD's, from starts in training data of
#: WLALL and of the pocket; plain for the others. The paper raises it, too, "to encourage diversity": a small network's
#: denoised frames lie too near their mean.
NOISE_SCALES = {"wlall": 1.15, "pocket": 1.0, "sixty": 1.0, "proteins": 1.0}


# ---- data ------------------------------------------------------------------------------------------------------------


@cache
def sixty() -> TrajectorySet:
    """Return the one trajectory of the 60-residue protein."""
    folder = shared_data("bbflow60")
    return load_trajectories(folder / "equilibrium.pdb", [folder / "MD_trajectory.xtc"], frame_spacing=SIXTY_SPACING)


@cache
def pocket_complex() -> tuple[app.Topology, ComplexTokens]:
    """Return the pocket's topology and tokens, with the System's charges."""
    topology, _, system = pocket()
    return topology, read_tokens(topology, system)


def pocket_replica(seed: int) -> np.ndarray:
    """Return what atmos_pocket.py left of one replica: heavy atoms, (n_frames, n_atoms, 3) [nm]."""
    if not replica_path(seed).exists():
        raise SystemExit("There is no MD of the pocket yet: run `python benchmarks/atmos_pocket.py` first.")
    return np.load(replica_path(seed))[:, pocket_complex()[1].atoms]


def examples(data: str) -> list[ComplexFrames]:
    """Return what a network learns from, and nothing that it is tested on."""
    if data == "wlall":
        return [complex_of(wlall()[0], name="wlall")]
    if data == "sixty":
        return [complex_of(sixty().split_chronological(TIME_SPLIT)[0], name="sixty")]
    if data == "proteins":
        return [complex_of(protein_data(name), name=name) for name in TRAINED_PROTEINS]
    topology, tokens = pocket_complex()
    runs = [pocket_replica(seed) for seed in SEEDS[:-1]]
    atoms = tokens.atoms.tolist()
    return [complex_frames(topology, runs, POCKET_SPACING, name="pocket", atoms=atoms, tokens=tokens)]


# ---- networks --------------------------------------------------------------------------------------------------------


def weights_path(name: str) -> Path:
    """Return the file of weights of one variant, trained or as it was kept."""
    path, variant = OUT / f"{name}.weights.pt", VARIANTS[name]
    if not path.exists():
        began, seconds = time.process_time(), {}

        def tell(stage: str):
            def told(done: int, total: int, loss: float, _: float) -> None:
                seconds[stage] = round(time.process_time() - began, 1)
                print(f"{name}, {stage}: {done} of {total}, {loss:.3f}, {seconds[stage]} CPU-s", flush=True)

            return told

        OUT.mkdir(parents=True, exist_ok=True)
        train_atmos(
            examples(variant.data),
            lag_time=variant.lag_time,
            config=variant.config,
            n_steps=variant.n_steps,
            out=path,
            work_directory=OUT / "checkpoints",
            progress={stage: tell(stage) for stage in STAGES},
        )
        (OUT / f"{name}.seconds").write_text(repr(seconds))
    return path


def trained(name: str, noise_scale: float | None = None) -> tuple[ATMOS, dict]:
    """Return one variant's networks, that sample by `NOISE_SCALES`, and what their file says of their training."""
    model, training = load_weights(weights_path(name))
    scale = NOISE_SCALES[VARIANTS[name].data] if noise_scale is None else noise_scale
    model.config = replace(model.config, noise_scale=scale)
    return model, training


def bound(
    name: str, tokens: ComplexTokens, reference: np.ndarray, is_ode: bool = False, noise_scale: float | None = None
) -> BoundComplex:
    """Return a variant for one complex; `reference`, (n_atoms, 3) [nm], serves where training turned its frames."""
    model, training = trained(name, noise_scale)
    structure, lengths = reference_of(model, tokens, reference, training)
    return BoundComplex(model, tokens, structure, None, lengths, is_ode=is_ode).eval()


def main() -> None:
    for name in VARIANTS:
        weights_path(name)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    main()
