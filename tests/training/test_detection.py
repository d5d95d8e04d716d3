"""Evaluation of boxes: the figures are COCO's, tiles are the photo, and each mistake has its kind."""

import contextlib
import io
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lepton_platform.data.images import decode
from lepton_platform.data.tiling import tiles
from lepton_platform.models.matching import COCO_OVERLAPS
from lepton_platform.stage import StageFailed
from lepton_platform.training import box_figures
from lepton_platform.training.detection import BoxEvaluation
from lepton_platform.training.evaluation import Sampling
from lepton_platform.training.page import page

LABELS = ("fir", "pine")
SIDE = 300
NAMES = ("x1", "y1", "x2", "y2")
_CORNERS = {name: pa.float32() for name in NAMES}
TRUTH = pa.list_(pa.struct({**_CORNERS, "label": pa.string(), "crowd": pa.bool_(), "owned": pa.bool_()}))
SAMPLING = Sampling(200, 0)


def nothing(train: pa.Table, rows: pa.Table, labels: tuple[str, ...]) -> np.ndarray:
    """One poor box in every picture."""
    found = np.zeros((rows.num_rows, 3, 6))
    found[:, 0] = (5, 5, 25, 25, 0.5, 0)
    return found


EVALUATOR = BoxEvaluation("image", "boxes", decode, "nothing <much>", nothing, sure=0.4, sizes_px=(20.0, 40.0))


def scenes(pictures: int, seed: int, crowds: bool = True) -> tuple[pa.Table, np.ndarray]:
    """Rows with true boxes, and answers (N, 40, 6): some near a true box, some on nothing, some labelled wrongly."""
    rng = np.random.default_rng(seed)
    rows, outputs = [], np.zeros((pictures, 40, 6), np.float32)
    for number in range(pictures):
        boxes, answers = [], []
        for one in range(rng.integers(0, 9)):
            side = rng.uniform(8, 60, 2)
            low = rng.uniform(0, SIDE - 60, 2)
            label = int(rng.integers(2))
            corners = [*low, *(low + side)]
            boxes.append(
                {**dict(zip(NAMES, corners, strict=True)), "label": LABELS[label], "owned": True}
                | {"crowd": bool(crowds and one == 3)}
            )
            for _ in range(rng.integers(0, 3)):
                said = label if rng.random() < 0.9 else 1 - label
                answers.append([*(corners + rng.normal(0, side.mean() / 8, 4)), rng.uniform(0.05, 1), said])
        for _ in range(rng.integers(0, 6)):
            low = rng.uniform(0, SIDE - 40, 2)
            answers.append([*low, *(low + rng.uniform(5, 40, 2)), rng.uniform(0.05, 0.7), rng.integers(2)])
        outputs[number, : len(answers)] = np.array(answers).reshape(-1, 6)
        rows.append({"id": f"{number}", "image": b"", "height": SIDE, "width": SIDE, "boxes": boxes})
    schema = {"id": pa.string(), "image": pa.binary(), "height": pa.int32(), "width": pa.int32(), "boxes": TRUTH}
    return pa.Table.from_pylist(rows, schema=pa.schema(schema)), outputs


def by_the_reference(answers: pa.Table, overlaps: list[float]) -> np.ndarray:
    """What COCO's own evaluation says: (T, C), -1 where a label has no box."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def box(one: dict) -> dict:
        x, y, w, h = one["x1"], one["y1"], one["x2"] - one["x1"], one["y2"] - one["y1"]
        return {"bbox": [x, y, w, h], "area": w * h, "category_id": LABELS.index(one["label"]) + 1}

    truths, said = answers["truth"].to_pylist(), answers["boxes"].to_pylist()
    annotations = [
        {**box(one), "image_id": n, "iscrowd": int(one["crowd"])} for n, boxes in enumerate(truths) for one in boxes
    ]
    found = [{**box(one), "image_id": n, "score": one["score"]} for n, boxes in enumerate(said) for one in boxes]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": n} for n in range(answers.num_rows)],
            "categories": [{"id": n + 1, "name": name} for n, name in enumerate(LABELS)],
            "annotations": [{**one, "id": n + 1} for n, one in enumerate(annotations)],
        }
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(found), "bbox")
        judge.params.iouThrs = np.array(overlaps)
        judge.params.maxDets = [1000]
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
    return judge.eval["precision"][:, :, :, 0, 0].mean(axis=1)


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_is_cocos(seed):
    rows, outputs = scenes(20, seed)
    answers = EVALUATOR.answers(rows, outputs, LABELS)
    overlaps = [*COCO_OVERLAPS, 0.4]
    wanted = by_the_reference(answers, overlaps)
    once = np.ones((1, rows.num_rows))
    found = box_figures.tally(answers, overlaps)
    for t in range(len(overlaps)):
        for number, scored in enumerate(found):
            assert box_figures.precision([scored], (t,), once)[0] == pytest.approx(wanted[t, number], abs=1e-9)
    assert box_figures.precision(found, range(10), once)[0] == pytest.approx(wanted[:10].mean(), abs=1e-9)
    assert EVALUATOR.headline(answers) == pytest.approx(wanted[0].mean(), abs=1e-9)


def test_a_draw_is_the_figure_of_the_rows_drawn():
    rows, outputs = scenes(12, 3)
    chosen = np.array([0, 0, 3, 5, 7, 7, 7, 11])
    whole = EVALUATOR.answers(rows, outputs, LABELS)
    drawn = np.bincount(chosen, minlength=12).astype(float)[None]
    some = whole.take(pa.array(chosen))
    some = some.set_column(0, "id", pa.array([str(n) for n in range(len(chosen))]))  # twice drawn, two pictures
    found = box_figures.tally(whole, (0.5,))
    assert box_figures.precision(found, (0,), drawn)[0] == pytest.approx(EVALUATOR.headline(some), abs=1e-9)


def test_tiles_say_what_their_photo_says():
    rng = np.random.default_rng(0)
    width, height = 610, 470
    corners = [[x, y, x + w, y + h] for x, y, w, h in rng.uniform((0, 0, 8, 8), (560, 420, 48, 48), (60, 4))]
    said = np.array([[*(np.array(c) + rng.normal(0, 3, 4)), rng.uniform(0.1, 1), 0] for c in corners], np.float32)
    cut = tiles(width, height, 200, 48)
    assert len(cut) > 4

    def row(name, left, top, wide, high, core):
        boxes = []
        for x1, y1, x2, y2 in corners:
            x, y = (x1 + x2) / 2 - left, (y1 + y2) / 2 - top
            inside = {
                "x1": max(x1 - left, 0),
                "y1": max(y1 - top, 0),
                "x2": min(x2 - left, wide),
                "y2": min(y2 - top, high),
            }
            if inside["x1"] < inside["x2"] and inside["y1"] < inside["y2"]:
                owned = core[0] <= x < core[2] and core[1] <= y < core[3]
                boxes.append({**inside, "label": "fir", "crowd": False, "owned": owned})
        place = {"photo": "one", "left": left, "top": top, "core": core, "height": high, "width": wide}
        return {"id": name, "image": b"", "boxes": boxes, **place}

    integer, core = pa.int32(), pa.list_(pa.int32())
    place = {"photo": pa.string(), "left": integer, "top": integer, "core": core, "height": integer, "width": integer}
    schema = pa.schema({"id": pa.string(), "image": pa.binary(), "boxes": TRUTH, **place})
    whole = pa.Table.from_pylist([row("whole", 0, 0, width, height, [0, 0, width, height])], schema=schema)
    parts = [row(f"{n}", t.left, t.top, t.width, t.height, list(t.core)) for n, t in enumerate(cut)]
    shifted = np.stack([said - np.array([t.left, t.top, t.left, t.top, 0, 0]) for t in cut]).astype(np.float32)
    photo = EVALUATOR.answers(whole, said[None], LABELS)
    tiled = EVALUATOR.answers(pa.Table.from_pylist(parts, schema=schema), shifted, LABELS)
    assert sum(map(len, tiled["truth"].to_pylist())) == sum(map(len, photo["truth"].to_pylist())) == 60
    assert sum(map(len, tiled["boxes"].to_pylist())) == 60
    assert 0.1 < EVALUATOR.headline(photo) < 1
    assert EVALUATOR.headline(tiled) == pytest.approx(EVALUATOR.headline(photo), abs=0.02)  # boxes cut at a tile's edge
    assert len(box_figures.pictures(tiled)) == 1


def test_outputs_that_are_no_boxes_are_refused():
    rows, outputs = scenes(3, 0)
    for wrong in (outputs[:2], outputs[:, :, :5], np.where(outputs > 1, np.nan, outputs)):
        with pytest.raises(StageFailed, match="its weights cannot be used"):
            EVALUATOR.answers(rows, wrong, LABELS)
    with pytest.raises(StageFailed, match="a label in 'boxes' that the model never learnt"):
        EVALUATOR.answers(rows, outputs * 0, ("oak",))


def test_what_a_service_answers_is_judged_alike():
    rows, outputs = scenes(8, 1)
    answers = EVALUATOR.answers(rows, outputs, LABELS)
    said = [
        {
            "boxes": [
                {"box": [box[name] for name in NAMES], "label": box["label"], "score": box["score"]} for box in boxes
            ]
        }
        for boxes in answers["boxes"].to_pylist()
    ]
    served = EVALUATOR.served(rows, said)
    assert EVALUATOR.headline(served) == pytest.approx(EVALUATOR.headline(answers), abs=1e-4)
    refused = EVALUATOR.served(rows, [{"error": "no picture"}] * 8)
    assert EVALUATOR.headline(refused) == 0


def test_each_mistake_has_its_kind():
    truth = [[10, 10, 50, 50, "fir"], [100, 10, 140, 50, "fir"], [200, 10, 240, 50, "pine"], [10, 200, 50, 240, "fir"]]
    boxes = [{**dict(zip(NAMES, t[:4], strict=True)), "label": t[4], "crowd": False, "owned": True} for t in truth]
    rows = pa.table({"id": ["a"], "image": [b""], "height": [SIDE], "width": [SIDE], "boxes": pa.array([boxes], TRUTH)})
    outputs = np.array(
        [
            [11, 11, 50, 50, 0.9, 0],  # right
            [10, 10, 48, 50, 0.8, 0],  # the same once more
            [120, 10, 160, 50, 0.8, 0],  # a third of the second
            [200, 10, 240, 50, 0.7, 0],  # called a fir
            [250, 250, 290, 290, 0.6, 1],  # nothing there
            [10, 200, 50, 240, 0.3, 0],  # right, but not sure
        ],
        np.float32,
    )[None]
    answers = EVALUATOR.answers(rows, outputs, LABELS)
    kinds = {"right": 1, "duplicate": 1, "localisation": 1, "label": 1, "background": 1, "missed": 3}
    assert box_figures.error_kinds(answers, 0.4, 0.5) == kinds
    assert box_figures.error_kinds(answers, 0.2, 0.5) == {**kinds, "right": 2, "missed": 2}
    found = box_figures.tally(answers, (0.5,))
    once = np.ones((1, 1))
    assert box_figures.recall(found, 0, once)[0] == 0.5
    assert np.isnan(box_figures.recall(found, 0, once, (0, 20))[0])


def test_agreement_is_that_of_sure_boxes():
    rows, outputs = scenes(10, 2, crowds=False)
    one = EVALUATOR.answers(rows, outputs, LABELS)
    assert EVALUATOR.agreement(one, one) == 1
    softer = outputs.copy()
    softer[:, :, 4] *= 0.9  # some fall short of what is sure, and are there all the same
    assert EVALUATOR.agreement(one, EVALUATOR.answers(rows, softer, LABELS)) > 0.97
    half = outputs.copy()
    half[::2, :, 4] = 0
    lower = EVALUATOR.agreement(one, EVALUATOR.answers(rows, half, LABELS))
    assert lower == EVALUATOR.agreement(EVALUATOR.answers(rows, half, LABELS), one)
    assert 0.4 < lower < 0.9
    none = EVALUATOR.answers(rows, outputs * 0, LABELS)
    assert EVALUATOR.agreement(none, none) == 1 and EVALUATOR.agreement(one, none) == 0


class Seen(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.pictures: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])


def test_the_page_shows_figures_curves_and_pictures():
    rows, outputs = scenes(10, 4)
    file = io.BytesIO()
    Image.fromarray(np.full((SIDE, SIDE, 3), 80, np.uint8)).save(file, "PNG")
    rows = rows.set_column(1, "image", pa.array([file.getvalue()] * 10))
    rows = rows.set_column(0, "id", pa.array([f"<b>{n}" for n in range(10)]))
    answers, yardstick = EVALUATOR.answers(rows, outputs, LABELS), EVALUATOR.yardstick(rows, rows, LABELS)
    found = EVALUATOR.evaluate(rows, answers, yardstick, SAMPLING)
    figures = found.figures
    assert figures["ap50"] == pytest.approx(EVALUATOR.headline(answers), abs=1e-6)
    assert figures["ap40"] >= figures["ap50"] >= figures["map"] >= 0
    low, high = figures["ap50_ci95"]
    assert low <= figures["ap50"] <= high
    assert figures["gain"] == pytest.approx(figures["ap50"] - figures["baseline_ap50"], abs=1e-6)
    assert EVALUATOR.compare(answers, answers, SAMPLING) == (0, 0, 0)
    assert [one["n"] for one in figures["recall_by_size"]] and figures["n_boxes"] == sum(
        one["n"] for one in figures["recall_by_size"]
    )
    text = page(found, "Trees", "verdict", True)
    assert text == page(EVALUATOR.evaluate(rows, answers, yardstick, SAMPLING), "Trees", "verdict", True)
    seen = Seen(text)
    assert not {"script", "b", "link"} & set(seen.tags) and "polyline" in seen.tags
    assert seen.pictures and all(one.startswith("data:image/png;base64,") for one in seen.pictures)
    assert len(text) < 500_000
    sheet = Image.open(io.BytesIO(found.pngs["contact_sheet"]))
    assert sheet.width > 600 and sheet.format == "PNG"
