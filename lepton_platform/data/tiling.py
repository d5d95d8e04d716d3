"""Large pictures as tiles. The cores cover the picture exactly, without overlap; a tile is its core and a margin.

What stands at a core's edge is seen whole in the margin, and is counted by the one tile whose core holds its centre:
so what is counted tile by tile is counted once a picture. Pure Python: the service cuts with it too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

WHOLE = 1.25  # tiles: a picture that is no longer is not cut
Corners = tuple[float, float, float, float]  # x1, y1, x2, y2


@dataclass(frozen=True)
class Tile:
    """A rectangle of a picture, in its pixels; ``core`` (x1, y1, x2, y2) is in pixels of the tile."""

    left: int
    top: int
    width: int
    height: int
    core: tuple[int, int, int, int]

    def owns(self, x: float, y: float) -> bool:
        """Does the core hold the point (in pixels of the picture)? Of its edges, the left and the upper are its own."""
        x1, y1, x2, y2 = self.core
        return x1 <= x - self.left < x2 and y1 <= y - self.top < y2

    def cut(self, box: Corners) -> Corners | None:
        """The part of a box of the picture that shows in the tile, in pixels of the tile; ``None`` if none does."""
        x1, x2 = (min(max(x - self.left, 0), self.width) for x in (box[0], box[2]))
        y1, y2 = (min(max(y - self.top, 0), self.height) for y in (box[1], box[3]))
        return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None

    def shifted(self, box: Corners) -> Corners:
        """A box of the picture in pixels of the tile, whether it shows there or not."""
        return box[0] - self.left, box[1] - self.top, box[2] - self.left, box[3] - self.top


def tiles(width: int, height: int, tile_px: int, margin_px: int) -> list[Tile]:
    """The tiles of a picture, row by row.

    A side of at most ``WHOLE`` tiles stays whole; a longer one is cut into cores of equal length (to a pixel) of at
    most ``tile_px``. The margin is ``margin_px`` on every side where the picture goes on so far.
    """
    if width < 1 or height < 1 or tile_px < 1 or margin_px < 0:
        raise ValueError(f"no tiles of {tile_px} px with {margin_px} px of margin in {width} by {height} px")
    columns, rows = (_spans(side, tile_px, margin_px) for side in (width, height))
    return [
        Tile(x.start, y.start, x.size, y.size, (x.core[0], y.core[0], x.core[1], y.core[1]))
        for y in rows
        for x in columns
    ]


def owner(found: Sequence[Tile], box: Corners) -> int:
    """Which of a picture's tiles counts the box: the one whose core holds its centre, clamped into the picture."""
    width, height = max(t.left + t.width for t in found), max(t.top + t.height for t in found)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    x, y = min(max(x, 0), width - 0.5), min(max(y, 0), height - 0.5)
    return next(place for place, tile in enumerate(found) if tile.owns(x, y))


@dataclass(frozen=True)
class _Span:
    start: int
    size: int
    core: tuple[int, int]  # counted from start


def _spans(side: int, tile_px: int, margin_px: int) -> list[_Span]:
    count = 1 if side <= WHOLE * tile_px else -(-side // tile_px)
    edges = [side * n // count for n in range(count + 1)]
    spans = []
    for low, high in pairwise(edges):
        start, end = max(low - margin_px, 0), min(high + margin_px, side)
        spans.append(_Span(start, end - start, (low - start, high - start)))
    return spans
