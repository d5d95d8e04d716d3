"""`lepton run` and `dvc repro` on one workspace: the same bytes, the same versions, the same idea of what is stale."""

import json
import sys

import pytest
import yaml

from lepton_platform.pipeline.stages import STAGES, downstream
from tests.workspaces import TASKS, Workspace, new_workspace

NAMES = [f"{task}-{stage.name}" for task in TASKS for stage in STAGES]
CHECKED = """
import dagster as dg
from lepton_platform.settings import get_settings

get_settings()
key = dg.AssetCheckKey(dg.AssetKey(["sentiment", "contract"]), "expectations")
with dg.DagsterInstance.get() as instance:
    [found] = instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).values()
    made = instance.get_latest_materialization_event(key.asset_key)
    print(found.evaluation.passed, found.event.timestamp >= made.timestamp)
"""
pytestmark = pytest.mark.slow


def stages(workspace: Workspace, task: str) -> dict[str, dict]:
    return json.loads(workspace.output("lepton", "status", task, "--json"))["tasks"][task]["stages"]


def states(workspace: Workspace, task: str) -> dict[str, str]:
    return {name: row["state"] for name, row in stages(workspace, task).items()}


def set_param(workspace: Workspace, task: str, section: str, **values: object) -> str:
    """Change parameters; returns the file as it was."""
    path = workspace.folder / "params.yaml"
    before = path.read_text()
    params = yaml.safe_load(before)
    params[task][section] = {**(params[task][section] or {}), **values}
    path.write_text(yaml.safe_dump(params))
    return before


def changed_in_dvc(workspace: Workspace) -> list[str]:
    said = workspace.call("dvc", "status")
    return [name for name in NAMES if f"{name}:" in said]


def test_after_a_run_dvc_is_clean_and_nothing_runs_in_either_face(built: Workspace):
    assert {state for task in TASKS for state in states(built, task).values()} == {"fresh"}
    assert "up to date" in built.call("dvc", "status")
    lock = built.lock()
    assert "Running stage" not in built.call("dvc", "repro")
    assert "nothing ran" in built.call("lepton", "run")
    assert built.lock() == lock


def test_a_forced_repro_in_a_copy_leaves_the_same_lock(built: Workspace, copy):
    other = copy()
    assert other.call("dvc", "repro", "-f").count("Running stage") == len(NAMES)
    assert other.lock() == built.lock()


@pytest.mark.parametrize("task", TASKS)
def test_a_changed_learning_rate_is_stale_in_both_faces_and_one_run_settles_both(copy, task: str):
    workspace = copy()
    lock = workspace.lock()
    before = set_param(workspace, task, "train", learning_rate=4e-5)
    model, bento = f"{task}-model", f"{task}-bento"
    assert changed_in_dvc(workspace) == [model, bento]  # the Bento's manifest names parameters
    assert [name for name, state in states(workspace, task).items() if state == "stale"] == ["model", "bento"]
    assert [n for n, row in stages(workspace, task).items() if "model" in row["behind"]] == downstream("model")
    workspace.call("lepton", "run", task, "--upto", "model")
    assert model not in changed_in_dvc(workspace)
    assert states(workspace, task)["model"] == "fresh"
    (workspace.folder / "params.yaml").write_text(before)
    workspace.call("lepton", "run", task, "--upto", "bento")
    assert workspace.lock() == lock, "the old parameters bring back the old bytes"


def test_a_changed_parameter_runs_again_and_dvc_repro_settles_lepton(copy):
    workspace = copy()
    set_param(workspace, "sentiment", "clean", max_size=150)
    said = workspace.call("lepton", "run", "sentiment", "--upto", "clean")
    assert "│ ran" in next(line for line in said.splitlines() if line.startswith("│ clean"))
    set_param(workspace, "sentiment", "clean", max_size=140)
    workspace.call("dvc", "repro", "sentiment-clean")
    assert states(workspace, "sentiment")["clean"] == "fresh"


def test_after_dvc_repro_dagster_is_told_the_same_versions_and_what_was_checked(tmp_path):
    workspace = new_workspace(tmp_path / "workspace")
    workspace.call("dvc", "repro", "sentiment-contract")
    table = workspace.folder / "code.yaml"
    rendered = table.read_text()
    table.write_text(rendered + "of-before: 0\n")
    said = workspace.call("lepton", "versioning", "sync")
    assert "code.yaml out of date" in said and "Told" not in said, "made by what code?"
    assert "code.yaml out of date" in workspace.call("lepton", "status", "sentiment")
    table.write_text(rendered)
    told = workspace.call("lepton", "versioning", "sync")
    assert all(f"sentiment/{name}" in told for name in ("raw", "clean", "contract"))
    assert "Dagster knows every version" in workspace.call("lepton", "versioning", "sync")
    assert "nothing ran" in workspace.call("lepton", "run", "sentiment", "--upto", "contract")
    assert workspace.output(sys.executable, "-c", CHECKED).split() == ["True", "True"]
