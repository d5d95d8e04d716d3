"""What can drift in aerial photos: light, air, focus, compression, what grows there, and what the model finds.

A photo is looked at through one view of 160 pixels at a place that its content decides, and mostly at a quarter of its
size: at the scale of a tree, not of a pixel. Photos of two flights differ most in their finest detail.

Few photos cannot tell how photos differ. Where there are fewer than ``MANY``, each view of the reference is given an
ordinary difference in light, colours, focus and compression, drawn by its place; views of one part of a photo count as
one group. Thresholds measured on that, and ``drift.min_distance`` on top of them, say what is more than a difference.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lepton_platform.data.image_statistics import descriptors, statistics
from lepton_platform.data.images import encode_png, size_of
from lepton_platform.monitoring.signals import Signals
from lepton_platform.tasks.trees.preprocess import CONTENT, decode

if TYPE_CHECKING:
    from lepton_platform.data.images import Picture

GROUP = "place"  # a photo's part, in what `reference` returns; parts resemble themselves
VIEW_PX = 160
SHRINK = 4  # a tree of 40 pixels becomes one of ten
CELL_PX = 100  # answers are compared cell by cell: a dozen tiles are too few
BLOCK_PX = 500  # of a photo, what counts as one place
MANY = 20  # photos: from here on they tell themselves how photos differ
VIEWS = 500  # of the reference, about: where there are few photos, each view comes up to four times
# Haze, too: the darkest of some pixels is darker the finer the detail, so that a sharp photo would be a clear one
AT_TREE_SCALE = ("brightness", "sharpness", "saturation", "colourfulness", "excess_green", "haze")
AT_FULL_SCALE = ("blockiness",)


def reference(rows: pa.Table) -> pa.Table:
    """What photos, or answers, are compared with: views of the training rows; cells of the held-out answers."""
    return _views_of(rows) if CONTENT in rows.column_names else _cells_of(rows)


def inputs(rows: pa.Table, downloads: Path) -> Signals:
    """What can be measured in a view of each photo, and its descriptor; ``rows`` (N, …) has the column ``image``."""
    views = [_view(decode(data), data) for data in rows[CONTENT].to_pylist()]
    small = [_shrunk(view) for view in views]
    numbers = statistics(small, AT_TREE_SCALE) | statistics(views, AT_FULL_SCALE)
    return Signals(numbers, vectors={"descriptor": descriptors(small)})


def answers(rows: pa.Table) -> Signals:
    """Of a cell of each photo: how many trees are found on 100 by 100 pixels, how surely, and how large; 0 for none.

    ``rows`` has ``boxes`` and ``width`` and ``height``, or ``image``, whose header tells them.
    """
    found = [_counted(row) for row in rows.to_pylist()]
    names = ("trees", "score", "area_px")
    return Signals({name: np.array([one[at] for one in found], dtype=np.float64) for at, name in enumerate(names)})


def counted(rows: pa.Table) -> Signals:
    """Of every row of the log that has the photo's size; without it, a cell cannot be drawn."""
    return answers(rows.filter(rows["width"].is_valid())) if "width" in rows.column_names else Signals()


def _view(picture: "Picture", content: bytes) -> "Picture":
    """VIEW_PX by VIEW_PX of the picture, or what there is of it; where, is drawn by the content's hash."""
    height, width = picture.shape[:2]
    draw = int.from_bytes(sha256(content).digest()[:8], "big")
    top, rest = draw % (max(height - VIEW_PX, 0) + 1), draw // (max(height - VIEW_PX, 0) + 1)
    left = rest % (max(width - VIEW_PX, 0) + 1)
    return picture[top : top + VIEW_PX, left : left + VIEW_PX]


def _shrunk(picture: "Picture") -> "Picture":
    from PIL import Image

    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).reduce(SHRINK))


def _views_of(rows: pa.Table) -> pa.Table:
    photos = len(set(rows["photo"].to_pylist()))
    few = photos < MANY
    views = [view for row in rows.to_pylist() for view in _views_of_row(row, few)]
    copies = min(max(round(VIEWS / max(len(views), 1)), 1), 4) if few else 1
    table: dict[str, list[Any]] = {"image": [], "place": []}
    for place, view in views:
        for copy in range(copies):
            varied = _varied(view, f"{copy} {sha256(view.tobytes()).hexdigest()}") if few else view
            table["image"].append(encode_png(varied))
            table["place"].append(place)
    return pa.table(table)


def _views_of_row(row: Mapping[str, Any], few: bool) -> Iterator[tuple[str, "Picture"]]:
    """The views that the row's core has room for, evenly over it: cores do not overlap, so no pixel is seen twice.

    Of many photos one view a row is enough.
    """
    picture = decode(row[CONTENT])
    if not few:
        yield row["photo"], _view(picture, row[CONTENT])
        return
    x1, y1, x2, y2 = row["core"]
    for top in _starts(y1, y2):
        for left in _starts(x1, x2):
            place = f"{row['photo']} {(row['left'] + left) // BLOCK_PX},{(row['top'] + top) // BLOCK_PX}"
            yield place, picture[top : min(top + VIEW_PX, y2), left : min(left + VIEW_PX, x2)]


def _starts(low: int, high: int) -> list[int]:
    count = max((high - low) // VIEW_PX, 1)
    return [low + max(high - low - VIEW_PX, 0) * n // max(count - 1, 1) for n in range(count)]


def _varied(view: "Picture", draw: str) -> "Picture":
    """The view as another flight on another day might have brought it. Drawn by ``draw``, the same every time."""
    from PIL import Image

    rng = np.random.default_rng(int.from_bytes(sha256(draw.encode()).digest()[:8], "big"))
    height, width = view.shape[:2]
    detail = rng.uniform(0.7, 1.0)  # ground resolution and focus
    coarse = (max(round(width * detail), 1), max(round(height * detail), 1))
    image = Image.fromarray(np.ascontiguousarray(view)).resize(coarse, Image.Resampling.BILINEAR)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).astype(np.float32)
    for centre, low, high in ((pixels.mean(axis=2, keepdims=True), 0.75, 1.25), (pixels.mean(), 0.85, 1.15)):
        pixels = centre + (pixels - centre) * np.float32(rng.uniform(low, high))  # saturation, then contrast
    pixels = (
        pixels * np.float32(rng.uniform(0.8, 1.2)) * rng.uniform(0.92, 1.08, 3).astype(np.float32)
    )  # light, its colour
    varied = np.clip(pixels, 0, 255).round().astype(np.uint8)
    quality = int(rng.integers(50, 96))
    return varied if rng.random() < 0.25 else _compressed(varied, quality)


def _compressed(picture: "Picture", quality: int) -> "Picture":
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return decode(file.getvalue())


def _cells_of(rows: pa.Table) -> pa.Table:
    """Held-out answers, cut into cells; those of one row are one place."""
    cells = [
        {"place": row["id"], "boxes": json.dumps([_corners(box) for box in inside]), "width": wide, "height": high}
        for row in rows.to_pylist()
        for inside, wide, high in _cells(_boxes(row), row["core"])
    ]
    schema = pa.schema(
        [("place", pa.string()), ("boxes", pa.string()), ("width", pa.float64()), ("height", pa.float64())]
    )
    return pa.Table.from_pylist(cells, schema)


def _cells(boxes: Sequence[Any], core: Sequence[float]) -> list[tuple[list[Any], float, float]]:
    """The boxes of each cell by their centres, with the cell's width and height: about CELL_PX, equal over the core."""
    x1, y1, x2, y2 = core
    columns, rows = (max(round(side / CELL_PX), 1) for side in (x2 - x1, y2 - y1))
    wide, high = (x2 - x1) / columns, (y2 - y1) / rows
    found: list[list[Any]] = [[] for _ in range(columns * rows)]
    for box in boxes:
        left, top, right, bottom, _ = box
        column = min(max(int(((left + right) / 2 - x1) // wide), 0), columns - 1)
        row = min(max(int(((top + bottom) / 2 - y1) // high), 0), rows - 1)
        found[row * columns + column].append(box)
    return [(inside, wide, high) for inside in found]


def _counted(row: Mapping[str, Any]) -> tuple[float, float, float]:
    boxes = _boxes(row)
    if "place" in row:
        inside, wide, high = boxes, row["width"], row["height"]
    else:
        cells = _cells(boxes, (0, 0, *_size(row, boxes)))
        draw = int.from_bytes(sha256(str(row.get("id")).encode()).digest()[:8], "big")
        inside, wide, high = cells[draw % len(cells)]
    if not inside:
        return 0.0, 0.0, 0.0
    areas = [(right - left) * (bottom - top) for left, top, right, bottom, _ in inside]
    return len(inside) * CELL_PX**2 / (wide * high), float(np.mean([box[4] for box in inside])), float(np.median(areas))


def _size(row: Mapping[str, Any], boxes: Sequence[Sequence[float]]) -> tuple[float, float]:
    if row.get("width") and row.get("height"):
        return row["width"], row["height"]
    if row.get(CONTENT):
        return size_of(row[CONTENT])
    return max((box[2] for box in boxes), default=1), max((box[3] for box in boxes), default=1)


def _boxes(row: Mapping[str, Any]) -> list[tuple[float, float, float, float, float]]:
    """x1, y1, x2, y2, score of the answered boxes: structs or objects, or JSON of them; corners by name or as ``box``."""
    said = row["boxes"]
    said = json.loads(said) if isinstance(said, str | bytes) else said or []
    return [_corners(box) for box in said]


def _corners(box: Any) -> tuple[float, float, float, float, float]:
    if isinstance(box, Mapping):
        corners = box.get("box") or [box[name] for name in ("x1", "y1", "x2", "y2")]
        return (*map(float, corners), float(box["score"]))  # pyright: ignore[reportReturnType]
    return tuple(map(float, box))  # pyright: ignore[reportReturnType]
