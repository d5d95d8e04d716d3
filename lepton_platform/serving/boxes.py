"""Tasks whose answer is boxes: from a network's dense output, tile by tile, to what is answered; what feedback says.

A box is x1, y1, x2, y2 in pixels of the picture as it is displayed: turned as its EXIF says.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lepton_platform.models.boxes import clipped, detections, in_core, iou
from lepton_platform.serving.classes import DIGITS, label_truth, label_truth_schema
from lepton_platform.serving.images import Piece
from lepton_platform.serving.jsonbody import kind, shown
from lepton_platform.serving.protocols import Json, Parts
from lepton_platform.serving.rejected import malformed, too_large

NAME = "boxes"  # of what is answered, of what is true
MAX_TRUE_BOXES = 1_000
MAX_FEEDBACK_BYTES = 4 << 20
_PIXEL_DIGITS = 2
_CORNERS = ("x1", "y1", "x2", "y2")
_WHERE = "x1, y1, x2, y2 in pixels of the picture as it is displayed (turned as its EXIF says), x to the right, y down."


def boxes_answer(labels: Sequence[str], parts: Parts, outputs: Sequence[np.ndarray]) -> tuple[Json, Json]:
    """A picture's tiles and a dense output (A, 4 + C) for each → ({"boxes": [{"box", "label", "score"}]}, {"width",
    "height"}): the second is logged beside the first.

    Each tile answers for its core. Things on a seam may be found from both sides: of such a pair the surer one stays.
    """
    pieces: list[Piece] = [part.payload for part in parts]
    found = [_of_tile(piece, dense) for piece, dense in zip(pieces, outputs, strict=True)]
    kept = _without_doubles(pieces, found, pieces[0].rules["iou_threshold"])
    size = {
        "width": int(max(piece.tile.left + piece.tile.width for piece in pieces)),
        "height": int(max(piece.tile.top + piece.tile.height for piece in pieces)),
    }
    return {NAME: [_box(row, labels) for row in kept]}, size


def _of_tile(piece: Piece, dense: np.ndarray) -> np.ndarray:
    """(K, 6) x1, y1, x2, y2, score, class: in pixels of the picture, centres in the tile's core."""
    if not np.isfinite(dense).all():
        raise ValueError("The model's output is not finite.")
    tile = piece.tile
    found = clipped(detections(dense, **piece.rules), tile.width, tile.height)
    found = found[in_core(found, tile.core)]
    return found + np.array([tile.left, tile.top, tile.left, tile.top, 0, 0], dtype=found.dtype)


def _without_doubles(pieces: Sequence[Piece], found: Sequence[np.ndarray], threshold: float) -> np.ndarray:
    """Suppression across seams, surest first; only tiles that overlap can have seen the same thing.

    The same as one suppression over all boxes, whose work would grow with the square of their number.
    """
    starts = np.concatenate([[0], np.cumsum([len(boxes) for boxes in found])])
    every = np.concatenate(found)
    rivals: dict[int, list[int]] = {}
    for a, b in _overlapping(pieces):
        same = found[a][:, None, 5] == found[b][None, :, 5]
        for i, j in np.argwhere((iou(found[a][:, :4], found[b][:, :4]) > threshold) & same):
            one, other = int(starts[a] + i), int(starts[b] + j)
            rivals.setdefault(one, []).append(other)
            rivals.setdefault(other, []).append(one)
    order = np.argsort(-every[:, 4], kind="stable")
    gone: set[int] = set()
    for number in map(int, order) if rivals else ():
        if number not in gone:
            gone.update(rivals.get(number, ()))
    return every[[number for number in map(int, order) if number not in gone]]


def _overlapping(pieces: Sequence[Piece]) -> Iterator[tuple[int, int]]:
    """Pairs of tiles that share pixels; tiles come row by row, so that the rest of a column can be skipped."""
    for a, one in enumerate(pieces):
        for b in range(a + 1, len(pieces)):
            first, second = one.tile, pieces[b].tile
            if second.top >= first.top + first.height:
                break
            if second.left < first.left + first.width and first.left < second.left + second.width:
                yield a, b


def _box(row: np.ndarray, labels: Sequence[str]) -> Json:
    corners = [round(float(value), _PIXEL_DIGITS) for value in row[:4]]
    return {"box": corners, "label": labels[int(row[5])], "score": round(float(row[4]), DIGITS)}


def boxes_answer_schema(labels: Sequence[str]) -> Json:
    """JSON Schema of such an answer."""
    box = {
        "type": "object",
        "properties": {
            "box": {**_corners_schema(), "description": _WHERE},
            "label": {"type": "string", "enum": list(labels)},
            "score": {"type": "number", "minimum": 0, "maximum": 1},
        },
        "required": ["box", "label", "score"],
    }
    boxes = {"type": "array", "items": box, "description": "The surest first."}
    return {"type": "object", "properties": {NAME: boxes}, "required": [NAME]}


def _corners_schema() -> Json:
    return {"type": "array", "items": {"type": "number", "minimum": 0}, "minItems": 4, "maxItems": 4}


def boxes_truth(value: Any, where: str, labels: Sequence[str]) -> list[Json]:
    """``[{"box": [x1, y1, x2, y2], "label": …}]``, all that is in the picture: perhaps nothing.

    That a box lies inside its picture is not checked: the picture is elsewhere by now.
    """
    if not isinstance(value, list):
        raise malformed(f"{where} must be an array, not {kind(value)}.", where)
    if len(value) > MAX_TRUE_BOXES:
        raise too_large(f"{where} has {len(value)} boxes; the most is {MAX_TRUE_BOXES:,}.", where)
    return [_true_box(box, f"{where}[{index}]", labels) for index, box in enumerate(value)]


def _true_box(value: Any, where: str, labels: Sequence[str]) -> Json:
    if not isinstance(value, dict):
        raise malformed(f'{where} must be an object with "box" and "label", not {kind(value)}.', where)
    for name in ("box", "label"):
        if name not in value:
            raise malformed(f"{where}.{name} is missing.", f"{where}.{name}")
    for name in value:
        if name not in {"box", "label"}:
            raise malformed(f"{where} has no field {shown(name)}.", where)
    corners = _corners(value["box"], f"{where}.box")
    return {"box": corners, "label": label_truth(value["label"], f"{where}.label", labels)}


def _corners(value: Any, where: str) -> list[float]:
    if not isinstance(value, list) or len(value) != len(_CORNERS):
        raise malformed(f"{where} must be an array of four numbers, {', '.join(_CORNERS)}.", where)
    corners = [_number(number, f"{where}[{index}]") for index, number in enumerate(value)]
    for low, high in ((0, 2), (1, 3)):
        if corners[low] >= corners[high]:
            raise malformed(f"{where}: {_CORNERS[low]} must be less than {_CORNERS[high]}.", where)
    return corners


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise malformed(f"{where} must be a number, not {kind(value)}.", where)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0:
        raise malformed(f"{where} must be a finite number and not negative.", where)
    return number


def boxes_truth_schema(labels: Sequence[str]) -> Json:
    box = {
        "type": "object",
        "properties": {"box": {**_corners_schema(), "description": _WHERE}, "label": label_truth_schema(labels)},
        "required": ["box", "label"],
        "additionalProperties": False,
    }
    return {"type": "array", "items": box, "maxItems": MAX_TRUE_BOXES}
