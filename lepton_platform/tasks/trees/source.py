"""Where the photos come from: four that a package carries, or a user's own with boxes, by one setting.

======== ==============================================================================================
packaged 951 boxes that people drew round trees in 4 aerial photos (deepforest 2.1.0, MIT)
coco     a COCO JSON file; its crowds are not counted, its pictures without boxes are examples of nothing
voc      a folder of Pascal VOC's XML files and pictures
yolo     a folder of pictures with a .txt each
======== ==============================================================================================

A large photo comes as tiles (``data/tiling.py``). A box with a fault (inverted, outside its photo) comes as it is, in
the one tile that counts it: the stage clean sets that tile aside and names the box.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from lepton_platform.data import annotations, raw
from lepton_platform.data.annotations import Annotated, Box
from lepton_platform.data.images import as_bytes, decode, encode_png, orientation_of, size_of
from lepton_platform.data.packages import fetch_members
from lepton_platform.data.records import ID, PROBLEM, TIME, Record, content_id, hashed_time, parse_time, short
from lepton_platform.data.tables import located
from lepton_platform.data.tiling import Tile, owner, tiles
from lepton_platform.stage import StageFailed
from lepton_platform.tasks.trees.preprocess import LABELS, MARGIN_PX, TILE_PX

if TYPE_CHECKING:
    from lepton_platform.data.images import Picture

CORNERS = ("x1", "y1", "x2", "y2")
BOX = pa.struct(
    [*((name, pa.float32()) for name in CORNERS), ("label", pa.string()), ("crowd", pa.bool_()), ("owned", pa.bool_())]
)
SCHEMA = pa.schema(
    [
        ("image", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("boxes", pa.list_(BOX)),
        ("photo", pa.string()),
        ("left", pa.int32()),
        ("top", pa.int32()),
        ("core", pa.list_(pa.int32())),
    ]
)
GROUP = "photo"
ROUNDING_PX = 1.0  # a box that ends so little outside its photo was rounded outwards; it is cut

_FOLDER = "deepforest/data"
_PHOTOS = {  # name: SHA-256 of the picture, of its boxes
    "2019_YELL_2_528000_4978000_image_crop2": (
        "a9bdb0f4447fdd899d22f567e0e20ba8320c5413b2ad0cd0ac8d9f3b6e0f9767",
        "bd431af6a5086d721eb731b22f5ea28cd8a8eab06883efc1c665391acbc68e11",
    ),
    "2019_YELL_2_541000_4977000_image_crop": (
        "178e58a23cc2642226a364a30f71bd9258ddc1b012c826f12250914a90c7a131",
        "cefe4b96888bacbf8af1674f000082e549aa707aa6590d545effb23e43f26631",
    ),
    "OSBS_029": (
        "d9477c6a00e4902c7bee487d4c5582c3b8b9a2f77f3908a29628b816b291e6ee",
        "1f68c4011d7b351c29ca755072e77f3d16e6fd1f995bd05a9dd4eb952b55373c",
    ),
    "SOAP_061": (
        "256508f1a62149bec4a80879077a865caf50e8cace095e6564c76befa480d424",
        "4833280af75fd9c47965a93e38945282835e9e725cac412bdb9469d63480947c",
    ),
}
_PACKAGED_NAMES: dict[str, str] = dict.fromkeys(("Tree", "Dead", "Alive"), "tree")  # a dead tree is one too


class SourceParams(raw.SourceParams):
    """Where the photos come from. What a kind does not use may not be set."""

    kind: Literal["packaged", "coco", "voc", "yolo"] = "packaged"
    path: str = Field("", description="coco: the JSON file. voc, yolo: the folder.")
    pictures: str = Field("", description="coco: the folder that the file's names count from.")
    names: list[str] = Field(default_factory=list, description="yolo: the classes in order, if no file tells them.")
    labels: dict[str, str] = Field(default_factory=dict, description='What a tree is called there → "tree".')
    ignored: list[str] = Field(default_factory=list, description="Classes whose boxes are left out.")
    turned: Literal["ask", "upright", "stored"] = Field(
        "ask",
        description="What boxes are of where a photo's EXIF turns it: the upright or the stored picture. ask: told by the "
        "size in the annotation; set aside where that does not tell.",
    )
    photos: list[str] = Field(default_factory=list, description="Only these; all if none is named.")
    tiles_per_photo: int | None = Field(None, ge=1, description="Only so many tiles of a photo, from its upper left.")
    spread: bool = Field(False, description="tiles_per_photo: chosen by hash, from all over the photo.")

    @model_validator(mode="after")
    def _has_a_path(self) -> "SourceParams":
        if (self.kind != "packaged") != bool(self.path):
            raise ValueError("'path' goes with kind: coco, voc or yolo, and only with them")
        if (self.kind == "coco") != bool(self.pictures):
            raise ValueError("'pictures' goes with kind: coco, and only with it")
        if self.names and self.kind != "yolo":
            raise ValueError("'names' goes with kind: yolo")
        if self.spread and self.tiles_per_photo is None:
            raise ValueError("'spread' goes with tiles_per_photo")
        return self


def files(params: SourceParams) -> list[str]:
    """The files and folders of the workspace that are read; none for what is pinned."""
    return [path for path in (params.path, params.pictures) if path]


def records(params: SourceParams, cache: Path) -> Iterator[Record]:
    """Every photo or tile, in the source's order."""
    wanted, there = set(params.photos), set[str]()
    for photo in _annotated(params, cache):
        there.add(photo.name)
        if not wanted or photo.name in wanted:
            yield from _records_of(photo, params)
    if missing := sorted(wanted - there):
        raise StageFailed(
            f"source.photos: there is no {', '.join(missing)}. There are: {', '.join(sorted(there)[:20])}.",
            {"missing": missing, "photos": sorted(there)},
        )


def labelled(line: Mapping[str, Any]) -> Record:
    """A line of feedback: ``image`` (or ``input``) with its bytes under ``$base64``, and ``boxes``, one photo a row.

    A box is ``{"box": [x1, y1, x2, y2]}`` in pixels of the upright picture, or has these four by name, with ``label``
    and ``crowd`` if need be.
    """
    data = as_bytes(line.get("image", line.get("input")))
    width, height = size_of(data)
    said = line.get("boxes")
    if not isinstance(said, list):
        raise ValueError("boxes: a list is needed; an empty one where there is no tree")
    boxes = [_fed_back(box, f"boxes[{number}]") for number, box in enumerate(said)]
    (whole,) = tiles(width, height, max(width, height), 0)
    photo = f"feedback-{content_id(sha256(data).hexdigest())}"
    return {"image": data, "photo": photo, **_place(whole), "boxes": _of_tile(boxes, whole, [whole], (width, height))}


def _fed_back(said: Any, where: str) -> Box:
    if not isinstance(said, Mapping):
        raise ValueError(f"{where}: {short(said)} is not a box, as it would be with box, [x1, y1, x2, y2]")
    corners: Any = said["box"] if "box" in said else [said.get(name) for name in CORNERS]
    if not isinstance(corners, list) or len(corners) != len(CORNERS) or not all(map(_is_number, corners)):
        raise ValueError(f"{where}: {', '.join(CORNERS)} must be numbers, not {short(corners)}")
    label, crowd = said.get("label", LABELS[0]), said.get("crowd", False)
    if not isinstance(label, str) or not isinstance(crowd, bool):
        raise ValueError(f"{where}: label must be text and crowd true or false")
    x1, y1, x2, y2 = map(float, corners)
    return Box(x1, y1, x2, y2, label, crowd)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _annotated(params: SourceParams, cache: Path) -> Iterator[Annotated]:
    if params.kind == "coco":
        return annotations.coco(Path(located(params.path)), Path(located(params.pictures)))
    if params.kind == "voc":
        return annotations.voc(Path(located(params.path)))
    if params.kind == "yolo":
        return annotations.yolo(Path(located(params.path)), params.names)
    return _packaged(cache)


def _packaged(cache: Path) -> Iterator[Annotated]:
    sums = {
        f"{_FOLDER}/{name}{end}": s
        for name, both in _PHOTOS.items()
        for end, s in zip((".png", ".xml"), both, strict=True)
    }
    folder = fetch_members("deepforest", "2.1.0", sums, cache) / _FOLDER
    for name in _PHOTOS:
        found = annotations.voc_file(folder / f"{name}.xml", folder)
        boxes = tuple(replace(box, label=_PACKAGED_NAMES[box.label]) for box in found.boxes)
        yield replace(
            found, name=name, path=folder / f"{name}.png", boxes=boxes
        )  # one names a .tif of the same picture


@dataclass(frozen=True)
class _Photo:
    """A photo that can be read: upright, its boxes in its pixels."""

    pixels: "Picture"
    boxes: list[Box]

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[0]


def _records_of(found: Annotated, params: SourceParams) -> Iterator[Record]:
    data = found.path.read_bytes() if found.path is not None else None
    problem, photo, time = found.problem, None, None
    try:
        time = parse_time(found.time) if found.time else hashed_time(found.name)
    except ValueError:
        time = hashed_time(found.name)  # a tool's own way to write dates; nothing depends on it
    if problem is None and data is not None:
        try:
            photo = _photo(data, found, params)
        except ValueError as error:
            problem = f"{found.name}: {error}"
    common: Record = {"photo": found.name, TIME: time}
    if photo is None:
        yield {
            ID: content_id(params.kind, found.name),
            "image": data,
            **common,
            PROBLEM: problem or f"{found.name}: no picture",
        }
        return
    parts = tiles(*photo.size, TILE_PX, MARGIN_PX)
    named = [(content_id(params.kind, found.name, f"{tile.left},{tile.top}"), tile) for tile in parts]
    for identity, tile in _chosen(named, params):
        pixels = photo.pixels[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        yield {
            ID: identity,
            "image": data if len(parts) == 1 else encode_png(pixels),
            **common,
            **_place(tile),
            "boxes": _of_tile(photo.boxes, tile, parts, photo.size),
        }


def _chosen(named: list[tuple[str, Tile]], params: SourceParams) -> list[tuple[str, Tile]]:
    """As many tiles as are asked for, in the photo's order. Ids are hashes: the smallest lie anywhere."""
    if not params.spread:
        return named[: params.tiles_per_photo]
    last = sorted(identity for identity, _ in named)[: params.tiles_per_photo][-1]
    return [one for one in named if one[0] <= last]


def _photo(data: bytes, found: Annotated, params: SourceParams) -> _Photo:
    """``ValueError`` where the picture cannot be read, or nothing tells what its boxes are of."""
    pixels = decode(data)
    upright = pixels.shape[1], pixels.shape[0]
    orientation = orientation_of(data)
    stored = upright[::-1] if orientation >= 5 else upright
    if found.size is not None and found.size not in (upright, stored):
        raise ValueError(f"its boxes are of a picture of {_by(found.size)} pixels; the file has {_by(upright)}")
    of_stored = orientation != 1 and _of_stored(found.size, upright, stored, params.turned)
    width, height = stored if of_stored else upright
    boxes = [_named(box, params) for box in found.boxes if box.label not in params.ignored]
    if found.relative:
        boxes = [replace(b, x1=b.x1 * width, y1=b.y1 * height, x2=b.x2 * width, y2=b.y2 * height) for b in boxes]
    if of_stored:
        boxes = [turned(box, orientation, stored) for box in boxes]
    return _Photo(pixels, [_snapped(box, upright) for box in boxes])


def _of_stored(said: tuple[int, int] | None, upright: tuple[int, int], stored: tuple[int, int], rule: str) -> bool:
    if rule != "ask":
        return rule == "stored"
    if said is None or upright == stored:
        raise ValueError(
            "its EXIF turns it, and nothing tells whether its boxes are of the upright picture or of the stored one; "
            "set source.turned, or save the picture upright"
        )
    return said == stored


def turned(box: Box, orientation: int, stored: tuple[int, int]) -> Box:
    """A box of the stored picture as one of the upright picture; orientations as EXIF counts them, 1 to 8."""
    width, height = stored
    x1, x2, y1, y2 = box.x1, box.x2, box.y1, box.y2
    if orientation in (2, 3, 7, 8):
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 6, 7):
        y1, y2 = height - y2, height - y1
    if orientation >= 5:
        x1, x2, y1, y2 = y1, y2, x1, x2
    return replace(box, x1=x1, y1=y1, x2=x2, y2=y2)


def _named(box: Box, params: SourceParams) -> Box:
    known = params.labels.get(box.label, box.label)
    return replace(box, label=known if known in LABELS else known.strip().lower())


def _snapped(box: Box, size: tuple[int, int]) -> Box:
    """A corner that lies outside the photo by no more than rounding, at its edge."""

    def snap(value: float, end: int) -> float:
        return min(max(value, 0.0), float(end)) if -ROUNDING_PX <= value <= end + ROUNDING_PX else value

    width, height = size
    return replace(
        box, x1=snap(box.x1, width), y1=snap(box.y1, height), x2=snap(box.x2, width), y2=snap(box.y2, height)
    )


def _of_tile(boxes: list[Box], tile: Tile, parts: list[Tile], size: tuple[int, int]) -> list[dict[str, Any]]:
    """The boxes that show in the tile, cut to it; of those with a fault the ones that it owns, as they are."""
    width, height = size
    here = parts.index(tile)
    found = []
    for box in boxes:
        corners = box.x1, box.y1, box.x2, box.y2
        whole = 0 <= box.x1 < box.x2 <= width and 0 <= box.y1 < box.y2 <= height
        owned = owner(parts, corners) == here
        cut = tile.cut(corners) if whole else tile.shifted(corners) if owned else None
        if cut is not None:
            named = dict(zip(CORNERS, cut, strict=True))
            found.append({**named, "label": box.label, "crowd": box.crowd, "owned": owned})
    return found


def _place(tile: Tile) -> Record:
    return {"width": tile.width, "height": tile.height, "left": tile.left, "top": tile.top, "core": list(tile.core)}


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} by {size[1]}"
