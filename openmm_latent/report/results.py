"""The result of an evaluation, and how it is kept: metrics.json and metrics.csv."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from openmm_latent.report.catalogue import AGREEMENT, DISTANCE, OWN

#: A score within this many floors is called near.
NEAR_FLOORS = 2.0
#: Confidence of all intervals.
CONFIDENCE = 0.9


@dataclass(frozen=True)
class Metric:
    """One number of a report with all that a reader needs beside it.

    Attributes
    ----------
    key : str
        Of the catalogue, with the lag behind it where there are several.
    group, name, unit, kind, definition, bins : str
    value : float or None
        None where it is not defined, or not allowed to be quoted.
    interval : (float, float) or None
        90 %.
    floor : float or None
        The same score between halves of the reference; of an own number, how far the halves' own numbers differ.
    reference : float or None
        The reference's own number, of kind "own".
    reference_interval : (float, float) or None
    lag_time : float or None
        [ps]
    peers : dict of str to float
    note : str
    """

    key: str
    group: str
    name: str
    unit: str
    kind: str
    definition: str
    bins: str
    value: float | None
    interval: tuple[float, float] | None = None
    floor: float | None = None
    reference: float | None = None
    reference_interval: tuple[float, float] | None = None
    lag_time: float | None = None
    peers: dict[str, float | None] = field(default_factory=dict)
    note: str = ""

    @property
    def n_floors(self) -> float | None:
        """How many floors the value is from equal; None where the floor or the value is missing or 0."""
        return self.floors_of(self.value)

    def floors_of(self, value: float | None) -> float | None:
        """Return how many floors a value, such as a peer's, is from equal."""
        deviation, floor = self._deviation(value), self._floor_deviation()
        if deviation is None or floor is None or floor <= 0:
            return None
        return deviation / floor

    @property
    def verdict(self) -> str:
        """`matches`, `near` or `differs`, where the floor supports one; else "".

        A value matches if it, or the near end of its interval, is no further from equal than the floor, or if it lies
        in the reference's own interval.
        """
        return self.verdict_of(self.value, self.interval)

    def verdict_of(self, value: float | None, interval: tuple[float, float] | None = None) -> str:
        """Return the verdict of a value, such as a peer's."""
        deviation, floor = self._deviation(value), self._floor_deviation()
        if deviation is None or floor is None or not self.has_telling_floor:
            return ""
        if self.kind == OWN and self.reference_interval is not None:
            low, high = interval or (value, value)
            if low <= self.reference_interval[1] and high >= self.reference_interval[0]:  # type: ignore[operator]
                return "matches"
        if floor <= 0:
            return "matches" if deviation <= 0 else "differs"
        nearest = deviation
        if interval is not None and self.kind != OWN:
            nearest = min(deviation, *(self._deviation(end) or 0.0 for end in interval))
        if nearest <= floor:
            return "matches"
        return "near" if deviation <= NEAR_FLOORS * floor else "differs"

    @property
    def has_telling_floor(self) -> bool:
        """Whether the reference's halves are alike enough for a verdict.

        They are not where their divergence is above half of what is possible, their agreement below a half, or their
        own numbers further apart than the reference's is from nothing (or equal by chance, of a number that is not 0).
        """
        if self.floor is None:
            return False
        if self.kind == AGREEMENT:
            return self.floor >= 0.5
        if self.kind == DISTANCE:
            return "JSD" not in self.name or self.floor <= 0.5 * math.log(2.0)
        if not self.reference:
            return self.reference is not None and self.floor == 0
        return 0 < self.floor <= abs(self.reference)

    def _deviation(self, value: float | None) -> float | None:
        if value is None or (self.kind == OWN and self.reference is None):
            return None
        if self.kind == DISTANCE:
            return max(0.0, value)
        return max(0.0, 1.0 - value) if self.kind == AGREEMENT else abs(value - self.reference)  # type: ignore[operator]

    def _floor_deviation(self) -> float | None:
        if self.floor is None:
            return None
        return 1.0 - self.floor if self.kind == AGREEMENT else self.floor


@dataclass(frozen=True)
class Evaluation:
    """All that was found out about a sample.

    Attributes
    ----------
    name : str
    metrics : list of Metric
    facts : dict
        Of the ensembles, settings, versions: what stands in metrics.json beside the metrics.
    left_out : list of str
        Sentences on what was not scored, and why.
    cautions : list of str
        Sentences that a reader must know before quoting a number.
    is_settled : bool
        Whether the reference crosses between its slow states often enough to be compared with.
    drawings : dict
        What plots are made of: arrays by plot.
    """

    name: str
    metrics: list[Metric]
    facts: dict[str, Any]
    left_out: list[str]
    cautions: list[str]
    drawings: dict[str, Any]
    is_settled: bool = True

    def metric(self, key: str) -> Metric | None:
        """Return a metric by its key, None where it was left out."""
        return next((one for one in self.metrics if one.key == key), None)

    @property
    def summary(self) -> str:
        """How many scores match the reference, in words, without a full stop."""
        judged = [one.verdict for one in self.metrics if one.verdict]
        if not judged:
            return "no score has a floor to be judged by"
        n_near, n_off = judged.count("near"), judged.count("differs")
        return (
            f"{judged.count('matches')} of {len(judged)} scores match the reference, {n_near} "
            f"{'is' if n_near == 1 else 'are'} near, {n_off} {'differs' if n_off == 1 else 'differ'}"
        )

    def as_json(self) -> str:
        """Return the text of metrics.json."""
        metrics = [asdict(one) | {"n_floors": one.n_floors, "verdict": one.verdict} for one in self.metrics]
        for row in metrics:
            if "JSD" in row["name"] and row["value"] is not None:
                row["square_root"] = math.sqrt(max(0.0, row["value"]))  # the Jensen-Shannon distance
        content = {
            "what": "scores of a sample against a reference; natural logarithms; units nm, ps, K, kJ/mol",
            "name": self.name,
            **self.facts,
            "confidence_of_intervals": CONFIDENCE,
            "reference_is_settled": self.is_settled,
            "cautions": self.cautions,
            "left_out": self.left_out,
            "metrics": metrics,
        }
        return json.dumps(plain(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n"

    def as_csv(self) -> str:
        """Return the text of metrics.csv, one row a number."""
        peers = list(dict.fromkeys(peer for one in self.metrics for peer in one.peers))
        columns = ("key", "name", "unit", "lag_time_ps", "value", "low", "high", "floor", "reference", "reference_low")
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        last = ("reference_high", "verdict", "bins", "definition")
        writer.writerow([*columns, *last[:2], *peers, *last[2:]])
        for one in self.metrics:
            low, high = one.interval or (None, None)
            own_low, own_high = one.reference_interval or (None, None)
            numbers = (one.value, low, high, one.floor, one.reference, own_low, own_high)
            row = [one.key, one.name, one.unit, _digits(one.lag_time), *map(_digits, numbers), one.verdict]
            writer.writerow([*row, *(_digits(one.peers.get(peer)) for peer in peers), one.bins, one.definition])
        return text.getvalue()


def duration(picoseconds: float) -> str:
    """Return a time in words, in the unit that reads best."""
    for size, unit in ((1e6, "µs"), (1e3, "ns")):
        if picoseconds >= size:
            return f"{picoseconds / size:.3g} {unit}"
    return f"{picoseconds:.3g} ps"


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def plain(value: Any) -> Any:
    """Return nested content as JSON has it: NumPy numbers as Python's, NaN and infinity as None."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(one) for one in value]
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
