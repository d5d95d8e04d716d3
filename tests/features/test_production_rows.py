"""Labelled rows of the service: the frozen test split never changes for them, and some are kept to judge by."""

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_platform.data.dataset import Dataset
from lepton_platform.features.split import PRODUCTION
from lepton_platform.features.training_set import DatasetParams, _assign
from lepton_platform.pipeline.versioning import tree_hash
from tests.features.rows import START, make_features, reviews, write_clean
from tests.features.test_dataset import run

TEST_FILMS = {f"f{n}" for n in range(40) if DatasetParams().split_of(f"f{n}") == "test"}


def fed_back(films: list[str]) -> pa.Table:
    """A labelled row of the service for each film, of a later year; unknown films are the service's own."""
    rows = reviews(len(films)).to_pylist()
    for number, (row, film) in enumerate(zip(rows, films, strict=True)):
        late = START + timedelta(days=400, minutes=number)
        row |= {"id": f"feedback-{number}", "film_id": film, "event_time": late, "text": f"Sent {number}: not bad!"}
    return pa.Table.from_pylist(rows, reviews(1).schema)


def with_origins(source: pa.Table, feedback: pa.Table) -> pa.Table:
    origins = ["source"] * source.num_rows + ["feedback"] * feedback.num_rows
    return pa.concat_tables([source, feedback]).append_column("origin", pa.array(origins, pa.string()))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The stage's outputs without feedback and with 120 rows of it."""
    films = [f"sent-{n}" for n in range(100)] + [f"f{n % 40}" for n in range(20)]
    found = {}
    for name, sent in (("before", []), ("after", films)):
        folder = tmp_path_factory.mktemp(name)
        write_clean(folder, with_origins(reviews(160), fed_back(sent)))
        make_features(folder, folder)
        found[name] = run(folder)
    return found


def test_the_test_split_stays_the_same_bytes_and_the_rest_is_learnt_or_kept_apart(out: dict[str, Path]) -> None:
    assert tree_hash(out["before"] / "test") == tree_hash(out["after"] / "test")
    assert not (out["before"] / PRODUCTION).exists()
    splits = {path.name: Dataset(path).read() for path in out["after"].iterdir() if path.is_dir()}
    where = {i: name for name, table in splits.items() for i in table["id"].to_pylist() if i.startswith("feedback-")}
    assert len(where) == 120 and "test" not in where.values()
    assert 15 < list(where.values()).count(PRODUCTION) < 60
    learnt = {f for name in ("train", "validation") for f in splits[name]["film_id"].to_pylist()}
    assert not learnt & set(splits[PRODUCTION]["film_id"].to_pylist())
    assert TEST_FILMS & set(splits[PRODUCTION]["film_id"].to_pylist()), "what is of a test film trains nothing"


films = st.lists(st.sampled_from([*(f"f{n}" for n in range(8)), *(f"sent-{n}" for n in range(8))]), max_size=20)


@given(first=films, later=films)
def test_what_comes_later_moves_no_row_and_no_group_is_learnt_and_judged_by(first: list[str], later: list[str]) -> None:
    source, params = reviews(16, films=8), DatasetParams()
    before = _assign(with_origins(source, fed_back(first)), "film_id", params)
    rows = with_origins(source, fed_back(first + later))
    after = _assign(rows, "film_id", params)
    assert after[: len(before)] == before
    by_split: dict[str, set[str]] = {}
    for film, split in zip(rows["film_id"].to_pylist(), after, strict=True):
        by_split.setdefault(split, set()).add(film)
    held = by_split.pop(PRODUCTION, set())
    assert not held & (by_split.get("train", set()) | by_split.get("validation", set()))
    assert "test" not in after[source.num_rows :]
