"""`openmm-latent export`: a bundle with its methods compiled for the machine at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from openmm_latent.errors import require


def export(
    bundle: Annotated[Path, typer.Argument(help="A bundle, e.g. peptide.latent.pt.")],
    out: Annotated[
        Path | None, typer.Option(help="The bundle to write.", show_default="the bundle itself, once all is compiled")
    ] = None,
    runner: Annotated[str, typer.Option(help="What will run the methods: aoti (AOTInductor).")] = "aoti",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Compile a bundle's methods for this machine: the same numbers, several times sooner for small molecules.

    It needs a C++ compiler, now but not later. The bundle still runs everywhere: another kind of processor, or another
    version of torch, takes the TorchScript module that stays in it. Compiled methods are machine code: run bundles
    from those you trust.

    **Example**

    - `openmm-latent export peptide.latent.pt --runner aoti --out peptide.aoti.latent.pt`
    """
    from openmm_latent.compiling import compile_bundle

    require(runner == "aoti", f"runner must be 'aoti', got {runner!r}; TorchScript is in every bundle already")
    out = bundle if out is None else out
    differences = compile_bundle(bundle, out, device)
    for method, difference in differences.items():
        Console().print(f"{method}: compiled, largest difference from TorchScript {difference:.1e}", highlight=False)
    Console().print(f"wrote {out}", highlight=False)
