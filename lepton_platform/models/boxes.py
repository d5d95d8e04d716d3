"""Boxes in numpy: overlaps, and from a detector's dense answer to the boxes that are left. Learner and service share it.

A box is x1, y1, x2, y2 in pixels, x to the right and y down; its area is (x2 - x1) × (y2 - y1).
Letters: N, M, K boxes, A places where a network looks for one, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float32]

NOTHING, IGNORED = -1, -2  # labels of padding, and of boxes inside which nothing is learnt
_CANDIDATES = 2_000  # the surest so many enter the suppression, whose work grows with their square


def area(boxes: ArrayLike) -> NDArray:
    """(…, 4) → (…): 0 for a box that is turned inside out."""
    x1, y1, x2, y2 = np.moveaxis(np.asarray(boxes), -1, 0)
    return np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)


def intersection(a: ArrayLike, b: ArrayLike) -> NDArray:
    """The area that each of ``a`` (N, 4) shares with each of ``b`` (M, 4): (N, M)."""
    a, b = np.asarray(a).reshape(-1, 4), np.asarray(b).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.prod(np.maximum(high - low, 0), axis=2)


def iou(a: ArrayLike, b: ArrayLike) -> NDArray:
    """Intersection over union of each of ``a`` (N, 4) with each of ``b`` (M, 4): (N, M), 0 where both are empty."""
    a, b = np.asarray(a).reshape(-1, 4), np.asarray(b).reshape(-1, 4)
    shared = intersection(a, b)
    union = area(a)[:, None] + area(b)[None] - shared
    return np.divide(
        shared, union, out=np.zeros_like(shared, dtype=np.result_type(shared, np.float32)), where=union > 0
    )


def nms(boxes: ArrayLike, scores: ArrayLike, iou_threshold: float) -> NDArray[np.intp]:
    """The numbers of the boxes that no surer kept one overlaps by more than ``iou_threshold``, the surest first.

    Greedy non-maximum suppression; of equal scores the first comes first.
    """
    boxes, scores = np.asarray(boxes).reshape(-1, 4), np.asarray(scores)
    order = np.argsort(-scores, kind="stable")
    overlaps = iou(boxes[order], boxes[order]) > iou_threshold
    alive, kept = np.ones(len(order), dtype=bool), []
    for place in range(len(order)):
        if alive[place]:
            kept.append(place)
            alive &= ~overlaps[place]
            alive[place] = False
    return order[np.array(kept, dtype=np.intp)]


def detections(dense: Floats, *, score_threshold: float, iou_threshold: float, max_detections: int) -> Floats:
    """A detector's answer to one picture (A, 4 + C), boxes and class logits → (K, 6): x1, y1, x2, y2, score, class.

    K ≤ ``max_detections``, sorted by score. Every pair of a place and a class whose probability reaches
    ``score_threshold`` is a candidate; candidates of one class suppress each other.
    """
    logits = dense[:, 4:]
    with np.errstate(over="ignore"):
        scores = 1.0 / (1.0 + np.exp(-logits.astype(np.float32)))
    place, number = np.nonzero(scores >= score_threshold)
    found = scores[place, number]
    if len(found) > _CANDIDATES:
        best = np.argsort(-found, kind="stable")[:_CANDIDATES]
        place, number, found = place[best], number[best], found[best]
    boxes = dense[place, :4]
    kept = _nms_by_class(boxes, found, number, iou_threshold)[:max_detections]
    return np.column_stack([boxes[kept], found[kept], number[kept]]).astype(np.float32)


def _nms_by_class(boxes: NDArray, scores: NDArray, classes: NDArray, iou_threshold: float) -> NDArray[np.intp]:
    kept = [np.empty(0, dtype=np.intp)]
    for number in np.unique(classes):
        mine = np.flatnonzero(classes == number)
        kept.append(mine[nms(boxes[mine], scores[mine], iou_threshold)])
    every = np.concatenate(kept)
    return every[np.argsort(-scores[every], kind="stable")]


def clipped(found: Floats, width: float, height: float) -> Floats:
    """Boxes (K, 4 or more) cut to a picture of that size; those with nothing inside are left out."""
    cut = np.array(found, copy=True)
    cut[:, [0, 2]] = np.clip(cut[:, [0, 2]], 0, width)
    cut[:, [1, 3]] = np.clip(cut[:, [1, 3]], 0, height)
    return cut[(cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])]


def in_core(boxes: ArrayLike, core: Sequence[float]) -> NDArray[np.bool_]:
    """(K,): does the centre of a box (K, 4 or more) lie in ``core`` (x1, y1, x2, y2)?

    Left and upper edge belong to the core, right and lower edge do not: of cores that tile a picture just one has it.
    """
    boxes = np.asarray(boxes)
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    return (x >= core[0]) & (x < core[2]) & (y >= core[1]) & (y < core[3])
