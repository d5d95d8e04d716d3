"""What the platform sees is wrong with what serves: when it begins to say so, when it stops, and that it says so once."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lepton_platform.gateway import control
from lepton_platform.gateway.watch import DOWN_S, RESTARTS, RESTARTS_S, Finding, Watch, tell
from lepton_platform.monitoring.alerts import Alerts
from lepton_platform.monitoring.channels import Webhook
from lepton_platform.settings import Settings
from tests.gateway.conftest import Serving, new_settings, offer, serve
from tests.hooks import hooked

HOUR_S = 3600.0


@dataclass
class Clock:
    """Goes when it is told to."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def at(seconds_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat(timespec="seconds").replace("+00:00", "Z")


def told(**more: Any) -> dict[str, Any]:
    """An overview in which all is well."""
    requests = {"count": 100, "errors": 0, "error_share": 0.0, **more.pop("requests", {})}
    champion = {"role": "champion", "deployment": 1, "up": True, "started_at": at(900), **more.pop("champion", {})}
    task = {"name": "trees", "versions": [champion], "requests": requests, "drift": {"checked_at": at(600)}}
    task |= {"serving_since": at(9 * HOUR_S), **more.pop("task", {})}
    machine = {"disk_free_bytes": 50e9, "disk_size_bytes": 100e9, **more.pop("machine", {})}
    return {"window_s": 300.0, "tasks": [task], "machine": machine, **more}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    return Watch(3 * HOUR_S, clock)


def wrong(found: list[Finding]) -> dict[str, str]:
    return {one.kind: one.why for one in found if one.wrong}


def right(found: list[Finding]) -> set[str]:
    return {one.kind for one in found if not one.wrong}


def test_all_is_well(watch: Watch) -> None:
    found = watch.judge(told())
    assert not wrong(found) and right(found) == {"service", "errors", "disk", "drift_check"}


def test_a_task_that_nobody_answers_for(watch: Watch, clock: Clock) -> None:
    down = told(champion={"up": False, "started_at": None})
    assert "service" not in {one.kind for one in watch.judge(down)}  # a process may be on its way
    clock.now += DOWN_S
    assert wrong(watch.judge(down))["service"] == "No process has answered for 60 s."
    assert "service" in wrong(watch.judge(told(task={"versions": []})))
    assert "service" in right(watch.judge(told()))


def test_a_process_that_dies_again_and_again(watch: Watch, clock: Clock) -> None:
    for age in (500, 400, 300):
        assert "service" not in wrong(watch.judge(told(champion={"started_at": at(age)})))
        clock.now += 30
    found = wrong(watch.judge(told(champion={"started_at": at(200)})))
    assert found["service"] == "Its process was started again 3 times in 10 minutes."
    clock.now += RESTARTS_S
    assert "service" in right(watch.judge(told(champion={"started_at": at(200)})))


def test_another_version_is_no_restart(watch: Watch) -> None:
    for deployment in range(9):
        assert not wrong(watch.judge(told(champion={"deployment": deployment, "started_at": at(deployment)})))


@pytest.mark.parametrize(
    ("count", "errors", "window_s", "said"),
    [
        (100, 3, 300, True), (100, 2, 300, None), (20, 1, 300, None), (1000, 6, 300, None), (1000, 4, 300, False),
        (10, 9, 300, None), (100, 50, 20, None), (0, 0, 300, False),
    ],
)  # fmt: skip
def test_errors(watch: Watch, count: int, errors: int, window_s: float, said: bool | None) -> None:
    share = errors / count if count else None
    found = watch.judge(told(requests={"count": count, "errors": errors, "error_share": share}, window_s=window_s))
    assert next((one.wrong for one in found if one.kind == "errors"), None) is said


@pytest.mark.parametrize(("free", "said"), [(0.04, True), (0.06, None), (0.2, False)])
def test_a_disk_that_fills(watch: Watch, free: float, said: bool | None) -> None:
    found = [one for one in watch.judge(told(machine={"disk_free_bytes": free * 100e9})) if one.kind == "disk"]
    assert [one.wrong for one in found] == ([] if said is None else [said])
    assert all(one.task == "machine" for one in found)


def test_a_drift_check_that_is_overdue(watch: Watch) -> None:
    late = {"drift": {"checked_at": at(4 * HOUR_S)}}
    assert "Dagster's daemon" in wrong(watch.judge(told(task=late)))["drift_check"]
    assert "never" in wrong(watch.judge(told(task={"drift": None})))["drift_check"]
    quiet = told(task=late, requests={"count": 0})
    assert "drift_check" not in {one.kind for one in watch.judge(quiet)}  # nobody asks: there is nothing to look at
    new = {"drift": None, "serving_since": at(HOUR_S)}
    assert "drift_check" not in {one.kind for one in watch.judge(told(task=new))}


def test_each_is_told_once_when_it_begins_and_once_when_it_is_over(tmp_path: Path, watch: Watch, clock: Clock) -> None:
    bad = told(
        champion={"up": False, "started_at": None},
        requests={"count": 100, "errors": 30, "error_share": 0.3},
        task={"drift": {"checked_at": at(4 * HOUR_S)}},
        machine={"disk_free_bytes": 1e9},
    )
    with hooked() as hook:
        book = Alerts(Settings(workspace=tmp_path), [Webhook(hook.url)], {})
        for overview in (told(), bad, bad, bad, told(), told(), bad):
            tell(book, watch.judge(overview))
            clock.now += 31
    kinds = sorted(words.partition(".")[0] for words in hook.words)
    what = ["trees: errors", "trees: drift_check", "trees: service", "machine: disk"]
    again = [one for one in what if one != "trees: service"]  # which the last look was too short for
    assert kinds == sorted([f"[alert] {one}" for one in what + again] + [f"[resolved] {one}" for one in what])


# --- the real parts


def until(happens: Callable[[], object], within_s: float) -> None:
    end = time.monotonic() + within_s
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)


def kill(serving: Serving) -> None:
    """The worker, and wait for the next."""
    [worker] = serving.processes("serving.server")
    worker.kill()
    worker.wait()
    until(lambda: serving.processes("serving.server"), 30)
    until(lambda: serving.predict("good").status_code == 200, 60)


@pytest.mark.slow
def test_a_worker_that_is_killed_again_and_again_is_told(bentos: dict[str, Path], tmp_path: Path, clock: Clock) -> None:
    settings = new_settings(tmp_path, ("sentiment",))
    offer(settings, "sentiment", bentos["sentiment"])
    watch = Watch(3 * HOUR_S, clock)
    with hooked() as hook, serve(settings) as running:
        book = Alerts(settings, [Webhook(hook.url)], {})
        for _ in range(4):
            overview = running.client.get(f"{running.url}/v1/overview").json()
            tell(book, watch.judge(overview))
            kill(running)
            time.sleep(1.1)  # starts are told to the second, overviews kept for one
        tell(book, watch.judge(running.client.get(f"{running.url}/v1/overview").json()))
        clock.now += RESTARTS_S + 1
        tell(book, watch.judge(running.client.get(f"{running.url}/v1/overview").json()))
    began, over = hook.words
    assert began.startswith("[alert] sentiment: service. Its process was started again")
    assert over == "[resolved] sentiment: service. A process answers."


@pytest.mark.slow
def test_the_gateway_looks_by_itself_and_tells_who_the_settings_name(bentos: dict[str, Path], tmp_path: Path) -> None:
    with hooked() as hook:
        more = {"alert_webhook": hook.url, "drift_overdue_hours": 15 / HOUR_S}
        settings = new_settings(tmp_path, ("sentiment",), **more)
        offer(settings, "sentiment", bentos["sentiment"])
        with serve(settings) as running:
            time.sleep(16)
            running.predict("good").raise_for_status()
            until(lambda: hook.words, 45)
            out = settings.path("reports", "sentiment", "drift", "result.json")
            out.parent.mkdir(parents=True)

            def checked() -> bool:
                out.write_text(json.dumps({"state": "passed", "why": "as ever", "signals": []}), "utf-8")
                return len(hook.words) > 1

            until(checked, 60)
        began, over = hook.words
        assert began.startswith("[alert] sentiment: drift_check. Drift has never been checked")
        assert over.startswith("[resolved] sentiment: drift_check. Drift was checked at")


def test_a_gateway_that_is_killed_again_and_again_is_told_by_its_supervisor(
    bentos: dict[str, Path], tmp_path: Path
) -> None:
    with hooked() as hook:
        settings = new_settings(tmp_path, ("sentiment",), alert_webhook=hook.url)
        offer(settings, "sentiment", bentos["sentiment"])
        with serve(settings) as running:
            for _ in range(RESTARTS):
                assert not hook.words
                eldest = min(running.processes("gateway.server"), key=lambda process: process.create_time())
                eldest.kill()  # the other stands by, and takes over
                eldest.wait()
                until(lambda: len(running.processes("gateway.server")) == 2, 30)
                assert control.wait_ready(running.url, 60, running.started.pid)
            until(lambda: hook.words, 30)
            time.sleep(2)  # it looks twice a second
        assert hook.words == ["[alert] machine: service. The gateway was started again 3 times in ten minutes."]
