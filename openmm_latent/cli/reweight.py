"""`openmm-latent reweight`: guarded or exploratory runs into equilibrium populations, weights and free energies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from openmm_latent.cli.common import SeedOption
from openmm_latent.errors import require


def reweight(
    run: Annotated[
        list[Path], typer.Option(help="Folder of `simulate` or `ensemble`; give --run again for each further one.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for results (JSON), weights and surface (CSV), figures (PNG).")],
    md: Annotated[
        list[Path] | None, typer.Option(help="Trajectories of plain MD of the same system, as further segments.")
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="A state to give the population of: NAME=EXPRESSION, or an expression that is its own name. Torsions "
            "are compared in degrees (-180 to 180) and joined by and, or, not: 'phi>0', 'helix=-100<phi[2]<-30 and "
            "psi[2]<50' (residue numbers as in the PDB file, with chains phi[A:2]). Give --state again for more."
        ),
    ] = None,
    fes: Annotated[
        list[str] | None, typer.Option(help="One or two torsions of the free-energy surface.", show_default="phi, psi")
    ] = None,
    lag_time: Annotated[
        float | None, typer.Option(help="[ps] of the Markov model.", show_default="the first that has converged")
    ] = None,
    drop: Annotated[
        float | None, typer.Option(help="[ps] left out after each accepted jump.", show_default="chosen by a test")
    ] = None,
    microstates: Annotated[int, typer.Option(help="Of the Markov model, about.")] = 40,
    transitions: Annotated[int, typer.Option(help="Needed each way of each slow process; fewer, no number.")] = 5,
    md_stride: Annotated[int, typer.Option(help="Keep every n-th frame of --md.")] = 1,
    frame_spacing: Annotated[float | None, typer.Option(help="[ps] of --md.", show_default="as its files say")] = None,
    seed: SeedOption = 1,
) -> None:
    """Turn the relaxations of guarded or exploratory runs into equilibrium, by a Markov model of them.

    Where relaxations start is the network's doing; how they go on is unbiased MD. What the data do not settle is not
    told as a number, but in a sentence that says what is missing.

    **Examples**

    - `openmm-latent reweight --run hybrid --out equilibrium --state "phi>0"`

    - `openmm-latent reweight --run a --run b --md md/peptide_00.xtc --out eq --state "left=phi[3]>0" --lag-time 10`
    """
    from openmm_latent.analysis import (
        ReweightConfig,
        State,
        TorsionTable,
        find_runs,
        read_hybrid_run,
        read_plain_md,
        require_one_ensemble,
        to_segments,
    )
    from openmm_latent.analysis import reweight as run_reweight
    from openmm_latent.analysis.report import describe_population, write_report

    states = [State.parse(text) for text in state or []]
    names = [one.name for one in states]
    require(len(set(names)) == len(names), f"state (--state) names must differ, got {', '.join(names)}")
    require(len(fes or []) in (0, 1, 2), f"fes (--fes) takes one or two torsions, got {len(fes or [])}")
    tables = find_runs(run)
    top = tables[0].with_name(tables[0].name.removesuffix(".latent.csv") + ".pdb")
    torsions = TorsionTable.from_topology(top)
    axes = _axes(fes, torsions.names)
    for text in axes:
        torsions.index(text)
    for one in states:
        one.require_known(torsions)
    runs = [read_hybrid_run(table, torsions) for table in tables]
    runs += [read_plain_md(path, torsions, frame_spacing, md_stride) for path in md or []]
    require_one_ensemble(runs)
    config = ReweightConfig(
        temperature=float(runs[0].facts["temperature"]),
        lag_time=lag_time,
        dropped_time=drop,
        n_microstates=microstates,
        fewest_transitions=transitions,
        seed=seed,
    )
    result = run_reweight(to_segments(runs, torsions, states, axes), runs[0].frame_spacing, names, config)
    files = write_report(result, runs, states, axes, out, tables[0].name.removesuffix(".latent.csv"))
    console = Console(highlight=False, soft_wrap=True)
    if result.lag_time is not None:
        chosen = "given" if result.settling is None else f"by a test at the {100 * config.level:g} % level"
        console.print(
            f"{len(result.segments)} segments, {result.dropped_time:g} ps dropped of each ({chosen}), lag "
            f"{result.lag_time:g} ps",
            markup=False,
        )
    for population in result.populations:
        console.print(describe_population(population), markup=False)
    if result.refusals:
        console.print(f"no weights and no surface, as {'; '.join(result.refusals)}", markup=False)
    console.print("written: " + ", ".join(str(path) for path in files), markup=False)


def _axes(asked: list[str] | None, names: list[str]) -> list[str]:
    """Return the torsions of the surface: those asked for, or phi and psi of the first residue that has both."""
    if asked:
        return asked
    pairs = [(name, name.replace("phi", "psi")) for name in names if name.startswith("phi")]
    return next(([phi, psi] for phi, psi in pairs if psi in names), [])
