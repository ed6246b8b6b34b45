"""What `openmm-latent reweight` writes: results with provenance, a weight a frame, figures."""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from openmm_latent.analysis import figures
from openmm_latent.analysis.results import Population, Reweighting
from openmm_latent.analysis.segments import Run
from openmm_latent.analysis.torsions import State
from openmm_latent.version import __version__


def write_report(
    result: Reweighting, runs: Sequence[Run], states: Sequence[State], axes: list[str], out: Path, name: str
) -> list[Path]:
    """Write NAME.json and what the checks let pass: NAME.weights.csv, NAME.fes.csv and the figures.

    Returns
    -------
    list of Path
        The files written.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = {suffix: out / f"{name}.{suffix}" for suffix in ("json", "weights.csv", "fes.csv")}
    files |= {word: out / f"{name}.{word}.png" for word in ("fes", "timescales", "ck")}
    for path in files.values():
        path.unlink(missing_ok=True)  # none of an earlier reweighting may stand beside a refusal
    files["json"].write_text(json.dumps(_facts(result, runs, states), indent=2) + "\n")
    written = [files["json"]]
    if result.ladder:
        figures.draw_timescales(result, files["timescales"])
        written.append(files["timescales"])
    if result.chapman_kolmogorov:
        figures.draw_chapman_kolmogorov(result, files["ck"])
        written.append(files["ck"])
    if not result.refusals:
        _write_weights(result, files["weights.csv"])
        written.append(files["weights.csv"])
        if axes:
            surface = figures.draw_surface(result, axes, files["fes"])
            _write_surface(*surface, axes, files["fes.csv"])
            written += [files["fes"], files["fes.csv"]]
    return written


def describe_population(one: Population) -> str:
    """Return one line on a state: its population with interval, or why there is none."""
    if one.refusals:
        return f"{one.name}: no number, as {'; '.join(one.refusals)}"
    return (
        f"{one.name}: {100 * one.population:.2f} % [{100 * one.low:.2f}, {100 * one.high:.2f}], free energy "  # type: ignore[operator]
        f"{one.free_energy:.2f} kJ/mol [{one.free_energy_low:.2f}, {one.free_energy_high:.2f}] against all else"
    )


def _facts(result: Reweighting, runs: Sequence[Run], states: Sequence[State]) -> dict[str, Any]:
    settings = {key: value for key, value in asdict(result.config).items() if key not in ("lag_time", "dropped_time")}
    return {
        "what": "equilibrium from relaxation segments by a reversible Markov model",
        **settings,
        "frame_spacing": result.frame_spacing,
        "dropped_time": result.dropped_time,
        "dropped_time_test": None if result.settling is None else asdict(result.settling),
        "lag_time": result.lag_time,
        "n_segments": len(result.segments),
        "n_frames_used": int(sum(len(part) for part in result.segments)),
        "md_time_used": round(sum(len(part) for part in result.segments) * result.frame_spacing, 6),
        "states": {state.name: state.expression for state in states},
        "populations": {one.name: _population(one) for one in result.populations},
        "weights_and_surfaces": "given" if not result.refusals else {"refused": result.refusals},
        "slow_processes": [
            {"timescale": process.timescale, "n_there": process.n_there, "n_back": process.n_back}
            for process in result.processes
        ]
        if not result.refusals
        else [],
        "implied_timescales": _timescales(result),
        "chapman_kolmogorov": {
            name: {
                "passes": test.passes,
                "largest_deviation_sd": test.largest,
                **{key: getattr(test, key).tolist() for key in ("lags", "predicted", "estimated", "difference_sd")},
            }
            for name, test in result.chapman_kolmogorov.items()
        },
        "n_microstates_connected": None if result.model is None else len(result.model.active),
        "posterior_effective_draws": None if result.posterior is None else result.posterior.effective_draws,
        "runs": [
            {
                "name": run.name,
                "mode": run.facts.get("mode", "plain MD"),
                "n_frames": len(run.torsions),
                "n_jumps": run.n_jumps,
                "n_accepted": run.n_accepted,
                "bundle_sha256": run.facts.get("bundle_sha256"),
                "sha256": run.digest,
            }
            for run in runs
        ],
        "date": datetime.date.today().isoformat(),
        "code_version": __version__,
        "versions": {package: version(package) for package in ("deeptime", "numpy", "mdtraj")},
    }


def _population(one: Population) -> dict[str, Any]:
    if one.refusals:
        return {"refused": one.refusals}
    return {
        "population": one.population,
        "interval": [one.low, one.high],
        "free_energy_kj_per_mol": one.free_energy,
        "free_energy_sd_kj_per_mol": one.free_energy_sd,
        "free_energy_interval_kj_per_mol": [one.free_energy_low, one.free_energy_high],
    }


def _timescales(result: Reweighting) -> list[dict[str, Any]]:
    """Return the curves against the lag, with which a reader judges a refusal, too."""
    rows = []
    for rung in result.ladder:
        spread = np.nanpercentile(rung.timescales[1:, :3], [2.5, 97.5], axis=0)
        values = [None if np.isnan(value) else float(value) for value in rung.timescales[0, :3]]
        rows.append(
            {
                "lag_time": rung.model.lag_frames * result.frame_spacing,
                "timescales": values,
                "low": [None if np.isnan(value) else float(value) for value in spread[0]],
                "high": [None if np.isnan(value) else float(value) for value in spread[1]],
            }
        )
    return rows


def _write_weights(result: Reweighting, path: Path) -> None:
    with open(path, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["run", "frame", "weight"])
        for part, weights in zip(result.segments, result.weights(), strict=True):
            for number, weight in enumerate(weights):
                writer.writerow([part.run, part.first_frame + number, f"{weight:.9g}"])


def _write_surface(free_energy: np.ndarray, error: np.ndarray, names: list[str], path: Path) -> None:
    edges = figures.torsion_edges(len(names))
    centres = [0.5 * (edge[1:] + edge[:-1]) for edge in edges]
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*centres, indexing="ij")], axis=1)
    with open(path, "w", newline="") as handle:
        writer = csv.writer(handle)
        units = [f"{name}_degrees" for name in names]
        writer.writerow([*units, "free_energy_kj_per_mol", "error_kj_per_mol"])
        for place, value, spread in zip(grid, free_energy.ravel(), error.ravel(), strict=True):
            if np.isfinite(value):
                writer.writerow([*(f"{number:g}" for number in place), f"{value:.4f}", f"{spread:.4f}"])
