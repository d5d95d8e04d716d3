"""Photos in worse light, the pieces of a tile that users send, and boxes that were mixed up."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.data.dataset import Dataset
from lepton_platform.data.images import decode, encode_png
from lepton_platform.data.tiling import tiles
from lepton_platform.pipeline.run import execute
from lepton_platform.pipeline.stages import get_stage
from lepton_platform.rehearsal.scratch import scratch
from lepton_platform.rehearsal.shifts import SHIFTS
from lepton_platform.rehearsal.weather import dusk, fog, others_boxes, pieces

SIDES = st.integers(130, 500)


@settings(max_examples=25, deadline=None)
@given(SIDES, SIDES, st.sets(st.integers(0, 8)), st.integers(0, 2**32 - 1))
def test_pieces_show_what_no_known_tile_shows_and_each_pixel_once(
    height: int, width: int, known: set[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    places = np.arange(height * width, dtype=np.uint32).reshape(height, width, 1)  # every pixel says where it was
    photo = (places >> np.array([0, 8, 16], dtype=np.uint32) & 255).astype(np.uint8)
    rows = [row_of(photo, tile, rng) for tile in tiles(width, height, 180, 24)]
    mine = [row for number, row in enumerate(rows) if number in known]
    seen: list[int] = [place for row in mine for place in named(decode(row["image"]))]
    found = [one for number, row in enumerate(rows) if number not in known for one in pieces(row, mine)]
    sent = [place for picture, _ in found for place in named(picture)]
    assert len(sent) == len(set(sent)) and not set(sent) & set(seen)
    assert mine or len(sent) == height * width
    for picture, boxes in found:
        for x1, y1, x2, y2 in (one["box"] for one in boxes):
            assert 0 <= x1 < x2 <= picture.shape[1] and 0 <= y1 < y2 <= picture.shape[0]


def row_of(photo: np.ndarray, tile, rng: np.random.Generator) -> dict:
    pixels = np.ascontiguousarray(photo[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width])
    corners = np.sort(rng.uniform(0, (tile.height, tile.width, 1), (2, 3)), axis=0)
    box = {"x1": corners[0, 1], "y1": corners[0, 0], "x2": corners[1, 1], "y2": corners[1, 0], "label": "tree"}
    place = {name: getattr(tile, name) for name in ("left", "top", "width", "height", "core")}
    return {"photo": "one", "image": encode_png(pixels), "boxes": [box], **place}


def named(picture: np.ndarray) -> list[int]:
    """The places that the pixels name."""
    return (picture.astype(np.uint32) << np.array([0, 8, 16], dtype=np.uint32)).sum(axis=2).ravel().tolist()


@pytest.mark.parametrize("weather", [fog, dusk])
def test_worse_light_keeps_the_shape_and_loses_contrast(weather) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    seen = weather(photo)
    assert seen.shape == photo.shape and seen.dtype == np.uint8
    assert seen.std() < 0.7 * photo.std()


@given(st.lists(st.tuples(SIDES, SIDES), min_size=2, max_size=12))
def test_mixed_boxes_are_another_rows_and_lie_in_the_picture(sizes: list[tuple[int, int]]) -> None:
    rows = [
        {
            "width": width,
            "height": height,
            "boxes": [{"x1": 0.0, "y1": 1.0, "x2": width, "y2": height, "label": str(n)}],
        }
        for n, (width, height) in enumerate(sizes)
    ]
    mixed = others_boxes(rows, "boxes")
    assert sorted(boxes[0]["label"] for boxes in mixed) == sorted(str(n) for n in range(len(rows)))
    for number, (row, (box,)) in enumerate(zip(rows, mixed, strict=True)):
        assert box["label"] != str(number)
        assert (box["x2"], box["y2"]) == pytest.approx((row["width"], row["height"]))


def test_what_is_sent_is_enough_and_the_same_in_both_lights(cache_dir: Path) -> None:
    with scratch("trees", "rehearsal") as settings:
        execute(settings, "trees", get_stage("raw"))
        usual, rows = SHIFTS["trees"].rows(settings)
        photos = set(Dataset(settings.path(get_stage("raw").path("trees"))).read(["photo"])["photo"].to_pylist())
    sizes = SHIFTS["trees"].sizes
    assert len(photos) == 4, "the frozen test photo and the validation photo are the workspace's"
    assert len(rows) >= sizes.labelled + sizes.probe and len(usual) >= sizes.ordinary
    for part in (rows[: sizes.probe], rows[sizes.probe : sizes.probe + sizes.labelled]):
        assert sum(len(row.truth) for row in part) > 100
    for clear, dull in zip(usual, rows, strict=True):
        assert clear.truth == dull.truth and decode(clear.content).shape == decode(dull.content).shape
