"""Drift of photos: tiles of a photo never seen pass; the same tiles in fog, at dusk, out of focus, crushed do not."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageFilter

from lepton_platform.data.images import decode, encode_png
from lepton_platform.data.records import raw_schema, to_table
from lepton_platform.monitoring.reference import ReferenceParams
from lepton_platform.rehearsal.weather import dusk, fog, pieces
from lepton_platform.tasks.trees import drift, source
from lepton_platform.tasks.trees.source import SourceParams
from tests.tasks.windows import Windows

HELD_OUT = "2019_YELL_2_541000_4977000_image_crop"
LARGEST = "2019_YELL_2_528000_4978000_image_crop2"


def blur(photo: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(2)))


def crushed(photo: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=20)
    return decode(file.getvalue())


DAMAGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"fog": fog, "dusk": dusk, "blur": blur, "jpeg": crushed}


@pytest.fixture(scope="module")
def tiles(cache_dir: Path) -> pa.Table:
    return to_table(list(source.records(SourceParams(), cache_dir)), raw_schema(source.SCHEMA))


def photos(tiles: pa.Table, *names: str) -> pa.Table:
    return tiles.filter(pa.array([photo in names for photo in tiles["photo"].to_pylist()]))


@pytest.fixture(scope="module")
def windows(tiles) -> Windows:
    return Windows(drift, photos(tiles, LARGEST, "SOAP_061"), ReferenceParams(), min_distance=0.75)


@pytest.fixture(scope="module")
def held_out(tiles) -> list[np.ndarray]:
    """200 crops of 200 to 340 pixels of the photo that nothing was learnt from."""
    rng = np.random.default_rng(3)
    whole = [decode(data) for data in photos(tiles, HELD_OUT)["image"].to_pylist()]
    found = []
    for number in range(200):
        tile, side = whole[number % len(whole)], int(rng.integers(200, 341))
        top, left = (int(rng.integers(0, length - side + 1)) for length in tile.shape[:2])
        found.append(tile[top : top + side, left : left + side])
    return found


def rows(pictures: list[np.ndarray]) -> pa.Table:
    return pa.table({"image": [encode_png(picture) for picture in pictures]})


def test_tiles_of_a_photo_never_seen_do_not_alarm(windows, held_out):
    assert windows.alarms(rows(held_out), (50, 100, 200), repeats=100) == {50: 0, 100: 0, 200: 0}


def test_small_sharp_pieces_of_the_same_photo_do_not_alarm(tiles, cache_dir):
    """What is left of the photo, sent as it is: views of the reference have lost some of their focus."""
    chosen = list(source.records(SourceParams(photos=[LARGEST], tiles_per_photo=12, spread=True), cache_dir))
    ids = {row["id"] for row in chosen}
    others = [row for row in photos(tiles, LARGEST).to_pylist() if row["id"] not in ids]
    sent = rows([picture for row in others for picture, _ in pieces(row, chosen)])
    known = Windows(drift, to_table(chosen, raw_schema(source.SCHEMA)), ReferenceParams(), min_distance=0.75)
    assert known.alarms(sent, (50, 100), repeats=50) == {50: 0, 100: 0}


@pytest.mark.parametrize("name", DAMAGES)
def test_the_same_tiles_damaged_always_alarm(windows, held_out, name):
    damaged = rows([DAMAGES[name](crop) for crop in held_out])
    assert windows.alarms(damaged, (50, 100, 200), repeats=60) == {50: 60, 100: 60, 200: 60}


def test_few_photos_become_enough_views_the_same_every_time(tiles):
    some = photos(tiles, "OSBS_029", "SOAP_061")
    made = drift.reference(some)
    assert made.equals(drift.reference(some)) and made.num_rows == 2 * 4 * 4
    assert len(set(made["image"].to_pylist())) == 32 and len(set(made["place"].to_pylist())) == 2
    shapes = {decode(data).shape for data in made["image"].to_pylist()}
    assert shapes == {(160, 160, 3)}


def test_many_photos_are_looked_at_as_they_are(tiles):
    (one,) = photos(tiles, "OSBS_029").to_pylist()
    many = pa.Table.from_pylist([{**one, "photo": f"p{n}"} for n in range(drift.MANY)], tiles.schema)
    made = drift.reference(many)
    assert made.num_rows == drift.MANY and made["place"].to_pylist() == many["photo"].to_pylist()
    whole = decode(one["image"])
    view = decode(made["image"][0].as_py())
    assert any((whole[y : y + 160, x : x + 160] == view).all() for y in range(241) for x in range(241))


# --- answers


def test_held_out_answers_become_cells_and_each_box_is_in_one():
    boxes = [
        {"x1": x, "y1": y, "x2": x + 20, "y2": y + 10, "label": "tree", "score": 0.5}
        for x, y in ((50, 50), (160, 60), (330, 340))
    ]
    made = drift.reference(pa.table({"id": ["a"], "photo": ["p"], "core": [[48, 48, 360, 393]], "boxes": [boxes]}))
    assert made.num_rows == 9 and set(made["place"].to_pylist()) == {"a"}
    assert sum(len(json.loads(cell)) for cell in made["boxes"].to_pylist()) == 3
    found = drift.answers(made).numbers
    assert sorted(found["trees"]) == pytest.approx([0] * 6 + [10_000 / (104 * 115)] * 3)
    assert sorted(found["area_px"]) == [0] * 6 + [200] * 3 and set(found["score"]) == {0, 0.5}


def test_logged_answers_are_read_as_structs_and_as_json():
    boxes = [{"box": [10.0, 10.0, 30.0, 40.0], "label": "tree", "score": 0.75}]
    picture = encode_png(np.zeros((100, 100, 3), np.uint8))
    structs = pa.table({"id": ["a", "b"], "image": [picture] * 2, "boxes": [boxes, []]})
    as_json = pa.table({"id": ["a", "b"], "image": [picture] * 2, "boxes": [json.dumps(boxes), "[]"]})
    for table in (structs, as_json):
        found = {name: values.tolist() for name, values in drift.answers(table).numbers.items()}
        assert found == {"trees": [1, 0], "score": [0.75, 0], "area_px": [600, 0]}


def test_the_log_counts_the_same_answers_without_the_photo_and_none_where_its_size_is_not_known():
    corners = [(x, y, x + 20.0, y + 9.0 + x) for x in (10.0, 120.0, 230.0) for y in (10.0, 100.0)]
    boxes = [{"box": list(box), "label": "tree", "score": 0.75} for box in corners]
    picture = encode_png(np.zeros((230, 310, 3), np.uint8))
    rows = pa.table({"id": list("abcdef"), "image": [picture] * 6, "boxes": [boxes, []] * 3})
    sized = (
        rows.drop_columns(["image"])
        .append_column("width", pa.array([310] * 6))
        .append_column("height", pa.array([230] * 6))
    )
    whole, counted = drift.answers(rows).numbers, drift.counted(sized).numbers
    assert {name: values.tolist() for name, values in counted.items()} == {n: v.tolist() for n, v in whole.items()}
    assert max(whole["trees"]) > 0
    assert len(drift.counted(rows.drop_columns(["image"]))) == 0
    unsized = sized.set_column(2, "width", pa.array([310, None] * 3))
    assert len(drift.counted(unsized)) == 3
