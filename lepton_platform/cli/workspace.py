"""`lepton init`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from lepton_platform.cli.common import UsageError, say


def init(
    directory: Annotated[Path, typer.Argument(help="The folder; made where it is not there.")],
    profile: Annotated[str, typer.Option(help="smoke: seconds. demo: minutes. full: what a GPU would run.")] = "demo",
    tasks: Annotated[list[str] | None, typer.Option("--task", help="Only this task; may be given again.")] = None,
) -> None:
    """Make a workspace: params.yaml, dvc.yaml, and the stores of every tool."""
    from lepton_platform.pipeline.params import profile_names
    from lepton_platform.pipeline.workspace import init as make
    from lepton_platform.root import MARKER

    if profile not in profile_names():
        raise UsageError(f"There is no profile '{profile}'. The profiles are: {', '.join(profile_names())}.")
    folder, named = directory.resolve(), os.environ.get("LEPTON_WORKSPACE")
    kept = (folder / MARKER).is_file()
    made = ", ".join(make(folder, profile, tasks or None))
    run = "lepton run" if folder == Path.cwd() else f"cd {directory} && lepton run"
    if named and Path(named).resolve() != folder:  # an activated environment's, which `lepton run` would act on
        run = f"lepton run --workspace {directory}"
    what = f"was one already, and its {MARKER} is kept," if kept else f"is a workspace ({profile})"
    say(f"{directory} {what} with: {made}. Next: {run}")
