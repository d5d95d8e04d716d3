"""Stage raw: sampling by groups, feedback, edits."""

import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_platform.data.dataset import Dataset
from lepton_platform.data.edits import note_deletions, note_updates
from lepton_platform.data.raw import RawParams, SourceParams, raw
from lepton_platform.data.records import hashed_time, keep_groups, to_table
from lepton_platform.stage import StageFailed

SCHEMA = pa.schema([("value", pa.int64()), ("label", pa.string()), ("group", pa.string())])


def labelled(line):
    if "value" not in line:
        raise ValueError("no value")
    return {"value": line["value"], "label": line["label"], "group": "feedback"}


def a_source(rows: int = 12) -> SimpleNamespace:
    def records(params, cache):
        for n in range(rows):
            yield {"id": f"r{n}", "event_time": hashed_time(f"r{n}"), "value": n, "label": "x", "group": f"g{n // 3}"}

    return SimpleNamespace(SCHEMA=SCHEMA, GROUP="group", SourceParams=SourceParams, records=records, labelled=labelled)


@pytest.fixture
def run(tmp_path: Path):
    """Run the stage on twelve rows of four groups, with what lies in ``data/task``."""
    (tmp_path / "task").mkdir()

    def stage(**params) -> list[dict]:
        out = tmp_path / "out"
        raw(
            out=out,
            params=RawParams(**params),
            source=a_source(),
            cache=tmp_path,
            labels=tmp_path / "task" / "labels.jsonl",
        )
        return Dataset(out).read().to_pylist()

    stage.folder = tmp_path / "task"
    stage.out = tmp_path / "out"
    return stage


def test_every_record_is_a_row_in_the_sources_order(run):
    rows = run()
    assert [row["id"] for row in rows] == [f"r{n}" for n in range(12)]
    assert {(row["origin"], row["problem"]) for row in rows} == {("source", None)}


def test_a_limit_keeps_whole_groups_and_no_more_rows_than_asked(run):
    few, more = run(limit=7), run(limit_groups=3)
    assert len(few) == 6 and len(more) == 9
    assert {row["id"] for row in few} < {row["id"] for row in more}
    with pytest.raises(StageFailed, match="smaller than the first group"):
        run(limit=2)


@given(st.lists(st.one_of(st.none(), st.sampled_from("abcdefg"))), st.integers(1, 8), st.integers(0, 3))
def test_a_larger_sample_holds_the_smaller_one(groups, wanted, more):
    small, large = keep_groups(groups, wanted, None), keep_groups(groups, wanted + more, None)
    assert all(b for a, b in zip(small, large, strict=True) if a)
    for group in set(groups):
        assert len({kept for kept, own in zip(large, groups, strict=True) if own == group}) == 1


def test_a_wrong_name_in_the_section_is_named_with_the_right_ones(run):
    with pytest.raises(StageFailed, match=r"`source`.*colour: Extra inputs.*The names there are: limit"):
        run(colour="red")


def test_feedback_joins_and_the_last_word_on_an_id_counts(run):
    lines = [
        {"id": "p1", "event_time": "2026-01-01T00:00:00Z", "label": "x", "value": 1},
        {"id": "p2", "event_time": "2026-01-02T00:00:00Z", "label": "y", "value": 2},
        {"id": "p1", "event_time": "2026-01-03T00:00:00Z", "label": "z", "value": 1},
    ]
    (run.folder / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [row for row in run() if row["origin"] == "feedback"]
    assert [(row["id"], row["label"]) for row in rows if not row["problem"]] == [
        ("feedback-p2", "y"),
        ("feedback-p1", "z"),
    ]
    (old,) = [row for row in rows if row["problem"]]
    assert old["label"] == "x" and "labelled anew" in old["problem"]


def test_malformed_feedback_is_rows_with_problems_and_costs_no_good_line(run):
    bad = ["{", "3", '{"id": 5, "event_time": "2026-01-01", "label": "x", "value": 1}', '{"id": "p3", "label": "x"}']
    good = '{"id": "p4", "event_time": "2026-01-01", "label": "x", "value": 1}'
    (run.folder / "labels.jsonl").write_bytes("\n".join([*bad, good]).encode() + b"\n\xff\xfe\n")
    rows = [row for row in run() if row["origin"] == "feedback"]
    assert [row["id"] for row in rows if not row["problem"]] == ["feedback-p4"]
    said = [row["problem"] for row in rows if row["problem"]]
    assert len(said) == 5 and "labels.jsonl line 4: no value; None is not a time" in said
    assert len({row["id"] for row in rows}) == 6


def test_a_value_that_does_not_fit_its_column_costs_the_cell_and_names_it():
    schema = pa.schema([("id", pa.string()), ("n", pa.int64()), ("problem", pa.string())])
    rows = to_table([{"id": "a", "n": 1}, {"id": "b", "n": "two"}, {"id": "c", "n": 3}], schema).to_pylist()
    assert [row["n"] for row in rows] == [1, None, 3]
    assert [row["problem"] for row in rows] == [None, "n: 'two' is not of type int64", None]


def test_edits_survive_a_new_run_and_an_id_outside_the_sample_is_no_error(run):
    run()
    journal = run.folder / "edits.jsonl"
    note_updates(journal, run.out, {"r1": {"label": "corrected"}, "r2": {"value": 20}})
    note_deletions(journal, run.out, ["r0", "r11"])
    for _ in range(2):
        rows = {row["id"]: row for row in run()}
        assert rows["r1"]["label"] == "corrected" and rows["r2"]["value"] == 20
        assert not {"r0", "r11"} & set(rows) and len(rows) == 10
    assert len(run(limit_groups=1)) <= 3


def test_a_deleted_id_goes_with_all_that_it_ever_said(run):
    lines = [{"id": "p1", "event_time": "2026-01-01", "label": word, "value": 1} for word in "xyz"]
    (run.folder / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run()
    note_deletions(run.folder / "edits.jsonl", run.out, ["feedback-p1"])
    assert {row["origin"] for row in run()} == {"source"}
