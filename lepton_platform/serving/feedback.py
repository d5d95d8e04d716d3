"""`POST /feedback`: what the right answers would have been.

``{"feedback": [{"id": "<of a prediction>", "label": "fresh"}]}``. Each id must be of a prediction in the log: an
unknown one is 404 and nothing of the request is kept, so that a mistyped id is noticed by who mistyped it. A second
word on the same prediction is kept too; readers take the last.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lepton_platform.serving.ids import hour_of
from lepton_platform.serving.jsonbody import kind, parse_object, shown
from lepton_platform.serving.log_reader import find
from lepton_platform.serving.protocols import Json
from lepton_platform.serving.rejected import Rejected, malformed, too_large

FIELD = "feedback"
MAX_ITEMS = 256


def decode_feedback(body: bytes, labels: Sequence[str]) -> list[dict[str, str]]:
    """The request's items: prediction_id, label."""
    items = parse_object(body, (FIELD,))[FIELD]
    if not isinstance(items, list):
        raise malformed(f'"{FIELD}" must be an array, not {kind(items)}.', FIELD)
    if not items:
        raise malformed(f'"{FIELD}" is empty; send at least one item.', FIELD)
    if len(items) > MAX_ITEMS:
        raise too_large(f'"{FIELD}" has {len(items)} items; the most is {MAX_ITEMS}.', FIELD)
    return [_item(item, f"{FIELD}[{index}]", labels) for index, item in enumerate(items)]


def _item(item: Any, where: str, labels: Sequence[str]) -> dict[str, str]:
    if not isinstance(item, dict):
        raise malformed(f'{where} must be an object with "id" and "label", not {kind(item)}.', where)
    for name in ("id", "label"):
        if not isinstance(item.get(name), str):
            problem = f"must be a string, not {kind(item[name])}" if name in item else "is missing"
            raise malformed(f"{where}.{name} {problem}.", f"{where}.{name}")
    for name in item:
        if name not in {"id", "label"}:
            raise malformed(f"{where} has no field {shown(name)}.", where)
    if item["label"] not in labels:
        given, known = shown(item["label"]), ", ".join(labels)
        raise malformed(f"{where}.label: there is no label {given}; the labels are: {known}.", f"{where}.label")
    if hour_of(item["id"].lower()) is None:
        raise malformed(f"{where}.id is not the id of a prediction (a UUIDv7).", f"{where}.id")
    return {"prediction_id": item["id"].lower(), "label": item["label"]}


def check_known(predictions: Path, task: str, items: Sequence[dict[str, str]]) -> None:
    """``Rejected`` (404) names the first id that no prediction in the log has."""
    for index, item in enumerate(items):
        if find(predictions, task, item["prediction_id"]) is None:
            where = f"{FIELD}[{index}].id"
            raise Rejected(404, f"{where}: no prediction has the id {item['prediction_id']}.", where)


def feedback_schema(labels: Sequence[str]) -> Json:
    item = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid", "description": "The id that came with the answer."},
            "label": {"type": "string", "enum": list(labels)},
        },
        "required": ["id", "label"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {FIELD: {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_ITEMS}},
        "required": [FIELD],
        "additionalProperties": False,
    }
