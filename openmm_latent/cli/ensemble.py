"""`openmm-latent ensemble | collect`: many walkers of a hybrid simulation, and one file of what they found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from openmm_latent.cli.common import progress_bar

if TYPE_CHECKING:
    from openmm_latent.ensemble import EnsembleConfig, Report, WalkerTask


def ensemble(
    config: Annotated[Path, typer.Argument(help="YAML file: structure, model, walkers, out, and what is not default.")],
) -> None:
    """Run many walkers of a hybrid simulation: each with its own seed, start, temperature or model.

    A worker that dies loses nothing: its walkers go on elsewhere from where they were saved. Stop it with Ctrl-C
    whenever you like; the same command goes on. `reweight --run OUT` and `evaluate --sample OUT` read all walkers. With
    an `adaptive:` section, rounds of sampling and refitting follow one another until the free energies have converged:
    by reweighting, or in `run: {mode: exact}` by averaging Boltzmann frames.

    **Examples**

    - `openmm-latent ensemble walkers.yaml`

    where walkers.yaml holds, for eight walkers on two workers of this machine:
    `{structure: peptide.pdb, model: peptide.latent.pt, walkers: 8, out: store, run: {duration: 10000},
    cluster: {workers: 2}}`
    """
    from openmm_latent.ensemble import load_config, open_store

    settings = load_config(config)
    console = Console(highlight=False, soft_wrap=True)
    if settings.adaptive is not None:
        from openmm_latent.ensemble.adaptive import run_adaptive

        run_adaptive(
            settings,
            lambda tasks, folder: _run(tasks, folder, settings, console),
            lambda line: console.print(line, markup=False),
        )
    else:
        tasks = open_store(settings)
        n_open = sum(task.n_saved < task.config.n_blocks for task in tasks)
        console.print(f"{len(tasks)} walkers in {settings.out}, {n_open} of them to run", markup=False)
        if n_open:
            _run(tasks, settings.out, settings, console)
        console.print(f"all {len(tasks)} walkers are complete", markup=False)
    if settings.is_exact:
        console.print(f"frames in {settings.out} are Boltzmann: average them as they are", markup=False)
    else:
        console.print(f"next: openmm-latent reweight --run {settings.out}", markup=False)


def _run(tasks: list[WalkerTask], folder: Path, settings: EnsembleConfig, console: Console) -> None:
    """Run walkers on the cluster that the file asks for."""
    from openmm_latent.ensemble import connect, run_walkers

    with connect(settings.cluster, len(tasks), settings.out) as client:
        console.print(f"dashboard: {client.dashboard_link}", markup=False)
        with progress_bar() as bar:
            run_walkers(tasks, client, folder, Display(bar, tasks))


class Display:
    """A progress bar of all walkers' frames, and a line where one moves to another worker."""

    def __init__(self, bar: Progress, tasks: list[WalkerTask]) -> None:
        self._bar = bar
        self._n_frames = {task.number: task.config.n_blocks for task in tasks}
        self._n_done = {task.number: min(task.n_saved, task.config.n_blocks) for task in tasks}
        self._began: set[int] = set()
        self._line = bar.add_task("frames", total=sum(self._n_frames.values()), completed=sum(self._n_done.values()))

    def __call__(self, report: Report) -> None:
        """Show one report."""
        if report.kind == "began" and report.walker in self._began:
            self._tell(f"walker {report.walker} lost its worker and goes on at frame {report.n_done} on {report.place}")
        if report.kind == "began":
            self._began.add(report.walker)
        if report.kind == "failed":
            self._tell(f"walker {report.walker} failed at frame {report.n_done}: {report.text}")
        self._n_done[report.walker] = report.n_done
        self._bar.update(self._line, completed=sum(self._n_done.values()))

    def _tell(self, line: str) -> None:
        Console(file=sys.stderr, highlight=False, soft_wrap=True).print(line, markup=False)


def collect(
    store: Annotated[Path, typer.Argument(help="Folder of `ensemble` or `simulate`.")],
    model: Annotated[list[Path], typer.Option(help="Bundle of the runs; give --model again for further ones.")],
    out: Annotated[Path, typer.Option(help="The HDF5 file to write.")],
    weights: Annotated[Path | None, typer.Option(help="NAME.weights.csv of `reweight`.", show_default="none")] = None,
) -> None:
    """Gather latents, slow coordinates, times and weights of all runs in one HDF5 file, with units in its attributes.

    Trajectories stay XTC or DCD files with a PDB file each, which mdtraj and MDAnalysis read.

    **Examples**

    - `openmm-latent collect store --model peptide.latent.pt --out store.h5`

    - `openmm-latent collect store --model peptide.latent.pt --weights eq/peptide.weights.csv --out store.h5`
    """
    from openmm_latent.ensemble.collect import collect as write_file

    n_runs = write_file(store, model, out, weights)
    Console(highlight=False, soft_wrap=True).print(f"wrote {out}: {n_runs} runs", markup=False)
