"""`lepton run` brings the graph up to date through Dagster; `lepton stage` runs one stage without it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_platform.cli.common import (
    FAILED,
    UsageError,
    Workspace,
    chosen_stage,
    chosen_tasks,
    console,
    open_workspace,
    say,
)
from lepton_platform.pipeline.ended import Ended

if TYPE_CHECKING:
    from lepton_platform.settings import Settings


def _wanted(settings: "Settings", tasks: list[str], upto: str | None, force: bool) -> dict[str, list[str]]:
    """Task → the stages to run: those whose result is not there, and what follows from them."""
    from lepton_platform.pipeline.stages import behind
    from lepton_platform.pipeline.stages import upto as stages_upto
    from lepton_platform.pipeline.versioning import Versions

    names = [stage.name for stage in stages_upto(upto)]
    if force:
        return dict.fromkeys(tasks, names)
    with Versions(settings) as versions:
        recorded = versions.recorded(tasks)
    found = {}
    for task, stages in recorded.items():
        waiting = behind({name: stages[name].state for name in stages})
        found[task] = [name for name in names if stages[name].state != "fresh" or waiting[name]]
    return found


def run(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks; else all of the workspace.")] = None,
    upto: Annotated[str | None, typer.Option(help="Stop after this stage; nothing is deployed then.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run also what is fresh.")] = False,
    workspace: Workspace = None,
) -> None:
    """Bring the graph up to date: only what changed runs. It is a Dagster run, seen in the UI."""
    settings = open_workspace(workspace)
    names = chosen_tasks(settings, tasks)
    if upto is not None:
        chosen_stage(upto)
    from lepton_platform.pipeline import dvcfile
    from lepton_platform.pipeline.operate import is_judged, is_published

    for changed in dvcfile.write(settings.workspace):
        say(f"{changed} brought up to date with the table of stages.")
    wanted = _wanted(settings, names, upto, force)
    selected = [f"{task}/{stage}" for task in names for stage in wanted[task]]
    if upto is None:
        unread = [task for task in names if "features" in wanted[task] or not is_published(settings, task)]
        selected += [f"{task}/online_features" for task in unread]
        selected += [f"{task}/deployment" for task in names if wanted[task] or not is_judged(settings, task)]
    ended = _materialize(settings, selected, force)
    _report(settings, names, ended, upto)
    if ended.failures:
        raise typer.Exit(FAILED)


def _materialize(settings: "Settings", selected: list[str], force: bool) -> Ended:
    """Dagster is loaded only when there is something to run, or something to tell it."""
    from lepton_platform.pipeline.synced import is_synced

    if not selected and is_synced(settings):
        return Ended()
    from lepton_platform.cli.progress import bars
    from lepton_platform.components import launch

    if not selected:
        launch.sync_tasks(settings)
        return Ended()
    from lepton_platform.definitions import defs

    with bars() as shown:
        return launch.materialize(settings, defs(), selected, force, shown.watch)


def _report(settings: "Settings", tasks: list[str], ended: Ended, upto: str | None) -> None:
    from lepton_platform.cli.status import stage_table, task_statuses
    from lepton_platform.pipeline.stages import upto as stages_upto

    shown = {stage.name for stage in stages_upto(upto)}
    for task, found in task_statuses(settings, tasks).items():
        rows = {name: row for name, row in found["stages"].items() if name in shown}
        for name, row in rows.items():
            if row["state"] == "fresh":
                row["state"] = "ran" if f"{task}/{name}" in ended.ran else "fresh"
        console().print(stage_table(task, rows))
        console().print(f"deployed: {found['deployed'] or 'nothing'}")
    for message in ended.failures:
        console(stderr=True).print(f"lepton: {message}", markup=False)
    if not ended.ran and not ended.failures:
        say("Everything is up to date: nothing ran.")


def _around_here() -> Path | None:
    from lepton_platform.root import MARKER, find_workspace

    found = find_workspace(Path.cwd())
    return found if (found / MARKER).is_file() else None


def stage(
    name: Annotated[str, typer.Argument(metavar="STAGE", help="A stage of the graph.")],
    task: Annotated[str, typer.Argument(help="A task of the workspace.")],
    workspace: Workspace = None,
) -> None:
    """Run one stage on what lies in the workspace: what dvc.yaml calls, without Dagster.

    The workspace around here comes before $LEPTON_WORKSPACE: DVC calls this where its dvc.yaml is, a copy of an experiment's.
    """
    settings = open_workspace(workspace or _around_here())
    found = chosen_stage(name)
    if task not in chosen_tasks(settings, None):
        raise UsageError(f"There is no task '{task}' in {settings.workspace}.")
    from lepton_platform.cli.progress import bars
    from lepton_platform.pipeline.run import run_for_dvc

    with bars() as shown:
        result = run_for_dvc(settings, task, found, shown.watch(task, name))
    figures = [f"{key} {value:.4g}" for key, value in result.metrics.items()]
    rows = [] if result.rows is None else [f"{result.rows} rows"]
    say(f"{task}/{name}: " + ", ".join([*rows, *figures]))
