"""Evaluation of answers that are boxes: COCO's average precision, recall by size, error kinds, against a yardstick."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lepton_platform.models.boxes import clipped, in_core
from lepton_platform.models.matching import COCO_OVERLAPS
from lepton_platform.stage import StageFailed
from lepton_platform.training import box_figures
from lepton_platform.training.bootstrap import Floats, Interval, interval
from lepton_platform.training.box_figures import Tally, tally
from lepton_platform.training.box_gallery import gallery
from lepton_platform.training.evaluation import (
    Curves,
    Evaluation,
    Examples,
    Forest,
    Sampling,
    Section,
)
from lepton_platform.training.figures import flat

_OVERLAPS = (*COCO_OVERLAPS, 0.4)
_COCO, _AP50, _AP75, _AP40 = tuple(range(10)), 0, 5, 10
_SCORE_DECIMALS, _PIXEL_DECIMALS = 5, 2  # what is beyond depends on the machine's order of summation
_CORNERS = ("x1", "y1", "x2", "y2")

_TRUTH = pa.list_(
    pa.struct([*((name, pa.float32()) for name in _CORNERS), ("label", pa.string()), ("crowd", pa.bool_())])
)
_SAID = pa.list_(
    pa.struct([*((name, pa.float32()) for name in _CORNERS), ("label", pa.string()), ("score", pa.float32())])
)


@dataclass(frozen=True)
class BoxEvaluation:
    """An ``Evaluator`` of boxes.

    ``content``: the column of pictures' files, which ``decode`` reads, for the gallery. ``target``: the column of true
    boxes. Where the rows are tiles they say so with ``photo``, ``left``, ``top`` and ``core``; see ``box_figures``.
    ``yardstick_boxes``: (train rows, test rows, labels) → (N, K, 6), the answers of a simple method. ``sure``: the
    score from which an answer is one that a person would be shown. ``sizes_px``: where small, medium and large part.
    """

    content: str
    target: str
    decode: Callable[[bytes], NDArray[np.uint8]]
    yardstick_name: str
    yardstick_boxes: Callable[[pa.Table, pa.Table, Sequence[str]], NDArray]
    sure: float = 0.3
    sizes_px: tuple[float, float] = (32.0, 96.0)
    headline_name: str = "ap50"

    def answers(self, rows: pa.Table, outputs: NDArray, labels: Sequence[str]) -> pa.Table:
        """(N, K, 6) boxes with score and class → id, where the row lies, ``truth`` and ``boxes``.

        Boxes are cut to the picture; of a tile's, those are kept whose centre lies in its core.
        """
        if outputs.ndim != 3 or outputs.shape[::2] != (rows.num_rows, 6) or not np.isfinite(outputs).all():
            raise StageFailed(
                f"The model answered figures of shape {outputs.shape} where {rows.num_rows} rows of boxes were asked, or "
                "some that are not numbers: its weights cannot be used. Train it again."
            )
        height, width = rows["height"].to_pylist(), rows["width"].to_pylist()
        cores = rows["core"].to_pylist() if "core" in rows.column_names else [None] * rows.num_rows
        said = []
        for found, h, w, core in zip(outputs, height, width, cores, strict=True):
            kept = clipped(found[found[:, 4] > 0], w, h)
            kept = kept if core is None else kept[in_core(kept, core)]
            said.append([_box(row[:4], labels[int(row[5])], row[4]) for row in kept.tolist()])
        return self._table(rows, said, labels)

    def served(self, rows: pa.Table, answers: Sequence[Mapping[str, Any]]) -> pa.Table:
        """What a service answered to the rows' whole pictures, cut as ``answers`` cuts it."""
        cores = rows["core"].to_pylist() if "core" in rows.column_names else [None] * rows.num_rows
        said = []
        for answer, core in zip(answers, cores, strict=True):
            boxes = answer.get("boxes", [])
            corners = np.array([box["box"] for box in boxes]).reshape(-1, 4)
            kept = np.ones(len(boxes), dtype=bool) if core is None else in_core(corners, core)
            said.append(
                [
                    _box(place, box["label"], box["score"])
                    for place, box, inside in zip(corners.tolist(), boxes, kept, strict=True)
                    if inside
                ]
            )
        return self._table(rows, said, None)

    def _table(self, rows: pa.Table, said: list[Any], labels: Sequence[str] | None) -> pa.Table:
        names = ("id", "event_time", "photo", "left", "top", "core")
        table: dict[str, Any] = {name: rows[name] for name in names if name in rows.column_names}
        table["truth"] = pa.array(
            [_true(boxes, labels, self.target) for boxes in rows[self.target].to_pylist()], _TRUTH
        )
        table["boxes"] = pa.array(said, _SAID)
        return pa.table(table)

    def yardstick(self, train: pa.Table, rows: pa.Table, labels: Sequence[str]) -> pa.Table:
        return self.answers(rows, self.yardstick_boxes(train, rows, labels), labels)

    def headline(self, answers: pa.Table) -> float:
        """Average precision at IoU 0.5."""
        found = tally(answers, (0.5,))
        return float(box_figures.precision(found, (0,), np.ones((1, answers.num_rows)))[0]) if found else 0.0

    def compare(self, one: pa.Table, other: pa.Table, sampling: Sampling) -> Interval:
        """Difference in AP50: a draw takes the same rows for both."""
        if one["id"] != other["id"]:
            raise ValueError("Two models are compared on the same rows in the same order.")
        first, second = tally(one, (0.5,)), tally(other, (0.5,))

        def difference(drawn: Floats, rows: Floats) -> Floats:
            del rows
            return box_figures.precision(first, (0,), drawn) - box_figures.precision(second, (0,), drawn)

        return interval(np.eye(one.num_rows), difference, **vars(sampling))

    def agreement(self, one: pa.Table, other: pa.Table) -> float:
        """See ``box_figures.agreement``: of the sure boxes of either, those that the other has too."""
        return box_figures.agreement(one, other, self.sure, 0.5)

    def evaluate(self, rows: pa.Table, answers: pa.Table, yardstick: pa.Table, sampling: Sampling) -> Evaluation:
        measured = _Measured(self, answers, yardstick, sampling)
        pictures, contact_sheet = gallery(rows[self.content].to_pylist(), self.decode, answers, self.sure)
        return Evaluation(
            figures=measured.figures(),
            headline=(
                ("ap50", measured.mine["ap50"]),
                ("ap40", measured.mine["ap40"]),
                ("map", measured.mine["map"]),
                (f"ap50 of {self.yardstick_name}", measured.theirs["ap50"]),
            ),
            gain=measured.gain,
            sections=[*measured.sections(), pictures],
            pngs={"contact_sheet": contact_sheet},
        )


def _box(corners: Sequence[float], label: str, score: float) -> dict[str, Any]:
    placed = {name: round(float(value), _PIXEL_DECIMALS) for name, value in zip(_CORNERS, corners, strict=True)}
    return {**placed, "label": label, "score": round(float(score), _SCORE_DECIMALS)}


def _true(boxes: Sequence[Mapping[str, Any]], labels: Sequence[str] | None, column: str) -> list[dict[str, Any]]:
    """The boxes that the row owns."""
    for box in boxes:
        if labels is not None and box["label"] not in labels:
            raise StageFailed(
                f"The test rows hold a label in '{column}' that the model never learnt: {box['label']}. It knows "
                f"{', '.join(labels)}. Check the split, or train again on rows that hold it."
            )
    return [{name: box[name] for name in (*_CORNERS, "label", "crowd")} for box in boxes if box.get("owned", True)]


class _Measured:
    """Every figure of one evaluation, computed once."""

    def __init__(self, kind: BoxEvaluation, answers: pa.Table, yardstick: pa.Table, sampling: Sampling) -> None:
        self.kind, self.answers, self.rows = kind, answers, answers.num_rows
        self.options: dict[str, Any] = vars(sampling)
        self.own, self.other = tally(answers, _OVERLAPS), tally(yardstick, _OVERLAPS)
        if not self.own:
            raise StageFailed("No test row has a box: nothing can be said about the model. Check the split.")
        self.mine, self.theirs = self._precisions(self.own), self._precisions(self.other)
        self.gain = kind.compare(answers, yardstick, sampling)
        small, large = kind.sizes_px
        self.sizes = [
            (f"below {small:g} pixels", (0.0, small)),
            (f"{small:g} to {large:g} pixels", (small, large)),
            (f"{large:g} pixels or more", (large, np.inf)),
        ]
        self.errors = box_figures.error_kinds(answers, kind.sure, 0.5)

    def _interval(self, figure: Callable[[Floats], Floats]) -> Interval:
        def of(drawn: Floats, rows: Floats) -> Floats:
            del rows
            return figure(drawn)

        return interval(np.eye(self.rows), of, **self.options)

    def _precisions(self, tallies: Sequence[Tally]) -> dict[str, Interval]:
        asked = {"ap50": (_AP50,), "ap40": (_AP40,), "ap75": (_AP75,), "map": _COCO}
        found = {
            name: self._interval(lambda drawn, these=these: box_figures.precision(tallies, these, drawn))
            for name, these in asked.items()
        }
        return found | {"recall": self._interval(lambda drawn: box_figures.recall(tallies, _AP50, drawn))}

    def _recalls(self, tallies: Sequence[Tally]) -> list[tuple[str, int, Interval]]:
        """By size, where there are boxes of it."""
        sides = np.concatenate([scored.truth_side for scored in tallies])
        found = []
        for name, (low, high) in self.sizes:
            many = int(((sides >= low) & (sides < high)).sum())
            if many:
                figure = self._interval(lambda drawn, b=(low, high): box_figures.recall(tallies, _AP50, drawn, b))
                found.append((name, many, figure))
        return found

    def figures(self) -> dict[str, Any]:
        theirs = {f"baseline_{name}": figure for name, figure in self.theirs.items()}
        return {
            **flat(self.mine | theirs | {"gain": self.gain}),
            "baseline": self.kind.yardstick_name,
            "n_test": self.rows,
            "n_pictures": len(box_figures.pictures(self.answers)),
            "n_boxes": sum(len(scored.truth_row) for scored in self.own),
            "n_answers": sum(len(scored.row) for scored in self.own),
            "resampled": "rows",
            "labels": [scored.label for scored in self.own],
            "errors": {"sure": self.kind.sure, **self.errors},
            "recall_by_size": [{"size": n, "n": many, **flat({"recall": f})} for n, many, f in self._recalls(self.own)],
            "per_label": {
                scored.label: {
                    "n": len(scored.truth_row),
                    "ap50": round(float(box_figures.precision([scored], (_AP50,), np.ones((1, self.rows)))[0]), 6),
                }
                for scored in self.own
            },
        }

    def sections(self) -> list[Section]:
        reference = {name: figure.estimate for name, _, figure in self._recalls(self.other)}
        rows = [(name, many, figure, reference.get(name)) for name, many, figure in self._recalls(self.own)]
        whole = ("all boxes", sum(n for _, n, _, _ in rows), self.mine["recall"], self.theirs["recall"].estimate)
        few = "" if self.rows >= 30 else f" There are only {self.rows} of them: the intervals are still too narrow."
        return [
            Curves(
                "Precision and recall",
                "Of the surest answers down to the least sure: how many of the boxes are found, how many of the answers "
                "are right. An answer is right if it overlaps a box by that much (intersection over union).",
                "recall",
                "precision",
                [
                    ("IoU 0.5", box_figures.curve(self.own, _AP50)),
                    (f"IoU 0.5, {self.kind.yardstick_name}", box_figures.curve(self.other, _AP50)),
                    ("IoU 0.4", box_figures.curve(self.own, _AP40)),
                ],
            ),
            Forest(
                "Recall by size",
                "The side of a square of the box's area. The dot is the share of boxes found at IoU 0.5 by any answer, "
                f"the line its interval; the diamond is {self.kind.yardstick_name}. Intervals are made by drawing whole "
                f"rows with replacement.{few}",
                [whole, *rows],
                self.kind.yardstick_name,
            ),
            Examples(
                "What is wrong",
                f"Answers with a score of {self.kind.sure:g} or more, at IoU 0.5.",
                ("kind", "answers", "meaning"),
                [(name, str(self.errors[name]), _MEANINGS[name]) for name in box_figures.ERROR_KINDS],
            ),
        ]


_MEANINGS = {
    "right": "a box of that label, found",
    "duplicate": "a box of that label that a surer answer has found",
    "localisation": "a box of that label, overlapped too little",
    "label": "a box of another label",
    "background": "nothing of any label is there",
    "missed": "boxes that no answer finds",
}
