"""From a built graph to monitored services: up, predict, trace, drift, one retrain asked for, down; every task alike."""

import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.loop.traffic import TRAFFIC
from tests.workspaces import TASKS, Workspace

pytestmark = pytest.mark.slow
MATERIALIZE = """
import sys
from lepton_platform.cli.progress import StageBars
from lepton_platform.components import launch
from lepton_platform.definitions import defs
from lepton_platform.settings import get_settings
print(launch.materialize(get_settings(), defs(), sys.argv[1:], False, StageBars(None).watch))
"""


@pytest.fixture(scope="module")
def up(built: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Everything that `lepton up` starts, in a copy of the built workspace, on ports of its own."""
    folder = tmp_path_factory.mktemp("up") / "workspace"
    shutil.copytree(built.folder, folder, symlinks=True)
    copied = Workspace(folder)
    try:
        copied.call("lepton", "up")
        yield copied
    finally:
        copied.call("lepton", "down")
        shutil.rmtree(folder)


TRACE = """\
import json, sys
from lepton_platform.pipeline.trace import trace
from lepton_platform.settings import get_settings
print(json.dumps(trace(get_settings(), sys.argv[1])))
"""


def address(workspace: Workspace, task: str) -> str:
    return f"http://127.0.0.1:{workspace.ports['LEPTON_SERVICE_PORT']}/v1/{task}"


def stages(workspace: Workspace, task: str) -> dict:
    return json.loads(workspace.output("lepton", "status", task, "--json"))["tasks"][task]["stages"]


@pytest.mark.parametrize("task", TASKS)
def test_predict_prints_an_answer_and_trace_leads_to_the_training_rows(up: Workspace, task: str, tmp_path: Path):
    given = TRAFFIC[task].argument(tmp_path)
    answer = json.loads(up.output("lepton", "predict", task, given, "--json"))
    (one,) = answer["predictions"]
    assert set(one) - {"id"}, "an id alone is no answer"
    past = json.loads(up.output("lepton", "trace", one["id"], "--json"))
    assert past["task"] == task and past["prediction"]["id"] == one["id"]
    assert past["bento"]["tag"] == answer["model"] == past["deployment"]["tag"]
    assert {"raw", "clean", "contract", "features", "dataset", "model", "compressed"} <= set(past["stages"])
    assert past["stages"]["model"]["made_by"]["run_id"] == past["stages"]["dataset"]["made_by"]["run_id"]
    assert past["stages"]["model"]["made_by"]["params"]["train"] is not None
    count = past["training_rows"]["count"]
    made = past["stages"]["dataset"]["made_by"]["metrics"]["train_rows"]
    assert count == len(set(past["training_rows"]["ids"])) == made
    assert one["id"] in up.output("lepton", "trace", one["id"])


@pytest.mark.parametrize("task", TASKS)
def test_the_gateway_tells_the_same_past(up: Workspace, task: str, tmp_path: Path):
    given = TRAFFIC[task].argument(tmp_path)
    (one,) = json.loads(up.output("lepton", "predict", task, given, "--json"))["predictions"]
    answer = httpx.get(f"{address(up, task)}/lineage/{one['id']}?rows=all", timeout=60)
    assert answer.status_code == 200, answer.text
    told = json.loads(up.output("lepton", "trace", one["id"], "--json"))  # by the gateway, too
    assert answer.json() == told == json.loads(up.output(sys.executable, "-c", TRACE, one["id"]))
    anyone = httpx.get(f"{address(up, 'lineage')}/{one['id']}?rows=all", timeout=60)
    assert anyone.json() == told
    some = httpx.get(f"{address(up, task)}/lineage/{one['id']}", timeout=60).json()["training_rows"]
    assert some["count"] == answer.json()["training_rows"]["count"] and len(some["ids"]) == min(some["count"], 100)
    assert httpx.get(f"{address(up, task)}/lineage/01a20d4c-c5bc-7471-b97d-133fa2be7c71", timeout=60).status_code == 404


def test_what_serves_and_since_when(up: Workspace):
    told = json.loads(up.output("lepton", "deployments", "--json"))
    assert {task: [d["state"] for d in found["live"]] for task, found in told.items()} == {
        t: ["champion"] for t in TASKS
    }
    assert all(found["audit"][-1]["action"] == "promoted" for found in told.values())
    assert up.call("lepton", "rollback", TASKS[0], code=1)
    assert "champion" in up.output("lepton", "deployments", TASKS[0])


@pytest.mark.parametrize("task", TASKS)
def test_labelled_feedback_joins_the_next_training_set(up: Workspace, task: str):
    traffic = TRAFFIC[task]
    example = traffic.example
    given = example if isinstance(example, bytes) else example.encode()
    (one,) = httpx.post(f"{address(up, task)}/predict", **traffic.api.from_command_line(given)).json()["predictions"]
    said = httpx.post(f"{address(up, task)}/feedback", json={"feedback": [{"id": one["id"], **traffic.truth}]})
    assert said.status_code == 200, said.text
    told = json.loads(up.output("lepton", "trace", one["id"], "--json"))["prediction"]["feedback"]
    assert [set(row) - {"at"} for row in told] == [set(traffic.truth)] and told[0]["at"]
    assert "people said" in up.output("lepton", "trace", one["id"])
    before = stages(up, task)["raw"]
    up.call(sys.executable, "-c", MATERIALIZE, f"{task}/labels")
    assert one["id"] in (up.folder / f"data/{task}/labels.jsonl").read_text(encoding="utf-8")
    up.call("lepton", "run", task, "--upto", "raw")
    after = stages(up, task)["raw"]
    assert after["rows"] == before["rows"] + 1 and after["version"] != before["version"]
    assert after["metrics"]["malformed_rows"] == before["metrics"]["malformed_rows"]


def test_an_unknown_id_is_one_paragraph(up: Workspace):
    said = up.call("lepton", "trace", "01a20d4c-c5bc-7471-b97d-133fa2be7c71", code=1)
    assert "No prediction has the id" in said and "Traceback" not in said


def test_the_asset_graph_shows_the_tasks(up: Workspace, tmp_path: Path):
    from playwright.sync_api import sync_playwright

    chromium = Path("/usr/bin/chromium")
    if not chromium.is_file() and "CI" not in os.environ:
        pytest.skip("needs a browser: apt-get install chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=str(chromium), args=flags)
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        for task in TASKS:
            location = "__repository__@lepton_platform.definitions"
            group = f"locations/{location}/asset-groups/{task}/lineage"
            page.goto(f"http://127.0.0.1:{up.ports['LEPTON_UI_PORT']}/{group}")
            for name in (task, "raw", "contract", "bento", "deployment", "drift"):
                page.get_by_text(name, exact=True).first.wait_for(timeout=60_000)
            shot = tmp_path / f"{task}.png"
            page.screenshot(path=str(shot))
            assert shot.stat().st_size > 20_000
        browser.close()


def drift(workspace: Workspace, task: str, since: datetime, monkeypatch: pytest.MonkeyPatch):
    from lepton_platform.pipeline import operate
    from lepton_platform.settings import use_workspace

    for name, value in workspace.environment().items():
        if name.startswith("LEPTON_"):
            monkeypatch.setenv(name, value)
    settings = use_workspace(workspace.folder)
    now = datetime.now(UTC)
    return operate.check_drift(settings, task, now - since, now)


@pytest.mark.parametrize("task", TASKS)
def test_what_is_like_the_training_rows_passes_and_what_is_not_fails(
    up: Workspace, task: str, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    traffic, before = TRAFFIC[task], datetime.now(UTC)
    known = traffic.held_out(up.folder)
    traffic.send(address(up, task), known)
    found = drift(up, task, before, monkeypatch)
    assert found.state == "passed" and found.n_current == len(known), found.why
    time.sleep(1.0)
    before = datetime.now(UTC)
    shifted = traffic.shifted(known, cache_dir)
    traffic.send(address(up, task), shifted)
    found = drift(up, task, before, monkeypatch)
    assert found.failed and found.n_current == len(shifted), found.why


def requests(workspace: Workspace) -> list[str]:
    """The tasks for which a retraining was asked for, one entry a request."""
    with sqlite3.connect(workspace.folder / ".lepton" / "state.sqlite") as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'retrain_request'").fetchall():
            return []  # the sensor's first tick makes the table
        return sorted(task for (task,) in database.execute("SELECT task FROM retrain_request"))


def test_drift_asks_for_one_retrain_and_not_two(up: Workspace, cache_dir: Path):
    """The daemon's own sensors see the failed checks of the assets, as they would at night."""
    for traffic in TRAFFIC.values():  # most of the last day is shifted: what was sent above counts too
        shifted = traffic.shifted(traffic.held_out(up.folder), cache_dir)
        for _ in range(5):
            traffic.send(address(up, traffic.task), shifted)
    assets = [f"{task}/drift" for task in TASKS]
    for _ in range(2):
        up.call(sys.executable, "-c", MATERIALIZE, *assets)
    until = time.monotonic() + 240
    while time.monotonic() < until and requests(up) != TASKS:
        time.sleep(2)
    assert requests(up) == TASKS
    for task in TASKS:
        told = [event["what"] for event in json.loads(up.output("lepton", "history", task, "--json"))]
        kinds = [what for what in told if not what.startswith(("promoted", "labels"))]
        assert kinds.count("alert: drift") == 1, "several checks, one alarm"
        assert (
            kinds.index("trained")
            < kinds.index("judged")
            < kinds.index("alert: drift")
            < kinds.index("retrain asked for")
        )
    up.call(sys.executable, "-c", MATERIALIZE, *assets)  # alarms again
    time.sleep(70)  # two ticks of the sensor, and more
    assert requests(up) == TASKS
