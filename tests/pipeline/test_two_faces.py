"""`lepton run` and `dvc repro` on one workspace: the same bytes, the same versions, the same idea of what is stale."""

import json

import pytest
import yaml

from lepton_platform.pipeline.stages import STAGES, downstream
from tests.workspaces import Workspace, new_workspace

NAMES = [f"sentiment-{stage.name}" for stage in STAGES]
pytestmark = pytest.mark.slow


def states(workspace: Workspace) -> dict[str, str]:
    found = json.loads(workspace.output("lepton", "status", "--json"))
    return {name: row["state"] for name, row in found["tasks"]["sentiment"]["stages"].items()}


def set_param(workspace: Workspace, section: str, **values: object) -> str:
    """Change parameters; returns the file as it was."""
    path = workspace.folder / "params.yaml"
    before = path.read_text()
    params = yaml.safe_load(before)
    params["sentiment"][section] = {**(params["sentiment"][section] or {}), **values}
    path.write_text(yaml.safe_dump(params))
    return before


def changed_in_dvc(workspace: Workspace) -> list[str]:
    said = workspace.call("dvc", "status")
    return [name for name in NAMES if f"{name}:" in said]


def test_after_a_run_dvc_is_clean_and_nothing_runs_in_either_face(built: Workspace):
    assert set(states(built).values()) == {"fresh"}
    assert "up to date" in built.call("dvc", "status")
    lock = built.lock()
    assert "Running stage" not in built.call("dvc", "repro")
    assert "nothing ran" in built.call("lepton", "run")
    assert built.lock() == lock


def test_a_forced_repro_in_a_copy_leaves_the_same_lock(built: Workspace, copy):
    other = copy()
    assert other.call("dvc", "repro", "-f").count("Running stage") == len(NAMES)
    assert other.lock() == built.lock()


def test_a_changed_learning_rate_is_stale_in_both_faces_and_one_run_settles_both(copy):
    workspace = copy()
    lock = workspace.lock()
    before = set_param(workspace, "train", learning_rate=4e-5)
    assert changed_in_dvc(workspace) == ["sentiment-model", "sentiment-bento"]  # the Bento's manifest names parameters
    stale = [name for name, state in states(workspace).items() if state == "stale"]
    assert stale == ["model", "bento"]
    found = json.loads(workspace.output("lepton", "status", "--json"))["tasks"]["sentiment"]["stages"]
    assert [name for name, row in found.items() if "model" in row["behind"]] == downstream("model")
    workspace.call("lepton", "run", "--upto", "model")
    assert "sentiment-model" not in changed_in_dvc(workspace)
    assert states(workspace)["model"] == "fresh"
    (workspace.folder / "params.yaml").write_text(before)
    workspace.call("lepton", "run", "--upto", "bento")
    assert workspace.lock() == lock, "the old parameters bring back the old bytes"


def test_a_changed_parameter_runs_again_and_dvc_repro_settles_lepton(copy):
    workspace = copy()
    set_param(workspace, "clean", max_size=150)
    said = workspace.call("lepton", "run", "--upto", "clean")
    assert "│ ran" in next(line for line in said.splitlines() if line.startswith("│ clean"))
    set_param(workspace, "clean", max_size=140)
    workspace.call("dvc", "repro", "sentiment-clean")
    assert states(workspace)["clean"] == "fresh"


def test_after_dvc_repro_dagster_is_told_the_same_versions(tmp_path):
    workspace = new_workspace(tmp_path / "workspace")
    workspace.call("dvc", "repro", "sentiment-clean")
    told = workspace.call("lepton", "versioning", "sync")
    assert "sentiment/raw" in told and "sentiment/clean" in told
    assert "Dagster knows every version" in workspace.call("lepton", "versioning", "sync")
    assert "nothing ran" in workspace.call("lepton", "run", "--upto", "clean")
