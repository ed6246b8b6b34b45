"""Figures of a reweighting: free-energy surface, implied timescales, Chapman-Kolmogorov test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from openmm_latent.analysis.results import Reweighting

#: Bins of a torsion axis over (-180, 180) degrees: of a line, and of each side of a map.
LINE_BINS, MAP_BINS = 72, 36


def torsion_edges(n_axes: int) -> list[np.ndarray]:
    """Return bin edges [degrees] of one or two torsions."""
    return [np.linspace(-180.0, 180.0, (LINE_BINS if n_axes == 1 else MAP_BINS) + 1)] * n_axes


def draw_surface(result: Reweighting, names: list[str], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Draw the surface over one or two torsions and return it with its errors [kJ/mol]."""
    edges = torsion_edges(len(names))
    free_energy, error = result.surface(range(len(names)), edges)
    centres = 0.5 * (edges[0][1:] + edges[0][:-1])
    if len(names) == 1:
        figure, axis = _figure(1)
        axis.plot(centres, free_energy)
        axis.fill_between(centres, free_energy - 1.96 * error, free_energy + 1.96 * error, alpha=0.3, label="95 %")
        axis.set(xlabel=f"{names[0]} / degrees", ylabel="free energy / kJ/mol", xlim=(-180, 180))
        axis.legend()
    else:
        figure, axes = _figure(2)
        titles = "free energy / kJ/mol", "standard error / kJ/mol"
        for axis, values, title in zip(axes, (free_energy, error), titles, strict=True):
            drawn = axis.pcolormesh(edges[0], edges[1], values.T, cmap="viridis")
            figure.colorbar(drawn, ax=axis, label=title)
            axis.set(xlabel=f"{names[0]} / degrees", ylabel=f"{names[1]} / degrees")
    _write(figure, path)
    return free_energy, error


def draw_timescales(result: Reweighting, path: Path) -> None:
    """Draw implied timescales against the lag, with the bootstrap's 95 % band, and the lag that was chosen."""
    figure, axis = _figure(1)
    lags = np.array([rung.model.lag_frames for rung in result.ladder]) * result.frame_spacing
    n_processes = min(3, *(rung.timescales.shape[1] for rung in result.ladder))
    for process in range(n_processes):
        values = np.array([rung.timescales[:, process] for rung in result.ladder])  # (n_lags, 1 + n_replicas)
        line = axis.plot(lags, values[:, 0], "o-")[0]
        low, high = np.nanpercentile(values[:, 1:], [2.5, 97.5], axis=1)
        axis.fill_between(lags, low, high, alpha=0.2, color=line.get_color())
    axis.fill_between(lags, lags, alpha=0.15, color="black", label="faster than the lag")
    if result.lag_time is not None:
        axis.axvline(result.lag_time, linestyle=":", color="black", label="lag used")
    axis.set(xscale="log", yscale="log", xlabel="lag / ps", ylabel="implied timescale / ps")
    axis.legend()
    _write(figure, path)


def draw_chapman_kolmogorov(result: Reweighting, path: Path) -> None:
    """Draw predicted and estimated probabilities to be in each state again."""
    tests = result.chapman_kolmogorov
    figure, axes = _figure(max(1, len(tests)))
    for axis, (name, test) in zip(np.atleast_1d(axes), tests.items(), strict=False):
        for column, word in enumerate(("in it", "outside")):
            line = axis.plot(test.lags, test.predicted[:, column], "-", label=f"{word}: predicted")[0]
            axis.errorbar(
                test.lags,
                test.estimated[:, column],
                1.96 * test.estimated_sd[:, column],
                fmt="o",
                capsize=3,
                color=line.get_color(),
                label=f"{word}: estimated",
            )
        axis.set(xlabel="time / ps", ylabel="probability to be there again", title=name)
        axis.legend()
    _write(figure, path)


def _figure(n_panels: int) -> tuple[Any, Any]:
    """Return a figure and its axes without a display and without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * n_panels, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, n_panels)


def _write(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=150)
