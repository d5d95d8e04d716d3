"""`lepton status`: what is fresh and how good it is."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_platform.cli.common import Json, Workspace, chosen_tasks, console, open_workspace, print_json, warn_if_stale

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lepton_platform.pipeline.elsewhere import Elsewhere
    from lepton_platform.pipeline.ledger import Attempt, Ledger
    from lepton_platform.pipeline.versioning import Recorded
    from lepton_platform.settings import Settings


def _makers(ledger: "Ledger", task: str, recorded: "Mapping[str, Recorded]") -> "dict[str, Attempt | None]":
    return {name: ledger.maker(task, name, one.version) if one.version else None for name, one in recorded.items()}


def _stages(
    ledger: "Ledger",
    task: str,
    recorded: "Mapping[str, Recorded]",
    makers: "Mapping[str, Attempt | None]",
    elsewhere: "Mapping[str, Elsewhere]",
) -> dict[str, dict[str, Any]]:
    from lepton_platform.pipeline.stages import behind

    found = {}
    waiting = behind({name: stage.state for name, stage in recorded.items()})
    for name, stage in recorded.items():
        maker, other = makers[name], elsewhere.get(stage.version or "")
        latest = ledger.latest(task, name)
        failed = stage.state != "fresh" and latest is not None and latest.state == "failed"
        found[name] = {
            "state": "failed" if failed else stage.state,
            "behind": waiting[name],
            "version": stage.version,
            "rows": maker.rows if maker else None,
            "materialized_at": maker.started_at if maker else None,
            "seconds": round(maker.seconds, 2) if maker else None,
            "run_id": maker.run_id if maker else None,
            "git_commit": maker.git_commit if maker else None,
            "metrics": dict(maker.metrics) if maker else dict(other.metrics) if other else {},
            "made_elsewhere": {"commit": other.commit, "committed_at": other.committed_at} if other else None,
            "message": latest.message if failed and latest else None,
        }
    return found


def _metrics(settings: "Settings", task: str) -> dict[str, Any]:
    """All figures of the float model, as the stage ``quality`` left them."""
    import json

    from lepton_platform.pipeline.stages import get_stage

    path = settings.path(get_stage("quality").path(task)) / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def task_statuses(settings: "Settings", tasks: list[str]) -> dict[str, dict[str, Any]]:
    """Task → its stages, figures and what is deployed, from one reading of what DVC has recorded."""
    from lepton_platform.pipeline.elsewhere import made_elsewhere
    from lepton_platform.pipeline.ledger import Ledger
    from lepton_platform.pipeline.stages import get_stage
    from lepton_platform.pipeline.versioning import Versions
    from lepton_platform.serving.deployments import champion

    ledger, found = Ledger(settings), {}
    with Versions(settings) as versions:
        recorded = versions.recorded(tasks)
        makers = {task: _makers(ledger, task, recorded[task]) for task in tasks}
        unknown = [
            (get_stage(name), one.version)
            for task in tasks
            for name, one in recorded[task].items()
            if one.version and makers[task][name] is None
        ]
        elsewhere = made_elsewhere(versions, unknown)
    for task in tasks:
        serving = champion(settings, task)
        found[task] = {
            "stages": _stages(ledger, task, recorded[task], makers[task], elsewhere),
            "metrics": _metrics(settings, task),
            "deployed": serving.tag if serving else None,
            "served_quality": _served_quality(settings, task),
        }
    return found


def _served_quality(settings: "Settings", task: str) -> dict[str, Any] | None:
    """What was found last of how good the answers are by what people said of them."""
    from lepton_platform.monitoring.quality_book import QualityBook

    found = QualityBook(settings).of(task, 1)
    return found[0].as_dict() if found else None


def key_metric(metrics: dict[str, float]) -> str:
    """The first figure of the stage, as it would be read aloud."""
    return next((f"{name} {value:.4g}" for name, value in metrics.items()), "")


def stage_table(task: str, stages: dict[str, dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title=task, title_justify="left")
    for name in ("stage", "state", "seconds", "rows", "key metric", "version"):
        table.add_column(name, justify="right" if name in {"seconds", "rows"} else "left")
    colours = {"fresh": "green", "ran": "green", "kept": "green", "stale": "yellow", "missing": "dim", "failed": "red"}
    for name, row in stages.items():
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.1f}"
        rows = "" if row["rows"] is None else f"{row['rows']:,}"
        colour = colours.get(row["state"], "white")
        version = (row["version"] or "")[:12]
        state = f"[{colour}]{row['state']}[/]"
        if row["behind"] and row["state"] == "fresh":  # made of what is there, which is about to change
            state = f"[yellow]behind {row['behind'][-1]}[/]"
        table.add_row(name, state, seconds, rows, key_metric(row["metrics"]), version)
    return table


def _elsewhere_lines(stages: dict[str, dict[str, Any]]) -> list[str]:
    """Which stages' results came from another machine, by the commit that brought them into dvc.lock."""
    found: dict[str, list[str]] = {}
    for name, row in stages.items():
        if (other := row["made_elsewhere"]) is not None:
            commit, at = other["commit"], (other["committed_at"] or "")[:16].replace("T", " ")
            found.setdefault(f"in dvc.lock since {commit[:12]}, {at}" if commit else "not in a commit", []).append(name)
    return [f"made elsewhere, {since}: {', '.join(names)}" for since, names in found.items()]


def status(
    task: Annotated[str | None, typer.Argument(help="One task; else all.")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> None:
    """What is fresh, how good it is, and what is deployed."""
    settings = open_workspace(workspace)
    warn_if_stale(settings)
    found = task_statuses(settings, chosen_tasks(settings, [task] if task else None))
    if as_json:
        print_json({"tasks": found})
        return
    for name, values in found.items():
        console().print(stage_table(name, values["stages"]))
        for stage, row in values["stages"].items():
            if row["message"]:
                console().print(f"{stage}: {row['message']}", style="red", markup=False)
        for line in _elsewhere_lines(values["stages"]):
            console().print(line, markup=False, highlight=False)
        console().print(f"deployed: {values['deployed'] or 'nothing'}")
        if values["served_quality"]:
            console().print(f"served: {values['served_quality']['why']}", markup=False, highlight=False)
