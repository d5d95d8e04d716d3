"""Labelled feedback: late, double, contradicting, unknown; the same file whatever the order it came in."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.monitoring.feedback import export_labels

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT = pa.timestamp("us", tz="UTC")


def predictions(*ids: str) -> pa.Table:
    at = [NOON + timedelta(seconds=int(i[1:])) for i in ids]
    columns = {
        "id": list(ids),
        "at": pa.array(at, AT),
        "text": [f"text of {i}" for i in ids],
        "score": [0.5] * len(ids),
    }
    return pa.table(columns)


def feedback(*said: tuple[str, str, int]) -> pa.Table:
    """(id, label, minutes after noon) as the log has it."""
    at = [NOON + timedelta(minutes=m) for _, _, m in said]
    ids, labels = ([row[k] for row in said] for k in (0, 1))
    return pa.table({"id": pa.array(ids, pa.string()), "label": pa.array(labels, pa.string()), "at": pa.array(at, AT)})


def export(path: Path, rows: pa.Table, said: pa.Table):
    return export_labels(predictions=[rows], feedback=said, labels=path, inputs=("text",))


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return tmp_path / "data" / "sentiment" / "labels.jsonl"


def test_labelled_predictions_become_lines_and_unlabelled_ones_do_not(labels):
    done = export(labels, predictions("p2", "p1", "p3"), feedback(("p2", "fresh", 0), ("p1", "rotten", 1)))
    assert (done.added, done.changed, done.contradicted, done.unknown, done.total) == (2, 0, 0, 0, 2)
    assert read(labels) == [
        {"id": "p1", "event_time": "2026-03-01T12:00:01.000000+00:00", "text": "text of p1", "label": "rotten"},
        {"id": "p2", "event_time": "2026-03-01T12:00:02.000000+00:00", "text": "text of p2", "label": "fresh"},
    ]


def test_nothing_new_leaves_the_file_alone(labels):
    export(labels, predictions("p1"), feedback(("p1", "fresh", 0)))
    before = labels.stat()
    done = export(labels, predictions("p1"), feedback(("p1", "fresh", 0), ("p1", "fresh", 5)))
    assert (done.added, done.changed, done.contradicted) == (0, 0, 0)
    assert (labels.stat().st_mtime_ns, labels.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_the_last_label_wins_and_contradictions_are_counted(labels):
    said = feedback(("p1", "rotten", 9), ("p1", "fresh", 3), ("p2", "fresh", 1), ("p2", "fresh", 2))
    done = export(labels, predictions("p1", "p2"), said)
    assert (done.added, done.contradicted) == (2, 1)
    assert [line["label"] for line in read(labels)] == ["rotten", "fresh"]


def test_a_late_label_replaces_the_exported_one(labels):
    export(labels, predictions("p1"), feedback(("p1", "fresh", 0)))
    done = export(labels, predictions("p1"), feedback(("p1", "fresh", 0), ("p1", "rotten", 60)))
    assert (done.added, done.changed, done.contradicted, done.total) == (0, 1, 1, 1)
    assert read(labels)[0]["label"] == "rotten"


def test_feedback_on_an_unknown_id_waits_for_its_prediction(labels):
    early = feedback(("p7", "fresh", 0))
    done = export(labels, predictions("p1"), early)
    assert (done.added, done.unknown) == (0, 1)
    assert not labels.exists()
    assert export(labels, predictions("p7"), early).added == 1


def test_a_pruned_log_loses_no_line_and_still_takes_a_later_label(labels):
    export(labels, predictions("p1", "p2"), feedback(("p1", "fresh", 0), ("p2", "fresh", 0)))
    done = export(labels, predictions("p9"), feedback(("p2", "rotten", 9), ("p9", "fresh", 9)))
    assert (done.added, done.changed, done.unknown) == (1, 1, 0)
    assert [(line["id"], line["label"]) for line in read(labels)] == [
        ("p1", "fresh"),
        ("p2", "rotten"),
        ("p9", "fresh"),
    ]


def test_lines_that_are_not_ours_are_kept(labels):
    labels.parent.mkdir(parents=True)
    labels.write_bytes(
        b'by hand\n{"id": "x", "label": "old"}\n{"id": "x", "label": "new"}\n\xff\xfe\n{"id": "p1", "label": "a"}\n'
    )
    export(labels, predictions("p1"), feedback(("p1", "fresh", 0)))
    lines = labels.read_bytes().splitlines()
    assert lines[:3] == [b"by hand", b'{"id": "x", "label": "old"}', b"\xff\xfe"]
    assert [json.loads(line)["label"] for line in lines[3:]] == ["fresh", "new"]


def test_awkward_text_stays_on_one_line(labels):
    text = 'a\nb\r\u2028"\u00e9\U0001f600\x00'
    rows = pa.table({"id": ["p1"], "at": pa.array([NOON], AT), "text": [text]})
    export(labels, rows, feedback(("p1", "fresh", 0)))
    assert [json.loads(line)["text"] for line in labels.read_bytes().splitlines()] == [text]


said_lists = st.lists(
    st.tuples(st.sampled_from(["p1", "p2", "p3", "p8", "p9"]), st.sampled_from(["fresh", "rotten"]), st.integers(0, 5)),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(said=said_lists, order=st.randoms(use_true_random=False), cut=st.integers(0, 12))
def test_any_order_and_any_number_of_exports_leave_the_same_bytes(tmp_path_factory, said, order, cut):
    folder = tmp_path_factory.mktemp("labels")
    rows = predictions("p1", "p2", "p3")
    export(folder / "once.jsonl", rows, feedback(*said))
    shuffled = sorted(said, key=lambda _: order.random())
    export(folder / "twice.jsonl", rows, feedback(*shuffled[:cut]))
    export(folder / "twice.jsonl", rows, feedback(*shuffled))
    once, twice = folder / "once.jsonl", folder / "twice.jsonl"
    assert once.exists() == twice.exists()
    assert not once.exists() or once.read_bytes() == twice.read_bytes()
    known = {i for i, _, _ in said} & {"p1", "p2", "p3"}
    assert {line["id"] for line in read(once)} == known if known else not once.exists()
