"""`openmm-latent interpolate`: frames on the way from one structure to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openmm_latent.cli.common import PlatformOption, SeedOption
from openmm_latent.cli.sample import (
    CoordinatesOption,
    ModelOption,
    OutOption,
    Relaxing,
    RelaxOption,
    RelaxSolventOption,
    RelaxSystemOption,
    StiffnessOption,
    WholeOption,
    read_whole,
    require_out,
    tell,
    write_frames,
)
from openmm_latent.errors import require


def interpolate(
    model: ModelOption,
    start: Annotated[Path, typer.Option(help="Structure to start from, with the model's heavy atoms.")],
    end: Annotated[Path, typer.Option(help="Structure to arrive at.")],
    out: OutOption,
    frames: Annotated[
        int | None,
        typer.Option(
            help="All together, start and end among them.", show_default="9, or those of a lag time if it has several"
        ),
    ] = None,
    relax: RelaxOption = False,
    stiffness: StiffnessOption = 10_000.0,
    solvent: RelaxSolventOption = "obc2",
    top: WholeOption = None,
    coordinates: CoordinatesOption = None,
    system: RelaxSystemOption = None,
    seed: SeedOption = 1,
    platform: PlatformOption = None,
) -> None:
    """Draw the frames between two structures, one lag time apart each, or a part of it where the model knows parts.

    A likely way, as far as the model has learned it, for which it must have been trained to interpolate; another seed
    gives another. The first and the last frame are those given.

    **Examples**

    - `openmm-latent interpolate --model protein.latent.pt --start a.pdb --end b.pdb --frames 9 --out way.xtc`

    - `openmm-latent interpolate --model protein.latent.pt --start a.pdb --end b.pdb --out way.pdb --relax`
    """
    from openmm_latent.conformations import (
        fine_time,
        interpolate_conformations,
        load_able,
        read_model_atoms,
    )

    require_out(out)
    require(
        frames is None or frames >= 3,
        f"frames (--frames) must be at least 3, start and end among them, got {frames}",
    )
    whole = read_whole(top, coordinates, system, Relaxing(stiffness, solvent, platform) if relax else None)
    bundle = load_able(model, "interpolate")
    manifest = bundle.manifest
    spacing = fine_time(manifest)
    in_lag_time = round(manifest.lag_time / spacing) + 1
    if frames is None:
        frames = in_lag_time if in_lag_time > 2 else 9
    first, last = (
        read_model_atoms(path, manifest, bundle.name, argument)
        for path, argument in ((start, "start (--start)"), (end, "end (--end)"))
    )
    way = interpolate_conformations(bundle, first, last, frames, seed)
    done = write_frames(way, frames, bundle, out, spacing, whole)
    what = f"{frames} frames of {len(manifest.atoms)} atoms, {spacing:g} ps apart"
    if 2 < in_lag_time < frames:
        what += f"; the model was trained on ways of one lag time, {in_lag_time} frames, and guesses at longer ones"
    tell(what, done, out)
