"""`openmm-latent inspect`: what a bundle says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

#: Lists longer than this are counted, not printed.
_LONGEST = 8


def inspect(
    bundle: Annotated[Path, typer.Argument(help="A bundle, e.g. peptide.latent.pt.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole manifest as JSON.")] = False,
) -> None:
    """Show a bundle's manifest: family, atoms, lag time, training data, capabilities, checksums.

    **Examples**

    - `openmm-latent inspect peptide.latent.pt`

    - `openmm-latent inspect peptide.latent.pt --json > manifest.json`
    """
    from openmm_latent.bundle import inspect_bundle

    manifest = inspect_bundle(bundle)
    if as_json:
        print(json.dumps(manifest, indent=2, default=str))
        return
    table = Table(title=bundle.name, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in manifest.items():
        if isinstance(value, dict):
            for inner, content in value.items():
                table.add_row(f"{key}.{inner}", _words(content))
        else:
            table.add_row(key, _words(value))
    Console().print(table)


def _words(value: Any) -> str:
    if isinstance(value, list | tuple) and len(value) > _LONGEST:
        return f"{len(value)} of them: {value[0]} ... {value[-1]}"
    if isinstance(value, list | tuple):
        return ", ".join(str(part) for part in value) or "none"
    return str(value)
