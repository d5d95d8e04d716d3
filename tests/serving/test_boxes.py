"""Boxes of tiles become boxes of a picture: as if there were no tiles, whatever the network says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.data.dataset import Dataset
from lepton_platform.data.tiling import tiles
from lepton_platform.models.boxes import clipped, in_core, iou, nms
from lepton_platform.serving.boxes import boxes_answer
from lepton_platform.serving.comparison import compare
from lepton_platform.serving.images import Piece
from lepton_platform.serving.params import RolloutParams
from lepton_platform.serving.protocols import Encoded
from tests.serving import pictures
from tests.serving.conftest import build
from tests.serving.models import CELL, write_detector

RULES = {"score_threshold": 0.3, "iou_threshold": 0.4, "max_detections": 50}
LABELS = ["tree", "house"]


def parts(width: int, height: int, tile: int = 100, margin: int = 20) -> list[Encoded]:
    nothing = np.zeros((1, 1, 3), np.uint8)
    return [Encoded(Piece(nothing, t, RULES), 1) for t in tiles(width, height, tile, margin)]


def dense(chance: np.random.Generator, count: int, side: int) -> np.ndarray:
    """(A, 6): boxes anywhere, also beyond the tile, and two logits."""
    corners = chance.uniform(-30, side, (count, 2))
    sizes = chance.uniform(-2, 60, (count, 2))
    return np.hstack([corners, corners + sizes, chance.normal(0, 2, (count, 2))]).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 450), height=st.integers(1, 350), count=st.integers(0, 120), seed=st.integers(0, 10**6))
def test_seams_are_suppressed_as_one_suppression_of_all_would(width: int, height: int, count: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    pieces = parts(width, height)
    outputs = [dense(chance, count, 140) for _ in pieces]
    answer, beside = boxes_answer(LABELS, pieces, outputs)
    assert beside == {"width": width, "height": height}
    said = [(n, row) for n, p in enumerate(pieces) for row in _plain(p.payload, outputs[n])]
    kept: list[np.ndarray] = []
    placed: list[tuple[int, np.ndarray]] = []
    for tile, row in sorted(said, key=lambda one: -one[1][4]):  # a tile's own boxes have met already
        rivals = [other for n, other in placed if n != tile and other[5] == row[5]]
        if not rivals or iou(row[None, :4], np.array(rivals)[:, :4]).max() <= RULES["iou_threshold"]:
            placed.append((tile, row))
            kept.append(row)
    expected = sorted([*(round(float(v), 2) for v in row[:4]), LABELS[int(row[5])]] for row in kept)
    assert sorted([*box["box"], box["label"]] for box in answer["boxes"]) == expected
    for box in answer["boxes"]:
        x1, y1, x2, y2 = box["box"]
        assert 0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height and 0.3 <= box["score"] <= 1


def _plain(piece: Piece, output: np.ndarray) -> np.ndarray:
    """A tile's own answer, by the book: threshold, suppression by class, core, shift."""
    rows = []
    for number in range(2):
        scores = 1 / (1 + np.exp(-output[:, 4 + number]))
        sure = scores >= RULES["score_threshold"]
        boxes, scores = output[sure, :4], scores[sure]
        rows += [[*boxes[i], scores[i], number] for i in nms(boxes, scores, RULES["iou_threshold"])]
    found = np.array(sorted(rows, key=lambda row: -row[4])[: RULES["max_detections"]], np.float32).reshape(-1, 6)
    found = clipped(found, piece.tile.width, piece.tile.height)
    found = found[in_core(found, piece.tile.core)]
    return found + np.array([piece.tile.left, piece.tile.top] * 2 + [0, 0], np.float32)


def test_a_picture_with_tens_of_thousands_of_boxes_takes_no_square_of_them() -> None:
    """350 tiles, each full: one suppression over all would need gigabytes."""
    import tracemalloc

    chance = np.random.default_rng(1)
    pieces = parts(2_500, 1_400)
    outputs = [dense(chance, 400, 140) for _ in pieces]
    tracemalloc.start()
    answer, _ = boxes_answer(LABELS, pieces, outputs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pieces) == 350 and len(answer["boxes"]) > 5_000 and peak < 200 << 20


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_no_answer(value: float) -> None:
    output = np.zeros((3, 6), np.float32)
    output[1, 2] = value
    with pytest.raises(ValueError, match="finite"):
        boxes_answer(LABELS, parts(50, 50), [output])


def _rows(count: int) -> list[dict[str, Any]]:
    """Tiles of photos, a bright square in each: the truth."""
    chance, rows = np.random.default_rng(9), []
    for number in range(count):
        picture = np.zeros((96, 96, 3), np.uint8)
        x, y = (int(v) * CELL for v in chance.integers(0, 6, 2))
        picture[y : y + CELL, x : x + CELL] = 255
        box = {"x1": x, "y1": y, "x2": x + CELL, "y2": y + CELL, "label": "tree", "crowd": False, "owned": True}
        box |= {name: float(box[name]) for name in ("x1", "y1", "x2", "y2")}
        core = [0, 0, 96, 96] if number % 2 else [16, 16, 96, 96]
        inside = core[0] <= x + 8 and core[1] <= y + 8
        rows.append(
            {"id": f"t{number:03}", "photo": f"p{number % 7}", "image": pictures.file(picture), "width": 96, "height": 96,
             "left": 0, "top": 0, "core": core, "boxes": [{**box, "owned": inside}]}
        )  # fmt: skip
    return rows


def test_a_challenger_of_boxes_is_judged_by_precision(tmp_path: Path) -> None:
    """Its boxes are those of the service; a blind one loses, the same one does not."""
    from lepton_platform.data.images import decode
    from lepton_platform.training.detection import BoxEvaluation

    def none(*_: Any) -> np.ndarray:
        raise AssertionError("no yardstick is asked here")

    evaluator = BoxEvaluation(
        content="image", target="boxes", decode=decode, yardstick_name="none", yardstick_boxes=none
    )
    rows = _rows(40)
    rows[3]["image"] = b"no picture"  # both refuse it: wrong for both
    Dataset(tmp_path / "test").write(pa.Table.from_pylist(rows))
    good = build(tmp_path / "good", "trees", write_detector)

    def blind(folder: Path) -> Path:
        import json

        write_detector(folder)
        config = json.loads((folder / "config.json").read_text())
        config["postprocess"]["score_threshold"] = 1.0
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    worse = build(tmp_path / "worse", "trees", blind)

    def judged(champion: Path, challenger: Path) -> Sequence[float]:
        found = compare(champion, challenger, tmp_path / "test", RolloutParams(), evaluator)
        assert found.rows == 40 and found.figure == evaluator.headline_name
        return found.champion, found.challenger, found.difference, found.low, found.high

    same = judged(good, good)
    assert 0.9 < same[0] < 1 and same[1] == same[0] and same[2:] == (0, 0, 0)
    champion, challenger, difference, _, high = judged(good, worse)
    assert champion == same[0] and challenger == 0 and difference == pytest.approx(-champion) and high < 0
