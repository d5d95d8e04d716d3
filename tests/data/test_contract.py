"""Stage contract: Great Expectations on DuckDB says no to every kind of broken data, and why."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from lepton_platform import settings
from lepton_platform.data.contracts import AnyContractParams, contract, suite
from lepton_platform.data.dataset import Dataset
from lepton_platform.settings import use_workspace
from lepton_platform.stage import StageFailed
from lepton_platform.tasks.sentiment import contract as sentiment

PARAMS = AnyContractParams(min_rows=4, min_share=0.3, max_chars=100)  # pyright: ignore


def columns() -> dict[str, pa.Array]:
    """Eight sound reviews, column by column."""
    times = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(8)]
    return {
        "id": pa.array([f"r{n}" for n in range(8)]),
        "event_time": pa.array(times, pa.timestamp("us", "UTC")),
        "text": pa.array([f"review number {n}" for n in range(8)]),
        "label": pa.array(["fresh", "rotten"] * 4),
        "film_id": pa.array([f"f{n // 2}" for n in range(8)]),
        "film": pa.array([None] * 8, pa.string()),
        "origin": pa.array(["source"] * 7 + ["feedback"]),
    }


def changed(name: str, **cells) -> Callable[[dict], dict]:
    """Put values into rows of one column: ``changed("text", r3=None)``."""

    def breaks(table: dict) -> dict:
        values = table[name].to_pylist()
        for row, value in cells.items():
            values[int(row[1:])] = value
        return {**table, name: pa.array(values, table[name].type)}

    return breaks


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    before, known = dict(os.environ), settings._settings
    folder = tmp_path_factory.mktemp("workspace")
    use_workspace(folder)
    yield folder
    settings._settings = known
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def run(workspace: Path, tmp_path: Path):
    def stage(table: dict, params: AnyContractParams = PARAMS, previous: dict | None = None, rows_per_shard: int = 3):
        Dataset(tmp_path / "clean" / "rows").write(pa.table(table), rows_per_shard)
        (tmp_path / "out").mkdir(exist_ok=True)
        return contract(
            clean=tmp_path / "clean",
            out=tmp_path / "out",
            params=params,
            contract=sentiment,
            previous=previous,
            task="sentiment",
        )

    stage.out = tmp_path / "out"
    return stage


def test_sound_data_pass_and_the_verdicts_are_there_to_read(run, workspace):
    result = run(columns())
    found = json.loads((run.out / "result.json").read_text())
    assert found["success"] and found["rows"] == result.rows == 8
    assert found["statistics"]["successful"] == len(found["expectations"]) == result.metrics["expectations"]
    assert found["expectations"][0]["type"] == "expect_table_columns_to_match_set"
    assert "'text' is 2 to 100 characters long. | yes" in result.metadata["expectations_md"]
    docs = Path(result.metadata["data_docs"])
    assert docs.is_relative_to(workspace / ".lepton") and "Validation Results" in docs.read_text()


BROKEN = [
    ("text is", changed("text", r3=None), "'text' is never missing", "r3"),
    ("group is", changed("film_id", r5=None), "'film_id' is never missing", "r5"),
    ("time is", changed("event_time", r0=None), "'event_time' is never missing", "r0"),
    ("ids", changed("id", r7="r2"), "No two rows share 'id'", "r2"),
    ("texts", changed("text", r7="review number 2"), "No two rows share 'text'", "r7"),
    ("label", changed("label", r4="splendid"), "'label' is one of fresh, rotten", "r4"),
    ("balance", changed("label", r1="fresh", r3="fresh", r5="fresh"), "Each 'label' makes up at least 30%", "rotten"),
    ("absent", changed("label", r1="fresh", r3="fresh", r5="fresh", r7="fresh"), "Each 'label' makes up", "rotten"),
    ("short", changed("text", r6="x"), "characters long", "r6"),
    ("long", changed("text", r6="x" * 101), "characters long", "r6"),
    ("origin", changed("origin", r0="rumour"), "'origin' is one of", "r0"),
    ("type", lambda t: {**t, "film": pa.array(range(8))}, "Every column has its type", "BIGINT"),
    ("missing column", lambda t: {k: v for k, v in t.items() if k != "film"}, "The columns are", None),
    ("one more", lambda t: {**t, "extra": pa.array(range(8))}, "The columns are", None),
    ("rows", lambda t: {k: v[:3] for k, v in t.items()}, "There are at least 4 rows", None),
    ("no rows", lambda t: {k: v[:0] for k, v in t.items()}, "There are at least 4 rows", None),
]


@pytest.mark.parametrize(("breaks", "said", "sample"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_broken_data_fail_with_the_expectation_and_rows_to_look_at(run, breaks, said, sample):
    with pytest.raises(StageFailed) as failed:
        run(breaks(columns()))
    assert said in failed.value.message
    (verdict,) = [v for v in failed.value.details["failed"] if said in v["description"]]
    assert not verdict["error"]
    assert sample is None or sample in json.dumps(verdict["sample"])
    json.dumps(failed.value.details)
    assert not (run.out / "result.json").exists()


def test_a_missing_column_is_named_by_every_expectation_on_it_and_nothing_crashes(run):
    with pytest.raises(StageFailed) as failed:
        run({k: v for k, v in columns().items() if k != "label"})
    about = [v for v in failed.value.details["failed"] if "'label'" in v["description"]]
    assert len(about) == 3 and all(v["error"] for v in about)


def test_data_docs_are_written_of_a_failure_too(run):
    with pytest.raises(StageFailed) as failed:
        run(changed("text", r3=None)(columns()))
    docs = Path(failed.value.details["data_docs"])
    pages = [path.read_text() for path in docs.parent.rglob("validations/**/*.html")]
    assert len(pages) == 1 and "Failed" in pages[0]


def test_a_leap_in_the_row_count_warns_outside_the_result_or_fails_if_asked(run):
    plain = run(columns(), previous={"rows": 8})
    before = (run.out / "result.json").read_bytes()
    warned = run(columns(), previous={"rows": 100})
    assert plain.metadata["warnings"] == [] and warned.metadata["warnings"] == [
        "8 rows, 100 in the last version: a change of -92%"
    ]
    assert (run.out / "result.json").read_bytes() == before
    strict = AnyContractParams(**PARAMS.model_dump(exclude_unset=True), on_row_change="fail")
    with pytest.raises(StageFailed, match="max_row_change"):
        run(columns(), strict, previous={"rows": 100})
    run(columns(), strict, previous={"rows": 12})


def test_a_wrong_name_in_the_section_is_named_with_the_right_ones(run):
    with pytest.raises(StageFailed, match=r"min_length: Extra inputs.*The names there are: max_row_change"):
        run(columns(), AnyContractParams(min_length=3))  # pyright: ignore


def test_names_and_values_with_quotes_and_braces_are_taken_as_they_are(workspace, tmp_path):
    from lepton_platform.data.contracts.gx import check

    table = pa.table({"id": ["a", "b"], 'odd "{name}"': ["it's {x}", "it's {x}"]})
    Dataset(tmp_path).write(table)
    expectations = [
        *suite.columns({"id": "VARCHAR", 'odd "{name}"': "VARCHAR"}),
        suite.share_of_each('odd "{name}"', ["it's {x}"], 0.5),
    ]
    assert [(v["success"], v["error"]) for v in check(tmp_path, expectations, "odd", None)] == [(True, None)] * 3


SCRIPT = """
import sys
from pathlib import Path
from lepton_platform.data.contracts import AnyContractParams, contract
from lepton_platform.tasks.sentiment import contract as sentiment
folder = Path(sys.argv[1])
assert "great_expectations" not in sys.modules
params = AnyContractParams(min_rows=4, min_share=0.3, max_chars=100)
contract(clean=folder / "clean", out=folder / "again", params=params, contract=sentiment, previous=None, task="x")
"""


def test_a_fresh_process_leaves_the_same_bytes_and_a_clean_stderr(run, tmp_path):
    run(columns())
    (tmp_path / "again").mkdir()
    env = {**os.environ, "PYTHONHASHSEED": "7", "LEPTON_WORKSPACE": str(tmp_path / "workspace")}
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again" / "result.json").read_bytes() == (run.out / "result.json").read_bytes()
    assert done.stderr == "" and done.stdout == ""
