"""Stage features: what a view declares is what it leaves, in the rows' order, the same bytes every time."""

import json
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.data.dataset import Dataset
from lepton_platform.features.materialize import FeaturesParams, features
from lepton_platform.features.views import Given, read_declaration
from lepton_platform.stage import StageFailed
from lepton_platform.tasks.sentiment import preprocess
from tests.features.rows import CHEAP, START, make_features, quiet, reviews, write_clean

VIEWS = {view.name: view for view in preprocess.FEATURE_VIEWS}


def test_a_view_by_row_has_a_row_for_every_row_in_their_order(made):
    rows, table = Dataset(made / "clean" / "rows").read(), Dataset(made / "features" / "text_statistics").read()
    assert table["review_id"].to_pylist() == rows["id"].to_pylist()
    assert table["event_timestamp"].equals(rows["event_time"])
    assert table["created_timestamp"].equals(rows["event_time"])
    expected = [preprocess.statistics(text)["negations"] for text in rows["text"].to_pylist()]
    assert table["negations"].to_pylist() == expected and set(expected) == {1}


def test_the_declaration_can_be_read_back(made):
    assert [view.name for view in read_declaration(made / "features")] == CHEAP
    for view in read_declaration(made / "features"):
        meant = VIEWS[view.name]
        assert (view.entity, view.columns, view.ttl) == (meant.entity, meant.columns, meant.ttl)


@pytest.mark.parametrize("rows_per_shard", [1, 7, 70, 1000])
def test_the_size_of_the_parts_changes_no_value(made, tmp_path, rows_per_shard):
    write_clean(tmp_path, reviews(160))
    make_features(tmp_path, tmp_path, rows_per_shard=rows_per_shard)
    for view in CHEAP:
        there, here = Dataset(made / "features" / view), Dataset(tmp_path / "features" / view)
        assert here.read().equals(there.read())
        assert len(here.shards()) == -(-len(there) // rows_per_shard)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"views": ["text_statistic"]}, r"no view text_statistic\. The task's views are: text_statistics, text_embed"),
        ({"options": {"mood": {}}}, "no view mood"),
        (
            {"views": None, "options": {"text_embedding": {"max_token": 3}}},
            r"options\.text_embedding.*max_token: Extra",
        ),
    ],
)
def test_what_is_wrong_with_the_section_is_said(tmp_path, params, said):
    write_clean(tmp_path, reviews(3))
    with pytest.raises(StageFailed, match=said):
        make_features(tmp_path, tmp_path, **params)


def test_of_rows_that_broke_the_contract_no_features_are_made(tmp_path):
    write_clean(tmp_path, reviews(3))
    (tmp_path / "contract" / "result.json").write_text(json.dumps({"success": False}))
    with pytest.raises(StageFailed, match="contract did not hold"):
        make_features(tmp_path, tmp_path)


SOUND = {column.name: [0.5] * 3 for column in VIEWS["text_statistics"].columns}
WRONG = [
    ("too few", {**SOUND, "words": [1.0, 2.0]}, "."),
    ("another column", {**SOUND, "mood": [1.0] * 3}, r"differ in \['mood'\]"),
    ("one less", {k: v for k, v in SOUND.items() if k != "words"}, r"differ in \['words'\]"),
    ("words for numbers", {**SOUND, "words": ["one"] * 3}, "types it declares"),
    (
        "no number",
        {**SOUND, "digit_share": [0.0, float("nan"), 1.0]},
        "1 values that are not finite numbers in 'digit_s",
    ),
    ("missing", {**SOUND, "digit_share": [0.0, None, None]}, r"for 2 rows, review_id \['r1', 'r2'\]"),
]


@pytest.mark.parametrize(("values", "said"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_a_view_that_does_not_keep_its_word_is_refused(tmp_path, values, said):
    write_clean(tmp_path, reviews(3))
    whole = {k: [int(x) if isinstance(x, float) and x == 0.5 else x for x in v] for k, v in values.items()}
    view = replace(VIEWS["text_statistics"], function=lambda rows, given: whole)
    part = SimpleNamespace(FEATURE_VIEWS=[view], GROUP="film_id", LABEL="label")
    (tmp_path / "out").mkdir()
    with pytest.raises(StageFailed, match=said):
        features(
            clean=tmp_path / "clean",
            contract=tmp_path / "contract",
            out=tmp_path / "out",
            params=FeaturesParams(),
            preprocess=part,
            cache=tmp_path,
            progress=quiet,
        )


def test_the_embedding_says_what_a_text_means_and_fits_its_declaration(tmp_path, cache_dir):
    texts = ["A wonderful, moving film.", "I loved this touching movie.", "The fridge is out of order again.", ""]
    rows = reviews(4).set_column(2, "text", pa.array(texts))
    write_clean(tmp_path, rows)
    make_features(tmp_path, cache_dir, views=["text_embedding"], options={"text_embedding": {"max_tokens": 16}})
    table = Dataset(tmp_path / "features" / "text_embedding").read()
    vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(4, 384)
    assert table.schema.field("embedding").type == pa.list_(pa.float32())
    assert abs((vectors**2).sum(1) - 1).max() < 1e-5
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3


@pytest.mark.parametrize("hours", [-1, 0, 30, 0.5 / 3600])
def test_a_time_to_live_that_the_store_cannot_count_is_refused_where_it_is_declared(hours):
    with pytest.raises(ValueError, match="whole days, or whole seconds of less than a day"):
        replace(VIEWS["film_history"], ttl=timedelta(hours=hours))


# --- film_history: strictly the past


def history(films: list[tuple[str, int, str]]) -> list[dict]:
    """The view's rows for reviews given as film, hour and label."""
    hours = [START.replace(year=2021, hour=hour) for _, hour, _ in films]
    rows = pa.table(
        {
            "event_time": pa.array(hours, pa.timestamp("us", "UTC")),
            "label": pa.array([label for *_, label in films], pa.string()),
            "film_id": pa.array([film for film, *_ in films], pa.string()),
        }
    )
    view = VIEWS["film_history"]
    assert view.function is not None
    made = view.function(rows, Given(None, None, quiet))  # pyright: ignore
    return made.to_pylist()  # pyright: ignore


FILMS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.sampled_from(["fresh", "rotten"])), max_size=25
)


@settings(max_examples=60, deadline=None)
@given(FILMS, st.randoms())
def test_a_films_history_is_what_was_said_strictly_before(films, random):
    shuffled = random.sample(films, len(films))
    assert history(shuffled) == history(films)
    known = history(films)
    for film, hour, _ in films:
        now = START.replace(year=2021, hour=hour)
        valid = [row for row in known if row["film_id"] == film and row["event_timestamp"] <= now]
        last = max(valid, key=lambda row: row["event_timestamp"])
        before = [label for other, then, label in films if other == film and then < hour]
        assert last["past_reviews"] == len(before)
        share = last["past_fresh_share"]
        assert share is None if not before else abs(share - before.count("fresh") / len(before)) < 1e-6
    assert all(row["created_timestamp"] == row["event_timestamp"] for row in known)
