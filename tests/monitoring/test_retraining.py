"""The retraining policy: one request an alarm, none while one runs, none in the cooldown, none lost."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.monitoring.retraining import Alarm, RetrainBook, RetrainRequest, ask_for_retrain, decide
from lepton_platform.settings import Settings

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(hours=24)


def hours(n: float) -> datetime:
    return NOON + timedelta(hours=n)


@pytest.fixture
def book(tmp_path: Path) -> RetrainBook:
    return RetrainBook(Settings(workspace=tmp_path))


def ask(book: RetrainBook, alarm_at: float, now: float, running: bool = False, failed: bool = True):
    return book.ask("sentiment", Alarm(failed, hours(alarm_at), "drift"), hours(now), running, DAY)


def test_an_alarm_makes_one_request_and_the_next_alarm_none(book):
    first = ask(book, 0, 0.1).request
    assert first is not None and first.state == "requested" and first.reason == "drift"
    book.mark(first.id, "running", "run-1")
    assert ask(book, 1, 1.1).request is None
    assert [r.run_id for r in book.requests("sentiment")] == ["run-1"]


def test_a_request_that_was_never_started_is_handed_out_again(book):
    first = ask(book, 0, 0.1).request
    assert ask(book, 1, 1.1).request == first  # the sensor was killed between writing and launching
    assert len(book.requests("sentiment")) == 1


def test_a_passed_check_asks_for_nothing(book):
    assert ask(book, 0, 0.1, failed=False).request is None
    assert book.ask("sentiment", None, NOON, False, DAY).request is None


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
    assert book.ask("trees", Alarm(True, NOON), NOON, False, DAY).request is not None


def test_sensors_that_ask_at_the_same_moment_get_one_request(tmp_path):
    chosen = Settings(workspace=tmp_path)
    RetrainBook(chosen)

    def at_once(second: int):
        alarm = Alarm(True, NOON + timedelta(seconds=second))
        return ask_for_retrain(chosen, "sentiment", alarm, now=hours(1), run_in_progress=False, cooldown=DAY)

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


@given(
    alarm=st.none() | st.builds(Alarm, failed=st.booleans(), at=times, reason=st.just("")),
    last=requests,
    now=times,
    running=st.booleans(),
    cooldown=st.integers(0, 48).map(lambda h: timedelta(hours=h)),
)
def test_a_new_request_only_where_all_conditions_hold(alarm, last, now, running, cooldown):
    answer = decide(task="sentiment", alarm=alarm, last=last, now=now, run_in_progress=running, cooldown=cooldown)
    assert answer.why
    if answer.request is None or answer.request is last:
        return
    assert not running and alarm is not None and alarm.failed
    if last is not None:
        assert last.state in ("done", "failed")
        assert alarm.at > last.requested_at and now >= last.requested_at + cooldown


events = st.lists(
    st.tuples(st.floats(0.01, 30), st.sampled_from(["alarm", "pass", "start", "done", "failed"])), max_size=30
)


@settings(max_examples=40, deadline=None)
@given(events=events)
def test_over_any_history_requests_keep_their_distance(tmp_path_factory, events):
    book = RetrainBook(Settings(workspace=tmp_path_factory.mktemp("book")))
    now, alarm, ids = 0.0, None, set()
    for wait, event in events:
        now += wait
        last = book.last("sentiment")
        if event in ("alarm", "pass"):
            alarm = Alarm(event == "alarm", hours(now))
        elif last is not None and (event != "start" or last.state == "requested"):
            book.mark(last.id, "running" if event == "start" else event, "run")
        answer = book.ask("sentiment", alarm, hours(now), False, DAY)
        ids |= {answer.request.id} if answer.request else set()
    asked = [r.requested_at for r in book.requests("sentiment")]
    assert len(ids) == len(asked)
    assert all(a - b >= DAY for a, b in pairwise(asked))
