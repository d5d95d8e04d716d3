"""`lepton trace`: the past of an answer."""

from typing import Annotated, Any

import typer

from lepton_platform.cli.common import Json, Workspace, console, open_workspace, print_json

FEEDBACK = "feedback"
SHOWN_ROWS = 5


def _print(found: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    out, prediction = console(), found["prediction"]
    said = escape(_answer(prediction))
    out.print(f"[bold]{prediction['id']}[/] answered [bold]{said}[/] at {prediction['at']}")
    deployment = found["deployment"] or {}
    out.print(f"by {found['bento']['tag']} ({deployment.get('state', 'not deployed here')})")
    for one in prediction[FEEDBACK]:
        out.print(f"people said [bold]{escape(_answer(one))}[/] at {one['at']}")
    table = Table("stage", "version", "run", "commit", "when", "rows")
    for name, entry in found["stages"].items():
        made = entry["made_by"]
        cells = (entry["version"][:12], (made.get("run_id") or made.get("face") or "")[:8])
        commit, when = (made.get("git_commit") or "")[:12], (made.get("started_at") or "")[:16].replace("T", " ")
        table.add_row(name, *cells, commit, when, "" if made.get("rows") is None else str(made["rows"]))
    out.print(table)
    rows = found["training_rows"]
    out.print(f"learned from {rows['count']:,} rows: {', '.join(rows['ids'][:SHOWN_ROWS])} … (all with --json)")


def _answer(prediction: dict[str, Any]) -> str:
    """The label, the text, or how many of what was found."""
    if "label" in prediction:
        return str(prediction["label"])
    if isinstance(prediction.get("text"), str):
        return f'"{prediction["text"]}"'
    found = {name: value for name, value in prediction.items() if name != FEEDBACK}
    return ", ".join(f"{len(value)} {name}" for name, value in found.items() if isinstance(value, list))


def trace(
    prediction_id: Annotated[str, typer.Argument(help="The id that came with the answer.")],
    as_json: Json = False,
    workspace: Workspace = None,
) -> None:
    """From a prediction's id to the deployment, Bento, model, data, rows, code and run that made it."""
    settings = open_workspace(workspace)
    from lepton_platform.pipeline.trace import trace as find

    found = find(settings, prediction_id)
    if as_json:
        print_json(found)
    else:
        _print(found)
