"""Timing for the benchmark suite: cases in turn, medians and quartiles, a fitted exponent, and bars."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np

#: Calls of one turn, at most: a LatentIntegrator keeps its last 10 000 records.
_MOST_CALLS = 300


@dataclass(frozen=True)
class Case:
    """Something to time: a call, how many units (steps, say) one call is, and what comes before each, untimed."""

    call: Callable[[], Any]
    n_units: int = 1
    prepare: Callable[[], Any] | None = None


def interleave(
    cases: Mapping[str, Case],
    n_rounds: int,
    seconds: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Time cases in turn, so that the machine's drift meets all.

    Parameters
    ----------
    cases : dict of str to Case
    n_rounds : int
        Turns that each case gets, after one that warms up and does not count.
    seconds : float
        A turn calls at least once, and again until so much time has passed.
    clock : callable
        `time.process_time` where a turn lasts longer than the machine lends the processor.

    Returns
    -------
    dict of str to ndarray
        (n_rounds,) [s] a unit: the median of each turn.
    """
    turns: dict[str, list[float]] = {name: [] for name in cases}
    for round_number in range(n_rounds + 1):
        for name, case in cases.items():
            calls: list[float] = []
            begun = time.perf_counter()
            while not calls or (time.perf_counter() - begun < seconds and len(calls) < _MOST_CALLS):
                if case.prepare is not None:
                    case.prepare()
                start = clock()
                case.call()
                calls.append((clock() - start) / case.n_units)
            if round_number > 0:
                turns[name].append(float(np.median(calls)))
    return {name: np.array(values) for name, values in turns.items()}


def quartiles(values: np.ndarray, scale: float = 1.0) -> list[float]:
    """Return lower quartile, median and upper quartile, to four digits."""
    return [float(f"{scale * np.quantile(values, q):.4g}") for q in (0.25, 0.5, 0.75)]


def fit_exponent(sizes: np.ndarray, costs: np.ndarray) -> tuple[float, float]:
    """Return p of cost ~ size^p by least squares in logarithms, and its standard error (of at least 3 sizes)."""
    x, y = np.log(sizes) - np.mean(np.log(sizes)), np.log(costs)
    exponent = float(x @ y / (x @ x))
    residual = y - y.mean() - exponent * x
    return exponent, float(np.sqrt(residual @ residual / (len(x) - 2) / (x @ x)))


def bar(what: str, value: float, limit: float, unit: str, is_met: bool) -> dict[str, Any]:
    """Return a figure beside the bar it must meet."""
    return {"what": what, "value": float(f"{value:.4g}"), "limit": limit, "unit": unit, "is_met": bool(is_met)}


def peak_megabytes() -> float:
    """Return the most memory this process has held so far [MB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_own_process(part: Callable[..., Any], *arguments: Any) -> Any:
    """Run a part of the suite in a fresh process, so that its memory peak is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(part, *arguments).result()
