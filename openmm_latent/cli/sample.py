"""`openmm-latent sample`: independent conformations from a bundle."""

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

    from openmm import app

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
    n: Annotated[int, typer.Option("-n", "--n", help="Conformations.")] = 250,
    relax: RelaxOption = False,
    stiffness: StiffnessOption = 10_000.0,
    solvent: RelaxSolventOption = "obc2",
    seed: SeedOption = 1,
    platform: PlatformOption = None,
) -> None:
    """Draw independent conformations: of equilibrium, as far as the model has learned it, and not in time order.

    Heavy atoms are written as the model has them, put onto the structure that it was bound to. The frames are not
    Boltzmann: for averages, start MD from them and reweight it.

    **Examples**

    - `openmm-latent sample --model protein.latent.pt --n 250 --out frames.xtc`

    - `openmm-latent sample --model protein.latent.pt --n 50 --out frames.pdb --relax`
    """
    from openmm_latent.conformations import load_able, model_topology, sample_conformations

    require_out(out)
    require(n >= 1, f"n (--n) must be at least 1, got {n}; 250 are usual")
    bundle = load_able(model, "sample")
    frames = sample_conformations(bundle, n, seed)
    done = write_frames(
        frames, n, model_topology(bundle.manifest), out, 1.0, relax=(relax, stiffness, solvent, platform)
    )
    tell(f"{n} conformations of {len(bundle.manifest.atoms)} atoms", done, out)


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
    topology: app.Topology,
    out: Path,
    spacing: float,
    *,
    relax: tuple[bool, float, str, str | None],
) -> list[Relaxation]:
    """Write frames (n_atoms, 3) [nm] so many ps apart, minimised if asked; return what minimisation did.

    `relax` is whether, with which stiffness [kJ/mol/nm^2], in which solvent and on which platform.
    """
    from openmm_latent.data.restrained import RestrainedMinimiser

    minimiser, done = None, []
    with progress_bar() as bar, AllAtomWriter(out) as writer:
        task = bar.add_task("drawing", total=n_frames)
        for number, positions in enumerate(frames):
            if relax[0]:
                if minimiser is None:
                    minimiser = RestrainedMinimiser(topology, positions, relax[2], relax[3], relax[1])
                done.append(minimiser.relax(positions))
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
    paths = [out] if out.suffix.lower() == ".pdb" else [out, out.with_suffix(".pdb")]
    console.print("wrote " + " and ".join(map(str, paths)), markup=False)
