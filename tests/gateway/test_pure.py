"""What the gateway decides, without a process: who answers, how far answers agree, what was seen, what becomes of a canary."""

import itertools
import json
import math
import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import assume, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.exc import IntegrityError

from lepton_platform.gateway.labelled import Agreed
from lepton_platform.gateway.observed import BOUNDS_S, Observed
from lepton_platform.gateway.ramp import expected_disagreement, judge
from lepton_platform.gateway.routing import Route, Target, as_json, draw, from_json
from lepton_platform.serving import audit
from lepton_platform.serving.agreement import SURE, agreement, pair
from lepton_platform.serving.deployments import LIVE, Deployment, Deployments
from lepton_platform.serving.params import RolloutParams
from lepton_platform.serving.rollouts import Rollout, Rollouts
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed
from tests.serving.conftest import ROOT, make_bento

CHAMPION, CANARY, SHADOW = (Target(number, f"sentiment:{number}", f"{number}-1.sock") for number in (1, 2, 3))
SIGMAS = 5.0  # of a share over many keys: a wrong alarm in two million runs
percents = st.floats(0, 100)
few_limits = st.builds(
    RolloutParams,
    min_requests=st.integers(1, 200),
    max_errors=st.floats(0, 0.5),
    max_crashes=st.integers(0, 3),
    max_slowdown=st.floats(1, 10),
    max_disagreement=st.floats(0, 1),
    max_loss=st.floats(0, 0.2),
)


# --- who answers


@given(st.text(), st.integers(1, 10**6), percents, percents)
def test_a_key_that_is_the_canarys_is_so_at_every_larger_share(key: str, canary: int, one: float, other: float) -> None:
    drawn, (low, high) = draw("sentiment", canary, key), sorted((one, other))
    assert 0 <= drawn < 100
    chosen = [Route(CHAMPION, CANARY, percent).choose(drawn) for percent in (0.0, low, high, 100.0)]
    assert chosen[0] is CHAMPION and chosen[-1] is CANARY
    assert [target is CANARY for target in chosen] == sorted(target is CANARY for target in chosen)
    assert draw("sentiment", canary, key) == drawn, "the same key, the same place"


@pytest.mark.parametrize("percent", [0.5, 5.0, 25.0, 50.0, 97.0])
@pytest.mark.parametrize("form", ["user {}", "{}", "0000000{}@example.org"])
def test_shares_are_met_over_many_keys(percent: float, form: str) -> None:
    many, share = 20_000, percent / 100
    route = Route(CHAMPION, CANARY, percent)
    found = sum(route.choose(draw("sentiment", 2, form.format(key))) is CANARY for key in range(many))
    assert abs(found - many * share) < SIGMAS * math.sqrt(many * share * (1 - share))


def test_another_canary_is_tried_on_others() -> None:
    """A user who was the first canary's is no likelier to be the next one's."""
    many, share = 20_000, 0.1
    both = sum(draw("digits", 2, str(key)) < 10 and draw("digits", 3, str(key)) < 10 for key in range(many))
    assert abs(both - many * share**2) < SIGMAS * math.sqrt(many * share**2)


@given(percents, st.floats(0, 100, exclude_max=True), st.none() | st.just(SHADOW))
def test_without_one_of_them_the_other_answers(percent: float, drawn: float, shadow: Target | None) -> None:
    assert Route(CHAMPION, None, percent, shadow).choose(drawn) is CHAMPION
    assert Route(None, CANARY, percent, shadow).choose(drawn) is CANARY
    assert Route(None, None, percent, shadow).choose(drawn) is None, "a shadow answers nobody"


targets = st.none() | st.builds(Target, st.integers(1), st.text(), st.text())


@given(st.dictionaries(st.text(), st.builds(Route, targets, targets, percents, targets), max_size=4))
def test_the_table_arrives_as_it_was_sent(table: dict[str, Route]) -> None:
    assert from_json(json.loads(json.dumps(as_json(table)))) == table


# --- how far answers agree

scores = st.floats(0, 1).map(lambda share: round(share, 6))
labels = st.fixed_dictionaries({"label": st.sampled_from(["fresh", "rotten", "dull"]), "score": scores})
words = st.lists(st.sampled_from(["press", "one", "for", "sales", "naïve"]), max_size=12)
transcripts = st.fixed_dictionaries({"text": words.map(" ".join), "score": scores, "words": st.just([])})
corners = st.integers(0, 8).map(lambda quarters: quarters / 4) | st.floats(0, 1e4).map(lambda px: round(px, 2))


@st.composite
def a_box(draw: Any) -> list[float]:
    """As a service answers it: cut to the picture, rounded to hundredths of a pixel, which may leave nothing of a side."""
    (x1, x2), (y1, y2) = (sorted((draw(corners), draw(corners))) for _ in "xy")
    return [x1, y1, x2, y2]


boxes = st.fixed_dictionaries({"box": a_box(), "label": st.sampled_from(["tree", "bush"]), "score": scores})
pictures = st.fixed_dictionaries({"boxes": st.lists(boxes, max_size=8)})
answers = st.sampled_from([labels, transcripts, pictures]).flatmap(lambda form: st.lists(form, min_size=1, max_size=4))
any_answers = st.lists(labels | transcripts | pictures, max_size=4)  # two versions of a task may answer in two forms


@given(answers, answers | any_answers)
def test_agreement_is_a_share_and_never_an_error(one: list[Any], other: list[Any]) -> None:
    assert 0 <= agreement(one, other) <= 1
    assert agreement(one, one) == 1


@given(pictures)
@example({"boxes": [{"box": [0.0, 0.0, 9.0, 9.0], "label": label, "score": 0.9} for label in ("tree", "bush")]})
@example({"boxes": [{"box": [5.0, 0.0, 5.0, 9.0], "label": "tree", "score": 0.9}]})  # rounded away
def test_the_order_of_boxes_says_nothing(picture: dict[str, Any]) -> None:
    assert pair(picture, {"boxes": picture["boxes"][::-1]}) == 1


@given(st.lists(labels, min_size=1, max_size=4), st.lists(labels, min_size=1, max_size=4))
def test_labels_agree_both_ways(one: list[Any], other: list[Any]) -> None:
    """The share of equal labels, however sure each was."""
    assert agreement(one, other) == agreement(other, one)
    if len(one) == len(other):
        same = sum(a["label"] == b["label"] for a, b in zip(one, other, strict=True))
        assert agreement(one, other) == pytest.approx(same / len(one))


@given(transcripts, transcripts)
def test_texts_agree_both_ways_within_reason(one: Any, other: Any) -> None:
    """The longest common stretch is found first, which of several of a length depends on who is asked: a word's worth.

    Bounded by the words in common: no order can make more of them agree.
    """
    mine, theirs = one["text"].split(), other["text"].split()
    common = (Counter(mine) & Counter(theirs)).total()
    most = 2 * common / (len(mine) + len(theirs)) if mine or theirs else 1.0
    for said in (pair(one, other), pair(other, one)):
        assert said <= most + 1e-9
        assert bool(said) == bool(common or not (mine or theirs))


grid = st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from(["tree", "bush"]))
scene = st.lists(grid, max_size=10, unique_by=lambda place: place[:2])


@given(scene, scene, st.floats(-3, 3))
def test_boxes_agree_both_ways(one: list[Any], other: list[Any], shift: float) -> None:
    """Things that stand apart, found a little beside: exactly F1."""

    def found(places: list[Any], by: float) -> dict[str, Any]:
        box = [[40 * x + by, 40 * y, 40 * x + 20 + by, 40 * y + 20] for x, y, _ in places]
        return {"boxes": [{"box": b, "label": place[2], "score": 0.9} for b, place in zip(box, places, strict=True)]}

    mine, theirs = found(one, 10), found(other, 10 + shift)
    expected = 2 * len(set(one) & set(other)) / (len(one) + len(other)) if one or other else 1.0
    assert pair(mine, theirs) == pytest.approx(expected) == pair(theirs, mine)


@given(pictures, st.lists(st.fixed_dictionaries({"box": a_box(), "label": st.just("tree")}), max_size=5))
def test_what_people_said_can_be_compared(answer: dict[str, Any], truth: list[Any]) -> None:
    """Without scores; and boxes that nobody would be shown count for nothing."""
    said = pair(answer, {"boxes": truth})
    assert 0 <= said <= 1
    unsure = [{**box, "score": SURE / 2} for box in answer["boxes"]]
    assert pair({"boxes": answer["boxes"] + unsure}, {"boxes": truth}) == said


# --- what was seen

many = st.integers(0, 10**6)
seen = st.builds(
    Observed,
    requests=many,
    errors=many,
    classes=st.dictionaries(st.integers(0, len(BOUNDS_S) - 1), st.integers(1, 10**6), max_size=8),
    compared=many,
    agreement=st.integers(0, 10**6).map(lambda eighths: eighths / 8),  # exact in any order
    crashes=many,
)


def total(*parts: Observed) -> Observed:
    together = Observed()
    for part in parts:
        together.add(part)
    return together


@given(seen, seen, seen)
def test_adding_is_the_sum_in_any_order(one: Observed, two: Observed, three: Observed) -> None:
    assert total(one, two, three) == total(three, total(two, one)) and total(one) == one
    together = total(one, two)
    for name in ("requests", "errors", "compared", "agreement", "crashes"):
        assert getattr(together, name) == getattr(one, name) + getattr(two, name)
    assert Counter(together.classes) == Counter(one.classes) + Counter(two.classes)


@given(seen)
def test_it_arrives_as_it_was_sent(one: Observed) -> None:
    assert Observed.from_json(json.loads(json.dumps(one.as_json()))) == one


latencies = st.lists(st.floats(0, 200), min_size=1, max_size=60)


@given(latencies, st.lists(st.booleans(), min_size=60, max_size=60))
def test_every_answer_counts_once(seconds: list[float], failed: list[bool]) -> None:
    found = Observed()
    for taken, lost in zip(seconds, failed, strict=False):
        found.answered(taken, failed=lost)
    assert found.requests == len(seconds) == sum(found.classes.values())
    assert found.errors == sum(failed[: len(seconds)])


@given(latencies, st.floats(0, 1), st.floats(0, 1))
def test_quantiles_rise_and_are_numpys_within_a_class(seconds: list[float], one: float, other: float) -> None:
    found = Observed()
    for taken in seconds:
        found.answered(taken, failed=False)
    low, high = sorted((one, other))
    assert found.quantile_s(low) <= found.quantile_s(high)
    assert math.isnan(Observed().quantile_s(low))
    near = 1e-9  # of a share: 0.07 × 100 is a little more than 7
    around = [max(0.0, low - near), min(1.0, low + near)]
    below, above = np.clip(np.quantile(seconds, around, method="inverted_cdf"), BOUNDS_S[0], BOUNDS_S[-1])
    width = BOUNDS_S[1] / BOUNDS_S[0]
    assert below * (1 - 1e-9) <= found.quantile_s(low) <= above * width * (1 + 1e-9)


@given(st.lists(st.floats(0, 1), max_size=30))
def test_disagreement_is_the_mean(how_far: list[float]) -> None:
    found = Observed()
    for one in how_far:
        found.agreed(one)
    expected = 1 - sum(how_far) / len(how_far) if how_far else 0.0
    assert found.disagreement == pytest.approx(expected)


# --- what becomes of a canary


def answered(requests: int, errors: int = 0, seconds: float = 0.01, disagreement: float = 0.0) -> Observed:
    found = Observed()
    for number in range(requests):
        found.answered(seconds, failed=number < errors)
    found.compared, found.agreement = requests, requests * (1 - disagreement)
    return found


@given(few_limits, st.integers(0, 300), st.integers(0, 300), st.booleans())
def test_a_healthy_one_goes_on_when_its_step_is_over_and_has_been_asked_enough(
    limits: RolloutParams, asked: int, usual: int, over: bool
) -> None:
    verdict = judge(answered(asked), answered(usual), limits, step_over=over)
    assert verdict.what == ("advance" if over and asked >= limits.min_requests else "wait"), verdict
    assert verdict.why


@given(few_limits, st.integers(0, 300), st.integers(0, 300), st.data())
def test_what_fails_more_is_never_promoted(limits: RolloutParams, asked: int, usual: int, data: st.DataObject) -> None:
    lost, usually = data.draw(st.integers(0, asked)), data.draw(st.integers(0, usual))
    assume(asked and lost / asked > limits.max_errors + (usually / usual if usual else 0.0))
    canary, champion = answered(asked, lost), answered(usual, usually)
    assert judge(canary, champion, limits, step_over=False).what != "advance"
    verdict = judge(canary, champion, limits, step_over=True)
    assert verdict.what != "advance"
    if asked >= limits.min_requests:
        assert verdict.what == "turn back" and "failed" in verdict.why


@given(few_limits, st.integers(0, 19), st.data())
def test_too_few_requests_say_nothing(limits: RolloutParams, asked: int, data: st.DataObject) -> None:
    """One lost request of three is no share yet: a step that is over waits for the requests that it needs."""
    assume(asked < limits.min_requests)
    lost = data.draw(st.integers(0, asked))
    for over in (False, True):
        assert judge(answered(asked, lost), answered(1000), limits, step_over=over).what == "wait"


@given(few_limits, st.integers(1, 5))
def test_what_fails_always_is_turned_back_while_it_waits(limits: RolloutParams, twenties: int) -> None:
    asked = 20 * twenties
    for over in (False, True):
        assert judge(answered(asked, asked), answered(1000), limits, step_over=over).what == "turn back"


@given(few_limits, st.integers(0, 300), st.booleans(), st.integers(1, 9))
def test_what_dies_too_often_is_turned_back_at_once(limits: RolloutParams, asked: int, over: bool, more: int) -> None:
    canary = answered(asked)
    canary.crashes = limits.max_crashes + more
    assert judge(canary, answered(100), limits, step_over=over).what == "turn back"
    canary.crashes = limits.max_crashes
    assert judge(canary, answered(100), limits, step_over=over).what != "turn back"


@given(few_limits, st.integers(20, 300), st.floats(1e-4, 5), st.floats(1.3, 10))
def test_what_is_slower_is_never_promoted(limits: RolloutParams, asked: int, seconds: float, more: float) -> None:
    """By more than is allowed, and by more than a class is wide; looked at when the step is over."""
    canary = answered(asked + limits.min_requests, seconds=seconds * limits.max_slowdown * more)
    verdict = judge(canary, answered(asked, seconds=seconds), limits, step_over=True)
    assert verdict.what == "turn back" and "as long is allowed" in verdict.why
    assert judge(canary, answered(asked, seconds=seconds), limits, step_over=False).what == "wait"
    assert judge(canary, answered(19, seconds=seconds), limits, step_over=True).what == "advance", "beside too few"


@given(few_limits, st.integers(20, 300), st.floats(0.01, 1))
def test_what_answers_otherwise_is_never_promoted(limits: RolloutParams, asked: int, beyond: float) -> None:
    disagreement = limits.max_disagreement + beyond
    assume(disagreement <= 1)
    canary = answered(asked + limits.min_requests, disagreement=disagreement)
    assert judge(canary, answered(asked), limits, step_over=True).what == "turn back"
    assert judge(canary, answered(asked), limits, step_over=False).what == "wait"


@given(few_limits, st.integers(20, 300), st.floats(0, 1), st.floats(-0.5, 0.5), st.floats(0, 1))
def test_who_was_better_on_labelled_rows_may_answer_otherwise_as_far_as_there(
    limits: RolloutParams, asked: int, there: float, low: float, here: float
) -> None:
    """And no further: what is answered differently beyond that, nobody has shown to be right."""
    expected = expected_disagreement({"low": 0.3, "recent": {"low": low, "disagreement": there}})
    assert expected == (there if low > 0 else 0.0)
    allowed = limits.max_disagreement + expected
    assume(abs(here - allowed) > 1e-6)
    canary = answered(asked + limits.min_requests, disagreement=here)
    verdict = judge(canary, answered(asked), limits, step_over=True, expected=expected)
    assert verdict.what == ("turn back" if here > allowed else "advance"), verdict


def test_nothing_is_expected_of_who_was_not_compared_on_labelled_rows() -> None:
    for comparison in (None, {}, {"low": 0.2, "disagreement": 0.5}, {"recent": {"low": 0.2}}, {"recent": None}):
        assert expected_disagreement(comparison) == 0.0, comparison


@given(few_limits, st.integers(100, 1000), st.floats(0.3, 1), st.booleans())
def test_what_people_find_worse_is_never_promoted(limits: RolloutParams, said: int, loss: float, over: bool) -> None:
    """Well beyond the loss that is allowed; as many words on both."""
    worse, usual = (
        Agreed(said * max(0.0, 1 - loss - limits.max_loss), said),
        Agreed(said, said),
    )
    canary, champion = answered(500), answered(500)
    assert judge(canary, champion, limits, step_over=over, said=(worse, usual)).what == "turn back"
    assert judge(canary, champion, limits, step_over=over, said=(usual, worse)).what != "turn back"
    few = Agreed(0, 19)
    assert judge(canary, champion, limits, step_over=over, said=(few, usual)).what != "turn back"


@given(few_limits, seen, seen)
def test_what_never_fails_has_its_whole_step(limits: RolloutParams, canary: Observed, champion: Observed) -> None:
    canary.errors = canary.crashes = 0
    champion.errors = min(champion.errors, champion.requests)
    assert judge(canary, champion, limits, step_over=False).what == "wait"


# --- what may follow what, in the database


def new_row(task: str, number: int) -> dict[str, Any]:
    """The columns of a deployment that begins, but for its state."""
    names = ("task", "tag", "path", "reason", "created_at")
    values = (task, f"{task}:{number:016x}", "nowhere", "It is not worse.", audit.now())
    return {**dict(zip(names, values, strict=True)), "run_id": None, "metrics": {}}


class Changes(RuleBasedStateMachine):
    """Any order of changes, each perhaps by somebody who saw the table a while ago.

    ``states``: what each deployment should be by now; ``served``: the champions, without those that were rolled back
    from; ``actions``: what the audit should say.
    """

    snapshots: Bundle[Deployment] = Bundle("snapshots")
    steps: Bundle[Rollout] = Bundle("steps")

    def __init__(self, rollouts: Rollouts, task: str) -> None:
        super().__init__()
        self.rollouts, self.task, self.table = rollouts, task, rollouts.deployments
        self.states: dict[int, str] = {}
        self.step: dict[int, int] = {}
        self.served: list[int] = []
        self.actions: list[str] = []

    def only(self, state: str) -> int | None:
        return next((identifier for identifier, known in self.states.items() if known == state), None)

    def crowned(self, identifier: int) -> None:
        if (before := self.only("champion")) is not None:
            self.states[before] = "retired"
        self.states[identifier] = "champion"
        if identifier in self.served:  # gone back to: what came after it is not gone back to
            del self.served[self.served.index(identifier) :]
        self.served.append(identifier)
        self.actions.append("promoted")

    def superseded(self) -> None:
        if (canary := self.only("canary")) is not None:
            self.states[canary] = "ended"
            self.actions.append("superseded")

    @rule(target=snapshots, replacing=st.none() | snapshots)
    def deploy(self, replacing: Deployment | None) -> Deployment:
        """As ``offers.deploy`` writes it; ``replacing``: the champion when the Bento was compared with it."""
        now, compared = self.only("champion"), replacing.id if replacing else None
        values = {**new_row(self.task, len(self.states)), "state": "champion"}
        if now is not None and now != compared:
            with pytest.raises(IntegrityError):
                self.table.write(values, compared)
            return self.table.known(now)
        written = self.table.write(values, compared)
        self.superseded()
        self.crowned(written.id)
        return written

    @rule(target=snapshots)
    def refuse(self) -> Deployment:
        written = self.table.write({**new_row(self.task, len(self.states)), "state": "refused"}, self.only("champion"))
        self.states[written.id] = "refused"
        self.actions.append("refused")
        return written

    @rule(target=snapshots, state=st.sampled_from(["canary", "shadow"]))
    def start(self, state: str) -> Deployment | MultipleResults[Deployment]:
        values = new_row(self.task, len(self.states))

        def begin() -> Deployment:
            canary = state == "canary"
            return (
                self.rollouts.start_canary(values, (5, 25, 100), 60) if canary else self.rollouts.start_shadow(values)
            )

        if state == "shadow" and self.only(state) is not None:
            with pytest.raises(StageFailed, match="has a shadow already"):
                begin()
            return multiple()
        written = begin()
        if state == "canary":
            self.superseded()
        self.states[written.id] = state
        self.step[written.id] = 0
        self.actions.append("canary 5 %" if state == "canary" else "shadow")
        return written

    @rule(target=snapshots, seen=snapshots)
    def look_again(self, seen: Deployment) -> Deployment:
        return self.table.known(seen.id)

    @rule(target=steps, seen=snapshots)
    def look_at_its_step(self, seen: Deployment) -> Rollout | MultipleResults[Rollout]:
        found = self.rollouts.of(seen.id)
        return multiple() if found is None else found

    @rule(seen=steps)
    def advance(self, seen: Rollout) -> None:
        if seen.last:
            return
        due = self.states[seen.deployment] == "canary" and self.step[seen.deployment] == seen.step
        assert self.rollouts.advance(seen, "It is well.") is due
        if due:
            self.step[seen.deployment] += 1
            self.actions.append(f"canary {seen.steps[seen.step + 1]:g} %")

    @rule(seen=snapshots)
    def promote(self, seen: Deployment) -> None:
        if seen.state not in ("canary", "shadow", "retired"):
            return
        due = self.states[seen.id] == seen.state
        assert self.rollouts.promote(seen, "It is better.") is due
        if due:
            self.crowned(seen.id)

    @rule(seen=snapshots)
    def end(self, seen: Deployment) -> None:
        if seen.state not in ("canary", "shadow"):
            return
        due = self.states[seen.id] == seen.state
        assert self.rollouts.end(seen, "seen enough", "It is not needed.") is due
        if due:
            self.states[seen.id] = "turned back" if seen.state == "canary" else "ended"
            self.actions.append("seen enough")

    @rule()
    def roll_back(self) -> None:
        if (canary := self.only("canary")) is not None:
            what, found = self.rollouts.roll_back(self.task, "no")
            assert (what, found.id) == ("ended", canary)
            self.states[canary] = "turned back"
            self.actions.append("rolled back")
        elif len(self.served) < 2:
            with pytest.raises(StageFailed, match="no earlier champion"):
                self.rollouts.roll_back(self.task, "no")
        else:
            what, found = self.rollouts.roll_back(self.task, "no")
            assert (what, found.id) == ("promoted", self.served[-2]), "not the champion before"
            self.crowned(found.id)

    @invariant()
    def the_table_is_as_it_should_be(self) -> None:
        rows = self.table.history(self.task)
        assert {row.id: row.state for row in rows} == self.states
        live = [row for row in rows if row.state in LIVE]
        assert len({row.state for row in live}) == len(live)
        assert {row.id for row in rows if row.ended_at is None} == {
            row.id for row in rows if row.state in (*LIVE, "refused")
        }
        known = {row.id: found.step for row in rows if row.state == "canary" and (found := self.rollouts.of(row.id))}
        assert known == {row.id: self.step[row.id] for row in live if row.state == "canary"}

    @invariant()
    def every_change_has_its_row_and_no_other_has(self) -> None:
        told = audit.changes(self.table.engine, self.task)[::-1]
        assert [change.action for change in told] == self.actions


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(workspace=tmp_path_factory.mktemp("rollouts"))  # pyright: ignore[reportCallIssue]


def test_changes_in_any_order(settings: Settings) -> None:
    rollouts, numbers = Rollouts(settings), itertools.count()
    run_state_machine_as_test(
        lambda: Changes(rollouts, f"task{next(numbers)}"),  # pyright: ignore[reportArgumentType] - called, and no more
        settings=hypothesis_settings(max_examples=60, stateful_step_count=25, deadline=None),
    )


def test_a_table_from_before_the_audit_is_as_good(settings: Settings) -> None:
    rollouts = Rollouts(settings)
    table, task = rollouts.deployments, "old"
    made: list[Deployment] = []
    for number in range(4):
        if number == 2:  # so far there was no audit, nor an index but the champion's
            with table.engine.begin() as connection:
                connection.execute(sa.text("DELETE FROM deployment_audit WHERE task = 'old'"))
                connection.execute(sa.text("DROP INDEX deployment_one_canary"))
            rollouts = Rollouts(settings)
        made.append(table.write({**new_row(task, number), "state": "champion"}, made[-1].id if made else None))
    with table.engine.connect() as connection:
        assert "deployment_one_canary" in {index["name"] for index in sa.inspect(connection).get_indexes("deployment")}
    assert [rollouts.roll_back(task, "no")[1].id for _ in range(3)] == [found.id for found in made[2::-1]]
    with pytest.raises(StageFailed, match="no earlier champion"):
        rollouts.roll_back(task, "no")


def act(rollouts: Rollouts, task: str, seed: int, count: int) -> Counter[str]:
    """Changes by somebody who takes no heed of the others; what succeeded, as the audit names it."""
    chance, table, done = random.Random(seed), rollouts.deployments, Counter()
    for number in range(count):
        live = [found for found in table.live() if found.task == task]
        values = {**new_row(task, seed * count + number), "reason": f"of {seed}"}
        champion = next((found.id for found in live if found.state == "champion"), None)
        others = [found for found in table.history(task)[:8] if found.state in ("canary", "shadow", "retired")]
        one = chance.choice(others) if others else None
        steps = rollouts.of(one.id) if one else None
        try:
            match chance.randrange(6):
                case 0:
                    table.write({**values, "state": "champion"}, champion)
                    done["promoted"] += 1
                case 1:
                    rollouts.start_canary(values, (5, 50), 60)
                    done["canary 5 %"] += 1
                case 2:
                    rollouts.start_shadow(values)
                    done["shadow"] += 1
                case 3 if one is not None:
                    done["promoted"] += rollouts.promote(one, "It is better.")
                case 4 if one is not None and one.state in ("canary", "shadow"):
                    done["seen enough"] += rollouts.end(one, "seen enough", "It is not needed.")
                case 5 if steps is not None and not steps.last:
                    done["canary 50 %"] += rollouts.advance(steps, "It is well.")
                case _:
                    done["promoted" if rollouts.roll_back(task, "no")[0] == "promoted" else "rolled back"] += 1
        except (IntegrityError, StageFailed):  # somebody was quicker, or it may not be
            continue
    return +done


def at_once(settings: Settings, *expressions: str) -> list[Any]:
    """What each is in a process of its own that has all it needs and waits for the others; ``settings`` is there."""
    begin = (
        "import json, sys; from pathlib import Path; from lepton_platform.settings import Settings\n"
        "from lepton_platform.serving.rollouts import Rollouts; from tests.gateway.conftest import offer\n"
        f"from tests.gateway.test_pure import act; settings = Settings(workspace=Path({str(settings.workspace)!r}))\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    programs = [
        subprocess.Popen([sys.executable, "-c", f"{begin}print(json.dumps({expression}))"], **pipes)
        for expression in expressions
    ]
    for program in programs:
        assert program.stdout is not None and program.stdout.readline() == "ready\n"
    for program in programs:
        assert program.stdin is not None
        program.stdin.write("\n")
        program.stdin.flush()
    told = [program.communicate(timeout=120)[0] for program in programs]
    assert [program.returncode for program in programs] == [0] * len(programs)
    return [json.loads(one) for one in told]


@pytest.mark.parametrize("where", ["threads", "processes"])
def test_who_acts_at_once_makes_one_champion_and_loses_no_row(settings: Settings, where: str) -> None:
    """Every change that somebody was told has its row, no other has; and nobody was told that the database is busy."""
    rollouts, done = Rollouts(settings), Counter()
    if where == "threads":
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda seed: act(rollouts, where, seed, 40), range(4)))
    else:
        found = at_once(settings, *(f"act(Rollouts(settings), {where!r}, {seed}, 80)" for seed in range(2)))
    for one in found:
        done.update(one)
    changes, rows = audit.changes(rollouts.deployments.engine, where), rollouts.deployments.history(where)
    told = Counter(change.action for change in changes)
    assert told.pop("superseded", 0) == sum(one.reason.startswith("Superseded") for one in rows)
    assert told == done and len(done) >= 3  # which, is a race's
    states = Counter(one.state for one in rows)
    assert states["champion"] == 1 and states["canary"] <= 1 and states["shadow"] <= 1
    serving = rollouts.deployments.champion(where)
    last = next(change for change in changes if change.action == "promoted")
    assert serving is not None and last.deployment == serving.id


def test_two_bentos_that_are_offered_at_once_are_compared(
    settings: Settings, bentos: dict[str, Path], frozen: Path, tmp_path: Path
) -> None:
    """Whoever comes second meets a champion, though there was none when it began."""
    both = (bentos["sentiment"], make_bento(tmp_path, max_batch=3))
    offers = (f"offer(settings, 'sentiment', Path({str(b)!r}), Path({str(frozen)!r})).promoted" for b in both)
    assert at_once(settings, *offers) == [True, True]
    table = Deployments(settings)
    first, second = table.history("sentiment")[::-1]
    assert (first.state, second.state) == ("retired", "champion")
    assert first.compared_with is None and second.compared_with == first.tag and second.comparison
    assert len(audit.changes(table.engine, "sentiment")) == 2
