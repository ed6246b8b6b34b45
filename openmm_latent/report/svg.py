"""matplotlib figures as inline SVG whose text and curves take their colours from the page's style sheet."""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

#: Stand-ins that become CSS variables, so that one drawing serves light and dark pages.
INK, FAINT, PAPER = "#1f2934", "#9aa5b2", "#fdfdfb"
#: Okabe and Ito's palette, distinct to colour-blind eyes; each has a line style of its own, too.
COLOURS = {
    "reference": "#0072b2",
    "sample": "#d55e00",
    "md": "#009e73",
    "anm": "#cc79a7",
    "gaussian": "#e69f00",
}
LINES = {"reference": "-", "sample": "-", "md": "--", "anm": ":", "gaussian": "-."}
MARKERS = {"reference": "o", "sample": "^", "md": "s", "anm": "v", "gaussian": "D"}
_VARIABLES = {INK: "--ink", FAINT: "--faint", PAPER: "--card"} | {c: f"--{name}" for name, c in COLOURS.items()}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "openmm-latent",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": 11.0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


def drawing_style() -> Any:
    """Return the context that all figures are made, filled and written in."""
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def figure(width: float = 5.4, height: float = 3.6, n_columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """Return a matplotlib figure [inches] and its axes, without pyplot's global state."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    made.patch.set_alpha(0.0)
    axes = made.subplots(1, n_columns, **options)
    for axis in made.axes:
        axis.patch.set_alpha(0.0)
    return made, axes


def to_svg(made: Any, name: str, description: str) -> str:
    """Return a figure as SVG to put into a page.

    Parameters
    ----------
    made : matplotlib figure
    name : str
        Starts all ids, so that several drawings in one page do not meet.
    description : str
        What someone who does not see it needs to know.
    """
    text = io.StringIO()
    made.savefig(text, format="svg", dpi=120, metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'\bid="', f'id="{name}-', drawn)
    drawn = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", drawn)
    for stand_in, variable in _VARIABLES.items():
        drawn = re.sub(stand_in, f"var({variable})", drawn, flags=re.IGNORECASE)
    words = escape(description, quote=True)
    # The size comes from the page; the viewBox keeps the shape.
    drawn = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", drawn, count=1)
    drawn = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", drawn, count=1)
    return drawn.replace("<svg", f'<svg class="plot" data-plot="{name}" role="img" aria-label="{words}"', 1)
