"""The photos' source: four real photos, every box counted once; sets of people, turned pictures, faults by name."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lepton_platform.data.annotations import Box
from lepton_platform.data.images import decode, encode_png
from lepton_platform.data.raw import RawParams, raw
from lepton_platform.data.records import raw_schema, to_table
from lepton_platform.stage import StageFailed
from lepton_platform.tasks.trees import source
from lepton_platform.tasks.trees.preprocess import MARGIN_PX, TILE_PX, usable
from lepton_platform.tasks.trees.source import CORNERS, SourceParams
from tests.data.pictures import exif, meadow, saved

TEST_PHOTO = "2019_YELL_2_541000_4977000_image_crop"
LARGEST = "2019_YELL_2_528000_4978000_image_crop2"


def read(params: SourceParams, cache: Path = Path("/nowhere")) -> list[dict]:
    return to_table(list(source.records(params, cache)), raw_schema(source.SCHEMA)).to_pylist()


@pytest.fixture(scope="module")
def rows(cache_dir: Path) -> list[dict]:
    return read(SourceParams(), cache_dir)


def corners(box: dict) -> tuple[float, ...]:
    return tuple(box[name] for name in CORNERS)


def test_every_box_of_the_four_photos_is_counted_once(rows):
    owned = {
        photo: sum(b["owned"] for r in rows if r["photo"] == photo for b in r["boxes"]) for photo in source._PHOTOS
    }
    assert list(owned.values()) == [574, 279, 61, 37]
    assert [sum(r["photo"] == photo for r in rows) for photo in source._PHOTOS] == [42, 12, 1, 1]
    assert {b["label"] for r in rows for b in r["boxes"]} == {"tree"}
    assert not any(r["problem"] for r in rows) and not any(usable(r) for r in rows)
    assert len({r["id"] for r in rows}) == 56 and len({r["event_time"] for r in rows}) == 4


def test_tiles_are_the_photos_pixels_and_cores_cover_it(rows, cache_dir):
    photo = decode((cache_dir / "packages/pip/deepforest-2.1.0/deepforest/data" / f"{TEST_PHOTO}.png").read_bytes())
    seen = np.zeros(photo.shape[:2], np.uint8)
    for row in (r for r in rows if r["photo"] == TEST_PHOTO):
        pixels, (x1, y1, x2, y2) = decode(row["image"]), row["core"]
        top, left = row["top"], row["left"]
        assert pixels.shape[:2] == (row["height"], row["width"]) and max(pixels.shape) <= TILE_PX + 2 * MARGIN_PX
        assert (pixels == photo[top : top + row["height"], left : left + row["width"]]).all()
        seen[top + y1 : top + y2, left + x1 : left + x2] += 1
    assert (seen == 1).all()


def test_a_box_seen_from_two_tiles_is_the_same_box(rows):
    """In pixels of the photo, a box that a tile does not own is a part of one that another tile owns."""
    tiles = [r for r in rows if r["photo"] == TEST_PHOTO]
    owned = {
        tuple(c + o for c, o in zip(corners(b), (r["left"], r["top"]) * 2, strict=True))
        for r in tiles
        for b in r["boxes"]
        if b["owned"]
    }
    for row in tiles:
        for box in row["boxes"]:
            x1, y1, x2, y2 = (c + o for c, o in zip(corners(box), (row["left"], row["top"]) * 2, strict=True))
            assert any(a - 6 <= x1 and b - 6 <= y1 and x2 <= c + 6 and y2 <= d + 6 for a, b, c, d in owned)


def test_photos_and_tiles_can_be_chosen(cache_dir, rows):
    few = read(SourceParams(photos=["SOAP_061", TEST_PHOTO], tiles_per_photo=2), cache_dir)
    known = {row["id"]: row for row in rows}
    assert [row["photo"] for row in few] == [TEST_PHOTO, TEST_PHOTO, "SOAP_061"]
    assert all(known[row["id"]] == row for row in few)
    spread = read(SourceParams(photos=["SOAP_061", LARGEST], tiles_per_photo=12, spread=True), cache_dir)
    there = [(row["left"], row["top"]) for row in spread if row["photo"] == LARGEST]
    every = [(row["left"], row["top"]) for row in rows if row["photo"] == LARGEST]
    assert len(there) == 12 and there == [place for place in every if place in there] != every[:12]
    assert max(top for _, top in there) > 1_500, "of the lower third, too"
    with pytest.raises(StageFailed, match=r"there is no SOAP_062\. There are: .*OSBS_029"):
        read(SourceParams(photos=["SOAP_062"]), cache_dir)


def test_limit_keeps_whole_photos(tmp_path, cache_dir):
    done = raw(out=tmp_path, params=RawParams(limit_groups=2), source=source, cache=cache_dir, labels=tmp_path / "none")
    assert done.metadata["groups"] == 2 and done.rows in {2, 13, 43, 54}


# --- sets of people

PHOTO = meadow(90, 120)


def coco(
    folder: Path, boxes: list[tuple], data: bytes | None = None, size: tuple | None = (120, 90), **more
) -> list[dict]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.png").write_bytes(saved(PHOTO) if data is None else data)
    notes = [{"image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]} for x1, y1, x2, y2 in boxes]
    sizes = dict(zip(("width", "height"), size, strict=True)) if size else {}
    said = {
        "images": [{"id": 1, "file_name": "a.png", **sizes}],
        "annotations": notes,
        "categories": [{"id": 1, "name": "Palm"}],
    }
    (folder / "a.json").write_text(json.dumps(said))
    params = {
        "kind": "coco",
        "path": str(folder / "a.json"),
        "pictures": str(folder),
        "labels": {"Palm": "tree"},
        **more,
    }
    return read(SourceParams(**params))


def test_a_small_photo_is_one_row_with_its_file_as_it_came(tmp_path):
    (row,) = coco(tmp_path, [(10, 20, 30, 50)])
    assert row["image"] == saved(PHOTO) and (row["width"], row["height"], row["core"]) == (120, 90, [0, 0, 120, 90])
    assert row["boxes"] == [{"x1": 10, "y1": 20, "x2": 30, "y2": 50, "label": "tree", "crowd": False, "owned": True}]
    (empty,) = coco(tmp_path / "empty", [])
    assert empty["boxes"] == [] and empty["problem"] is None and usable(empty) is None


def test_classes_are_renamed_left_out_or_objected_to(tmp_path):
    (unknown,) = coco(tmp_path, [(10, 20, 30, 50)], labels={})
    assert usable(unknown) == ("unknown_label", "box 1 of 1 (x1 10 y1 20 x2 30 y2 50): 'palm' is none of tree")
    (left_out,) = coco(tmp_path, [(10, 20, 30, 50)], ignored=["Palm"])
    assert left_out["boxes"] == []


@pytest.mark.parametrize(
    ("boxes", "reason", "detail"),
    [
        (
            [(10, 10, 30, 30), (-5, 10, 30, 30)],
            "box_outside",
            "box 2 of 2 (x1 -5 y1 10 x2 30 y2 30): it leaves the pic",
        ),
        ([(10, 10, 140, 30)], "box_outside", "it leaves the picture of 120 by 90 pixels"),
        ([(500, 500, 520, 520)], "box_outside", "box 1 of 1"),
        ([(30, 10, 10, 30)], "box_inverted", "its right or lower edge comes before the other"),
        ([(30, 10, 30, 30)], "box_empty", "it has no area"),
        ([(10, 10, 30, 30), (40, 10, 60, 30), (10, 10, 30, 30)], "box_duplicate", "box 3 of 3"),
    ],
)
def test_a_box_that_cannot_be_right_is_named(tmp_path, boxes, reason, detail):
    (row,) = coco(tmp_path, boxes)
    found = usable(row)
    assert found is not None and found[0] == reason and detail in found[1]


def test_rounding_at_the_edge_is_mended(tmp_path):
    (row,) = coco(tmp_path, [(-0.6, -1, 121, 90.4)])
    assert [corners(box) for box in row["boxes"]] == [(0, 0, 120, 90)] and usable(row) is None


def test_a_box_with_a_fault_spoils_one_tile_of_a_large_photo(tmp_path):
    data = saved(meadow(900, 900))
    found = coco(tmp_path, [(100, 100, 140, 140), (880, 880, 950, 950), (450, 40, 440, 80)], data, (900, 900))
    faults = {(row["left"], row["top"]): said for row in found if (said := usable(row))}
    assert len(found) == 9 and {reason for reason, _ in faults.values()} == {"box_outside", "box_inverted"}
    assert set(faults) == {(552, 552), (252, 0)}
    assert sum(box["owned"] for row in found for box in row["boxes"]) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (saved(PHOTO)[:3_000], "a.png: the picture is broken or cut off"),
        (b"no picture", "a.png: not a picture of a kind"),
    ],
)
def test_a_broken_file_is_a_row_with_its_name(tmp_path, content, said):
    (row,) = coco(tmp_path, [(10, 20, 30, 50)], content)
    assert row["problem"].startswith(said) and row["image"] == content and row["photo"] == "a.png"


def test_an_annotation_of_another_size_is_refused(tmp_path):
    (row,) = coco(tmp_path, [(10, 20, 30, 50)], size=(240, 180))
    assert row["problem"] == "a.png: its boxes are of a picture of 240 by 180 pixels; the file has 120 by 90"


# --- pictures that their EXIF turns

MARK = (20, 10, 50, 30)  # where the stored picture has a white rectangle


def stored(orientation: int) -> bytes:
    array = PHOTO.copy()
    array[MARK[1] : MARK[3], MARK[0] : MARK[2]] = 255
    return saved(array, "PNG", exif=exif(orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_the_stored_picture_are_turned_with_it(tmp_path, orientation):
    (row,) = coco(tmp_path, [MARK], stored(orientation), None, turned="stored")
    assert row["problem"] is None
    x1, y1, x2, y2 = (int(value) for value in corners(row["boxes"][0]))
    white = (decode(row["image"]) == 255).all(axis=2)
    assert white[y1:y2, x1:x2].all() and white.sum() == 30 * 20
    assert (row["width"], row["height"]) == ((90, 120) if orientation >= 5 else (120, 90))


def test_the_size_tells_what_the_boxes_are_of(tmp_path):
    (of_stored,) = coco(tmp_path / "a", [MARK], stored(6), (120, 90))
    (of_upright,) = coco(tmp_path / "b", [(60, 20, 80, 50)], stored(6), (90, 120))
    assert of_stored["boxes"] == of_upright["boxes"] and corners(of_upright["boxes"][0]) == (60, 20, 80, 50)


@pytest.mark.parametrize(("orientation", "size"), [(6, None), (3, (120, 90))])
def test_where_nothing_tells_the_photo_is_set_aside(tmp_path, orientation, size):
    (row,) = coco(tmp_path, [MARK], stored(orientation), size)
    assert "its EXIF turns it, and nothing tells" in row["problem"] and "source.turned" in row["problem"]
    (row,) = coco(tmp_path, [MARK], stored(orientation), size, turned="upright")
    assert row["problem"] is None and corners(row["boxes"][0]) == MARK


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.tuples(*[st.floats(0, 50)] * 4))
def test_turning_keeps_a_boxs_area_and_a_turned_picture_holds_it(orientation, values):
    x1, x2 = sorted(values[:2])
    y1, y2 = sorted(values[2:])
    found = source.turned(Box(x1, y1, x2, y2, "tree"), orientation, (60, 50))
    width, height = (50, 60) if orientation >= 5 else (60, 50)
    assert -1e-9 <= found.x1 <= found.x2 <= width + 1e-9 and -1e-9 <= found.y1 <= found.y2 <= height + 1e-9
    assert (found.x2 - found.x1) * (found.y2 - found.y1) == pytest.approx((x2 - x1) * (y2 - y1))


def test_voc_and_yolo_give_the_same_boxes(tmp_path):
    for name in ("voc", "yolo"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(saved(PHOTO))
    box = "<bndbox><xmin>13</xmin><ymin>10</ymin><xmax>36</xmax><ymax>27</ymax></bndbox>"
    (tmp_path / "voc/a.xml").write_text(
        f"<annotation><filename>a.png</filename><object><name>Tree</name>{box}</object></annotation>"
    )
    (tmp_path / "yolo/a.txt").write_text("0 0.2 0.2 0.2 0.2\n")
    (one,) = read(SourceParams(kind="voc", path=str(tmp_path / "voc")))
    (other,) = read(SourceParams(kind="yolo", path=str(tmp_path / "yolo"), names=["tree"]))
    assert one["boxes"] == other["boxes"] and corners(one["boxes"][0]) == (12, 9, 36, 27)


def test_what_does_not_go_together_is_refused():
    for wrong in ({"kind": "voc"}, {"path": "x"}, {"kind": "coco", "path": "x"}, {"names": ["tree"]}):
        with pytest.raises(ValidationError):
            SourceParams(**wrong)
    assert source.files(SourceParams()) == []


# --- feedback


def line(**changes) -> dict:
    content = {"$base64": base64.b64encode(saved(PHOTO, "JPEG")).decode()}
    return {"image": content, "boxes": [{"box": [10, 20, 30, 50], "label": "tree"}], **changes}


def test_feedback_is_one_whole_photo(tmp_path):
    found = source.labelled(
        line(boxes=[{"box": [10, 20, 30, 50], "label": "tree"}, {"x1": 0, "y1": 0, "x2": 9, "y2": 9}])
    )
    assert (found["width"], found["height"], found["core"], found["left"]) == (120, 90, [0, 0, 120, 90], 0)
    assert [corners(box) for box in found["boxes"]] == [(10, 20, 30, 50), (0, 0, 9, 9)]
    assert all(box["owned"] and box["label"] == "tree" for box in found["boxes"])
    assert source.labelled(line(boxes=[]))["boxes"] == []
    large = source.labelled(line(image={"$base64": base64.b64encode(encode_png(meadow(1_200, 1_600))).decode()}))
    assert large["core"] == [0, 0, 1_600, 1_200]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"boxes": None}, "boxes: a list is needed"),
        ({"boxes": [3]}, r"boxes\[0\]: 3 is not a box"),
        ({"boxes": [{"box": [1, 2, 3]}]}, r"boxes\[0\]: x1, y1, x2, y2 must be numbers"),
        ({"boxes": [{"x1": 1, "y1": True, "x2": 2, "y2": 2}]}, "must be numbers"),
        ({"boxes": [{"box": [1, 2, 3, 4], "label": 7}]}, "label must be text"),
        ({"image": "a.png"}, "image: the bytes of a picture are needed"),
        ({"image": {"$base64": "aGk="}}, "not a picture of a kind"),
    ],
)
def test_a_fault_in_feedback_is_named(changes, said):
    with pytest.raises(ValueError, match=said):
        source.labelled(line(**changes))
