"""Stage dataset: every feature as it was known at the row's time; each row once; no group in two splits."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lepton_platform.data.dataset import Dataset
from lepton_platform.features.split import SPLITS
from lepton_platform.features.training_set import DatasetParams, dataset, point_in_time
from lepton_platform.features.views import read_declaration
from lepton_platform.stage import StageFailed
from lepton_platform.tasks.sentiment import preprocess
from tests.features.rows import COLUMNS, make_features, quiet, reviews, write_clean


def run(folder: Path, name: str = "dataset", **params: object) -> Path:
    """Run the stage on ``folder``'s clean rows and features; returns its output."""
    out, scratch = folder / name, folder / "scratch"
    out.mkdir()
    scratch.mkdir(exist_ok=True)
    dataset(
        clean=folder / "clean",
        features=folder / "features",
        out=out,
        params=DatasetParams.model_validate(params),
        preprocess=preprocess,
        scratch=scratch,
        progress=quiet,
    )
    return out


def splits(out: Path) -> dict[str, pa.Table]:
    return {name: Dataset(out / name).read() for name in SPLITS}


def whole(out: Path) -> dict[str, dict]:
    """Every row of all splits by its id."""
    return {row["id"]: row | {"split": name} for name, table in splits(out).items() for row in table.to_pylist()}


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the rows and their features that a test may change."""
    for name in ("clean", "features"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


@pytest.fixture(scope="module")
def built(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    for name in ("clean", "features"):
        shutil.copytree(made / name, folder / name)
    return run(folder)


def test_every_row_comes_out_once_in_order_with_its_columns_and_features(made, built):
    rows, found = Dataset(made / "clean" / "rows").read(), splits(built)
    order = {identity: n for n, identity in enumerate(rows["id"].to_pylist())}
    for table in found.values():
        places = [order[identity] for identity in table["id"].to_pylist()]
        assert places == sorted(places) and table.num_rows
        there = rows.take(places)
        assert all(table[name].equals(there[name]) for name in COLUMNS)
    assert sorted(i for table in found.values() for i in table["id"].to_pylist()) == sorted(order)
    row = whole(built)["r17"]
    counted = preprocess.statistics(row["text"])
    assert {k: row[f"text_statistics__{k}"] for k in ("words", "negations")} == {"words": 9, "negations": 1}
    assert row["text_statistics__mean_word_length"] == pytest.approx(counted["mean_word_length"])


def test_no_film_is_in_two_splits_and_the_file_says_what_they_hold(built):
    films = {name: set(table["film_id"].to_pylist()) for name, table in splits(built).items()}
    assert sum(map(len, films.values())) == len(set().union(*films.values())) == 40
    said = json.loads((built / "splits.json").read_text())
    assert said["group"] == "film_id" and said["rows"] == 160
    for name, table in splits(built).items():
        assert said["splits"][name]["rows"] == table.num_rows == sum(said["splits"][name]["labels"].values())
        assert said["splits"][name]["groups"] == len(films[name])


def test_films_can_be_named_for_a_split_and_the_file_says_so(folder):
    out = run(folder, test_groups=["f3", "f1"], validation_groups=["f7"])
    films = {name: set(table["film_id"].to_pylist()) for name, table in splits(out).items()}
    assert films["test"] == {"f1", "f3"} and films["validation"] == {"f7"} and len(films["train"]) == 37
    said = json.loads((out / "splits.json").read_text())
    assert (said["test_groups"], said["validation_groups"]) == (["f3", "f1"], ["f7"])


def test_a_films_history_counts_only_what_was_said_before(built):
    found = whole(built)
    assert [found[f"r{n}"]["film_history__past_reviews"] for n in (3, 43, 83, 123)] == [0, 1, 2, 3]
    labels = [found[f"r{n}"]["label"] for n in (3, 43, 83)]
    shares = [found[f"r{n}"]["film_history__past_fresh_share"] for n in (3, 43, 83, 123)]
    assert shares[0] is None
    assert shares[1:] == pytest.approx([labels[:n].count("fresh") / n for n in (1, 2, 3)])


def test_rows_that_come_later_move_no_film_and_change_no_earlier_row(built, tmp_path):
    write_clean(tmp_path, pa.concat_tables([reviews(160), reviews(400, films=57).slice(160)]))
    make_features(tmp_path, tmp_path)
    before, after = whole(built), whole(run(tmp_path))
    assert len(after) == 400
    assert {identity: after[identity] for identity in before} == before


def test_the_number_of_rows_asked_at_a_time_changes_nothing(built, folder):
    assert whole(run(folder, rows_per_query=64)) == whole(built)


# --- values that came late


def late(folder: Path, view: str, identity: str, key: str, days: int, **columns: object) -> None:
    """Add a value for the key that holds from the row's own time on, but came to be known ``days`` later."""
    values = Dataset(folder / "features" / view)
    table = values.read()
    row = table.filter(pc.equal(table[0], key)).slice(0, 1).to_pylist()[0]  # pyright: ignore
    rows = Dataset(folder / "clean" / "rows").read(["id", "event_time"]).to_pylist()
    event = next(r["event_time"] for r in rows if r["id"] == identity)
    added = row | {"event_timestamp": event, "created_timestamp": event + timedelta(days=days), **columns}
    values.write(pa.concat_tables([table, pa.Table.from_pylist([added], table.schema)]))


def test_a_value_that_came_to_be_known_after_the_row_is_not_used(built, folder):
    late(folder, "text_statistics", "r50", "r50", 1, words=999)
    late(folder, "film_history", "r50", "f10", 1, past_reviews=999)
    assert whole(run(folder)) == whole(built)


def test_the_same_value_known_in_time_is_used(built, folder):
    late(folder, "film_history", "r50", "f10", 0, past_reviews=999)
    found, before = whole(run(folder)), whole(built)
    assert found["r50"]["film_history__past_reviews"] == 999 != before["r50"]["film_history__past_reviews"]
    assert {i: row for i, row in found.items() if row["film_id"] != "f10"} == {
        i: row for i, row in before.items() if row["film_id"] != "f10"
    }


def test_a_value_that_is_too_old_holds_no_more(made, tmp_path):
    rows = Dataset(made / "clean" / "rows").read()
    views = [replace(view, ttl=timedelta(days=1), complete=False) for view in read_declaration(made / "features")]
    answer = point_in_time(rows, [views[1]], made / "features", tmp_path)
    fresh = dict(zip(answer["id"].to_pylist(), answer["film_history__past_reviews"].to_pylist(), strict=True))
    assert fresh["r3"] == 0 and fresh["r43"] is None  # 40 hours after the film's first review


# --- what fails the stage


def drop(folder: Path, view: str, keep: pa.Array) -> None:
    values = Dataset(folder / "features" / view)
    values.write(values.read().filter(keep))


def test_a_complete_view_without_a_value_fails_and_names_the_rows(folder):
    ids = Dataset(folder / "features" / "text_statistics").read()["review_id"]
    drop(folder, "text_statistics", pa.array([i not in {"r7", "r9"} for i in ids.to_pylist()]))
    for shard in Dataset(folder / "features" / "text_statistics").shards()[1:]:
        shard.unlink()  # the rest of what was there before
    with pytest.raises(StageFailed, match="knows nothing of 2 rows at their time, ids r7, r9 first"):
        run(folder)


@pytest.mark.parametrize("break_", [lambda t: t.slice(1), lambda t: pa.concat_tables([t, t.slice(0, 1)])])
def test_a_store_that_loses_or_doubles_a_row_fails_the_stage(folder, monkeypatch, break_):
    from feast.infra.offline_stores.offline_store import RetrievalJob

    answer = RetrievalJob.to_arrow
    monkeypatch.setattr(RetrievalJob, "to_arrow", lambda self, *args, **more: break_(answer(self, *args, **more)))
    with pytest.raises(StageFailed, match=r"asked for 160 rows and gave 1(59|61), not each of them once") as failed:
        run(folder)
    assert failed.value.details["asked"] == 160


def test_too_few_films_for_three_splits_say_so(tmp_path):
    write_clean(tmp_path, reviews(6, films=1))
    make_features(tmp_path, tmp_path)
    with pytest.raises(StageFailed, match=r"no rows: the 6 rows are of 1 groups \(film_id\)"):
        run(tmp_path)


# --- the same bytes

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, "")
from tests.features import rows
from tests.features.test_dataset import run
folder, cache = map(Path, sys.argv[1:])
rows.write_clean(folder, rows.reviews(60))
rows.make_features(folder, cache, views=None, options={"text_embedding": {"max_tokens": 8}})
run(folder)
"""


@pytest.mark.slow
def test_two_fresh_processes_leave_the_same_bytes_and_a_clean_stderr(tmp_path, cache_dir):
    found = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        words = [sys.executable, "-c", SCRIPT, str(folder), str(cache_dir)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[2])
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        outputs = [path for name in ("features", "dataset") for path in sorted((folder / name).rglob("*"))]
        found.append({str(path.relative_to(folder)): path.read_bytes() for path in outputs if path.is_file()})
    assert len(found[0]) == 8 and found[0] == found[1]
