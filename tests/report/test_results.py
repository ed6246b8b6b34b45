"""How a number is judged by its floor, and how it is kept."""

import csv
import io
import json
import math

import numpy as np
import pytest

from openmm_latent.report.results import Evaluation, Metric, duration, plain


def metric(kind: str, value, floor, name: str = "x", **more) -> Metric:
    return Metric("x", "Torsions", name, "nats", kind, "what", "", value, floor=floor, **more)


@pytest.mark.parametrize(
    ("kind", "value", "floor", "more", "verdict"),
    [
        ("distance", 0.01, 0.02, {}, "matches"),
        ("distance", 0.03, 0.02, {}, "near"),
        ("distance", 0.05, 0.02, {}, "differs"),
        ("distance", 0.05, 0.02, {"interval": (0.01, 0.09)}, "matches"),
        ("distance", 0.05, 0.02, {"interval": (0.03, 0.07)}, "differs"),
        ("distance", 0.05, None, {}, ""),
        ("distance", None, 0.02, {}, ""),
        ("agreement", 0.99, 0.98, {}, "matches"),
        ("agreement", 0.97, 0.98, {}, "near"),
        ("agreement", 0.90, 0.98, {}, "differs"),
        ("agreement", 0.99, 0.30, {}, ""),  # halves that disagree cannot judge
        ("own", 10.5, 1.0, {"reference": 10.0}, "matches"),
        ("own", 11.5, 1.0, {"reference": 10.0}, "near"),
        ("own", 15.0, 1.0, {"reference": 10.0}, "differs"),
        ("own", 15.0, 1.0, {"reference": 10.0, "reference_interval": (8.0, 12.0)}, "differs"),
        ("own", 15.0, 1.0, {"reference": 10.0, "reference_interval": (8.0, 12.0), "interval": (11.0, 19.0)}, "matches"),
        ("own", 15.0, 20.0, {"reference": 10.0}, ""),
        ("own", 0.0, 0.0, {"reference": 0.0}, "matches"),
        ("own", 0.1, 0.0, {"reference": 0.0}, "differs"),  # a clash where the reference has none
        ("own", 5.0, 0.0, {"reference": 10.0}, ""),  # halves equal by chance
    ],
)
def test_verdicts(kind, value, floor, more, verdict):
    assert metric(kind, value, floor, **more).verdict == verdict


def test_a_divergence_whose_floor_is_half_of_what_is_possible_gets_no_verdict():
    assert metric("distance", 0.3, 0.34, name="a JSD").verdict == "matches"
    assert metric("distance", 0.3, 0.36, name="a JSD").verdict == ""


def test_floors_are_counted_from_equal():
    assert metric("agreement", 0.9, 0.98).n_floors == pytest.approx(5.0)
    assert metric("own", 12.0, 0.5, reference=10.0).n_floors == pytest.approx(4.0)
    assert metric("own", 12.0, 0.0, reference=10.0).n_floors is None


def evaluation(*metrics: Metric) -> Evaluation:
    return Evaluation("a sample", list(metrics), {"seed": 1}, ["Nothing."], [], {})


def test_json_holds_every_number_with_its_words():
    text = evaluation(metric("distance", 0.04, 0.02, name="a JSD", peers={"anm": None})).as_json()
    content = json.loads(text)
    row = content["metrics"][0]
    assert row["verdict"] == "near"
    assert row["n_floors"] == pytest.approx(2.0)
    assert row["square_root"] == pytest.approx(0.2)
    assert {"unit", "definition", "bins", "floor", "interval"} <= set(row)
    assert "NaN" not in text


def test_csv_has_a_row_a_number_and_a_column_a_peer():
    rows = list(csv.DictReader(io.StringIO(evaluation(metric("distance", 0.04, 0.02, peers={"anm": 0.5})).as_csv())))
    assert rows[0]["value"] == "0.04"
    assert rows[0]["anm"] == "0.5"
    assert rows[0]["low"] == ""


def test_plain_numbers():
    content = plain({"a": np.float32(1.5), "b": [np.int64(2), math.nan, math.inf], "c": np.arange(2), "d": np.True_})
    assert content == {"a": 1.5, "b": [2, None, None], "c": [0, 1], "d": True}
    assert json.dumps(content)


@pytest.mark.parametrize(
    ("picoseconds", "words"), [(0.5, "0.5 ps"), (999.0, "999 ps"), (2500.0, "2.5 ns"), (3e6, "3 µs")]
)
def test_durations(picoseconds, words):
    assert duration(picoseconds) == words


def test_the_summary_counts_in_words():
    near, off = metric("distance", 0.03, 0.02), metric("distance", 0.05, 0.02)
    assert evaluation(near, off).summary == "0 of 2 scores match the reference, 1 is near, 1 differs"
    assert evaluation(off, off).summary == "0 of 2 scores match the reference, 0 are near, 2 differ"
    assert evaluation(metric("distance", 0.03, None)).summary == "no score has a floor to be judged by"
