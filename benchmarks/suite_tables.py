"""The benchmark suite's figures as Markdown tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from suite_batches import N_TOGETHER
from suite_jumps import LOOPS

JUMP_COLUMNS = {
    "gather": "gather",
    "module": "module",
    "scatter": "scatter",
    "minimize": "minimise",
    "velocity": "velocity",
    "jump": "**jump**",
    "guarded jump": "guarded jump",
    "module alone": "(a) module alone",
    "jump in Python": "(b) jump in Python",
    "PythonForce": "(c) PythonForce",
    "MD step": "(d) MD step",
}


def markdown(platform: str, content: dict[str, Any], results: Path | None = None) -> str:
    """Return the page; `results` is the JSON file with device, versions and date."""
    lines = [f"# Benchmark suite, {platform} platform", ""]
    if results is not None:
        facts = json.loads(results.read_text())
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        lines += [f"{facts['date']}; {facts['machine']}; python {facts['python']}, {versions}.", ""]
        lines += [f"`{facts['command']}`, {content['minutes']} minutes. Medians (lower..upper quartile).", ""]
    lines += table(
        ["bar", "found", "limit", ""],
        [
            [b["what"], f"{b['value']:g}", f"{b['limit']:g} {b['unit']}", "met" if b["is_met"] else "**not met**"]
            for b in content["bars"]
        ],
    )
    writers = {"jumps": jumps, "hybrid": hybrid, "wrapping": wrapping, "training": training, "batches": batches}
    for part, write in writers.items():
        if part in content:
            lines += write(content[part])
    return "\n".join(lines)


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return a Markdown table and an empty line."""
    body = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(row) + " |" for row in body] + [""]


def spread(three: list[float]) -> str:
    """Return a median with its quartiles."""
    low, median, high = three
    return f"{median:g} ({low:g}..{high:g})"


def jumps(found: dict[str, Any]) -> list[str]:
    """Parts 1 and 2."""
    words = (
        "Chain molecule, untrained GLDP `tiny`, blind pooling. What a jump takes beyond its five parts is the "
        "energy of the frame it leaves, and what keeps that frame for a refusal. Up to 250 atoms all is wall time; "
        "beyond, the parts inside a jump are wall time, which other work on the core lengthens, and the rest CPU time."
    )
    lines = ["## A jump against atoms [µs]", "", words, ""]
    header = ["atoms", "model atoms", *JUMP_COLUMNS.values(), "iterations", "memory above imports"]
    rows = []
    for size in found["sizes"]:
        times = [spread(size["microseconds"][name]) for name in JUMP_COLUMNS]
        iterations = f"{size['minimizer_iterations_mean']:.2g}"
        memory = f"{size['peak_megabytes_above_imports']} MB"
        rows.append([str(size["n_atoms"]), str(size["n_model_atoms"]), *times, iterations, memory])
    if found["exponents"]:
        fits = [found["exponents"][name] for name in JUMP_COLUMNS]
        shown = [f"{fit['exponent']:.2f} ± {fit['standard_error']:.2f}" for fit in fits]
        rows.append(["exponent, 2 500 to 250 000", "", *shown, "", ""])
        rows.append(["exponent, last decade", "", *[f"{fit['last_decade']:.2f}" for fit in fits], "", ""])
    lines += table(header, rows)
    loops = found["loops_at_22_atoms"]
    lines += ["## One MD step and one jump at 22 atoms [µs]", ""]
    rows = []
    for name in LOOPS:
        times = loops["step_and_jump_microseconds"]
        shim, module = loops[name]["shim_microseconds"], loops[name]["module_microseconds"]
        ratio = loops[name]["times_faster_than_python"]
        loop = [times[f"plugin, {name}"], times[f"Python, {name}"]]
        rows.append([name, *[spread(three) for three in (*loop, ratio, shim, module)]])
    return lines + table(["module", "plugin", "Python", "times faster", "shim", "forward"], rows)


def hybrid(found: dict[str, Any]) -> list[str]:
    """Part 3."""
    words = (
        "The bar takes each part as it is when nothing else runs. A module that is called once in 100 steps finds the "
        "caches taken: `module after MD` is the same call alone, with 100 steps of MD before it, untimed."
    )
    is_timed_cold = all("module_after_md_microseconds" in one for one in found.values())
    lines = [
        "## Hybrid alanine dipeptide, 100 steps and a jump [µs a cycle]",
        "",
        *([words, ""] if is_timed_cold else []),
    ]
    header = ["runner", "", *next(iter(found.values()))["microseconds_a_cycle"], "sum", "hybrid", "hybrid / sum"]
    header += ["module after MD"] * is_timed_cold
    rows = []
    for runner, one in found.items():
        parts = [spread(three) for three in one["microseconds_a_cycle"].values()]
        ends = [one["sum_of_parts_microseconds"], one["hybrid_microseconds"], one["hybrid_over_sum"]]
        if is_timed_cold:
            ends.append(one["module_after_md_microseconds"])
        rows.append([runner, "alone", *parts, *[spread(three) for three in ends]])
        inside = one["inside_a_jump_microseconds"]
        shown = [spread(inside[name]) for name in ("module", "minimize", "velocity")]
        rows.append([runner, "inside the run", "", *shown, *[""] * (len(header) - 6)])
    return lines + table(header, rows)


def wrapping(found: dict[str, Any]) -> list[str]:
    """Part 4."""
    lines = ["## MD beside wrapped MD [ms a step, one thread]", ""]
    header = ["molecule", "atoms", "platform", "plain", "wrapped", "wrapped / plain", "a jump every 500 / plain"]
    rows = []
    for name, one in found.items():
        steps = one["milliseconds_a_step"]
        jumping = spread(one["jumping_over_plain"]) if "jumping_over_plain" in one else ""
        if not jumping and "jump_over_500_steps" in one:
            jumping = f"{1 + one['jump_over_500_steps']:.4g} (from a jump's time)"
        timed = [spread(three) for three in (steps["plain"], steps["wrapped"], one["wrapped_over_plain"])]
        cost = f"{one['jump_milliseconds'][1]:g}" if "jump_milliseconds" in one else ""
        rows.append([name, str(one["n_atoms"]), one["platform"], *timed, jumping or "steers, not timed", cost])
    return lines + table([*header, "jump [ms]"], rows)


def training(found: dict[str, Any]) -> list[str]:
    """Part 5."""
    rates = found["frames_per_second"]
    lines = ["## Training GLDP `tiny` on alanine dipeptide [frames/s]", ""]
    row = [*[spread(rates[name]) for name in ("encoder", "decoder")], spread(found["set_up_seconds"])]
    header = ["encoder stage", "decoder stage", "set-up [s]", "memory", "above imports"]
    row += [f"{found['peak_megabytes']} MB", f"{found['peak_megabytes_above_imports']} MB"]
    return lines + table(header, [row])


def batches(found: list[dict[str, Any]]) -> list[str]:
    """Part 6."""
    lines = ["## Jumps that share a module call [microseconds a walker, or a proposal]", ""]
    rows = []
    for one in found:
        for runner in ("torchscript", "aoti"):
            for what in ("walkers", "proposals"):
                times = [spread(one["microseconds"][f"{runner}, {what} {n}"]) for n in N_TOGETHER]
                rows.append([str(one["n_atoms"]), runner, what, *times])
    return lines + table(["atoms", "runner", "of", *map(str, N_TOGETHER)], rows)
