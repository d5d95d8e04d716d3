"""Sets of pictures with boxes as people have them: COCO JSON, Pascal VOC, YOLO. One ``Annotated`` a picture.

What is wrong with one picture or one of its boxes costs that picture only, by its ``problem``. What makes the set
unusable is a ``StageFailed`` that names the file. Boxes are x1, y1, x2, y2 in pixels from the upper left corner,
the right and lower edges outside, as they are written: whether they lie in the picture is for others to check.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from lepton_platform.data.records import short
from lepton_platform.stage import StageFailed

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
_POLYGON = 7  # a class and three points: the shortest outline


@dataclass(frozen=True)
class Box:
    """``label`` as the set calls it. ``crowd``: a region that neither counts as missed nor as found."""

    x1: float
    y1: float
    x2: float
    y2: float
    label: str
    crowd: bool = False


@dataclass(frozen=True)
class Annotated:
    """A picture and its boxes; none of them is an answer too: there is nothing to find.

    ``name``: relative path in the set, unique there. ``size``: (width, height) that the annotation tells, if it does.
    ``relative``: the boxes are shares of the picture's width and height, not pixels.
    """

    name: str
    path: Path | None
    boxes: tuple[Box, ...] = ()
    size: tuple[int, int] | None = None
    time: str | None = None
    problem: str | None = None
    relative: bool = False


def coco(file: Path, pictures: Path) -> Iterator[Annotated]:
    """The pictures of a COCO JSON file, ``pictures`` the folder that their names count from."""
    said = _json(file)
    names = _coco_names(said, file)
    of_image: defaultdict[Any, list[tuple[int, Any]]] = defaultdict(list)
    for number, one in enumerate(_list(said, "annotations", file)):
        of_image[_key(one.get("image_id")) if isinstance(one, dict) else None].append((number, one))
    ids: set[Any] = set()
    files: set[str] = set()
    for number, image in enumerate(_list(said, "images", file)):
        where, image = f"{file.name} images[{number}]", image if isinstance(image, dict) else {}
        key, name = _key(image.get("id")), image.get("file_name")
        problems: list[str] = []
        if key is None or key in ids:
            problems.append(f"{where}: {'it has no id' if key is None else f'an earlier image has the id {key}'}")
        path = _inside(pictures, name, where, problems)
        if path is not None and name in files:
            problems.append(f"{where}: an earlier image has the file {name}")
        boxes = _coco_boxes(of_image.pop(key, []) if key is not None else [], names, file.name, problems)
        unique = where if path is None or name in files else str(name)
        ids.add(key)
        files.add(unique)
        size, time = _size(image.get("width"), image.get("height")), image.get("date_captured")
        time = time if isinstance(time, str) and time else None
        yield Annotated(unique, path, boxes, size, time, "; ".join(problems) or None)
    for key, strays in of_image.items():
        where = f"{file.name} annotations[{strays[0][0]}]"
        of = "no image" if key is None else f"image {key}, which is not in the file"
        yield Annotated(where, None, problem=f"{where}: it is of {of} ({len(strays)} annotations)")


def _coco_names(said: Mapping[str, Any], file: Path) -> dict[Any, str]:
    found = _list(said, "categories", file)
    try:
        return {_key(one["id"]): str(one["name"]) for one in found}
    except (TypeError, KeyError):
        raise StageFailed(f"{file}: every one of its categories needs an id and a name.") from None


def _coco_boxes(
    numbered: Sequence[tuple[int, Any]], names: Mapping[Any, str], file: str, problems: list[str]
) -> tuple[Box, ...]:
    boxes = []
    for number, one in numbered:
        where, category, box = f"{file} annotations[{number}]", _key(one.get("category_id")), one.get("bbox")
        if not _numbers(box, 4):
            problems.append(f"{where}: bbox {short(box)} is not four numbers")
        elif category not in names:
            problems.append(f"{where}: there is no category {short(one.get('category_id'))}")
        else:
            x, y, width, height = map(float, box)
            boxes.append(Box(x, y, x + width, y + height, names[category], one.get("iscrowd") in (1, True)))
    return tuple(boxes)


def voc(folder: Path) -> Iterator[Annotated]:
    """Pascal VOC: an XML file a picture, beside it or in ``Annotations`` with the pictures in ``JPEGImages``.

    VOC counts pixels from 1 and its last pixel is inside: 1 is taken off the left and upper edges. What it calls
    difficult is not counted, as a crowd is not.
    """
    notes = folder / "Annotations"
    apart = notes.is_dir()
    files = sorted((notes if apart else folder).rglob("*.xml"))
    if not files:
        raise StageFailed(f"{folder} has no annotation files (*.xml), nor has a folder Annotations in it.")
    names: set[str] = set()
    for file in files:
        found = voc_file(file, folder / "JPEGImages" if apart else file.parent)
        name, problem = _relative(found.path or file, folder), found.problem
        if name in names:
            name, problem = _relative(file, folder), f"{file.name}: an earlier file is of {name} too"
        names.add(name)
        yield replace(found, name=name, problem=problem)


def voc_file(file: Path, pictures: Path) -> Annotated:
    """One VOC file; its picture is the one it names in ``pictures``, or has its own name and another ending."""
    try:
        root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        return Annotated(file.name, None, problem=f"{file.name}: not XML that can be read: {error}")
    problems: list[str] = []
    named = (root.findtext("filename") or "").strip()
    choices = [pictures / PurePosixPath(named).name] if named else []
    choices += [pictures / (file.stem + suffix) for suffix in (*SUFFIXES, *map(str.upper, SUFFIXES))]
    path = next((choice for choice in choices if choice.is_file()), None)
    if path is None:
        problems.append(f"{file.name}: there is no picture {named or file.stem}")
    boxes = []
    for number, found in enumerate(root.iter("object"), start=1):
        where = f"{file.name} object {number}"
        read = [_number(found.findtext(f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax")]
        corners = [value for value in read if value is not None]
        label = (found.findtext("name") or "").strip()
        if len(corners) < 4:
            problems.append(f"{where}: its bndbox is not four numbers")
        elif not label:
            problems.append(f"{where}: it has no name")
        else:
            x1, y1, x2, y2 = corners
            difficult = (found.findtext("difficult") or "0").strip() == "1"
            boxes.append(Box(x1 - 1, y1 - 1, x2, y2, label, difficult))
    size = _size(_number(root.findtext("size/width")), _number(root.findtext("size/height")))
    return Annotated(file.name, path, tuple(boxes), size, None, "; ".join(problems) or None)


def yolo(folder: Path, names: Sequence[str] | None = None) -> Iterator[Annotated]:
    """YOLO: pictures anywhere in ``folder``, each with a .txt of its name beside it or below ``labels`` for ``images``.

    A line is the class's number, then the box's centre, width and height as shares of the picture's; or an outline,
    whose box is taken. A picture without a file holds nothing. ``names`` of the classes: data.yaml's or classes.txt's
    if not given.
    """
    names = list(names) if names else _yolo_names(folder)
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not pictures:
        raise StageFailed(f"{folder} has no pictures ({', '.join(SUFFIXES)}).")
    read: set[Path] = set()
    for path in pictures:
        file = _yolo_file(path, folder)
        problems: list[str] = []
        if file in read:
            problems.append(f"{file.name}: an earlier picture has this file too")
        boxes = _yolo_boxes(file, names, problems) if file.is_file() else []
        read.add(file)
        yield Annotated(
            _relative(path, folder), path, tuple(boxes), None, None, "; ".join(problems) or None, relative=True
        )
    notes = {folder / "classes.txt", folder / "train.txt", folder / "val.txt", folder / "test.txt"}
    for file in sorted(set(folder.rglob("*.txt")) - read - notes):
        if "labels" in file.relative_to(folder).parts:
            name = _relative(file, folder)
            yield Annotated(name, None, problem=f"{name}: there is no picture of this name")


def _yolo_file(picture: Path, folder: Path) -> Path:
    parts = list(picture.relative_to(folder).parts)
    if "images" in parts[:-1]:
        at = len(parts) - 1 - parts[::-1].index("images")
        return folder.joinpath(*parts[:at], "labels", *parts[at + 1 :]).with_suffix(".txt")
    if folder.name == "images" and (folder.parent / "labels").is_dir():
        return folder.parent.joinpath("labels", *parts).with_suffix(".txt")
    return picture.with_suffix(".txt")


def _yolo_boxes(file: Path, names: Sequence[str], problems: list[str]) -> list[Box]:
    boxes = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not (words := line.split()):
            continue
        where, values = f"{file.name} line {number}", [_number(word) for word in words]
        if None in values or not (len(values) == 5 or (len(values) >= _POLYGON and len(values) % 2)):
            problems.append(f"{where}: {short(line)} is neither a class and a box nor a class and an outline")
            continue
        label, *rest = (value for value in values if value is not None)
        if not label.is_integer() or not 0 <= label < len(names):
            problems.append(f"{where}: there is no class {words[0]}; there are {len(names)}")
            continue
        if len(rest) == 4:
            x, y, width, height = rest
            corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        else:
            corners = (min(rest[::2]), min(rest[1::2]), max(rest[::2]), max(rest[1::2]))
        boxes.append(Box(*corners, names[int(label)]))
    return boxes


def _yolo_names(folder: Path) -> list[str]:
    for place in (folder, folder.parent):
        if (lines := place / "classes.txt").is_file():
            return [line.strip() for line in lines.read_text(encoding="utf-8").splitlines() if line.strip()]
        for file in sorted((*place.glob("*.yaml"), *place.glob("*.yml"))):
            if names := _yaml_names(file):
                return names
    raise StageFailed(
        f"{folder} does not tell what its classes are called: it has no data.yaml with `names`, no classes.txt, and "
        "`source.names` of params.yaml is not set."
    )


def _yaml_names(file: Path) -> list[str] | None:
    from ruamel.yaml import YAML, YAMLError

    try:
        names = YAML(typ="safe", pure=True).load(file).get("names")
    except (YAMLError, AttributeError, OSError, ValueError):
        return None
    if isinstance(names, dict) and all(isinstance(key, int) for key in names):
        return [str(names.get(number, f"class {number}")) for number in range(max(names, default=-1) + 1)]
    return [str(name) for name in names] if isinstance(names, list) else None


def _json(file: Path) -> Mapping[str, Any]:
    try:
        said = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise StageFailed(f"There is no file {file}; relative paths count from the workspace.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise StageFailed(
            f"{file} cannot be read as JSON ({type(error).__name__}: {short(str(error), 120)})."
        ) from None
    if not isinstance(said, dict):
        raise StageFailed(f"{file} is not COCO: an object with images, annotations and categories is needed.")
    return said


def _list(said: Mapping[str, Any], name: str, file: Path) -> list[Any]:
    found = said.get(name)
    if not isinstance(found, list):
        raise StageFailed(f"{file} is not COCO: it has no list '{name}'.")
    return found


def _key(value: Any) -> Any:
    """An id as COCO files have them, numbers or text; anything else is none."""
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _numbers(value: Any, count: int) -> bool:
    if not isinstance(value, list) or len(value) != count:
        return False
    return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    """The size that an annotation tells; zero is what tools write where they did not know."""
    if _numbers([width, height], 2) and width >= 1 and height >= 1:
        return int(width), int(height)
    return None


def _inside(folder: Path, name: Any, where: str, problems: list[str]) -> Path | None:
    """The picture's path, if ``name`` is the name of a file in the folder or below it."""
    if not isinstance(name, str) or not name:
        problems.append(f"{where}: no file_name")
        return None
    path = folder / name
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        problems.append(f"{where}: {name} leads out of the pictures' folder")
    elif not path.is_file():
        problems.append(f"{where}: there is no picture {name}")
    else:
        return path
    return None


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
