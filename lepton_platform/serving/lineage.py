"""From a prediction's id to what answered: its row in the log, its Bento's manifest, its deployment."""

import json
from typing import Any

from lepton_platform.serving.bundle import MANIFEST
from lepton_platform.serving.deployments import Deployments
from lepton_platform.serving.log_reader import FEEDBACK, MIRRORED, find, hours, read_rows
from lepton_platform.serving.store import stored
from lepton_platform.settings import Settings


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


def deployed_bento(settings: Settings, task: str, tag: str) -> dict[str, Any]:
    """``{"manifest": …, "deployment": … or None}`` of a tag.

    The manifest is read from the Bento store; a Bento that was removed from there has an empty one.
    """
    path = stored(settings.bentoml_home, tag) / MANIFEST
    manifest = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if not manifest:  # served from where it was built, never deployed
        built = settings.path("models", task, "bento", MANIFEST)
        from lepton_platform.serving.bundle import version_of

        if built.is_file() and f"{task}:{version_of(built.read_bytes())}" == tag:
            manifest = json.loads(built.read_text("utf-8"))
    deployment = Deployments(settings).by_tag(task, tag)
    return {"manifest": manifest, "deployment": deployment.as_dict() if deployment else None}
