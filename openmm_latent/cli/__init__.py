"""The command line: `openmm-latent generate | train | inspect | export | simulate | reweight | evaluate | ...`."""

from __future__ import annotations

import typer

from openmm_latent.cli.backmap import backmap
from openmm_latent.cli.bind import bind
from openmm_latent.cli.common import Command, Group
from openmm_latent.cli.dataset import dataset_app
from openmm_latent.cli.ensemble import collect, ensemble
from openmm_latent.cli.evaluate import EvaluateCommand, evaluate
from openmm_latent.cli.export import export
from openmm_latent.cli.flexibility import flexibility
from openmm_latent.cli.generate import generate
from openmm_latent.cli.inspect import inspect
from openmm_latent.cli.interpolate import interpolate
from openmm_latent.cli.reweight import reweight
from openmm_latent.cli.sample import sample
from openmm_latent.cli.simulate import simulate
from openmm_latent.cli.train import train_app

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Learned latent jumps beside physical MD in OpenMM.\n\n"
    "Units: nm, ps, K, kJ/mol, amu. Every long run can be stopped with Ctrl-C; the same command goes on with it.",
    epilog="Start with `openmm-latent generate peptide.pdb --out md`, then `train gldp`, then `simulate`.",
)
for function in (
    generate,
    inspect,
    export,
    simulate,
    ensemble,
    collect,
    reweight,
    bind,
    backmap,
    flexibility,
    sample,
    interpolate,
):
    app.command(cls=Command)(function)
app.command(cls=EvaluateCommand)(evaluate)
app.add_typer(train_app, name="train")
app.add_typer(dataset_app, name="dataset")

__all__ = ["app"]
