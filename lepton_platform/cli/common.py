"""What every verb shares: the workspace option, exit codes, printing."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from lepton_platform.settings import Settings

DONE, FAILED, USAGE = 0, 1, 2
KEY = "LEPTON_API_KEY"  # of the environment: what the gateway is shown

Workspace = Annotated[
    Path | None,
    typer.Option("--workspace", "-w", help="The workspace's folder; else $LEPTON_WORKSPACE, else the one around here."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class UsageError(Exception):
    """The words of the command are wrong; exit code 2."""


def open_workspace(workspace: Path | None) -> "Settings":
    """The settings of the chosen workspace, which must be one."""
    from lepton_platform.root import MARKER, find_workspace
    from lepton_platform.settings import use_workspace

    here = find_workspace(Path.cwd())
    settings = use_workspace(workspace)
    if workspace is None and (here / MARKER).is_file() and here != settings.workspace:
        # an activated environment names its own workspace; who changed the folder may mean another
        print(
            f"lepton: this acts on {settings.workspace} ($LEPTON_WORKSPACE), not on {here}; --workspace {here} would.",
            file=sys.stderr,
        )
    if not (settings.workspace / MARKER).is_file():
        raise UsageError(f"{settings.workspace} is not a workspace: it has no {MARKER}. `lepton init DIR` makes one.")
    os.chdir(settings.workspace)  # DVC reads its files relative to where it is called
    return settings


def warn_if_stale(settings: "Settings") -> None:
    """DVC compares with what ``dvc.yaml`` names, which may be of other code than is installed."""
    from lepton_platform.pipeline import dvcfile

    if stale := dvcfile.stale_files(settings.workspace):
        print(
            f"lepton: {', '.join(stale)} out of date: what DVC knows is said of other code than this. `lepton versioning "
            "render`, or `lepton run`, brings it up to date.",
            file=sys.stderr,
        )


def chosen_tasks(settings: "Settings", names: list[str] | None) -> list[str]:
    """The named tasks, or all of the workspace's; a wrong name is a wrong use."""
    from lepton_platform.pipeline.params import workspace_tasks

    known = workspace_tasks(settings.workspace)
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise UsageError(f"There is no task {', '.join(map(repr, unknown))} here. The tasks are: {', '.join(known)}.")
    return list(dict.fromkeys(names or known))


def chosen_stage(name: str) -> Any:
    from lepton_platform.pipeline.stages import get_stage

    try:
        return get_stage(name)
    except KeyError as error:
        raise UsageError(str(error.args[0])) from None


def console(stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def say(text: str) -> None:
    typer.echo(text)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def fail(message: str, code: int = FAILED) -> NoReturn:
    """One clear paragraph on stderr."""
    print(f"lepton: {message}", file=sys.stderr)
    raise SystemExit(code)
