"""Figures of answers that are boxes, as functions of how often each row is drawn: so each has its bootstrap interval.

Truths and answers are counted once a picture, in that picture's pixels, even where it was cut into tiles that overlap:
a row counts what its core owns. Matching follows COCO, see ``models/matching.py``.

Letters in names are shapes: T overlaps, N answers and M true boxes of one label in all rows, R draws, B rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lepton_platform.models.boxes import area, iou
from lepton_platform.models.matching import average_precision, match

Floats = NDArray[np.float64]
_CORNERS = ("x1", "y1", "x2", "y2")
_NEAR = 0.1  # overlap from which an answer is a box in the wrong place and not background (Bolya et al., 2020)


class Boxes(NamedTuple):
    """Boxes of one picture: ``corners`` (K, 4), ``label`` (K,) names, ``row`` (K,) of the table, and one more column.

    ``more`` (K,): scores of answers; of truths whether they are crowds.
    """

    corners: Floats
    label: NDArray[np.str_]
    row: NDArray[np.intp]
    more: Floats

    def of(self, chosen: NDArray) -> "Boxes":
        return Boxes(self.corners[chosen], self.label[chosen], self.row[chosen], self.more[chosen])


def pictures(answers: pa.Table) -> list[tuple[Boxes, Boxes]]:
    """Each picture's answers and truths; rows of one ``photo`` are one picture, at their ``left`` and ``top``."""
    names = answers.column_names
    photo = answers["photo"].to_pylist() if "photo" in names else answers["id"].to_pylist()
    offset = np.zeros((answers.num_rows, 4))
    if "left" in names and "top" in names:
        left, top = answers["left"].to_numpy(), answers["top"].to_numpy()
        offset = np.column_stack([left, top, left, top]).astype(np.float64)
    rows_of: dict[Any, list[int]] = {}
    for row, name in enumerate(photo):
        rows_of.setdefault(name, []).append(row)
    said, true = answers["boxes"].to_pylist(), answers["truth"].to_pylist()
    return [(_boxes(rows, said, offset, "score"), _boxes(rows, true, offset, "crowd")) for rows in rows_of.values()]


def _boxes(rows: Sequence[int], lists: Sequence[Any], offset: Floats, more: str) -> Boxes:
    found = [(row, box) for row in rows for box in lists[row]]
    row = np.array([row for row, _ in found], dtype=np.intp)
    corners = np.array([[box[name] for name in _CORNERS] for _, box in found], dtype=np.float64).reshape(-1, 4)
    label = np.array([box["label"] for _, box in found], dtype=np.str_)
    return Boxes(corners + offset[row], label, row, np.array([float(box[more]) for _, box in found]))


@dataclass(frozen=True)
class Tally:
    """All that figures need of one label. Answers are sorted by score, the surest first."""

    label: str
    score: Floats  # (N,)
    row: NDArray[np.intp]  # (N,)
    right: NDArray[np.bool_]  # (T, N)
    counted: NDArray[np.bool_]  # (T, N)
    truth_row: NDArray[np.intp]  # (M,)
    truth_side: Floats  # (M,) the square root of the area, in pixels
    found: NDArray[np.bool_]  # (T, M)


def tally(answers: pa.Table, overlaps: Sequence[float]) -> list[Tally]:
    """One for every label that is true somewhere, in the order of their names."""
    every = pictures(answers)
    labels = sorted({name for _, truth in every for name in truth.label[truth.more == 0].tolist()})
    return [_tally(label, every, overlaps) for label in labels]


def _tally(label: str, every: Iterable[tuple[Boxes, Boxes]], overlaps: Sequence[float]) -> Tally:
    score, row, right, counted, truth_row, side, found = [], [], [], [], [], [], []
    for said, truth in every:
        mine, asked = said.of(said.label == label), truth.of(truth.label == label)
        crowd = asked.more > 0
        matched = match(mine.corners, mine.more, asked.corners, crowd, overlaps)
        score.append(mine.more)
        row.append(mine.row)
        right.append(matched.right)
        counted.append(~matched.ignored)
        hit = np.zeros((len(overlaps), len(asked.row)), dtype=bool)
        for t, chosen in enumerate(matched.box):
            hit[t, chosen[chosen >= 0]] = True
        truth_row.append(asked.row[~crowd])
        side.append(np.sqrt(area(asked.corners[~crowd])))
        found.append(hit[:, ~crowd])
    scores = np.concatenate(score)
    order = np.argsort(-scores, kind="stable")
    return Tally(
        label,
        scores[order],
        np.concatenate(row)[order],
        np.concatenate(right, axis=1)[:, order],
        np.concatenate(counted, axis=1)[:, order],
        np.concatenate(truth_row),
        np.concatenate(side),
        np.concatenate(found, axis=1),
    )


def precision(tallies: Sequence[Tally], overlaps: Sequence[int], drawn: Floats) -> Floats:
    """Mean average precision (R,) over labels and over the overlaps of those numbers; ``drawn`` (R, B)."""
    found = np.full((len(tallies), len(overlaps), len(drawn)), np.nan)
    for one, scored in enumerate(tallies):
        weight, truths = drawn[:, scored.row], drawn[:, scored.truth_row].sum(axis=1)
        for number, t in enumerate(overlaps):
            found[one, number] = average_precision(
                scored.score, scored.right[t] * weight, scored.counted[t] * weight, truths
            )
    known = ~np.isnan(found)
    many = known.sum(axis=(0, 1))
    total = np.where(known, found, 0.0).sum(axis=(0, 1))
    return np.divide(total, many, out=np.full(len(drawn), np.nan), where=many > 0)


def recall(tallies: Sequence[Tally], t: int, drawn: Floats, sides: tuple[float, float] = (0.0, np.inf)) -> Floats:
    """The share (R,) of true boxes found at overlap ``t``, of those with low ≤ side < high."""
    hits, truths = np.zeros(len(drawn)), np.zeros(len(drawn))
    for scored in tallies:
        asked = (scored.truth_side >= sides[0]) & (scored.truth_side < sides[1])
        weight = drawn[:, scored.truth_row] * asked
        hits += (weight * scored.found[t]).sum(axis=1)
        truths += weight.sum(axis=1)
    return np.divide(hits, truths, out=np.full(len(drawn), np.nan), where=truths > 0)


def curve(tallies: Sequence[Tally], t: int, places: int = 101) -> list[tuple[float, float]]:
    """Recall and the best precision from there on, over all labels' answers together, evenly spaced by recall."""
    score = np.concatenate([scored.score for scored in tallies] or [np.zeros(0)])
    order = np.argsort(-score, kind="stable")
    right = np.concatenate([scored.right[t] for scored in tallies] or [np.zeros(0)])[order]
    counted = np.concatenate([scored.counted[t] for scored in tallies] or [np.zeros(0)])[order]
    truths = sum(len(scored.truth_row) for scored in tallies)
    if not truths or not len(order):
        return []
    hits, said = np.cumsum(right), np.cumsum(counted)
    at = hits / truths
    best = np.maximum.accumulate((hits / np.maximum(said, 1))[::-1])[::-1]
    asked = np.linspace(0.0, 1.0, places)
    asked = asked[asked <= at[-1]]
    return [(float(r), float(best[i])) for r, i in zip(asked, np.searchsorted(at, asked, side="left"), strict=True)]


ERROR_KINDS: tuple[str, ...] = ("right", "duplicate", "localisation", "label", "background", "missed")


def error_kinds(answers: pa.Table, sure: float, overlap: float) -> dict[str, int]:
    """Answers at least ``sure``, by what is wrong with them, and the true boxes that none of them finds.

    After Bolya et al., "TIDE" (2020): *duplicate* of a found box; *localisation*, right label and too little overlap;
    *label*, another's place; *background*, nothing there.
    """
    counts = dict.fromkeys(ERROR_KINDS, 0)
    for said, truth in pictures(answers):
        mine = said.of(said.more >= sure)
        for label in sorted({*mine.label.tolist(), *truth.label.tolist()}):
            some, asked = mine.of(mine.label == label), truth.of(truth.label == label)
            others = truth.of((truth.label != label) & (truth.more == 0))
            matched = match(some.corners, some.more, asked.corners, asked.more > 0, (overlap,))
            counts["right"] += int(matched.right.sum())
            single = asked.of(asked.more == 0)
            counts["missed"] += len(single.row) - int(matched.right.sum())
            wrong = some.corners[(matched.box[0] < 0)]
            own = iou(wrong, single.corners).max(axis=1, initial=0.0)
            other = iou(wrong, others.corners).max(axis=1, initial=0.0)
            for mine_most, other_most in zip(own, other, strict=True):
                counts[_kind(mine_most, other_most, overlap)] += 1
    return counts


def _kind(own: float, other: float, overlap: float) -> str:
    if own >= overlap:
        return "duplicate"
    if other >= overlap:
        return "label"
    return "localisation" if own >= _NEAR else "background"


def agreement(one: pa.Table, other: pa.Table, sure: float, overlap: float) -> float:
    """The share of sure boxes of either that have a box of the other on them: same label, IoU of ``overlap``.

    The box on them need not be as sure: one that falls just short of ``sure`` is no disagreement.
    """
    hits, asked = 0, 0
    for (mine, _), (theirs, _) in zip(pictures(one), pictures(other), strict=True):
        for first, second in ((mine, theirs), (theirs, mine)):
            for label in np.unique(first.label):
                some, others = first.of(first.label == label), second.of(second.label == label)
                crowd = np.zeros(len(others.row), dtype=bool)
                matched = match(some.corners, some.more, others.corners, crowd, (overlap,))
                hits += int((matched.right[0] & (some.more >= sure)).sum())
                asked += int((some.more >= sure).sum())
    return hits / asked if asked else 1.0
