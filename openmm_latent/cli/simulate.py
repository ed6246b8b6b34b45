"""`openmm-latent simulate`: a bundle and a structure into a hybrid run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from openmm_latent.cli.common import PlatformOption, SeedOption, progress_bar
from openmm_latent.errors import require


def simulate(
    bundle: Annotated[Path, typer.Argument(help="A bundle, e.g. peptide.latent.pt.")],
    top: Annotated[Path, typer.Option(help="PDB file of the system; missing atoms and hydrogens are added.")],
    out: Annotated[Path, typer.Option(help="Folder for trajectory, reports, save point and provenance.")],
    system: Annotated[
        Path | None,
        typer.Option(
            help="System of exactly the atoms of --top, .xml or Amber .prmtop, such as a complex's.",
            show_default="amber14",
        ),
    ] = None,
    solvent: Annotated[str, typer.Option(help="obc2 or vacuum (implicit); tip3p with --realisation steer.")] = "obc2",
    temperature: Annotated[float | None, typer.Option(help="[K]", show_default="that of the training data")] = None,
    duration: Annotated[float, typer.Option(help="[ps] of MD between jumps, all together.")] = 1000.0,
    jump_interval: Annotated[int, typer.Option(help="MD steps between two jumps.")] = 500,
    mode: Annotated[
        str, typer.Option(help="guarded (unsound jumps are refused), exploratory, or exact (Boltzmann frames).")
    ] = "guarded",
    realisation: Annotated[
        str, typer.Option(help="decode (write coordinates) or steer (drive there with MD); exact mode steers.")
    ] = "decode",
    driven_steps: Annotated[int, typer.Option(help="MD steps of a steered or exact jump.")] = 500,
    driven_steps_per_distance: Annotated[
        float, typer.Option(help="Further ones for each unit of way along the slow coordinates.")
    ] = 0.0,
    least_driven_distance: Annotated[
        float, typer.Option(help="Exact mode: leave nearer proposals to MD [slow units].")
    ] = 0.0,
    steps_per_perturbation: Annotated[int, typer.Option(help="MD steps between two moves of the restraint.")] = 2,
    sigma: Annotated[
        float | None, typer.Option(help="Width of the driving restraint.", show_default="0.15 slow units, or 0.02 nm")
    ] = None,
    driving_timestep: Annotated[
        float | None, typer.Option(help="[ps] of a jump's MD steps.", show_default="--timestep")
    ] = None,
    driving_friction: Annotated[float, typer.Option(help="[1/ps] of a jump's MD steps.")] = 1.0,
    tune: Annotated[
        bool, typer.Option("--tune", help="Exact mode: choose the above before production, but for the friction.")
    ] = False,
    pressure: Annotated[float, typer.Option(help="[bar], of explicit solvent.")] = 1.0,
    timestep: Annotated[float, typer.Option(help="[ps]; 0.004 needs --hydrogen-mass 3.")] = 0.002,
    friction: Annotated[
        float, typer.Option(help="[1/ps]; 5 warms a decoded frame up within the default --jump-interval.")
    ] = 5.0,
    hydrogen_mass: Annotated[
        float | None, typer.Option(help="[amu] repartitioned from heavy atoms.", show_default="unchanged")
    ] = None,
    report_interval: Annotated[
        int | None, typer.Option(help="Steps between frames.", show_default="--jump-interval")
    ] = None,
    trajectory_format: Annotated[str, typer.Option("--format", help="xtc or dcd.")] = "xtc",
    fill: Annotated[
        bool, typer.Option("--fill", help="Write what the model draws within jumps into NAME.filled.xtc (atmos).")
    ] = False,
    seed: SeedOption = 1,
    platform: PlatformOption = None,
) -> None:
    """Alternate learned jumps with MD of a real system: XTC or DCD, state data, what became of each jump, provenance.

    Stop it with Ctrl-C whenever you like: the same command goes on, and nothing is lost or doubled.

    **Examples**

    - `openmm-latent simulate peptide.latent.pt --top peptide.pdb --out hybrid --temperature 300`

    - `openmm-latent simulate m.latent.pt --top protein.pdb --out fast --timestep 0.004 --hydrogen-mass 3 --format dcd`

    - `openmm-latent simulate m.latent.pt --top peptide.pdb --out exact --mode exact --tune --temperature 300`

    - `openmm-latent simulate m.latent.pt --top peptide.pdb --out wet --solvent tip3p --realisation steer`

    - `openmm-latent simulate complex.latent.pt --top complex.pdb --system complex.xml --out hybrid --fill`
    """
    from openmm_latent.bundle import inspect_bundle
    from openmm_latent.hybrid import HybridConfig, HybridRun

    trained_at = inspect_bundle(bundle)["training"].get("temperature")
    require(
        temperature is not None or trained_at is not None,
        f"bundle {bundle} does not say at which temperature its data was made; give --temperature",
    )
    config = HybridConfig(
        temperature=float(trained_at if temperature is None else temperature),
        solvent=solvent,
        duration=duration,
        jump_interval=jump_interval,
        mode=mode,
        realisation=realisation,
        driven_steps=driven_steps,
        driven_steps_per_distance=driven_steps_per_distance,
        least_driven_distance=least_driven_distance,
        steps_per_perturbation=steps_per_perturbation,
        sigma=sigma,
        driving_timestep=driving_timestep,
        driving_friction=driving_friction,
        is_tuned=tune,
        pressure=pressure,
        timestep=timestep,
        friction=friction,
        hydrogen_mass=hydrogen_mass,
        report_interval=report_interval,
        trajectory_format=trajectory_format,
        is_filled=fill,
        seed=seed,
    )
    run = HybridRun(bundle, top, out, config, platform, system=system)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{run.platform_reason}; {config.temperature:g} K, mode {mode}", markup=False)
    with progress_bar() as bar:
        task = bar.add_task("frames", total=config.n_blocks, completed=run.n_done)
        tally = run.run(lambda done, total: bar.update(task, completed=done))
    console.print("\n".join(f"{n:8d}  {words}" for words, n in tally.items()), markup=False)
    console.print(f"frames in {run.trajectory}, jumps in {run.path('latent.csv')}", markup=False)
    if fill:
        console.print(f"drawn by the model within jumps, not physical: {run.path('filled.xtc')}", markup=False)
