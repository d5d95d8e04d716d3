"""`POST /feedback`: what the right answers would have been.

``{"feedback": [{"id": "<of a prediction>", "label": "fresh"}]}``; a task whose answers are no labels names what is
true itself (``Truth``). Each id must be of a prediction in the log: an unknown one is 404 and nothing of the request
is kept, so that a mistyped id is noticed by who mistyped it. A second word on the same prediction is kept too;
readers take the last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_platform.serving.classes import label_truth, label_truth_schema
from lepton_platform.serving.ids import hour_of
from lepton_platform.serving.jsonbody import kind, parse_object, shown
from lepton_platform.serving.log_reader import find
from lepton_platform.serving.protocols import Json
from lepton_platform.serving.rejected import Rejected, malformed, too_large

FIELD = "feedback"
FEEDBACK_BYTES = 65_536  # of a body, unless the task says more
MAX_ITEMS = 256


@dataclass(frozen=True)
class Truth:
    """What people may say of an answer: the name of the field, and of the log's column; its check; its JSON Schema.

    ``check(value, where, labels)`` gives what the log keeps of a value; ``Rejected`` names what is wrong below ``where``.
    """

    name: str
    check: Callable[[Any, str, Sequence[str]], Any]
    schema: Callable[[Sequence[str]], Json]


def truth_of(api: Any) -> Truth:
    """The truth of a task's ``api``: its ``TRUTH``, ``truth`` and ``truth_schema``; a label where it has none."""
    if not hasattr(api, "TRUTH"):
        return Truth("label", label_truth, label_truth_schema)
    return Truth(api.TRUTH, api.truth, api.truth_schema)


def decode_feedback(body: bytes, labels: Sequence[str], truth: Truth) -> list[Json]:
    """The request's items: ``prediction_id``, and what is true under the truth's name."""
    items = parse_object(body, (FIELD,))[FIELD]
    if not isinstance(items, list):
        raise malformed(f'"{FIELD}" must be an array, not {kind(items)}.', FIELD)
    if not items:
        raise malformed(f'"{FIELD}" is empty; send at least one item.', FIELD)
    if len(items) > MAX_ITEMS:
        raise too_large(f'"{FIELD}" has {len(items)} items; the most is {MAX_ITEMS}.', FIELD)
    return [_item(item, f"{FIELD}[{index}]", labels, truth) for index, item in enumerate(items)]


def _item(item: Any, where: str, labels: Sequence[str], truth: Truth) -> Json:
    if not isinstance(item, dict):
        raise malformed(f'{where} must be an object with "id" and "{truth.name}", not {kind(item)}.', where)
    for name in ("id", truth.name):
        if name not in item:
            raise malformed(f"{where}.{name} is missing.", f"{where}.{name}")
    for name in item:
        if name not in {"id", truth.name}:
            raise malformed(f"{where} has no field {shown(name)}.", where)
    if not isinstance(item["id"], str):
        raise malformed(f"{where}.id must be a string, not {kind(item['id'])}.", f"{where}.id")
    said = truth.check(item[truth.name], f"{where}.{truth.name}", labels)
    if hour_of(item["id"].lower()) is None:
        raise malformed(f"{where}.id is not the id of a prediction (a UUIDv7).", f"{where}.id")
    return {"prediction_id": item["id"].lower(), truth.name: said}


def check_known(predictions: Path, task: str, items: Sequence[Json]) -> None:
    """``Rejected`` (404) names the first id that no prediction in the log has."""
    for index, item in enumerate(items):
        if find(predictions, task, item["prediction_id"]) is None:
            where = f"{FIELD}[{index}].id"
            raise Rejected(404, f"{where}: no prediction has the id {item['prediction_id']}.", where)


def feedback_schema(labels: Sequence[str], truth: Truth) -> Json:
    item = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid", "description": "The id that came with the answer."},
            truth.name: truth.schema(labels),
        },
        "required": ["id", truth.name],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {FIELD: {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_ITEMS}},
        "required": [FIELD],
        "additionalProperties": False,
    }
