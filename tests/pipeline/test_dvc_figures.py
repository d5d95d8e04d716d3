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


def test_another_training_is_drawn_beside_the_committed_one(copy):
    here: Workspace = copy()
    git = ["git", "-C", str(here.folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    here.call("lepton", "init", str(here.folder), "--profile", "smoke")
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "as it was"], check=True)
    changed(here.folder / validation("digits"), "step,loss,accuracy\n5,1.5,0.25\n")
    headline = here.folder / "models" / "digits" / "compressed" / "headline.json"
    changed(headline, json.dumps({**json.loads(headline.read_text()), "accuracy": 0.125}))
    drawn = json.loads(here.output("dvc", "plots", "diff", "HEAD", "--json"))["data"]
    revisions = {point["rev"] for point in series(drawn["digits-loss"])}
    assert len(revisions) == 2 and "workspace" in revisions
    assert {p["rev"] for p in series(drawn[validation("digits")]) if p["accuracy"] == "0.25"} == {"workspace"}
    told = json.loads(here.output("dvc", "metrics", "diff", "--json"))
    assert told[headline.relative_to(here.folder).as_posix()]["accuracy"]["new"] == 0.125
    assert len(told) == 1


def changed(path: Path, content: str) -> None:
    """The file, not the bytes in DVC's cache that it may be a link to."""
    beside = path.with_suffix(".new")
    beside.write_text(content)
    shutil.move(beside, path)
