"""`openmm-latent dataset show | export | manifest | check`: public and own data sets of many proteins."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import TaskID

from openmm_latent.cli.common import EXIT_MISTAKE, Group, progress_bar
from openmm_latent.data.datasets import Run
from openmm_latent.data.export import export_entry
from openmm_latent.data.folders import unmatched_trajectories
from openmm_latent.data.manifest import Findings, check_manifest, look_at, write_manifest
from openmm_latent.data.recognise import open_dataset

dataset_app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Look at a data set of many proteins (ATLAS, mdCATH, MISATO, or your own folder), write its manifest, or one "
    "protein of it as PDB and XTC.",
)
PathArgument = Annotated[Path, typer.Argument(help="Folder, zip archive or HDF5 file.")]
SpacingOption = Annotated[float | None, typer.Option(help="[ps] between frames, believed over what the files say.")]


@dataset_app.command()
def show(
    path: PathArgument,
    entry: Annotated[
        list[str] | None, typer.Option(help="Look closely at these entries: missing atoms, gaps, fit of topologies.")
    ] = None,
    frame_spacing: SpacingOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print findings as JSON.")] = False,
) -> None:
    """Show which proteins a data set holds, and what is missing in them.

    **Examples**

    - `openmm-latent dataset show atlas/`

    - `openmm-latent dataset show MD.hdf5 --entry 1A28 --json`
    """
    dataset = open_dataset(path, frame_spacing=frame_spacing)
    if entry:
        findings = [look_at(dataset[name]) for name in entry]
        content: Any = [asdict(found) for found in findings]
        lines = [line for found in findings for line in _describe(found, dataset[found.name].runs)]
    else:
        content = {"kind": dataset.kind, "licence": dataset.licence, "entries": dataset.names}
        n_entries = "1 entry" if len(dataset) == 1 else f"{len(dataset)} entries"
        lines = [f"{dataset.kind}, {n_entries}; licence: {dataset.licence}", " ".join(dataset.names)]
        if dataset.kind == "files":
            lines += unmatched_trajectories(path)
    if as_json:
        print(json.dumps(content, indent=1))
        return
    for line in lines:
        Console(soft_wrap=True, highlight=False).print(line, markup=False)


def _describe(found: Findings, runs: Iterable[Run]) -> Iterator[str]:
    yield f"{found.name}: {found.n_residues} residues, {found.n_atoms} atoms, {found.n_frames} frames"
    for run in runs:
        spacing = "unknown" if run.frame_spacing is None else f"{run.frame_spacing:g}"
        at = "" if run.temperature is None else f", {run.temperature:g} K"
        yield f"  run {run.name}: {run.n_frames} frames, {spacing} ps apart{at}"
    lines = [*found.missing, *found.gaps, *found.stretched, *found.notes]
    if found.nonstandard:
        lines.append(f"residues without a template: {', '.join(found.nonstandard)}")
    for line in lines or ["nothing missing"]:
        yield f"  {line}"


@dataset_app.command()
def export(
    path: PathArgument,
    entry: Annotated[str, typer.Argument(help="The protein to write, as `dataset show` names it.")],
    out: Annotated[Path, typer.Option(help="Folder for ENTRY.pdb and ENTRY_RUN.xtc.")],
    run: Annotated[list[str] | None, typer.Option(help="Only this run; may be repeated.", show_default="all")] = None,
    temperature: Annotated[float | None, typer.Option(help="[K] Only runs at this one.", show_default="all")] = None,
    stride: Annotated[int, typer.Option(help="Keep every n-th frame.")] = 1,
    frame_spacing: SpacingOption = None,
) -> None:
    """Write an entry as PDB and XTC files, which `train` and `evaluate` read.

    **Examples**

    - `openmm-latent dataset export mdcath/ 1abcA00 --temperature 320 --out 1abcA00`

    - `openmm-latent dataset export MD.hdf5 1A28 --out 1A28`
    """
    dataset = open_dataset(path, frame_spacing=frame_spacing)
    with _Bar() as bar:
        files = export_entry(dataset, entry, out, runs=run, temperature=temperature, stride=stride, progress=bar.show)
    Console(soft_wrap=True, highlight=False).print("written: " + ", ".join(map(str, files)), markup=False)


@dataset_app.command()
def manifest(
    path: PathArgument,
    out: Annotated[Path, typer.Option(help="The JSON file to write.")],
    frame_spacing: SpacingOption = None,
) -> None:
    """Write a manifest: every file with size and SHA-256, every run with frames, spacing and temperature.

    **Example**

    - `openmm-latent dataset manifest atlas/ --out atlas.manifest.json`
    """
    dataset = open_dataset(path, frame_spacing=frame_spacing)
    with _Bar() as bar:
        content = write_manifest(dataset, out, bar.show)
    Console(soft_wrap=True, highlight=False).print(
        f"wrote {out}: {content['n_entries']} entries in {len(content['files'])} files", markup=False
    )


@dataset_app.command()
def check(
    path: PathArgument,
    manifest: Annotated[Path, typer.Option(help="The manifest to compare with.")],
    sizes_only: Annotated[bool, typer.Option("--sizes-only", help="Compare sizes, not contents.")] = False,
) -> None:
    """Compare a data set's files with its manifest; exit code 2 if any differs.

    **Example**

    - `openmm-latent dataset check atlas/ --manifest atlas.manifest.json`
    """
    with _Bar() as bar:
        problems = check_manifest(manifest, path, reads_contents=not sizes_only, progress=bar.show)
    console = Console(soft_wrap=True, highlight=False)
    for problem in problems:
        console.print(problem, markup=False)
    if problems:
        raise typer.Exit(EXIT_MISTAKE)
    console.print(f"all files are as {manifest} says", markup=False)


class _Bar:
    """A progress bar for work on many files."""

    def __enter__(self) -> _Bar:
        self._bar = progress_bar()
        self._bar.start()
        self._task: TaskID | None = None
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, done: int, total: int, what: str) -> None:
        """Move the bar."""
        if self._task is None:
            self._task = self._bar.add_task(what, total=total)
        self._bar.update(self._task, completed=done, total=total, description=what)
