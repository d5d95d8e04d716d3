"""The retraining policy: many wishes make one request, none while one runs, none in the cooldown, none lost."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.monitoring.retraining import RetrainBook, RetrainRequest, Wish, decide
from lepton_platform.settings import Settings

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(hours=24)


def hours(n: float) -> datetime:
    return NOON + timedelta(hours=n)


@pytest.fixture
def book(tmp_path: Path) -> RetrainBook:
    return RetrainBook(Settings(workspace=tmp_path))


def drift(at: float) -> Wish:
    return Wish("drift", hours(at), "drift in text")


def ask(book: RetrainBook, alarm_at: float, now: float, running: bool = False):
    return book.ask("sentiment", [drift(alarm_at)], hours(now), running, DAY)


def test_an_alarm_makes_one_request_and_the_next_alarm_none(book):
    first = ask(book, 0, 0.1).request
    assert first is not None and first.state == "requested" and first.reason == "drift: drift in text"
    book.mark(first.id, "running", "run-1")
    assert ask(book, 1, 1.1).request is None
    assert [r.run_id for r in book.requests("sentiment")] == ["run-1"]


def test_a_request_that_was_never_started_is_handed_out_again(book):
    first = ask(book, 0, 0.1).request
    assert ask(book, 1, 1.1).request == first  # the sensor was killed between writing and launching
    assert len(book.requests("sentiment")) == 1


def test_where_nobody_asks_nothing_is_asked_for(book):
    assert book.ask("sentiment", [], NOON, False, DAY).request is None


def test_nothing_is_asked_while_a_run_is_in_progress(book):
    assert ask(book, 0, 0.1, running=True).request is None
    assert ask(book, 0, 0.2).request is not None


def test_an_answered_alarm_stays_answered_after_the_cooldown(book):
    first = ask(book, 0, 0.1).request
    book.mark(first.id, "done", "run-1")
    assert ask(book, 0, 100).request is None
    assert ask(book, 99, 100).request is not None


@pytest.mark.parametrize("state", ["done", "failed"])
def test_the_cooldown_holds_whatever_became_of_the_run(book, state):
    first = ask(book, 0, 0).request
    book.mark(first.id, state, "run-1")
    refused = ask(book, 23, 23.9)
    assert refused.request is None and "2026-03-02 12:00 UTC" in refused.why
    assert ask(book, 23, 24).request is not None


def test_tasks_do_not_wait_for_each_other(book):
    ask(book, 0, 0)
    assert book.ask("trees", [drift(0)], NOON, False, DAY).request is not None


def test_all_that_ask_in_the_same_minute_get_one_request_that_keeps_their_reasons(book):
    schedule, labels = Wish("schedule", hours(0), "It is Monday."), Wish("labels", hours(0.001), "500 answers")
    book.wish("sentiment", schedule)
    book.wish("sentiment", schedule)  # the schedule's tick, twice
    first = book.ask("sentiment", [drift(0.002)], hours(0.01), False, DAY).request
    assert first is not None
    again = book.ask("sentiment", [drift(0.002), drift(0.005), labels], hours(0.012), False, DAY).request
    assert again is not None and again.id == first.id
    [request] = book.requests("sentiment")
    assert [wish.kind for wish in book.reasons(request.id)] == ["schedule", "labels", "drift", "drift"]
    assert request.reason == (
        "schedule: It is Monday. | labels: 500 answers | drift: drift in text | drift: drift in text"
    )
    book.mark(request.id, "done", "run-1")
    late = book.ask("sentiment", [drift(0.005), labels], hours(99), False, DAY)
    assert late.request is None and len(book.requests("sentiment")) == 1


def test_the_schedule_waits_for_the_cooldown_and_is_not_lost(book):
    first = ask(book, 0, 0.1).request
    book.mark(first.id, "running", "run-1")
    book.wish("sentiment", Wish("schedule", hours(1), "It is time."))
    assert book.ask("sentiment", [], hours(1.1), True, DAY).request is None
    book.mark(first.id, "done", "run-1")
    assert "cooling down" in book.ask("sentiment", [], hours(2), False, DAY).why
    later = book.ask("sentiment", [], hours(25), False, DAY).request
    assert later is not None and later.reason == "schedule: It is time."


def test_a_word_of_before_the_request_that_comes_after_it_joins_it(book):
    """The schedule's tick was written down a moment after drift had asked: one retraining answers both."""
    first = ask(book, 0, 0.1).request
    book.mark(first.id, "done", "run-1")
    book.wish("sentiment", Wish("schedule", hours(0.05), "It is time."))
    assert book.ask("sentiment", [], hours(99), False, DAY).request is None
    assert [wish.kind for wish in book.reasons(first.id)] == ["drift", "schedule"]


def test_sensors_that_ask_at_the_same_moment_get_one_request(tmp_path):
    chosen = Settings(workspace=tmp_path)
    RetrainBook(chosen)

    def at_once(second: int):
        wish = Wish("drift", NOON + timedelta(seconds=second), "drift")
        return RetrainBook(chosen).ask("sentiment", [wish], hours(1), False, DAY)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(at_once, [n % 3 for n in range(24)]))
    assert len({a.request.id for a in answers if a.request}) == 1
    assert len(RetrainBook(chosen).requests("sentiment")) == 1


def test_marking_an_unknown_request_says_so(book):
    with pytest.raises(KeyError, match="no retrain request 'x'"):
        book.mark("x", "done")


times = st.floats(-100, 100).map(hours)
requests = st.none() | st.builds(
    RetrainRequest,
    id=st.just("sentiment-1"),
    task=st.just("sentiment"),
    reason=st.just("drift"),
    requested_at=times,
    state=st.sampled_from(["requested", "running", "done", "failed"]),
)


kinds = st.sampled_from(["drift", "quality", "labels", "schedule"])


@given(
    wishes=st.lists(st.builds(Wish, kind=kinds, at=times, why=st.just("")), max_size=4),
    last=requests,
    now=times,
    running=st.booleans(),
    cooldown=st.integers(0, 48).map(lambda h: timedelta(hours=h)),
)
def test_a_new_request_only_where_all_conditions_hold(wishes, last, now, running, cooldown):
    answer = decide(task="sentiment", wishes=wishes, last=last, now=now, run_in_progress=running, cooldown=cooldown)
    assert answer.why
    if answer.request is None or answer.request is last:
        return
    assert not running and wishes
    if last is not None:
        assert last.state in ("done", "failed")
        assert max(wish.at for wish in wishes) > last.requested_at and now >= last.requested_at + cooldown


steps = ["drift", "quality", "labels", "schedule", "start", "done", "failed", "killed"]
events = st.lists(st.tuples(st.floats(0.01, 30), st.sampled_from(steps)), max_size=30)


@settings(max_examples=40, deadline=None)
@given(events=events)
def test_over_any_history_requests_keep_their_distance_and_no_wish_is_lost(tmp_path_factory, events):
    book = RetrainBook(Settings(workspace=tmp_path_factory.mktemp("book")))
    now, alarms, ids, wished = 0.0, {}, set(), []
    for wait, event in events:
        now += wait
        last = book.last("sentiment")
        if event == "schedule":
            wished.append(Wish("schedule", hours(now), "time"))
            book.wish("sentiment", wished[-1])
        elif event in ("drift", "quality", "labels"):
            alarms[event] = Wish(event, hours(now), event)  # a check's last word; the one before is no more
        elif last is not None and last.state in ("requested", "running"):
            book.mark(last.id, {"start": "running", "killed": "requested"}.get(event, event), "run")
        answer = book.ask("sentiment", list(alarms.values()), hours(now), False, DAY)
        ids |= {answer.request.id} if answer.request else set()
    for _ in range(2):
        last = book.last("sentiment")
        if last is not None:
            book.mark(last.id, "done")
        now += 25
        book.ask("sentiment", list(alarms.values()), hours(now), False, DAY)
    made = book.requests("sentiment")
    asked = [r.requested_at for r in made]
    assert ids <= {r.id for r in made}
    assert all(a - b >= DAY for a, b in pairwise(asked))
    answered = [wish for request in made for wish in book.reasons(request.id)]
    assert len(answered) == len({(wish.kind, wish.at) for wish in answered}), "answered twice"
    assert {(w.kind, w.at) for w in (*wished, *alarms.values())} <= {(w.kind, w.at) for w in answered}
