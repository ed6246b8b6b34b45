"""Ensembles of tiny walkers, and how two of them are compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from openmm_latent.ensemble import EnsembleConfig, WalkerTask, open_store
from toys import ADP_PDB, Shake, export_toy, load_adp

#: Written by a walker; all of them are the same, byte by byte, whatever happened on the way.
OUTPUTS = ("adp.xtc", "adp.csv", "adp.latent.csv", "adp.json")


def shaking_bundle(folder: Path) -> Path:
    """Return a model that shakes the heavy atoms of alanine dipeptide a little."""
    topology, positions = load_adp()
    return export_toy(Shake(10, 0.003), folder / "shake.latent.pt", topology, positions)


def make_config(bundle: Path, out: Path, walkers: int, duration: float, **changes) -> EnsembleConfig:
    """Return walkers of alanine dipeptide on the Reference platform, a frame every 10 steps."""
    run = {"duration": duration, "jump_interval": 20, "report_interval": 10, "save_every": 0.1}
    settings = {"structure": ADP_PDB, "model": bundle, "out": out, "walkers": walkers, "temperature": 300.0, "run": run}
    return EnsembleConfig(**{**settings, "platform": "Reference", **changes})


def make_tasks(config: EnsembleConfig) -> list[WalkerTask]:
    """Return the walkers, which report often."""
    return [replace(task, report_every=0.05) for task in open_store(config)]


def contents(out: Path, walkers: int) -> list[bytes]:
    """Return all outputs of all walkers."""
    return [(out / f"walker_{i:03d}" / name).read_bytes() for i in range(walkers) for name in OUTPUTS]
