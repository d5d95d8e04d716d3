"""kill -9 of a run at random moments: the next run completes with the same bytes, and nothing is left behind."""

import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.workspaces import TASKS, Workspace, new_workspace

KILLS = int(os.environ.get("LEPTON_TEST_KILLS", "4"))
pytestmark = pytest.mark.slow


def start(workspace: Workspace, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as stream:
        return subprocess.Popen(
            ["lepton", "run", "--upto", "bento"],
            cwd=workspace.folder,
            env=workspace.environment(),
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def leftovers(folder: Path) -> list[str]:
    """What a stage that did not finish leaves beside its output."""
    return [str(p) for name in ("data", "models", "reports") for p in (folder / name).glob("*/.*") if p.is_dir()]


def test_killed_at_random_moments_the_next_run_leaves_the_same_lock(built: Workspace, tmp_path: Path):
    workspace, chance = new_workspace(tmp_path / "workspace"), random.Random(11)
    killed = 0
    while killed < KILLS:
        process = start(workspace, tmp_path / "run.log")
        try:
            process.wait(timeout=chance.uniform(4, 25))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
            continue
        assert process.returncode == 0, (tmp_path / "run.log").read_text()
        shutil.rmtree(workspace.folder / ".dvc" / "cache")  # it was through before the kill came: begin anew
        for name in (*(f"data/{task}/raw" for task in TASKS), "models", "reports"):
            shutil.rmtree(workspace.folder / name)
    said = workspace.call("lepton", "run", "--upto", "bento")
    assert workspace.lock() == built.lock(), said
    assert leftovers(workspace.folder) == []
    assert "up to date" in workspace.call("dvc", "status")
