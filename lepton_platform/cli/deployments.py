"""`lepton deploy`, `lepton rollback`, `lepton deployments`: what serves, changed and told."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_platform.cli.common import (
    Json,
    UsageError,
    Workspace,
    chosen_tasks,
    console,
    open_workspace,
    print_json,
    say,
)

if TYPE_CHECKING:
    from lepton_platform.serving.deployments import Deployment
    from lepton_platform.settings import Settings

Task = Annotated[str, typer.Argument(help="A task of this workspace.")]
SHOWN = 12  # rows of the audit, a task
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def deploy(
    task: Task,
    bento: Annotated[
        str | None,
        typer.Argument(metavar="[TAG|FILE]", help="A Bento in the store, or an archive; else the one built here."),
    ] = None,
    canary: Annotated[
        str | None, typer.Option(metavar="5,25,100", help="Take over by these shares of the requests, in percent.")
    ] = None,
    every: Annotated[
        str | None, typer.Option(metavar="10m", help="The least time for each share: 30s, 10m, 1h.")
    ] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Ask it beside the champion; give nobody its answers.")
    ] = False,
    at_once: Annotated[bool, typer.Option("--at-once", help="No canary, whatever serve.rollout says.")] = False,
    as_json: Json = False,
    workspace: Workspace = None,
) -> None:
    """Offer a Bento: it serves at once or by shares, if it is not worse than the champion on the frozen test rows."""
    settings = open_workspace(workspace)
    chosen_tasks(settings, [task])
    if shadow and (canary or every or at_once):
        raise UsageError("--shadow goes without --canary, --every and --at-once: it answers nobody.")
    if at_once and (canary or every):
        raise UsageError("--at-once goes without --canary and --every.")
    from lepton_platform.pipeline import operate

    place = _place(settings, task, bento)
    if shadow:
        made = operate.shadow(settings, task, bento=place)
        _tell(made, made.reason, as_json)
        return
    steps = [] if at_once else None if canary is None else _steps(canary)
    every_s = None if every is None else _seconds(every)
    decision = operate.deploy(settings, task, None, bento=place, steps=steps, every_s=every_s, again=True)
    _tell(decision.deployment, decision.reason, as_json)
    if decision.deployment.state == "refused":
        raise typer.Exit(1)


def _tell(deployment: "Deployment", reason: str, as_json: bool) -> None:
    if as_json:
        print_json(deployment.as_dict())
    else:
        say(f"{deployment.tag} is {deployment.state}. {reason}")


def _place(settings: "Settings", task: str, given: str | None) -> Path | None:
    """The folder of a Bento that was named by its tag, its version or its archive; ``None``: the one built here."""
    if given is None:
        return None
    from lepton_platform.serving.store import stored
    from lepton_platform.stage import StageFailed

    if Path(given).is_file():
        from lepton_platform.serving.archive import import_archive
        from lepton_platform.serving.signing import Keys

        place = import_archive(settings.bentoml_home, Path(given), Keys.of(settings))
        if place.parent.name != task:
            raise StageFailed(f"{given} holds a Bento of {place.parent.name}, not of {task}.")
        return place
    tag = given if ":" in given else f"{task}:{given}"
    if not tag.startswith(f"{task}:") or not stored(settings.bentoml_home, tag).is_dir():
        raise StageFailed(
            f"There is no Bento {tag} of {task} in the store. `lepton deployments {task}` shows those that were."
        )
    return stored(settings.bentoml_home, tag)


def _steps(given: str) -> list[float]:
    try:
        return [float(part.strip().rstrip("%")) for part in given.split(",")]
    except ValueError:
        raise UsageError(f"--canary takes shares in percent, as in 5,25,100; not {given!r}.") from None


def _seconds(given: str) -> float:
    number, unit = given[:-1], given[-1:]
    try:
        found = float(number) * _UNITS_S[unit]
    except (ValueError, KeyError):
        raise UsageError(f"--every takes a time such as 30s, 10m or 1h; not {given!r}.") from None
    if not 0 < found < 1e9:
        raise UsageError(f"--every takes a time above zero; not {given!r}.")
    return found


def rollback(
    task: Task,
    why: Annotated[str, typer.Option("--why", help="Kept in the audit.")] = "by hand",
    shadow: Annotated[bool, typer.Option("--shadow", help="End the shadow, and nothing else.")] = False,
    as_json: Json = False,
    workspace: Workspace = None,
) -> None:
    """End the canary; without one, let the champion before serve again."""
    settings = open_workspace(workspace)
    chosen_tasks(settings, [task])
    from lepton_platform.serving.rollouts import Rollouts

    rollouts = Rollouts(settings)
    what, deployment = ("ended", rollouts.end_shadow(task, why)) if shadow else rollouts.roll_back(task, why)
    if as_json:
        print_json({"action": what, "deployment": deployment.as_dict()})
    elif what == "ended":
        say(f"{deployment.tag} is a {'shadow' if shadow else 'canary'} no more.")
    else:
        say(f"{deployment.tag} serves again.")


def deployments(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks; else all.")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> None:
    """What serves, and who changed it, when and why."""
    settings = open_workspace(workspace)
    names = chosen_tasks(settings, tasks)
    from lepton_platform.serving.audit import changes
    from lepton_platform.serving.deployments import LIVE, Deployments
    from lepton_platform.serving.rollouts import Rollouts

    table, rollouts = Deployments(settings), Rollouts(settings)
    told: dict[str, Any] = {}
    for task in names:
        live = [found for state in LIVE if (found := table.in_state(task, state)) is not None]
        steps = {d.id: r for d in live if (r := rollouts.of(d.id)) is not None and d.state == "canary"}
        told[task] = {
            "live": [{**d.as_dict(), "percent": steps[d.id].percent if d.id in steps else None} for d in live],
            "audit": [change.as_dict() for change in changes(table.engine, task, None if as_json else SHOWN)],
        }
    if as_json:
        print_json(told)
        return
    for task, found in told.items():
        _print(task, found)


def _print(task: str, found: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    out = console()
    out.print(f"[bold]{task}[/]" + ("" if found["live"] else "   nothing serves"))
    for one in found["live"]:
        share = "" if one["percent"] is None else f" {one['percent']:g} %"
        out.print(f"  {one['state']}{share}   {one['tag']}   since {one['created_at'][:19].replace('T', ' ')}")
    if found["audit"]:
        table = Table("when (UTC)", "what", "Bento", "who", "why")
        for change in reversed(found["audit"]):
            version = change["tag"].partition(":")[2][:8]
            table.add_row(
                change["at"][:19].replace("T", " "), change["action"], version, change["who"], escape(change["why"])
            )
        out.print(table)
