"""The page: one HTML file that needs nothing else, made of an evaluation."""

from __future__ import annotations

import json
from html import escape
from importlib import resources
from typing import Any

from openmm_latent.report.catalogue import GROUPS, OWN
from openmm_latent.report.maps import map_images
from openmm_latent.report.peers import TITLES
from openmm_latent.report.plots import Plot, draw_plots
from openmm_latent.report.results import CONFIDENCE, NEAR_FLOORS, Evaluation, Metric, duration, plain
from openmm_latent.report.viewer import viewer_payload

#: What stands at the top, as far as it is there.
HEADLINES = (
    "phi_psi_jsd",
    "backbone_jsd",
    "side_chain_jsd",
    "slow_population",
    "slow_timescale",
    "rmsf_r",
    "contact_r",
    "rmwd",
    "clashes",
)
MOST_HEADLINES = 6
_SIGNS = {"matches": "✓", "near": "≈", "differs": "✗"}
#: No script, style or image from outside, and no request at all, whatever the page's content.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'none'"
)


def make_page(evaluation: Evaluation) -> str:
    """Return the whole page."""
    drawings = evaluation.drawings
    maps = map_images(drawings.get("maps", []))
    payload = viewer_payload(drawings["molecule"], drawings["structure"], drawings["viewer"])
    data = json.dumps(plain({"maps": maps, "viewer": payload}), allow_nan=False).replace("</", "<\\/")
    title = f"{evaluation.name} against {evaluation.facts['reference']['name']}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{_asset("page.css")}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{_input_words(evaluation)}
</header>
<main>
<section class="glance" aria-label="At a glance">
{_glance(evaluation)}
{_viewer_card(evaluation, payload)}
</section>
{_maps_section(evaluation, maps)}
<h2>Plots</h2>
<div class="plots">{"".join(_plot_card(plot) for plot in draw_plots(drawings))}</div>
<h2>All numbers</h2>
{_table(evaluation)}
{_sentences("Cautions", evaluation.cautions)}
{_sentences("Left out", evaluation.left_out)}
</main>
{_footer(evaluation)}
<script type="application/json" id="data">{data}</script>
<!-- 3Dmol.js, BSD-3-Clause:
{_asset("3Dmol-LICENSE.txt").replace("--", "- -")}
-->
<script>{_asset("3Dmol-min.js")}</script>
<script>{_asset("page.js")}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    """Return the text of a file that comes with the package."""
    return resources.files("openmm_latent.report").joinpath("assets", name).read_text(encoding="utf-8")


def number(value: float | None, unit: str) -> str:
    """Return a value in words: three digits, times in the unit that reads best."""
    if value is None:
        return "–"
    if unit == "ps":
        return duration(value)
    digits = f"{value:.3g}" if 1e-4 <= abs(value) < 1e5 or value == 0 else f"{value:.1e}"
    return digits + (f" {unit}" if unit else "")


def span(interval: tuple[float, float] | None, unit: str) -> str:
    """Return an interval in words, "" without one."""
    if interval is None:
        return ""
    scale, word = (1000.0, "ns") if unit == "ps" and max(map(abs, interval)) >= 1000 else (1.0, unit)
    return f"{interval[0] / scale:.3g} to {interval[1] / scale:.3g}" + (f" {word}" if word else "")


def badge(verdict: str) -> str:
    """Return a verdict as a sign and a word."""
    return f'<span class="badge {verdict}">{_SIGNS[verdict]} {verdict}</span>' if verdict else ""


def _input_words(evaluation: Evaluation) -> str:
    sentences = []
    for side in ("reference", "sample"):
        facts = evaluation.facts[side]
        runs = f" in {facts['n_runs']} runs" if facts["n_runs"] > 1 else ""
        spacing = facts["frame_spacing"]
        timed = "independent draws" if spacing is None else f"{number(spacing, 'ps')} apart"
        temperature = facts["provenance"].get("temperature")
        mode = facts["provenance"].get("mode")
        more = (f", {temperature:g} K" if isinstance(temperature, int | float) else "") + (
            f", mode {escape(str(mode))}" if mode else ""
        )
        sentences.append(
            f'<span class="side"><span class="swatch" style="background:var(--{side})"></span> '
            f"<strong>{escape(facts['name'])}</strong>: {facts['n_frames']} frames{runs}, {timed}{more}</span>"
        )
    atoms = {"heavy": "heavy atoms", "all": "atoms", "ca": "Cα atoms"}[evaluation.facts["atoms"]]
    scored = f"{evaluation.facts['n_atoms']} {atoms} of {evaluation.facts['n_residues']} residues"
    return f'<p>{" ".join(sentences)}</p><p class="soft">Scored: {scored}.</p>'


def _glance(evaluation: Evaluation) -> str:
    off = [one for one in evaluation.metrics if one.verdict == "differs"]
    worst = sorted(off, key=lambda one: -(one.n_floors or 1e9))[:3]
    words = f"<p>Furthest off: {'; '.join(_worst(one) for one in worst)}.</p>" if worst else ""
    shown = [one for key in HEADLINES if (one := evaluation.metric(key)) and one.value is not None][:MOST_HEADLINES]
    if not evaluation.is_settled:
        words = f'<p class="warning">{escape(evaluation.cautions[0])}</p>{words}'
    return f"""<div class="card"><p class="headline">{evaluation.summary.capitalize()}.</p>{words}
<div class="tiles">{"".join(_tile(one) for one in shown)}</div>
<p class="soft"><strong>✓ matches</strong>: no further from the reference than its own halves are from each other (the
floor), counting the {100 * CONFIDENCE:g} % interval; <strong>≈ near</strong>: within {NEAR_FLOORS:g} floors;
<strong>✗ differs</strong>: further. A match says that this much data shows no difference, not that there is none.</p>
</div>"""


def _worst(one: Metric) -> str:
    floors = one.n_floors
    return escape(one.name) + (f" ({floors:.3g} floors)" if floors is not None else " (never so in the reference)")


def _tile(one: Metric) -> str:
    if one.kind == OWN:
        beside = f"reference {number(one.reference, one.unit)}"
    else:
        beside = f"floor {number(one.floor, one.unit)}" if one.floor is not None else "no floor"
    interval = f"{span(one.interval, one.unit)}; " if one.interval else ""
    return (
        f'<div class="tile {one.verdict}"><div class="what">{escape(one.name)}</div>'
        f'<div class="number">{number(one.value, one.unit)}</div>'
        f'<div class="beside">{interval}{beside}</div>{badge(one.verdict)}</div>'
    )


def _viewer_card(evaluation: Evaluation, payload: dict[str, Any]) -> str:
    names = evaluation.drawings["names"]
    most = max(one["n_frames"] for one in payload["frames"].values())
    choices = "".join(
        f'<label><input type="radio" name="shown" value="{value}"{" checked" if value == "both" else ""}> '
        f"{escape(words)}</label>"
        for value, words in (("both", "both"), ("reference", names["reference"]), ("sample", names["sample"]))
    )
    backbone = "; backbone only" if payload["is_backbone_only"] else ""
    return f"""<figure class="card viewer" aria-label="Structure in 3-D">
<div class="stage" id="stage" role="img" aria-label="Frames of reference and sample in 3-D, to turn and to play"></div>
<div class="controls"><button id="play" type="button" aria-pressed="false">Play</button>
<input id="frame" type="range" min="0" max="{most - 1}" value="0" aria-label="Frame">
<output id="frame-words" class="soft">frame 1</output></div>
<div class="controls" role="radiogroup" aria-label="What is shown">{choices}</div>
<figcaption>Up to {most} frames of each, evenly spread over all runs and superposed{backbone}. Drag to turn, scroll or
pinch to zoom.</figcaption></figure>"""


def _maps_section(evaluation: Evaluation, maps: list[dict[str, str]]) -> str:
    if not maps:
        return ""
    labels = [f"{escape(one['label'])} ({one['axes']})" for one in maps]
    options = "".join(f'<option value="{i}">{words}</option>' for i, words in enumerate(labels))
    sides = "".join(_map(side, evaluation.drawings["names"][side]) for side in ("reference", "sample"))
    n_more = len(evaluation.drawings["maps"]) - len(maps)
    more = f" {n_more} further pairs are not shown." if n_more else ""
    return f"""<h2>Ramachandran maps</h2>
<figure class="card"><div class="controls"><label for="residue">Residue</label>
<select id="residue">{options}</select></div>
<div class="maps">{sides}</div>
<figcaption>-ln p of 50 x 50 bins above the fullest one, from 0 (dark) to 6 kT (bright); empty bins are blank.{more}
</figcaption></figure>"""


def _map(side: str, name: str) -> str:
    """Return the frame of a torsion map; the script puts its image in."""
    ticks = "".join(
        f'<text x="{40 + (v + 180) * 260 / 360:g}" y="318" text-anchor="middle">{v}</text>'
        f'<text x="34" y="{300 - (v + 180) * 260 / 360 + 4:g}" text-anchor="end">{v}</text>'
        for v in (-180, -90, 0, 90, 180)
    )
    return f"""<div class="map"><h3><span class="swatch" style="background:var(--{side})"></span> {escape(name)}</h3>
<svg viewBox="-22 28 340 316" role="img" data-plot="map-{side}" aria-label="Torsion map of the {side}">
<rect x="40" y="40" width="260" height="260" fill="none" stroke="var(--faint)"/>
<image id="map-{side}" x="40" y="40" width="260" height="260" preserveAspectRatio="none"/>{ticks}
<text id="across-{side}" x="170" y="338" text-anchor="middle"></text>
<text id="up-{side}" x="-8" y="170" text-anchor="middle" transform="rotate(-90 -8 170)"></text></svg></div>"""


def _plot_card(plot: Plot) -> str:
    wide = " wide" if plot.is_wide else ""
    return (
        f'<figure class="card{wide}"><h3>{escape(plot.title)}</h3>{plot.svg}'
        f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )


def _table(evaluation: Evaluation) -> str:
    names = evaluation.drawings["names"]
    there = {peer for one in evaluation.metrics for peer in one.peers}
    peers = [peer for peer in TITLES if peer in there]
    heads = "".join(f'<th scope="col">{escape(TITLES.get(peer, peer))}</th>' for peer in peers)
    rows = []
    for group in GROUPS:
        members = [one for one in evaluation.metrics if one.group == group]
        if members:
            rows.append(f'<tr><th colspan="{5 + len(peers)}" scope="rowgroup">{group}</th></tr>')
            rows += [_row(one, peers) for one in members]
    return f"""<div class="card scroll" tabindex="0" role="region" aria-label="Table of all numbers"><table>
<thead><tr><th scope="col">Score (open for its definition)</th><th scope="col">{escape(names["sample"])}</th>
<th scope="col" class="verdict">Verdict</th><th scope="col">Floor</th>
<th scope="col">{escape(names["reference"])}</th>{heads}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>{_peer_words(evaluation)}"""


def _row(one: Metric, peers: list[str]) -> str:
    bins = f" Bins: {escape(one.bins)}." if one.bins else ""
    note = f'<span class="range note">{escape(one.note)}</span>' if one.note else ""
    cells = "".join(f"<td>{_peer_cell(one, peer)}</td>" for peer in peers)
    floors = one.n_floors
    is_off = floors is not None and one.verdict != "matches"
    times = f'<span class="range">{floors:.3g} floors</span>' if is_off else ""
    verdict = badge(one.verdict) + times if one.verdict else ""
    short = one.unit if one.unit == "ps" else ""  # the other units stand in the first column
    reference = number(one.reference, short) if one.kind == OWN else ""
    what = f"<details><summary>{escape(one.name)}</summary><p>{escape(one.definition)}{bins}</p></details>{note}"
    return f"""<tr><td>{what}</td>
<td>{number(one.value, one.unit)}<span class="range">{span(one.interval, short)}</span></td>
<td class="verdict">{verdict}</td><td>{number(one.floor, short)}</td>
<td>{reference}<span class="range">{span(one.reference_interval, short)}</span></td>{cells}</tr>"""


def _peer_cell(one: Metric, peer: str) -> str:
    """Return a peer's number with the sign of its own verdict: who matches beside the sample is no worse."""
    if peer not in one.peers:
        return ""
    value = one.peers[peer]
    verdict = one.verdict_of(value)
    sign = f' <span class="badge {verdict}" title="{verdict}">{_SIGNS[verdict]}</span>' if verdict else ""
    return number(value, one.unit if one.unit == "ps" else "") + sign


def _peer_words(evaluation: Evaluation) -> str:
    told = evaluation.facts["peers"]
    sentences = [f"{TITLES[name]}: {facts['n_frames']} frames, {facts['what']}." for name, facts in told.items()]
    if any("marginals" in one.peers for one in evaluation.metrics):
        sentences.append(
            "Marginals: independent draws of each of the reference's torsions; whoever does not beat it has "
            "learned no coupling."
        )
    sentences.append(
        f"Small print under a number: its {100 * CONFIDENCE:g} % interval, by a bootstrap over blocks. Floor: the "
        "score between halves of the reference, the first no longer than the sample; of a number that each ensemble "
        "has of its own, the difference between the halves' numbers."
    )
    return f'<p class="soft">{escape(" ".join(sentences))}</p>'


def _sentences(title: str, sentences: list[str]) -> str:
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(one)}</li>" for one in sentences)
    return f'<h2>{title}</h2><ul class="card sentences" style="padding-left:2rem">{items}</ul>'


def _footer(evaluation: Evaluation) -> str:
    facts = evaluation.facts
    rows = {
        "reference": ", ".join(facts["reference"]["files"]),
        "sample": ", ".join(facts["sample"]["files"]),
        "superposed on": facts["superposed_on"],
        "lag of TICA": number(facts["lag_time"], "ps"),
        "stride, seed": f"{facts['stride']}, {facts['seed']}",
        "made": f"{facts['date']} by openmm-latent {facts['code_version']} in {facts['seconds']} s",
        "with": ", ".join(f"{name} {number}" for name, number in facts["versions"].items()) + "; 3Dmol.js in this page",
    }
    items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in rows.items())
    return f"<footer><h2>How this was made</h2><dl>{items}</dl></footer>"
