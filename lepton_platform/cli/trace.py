"""`lepton trace`: the past of an answer."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from lepton_platform.cli.common import KEY, Json, Workspace, open_workspace, print_json, say
from lepton_platform.cli.serve import SERVICES, UP
from lepton_platform.root import STATE, find_workspace

FEEDBACK = "feedback"
SHOWN_ROWS = 5
ASK_S = 5.0


def _print(found: dict[str, Any]) -> None:
    prediction, deployment = found["prediction"], found["deployment"] or {}
    say(f"{prediction['id']} answered {_answer(prediction)} at {prediction['at']}")
    say(f"by {found['bento']['tag']} ({deployment.get('state', 'not deployed here')})")
    for one in prediction[FEEDBACK]:
        say(f"people said {_answer(one)} at {one['at']}")
    say("")
    lines = [("stage", "version", "run", "commit", "when", "rows")]
    for name, entry in found["stages"].items():
        made = entry["made_by"]
        run = made.get("run_id") or made.get("face") or ("elsewhere" if made.get("note") else "")
        cells = (entry["version"][:12], run[:9])
        commit = (made.get("git_commit") or made.get("recorded_in") or "")[:12]
        when = (made.get("started_at") or made.get("recorded_at") or "")[:16].replace("T", " ")
        lines.append((name, *cells, commit, when, "" if made.get("rows") is None else str(made["rows"])))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    rows = found["training_rows"]
    say(f"\nlearned from {rows['count']:,} rows: {', '.join(rows['ids'][:SHOWN_ROWS])} … (all with --json)")


def _answer(prediction: dict[str, Any]) -> str:
    """The label, the text, or how many of what was found."""
    if "label" in prediction:
        return str(prediction["label"])
    if isinstance(prediction.get("text"), str):
        return f'"{prediction["text"]}"'
    found = {name: value for name, value in prediction.items() if name != FEEDBACK}
    return ", ".join(f"{len(value)} {name}" for name, value in found.items() if isinstance(value, list))


def _told(workspace: Path | None, prediction_id: str, rows: str) -> dict[str, Any] | None:
    """What the running gateway says, which has in memory what takes a second to load here; ``None`` where it does not."""
    here = find_workspace(Path.cwd())
    root = find_workspace(workspace or Path(os.environ.get("LEPTON_WORKSPACE") or here))
    book = root / STATE / UP
    if (workspace is None and root != here) or not book.is_file():  # `open_workspace` has something to say of that
        return None
    import http.client
    from urllib.parse import quote, urlsplit

    key = os.environ.get(KEY)
    try:
        url = urlsplit(json.loads(book.read_bytes())[SERVICES]["url"])
        asked = http.client.HTTPConnection(url.hostname or "", url.port, timeout=ASK_S)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        asked.request("GET", f"/v1/lineage/{quote(prediction_id, safe='')}?rows={rows}", headers=headers)
        answer = asked.getresponse()
        return json.loads(answer.read()) if answer.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None


def trace(
    prediction_id: Annotated[str, typer.Argument(help="The id that came with the answer.")],
    as_json: Json = False,
    workspace: Workspace = None,
) -> None:
    """From a prediction's id to the deployment, Bento, model, data, rows, code and run that made it.

    The running gateway is asked; where none runs, the logs are read here.
    """
    found = _told(workspace, prediction_id, "all" if as_json else "some")
    if found is None:
        settings = open_workspace(workspace)
        from lepton_platform.pipeline.trace import trace as find

        found = find(settings, prediction_id)
    if as_json:
        print_json(found)
    else:
        _print(found)
