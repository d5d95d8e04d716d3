"""Which answers of a detector are right, and how good all of them are: COCO's rules, in numpy, for all overlaps at once.

Lin et al., "Microsoft COCO" (2014), and the reference ``cocoeval``: in a picture, class by class, the surest answer
chooses first, the box it overlaps most of those still free; what is no more than a *crowd* is ignored, as is an answer
inside one. Average precision is the mean, over 101 recalls, of the best precision reached at that recall or beyond.

Letters in names are shapes: K answers, M true boxes, T overlaps that are asked for, N answers of many pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lepton_platform.models.boxes import area, intersection, iou

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

COCO_OVERLAPS = tuple(round(0.5 + 0.05 * n, 2) for n in range(10))  # whose mean is COCO's mAP
_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Matched:
    """One picture's answers against its true boxes, of one class.

    ``box`` (T, K): the number of the true box that an answer found, -1 for none. ``ignored`` (T, K): an answer that
    counts neither way.
    """

    box: NDArray[np.intp]
    ignored: NDArray[np.bool_]

    @property
    def right(self) -> NDArray[np.bool_]:
        """(T, K)"""
        return (self.box >= 0) & ~self.ignored


def match(
    answers: NDArray,
    scores: NDArray,
    truth: NDArray,
    crowd: NDArray[np.bool_],
    overlaps: Sequence[float],
) -> Matched:
    """``answers`` (K, 4) with ``scores`` (K,) against ``truth`` (M, 4), of one picture and one class.

    ``crowd`` (M,): boxes round many things: to lie inside one is no mistake, and to miss it neither.
    """
    asked = np.minimum(np.asarray(overlaps, dtype=np.float64), 1 - 1e-10)
    order = np.argsort(-scores, kind="stable")
    found = np.full((len(asked), len(order)), -1, dtype=np.intp)
    ignored = np.zeros_like(found, dtype=bool)
    if not len(truth):
        return Matched(found, ignored)
    shared = _overlaps(answers, truth, crowd)
    free = np.ones((len(asked), len(truth)), dtype=bool)
    for k in order:
        enough = free & (shared[k] >= asked[:, None])
        best = _best(np.where(enough & ~crowd, shared[k], -1.0))
        other = _best(np.where(enough & crowd, shared[k], -1.0))
        chosen = np.where(best >= 0, best, other)
        found[:, k] = chosen
        ignored[:, k] = (chosen >= 0) & crowd[chosen]
        taken = np.flatnonzero((chosen >= 0) & ~crowd[chosen])
        free[taken, chosen[taken]] = False
    return Matched(found, ignored)


def _overlaps(answers: NDArray, truth: NDArray, crowd: NDArray[np.bool_]) -> Floats:
    """(K, M): IoU; with a crowd the share of the answer that lies inside."""
    answers, truth = np.asarray(answers, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    inside = intersection(answers, truth) / np.maximum(area(answers), 1e-12)[:, None]
    return np.where(crowd, inside, iou(answers, truth))


def _best(shared: Floats) -> NDArray[np.intp]:
    """(T, M) → (T,): the number of the largest, the last of equals as in ``cocoeval``; -1 where all are negative."""
    last = shared.shape[1] - 1 - shared[:, ::-1].argmax(axis=1)
    return np.where(shared.max(axis=1) >= 0, last, -1)


def average_precision(scores: NDArray, right: NDArray, counted: NDArray, truths: NDArray | float) -> Floats:
    """Average precision of N answers over all pictures.

    ``right`` (…, N) and ``counted`` (…, N): how often an answer is right, and how often it counts at all: 0 or 1, or
    the number of times its picture was drawn in a bootstrap. ``truths`` (…): how many boxes there are to be found.
    NaN where there are none.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    hits = np.cumsum(np.asarray(right, dtype=np.float64)[..., order], axis=-1)
    said = np.cumsum(np.asarray(counted, dtype=np.float64)[..., order], axis=-1)
    truths = np.asarray(truths, dtype=np.float64)
    if not order.size:  # nothing was answered
        return np.where(np.broadcast_to(truths, hits.shape[:-1]) > 0, 0.0, np.nan)
    precision = hits / np.maximum(said, 1e-12)
    precision = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    recall = hits / np.maximum(truths, 1e-12)[..., None]
    flat_recall, flat_precision = recall.reshape(-1, recall.shape[-1]), precision.reshape(-1, precision.shape[-1])
    found = np.zeros(len(flat_recall))
    for row, (r, p) in enumerate(zip(flat_recall, flat_precision, strict=True)):
        place = np.searchsorted(r, _RECALLS, side="left")
        found[row] = np.where(place < len(p), np.append(p, 0.0)[np.minimum(place, len(p))], 0.0).mean()
    shaped = found.reshape(recall.shape[:-1])
    return np.where(truths > 0, shaped, np.nan)
