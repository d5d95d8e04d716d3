"""`lepton data`: query, update and delete rows of a stage's table."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_platform.cli.common import (
    Json,
    UsageError,
    Workspace,
    chosen_stage,
    chosen_tasks,
    console,
    open_workspace,
    print_json,
    say,
)

if TYPE_CHECKING:
    from lepton_platform.settings import Settings

app = typer.Typer(help="Query, update and delete rows; an edit is a new version, never in place.", no_args_is_help=True)
Task = Annotated[str, typer.Argument(help="A task of the workspace.")]
SHOWN_ROWS = 50


def _folder(settings: "Settings", task: str, stage: str) -> Path:
    chosen_tasks(settings, [task])
    folder = settings.path(chosen_stage(stage).path(task))
    if not folder.is_dir():
        from lepton_platform.stage import StageFailed

        raise StageFailed(f"{task}/{stage} has not run yet. `lepton run {task} --upto {stage}` runs it.")
    return folder


@app.command()
def query(
    task: Task,
    sql: Annotated[str, typer.Argument(help='One SELECT, such as "SELECT label, count(*) FROM rows GROUP BY 1".')],
    stage: Annotated[str, typer.Option(help="Whose tables.")] = "clean",
    as_json: Json = False,
    workspace: Workspace = None,
) -> None:
    """Ask a stage's tables with SQL."""
    settings = open_workspace(workspace)
    from lepton_platform.data.query import find_datasets
    from lepton_platform.data.query import query as ask

    answer = ask(find_datasets(_folder(settings, task, stage)), sql)
    if as_json:
        print_json([{name: _shown(value) for name, value in row.items()} for row in answer.to_pylist()])
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(*answer.column_names)
    for row in answer.slice(0, SHOWN_ROWS).to_pylist():
        table.add_row(*(escape(str(_shown(value))) for value in row.values()))
    console().print(table)
    if answer.num_rows > SHOWN_ROWS:
        say(f"{answer.num_rows - SHOWN_ROWS} more rows; --json prints all.")


def _shown(value: Any) -> Any:
    """A picture or a recording is nothing to print."""
    return f"<{len(value):,} bytes>" if isinstance(value, bytes) else value


def _changes(ids: list[str], assignments: list[str]) -> dict[str, dict[str, Any]]:
    wrong = [text for text in assignments if "=" not in text]
    if wrong:
        raise UsageError(f"--set {wrong[0]}: a change is written column=value.")
    values = dict(text.split("=", 1) for text in assignments)
    return {identity: values for identity in ids}


def _noted(settings: "Settings", task: str, count: int, verb: str) -> None:
    say(f"{count} rows {verb}, noted in data/{task}/edits.jsonl. `lepton run {task}` makes the new version.")


@app.command()
def update(
    task: Task,
    ids: Annotated[list[str], typer.Argument(help="The rows' ids.")],
    assignments: Annotated[list[str], typer.Option("--set", help="column=value; may be given again.")],
    workspace: Workspace = None,
) -> None:
    """Change columns of rows by id; the stage raw makes the new version when it runs next."""
    settings = open_workspace(workspace)
    from lepton_platform.data.edits import note_updates

    folder = _folder(settings, task, "raw")
    journal = folder.parent / "edits.jsonl"
    _noted(settings, task, note_updates(journal, folder, _changes(ids, assignments)), "changed")


@app.command()
def delete(
    task: Task,
    ids: Annotated[list[str], typer.Argument(help="The rows' ids.")],
    workspace: Workspace = None,
) -> None:
    """Delete rows by id; the stage raw makes the new version when it runs next."""
    settings = open_workspace(workspace)
    from lepton_platform.data.edits import note_deletions

    folder = _folder(settings, task, "raw")
    _noted(settings, task, note_deletions(folder.parent / "edits.jsonl", folder, ids), "deleted")


@app.command("edits")
def edits(task: Task, workspace: Workspace = None) -> None:
    """List the edits that are noted."""
    settings = open_workspace(workspace)
    chosen_tasks(settings, [task])
    journal = settings.path("data", task, "edits.jsonl")
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else []
    for line in lines:
        say(json.dumps(json.loads(line), ensure_ascii=False))
