"""`openmm-latent flexibility`: from one structure to RMSF, ellipsoids and couplings, without any MD."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from openmm_latent.errors import require

_BAR = 30  # characters of the longest bar


def flexibility(
    pdb: Annotated[Path, typer.Argument(help="Structure of a protein; hydrogens, water and ligands do not matter.")],
    model: Annotated[
        Path | None, typer.Option(help="Weights that `train dynaprot` wrote.", show_default="those shipped")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Beginning of the files' names.", show_default="PDB-flexibility")
    ] = None,
) -> None:
    """Predict how a protein fluctuates, by DynaProt: RMSF, anisotropy and couplings of its residues.

    Writes OUT.csv (RMSF and ellipsoids), OUT.pdb (B-factors, and ANISOU of each Cα), OUT.couplings.csv and OUT.svg.
    The shipped weights come from short MD of ten small proteins in implicit solvent, 300 K: local fluctuations.

    **Examples**

    - `openmm-latent flexibility protein.pdb`

    - `openmm-latent flexibility protein.pdb --model atlas.weights.pt --out figures/protein`
    """
    from openmm_latent.data.trajectories import load_topology
    from openmm_latent.models.dynaprot.covariance import couplings, marginals
    from openmm_latent.models.dynaprot.prediction import predict
    from openmm_latent.models.dynaprot.weights import SHIPPED_WEIGHTS, load_weights
    from openmm_latent.report.flexibility import Flexibility

    out = pdb.with_name(f"{pdb.stem}-flexibility") if out is None else out
    require(out.parent.is_dir(), f"out (--out): the folder '{out.parent}' does not exist; create it first")
    topology, positions = load_topology(pdb)
    require(positions is not None, f"{pdb} has no positions; give a PDB or mmCIF file")
    network, _ = load_weights(SHIPPED_WEIGHTS if model is None else model)
    predicted = predict(network, topology, positions)
    marginal, coupling = (read(predicted.covariance).numpy() for read in (marginals, couplings))
    found = Flexibility(topology, positions, predicted.backbone, marginal, coupling)
    console = Console(highlight=False, soft_wrap=True)
    console.print(_table(found.residues, found.rmsf))
    paths = found.write(out)
    console.print("wrote " + ", ".join(map(str, paths)), markup=False)


def _table(residues: list, rmsf: np.ndarray) -> Table:
    """Return one line a residue, with a bar."""
    table = Table(box=None, pad_edge=False)
    table.add_column("residue")
    table.add_column("RMSF / nm", justify="right")
    table.add_column("")
    for residue, value in zip(residues, rmsf, strict=True):
        bar = "█" * max(1, round(_BAR * value / rmsf.max()))
        table.add_row(f"{residue.chain.id} {residue.name} {residue.id}", f"{value:.3f}", bar)
    return table
