"""One HDF5 file of all runs: latents, slow coordinates, times and weights, frame by frame as in the trajectories.

| group or dataset | shape | unit |
|---|---|---|
| `runs/<folder>` | attributes: the run's provenance, its trajectory and topology | |
| `.../time` | (n_frames,) | ps of relaxation |
| `.../since_jump` | (n_frames,) | ps since the last accepted jump, or the start |
| `.../latent` | (n_frames, n_latent) | 1; where the model has an encoder |
| `.../slow` | (n_frames, n_slow) | 1; where it has slow coordinates |
| `.../weight` | (n_frames,) | 1; where weights are given: 0 for frames that were dropped, sum 1 over all runs |

Each dataset says its unit in the attribute `units`. The trajectories themselves stay what they are, XTC or DCD with a
PDB file, which mdtraj and MDAnalysis read.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import mdtraj
import numpy as np
import torch

from openmm_latent.analysis import Run, find_runs, read_hybrid_run, trajectory_of
from openmm_latent.errors import require
from openmm_latent.simulation import LatentModel

#: Frames that the encoder takes at once.
_BLOCK = 2048


def collect(store: Path, models: Sequence[Path], out: Path, weights: Path | None = None) -> int:
    """Write the runs of a store into one HDF5 file.

    Parameters
    ----------
    store : Path
        Folder of `simulate` or `ensemble`.
    models : sequence of Path
        The bundles that the runs were made with; each run takes the one that its provenance names.
    out : Path
        The file; written whole or not at all.
    weights : Path, optional
        NAME.weights.csv of `reweight`.

    Returns
    -------
    int
        How many runs there are.

    Raises
    ------
    LatentError
        A run's model is not among those given, or the weights are of other runs.
    """
    tables = find_runs([store])
    known = {model.manifest.sha256: model for model in map(LatentModel, models)}
    shares = _read_weights(weights, tables) if weights is not None else {}
    partial = out.with_name(out.name + ".part")
    out.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(partial, "w") as handle:
        handle.attrs["what"] = "runs of openmm-latent, a group each; every dataset names its unit"
        for table in tables:
            run = read_hybrid_run(table, is_for_reweighting=False)
            digest = str(run.facts.get("bundle_sha256"))
            require(
                digest in known,
                f"model (--model) is missing for {table.parent}: it was run with {run.facts.get('bundle')}, SHA-256 "
                f"{digest[:12]}; give that bundle, too",
            )
            name = str(table.parent.relative_to(store)) if table.parent != store else table.parent.name
            group = handle.create_group(f"runs/{name}")
            _write_run(group, run, table, known[digest], shares.get(_name(table)))
    os.replace(partial, out)
    return len(tables)


def _name(table: Path) -> str:
    return str(table.parent.resolve() / table.name.removesuffix(".latent.csv"))


def _write_run(group: Any, run: Run, table: Path, model: LatentModel, weight: Mapping[int, float] | None) -> None:
    n_frames = len(run.torsions)
    group.attrs["trajectory"] = trajectory_of(table).name
    group.attrs["topology"] = table.name.removesuffix(".latent.csv") + ".pdb"
    group.attrs["frame_spacing_ps"] = run.frame_spacing
    group.attrs["provenance"] = json.dumps(run.facts)
    columns: dict[str, tuple[np.ndarray, str, str]] = {
        "time": (run.frame_spacing * np.arange(1, n_frames + 1), "ps", "of relaxation MD"),
        "since_jump": (run.since_start, "ps", "since the last accepted jump, or the start of the run"),
    }
    latent, slow = _coordinates(table, model)
    if latent is not None:
        columns["latent"] = (latent, "1", "what the model's encoder makes of the frame")
    if slow is not None:
        columns["slow"] = (slow, "1", "slow coordinates of the model")
    if weight is not None:
        values = np.zeros(n_frames)
        values[list(weight)] = list(weight.values())
        columns["weight"] = (values, "1", "of the frame in equilibrium; 0: left out by the reweighting")
    for name, (data, units, what) in columns.items():
        dataset = group.create_dataset(name, data=data, compression="gzip")
        dataset.attrs["units"], dataset.attrs["description"] = units, what


def _coordinates(table: Path, model: LatentModel) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return latents (n_frames, n_latent) and slow coordinates (n_frames, n_slow), or None where there are none."""
    if "encode" not in model.manifest.capabilities:
        return None, None
    has_slow = "slow" in model.manifest.capabilities
    top = table.with_name(table.name.removesuffix(".latent.csv") + ".pdb")
    atoms = model.modelAtoms(mdtraj.load_topology(str(top)).to_openmm())
    latents, slows = [], []
    for chunk in mdtraj.iterload(str(trajectory_of(table)), top=str(top), atom_indices=sorted(atoms), chunk=_BLOCK):
        # mdtraj gives atoms in rising order, the model wants its own
        positions = chunk.xyz[:, np.argsort(np.argsort(atoms))].astype(float)
        centred = torch.from_numpy(positions - positions.mean(axis=1, keepdims=True)).float()
        with torch.inference_mode():
            latent = model._bundle.module.encode(centred)
            latents.append(latent.numpy())
            if has_slow:
                slows.append(model._bundle.module.slow(latent).numpy())
    return np.concatenate(latents), np.concatenate(slows) if has_slow else None


def _read_weights(path: Path, tables: Sequence[Path]) -> dict[str, dict[int, float]]:
    """Return run -> frame -> weight."""
    require(
        path.is_file(), f"weights (--weights) {path} does not exist; give the NAME.weights.csv that `reweight` wrote"
    )
    found: dict[str, dict[int, float]] = {_name(table): {} for table in tables}
    with open(path, newline="") as handle:
        for row in csv.DictReader(handle):
            run = str(Path(row.get("run") or "").resolve())
            require(
                run in found,
                f"weights (--weights) {path} names run {row.get('run')}, which is not in the store; reweight it",
            )
            found[run][int(row["frame"])] = float(row["weight"])
    return found
