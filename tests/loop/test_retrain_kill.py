"""kill -9 of a retraining that was asked for: it is launched again, goes on from what was finished, one champion serves."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.workspaces import Workspace

TASK = "digits"
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


def test_killed_in_the_middle_it_is_finished_by_the_next_and_one_champion_serves(tmp_path: Path) -> None:
    folder, log = tmp_path / "workspace", tmp_path / "tick.log"
    folder.mkdir()
    workspace = Workspace(folder)
    workspace.call("lepton", "init", str(folder), "--profile", "smoke", "--task", TASK)
    workspace.call("lepton", "run")
    params = workspace.folder / "params.yaml"
    values = yaml.safe_load(params.read_text("utf-8"))
    values[TASK]["source"]["limit"] += 10
    params.write_text(yaml.safe_dump(values), "utf-8")
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
    served = rows(workspace, f"SELECT count(*) FROM deployment WHERE task = '{TASK}' AND state = 'champion'")
    assert served == [(1,)]
    done = rows(
        workspace, f"SELECT stage, count(*) FROM stage_attempt WHERE task = '{TASK}' AND state = 'done' GROUP BY stage"
    )
    assert dict(done)["raw"] == 2, "built once and retrained once: what was finished is not done again"
    told = json.loads(workspace.output("lepton", "status", TASK, "--json"))["tasks"][TASK]["stages"]
    assert {one["state"] for one in told.values()} == {"fresh"}
