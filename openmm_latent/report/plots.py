"""The plots of a report, each as SVG with a title and a sentence on how to read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from openmm_latent.metrics import GAS_CONSTANT, free_energy
from openmm_latent.report.peers import TITLES
from openmm_latent.report.svg import COLOURS, FAINT, INK, LINES, MARKERS, drawing_style, figure, to_svg

#: Free energies are drawn up to this height [kT].
HIGHEST = 7.0
#: Of more torsions than these the worst are drawn.
_MANY = 20


@dataclass(frozen=True)
class Plot:
    """One plot of the page.

    Attributes
    ----------
    name, title, svg, caption : str
    is_wide : bool
        Takes two columns where there is room.
    """

    name: str
    title: str
    svg: str
    caption: str
    is_wide: bool = False


def draw_plots(drawings: dict[str, Any]) -> list[Plot]:
    """Draw whatever there is data for."""
    makers = {
        "surfaces": draw_surfaces,
        "lines": draw_lines,
        "torsions": draw_torsions,
        "rmsf": draw_rmsf,
        "contacts": draw_contacts,
        "components": draw_components,
        "timescales": draw_timescales,
        "jumps": draw_jumps,
        "energies": draw_energies,
    }
    with drawing_style():
        return [draw(drawings) for key, draw in makers.items() if drawings.get(key)]


def label(drawings: dict[str, Any], name: str) -> str:
    """Return what a legend calls an ensemble."""
    return drawings["names"].get(name) or TITLES.get(name, name)


def draw_surfaces(drawings: dict[str, Any]) -> Plot:
    """Draw the free-energy surfaces of reference and sample along two slow coordinates."""
    unit, scale = _energy_unit(drawings)
    made, axes = figure(7.4, 3.6, 2, sharex=True, sharey=True)
    edges = drawings["surface_edges"]
    for axis, name in zip(axes, ("reference", "sample"), strict=True):
        surface = free_energy(drawings["surfaces"][name], 300.0) / (GAS_CONSTANT * 300.0)
        surface = np.where(np.isfinite(surface), np.minimum(surface, HIGHEST), np.nan) * scale
        drawn = axis.pcolormesh(*edges, surface.T, cmap="viridis", vmin=0, vmax=HIGHEST * scale, rasterized=True)
        axis.set(title=label(drawings, name), xlabel="slow coordinate 1")
    axes[0].set_ylabel("slow coordinate 2")
    made.colorbar(drawn, ax=axes, label=f"free energy / {unit}", shrink=0.9).outline.set_visible(False)
    return Plot(
        "surfaces",
        "Free energy along slow coordinates",
        to_svg(made, "surfaces", "Two maps of the free energy over the reference's slow coordinates, side by side."),
        "The two slowest TICA coordinates of the reference; both maps on the same scale. Basins that the sample lacks, "
        "or adds, show at once.",
        is_wide=True,
    )


def draw_lines(drawings: dict[str, Any]) -> Plot:
    """Draw the free energy along the slowest coordinate, with the peers."""
    unit, scale = _energy_unit(drawings)
    made, axis = figure()
    centres = 0.5 * (drawings["line_edges"][1:] + drawings["line_edges"][:-1])
    for name, counts in drawings["lines"].items():
        if counts.sum():
            height = free_energy(counts, 300.0) / (GAS_CONSTANT * 300.0) * scale
            height[~np.isfinite(height)] = np.nan
            axis.plot(centres, height, LINES[name], color=COLOURS[name], label=label(drawings, name))
    axis.axvline(drawings["boundary"], color=FAINT, linestyle=":", linewidth=1.2)
    axis.set(xlabel="slow coordinate 1", ylabel=f"free energy / {unit}", ylim=(-0.3 * scale, (HIGHEST + 1) * scale))
    axis.legend()
    return Plot(
        "lines",
        "Free energy along the slowest one",
        to_svg(made, "lines", "Curves of the free energy along the slowest coordinate, one an ensemble."),
        "The dotted line parts the two slow states; the rarer one lies to its right.",
    )


def draw_torsions(drawings: dict[str, Any]) -> Plot:
    """Draw each torsion's divergence with its floor; of many torsions the worst ones."""
    torsions = drawings["torsions"]
    order = np.arange(len(torsions["jsd"]))
    words = "The mark on each bar is its floor: the same between halves of the reference."
    if len(order) > _MANY:
        order = np.argsort(-torsions["jsd"])[:_MANY]
        words = f"The {_MANY} worst of {len(torsions['jsd'])}. " + words
    names = [torsions["names"][i].replace("phi", "φ").replace("psi", "ψ").replace("chi", "χ") for i in order]
    made, axis = figure(5.4, max(2.2, 0.19 * len(order) + 0.9))
    rows = np.arange(len(order))
    bars = axis.barh(rows, torsions["jsd"][order], color=COLOURS["sample"], height=0.7)
    for bar, index in zip(bars, order, strict=True):
        bar.set_alpha(1.0 if index < torsions["n_backbone"] else 0.6)
    axis.plot(torsions["floor"][order], rows, "|", color=INK, markersize=9, markeredgewidth=2.0)
    axis.set(yticks=rows, xlabel="JSD / nats", ylim=(len(order) - 0.4, -0.6))
    axis.set_yticklabels(names, fontsize=8)
    return Plot(
        "torsions",
        "Where torsions differ",
        to_svg(made, "torsions", "Bars of each torsion's Jensen-Shannon divergence, with its floor."),
        words + " Side chains are paler.",
    )


def draw_rmsf(drawings: dict[str, Any]) -> Plot:
    """Draw fluctuations by residue."""
    made, axis = figure()
    places = np.arange(1, len(drawings["residues"]) + 1)
    for name, values in drawings["rmsf"].items():
        style = LINES[name] + (MARKERS[name] if len(places) <= 30 else "")
        axis.plot(places, values, style, color=COLOURS[name], label=label(drawings, name), markersize=5)
    what = "residue" if drawings["is_calpha"] else "atom"
    axis.set(xlabel=what, ylabel="RMSF / nm", ylim=(0, None))
    if len(places) <= 12 and drawings["is_calpha"]:
        axis.set_xticks(places, drawings["residues"], fontsize=8)
        axis.set_xlabel("")
    axis.legend()
    return Plot(
        "rmsf",
        f"Fluctuations by {what}",
        to_svg(made, "rmsf", f"Curves of the root mean square fluctuation of each {what}, one an ensemble."),
        ("Cα" if drawings["is_calpha"] else "All scored") + " atoms about their mean, after superposition.",
    )


def draw_contacts(drawings: dict[str, Any]) -> Plot:
    """Draw contact frequencies: the reference above the diagonal, the sample below."""
    made, axis = figure(4.8, 4.0)
    both = drawings["contacts"]["reference"].copy()
    lower = drawings["contacts"]["sample"].T
    both[np.isfinite(lower)] = lower[np.isfinite(lower)]
    n = len(both)
    drawn = axis.imshow(
        both, cmap="viridis", vmin=0, vmax=1, origin="upper", extent=(0.5, n + 0.5, n + 0.5, 0.5), interpolation="none"
    )
    axis.plot([0.5, n + 0.5], [0.5, n + 0.5], color=FAINT, linewidth=1)
    names = drawings["names"]
    axis.set_title(f"above the diagonal: {names['reference']}, below: {names['sample']}", fontsize=10)
    axis.set(xlabel="residue", ylabel="residue")
    made.colorbar(drawn, ax=axis, label="share of frames in contact", shrink=0.9).outline.set_visible(False)
    return Plot(
        "contacts",
        "Contacts",
        to_svg(made, "contacts", "Map of contact frequencies: the reference above the diagonal, the sample below."),
        "Cα closer than 0.8 nm, three or more residues apart. The map of a perfect sample is its own mirror image.",
    )


def draw_components(drawings: dict[str, Any]) -> Plot:
    """Draw frames on the reference's two principal components."""
    made, axis = figure()
    points = drawings["components"]
    for name in [*(n for n in points if n not in ("reference", "sample")), "reference", "sample"]:
        size, alpha = (3.2, 0.8) if name == "sample" else (2.4, 0.4)
        axis.plot(*points[name].T, MARKERS[name], color=COLOURS[name], markersize=size, alpha=alpha,
                  markeredgewidth=0, label=label(drawings, name), rasterized=True)  # fmt: skip
    axis.set(xlabel="component 1 / nm", ylabel="component 2 / nm")
    legend = axis.legend(markerscale=3)
    for handle in legend.legend_handles:
        handle.set_alpha(1.0)
    return Plot(
        "components",
        "Principal components",
        to_svg(made, "components", "Scatter of frames on the reference's two first principal components."),
        f"Up to {max(len(p) for p in points.values())} frames of each, on the two largest components of the reference.",
    )


def draw_timescales(drawings: dict[str, Any]) -> Plot:
    """Draw implied timescales against the lag."""
    made, axis = figure()
    for name, curve in drawings["timescales"].items():
        for process, values in enumerate(curve["timescales"].T):
            if np.isfinite(values).any():
                axis.plot(curve["lags"], values, ("-" if process == 0 else "--") + MARKERS[name], markersize=4.5,
                          color=COLOURS[name], label=label(drawings, name) if process == 0 else None)  # fmt: skip
    every = np.concatenate([curve["lags"] for curve in drawings["timescales"].values()])
    lags = np.array([every.min() / 1.3, every.max() * 1.3])
    axis.fill_between(lags, lags, color=FAINT, alpha=0.25, linewidth=0, label="faster than the lag")
    axis.axvline(drawings["lag_time"], color=INK, linestyle=":", linewidth=1.2, label="lag used")
    axis.set(xscale="log", yscale="log", xlim=lags, xlabel="lag / ps", ylabel="implied timescale / ps")
    axis.legend(fontsize=8)
    return Plot(
        "timescales",
        "Timescales with lag",
        to_svg(made, "timescales", "Implied timescales against the lag, one pair of curves an ensemble."),
        "TICA fitted on each ensemble itself: slowest process solid, second dashed. A timescale means something where "
        "its curve is level.",
    )


def draw_jumps(drawings: dict[str, Any]) -> Plot:
    """Draw what became of the jumps, and the work of steered and exact ones."""
    jumps = drawings["jumps"]
    has_work = len(jumps["work"]) > 0
    made, axes = figure(7.4 if has_work else 5.4, 3.4, 2 if has_work else 1)
    first = axes[0] if has_work else axes
    reasons = sorted(jumps["reasons"].items(), key=lambda pair: -pair[1])[:7]
    names = ["accepted", *(name for name, _ in reasons)]
    counts = [jumps["n_accepted"], *(count for _, count in reasons)]
    rows = np.arange(len(names))
    first.barh(rows, counts, color=[COLOURS["md"]] + [COLOURS["sample"]] * len(reasons), height=0.7)
    for row, count in zip(rows, counts, strict=True):
        first.text(count, row, f" {100 * count / jumps['n_jumps']:.1f} %", va="center")
    first.set(yticks=rows, yticklabels=names, xlabel="jumps", ylim=(len(rows) - 0.4, -0.6), xlim=(0, 1.2 * max(counts)))
    if has_work:
        low, high = np.percentile(jumps["work"], [0, 99])
        bins = np.linspace(low, max(high, low + 1.0), 50)
        for mask, words, name in (
            (jumps["is_accepted"], "accepted", "md"),
            (~jumps["is_accepted"], "refused", "sample"),
        ):
            axes[1].hist(jumps["work"][mask], bins, histtype="step", linewidth=1.8, color=COLOURS[name], label=words)
        axes[1].set(xlabel="work / kJ/mol", ylabel="jumps")
        axes[1].legend()
    exact = "" if jumps["mean_acceptance"] is None else f" Mean acceptance {100 * jumps['mean_acceptance']:.1f} %."
    return Plot(
        "jumps",
        "What became of the jumps",
        to_svg(made, "jumps", "Bars of accepted and refused jumps by reason, and the distribution of their work."),
        f"{jumps['n_accepted']} of {jumps['n_jumps']} jumps accepted, mode {', '.join(jumps['modes'])}.{exact}"
        + (" The largest hundredth of the work is not drawn." if has_work else ""),
        is_wide=has_work,
    )


def draw_energies(drawings: dict[str, Any]) -> Plot:
    """Draw potential energies, and temperatures where they were written."""
    tables = drawings["energies"]
    has_temperature = any(table["temperature"] is not None for table in tables)
    made, axes = figure(7.4 if has_temperature else 5.4, 3.4, 2 if has_temperature else 1)
    panels = [("potential", "potential energy / kJ/mol", axes[0] if has_temperature else axes)]
    if has_temperature:
        panels.append(("temperature", "temperature / K", axes[1]))
    styles = list(COLOURS)
    for key, words, axis in panels:
        for number, table in enumerate(tables):
            if table[key] is not None:
                step = max(1, len(table["time"]) // 1000)
                axis.plot(table["time"][::step], table[key][::step], color=COLOURS[styles[(1 + number) % len(styles)]],
                          linewidth=0.9, label=table["name"])  # fmt: skip
        axis.set(xlabel="time / ps" if all(table["is_time"] for table in tables) else "step", ylabel=words)
    panels[0][2].legend(fontsize=8)
    return Plot(
        "energies",
        "Energies",
        to_svg(made, "energies", "Potential energies, and temperatures, against time."),
        "As the run's StateDataReporter wrote them.",
        is_wide=has_temperature,
    )


def _energy_unit(drawings: dict[str, Any]) -> tuple[str, float]:
    """Return the unit of free energies and its size [per kT]: kJ/mol where the temperature is known."""
    temperature = drawings["temperature"]
    return ("kT", 1.0) if temperature is None else ("kJ/mol", GAS_CONSTANT * temperature)
