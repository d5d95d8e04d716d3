"""Small pictures with boxes drawn on them, as PNGs: the same bytes for the same pixels and the same Pillow."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

COLOURS = {"right": (30, 200, 190), "wrong": (235, 60, 40), "missed": (250, 200, 40)}
_COLOURS_A_PNG = 128  # a palette makes photographs four times smaller
_GAP = 6  # pixels between the pictures of a sheet


class Drawn(NamedTuple):
    """A box xyxy in the picture's pixels, and which of ``COLOURS``."""

    corners: Sequence[float]
    colour: str


def thumbnail(picture: NDArray[np.uint8], boxes: Sequence[Drawn], side: int) -> bytes:
    """(H, W, 3) with its boxes, its longer side made ``side`` pixels."""
    return _png(_drawn(picture, boxes, side))


def sheet(pictures: Sequence[tuple[NDArray[np.uint8], Sequence[Drawn]]], side: int, columns: int) -> bytes:
    """Several pictures in one, row by row, each in a square of ``side`` pixels."""
    from PIL import Image

    columns = max(1, min(columns, len(pictures)))
    step = side + _GAP
    many = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * step - _GAP, max(many, 1) * step - _GAP), (255, 255, 255))
    for place, (picture, boxes) in enumerate(pictures):
        down, across = divmod(place, columns)
        whole.paste(_drawn(picture, boxes, side), (across * step, down * step))
    return _png(whole)


def _drawn(picture: NDArray[np.uint8], boxes: Sequence[Drawn], side: int) -> Image.Image:
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    for box in boxes:
        x1, y1, x2, y2 = (round(value * scale) for value in box.corners)
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=COLOURS[box.colour], width=2)
    return image


def _png(image: Image.Image) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    few = image.quantize(_COLOURS_A_PNG, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(file, "PNG", compress_level=9)
    return file.getvalue()
