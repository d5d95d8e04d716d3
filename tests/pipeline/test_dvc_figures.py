"""What DVC shows of figures: `dvc metrics` and `dvc plots`, in the workspace that the tests share."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.workspaces import TASKS, Workspace

pytestmark = pytest.mark.slow


def series(drawn: list[dict]) -> list[dict]:
    """The points of a plot, of all its revisions."""
    return [point for plot in drawn for point in plot["content"]["data"]["values"]]


def validation(task: str) -> str:
    return f"models/{task}/model/curves/validation.csv"


def test_every_training_is_drawn_from_the_evaluations_that_the_history_has(built: Workspace):
    told = json.loads(built.output("dvc", "plots", "show", "--json"))
    assert not told.get("errors")
    drawn = told["data"]
    assert set(drawn) == {name for task in TASKS for name in (f"{task}-loss", validation(task))}
    for task in TASKS:
        history = json.loads((built.folder / "models" / task / "model" / "history.json").read_text())
        steps = {"training.csv": history["steps"], "validation.csv": history["evaluations"]}
        points = series(drawn[f"{task}-loss"])
        for name, entries in steps.items():
            ours = [(float(p["step"]), float(p["loss"])) for p in points if p["filename"] == name]
            assert ours == [(entry["step"], entry["loss"]) for entry in entries], (task, name)
        [plot] = drawn[validation(task)]
        measure = next(name for name in history["evaluations"][0] if name not in ("step", "loss"))
        points = [(float(p["step"]), float(p[measure])) for p in series([plot])]
        assert points == [(entry["step"], entry[measure]) for entry in history["evaluations"]]
        assert f'"field": "{measure}"' in json.dumps(plot["content"]), f"{measure} is what is drawn"


def test_the_few_figures_of_both_models_stand_below_each_other(built: Workspace):
    [rows] = json.loads(built.output("dvc", "metrics", "show", "--json")).values()
    found = {path: file["data"] for path, file in rows["data"].items()}
    assert len(found) == 2 * len(TASKS)
    assert len({name for figures in found.values() for name in figures}) <= 20, "a table that fits on a page"
    for task in TASKS:
        report = json.loads((built.folder / "models" / task / "compressed" / "report.json").read_text())
        tested = json.loads((built.folder / "reports" / task / "quality" / "metrics.json").read_text())
        ours, theirs = found[f"models/{task}/compressed/headline.json"], found[f"reports/{task}/quality/headline.json"]
        assert all(tested[name] == value for name, value in theirs.items())
        [name] = set(ours) & set(theirs) - {"n_test"}
        assert (theirs[name], ours[name]) == (report[f"float_{name}"], report[f"int8_{name}"])
        assert ours["change"] == pytest.approx(ours[name] - theirs[name], abs=2e-6)
        assert ours["int8_bytes"] < report["float_bytes"] and ours["agreement"] == report["agreement"]


@pytest.fixture
def committed(copy) -> Workspace:
    """A copy under git, its one commit made."""
    here: Workspace = copy()
    git = ["git", "-C", str(here.folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    here.call("lepton", "init", str(here.folder), "--profile", "smoke")
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "as it was"], check=True)
    return here


def test_another_training_is_drawn_beside_the_committed_one(committed: Workspace):
    changed(committed.folder / validation("digits"), "step,loss,accuracy\n5,1.5,0.25\n")
    headline = committed.folder / "models" / "digits" / "compressed" / "headline.json"
    changed(headline, json.dumps({**json.loads(headline.read_text()), "accuracy": 0.125}))
    drawn = json.loads(committed.output("dvc", "plots", "diff", "HEAD", "--json"))["data"]
    revisions = {point["rev"] for point in series(drawn["digits-loss"])}
    assert len(revisions) == 2 and "workspace" in revisions
    assert {p["rev"] for p in series(drawn[validation("digits")]) if p["accuracy"] == "0.25"} == {"workspace"}
    told = json.loads(committed.output("dvc", "metrics", "diff", "--json"))
    assert told[headline.relative_to(committed.folder).as_posix()]["accuracy"]["new"] == 0.125
    assert len(told) == 1


def test_what_another_machine_made_is_told_with_its_figures_and_its_commit(committed: Workspace):
    """A clone that pulled has DVC's cache and git's history, and a ledger that saw nothing."""
    before = json.loads(committed.output("lepton", "status", "sentiment", "--json"))["tasks"]["sentiment"]["stages"]
    assert not [name for name, row in before.items() if row["made_elsewhere"]]
    for path in (committed.folder / ".lepton").glob("state.sqlite*"):
        path.unlink()
    head = subprocess.run(["git", "-C", str(committed.folder), "rev-parse", "HEAD"], capture_output=True, text=True)
    commit = head.stdout.strip()
    shutil.rmtree(committed.folder / "reports" / "sentiment" / "quality")  # DVC's cache has it still
    rows = json.loads(committed.output("lepton", "status", "sentiment", "--json"))["tasks"]["sentiment"]["stages"]
    assert {row["made_elsewhere"]["commit"] for row in rows.values()} == {commit}
    assert rows["quality"]["metrics"]["accuracy"] == before["quality"]["metrics"]["accuracy"]
    assert rows["compressed"]["metrics"]["agreement"] == before["compressed"]["metrics"]["agreement"]
    assert rows["model"]["metrics"] == {} and rows["model"]["run_id"] is None
    said = " ".join(committed.output("lepton", "status", "sentiment").split())
    assert f"made elsewhere, in dvc.lock since {commit[:12]}" in said and "raw, clean, contract" in said


def changed(path: Path, content: str) -> None:
    """The file, not the bytes in DVC's cache that it may be a link to."""
    beside = path.with_suffix(".new")
    beside.write_text(content)
    shutil.move(beside, path)
