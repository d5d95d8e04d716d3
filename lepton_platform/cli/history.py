"""`lepton history`: what became of a task, in one order."""

from typing import Annotated

import typer

from lepton_platform.cli.common import Json, Workspace, chosen_tasks, console, open_workspace, print_json

SHOWN = 40


def history(
    task: Annotated[str, typer.Argument(help="A task of this workspace.")],
    most: Annotated[int, typer.Option("--most", "-n", min=1, help="The latest so many.")] = SHOWN,
    as_json: Json = False,
    workspace: Workspace = None,
) -> None:
    """Trainings, alarms, requests, rollouts: who, when and why."""
    settings = open_workspace(workspace)
    chosen_tasks(settings, [task])
    from lepton_platform.pipeline.history import history as told

    events = told(settings, task, most)
    if as_json:
        print_json([event.as_dict() for event in events])
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("when (UTC)", "what", "who", "why")
    for event in events:
        table.add_row(event.at[:19].replace("T", " "), escape(event.what), event.who, escape(event.why))
    console().print(table if events else f"Nothing has happened to {task} yet.")
