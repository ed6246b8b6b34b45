"""Data and training of confrover_small.py: the pentapeptide WLALL by file, small proteins by protein."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from results import shared_data
from small_proteins import OUT as PROTEINS_OUT

from openmm_latent.data.frame_windows import ProteinRuns, runs_of
from openmm_latent.data.trajectories import TrajectorySet, load_trajectories
from openmm_latent.models.confrover import CONFIGS, ConfRover, ConfRoverConfig, load_weights
from openmm_latent.training.confrover import train_confrover

OUT = Path(__file__).parents[1] / "benchmark_output" / "confrover_small"

#: `tiny` on five residues; chosen before any score of the test files was seen.
WLALL_CONFIG = replace(
    CONFIGS["tiny"],
    max_stride=64,
    time_unit=100.0,
    position_scale=0.2,
    n_windows=2,
    n_singles=16,
    n_draws=8,
    learning_rate=1.5e-3,
    average=0.995,
)
#: The same on proteins of 10 to 76 residues, whose MD lasts 60 ps.
PROTEINS_CONFIG = replace(
    CONFIGS["tiny"],
    max_stride=16,
    time_unit=0.5,
    position_scale=0.7,
    n_frames=5,
    n_context=4,
    n_windows=1,
    n_singles=4,
    n_draws=4,
    learning_rate=1.5e-3,
    average=0.99,
)
TRAINED_PROTEINS = ("chignolin", "trp_cage", "villin", "adk_nmp", "ubiquitin")
UNSEEN_PROTEINS = ("bba", "atlas_7lp1")
#: Steps and learning rates on proteins, one phase after the other; half a CPU-second a step.
PROTEIN_PHASES = ((550, 1.5e-3), (550, 1e-3))


@dataclass(frozen=True)
class Variant:
    """One network: what it is taught, from where, how long."""

    objectives: tuple[str, ...]
    n_steps: int
    start: str = ""
    learning_rate: float = WLALL_CONFIG.learning_rate
    max_stride: int = WLALL_CONFIG.max_stride
    n_windows: int = WLALL_CONFIG.n_windows


#: As in the paper: trajectories and single frames, then interpolation, too; and what each is compared with.
VARIANTS = {
    "both": Variant(("trajectory", "single"), 3000),
    "trajectory alone": Variant(("trajectory",), 3000),
    "with interpolation": Variant(("trajectory", "single", "interpolation"), 2200, "both", 1e-3, 8, 4),
    "as long without": Variant(("trajectory", "single"), 2200, "both", 1e-3, 8, 4),
}


def wlall() -> tuple[TrajectorySet, TrajectorySet]:
    """Return the training files 00-15 and the test files 16-19."""
    folder = shared_data("wlall")
    files = [folder / f"pentapeptide-{i:02d}-500ns-impl-solv.xtc" for i in range(20)]
    return load_trajectories(folder / "pentapeptide-impl-solv.pdb", files).split_by_file(4)


def protein_data(name: str) -> TrajectorySet:
    """Return what small_proteins.py made of one protein."""
    folder = PROTEINS_OUT / name
    return load_trajectories(folder / f"{name}.pdb", sorted(folder.glob("*.xtc")))


def is_kept(weights: Path, config: ConfRoverConfig) -> bool:
    """Return whether a file holds what this configuration gives: weights of an older one are trained anew."""
    return weights.exists() and load_weights(weights)[0].config == config


def trained(name: str, train: list[ProteinRuns]) -> ConfRover:
    """Return one variant of WLALL's network, trained or as it was kept."""
    variant = VARIANTS[name]
    weights = OUT / f"wlall {name}.weights.pt"
    config = replace(
        WLALL_CONFIG,
        n_steps=variant.n_steps,
        learning_rate=variant.learning_rate,
        max_stride=variant.max_stride,
        n_windows=variant.n_windows,
    )
    if not is_kept(weights, config):
        began = time.process_time()
        train_confrover(
            train,
            config=config,
            objectives=variant.objectives,
            start=trained(variant.start, train) if variant.start else None,
            out=weights,
            work_directory=OUT / "checkpoints",
            progress=lambda *told: print(name, *told[:3], f"{time.process_time() - began:.0f} CPU-s", flush=True),
        )
    return load_weights(weights)[0]


def trained_on_proteins() -> ConfRover:
    """Return the network of small proteins, which never saw `UNSEEN_PROTEINS`."""
    model, began = None, time.process_time()
    for phase, (n_steps, rate) in enumerate(PROTEIN_PHASES):
        weights, config = protein_weights(phase), replace(PROTEINS_CONFIG, n_steps=n_steps, learning_rate=rate)
        if not is_kept(weights, config):
            train_confrover(
                [runs_of(protein_data(name), name=name) for name in TRAINED_PROTEINS],
                config=config,
                start=model,
                out=weights,
                work_directory=OUT / "checkpoints",
                progress=lambda *told: print(
                    "proteins", *told[:3], f"{time.process_time() - began:.0f} CPU-s", flush=True
                ),
            )
        model = load_weights(weights)[0]
    return model


def protein_weights(phase: int = len(PROTEIN_PHASES) - 1) -> Path:
    """Return the file of weights after a phase of training on proteins."""
    return OUT / f"proteins {phase + 1}.weights.pt"


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    train = [runs_of(wlall()[0], name="wlall")]
    for name in VARIANTS:
        trained(name, train)
    trained_on_proteins()


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    main()
