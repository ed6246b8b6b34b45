"""`openmm-latent evaluate`: a sample against reference MD, as numbers and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from openmm_latent.cli.common import Command, SeedOption, TopOption, spread

#: Options that take several files, or numbers, at once.
_SEVERAL = ("--reference", "--sample", "--md", "--training", "--jumps", "--energies", "--lag-times")


class EvaluateCommand(Command):
    """A command with several options that each take what follows them, as a shell's `*` gives it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat each such option before each of its values."""
        for option in _SEVERAL:
            args = spread(args, option)
        return super().parse_args(ctx, args)


def evaluate(
    reference: Annotated[list[Path], typer.Option(help="Trajectories of the reference MD, one run a file.")],
    sample: Annotated[
        list[Path], typer.Option(help="Trajectories that are judged, one run a file; or folders of runs.")
    ],
    top: TopOption,
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, metrics.csv and report.html.")],
    sample_top: Annotated[
        Path | None, typer.Option(help="Topology of the sample, where it has other atoms.", show_default="--top")
    ] = None,
    structure: Annotated[
        Path | None, typer.Option(help="Such as the crystal's: frames are superposed on it.", show_default="--top's")
    ] = None,
    atoms: Annotated[str, typer.Option(help="Scored: heavy, all (neither has water and ions) or ca.")] = "heavy",
    stride: Annotated[int, typer.Option(help="Keep every n-th frame of all trajectories.")] = 1,
    frame_spacing: Annotated[
        float | None, typer.Option(help="[ps] of the reference.", show_default="as its files say")
    ] = None,
    sample_frame_spacing: Annotated[
        float | None, typer.Option(help="[ps] of the sample.", show_default="as its files say")
    ] = None,
    independent: Annotated[
        bool, typer.Option("--independent", help="The sample's frames are independent draws: no kinetics.")
    ] = False,
    lag_time: Annotated[
        float | None, typer.Option(help="[ps] of TICA.", show_default="the reference's shortest run / 250")
    ] = None,
    lag_times: Annotated[
        list[float] | None, typer.Option(help="[ps] of lagged pairs.", show_default="1, 5 and 25 times --lag-time")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="[K] of free energies.", show_default="as the files say, else kT")
    ] = None,
    jumps: Annotated[list[Path] | None, typer.Option(help="CSV files of a LatentReporter.")] = None,
    energies: Annotated[list[Path] | None, typer.Option(help="CSV files of a StateDataReporter.")] = None,
    peers: Annotated[str, typer.Option(help="Also in the table: anm, gaussian, md, with commas between.")] = "",
    md: Annotated[list[Path] | None, typer.Option(help="Plain MD of the same cost, for the peer md.")] = None,
    training: Annotated[
        list[Path] | None,
        typer.Option(help="What peers are fitted on.", show_default="the reference's first half"),
    ] = None,
    ligand: Annotated[
        list[str] | None, typer.Option(help="Residue name of the ligand, to score it and its pocket; may be repeated.")
    ] = None,
    backmap: Annotated[
        bool, typer.Option("--backmap", help="The sample's frames are the reference's, rebuilt, in order.")
    ] = False,
    fine_surfaces: Annotated[
        bool, typer.Option("--fine-surfaces", help="Torsion surfaces of 72 x 72 bins, too.")
    ] = False,
    cpu_seconds: Annotated[float | None, typer.Option(help="Of the whole sample, for its cost.")] = None,
    force_evaluations: Annotated[float | None, typer.Option(help="Of the whole sample, for its cost.")] = None,
    name: Annotated[str, typer.Option(help="What the page calls the sample.")] = "sample",
    reference_name: Annotated[str, typer.Option(help="What the page calls the reference.")] = "reference",
    seed: SeedOption = 1,
) -> None:
    """Judge a sample, of a model or a hybrid run, against reference MD.

    Writes every number with its unit, definition and floor (the same between two halves of the reference), and a page
    that any browser opens without a network: plots, the table, and the structure in 3-D.

    **Examples**

    - `openmm-latent evaluate --top md/peptide.pdb --reference md/*.xtc --sample hybrid/peptide.xtc --out report`

    - `openmm-latent evaluate --top p.pdb --reference md/*.xtc --sample s.xtc --out report --peers anm,gaussian`

    - `openmm-latent evaluate --top p.pdb --reference md/*.xtc --sample hybrid/p.xtc --jumps hybrid/p.latent.csv
      --md short/*.xtc --name hybrid --out report`
    """
    from openmm_latent.analysis import find_runs, trajectory_of
    from openmm_latent.report import EvaluationSettings, write_report
    from openmm_latent.report import evaluate as run_evaluation
    from openmm_latent.report.files import check_folder

    check_folder(out)
    # a folder of `simulate`, or the store of `ensemble`, stands for its runs
    if any(place.is_dir() for place in sample):
        tables = find_runs(sample)
        sample, jumps = [trajectory_of(table) for table in tables], jumps or tables
    settings = EvaluationSettings(
        atoms=atoms,
        stride=stride,
        frame_spacing=frame_spacing,
        sample_frame_spacing=sample_frame_spacing,
        is_independent=independent,
        lag_time=lag_time,
        lag_times=tuple(lag_times or ()),
        temperature=temperature,
        peers=tuple(word for word in peers.split(",") if word.strip()),
        ligand=tuple(ligand or ()),
        is_backmapping=backmap,
        has_fine_surfaces=fine_surfaces,
        cpu_seconds=cpu_seconds,
        force_evaluations=force_evaluations,
        name=name,
        reference_name=reference_name,
        seed=seed,
    )
    console, told = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False)
    with told.status("starting") as status:
        found = run_evaluation(
            reference,
            sample,
            top,
            sample_top=sample_top,
            structure=structure,
            md=md or (),
            training=training or (),
            jumps=jumps or (),
            energies=energies or (),
            settings=settings,
            progress=status.update,
        )
        status.update("writing the page")
        files = write_report(found, out)
    console.print(found.summary, markup=False)
    for sentence in (*found.cautions, *found.left_out):
        console.print(sentence, markup=False)
    console.print("written: " + ", ".join(str(path) for path in files), markup=False)
