"""From a prediction's id to what answered: its row in the log, the manifest of its Bento."""

import json
from typing import Any

from lepton_platform.serving.bundle import MANIFEST
from lepton_platform.serving.log_reader import FEEDBACK, MIRRORED, find, hours, read_rows
from lepton_platform.serving.store import stored
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed


def find_prediction(settings: Settings, identifier: str, of: str | None = None) -> dict[str, Any] | None:
    """The row of the log with this id, with ``task`` and the ``feedback`` on it; or ``None``. ``of``: a task; else any."""
    folder, identifier = settings.predictions_dir, identifier.strip().lower()
    tasks = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for task in tasks if of is None else [of]:
        row = find(folder, task, identifier) or find(folder, task, identifier, MIRRORED)
        if row is not None:
            return {"task": task, **row, "feedback": _feedback(settings, task, identifier, row["at"])}
    return None


def _feedback(settings: Settings, task: str, identifier: str, since: str) -> list[dict[str, Any]]:
    """What was said of a prediction, in order; nothing was said before it was made."""
    said = []
    for hour in hours(settings.predictions_dir, task):
        if hour >= since[: len(hour)]:
            rows = read_rows(settings.predictions_dir, task, hour, FEEDBACK)
            said += [_truth(row) for row in rows if row["prediction_id"] == identifier]
    return said


def _truth(row: dict[str, Any]) -> dict[str, Any]:
    """When it was said, and what: a label, boxes, a text, as the task has it."""
    return {name: value for name, value in row.items() if name not in {"id", "prediction_id"}}


def stored_manifest(settings: Settings, tag: str) -> dict[str, Any]:
    """What a Bento was made of, as the store of this workspace says it, wherever the workspace lay when it was deployed.

    ``StageFailed`` where the store no longer has it.
    """
    path = stored(settings.bentoml_home, tag) / MANIFEST
    if not path.is_file():
        raise StageFailed(f"The Bento {tag} is no longer in {path.parent}.")
    return json.loads(path.read_text("utf-8"))
