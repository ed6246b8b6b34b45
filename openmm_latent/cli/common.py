"""What all commands share: options under the same words, mistakes told in a sentence, Ctrl-C that says how to go on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typer.core import TyperCommand, TyperGroup

from openmm_latent.errors import LatentError

#: Exit codes: 2 for a mistake of the user's (as for a wrong option), 130 for Ctrl-C.
EXIT_MISTAKE, EXIT_INTERRUPTED = 2, 130

errors = Console(stderr=True, soft_wrap=True, highlight=False)

# -- the options that several commands have, each with one meaning --------------------------------------------------
TopOption = Annotated[Path, typer.Option(help="Structure of the whole system (PDB, mmCIF, prmtop, psf, gro).")]
TrajOption = Annotated[
    list[Path], typer.Option(help="Trajectory files: xtc, dcd, nc, trr, h5, ...; several may follow one --traj.")
]
SeedOption = Annotated[int, typer.Option(help="Seed of all random numbers; the same seed gives the same run.")]
PlatformOption = Annotated[
    str | None, typer.Option(help="OpenMM platform: CUDA, HIP, OpenCL, CPU or Reference.", show_default="the fastest")
]
LigandOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="SDF file with bond orders and formal charges of a ligand in the structure (atmos); may be repeated.",
        show_default="bond orders unknown",
    ),
]
SolventOption = Annotated[str, typer.Option(help="obc2 (implicit), vacuum, or tip3p (a box of water).")]


class Command(TyperCommand):
    """A command whose --traj takes several files at once, as a shell's `*` gives them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat --traj before each of the files that follow it."""
        return super().parse_args(ctx, spread(args, "--traj"))


class Group(TyperGroup):
    """A group of commands that turns `LatentError` and Ctrl-C into one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except LatentError as error:
            stop(str(error), EXIT_MISTAKE)
        except KeyboardInterrupt as error:
            where = f" ({error})" if str(error) else ""
            stop(f"interrupted{where}; the same command goes on from there", EXIT_INTERRUPTED)


def spread(args: Sequence[str], option: str) -> list[str]:
    """Return ["--traj", "a", "--traj", "b"] for ["--traj", "a", "b"]."""
    result: list[str] = []
    n_values = -1  # values seen since `option`; -1 outside of it
    for arg in args:
        if arg.startswith("-") and len(arg) > 1:
            n_values = 0 if arg == option else -1
        elif n_values >= 0:
            if n_values > 0:
                result.append(option)
            n_values += 1
        result.append(arg)
    return result


def stop(sentence: str, code: int) -> NoReturn:
    """Print one sentence on standard error and leave."""
    errors.print("[bold red]openmm-latent:[/]", end=" ")
    errors.print(sentence, markup=False)
    raise typer.Exit(code)


def progress_bar() -> Progress:
    """Return the progress bar of long runs; without a terminal it draws nothing until the end."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
    )
