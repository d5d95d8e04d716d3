"""How good is good enough for trees: better than round patches of the right size that are greener or darker than around."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lepton_platform.tasks.trees.preprocess import CONTENT, decode
from lepton_platform.training.detection import BoxEvaluation

BOXES = "boxes"  # the column of the true ones
_MOST = 300  # answers of a picture
_SCALES = (0.6, 0.8, 1.0, 1.25)  # of the training boxes' median side
_TRAINING_ROWS = 24  # that the kind of patch is chosen on
Floats = NDArray[np.float32]


def _excess_green(rgb: Floats) -> Floats:
    """2g - r - b of the colours' shares (Woebbecke et al., 1995)."""
    share = rgb / np.maximum(rgb.sum(axis=2, keepdims=True), 1.0)
    return 2 * share[:, :, 1] - share[:, :, 0] - share[:, :, 2]


def _darkness(rgb: Floats) -> Floats:
    return 1.0 - rgb.mean(axis=2) / 255.0


_KINDS: Mapping[str, Callable[[Floats], Floats]] = {"excess green": _excess_green, "darkness": _darkness}


def blobs(train: pa.Table, rows: pa.Table, labels: Sequence[str]) -> NDArray:
    """(N, K, 6): squares of one size round the strongest patches: what a network has to beat.

    Difference of Gaussians (Lindeberg, 1998), its local maxima; the channel and the size are the best on the training
    rows, which is all that is learnt.
    """
    from lepton_platform.training.box_figures import precision, tally

    side = _median_side(train)
    some = train.slice(0, _TRAINING_ROWS)
    pictures = [decode(data).astype(np.float32) for data in some[CONTENT].to_pylist()]
    best, chosen = -1.0, ("excess green", side)
    for kind, scale in ((kind, scale) for kind in _KINDS for scale in _SCALES):
        answers = EVALUATOR.answers(some, _found(pictures, kind, side * scale), labels)
        figure = float(precision(tally(answers, (0.5,)), (0,), np.ones((1, some.num_rows)))[0])
        if figure > best:
            best, chosen = figure, (kind, side * scale)
    return _found([decode(data).astype(np.float32) for data in rows[CONTENT].to_pylist()], *chosen)


def _median_side(rows: pa.Table) -> float:
    sides = [
        np.sqrt((box["x2"] - box["x1"]) * (box["y2"] - box["y1"])) for boxes in rows[BOXES].to_pylist() for box in boxes
    ]
    return float(np.median(sides)) if sides else 32.0


def _found(pictures: Sequence[Floats], kind: str, side: float) -> NDArray:
    from scipy.ndimage import gaussian_filter, maximum_filter

    answers = np.zeros((len(pictures), _MOST, 6))
    for number, rgb in enumerate(pictures):
        channel = _KINDS[kind](rgb)
        blob = gaussian_filter(channel, side / 4) - gaussian_filter(channel, side / 2)
        peaks = (blob == maximum_filter(blob, size=max(3, round(side * 0.6)))) & (blob > 0)
        y, x = np.nonzero(peaks)
        order = np.argsort(-blob[y, x], kind="stable")[:_MOST]
        y, x = y[order] + 0.5, x[order] + 0.5
        strength = blob[peaks][order]
        half, score = side / 2, strength / (strength + 0.05)  # between 0 and 1, in the order of the strength
        answers[number, : len(order)] = np.column_stack([x - half, y - half, x + half, y + half, score, 0 * score])
    return answers


EVALUATOR = BoxEvaluation(
    content=CONTENT,
    target=BOXES,
    decode=decode,
    yardstick_name="blobs of one size",
    yardstick_boxes=blobs,
    sizes_px=(24.0, 48.0),
)
