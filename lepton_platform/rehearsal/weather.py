"""Aerial photos in worse light: real ones, made darker and hazier by a fixed recipe; and pieces of a tile as a user's photo."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_platform.data.images import decode, encode_png
from lepton_platform.data.tiling import tiles

if TYPE_CHECKING:
    from lepton_platform.data.images import Picture

PIECE_PX = 232  # about the side of a piece: a view of the drift check has room in it
VISIBLE = 0.5  # of a box: of which less shows in a piece, nobody would draw
Rectangle = tuple[int, int, int, int]  # x1, y1, x2, y2
Tile = Mapping[str, Any]  # a record of the task trees


def fog(photo: "Picture") -> "Picture":
    """Two fifths of the light come from the air."""
    return (photo * 0.6 + 205 * 0.4).round().astype(np.uint8)


def dusk(photo: "Picture") -> "Picture":
    """Half of the light, bluer, and shadows that are deeper."""
    light = (photo / 255) ** 1.2 * 255 * 0.5 * np.array([0.95, 0.95, 1.1])
    return np.clip(light, 0, 255).round().astype(np.uint8)


def pieces(tile: Tile, known: Sequence[Tile]) -> Iterator[tuple["Picture", list[dict[str, Any]]]]:
    """What of the tile's core no known tile shows, in pieces that do not overlap, each with its boxes as people say them.

    That is ``{"box": [x1, y1, x2, y2], "label": "tree"}``. Tiles reach into their neighbours' cores by a margin: it is left out.
    """
    shown = [_moved((0, 0, one["width"], one["height"]), one, tile) for one in known if one["photo"] == tile["photo"]]
    left, top, right, bottom = _unseen(tuple(tile["core"]), shown)
    picture = decode(tile["image"])[top:bottom, left:right]
    if not picture.size:
        return
    for piece in tiles(right - left, bottom - top, PIECE_PX, 0):
        boxes = []
        for box in tile["boxes"]:
            corners = box["x1"] - left, box["y1"] - top, box["x2"] - left, box["y2"] - top
            seen = piece.cut(corners)
            if seen is not None and _area(seen) >= VISIBLE * _area(corners):
                boxes.append({"box": list(seen), "label": box["label"]})
        yield picture[piece.top : piece.top + piece.height, piece.left : piece.left + piece.width], boxes


def _moved(rectangle: Rectangle, source: Tile, target: Tile) -> Rectangle:
    """A rectangle of one tile in pixels of another of the same photo."""
    x, y = source["left"] - target["left"], source["top"] - target["top"]
    x1, y1, x2, y2 = rectangle
    return x1 + x, y1 + y, x2 + x, y2 + y


def _unseen(whole: Rectangle, shown: Sequence[Rectangle]) -> Rectangle:
    """``whole`` without what is shown: of each it is cut on the side where most is left."""
    for x1, y1, x2, y2 in shown:
        left, top, right, bottom = whole
        if x1 < right and left < x2 and y1 < bottom and top < y2:
            ways = (x2, top, right, bottom), (left, y2, right, bottom), (left, top, x1, bottom), (left, top, right, y1)
            whole = max(ways, key=lambda way: _area(way) if way[0] < way[2] and way[1] < way[3] else 0)
            if whole[0] >= whole[2] or whole[1] >= whole[3]:
                return 0, 0, 0, 0
    return whole


def _area(corners: tuple[float, float, float, float]) -> float:
    x1, y1, x2, y2 = corners
    return (x2 - x1) * (y2 - y1)


def as_file(photo: "Picture") -> bytes:
    return encode_png(np.ascontiguousarray(photo))


def others_boxes(rows: Sequence[Mapping[str, Any]], column: str) -> list[Any]:
    """For each row (``width``, ``height``, boxes) those of the next larger one, of the largest those of the smallest.

    They are stretched with the picture, so that they lie in it: whoever looks at one row sees nothing wrong.
    """
    order = sorted(range(len(rows)), key=lambda n: (rows[n]["width"], rows[n]["height"], n))
    found: list[Any] = [None] * len(rows)
    for mine, other in zip(order, [*order[1:], *order[:1]], strict=True):
        across, down = (rows[mine][side] / rows[other][side] for side in ("width", "height"))
        by = {"x1": across, "x2": across, "y1": down, "y2": down}
        found[mine] = [box | {name: box[name] * factor for name, factor in by.items()} for box in rows[other][column]]
    return found
