"""The rows that a detector answers best and worst, to look at."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lepton_platform.models.matching import match
from lepton_platform.training.contact_sheet import Drawn, sheet, thumbnail
from lepton_platform.training.evaluation import Gallery

_CORNERS = ("x1", "y1", "x2", "y2")
_THUMBNAIL, _SHEET_THUMBNAIL = 280, 200  # pixels
_WORST_AND_BEST = 4  # rows of each


def gallery(
    files: Sequence[bytes], decode: Callable[[bytes], NDArray[np.uint8]], answers: pa.Table, sure: float
) -> tuple[Gallery, bytes]:
    """The rows with the best and the worst share of right answers, with their boxes; and the same on one sheet."""
    judged = [_judged(*pair, sure) for pair in _each_row(answers)]
    order = sorted(
        (n for n, (_, asked, _) in enumerate(judged) if asked), key=lambda n: (-judged[n][0] / judged[n][1], n)
    )
    best = order[:_WORST_AND_BEST]
    worst = [n for n in order[::-1][:_WORST_AND_BEST] if n not in best]
    pictures, drawn = [], []
    names = answers["id"].to_pylist()
    for number in [*best, *worst]:
        hits, asked, boxes = judged[number]
        picture = decode(files[number])
        drawn.append((picture, boxes))
        caption = f"{'best' if number in best else 'worst'}: {names[number]}, F1 {hits / asked:.2f}"
        pictures.append((thumbnail(picture, boxes, _THUMBNAIL), caption))
    note = (
        f"Answers of {sure:g} or more: green where they find a box, red where not; yellow are boxes that are missed. "
        "F1 is twice the right answers over answers and boxes."
    )
    columns = max(len(best), len(worst))
    return Gallery("Best and worst rows", note, pictures, _THUMBNAIL), sheet(drawn, _SHEET_THUMBNAIL, columns)


def _each_row(answers: pa.Table) -> list[tuple[Any, Any]]:
    return list(zip(answers["boxes"].to_pylist(), answers["truth"].to_pylist(), strict=True))


def _judged(said: Sequence[Any], true: Sequence[Any], sure: float) -> tuple[float, int, list[Drawn]]:
    """Twice the right answers, answers plus boxes, and all of them to be drawn."""
    said = [box for box in said if box["score"] >= sure]
    hits, drawn = 0, []
    asked = [box for box in true if not box["crowd"]]
    for label in sorted({box["label"] for box in (*said, *asked)}):
        mine, boxes = ([b for b in some if b["label"] == label] for some in (said, asked))
        corners, truth = (np.array([[b[n] for n in _CORNERS] for b in some]).reshape(-1, 4) for some in (mine, boxes))
        scores = np.array([box["score"] for box in mine])
        found = match(corners, scores, truth, np.zeros(len(truth), dtype=bool), (0.5,)).box[0]
        hits += int((found >= 0).sum())
        drawn += [Drawn(truth[m].tolist(), "missed") for m in range(len(truth)) if m not in found]
        drawn += [Drawn(c.tolist(), "right" if f >= 0 else "wrong") for c, f in zip(corners, found, strict=True)]
    return 2.0 * hits, len(said) + len(asked), drawn
