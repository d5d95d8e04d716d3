"""The served quality: every word joined once and as of its time, the task's own figure, a verdict that knows its limits."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_platform.monitoring.quality import FeedbackParams, chosen, figure, gain, join, judged, labelled_table
from lepton_platform.tasks import load_part

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT = pa.timestamp("us", tz="UTC")
HOUR = timedelta(hours=1)


def log(rows: list[tuple[str, int, str]], model: str = "sentiment:a") -> pa.Table:
    """(id, minutes after noon, answer)"""
    columns = {
        "id": pa.array([r[0] for r in rows], pa.string()),
        "at": pa.array([NOON + timedelta(minutes=r[1]) for r in rows], AT),
        "text": pa.array([f"text of {r[0]}" for r in rows], pa.string()),
        "label": pa.array([r[2] for r in rows], pa.string()),
        "model": pa.array([model] * len(rows), pa.string()),
    }
    return pa.table(columns)


def words(rows: list[tuple[str, int, str]]) -> pa.Table:
    """(id, minutes after noon, label), each with an id of its own in the order in which they were said."""
    columns = {
        "id": pa.array([r[0] for r in rows], pa.string()),
        "at": pa.array([NOON + timedelta(minutes=r[1]) for r in rows], AT),
        "label": pa.array([r[2] for r in rows], pa.string()),
        "feedback_id": pa.array([f"f{number:03}" for number in range(len(rows))], pa.string()),
    }
    return pa.table(columns)


def joined(pieces: list[pa.Table], said: pa.Table, as_of: int = 10_000, until: datetime = NOON + HOUR):
    when = NOON + timedelta(minutes=as_of)
    return join(pieces, said, since=NOON, until=until, as_of=when, model="sentiment:a", truth="label")


def test_a_word_that_was_said_later_does_not_count_as_of_an_earlier_time():
    rows, said = [log([("p1", 0, "fresh")])], words([("p1", 5, "fresh"), ("p1", 50, "rotten")])
    early, counts = joined(rows, said, as_of=49)
    assert [truth for _, truth in early] == ["fresh"] and (counts.later, counts.repeated) == (1, 0)
    late, counts = joined(rows, said, as_of=50)
    assert [truth for _, truth in late] == ["rotten"]
    assert (counts.later, counts.repeated, counts.contradicted) == (0, 1, 1)


def test_late_double_unknown_contradicting_and_other_models_words_are_counted():
    rows = [
        log([("p1", 0, "fresh"), ("p2", 59, "fresh")]),
        log([("p3", 3, "rotten")], "sentiment:b"),
        log([("p4", 60, "x")]),
    ]
    said = words(
        [
            ("p1", 1, "rotten"),
            ("p2", 5_000, "fresh"),
            ("p2", 5_001, "fresh"),
            ("p3", 1, "x"),
            ("p4", 1, "x"),
            ("?", 1, "x"),
        ]
    )
    found, counts = joined(rows, said)
    assert [(row["id"], truth) for row, truth in found] == [("p1", "rotten"), ("p2", "fresh")]
    assert (counts.labelled, counts.repeated, counts.outside, counts.unknown) == (2, 1, 2, 1)
    assert counts.words == said.num_rows and counts.contradicted == 0


answers = st.lists(
    st.tuples(st.sampled_from([f"p{n}" for n in range(8)]), st.integers(-30, 90)), max_size=8, unique_by=lambda r: r[0]
)
said_lists = st.lists(
    st.tuples(st.sampled_from([f"p{n}" for n in range(10)]), st.integers(0, 200), st.sampled_from(["fresh", "rotten"])),
    max_size=25,
)


@given(given=answers, said=said_lists, order=st.randoms(use_true_random=False), as_of=st.integers(0, 200))
def test_nothing_is_lost_nothing_counts_twice_and_the_order_plays_no_part(given, said, order, as_of):
    rows = [(identity, minute, "fresh") for identity, minute in given]
    table = words(said)
    found, counts = joined([log(rows)], table, as_of)
    told = [word for word in said if word[1] <= as_of]
    assert counts.words == len(told) and counts.words + counts.later == len(said)
    ids = [row["id"] for row, _ in found]
    assert len(ids) == len(set(ids)) == counts.labelled
    inside = {identity for identity, minute in given if 0 <= minute < 60}
    assert set(ids) == inside & {word[0] for word in told}
    for row, truth in found:
        last = max(w[1] for w in told if w[0] == row["id"])
        assert truth in {w[2] for w in told if w[0] == row["id"] and w[1] == last}
    turned = order.sample(range(len(said)), len(said))
    halves = [log(rows[1::2]), log(rows[::2]), log(rows)]  # in pieces, some twice, as while an hour is compacted
    again, others = joined(halves, table.take(pa.array(turned, pa.int64())), as_of)
    assert others == counts
    assert {row["id"]: truth for row, truth in again} == {row["id"]: truth for row, truth in found}


@given(said=said_lists)
def test_what_was_known_only_grows(said):
    rows = [log([(f"p{n}", n, "fresh") for n in range(8)])]
    counts = [joined(rows, words(said), as_of)[1] for as_of in range(0, 201, 40)]
    assert all(a.labelled <= b.labelled and a.words <= b.words and a.later >= b.later for a, b in pairwise(counts))


def verdict(right: int, wrong: int, tested=(0.8, [0.75, 0.85]), gone: int = 0, **params):
    rows = [(f"p{n}", 0, "fresh" if n < right else "rotten") for n in range(right + wrong)]
    found, counts = joined([log(rows)], words([(r[0], 1, "fresh") for r in rows]))
    for row, _ in found[:gone]:
        row["text"] = None
    return verdict_of(found, counts, tested, **params)


def verdict_of(found, counts, tested=(0.8, [0.75, 0.85]), **params):
    return judged(
        chosen(found, 1_000),
        counts,
        judge=load_part("sentiment", "metrics").EVALUATOR,
        source=load_part("sentiment", "source"),
        content="text",
        truth="label",
        tested={"accuracy": tested[0], "accuracy_ci95": tested[1]} if tested else {},
        params=FeedbackParams.model_validate(params),
        model="sentiment:a",
        as_of=NOON,
    )


def test_it_fails_where_the_whole_interval_lies_below_that_of_the_test():
    assert verdict(160, 40).state == "passed"
    assert verdict(150, 50).state == "passed", "worse, but it may be chance"
    failed = verdict(110, 90)
    assert failed.failed and "0.550" in failed.why and "0.800" in failed.why and failed.high < 0.75
    assert verdict(200, 0).state == "passed"


def test_one_text_sent_again_and_again_judges_nobody():
    rows = [(f"p{n}", 0, "rotten") for n in range(200)]
    pieces = log(rows).set_column(2, "text", pa.array(["buy this"] * 200))
    found, counts = joined([pieces], words([(r[0], 1, "fresh") for r in rows]))
    said = verdict_of(found, counts)
    assert said.state == "not_judged" and "of 1 different inputs" in said.why


def test_few_labelled_answers_and_those_without_their_input_are_not_judged():
    few = verdict(20, 79)
    assert few.state == "not_judged" and "99 labelled answers are too few" in few.why and few.estimate is None
    gone = verdict(20, 90, gone=15)
    assert gone.state == "not_judged" and (gone.rows, gone.broken) == (95, 15)
    unknown = verdict(100, 100, tested=None)
    assert unknown.state == "not_judged" and unknown.estimate == pytest.approx(0.5)


BOX = {"x1": 0.0, "y1": 0.0, "x2": 9.0, "y2": 9.0, "label": "tree", "crowd": False}
FOUND = {"box": [0, 0, 9, 9], "label": "tree", "score": 0.9}
ELSEWHERE = {**FOUND, "box": [50, 50, 60, 60]}
KINDS = {  # rows, answers that are right, answers of which none is
    "digits": ({"label": ["1", "2"]}, [{"label": "1"}, {"label": "2"}], [{"label": "2"}, {"label": "1"}]),
    "prompts": (
        {"text": ["one two", "three"], "sentence": ["a", "b"]},
        [{"text": "one two"}, {"text": "three"}],
        [{"text": ""}, {"text": "tree"}],
    ),
    "trees": ({"boxes": [[BOX], [BOX]]}, [{"boxes": [FOUND]}] * 2, [{"boxes": []}, {"boxes": [ELSEWHERE]}]),
}


@pytest.mark.parametrize("task", KINDS)
def test_every_kind_of_answer_has_its_own_figure(task):
    rows, right, wrong = KINDS[task]
    judge, table = load_part(task, "metrics").EVALUATOR, pa.table({"id": ["a", "b"], **rows})
    assert figure(judge, table, right) == (1.0, 1.0, 1.0)
    assert figure(judge, table, wrong).estimate == 0.0
    assert gain(judge, table, right, wrong).estimate == 1.0 and gain(judge, table, wrong, right).estimate == -1.0


def test_the_figure_is_the_evaluators_with_its_interval():
    judge = load_part("sentiment", "metrics").EVALUATOR
    source = load_part("sentiment", "source")
    table = labelled_table(source, [{"id": f"r{n}", "text": f"text {n}", "label": "fresh"} for n in range(200)])
    said = [{"label": "fresh" if n % 4 else "rotten"} for n in range(200)]
    found = figure(judge, table, said)
    assert found.estimate == pytest.approx(judge.headline(judge.served(table, said))) == 0.75
    half = 1.96 * np.sqrt(0.75 * 0.25 / 200)
    assert (found.low, found.high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.015)


def test_a_line_that_is_not_whole_is_no_row():
    source = SimpleNamespace(
        SCHEMA=load_part("sentiment", "source").SCHEMA, labelled=load_part("sentiment", "source").labelled
    )
    with pytest.raises(ValueError, match="needs a label"):
        labelled_table(source, [{"id": "a", "text": "x", "label": None}])
