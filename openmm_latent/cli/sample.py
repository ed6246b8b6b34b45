"""`openmm-latent sample`: independent conformations from a bundle, or a trajectory in time order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console

from openmm_latent.cli.backmap import AllAtomWriter
from openmm_latent.cli.common import PlatformOption, SeedOption, progress_bar
from openmm_latent.errors import require

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openmm_latent.bundle import Bundle, Manifest
    from openmm_latent.data.restrained import Relaxation

ModelOption = Annotated[Path, typer.Option(help="The bundle, e.g. protein.latent.pt.")]
OutOption = Annotated[Path, typer.Option(help="frames.xtc (with frames.pdb beside it) or frames.pdb.")]
RelaxOption = Annotated[
    bool, typer.Option("--relax", help="Add hydrogens and minimise each frame with OpenMM, its Cα atoms held.")
]
StiffnessOption = Annotated[float, typer.Option(help="[kJ/mol/nm^2] with which --relax holds each Cα.")]
RelaxSolventOption = Annotated[str, typer.Option(help="Of --relax: obc2 or vacuum.")]

#: What can be written.
_FORMATS = (".xtc", ".pdb")


def sample(
    model: ModelOption,
    out: OutOption,
    n: Annotated[int, typer.Option("-n", "--n", help="Frames; of a trajectory with the start among them.")] = 250,
    trajectory: Annotated[
        bool, typer.Option("--trajectory", help="Frames in time order, jump after jump, instead of independent ones.")
    ] = False,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Structure from which --trajectory starts, with the model's atoms.",
            show_default="the structure in the bundle",
        ),
    ] = None,
    fill: Annotated[
        bool | None,
        typer.Option(
            help="--trajectory: draw the frames between two jumps, too (atmos).", show_default="if the model can"
        ),
    ] = None,
    relax: RelaxOption = False,
    stiffness: StiffnessOption = 10_000.0,
    solvent: RelaxSolventOption = "obc2",
    seed: SeedOption = 1,
    platform: PlatformOption = None,
) -> None:
    """Draw independent conformations, or with --trajectory frames in time order, without any MD.

    Model atoms are written as the model has them: independent frames put onto the structure that it was bound to, those
    of a trajectory each onto the one before, a lag time apart, or less where the frames between two jumps are drawn. No
    frame is Boltzmann: for averages, start MD from them and reweight it.

    **Examples**

    - `openmm-latent sample --model protein.latent.pt --n 250 --out frames.xtc`

    - `openmm-latent sample --model protein.latent.pt --n 50 --out frames.pdb --relax`

    - `openmm-latent sample --model complex.latent.pt --trajectory -n 400 --start complex.pdb --out traj.xtc`
    """
    from openmm_latent.conformations import load_able, sample_conformations

    require_out(out)
    least = 2 if trajectory else 1
    require(n >= least, f"n (--n) must be at least {least}, got {n}; 250 are usual")
    given = [name for name, value in (("--start", start), ("--fill", fill)) if value is not None]
    require(trajectory or not given, f"{' and '.join(given)} is for frames in time order; give --trajectory, too")
    if trajectory:
        bundle, frames, spacing = _trajectory(model, n, start, fill, seed)
        what = f"{n} frames of {len(bundle.manifest.atoms)} atoms in time order, {spacing:g} ps apart"
    else:
        bundle, spacing = load_able(model, "sample"), 1.0
        frames = sample_conformations(bundle, n, seed)
        what = f"{n} conformations of {len(bundle.manifest.atoms)} atoms"
    done = write_frames(frames, n, bundle.manifest, out, spacing, relax=(relax, stiffness, solvent, platform))
    tell(what, done, out)


def _trajectory(
    model: Path, n: int, start: Path | None, fill: bool | None, seed: int
) -> tuple[Bundle, Iterable[np.ndarray], float]:
    """Return the bundle, its frames in time order, and the time between them [ps]."""
    from openmm_latent.conformations import fine_time, load_able, read_model_atoms, sample_trajectory

    bundle = load_able(model, "fill" if fill else "jump")
    manifest = bundle.manifest
    begun = None if start is None else read_model_atoms(start, manifest, bundle.name, "start (--start)")
    is_filled = fill is not False and "fill" in manifest.capabilities
    frames = sample_trajectory(bundle, n, begun, seed, is_filled)
    return bundle, frames, fine_time(manifest) if is_filled else manifest.lag_time


def require_out(out: Path) -> None:
    """Refuse a file that cannot be written."""
    require(
        out.suffix.lower() in _FORMATS,
        f"out (--out) must end in {' or '.join(_FORMATS)}, got {out.name!r}; the topology goes beside an XTC file",
    )
    require(out.parent.is_dir(), f"out (--out): the folder '{out.parent}' does not exist; create it first")


def write_frames(
    frames: Iterable[np.ndarray],
    n_frames: int,
    manifest: Manifest,
    out: Path,
    spacing: float,
    *,
    relax: tuple[bool, float, str, str | None],
) -> list[Relaxation]:
    """Write frames (n_atoms, 3) [nm] so many ps apart, minimised if asked; return what minimisation did.

    `relax` is whether, with which stiffness [kJ/mol/nm^2], in which solvent and on which platform. Frames that are left
    unsound are pulled from the last sound one, at first the structure to which the model was bound.
    """
    from openmm_latent.conformations import model_topology
    from openmm_latent.data.restrained import RestrainedMinimiser

    topology, structure = model_topology(manifest), np.asarray(manifest.reference_positions)
    minimiser, done = None, []
    with progress_bar() as bar, AllAtomWriter(out) as writer:
        task = bar.add_task("drawing", total=n_frames)
        for number, positions in enumerate(frames):
            if relax[0]:
                if minimiser is None:
                    minimiser = RestrainedMinimiser(topology, structure, relax[2], relax[3], relax[1])
                    minimiser.relax(structure)  # the first that frames may be pulled from
                done.append(minimiser.relax(positions, may_pull=True))
                positions = done[-1].positions
            writer.write(minimiser.topology if minimiser else topology, positions, number * spacing)
            bar.advance(task)
    return done


def tell(what: str, done: list[Relaxation], out: Path) -> None:
    """Print what was drawn, what minimisation did, and where the files are."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(what, markup=False)
    if done:
        energies = [one.energy for one in done]
        console.print(
            f"energy after minimisation: median {np.median(energies):.0f}, most {max(energies):.0f} kJ/mol\n"
            f"largest move of a heavy atom: median {np.median([one.largest_move for one in done]):.3f} nm\n"
            f"clashes a frame: {np.mean([one.clashes_before for one in done]):.2f} before, "
            f"{np.mean([one.clashes for one in done]):.2f} after"
        )
        pulled, unsound = sum(one.is_pulled for one in done), sum(not one.is_sound for one in done)
        if pulled:
            console.print(
                f"{pulled} of {len(done)} frames stayed unsound, and were replaced by the sound one before, pulled "
                f"towards their Cα atoms as far as its bonds allow: train longer, or on more like them"
            )
        if unsound:
            console.print(f"{unsound} of {len(done)} frames are not sound: bonds, hands or peptide bonds are broken")
    paths = [out] if out.suffix.lower() == ".pdb" else [out, out.with_suffix(".pdb")]
    console.print("wrote " + " and ".join(map(str, paths)), markup=False)
