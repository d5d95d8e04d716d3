"""Annotated sets as tools write them: right where they are right, and a fault costs its own picture alone."""

import json
import re
from pathlib import Path

import pytest

from lepton_platform.data import annotations
from lepton_platform.data.annotations import Annotated, Box
from lepton_platform.stage import StageFailed
from tests.data.pictures import meadow, saved


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(saved(meadow(40, 60, seed), "JPEG" if path.suffix == ".jpg" else "PNG"))
    return path


def by_name(found) -> dict[str, Annotated]:
    found = list(found)
    assert len({one.name for one in found}) == len(found)
    return {one.name: one for one in found}


# --- COCO


def coco(folder: Path, **changes) -> list[Annotated]:
    said = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 60, "height": 40, "date_captured": "2020-05-01 10:00:00"},
            {"id": 2, "file_name": "b/b.png", "width": 60, "height": 40},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 5, 20, 30], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 8, "bbox": [0.5, 0.5, 4, 4], "iscrowd": 1, "segmentation": {}},
        ],
        "categories": [{"id": 7, "name": "tree"}, {"id": 8, "name": "bush"}],
        **changes,
    }
    for name in ("a.png", "b/b.png"):
        picture(folder / "photos" / name)
    (folder / "instances.json").write_text(json.dumps(said))
    return list(annotations.coco(folder / "instances.json", folder / "photos"))


def test_coco_boxes_crowds_and_pictures_without_any(tmp_path):
    a, b = coco(tmp_path)
    assert (a.name, a.size, a.time, a.problem) == ("a.png", (60, 40), "2020-05-01 10:00:00", None)
    assert a.boxes == (Box(10, 5, 30, 35, "tree"), Box(0.5, 0.5, 4.5, 4.5, "bush", crowd=True))
    assert (b.name, b.boxes, b.problem) == ("b/b.png", (), None) and b.path.is_file()


IMAGE = {"id": 1, "file_name": "a.png", "width": 60, "height": 40}
GOOD = {"id": 9, "file_name": "b/b.png"}
NOTE = {"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("images", "notes", "said"),
    [
        ([IMAGE], [{**NOTE, "bbox": [1, 2, 3]}], r"annotations\[0\]: bbox \[1, 2, 3\] is not four numbers"),
        ([IMAGE], [NOTE, {**NOTE, "bbox": [1, 2, None, 4]}], r"annotations\[1\]: bbox"),
        ([IMAGE], [{**NOTE, "bbox": "1 2 3 4"}], "is not four numbers"),
        ([IMAGE], [{**NOTE, "category_id": 99}], "there is no category 99"),
        ([IMAGE], [{**NOTE, "image_id": 5}], r"annotations\[0\]: it is of image 5, which is not in the file \(1 ann"),
        ([IMAGE], ["annotation"], "it is of no image"),
        ([{**IMAGE, "file_name": "c.png"}], [], "there is no picture c.png"),
        ([{**IMAGE, "file_name": "../instances.json"}], [], "leads out of the pictures' folder"),
        ([{**IMAGE, "file_name": "/etc/hostname"}], [], "leads out of the pictures' folder"),
        ([{"id": 1}], [], r"images\[0\]: no file_name"),
        ([{"file_name": "a.png"}], [], "it has no id"),
        ([{**IMAGE, "id": 4}, IMAGE, IMAGE], [], r"images\[1\]: an earlier image has the file a.png"),
        ([IMAGE, {**GOOD, "id": 1}], [], "an earlier image has the id 1"),
        ([3], [], "it has no id"),
    ],
)
def test_a_fault_in_a_coco_file_costs_its_own_picture(tmp_path, images, notes, said):
    found = coco(tmp_path, images=[*images, GOOD], annotations=notes)
    problems = [one.problem for one in found if one.problem]
    assert problems and any(re.search(said, problem) for problem in problems)
    assert any(one.problem is None for one in found)


def test_a_file_that_is_not_coco_is_named(tmp_path):
    for content in ("[]", "{", '{"images": []}', '{"images": [], "annotations": [], "categories": [{"id": 1}]}'):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(StageFailed, match=r"x\.json"):
            list(annotations.coco(tmp_path / "x.json", tmp_path))
    with pytest.raises(StageFailed, match=r"no file .*none\.json"):
        list(annotations.coco(tmp_path / "none.json", tmp_path))


def test_a_coco_file_that_does_not_know_a_size_tells_none(tmp_path):
    (only, _) = coco(tmp_path, images=[{**IMAGE, "width": 0}, GOOD], annotations=[])
    assert only.size is None


# --- Pascal VOC

VOC = """<annotation><filename>{name}</filename><size><width>60</width><height>40</height><depth>3</depth></size>
{objects}</annotation>"""
OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>
<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""


def voc_object(box=(1, 1, 60, 40), name="tree", difficult=0) -> str:
    return OBJECT.format(box=box, name=name, difficult=difficult)


def test_voc_counts_from_one_and_difficult_is_a_crowd(tmp_path):
    picture(tmp_path / "a.png")
    objects = voc_object() + voc_object((11, 6, 30, 35), "bush", 1)
    (tmp_path / "a.xml").write_text(VOC.format(name="a.png", objects=objects))
    (found,) = annotations.voc(tmp_path)
    assert found.boxes == (Box(0, 0, 60, 40, "tree"), Box(10, 5, 30, 35, "bush", crowd=True))
    assert (found.name, found.path, found.size, found.problem) == ("a.png", tmp_path / "a.png", (60, 40), None)


def test_voc_as_the_challenge_lays_it_out_and_pictures_by_another_ending(tmp_path):
    picture(tmp_path / "JPEGImages/a.jpg")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/a.xml").write_text(VOC.format(name="a.tif", objects=""))
    (found,) = annotations.voc(tmp_path)
    assert (found.name, found.boxes, found.problem) == ("JPEGImages/a.jpg", (), None)


LAUGHS = (
    '<!DOCTYPE a [<!ENTITY b "'
    + "x" * 50
    + '">'
    + "".join(f'<!ENTITY {chr(99 + n)} "{f"&{chr(98 + n)};" * 40}">' for n in range(8))
    + "]><annotation>&j;</annotation>"
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<annotation>", "not XML that can be read"),
        (LAUGHS, "not XML that can be read"),
        (VOC.format(name="a.png", objects=voc_object(("a", 1, 2, 3))), "object 1: its bndbox is not four numbers"),
        (VOC.format(name="a.png", objects=voc_object(("nan", 1, 2, 3))), "object 1: its bndbox is not four numbers"),
        (VOC.format(name="a.png", objects="<object><name>tree</name></object>"), "bndbox is not four numbers"),
        (VOC.format(name="a.png", objects=voc_object(name="")), "object 1: it has no name"),
        (VOC.format(name="c.png", objects=""), "there is no picture c.png"),
    ],
)
def test_a_fault_in_a_voc_file_costs_its_own_picture(tmp_path, content, said):
    for name in "az":
        picture(tmp_path / f"{name}.png")
    (tmp_path / "z.xml").write_text(VOC.format(name="z.png", objects=voc_object()))
    (tmp_path / ("b.xml" if "c.png" in content else "a.xml")).write_text(content)
    found = by_name(annotations.voc(tmp_path))
    assert found.pop("z.png").problem is None
    assert [said in one.problem for one in found.values()] == [True]


def test_two_voc_files_of_one_picture_are_not_two_pictures(tmp_path):
    picture(tmp_path / "a.png")
    for name in ("a", "b"):
        (tmp_path / f"{name}.xml").write_text(VOC.format(name="a.png", objects=voc_object()))
    found = by_name(annotations.voc(tmp_path))
    assert found["a.png"].problem is None and "an earlier file is of a.png too" in found["b.xml"].problem


def test_a_folder_without_annotations_says_so(tmp_path):
    with pytest.raises(StageFailed, match="has no annotation files"):
        list(annotations.voc(tmp_path))
    with pytest.raises(StageFailed, match="has no pictures"):
        list(annotations.yolo(tmp_path, ["tree"]))


# --- YOLO


def yolo(folder: Path, lines: str | None, names: list[str] | None = ("tree", "bush")) -> dict[str, Annotated]:
    picture(folder / "images/train/a.png")
    picture(folder / "images/train/b.png", 1)
    (folder / "labels/train").mkdir(parents=True, exist_ok=True)
    (folder / "labels/train/b.txt").write_text("1 0.5 0.5 0.5 1\n")
    if lines is not None:
        (folder / "labels/train/a.txt").write_text(lines)
    return by_name(annotations.yolo(folder, names))


def test_yolo_boxes_outlines_and_pictures_without_a_file(tmp_path):
    found = yolo(tmp_path, "0 0.25 0.5 0.5 0.5\n\n1 0.1 0.2 0.9 0.2 0.5 0.8\n")
    a, b = found["images/train/a.png"], found["images/train/b.png"]
    assert a.relative and a.size is None and a.problem is None
    assert a.boxes == (Box(0, 0.25, 0.5, 0.75, "tree"), Box(0.1, 0.2, 0.9, 0.8, "bush"))
    assert b.boxes == (Box(0.25, 0, 0.75, 1, "bush"),)
    assert yolo(tmp_path / "empty", None)["images/train/a.png"].boxes == ()


@pytest.mark.parametrize(
    "line", ["0 0.5 0.5 0.5", "tree 0.5 0.5 0.5 0.5", "0 0.5 0.5 0.5 inf", "0 1 1 1 1 1", "\ufffd"]
)
def test_a_line_that_is_no_box_is_named(tmp_path, line):
    found = yolo(tmp_path, f"0 0.5 0.5 0.5 0.5\n{line}\n")
    assert "a.txt line 2: " in found["images/train/a.png"].problem and found["images/train/b.png"].problem is None


@pytest.mark.parametrize("number", ["2", "-1", "0.5"])
def test_a_class_that_has_no_name_is_named(tmp_path, number):
    assert f"there is no class {number}" in yolo(tmp_path, f"{number} .5 .5 .5 .5")["images/train/a.png"].problem


def test_labels_without_a_picture_are_not_lost(tmp_path):
    picture(tmp_path / "images/a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/lost.txt").write_text("0 .5 .5 .5 .5")
    found = by_name(annotations.yolo(tmp_path, ["tree"]))
    assert found["labels/lost.txt"].problem == "labels/lost.txt: there is no picture of this name"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("data.yaml", "names: [tree, bush]\nnc: 2\n"),
        ("data.yaml", "names:\n  0: tree\n  1: bush\n"),
        ("classes.txt", "tree\nbush\n"),
    ],
)
def test_yolo_names_are_found_where_tools_write_them(tmp_path, file, content):
    (tmp_path / file).write_text(content)
    assert yolo(tmp_path, "0 .5 .5 .5 .5", None)["images/train/b.png"].boxes[0].label == "bush"


def test_yolo_names_that_nobody_tells_are_asked_for(tmp_path):
    (tmp_path / "data.yaml").write_text("names: {tree: 0}\n")
    with pytest.raises(StageFailed, match=r"source\.names"):
        yolo(tmp_path, "", None)
