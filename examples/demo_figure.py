"""The demo's figure: Ramachandran maps of reference, propagators and hybrid runs, and what became of the jumps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

NAMES = {"autoregressive": "autoregressive", "koopman": "Koopman", "langevin": "Langevin", "plain": "plain MD"}
COLOURS = {"autoregressive": "#0b6e99", "koopman": "#c8553d", "langevin": "#588157", "plain": "#6b7280"}
REASONS = {"accepted": "#2a9d8f"}
INK = "#1f2933"
HIGHEST = 6.0  # kT at which a map ends


def draw(path: Path, maps: dict[str, np.ndarray], traces: dict[str, dict], results: dict, plan: Any) -> None:
    """Write the figure.

    Parameters
    ----------
    path : Path
    maps : dict of str to np.ndarray
        (72, 72) counts of (phi, psi).
    traces : dict of str to dict
        What `simulate` of the demo returns, by propagator and for "plain".
    results, plan
        The demo's numbers and its plan.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": "#9aa5b1"})
    figure = plt.figure(figsize=(14.5, 12.2), facecolor="white")
    grid = figure.add_gridspec(3, 4, height_ratios=(1, 1, 0.92), left=0.055, right=0.93, top=0.885, bottom=0.06,
                               hspace=0.40, wspace=0.16)  # fmt: skip
    figure.text(0.055, 0.962, "Learned latent jumps in an OpenMM simulation", fontsize=19, weight="bold")
    figure.text(
        0.055,
        0.935,
        f"Alanine dipeptide, amber14 + OBC2. Trained on hot MD, {plan.lag_time:g} ps a jump; the hybrid runs alternate "
        f"jumps with {plan.jump_interval * 0.002:g} ps of MD at 300 K.",
        fontsize=11.5,
        color="#52606d",
    )
    rollouts, hybrid = results["rollouts"], results["hybrid"]
    image = None
    rows = [("reference", "MD, 400 K", f"P(φ>0) {rollouts['held-out halves']['p_phi_positive']:.3f} held out")]
    rows += [
        (n, f"{NAMES[n]}, 400 K", f"JSD {rollouts[n]['jsd']:.3f}, P(φ>0) {rollouts[n]['p_phi_positive']:.3f}")
        for n in ("autoregressive", "koopman", "langevin")
    ]
    rows += [("cold", "MD, 300 K", "φ never crosses in 70 ns")]
    rows += [(f"hybrid {n}", f"hybrid, {NAMES[n]}, 300 K", f"φ crosses {hybrid[n]['phi_crossings']} times")
             for n in ("autoregressive", "koopman", "langevin")]  # fmt: skip
    for place, (key, title, note) in enumerate(rows):
        axes = figure.add_subplot(grid[place // 4, place % 4])
        image = draw_map(axes, maps[key], title, note, is_left=place % 4 == 0)
    bar = figure.colorbar(image, cax=figure.add_axes((0.945, 0.42, 0.012, 0.40)))
    bar.set_label("-ln p, above its minimum [kT]")
    bar.outline.set_visible(False)
    bottom = grid[2, :].subgridspec(1, 3, width_ratios=(0.85, 1.05, 2.1), wspace=0.42)
    draw_scores(figure.add_subplot(bottom[0]), rollouts)
    draw_outcomes(figure.add_subplot(bottom[1]), hybrid)
    draw_traces(figure, bottom[2], traces)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_map(axes: Any, counts: np.ndarray, title: str, note: str, is_left: bool) -> Any:
    """Draw -ln p of (72, 72) counts, lightly smoothed, periodic."""
    kernel = np.array([0.25, 0.5, 0.25])
    smooth = counts.astype(float)
    for axis in (0, 1):
        smooth = sum(weight * np.roll(smooth, shift, axis) for weight, shift in zip(kernel, (-1, 0, 1), strict=True))
    with np.errstate(divide="ignore"):
        free = -np.log(smooth / smooth.max())
    free[free > HIGHEST] = np.nan
    axes.set_facecolor("#f3f5f8")
    image = axes.imshow(free.T, origin="lower", extent=(-180, 180, -180, 180), cmap="YlGnBu_r", vmin=0, vmax=HIGHEST,
                        interpolation="nearest", aspect="equal")  # fmt: skip
    axes.axvline(0, color="#cbd2d9", lw=0.8, ls=(0, (4, 4)))
    axes.set_xticks((-180, -90, 0, 90, 180))
    axes.set_yticks((-180, -90, 0, 90, 180), labels=None if is_left else [""] * 5)
    axes.set_xlabel("φ / °", labelpad=1)
    if is_left:
        axes.set_ylabel("ψ / °", labelpad=-4)
    axes.set_title(title, loc="left", fontsize=11.5, weight="bold", pad=19)
    axes.text(0, 1.025, note, transform=axes.transAxes, fontsize=10, color="#52606d")
    axes.tick_params(length=3)
    return image


def draw_scores(axes: Any, rollouts: dict[str, dict[str, float]]) -> None:
    """Draw the free rollouts' JSD as bars, the floor and training frames as lines."""
    names = ["autoregressive", "koopman", "langevin"]
    values = [rollouts[name]["jsd"] for name in names]
    axes.bar(range(3), values, color=[COLOURS[name] for name in names], width=0.62)
    highest = max([*values, rollouts["held-out halves"]["jsd"], rollouts["training frames"]["jsd"]])
    for place, value in enumerate(values):
        axes.text(place, value + 0.015 * highest, f"{value:.3f}", ha="center", fontsize=10)
    halves = f"held-out halves, {rollouts['held-out halves']['n_frames']} frames each:"
    for key, label, style in (("held-out halves", halves, "--"), ("training frames", "training frames:", ":")):
        level = rollouts[key]["jsd"]
        axes.axhline(level, color=INK, ls=style, lw=1.3, label=f"{label} {level:.3f}")
    axes.set_ylim(0, 1.42 * highest)
    axes.legend(frameon=False, fontsize=9, loc="upper left", handlelength=1.8, borderaxespad=0.1)
    axes.set_xticks(range(3), labels=["autoreg.", "Koopman", "Langevin"])
    axes.set_title("(φ, ψ) JSD to held-out MD / nats", loc="left", fontsize=11.5, weight="bold")
    clean(axes)


def draw_outcomes(axes: Any, hybrid: dict[str, dict]) -> None:
    """Draw what became of the jumps, stacked, with wall times."""
    import matplotlib

    names = ["autoregressive", "koopman", "langevin"]
    reasons = sorted({reason for name in names for reason in hybrid[name]["refused"]})
    palette = matplotlib.colormaps["YlOrBr"](np.linspace(0.35, 0.85, max(1, len(reasons))))
    colours = REASONS | dict(zip(reasons, palette, strict=False))
    for place, name in enumerate(names):
        run, left = hybrid[name], 0.0
        for key in ("accepted", *reasons):
            n = run["accepted"] if key == "accepted" else run["refused"].get(key, 0)
            share = 100 * n / max(1, run["jumps"])
            axes.barh(place, share, left=left, color=colours[key], height=0.5, label=key if place == 0 else None)
            if share > 9:
                axes.text(
                    left + share / 2, place, f"{share:.0f} %", ha="center", va="center", color="white", fontsize=10
                )
            left += share
        words = f"{NAMES[name]}: {run['jumps']} jumps, {run['seconds']:.0f} s"
        axes.text(0, place - 0.33, words, fontsize=9.5, color="#52606d", va="bottom")
    plain = hybrid["plain"]
    axes.set_xlabel(f"% of jumps.  Plain MD, {plain['md_ps']:.0f} ps: {plain['seconds']:.0f} s")
    axes.set_xlim(0, 100)
    axes.set_ylim(2.95, -0.6)
    axes.set_yticks([])
    axes.legend(
        frameon=False,
        fontsize=9,
        loc="lower left",
        ncols=3,
        handlelength=1,
        columnspacing=1,
        bbox_to_anchor=(-0.03, -0.02),
    )
    axes.set_title("What became of the jumps", loc="left", fontsize=11.5, weight="bold")
    clean(axes)


def draw_traces(figure: Any, place: Any, traces: dict[str, dict]) -> None:
    """Draw phi along each run against MD time, one strip a run."""
    names = ["plain", "autoregressive", "koopman", "langevin"]
    strips = place.subgridspec(len(names), 1, hspace=0.22)
    for row, name in enumerate(names):
        axes = figure.add_subplot(strips[row])
        phi = np.degrees(traces[name]["angles"][:, 0])
        phi = np.where(phi > 130, phi - 360, phi)  # the beta region is one piece
        time = np.linspace(0, traces[name]["md_ps"], len(phi) + 1)[1:]
        axes.scatter(time, phi, s=np.where(phi > 0, 9.0, 1.6), color=COLOURS[name], linewidths=0)
        axes.axhline(0, color="#cbd2d9", lw=0.8, ls=(0, (4, 4)))
        axes.set_xlim(0, time[-1])
        axes.set_ylim(-230, 130)
        axes.set_yticks((-180, -90, 0, 90))
        axes.tick_params(labelsize=8, length=2)
        axes.text(
            1.008,
            0.5,
            NAMES[name].replace("autoregressive", "autoreg."),
            transform=axes.transAxes,
            fontsize=10,
            color=COLOURS[name],
            va="center",
        )
        clean(axes)
        if row == 0:
            axes.set_title("φ / ° along the runs at 300 K", loc="left", fontsize=11.5, weight="bold")
        if row < len(names) - 1:
            axes.set_xticklabels([])
        else:
            axes.set_xlabel("MD time / ps, without what the jumps stand for")


def clean(axes: Any) -> None:
    """Leave only the axes that carry numbers."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
