"""Figures of a window of the log: counts, rates, latencies, and accuracy where there is feedback."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_platform.monitoring.performance import performance, wilson

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT = pa.timestamp("us", tz="UTC")


def log(rows: list[tuple[str, float, str]], model: str = "sentiment:a") -> pa.Table:
    """(id, seconds after noon, label)."""
    columns = {
        "id": [r[0] for r in rows],
        "at": pa.array([NOON + timedelta(seconds=r[1]) for r in rows], AT),
        "label": [r[2] for r in rows],
        "model": [model] * len(rows),
        "latency_ms": [float(i) for i in range(len(rows))],
    }
    return pa.table(columns)


def said(*rows: tuple[str, str, float]) -> pa.Table:
    at = [NOON + timedelta(seconds=r[2]) for r in rows]
    columns = {"id": [r[0] for r in rows], "label": [r[1] for r in rows], "at": pa.array(at, AT)}
    return pa.table({name: pa.array(v, AT if name == "at" else pa.string()) for name, v in columns.items()})


def figures(pieces: list[pa.Table], feedback: pa.Table, hours: float = 1):
    return performance(predictions=pieces, feedback=feedback, since=NOON, until=NOON + timedelta(hours=hours))


def test_a_window_is_counted_across_the_pieces_of_the_log_and_no_further():
    first, second = log([("a", 0, "fresh"), ("b", 10, "rotten")]), log([("c", 3599, "fresh")], "sentiment:b")
    found = figures([first, second, log([("d", 3600, "fresh"), ("e", -1, "fresh")])], said())
    assert found.answers == 3 and found.answers_per_second == pytest.approx(3 / 3600)
    assert found.busiest_minute_per_second == pytest.approx(2 / 60)
    assert (found.by_model, found.by_label) == ({"sentiment:a": 2, "sentiment:b": 1}, {"fresh": 2, "rotten": 1})
    assert found.accuracy is None and found.accuracy_ci95 is None


def test_latency_percentiles_are_those_of_the_rows():
    found = figures([log([(str(i), i, "fresh") for i in range(101)])], said())
    assert found.latency_ms == {"p50": 50, "p90": 90, "p99": 99, "max": 100}


def test_accuracy_counts_the_last_word_on_answers_of_the_window():
    rows = log([("a", 0, "fresh"), ("b", 1, "fresh"), ("c", 2, "rotten"), ("d", 3, "rotten")])
    feedback = said(("a", "rotten", 5), ("a", "fresh", 9), ("b", "rotten", 9e6), ("c", "rotten", 4), ("x", "fresh", 4))
    found = figures([rows], feedback)
    assert (found.labelled, found.accuracy, found.coverage) == (3, pytest.approx(2 / 3), 0.75)
    assert found.recall == {"fresh": 1, "rotten": 0.5}
    low, high = found.accuracy_ci95
    assert low < 2 / 3 < high


def test_an_empty_window_has_figures_too_and_they_are_json():
    import json

    found = figures([log([])], said())
    assert found.answers == 0 and found.latency_ms == {}
    assert json.loads(json.dumps(found.as_dict()))["accuracy"] is None


@given(st.integers(1, 500), st.floats(0, 1))
def test_the_interval_holds_the_share_and_is_never_a_point(total, part):
    right = round(total * part)
    low, high = wilson(right, total)
    assert 0 <= low <= right / total <= high <= 1 and low < high


def test_the_interval_is_wilsons():
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Newcombe 1998, method 3
