"""`lepton data` and `lepton doctor`, typed as a person would."""

import json

import pytest

from tests.workspaces import Workspace

pytestmark = pytest.mark.slow
SOME = "SELECT id, label FROM rows ORDER BY id LIMIT 2"


def rows(workspace: Workspace, sql: str, *more: str) -> list[dict]:
    return json.loads(workspace.output("lepton", "data", "query", "sentiment", sql, "--json", *more))


def versions(workspace: Workspace) -> dict[str, str]:
    found = json.loads(workspace.output("lepton", "status", "--json"))["tasks"]["sentiment"]["stages"]
    return {name: stage["version"] for name, stage in found.items()}


def test_an_update_and_a_deletion_are_a_new_version(copy):
    workspace = copy()
    before = versions(workspace)
    (changed, deleted) = rows(workspace, SOME)
    other = "fresh" if changed["label"] == "rotten" else "rotten"
    workspace.call("lepton", "data", "update", "sentiment", changed["id"], "--set", f"label={other}")
    workspace.call("lepton", "data", "delete", "sentiment", deleted["id"])
    assert rows(workspace, SOME) == [changed, deleted]  # nothing is edited in place
    assert workspace.call("lepton", "data", "edits", "sentiment").count("\n") == 2
    workspace.call("lepton", "run", "sentiment", "--upto", "clean")
    ids = f"('{changed['id']}', '{deleted['id']}')"
    assert rows(workspace, f"SELECT id, label FROM rows WHERE id IN {ids}") == [{"id": changed["id"], "label": other}]
    assert versions(workspace)["raw"] != before["raw"]
    assert "up to date" in workspace.call("dvc", "status", "sentiment-raw", "sentiment-clean")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["query", "sentiment", "SELECT nonsense FROM rows"], 1, "nonsense"),
        (["query", "sentiment", "DROP TABLE rows"], 1, "SELECT"),
        (["query", "sentiment", "SELECT * FROM read_csv('/etc/passwd')"], 1, ""),
        (["update", "sentiment", "no-such-id", "--set", "label=fresh"], 1, "no-such-id"),
        (["update", "sentiment", "no-such-id", "--set", "label"], 2, "column=value"),
        (["delete", "sentiment", "no-such-id"], 1, "no-such-id"),
        (["query", "nothing", "SELECT 1"], 2, "nothing"),
    ],
)
def test_what_cannot_be_done_is_one_paragraph(built: Workspace, words, code, says):
    said = built.call("lepton", "data", *words, code=code)
    assert says in said and "Traceback" not in said


def test_doctor_knows_the_tools_and_the_workspace(built: Workspace):
    said = built.call("lepton", "doctor")
    assert "great-expectations" in said and "current" in said and "missing" not in said.split("npm")[0]
