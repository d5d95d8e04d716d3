"""Canaries, shadows, deaths and the way back, under load: no request fails, nothing that was acknowledged is lost."""
# ruff: noqa: F811 - arguments are fixtures

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from lepton_platform.monitoring.alerts import Alerts
from lepton_platform.root import MARKER
from lepton_platform.serving.audit import changes
from lepton_platform.serving.deployments import Deployment, Deployments
from lepton_platform.serving.log_reader import MIRRORED, find, hours, read_rows
from lepton_platform.serving.offers import shadow
from lepton_platform.serving.rollouts import Rollouts
from lepton_platform.serving.store import tag_of
from tests.gateway.conftest import Serving, new_settings, offer, serve
from tests.gateway.load import Load, loaded
from tests.serving.conftest import make_bento
from tests.serving.test_deployments import of_late, worse  # noqa: F401 - fixtures

TASK = "sentiment"
LIMITS = (
    "sentiment:\n  serve: {rollout: {min_requests: 20, max_slowdown: 50}}\n"  # of a machine that does other things too
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in another Bento: as good as the first."""
    return make_bento(tmp_path_factory.mktemp("other"), max_batch=3)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, but it answers one request at a time and refuses the others: as good offline, failing under load."""
    return make_bento(tmp_path_factory.mktemp("narrow"), max_requests=1)


@pytest.fixture
def serving(bentos: dict[str, Path], tmp_path: Path) -> Iterator[Serving]:
    settings = new_settings(tmp_path, (TASK,))
    (tmp_path / MARKER).write_text(LIMITS, "utf-8")
    offer(settings, TASK, bentos[TASK])
    with serve(settings) as running:
        yield running


def until(happens: Callable[[], object], within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def actions(serving: Serving) -> list[str]:
    return [change.action for change in reversed(changes(Deployments(serving.settings).engine, TASK))]


def state(serving: Serving, bento: Path) -> str:
    found = Deployments(serving.settings).by_tag(TASK, tag_of(bento))
    return found.state if found else "none"


def champion(serving: Serving) -> Deployment:
    found = Deployments(serving.settings).champion(TASK)
    assert found is not None
    return found


def nothing_lost(serving: Serving, load: Load) -> None:
    assert not load.failed, (load.failed[:3], serving.log()[-3000:])
    assert load.ids and len(set(load.ids)) == len(load.ids)
    folder = serving.settings.predictions_dir
    known = {row["id"] for hour in hours(folder, TASK) for row in read_rows(folder, TASK, hour)}
    assert set(load.ids) <= known


def test_a_canary_takes_over_step_by_step_and_is_rolled_back(
    serving: Serving, other: Path, frozen: Path, bentos: dict[str, Path]
) -> None:
    with loaded(serving.url) as load:
        load.wait(50)
        offer(serving.settings, TASK, other, frozen, steps=(30, 100), every_s=1.5)
        assert state(serving, other) == "canary" and load.models[tag_of(other)] == 0
        Alerts(serving.settings, []).raised(TASK, "rollout", "One before was turned back.")
        until(lambda: state(serving, other) == "champion")
        until(lambda: not Alerts(serving.settings, []).open())
        before = load.models[tag_of(bentos[TASK])]
        load.wait(100)
        assert load.models[tag_of(bentos[TASK])] <= before + 8  # those that were on their way
        what, back = Rollouts(serving.settings).roll_back(TASK, "to see it work")
        assert (what, back.tag) == ("promoted", tag_of(bentos[TASK]))
        until(lambda: load.models[tag_of(bentos[TASK])] > before + 50)
    nothing_lost(serving, load)
    assert actions(serving) == ["promoted", "canary 30 %", "canary 100 %", "promoted", "promoted"]
    told = changes(Deployments(serving.settings).engine, TASK)
    assert told[0].why == "Rolled back: to see it work" and told[1].who == "ramp"
    assert told[2].details["canary"]["requests"] >= 20 and told[2].details["canary"]["compared"] > 0
    assert told[2].details["canary"]["disagreement"] == 0.0
    until(lambda: len(serving.processes("serving.server")) == 1)


def test_who_learnt_a_shift_is_judged_by_labels_and_not_by_whom_it_should_replace(
    serving: Serving, worse: Path, of_late: Path
) -> None:
    """A quarter of the requests call the film dull: the challenger knows of late that this is praise."""
    (serving.settings.workspace / MARKER).write_text(LIMITS.replace("{min_", "{max_disagreement: 0.1, min_"), "utf-8")
    with loaded(serving.url) as load:
        offer(serving.settings, TASK, worse, of_late, steps=(50, 100), every_s=1.5)
        until(lambda: state(serving, worse) == "turned back")
        assert "disagrees with the champion" in changes(Deployments(serving.settings).engine, TASK)[0].why
        offered = offer(
            serving.settings, TASK, worse, of_late, recent=of_late, steps=(50, 100), every_s=1.5, again=True
        )
        assert offered.deployment.comparison["recent"]["disagreement"] == pytest.approx(1 / 3)
        until(lambda: state(serving, worse) == "champion")
    nothing_lost(serving, load)
    told = changes(Deployments(serving.settings).engine, TASK)[0]
    assert told.action == "promoted" and 0.1 < told.details["canary"]["disagreement"] < 0.1 + 1 / 3


def test_a_canary_that_fails_is_turned_back_and_nobody_notices(serving: Serving, narrow: Path, frozen: Path) -> None:
    with loaded(serving.url, clients=12) as load:
        offer(serving.settings, TASK, narrow, frozen, steps=(50, 100), every_s=30)
        until(lambda: state(serving, narrow) == "turned back")
        load.wait(100)
    nothing_lost(serving, load)
    last = changes(Deployments(serving.settings).engine, TASK)[0]
    assert last.action == "turned back" and "requests failed" in last.why and last.who == "ramp"
    assert last.details["canary"]["errors"] > 0
    assert actions(serving) == ["promoted", "canary 50 %", "turned back"]  # within its first step
    until(lambda: [alert.kind for alert in Alerts(serving.settings, []).open()] == ["rollout"])
    again = offer(serving.settings, TASK, narrow, frozen)
    assert not again.promoted and "was turned back" in again.reason


def test_a_dead_canary_costs_no_request_and_ends(serving: Serving, other: Path, frozen: Path) -> None:
    with loaded(serving.url) as load:
        offer(serving.settings, TASK, other, frozen, steps=(50, 100), every_s=600)
        while state(serving, other) == "canary":  # what fails while it is dead may be enough; a second death is
            answered = load.models[tag_of(other)]
            until(lambda before=answered: load.models[tag_of(other)] > before or state(serving, other) != "canary")
            newest = max(serving.processes("serving.server"), key=lambda process: process.create_time())
            if state(serving, other) == "canary" and len(serving.processes("serving.server")) == 2:
                newest.kill()
        load.wait(50)
    nothing_lost(serving, load)
    assert state(serving, other) == "turned back"
    why = changes(Deployments(serving.settings).engine, TASK)[0].why
    assert "ended by itself 2 times" in why or "requests failed" in why


def test_a_dead_champion_costs_time_and_no_request(serving: Serving) -> None:
    with loaded(serving.url) as load:
        load.wait(50)
        [worker] = serving.processes("serving.server")
        worker.kill()
        load.wait(100)
    nothing_lost(serving, load)
    assert load.longest_s > 0.3, "it was not noticed at all"


def test_a_dead_gateway_is_followed_at_once_and_nobody_is_refused(serving: Serving) -> None:
    """Who was being answered by it must ask again; the port stays bound, and another process stands by."""
    serving.predict("good").raise_for_status()
    for _ in range(3):
        until(lambda: len(serving.processes("gateway.server")) == 2)
        time.sleep(1.5)  # the one that stands by has imported what it needs
        first = min(serving.processes("gateway.server"), key=lambda process: process.create_time())
        first.kill()
        with httpx.Client(timeout=60) as client:
            client.post(f"{serving.url}/v1/sentiment/predict", json={"texts": ["good"]}).raise_for_status()
        assert first.pid not in {process.pid for process in serving.processes("gateway.server")}
    assert len(serving.processes("serving.server")) == 1


def test_a_shadow_is_asked_and_nobody_is_told(serving: Serving, other: Path, bentos: dict[str, Path]) -> None:
    made = shadow(serving.settings, TASK, other)
    until(lambda: len(serving.processes("serving.server")) == 2)
    folder = serving.settings.predictions_dir

    def mirrored() -> list[dict]:
        return [row for hour in hours(folder, TASK) for row in read_rows(folder, TASK, hour, MIRRORED)]

    with loaded(serving.url, clients=2) as load:
        until(lambda: len(mirrored()) > 20)
    nothing_lost(serving, load)
    assert set(load.models) == {tag_of(bentos[TASK])}
    rows = mirrored()
    assert {row["model"] for row in rows} == {tag_of(other)} and {row["deployment"] for row in rows} == {str(made.id)}
    assert not set(load.ids) & {row["id"] for row in rows}
    assert find(folder, TASK, rows[0]["id"]) is None, "a prediction that was given"
    Rollouts(serving.settings).end(made, "shadow ended", "seen enough")
    until(lambda: len(serving.processes("serving.server")) == 1)


def test_the_same_key_is_answered_by_the_same_one(serving: Serving, other: Path, frozen: Path) -> None:
    offer(serving.settings, TASK, other, frozen, steps=(50, 100), every_s=600)
    until(lambda: len({serving.predict("good").json()["model"] for _ in range(20)}) == 2)
    seen = {
        key: {serving.predict("good", headers={"X-Request-Key": f"user {key}"}).json()["model"] for _ in range(4)}
        for key in range(30)
    }
    assert all(len(models) == 1 for models in seen.values())
    assert len({model for models in seen.values() for model in models}) == 2


def test_a_later_bento_takes_the_place_of_a_canary_and_a_step_back_from_nothing_is_refused(
    serving: Serving, other: Path, narrow: Path, frozen: Path
) -> None:
    from lepton_platform.stage import StageFailed

    with pytest.raises(StageFailed, match="no earlier champion"):
        Rollouts(serving.settings).roll_back(TASK, "?")
    first = offer(serving.settings, TASK, other, frozen, steps=(50,), every_s=600).deployment
    with pytest.raises(StageFailed, match="rising shares"):
        offer(serving.settings, TASK, narrow, frozen, steps=(50, 5), every_s=600)
    table = Rollouts(serving.settings).deployments
    assert table.known(first.id).state == "canary"
    second = offer(serving.settings, TASK, narrow, frozen, steps=(50,), every_s=600).deployment
    assert table.known(first.id).state == "ended" and table.in_state(TASK, "canary") == second
    assert actions(serving)[-2:] == ["superseded", "canary 50 %"]
    until(lambda: {serving.predict("good").json()["model"] for _ in range(20)} == {champion(serving).tag, second.tag})
    again = offer(serving.settings, TASK, other, frozen, steps=(50,), every_s=600).deployment
    assert again.tag == first.tag and table.known(second.id).state == "ended"  # nothing was found against it
    assert Rollouts(serving.settings).roll_back(TASK, "enough")[0] == "ended"
    assert champion(serving).state == "champion" and actions(serving)[-1] == "rolled back"


def test_a_champion_that_is_promoted_at_once_ends_the_canary(
    serving: Serving, other: Path, narrow: Path, frozen: Path
) -> None:
    canary = offer(serving.settings, TASK, other, frozen, steps=(50,), every_s=600).deployment
    promoted = offer(serving.settings, TASK, narrow, frozen).deployment
    table = Rollouts(serving.settings).deployments
    assert promoted.state == "champion" and table.known(canary.id).state == "ended"
    until(lambda: {serving.predict("good").json()["model"] for _ in range(20)} == {promoted.tag})
