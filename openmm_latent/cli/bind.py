"""`openmm-latent bind`: a transferable family's weights and a structure into a bundle for that system."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from openmm_latent.cli.common import LigandOption
from openmm_latent.errors import LatentError, require

#: Family -> "module:function"; the function takes (weights, topology, positions [nm], out), and by name those of the
#: command's options that the user gave, and writes the bundle.
BINDERS: dict[str, str] = {
    "dynaprot": "openmm_latent.training.dynaprot_binding:bind_dynaprot",
    "codlad": "openmm_latent.training.codlad_binding:bind_codlad",
    "confrover": "openmm_latent.training.confrover_binding:bind_confrover",
    "atmos": "openmm_latent.training.atmos_binding:bind_atmos",
}

#: Family -> "module:path" of weights that come with the package; the family's bare name stands for them.
SHIPPED = {"dynaprot": "openmm_latent.models.dynaprot.weights:SHIPPED_WEIGHTS"}

#: Binder's argument -> option, where the two have different names.
_OPTIONS = {"ligands": "ligand"}

#: Families trained for one system only, and what to do instead.
PER_SYSTEM = {"gldp": "train one with `openmm-latent train gldp --top TOP --traj FILE... --lag-time PS --out BUNDLE`"}


def bind(
    weights: Annotated[Path, typer.Argument(help="Weights of a transferable family; `dynaprot`: those shipped.")],
    top: Annotated[Path, typer.Option(help="Structure of the system to bind them to.")],
    out: Annotated[Path, typer.Option(help="The bundle to write.")],
    lag_time: Annotated[
        float | None, typer.Option(help="[ps] that one jump is taken to cover.", show_default="the family's")
    ] = None,
    relaxation_time: Annotated[
        float | None,
        typer.Option(
            help="[ps] after which a jump has forgotten where it began, 0 for independent jumps (dynaprot).",
            show_default="the family's",
        ),
    ] = None,
    backmap: Annotated[
        Path | None,
        typer.Option(
            help="Bundle of the same protein that draws all other atoms on the Cα atoms (dynaprot); one of codlad.",
            show_default="residues move as rigid bodies",
        ),
    ] = None,
    n_steps: Annotated[
        int | None,
        typer.Option(
            help="Diffusion steps of a frame (codlad, confrover, atmos); fewer: coarser.", show_default="the model's"
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Another network's features of this system, .npz (confrover, atmos).", show_default="none"),
    ] = None,
    coordinates: Annotated[
        Path | None,
        typer.Option(help="Positions, where --top has none: inpcrd, rst7, gro, PDB.", show_default="those of --top"),
    ] = None,
    ligand: LigandOption = None,
    system: Annotated[
        Path | None,
        typer.Option(
            help="System of --top whose charges the model sees, .xml or Amber .prmtop (atmos); as in training.",
            show_default="formal charges",
        ),
    ] = None,
) -> None:
    """Bind a transferable family's weights to a structure: a bundle for that system, without training.

    **Examples**

    - `openmm-latent bind dynaprot --top protein.pdb --out protein.latent.pt`

    - `openmm-latent bind dynaprot.weights.pt --top protein.pdb --out protein.latent.pt --relaxation-time 500`

    - `openmm-latent bind codlad.weights.pt --top protein.pdb --out atoms.latent.pt`

    - `openmm-latent bind dynaprot --top protein.pdb --out protein.latent.pt --backmap atoms.latent.pt`

    - `openmm-latent bind confrover.weights.pt --top protein.pdb --out protein.latent.pt --lag-time 100`

    - `openmm-latent bind atmos.weights.pt --top complex.pdb --ligand ligand.sdf --out complex.latent.pt`

    - `openmm-latent bind atmos.weights.pt --top complex.prmtop --coordinates complex.rst7 --system complex.prmtop
      --out complex.latent.pt`
    """
    from openmm_latent.data.complex_files import read_positions, read_system
    from openmm_latent.data.trajectories import load_topology

    if str(weights) in SHIPPED and not weights.exists():
        weights = _named(SHIPPED[str(weights)])
    family = family_of(weights).lower()
    require(
        family not in PER_SYSTEM,
        f"{weights} is a {family.upper()} model, made for the one system it was trained on, and cannot be bound to "
        f"another; {PER_SYSTEM.get(family, '')}",
    )
    require(
        family in BINDERS,
        f"{weights} is of family {family!r}, which this version cannot bind; it knows {', '.join(BINDERS) or 'none'}",
    )
    topology, positions = load_topology(top)
    if coordinates is not None:
        positions = read_positions(coordinates, topology)
    require(
        positions is not None,
        f"top (--top) {top} has no positions; give a PDB or mmCIF file, or the positions by --coordinates",
    )
    given = {
        "lag_time": lag_time,
        "relaxation_time": relaxation_time,
        "backmap": backmap,
        "n_steps": n_steps,
        "features": features,
        "ligands": ligand or None,
        "system": system,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    binder = load_binder(family)
    unknown = [_OPTIONS.get(name, name) for name in chosen if name not in signature(binder).parameters]
    told = " and ".join(f"--{name.replace('_', '-')}" for name in unknown)
    require(not unknown, f"{told} means nothing to family {family!r}; leave it out")
    if system is not None:
        chosen["system"] = read_system(system, topology)
    binder(weights, topology, positions, out, **chosen)
    Console(soft_wrap=True).print(f"wrote {out}: {_told_of(out)}", highlight=False, markup=False)


def _told_of(bundle: Path) -> str:
    """Return how many model atoms a bundle has, and in which residues that are no amino acids."""
    from openmm_latent.bundle import inspect_bundle
    from openmm_latent.data.backbone import residue_type
    from openmm_latent.nn.residue_geometry import UNKNOWN

    atoms = inspect_bundle(bundle)["atoms"]
    places = Counter((atom["residue_name"], atom["chain"], atom["residue_index"]) for atom in atoms)
    others = [f"{name} ({n} atoms)" for (name, *_), n in places.items() if residue_type(name) == UNKNOWN]
    return f"{len(atoms)} model atoms" + (f", of them {', '.join(others)}" if others else "")


def load_binder(family: str) -> Callable[..., Any]:
    """Import the function that binds a family; only then is the family's code loaded."""
    return _named(BINDERS[family])


def _named(what: str) -> Any:
    """Return "module:name"."""
    module, _, name = what.partition(":")
    return getattr(import_module(module), name)


def family_of(weights: Path) -> str:
    """Return the family that a bundle, or a file of weights written by a family's training, names.

    Raises
    ------
    LatentError
        The file is absent or of neither kind.
    """
    import torch

    from openmm_latent.bundle import inspect_bundle

    require(weights.is_file(), f"weights file {weights} does not exist; check the name")
    try:
        family = inspect_bundle(weights)["family"]
    except LatentError as error:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # torch's, about TorchScript archives that are no bundle
                family = torch.load(weights, weights_only=True, map_location="cpu")["family"]
        except Exception:  # neither: then the bundle's error is the one to show
            raise LatentError(f"{weights} holds neither a family's weights nor a bundle: {error}") from error
    require(isinstance(family, str), f"{weights} names no family; give the weights that a family's training wrote")
    return family
