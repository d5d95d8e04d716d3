"""Update and delete by id: all or nothing, never in place."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from lepton_platform.data import edits
from lepton_platform.data.dataset import Dataset
from lepton_platform.data.edits import apply_edits, delete, update
from lepton_platform.stage import StageFailed

ROWS = {
    "id": ["a", "b", "c"],
    "event_time": pa.array([datetime(2020, 1, n, tzinfo=UTC) for n in (1, 2, 3)], pa.timestamp("us", "UTC")),
    "text": ["x", None, "z"],
    "n": pa.array([1, 2, 3], pa.int32()),
    "problem": [None, "no text", None],
}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "rows"
    Dataset(path).write(pa.table(ROWS), rows_per_shard=2)
    (path / "note.txt").write_text("kept")
    return path


def rows(dataset: Path) -> list[dict]:
    return Dataset(dataset).read().to_pylist()


def test_update_changes_the_named_cells_and_nothing_else(dataset):
    before, schema = rows(dataset), Dataset(dataset).read().schema
    assert update(dataset, {"c": {"n": 30}, "a": {"text": "xx", "event_time": "2021-01-01T00:00:00Z"}}) == 2
    after = rows(dataset)
    assert after[1] == before[1]
    assert after[0] == {**before[0], "text": "xx", "event_time": datetime(2021, 1, 1, tzinfo=UTC)}
    assert after[2] == {**before[2], "n": 30}
    assert Dataset(dataset).read().schema == schema and (dataset / "note.txt").read_text() == "kept"


def test_a_row_that_a_person_mended_has_no_problem_any_more(dataset):
    update(dataset, {"b": {"text": "now there"}})
    assert rows(dataset)[1]["problem"] is None


def test_delete_removes_the_rows_and_keeps_the_order(dataset):
    assert delete(dataset, ["b", "b"]) == 1
    assert [row["id"] for row in rows(dataset)] == ["a", "c"]
    assert delete(dataset, ["a", "c"]) == 2
    assert rows(dataset) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"a": {"n": 5}, "zz": {"n": 1}}, "has no row zz"),
        ({"a": {"n": 5, "colour": "red"}}, "'colour' is no column of this table.*event_time, text, n"),
        ({"a": {"id": "new"}}, "'id' is not to be changed"),
        ({"a": {"n": "many"}}, "'many' does not fit 'n'"),
        ({"a": {"n": 2**40}}, "does not fit 'n'"),
        ({"a": {"event_time": "soon"}}, "does not fit 'event_time'"),
    ],
)
def test_a_wrong_update_changes_nothing(dataset, changes, said):
    before = {path.name: path.read_bytes() for path in dataset.iterdir()}
    with pytest.raises(StageFailed, match=said):
        update(dataset, changes)
    assert {path.name: path.read_bytes() for path in dataset.iterdir()} == before
    assert [path.name for path in dataset.parent.iterdir()] == ["rows"]


def test_a_wrong_delete_changes_nothing(dataset):
    with pytest.raises(StageFailed, match="has no row q"):
        delete(dataset, ["a", "q"])
    assert len(rows(dataset)) == 3


def test_a_kill_between_the_two_renames_is_mended_by_the_next_edit(dataset):
    dataset.rename(dataset.with_name(".rows.replaced"))
    delete(dataset, ["a"])
    assert [row["id"] for row in rows(dataset)] == ["b", "c"]
    assert [path.name for path in dataset.parent.iterdir()] == ["rows"]


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"op": "drop", "id": "a"}', '{"op": "update", "id": "a"}', '{"op": "delete"}']
)
def test_a_journal_that_cannot_be_read_stops_rather_than_forget_a_deletion(tmp_path, line):
    journal = tmp_path / "edits.jsonl"
    journal.write_text('{"op": "delete", "id": "a"}\n' + line + "\n")
    with pytest.raises(StageFailed, match=r"edits.jsonl line 2 is not an edit"):
        apply_edits(pa.table(ROWS), journal)


def test_a_journal_grows_whole_line_by_whole_line(tmp_path):
    journal = tmp_path / "new" / "edits.jsonl"
    edits._append(journal, [{"op": "delete", "id": "ü"}])
    journal.write_bytes(journal.read_bytes().rstrip(b"\n"))  # an editor that leaves no last newline
    edits._append(journal, [{"op": "update", "id": "a", "set": {"n": 1}}])
    assert edits._read(journal) == ({"a": {"n": 1}}, ["ü"])
    assert [path.name for path in journal.parent.iterdir()] == ["edits.jsonl"]


def test_who_notes_edits_at_the_same_time_loses_none(tmp_path):
    journal = tmp_path / "edits.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: edits._append(journal, [{"op": "delete", "id": f"row-{n}"}]), range(200)))
    assert sorted(edits._read(journal)[1]) == sorted(f"row-{n}" for n in range(200))
    assert [path.name for path in tmp_path.iterdir()] == ["edits.jsonl"]
