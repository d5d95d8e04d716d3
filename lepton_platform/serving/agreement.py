"""How far two answers to the same input agree, 0 to 1: labels, texts, boxes. Only what an answer says, not how sure it is."""

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

OVERLAP = 0.5  # of two boxes that say the same
SURE = 0.3  # boxes below are what a curve needs, not what a person is shown
Json = Mapping[str, Any]


def agreement(one: Sequence[Json], other: Sequence[Json]) -> float:
    """The mean over a request's answers; answers of another number agree in nothing."""
    if len(one) != len(other) or not one:
        return 0.0
    return sum(map(pair, one, other)) / len(one)


def pair(one: Json, other: Json) -> float:
    """The same of one answer and another, or of an answer and what people said is true."""
    for name, compare in (("label", _same), ("text", _words), ("boxes", _boxes)):
        if name in one and name in other:
            return compare(one[name], other[name])
    return float("error" in one and "error" in other)  # both refused the input


def _same(one: Any, other: Any) -> float:
    return float(one == other)


def _words(one: str, other: str) -> float:
    """The share of words that stand in both in the same order (Ratcliff and Obershelp)."""
    return 1.0 if one == other else SequenceMatcher(None, one.split(), other.split(), autojunk=False).ratio()


def _boxes(one: Sequence[Json], other: Sequence[Json]) -> float:
    """F1 of the sure boxes: each finds one of the other's with its label that overlaps it by half, or does not."""
    mine, theirs = ([box for box in boxes if box.get("score", 1.0) >= SURE] for boxes in (one, other))
    if not mine and not theirs:
        return 1.0
    free, found = list(theirs), 0
    for box in mine:
        alike = (b for b in free if b["label"] == box["label"])
        partner = max(alike, key=lambda b: _iou(box, b), default=None)
        if partner is not None and _iou(box, partner) >= OVERLAP:
            free.remove(partner)
            found += 1
    return 2 * found / (len(mine) + len(theirs))


def _iou(one: Json, other: Json) -> float:
    (a, b, c, d), (e, f, g, h) = one["box"], other["box"]
    if (a, b, c, d) == (e, f, g, h):  # even where rounding to hundredths of a pixel has left nothing of a side
        return 1.0
    shared = max(0.0, min(c, g) - max(a, e)) * max(0.0, min(d, h) - max(b, f))
    union = (c - a) * (d - b) + (g - e) * (h - f) - shared
    return shared / union if union > 0 else 0.0
