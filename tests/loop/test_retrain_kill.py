"""kill -9 of a retraining that was asked for: it is launched again, goes on from what was finished, one champion serves.

Once without Dagster's daemon and all of it at once, as where the machine dies; once the daemon's run alone, which leaves
whoever launched it, and the child that trains, behind.
"""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.loop.traffic import TRAFFIC
from tests.workspaces import Workspace

TASK = "digits"
LABELS = 5
KILLED_IN = ("contract", "model")  # the stages that it is killed in
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]  # two runs are killed, a third does it
TICK = """
import sys
from datetime import UTC, datetime
from lepton_platform.components import launch
from lepton_platform.definitions import defs
from lepton_platform.monitoring.retraining import RetrainBook, Wish
from lepton_platform.settings import get_settings

def watch(task, stage):
    print(stage, flush=True)
    return lambda *_: None

settings, task = get_settings(), sys.argv[1]
if sys.argv[2:] == ["wish"]:
    RetrainBook(settings).wish(task, Wish("schedule", datetime.now(UTC), "It is time."))
print("ended", launch.tick(settings, defs(), task, watch), flush=True)
"""


def tick(workspace: Workspace, log: Path, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", TICK, TASK, *words],
        cwd=workspace.folder,
        env={**workspace.environment(), "LEPTON_WORKSPACE": str(workspace.folder)},
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
        start_new_session=True,
    )


def rows(workspace: Workspace, query: str) -> list[tuple]:
    with sqlite3.connect(workspace.folder / ".lepton" / "state.sqlite") as database:
        return database.execute(query).fetchall()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "workspace"
    folder.mkdir()
    workspace = Workspace(folder)
    workspace.call("lepton", "init", str(folder), "--profile", "smoke", "--task", TASK)
    workspace.call("lepton", "run")
    return folder


@pytest.fixture
def workspace(trained: Path, tmp_path: Path) -> Workspace:
    """A copy, with ten more rows at the source and five labels that ask for a retraining."""
    folder = shutil.copytree(trained, tmp_path / "workspace", symlinks=True)
    params = folder / "params.yaml"
    values = yaml.safe_load(params.read_text("utf-8"))
    values[TASK]["source"]["limit"] += 10
    values[TASK]["retrain"] = {"new_labels": LABELS}
    params.write_text(yaml.safe_dump(values), "utf-8")
    return Workspace(folder)


def finished_once(workspace: Workspace) -> None:
    """One champion serves, and what was finished before a kill was not done again."""
    served = rows(workspace, f"SELECT count(*) FROM deployment WHERE task = '{TASK}' AND state = 'champion'")
    assert served == [(1,)]
    done = rows(
        workspace, f"SELECT stage, count(*) FROM stage_attempt WHERE task = '{TASK}' AND state = 'done' GROUP BY stage"
    )
    assert dict(done)["raw"] == 2, "built once and retrained once: what was finished is not done again"
    told = json.loads(workspace.output("lepton", "status", TASK, "--json"))["tasks"][TASK]["stages"]
    assert {one["state"] for one in told.values()} == {"fresh"}


def test_killed_in_the_middle_it_is_finished_by_the_next_and_one_champion_serves(
    workspace: Workspace, tmp_path: Path
) -> None:
    log = tmp_path / "tick.log"
    words = ["wish"]
    for stage in KILLED_IN:
        process = tick(workspace, log, *words)
        words = []
        assert process.stdout is not None
        seen = [line.strip() for line in iter(process.stdout.readline, f"{stage}\n")]
        assert process.poll() is None, (seen, log.read_text())
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process = tick(workspace, log)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0 and "failures=[]" in said, said + log.read_text()
    [(state, reason)] = rows(workspace, "SELECT state, reason FROM retrain_request")
    assert (state, reason) == ("done", "schedule: It is time.")
    finished_once(workspace)


# --- by Dagster's daemon


def until(happens: Callable[[], Any], within_s: float) -> Any:
    end = time.monotonic() + within_s
    while not (found := happens()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)
    return found


def training(workspace: Workspace) -> psutil.Process | None:
    """The child that trains, below the daemon's run."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[3:5] == ["model", TASK] and Path(process.cwd()) == workspace.folder:
                return process
    return None


def say(workspace: Workspace, count: int) -> None:
    """So many pictures are sent to the service, and people say what they are."""
    url = f"http://127.0.0.1:{workspace.ports['LEPTON_SERVICE_PORT']}/v1/{TASK}"
    told = []
    for _ in range(count):
        given = TRAFFIC[TASK].api.from_command_line(TRAFFIC[TASK].example)
        [found] = httpx.post(f"{url}/predict", **given).raise_for_status().json()["predictions"]
        told.append({"id": found["id"], **TRAFFIC[TASK].truth})
    httpx.post(f"{url}/feedback", json={"feedback": told}).raise_for_status()


def launched(workspace: Workspace) -> list[str]:
    """How the daemon's retrainings ended, in their order."""
    with sqlite3.connect(workspace.folder / "dagster_home" / "history" / "runs.db") as database:
        query = f"SELECT status FROM runs WHERE pipeline_name = '{TASK}_retrain' ORDER BY id"
        return [status for (status,) in database.execute(query)]


def test_the_daemons_run_is_killed_its_child_ends_with_it_and_the_daemon_launches_it_again(
    workspace: Workspace,
) -> None:
    workspace.call("lepton", "up")
    try:
        say(workspace, LABELS)
        child = until(lambda: training(workspace), 300)
        run = child.parent()
        run.kill()
        assert not psutil.wait_procs([child], timeout=10)[1], "it would write where the next run does"
        until(lambda: rows(workspace, "SELECT state FROM retrain_request") == [("done",)], 500)
        assert launched(workspace) == ["FAILURE", "SUCCESS"]
        finished_once(workspace)
        told = [event["what"] for event in json.loads(workspace.output("lepton", "history", TASK, "--json"))]
        assert told.count("retrain asked for") == told.count("labels taken in") == 1
        assert "alert: retrain" not in told, "nobody need do anything"
    finally:
        workspace.call("lepton", "down")
