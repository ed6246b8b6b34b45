"""`openmm-latent generate`: a PDB file into reference MD."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from openmm_latent.cli.common import PlatformOption, SeedOption, SolventOption, progress_bar
from openmm_latent.data.generate import GenerateConfig
from openmm_latent.data.generate import generate as run_generate

_DEFAULT = GenerateConfig()


def generate(
    pdb: Annotated[Path, typer.Argument(help="Structure; missing atoms and hydrogens are added.")],
    out: Annotated[Path, typer.Option(help="Folder for XTC, topology PDB and provenance JSON.")],
    solvent: SolventOption = _DEFAULT.solvent,
    temperature: Annotated[float, typer.Option(help="[K]")] = _DEFAULT.temperature,
    duration: Annotated[float, typer.Option(help="[ps] a replica, after equilibration.")] = _DEFAULT.duration,
    frame_spacing: Annotated[float, typer.Option(help="[ps] between frames.")] = _DEFAULT.frame_spacing,
    equilibration: Annotated[float, typer.Option(help="[ps] before the first frame.")] = _DEFAULT.equilibration,
    replicas: Annotated[int, typer.Option(help="Independent runs, one XTC each.")] = _DEFAULT.n_replicas,
    timestep: Annotated[float, typer.Option(help="[ps]; 0.004 needs --hydrogen-mass 3.")] = _DEFAULT.timestep,
    friction: Annotated[float, typer.Option(help="[1/ps]")] = _DEFAULT.friction,
    hydrogen_mass: Annotated[
        float | None, typer.Option(help="[amu] repartitioned from heavy atoms.", show_default="unchanged")
    ] = None,
    ph: Annotated[float, typer.Option("--ph", help="At which hydrogens are added.")] = _DEFAULT.ph,
    remove_heterogens: Annotated[
        bool, typer.Option("--remove-heterogens", help="Leave out ligands and additives.")
    ] = False,
    seed: SeedOption = _DEFAULT.seed,
    platform: PlatformOption = None,
) -> None:
    """Run reference MD of a PDB file: amber14, hydrogens constrained, Langevin dynamics.

    Stop it with Ctrl-C whenever you like: the same command goes on, and no frame is lost or doubled. A longer
    --duration continues a finished run.

    **Examples**

    - `openmm-latent generate peptide.pdb --out md --duration 10000`

    - `openmm-latent generate protein.pdb --out md --timestep 0.004 --hydrogen-mass 3 --replicas 4`

    - `openmm-latent generate protein.pdb --out wet --solvent tip3p --temperature 310`
    """
    config = GenerateConfig(
        solvent=solvent,
        temperature=temperature,
        duration=duration,
        frame_spacing=frame_spacing,
        equilibration=equilibration,
        n_replicas=replicas,
        timestep=timestep,
        friction=friction,
        hydrogen_mass=hydrogen_mass,
        ph=ph,
        seed=seed,
        remove_heterogens=remove_heterogens,
    )
    with progress_bar() as bar:
        tasks: dict[int, object] = {}

        def show(replica: int, done: int, total: int) -> None:
            if replica not in tasks:
                tasks[replica] = bar.add_task(f"replica {replica} equilibrates", total=total)
            words = f"replica {replica} " + ("equilibrates" if done < 0 else "frames")
            bar.update(tasks[replica], description=words, completed=max(0, done))  # type: ignore[arg-type]

        files = run_generate(pdb, out, config, platform=platform, progress=show)
    Console().print(
        f"{len(files)} trajectories of {config.n_frames} frames, {frame_spacing:g} ps apart, in {out}\n"
        f"next: openmm-latent train gldp --top {out / (pdb.stem + '.pdb')} --traj {out}/{pdb.stem}_*.xtc "
        f"--lag-time {10 * frame_spacing:g} --out {pdb.stem}.latent.pt",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
