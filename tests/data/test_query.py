"""SQL over data sets: what was given can be read, and nothing else be reached."""

from pathlib import Path

import pyarrow as pa
import pytest

from lepton_platform.data.dataset import Dataset
from lepton_platform.data.query import BadQuery, find_datasets, query
from lepton_platform.stage import StageFailed

secret = pa.table({"word": ["swordfish"]})  # a Python variable that SQL must not find


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    Dataset(tmp_path / "clean" / "rows").write(pa.table({"id": ["a", "b"], "n": [1, 2]}), rows_per_shard=1)
    Dataset(tmp_path / "clean" / "quarantine").write(pa.table({"id": ["c"], "reason": ["empty"]}))
    return tmp_path / "clean"


def test_the_data_sets_of_a_stage_are_its_tables(stage):
    assert find_datasets(stage) == {"rows": stage / "rows", "quarantine": stage / "quarantine"}
    assert find_datasets(stage / "rows") == {"rows": stage / "rows"}
    assert find_datasets(stage / "nothing") == {}


def test_a_select_over_several_tables_is_answered(stage):
    sql = "SELECT id, n FROM rows UNION ALL SELECT id, NULL FROM quarantine ORDER BY id DESC"
    assert query(find_datasets(stage), sql).to_pylist() == [
        {"id": i, "n": n} for i, n in (("c", None), ("b", 2), ("a", 1))
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM '{file}'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM secret",
        "COPY rows TO '{file}'",
        "ATTACH '{file}'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "DELETE FROM rows",
        "CREATE TABLE t AS SELECT 1",
        "SELECT 1; SELECT 2",
        "SELECT",
        "",
        "SELEKT 1",
    ],
)
def test_nothing_else_can_be_read_or_written(stage, tmp_path, sql):
    file = tmp_path / "file.csv"
    file.write_text("a\n1\n")
    with pytest.raises(BadQuery):
        query(find_datasets(stage), sql.format(file=file))
    assert file.read_text() == "a\n1\n"


def test_an_unknown_table_is_answered_with_the_known_ones(stage):
    with pytest.raises(BadQuery, match="The tables are: quarantine, rows"):
        query(find_datasets(stage), "SELECT * FROM reviews")


def test_a_stage_that_was_not_run_is_named(tmp_path):
    with pytest.raises(StageFailed, match="run the stage that leaves it first"):
        query({"rows": tmp_path}, "SELECT 1")
