"""Answers drawn on pictures, for people."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

PNG = "image/png"
_COLOURS = ("#ffd500", "#00c8ff", "#ff5c8a", "#7dff5c", "#ff9f43", "#b58cff")  # a label each; over green and grey alike
_SMALLEST_PX, _LARGEST_PX = 280, 1_024  # the longer side of a picture with its scores below
_BARS = 10


def boxes_drawn(picture: np.ndarray, boxes: Sequence[Mapping[str, Any]]) -> bytes:
    """PNG of a picture (H, W, 3), at its own size, with ``{"box", "label", "score"}`` drawn on it."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    draw, longer = ImageDraw.Draw(image), max(image.size)
    line, font = max(1, round(longer / 500)), _font(max(10, round(longer / 70)))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(sorted({str(b["label"]) for b in boxes}))}
    for box in reversed(boxes):  # the surest on top
        colour = colours[str(box["label"])]
        draw.rectangle(box["box"], outline=colour, width=line)
        _tag(draw, box["box"], f"{box['label']} {box['score']:.2f}", colour, font)
    return _png(image)


def _tag(draw: "ImageDraw.ImageDraw", box: Sequence[float], text: str, colour: str, font: Any) -> None:
    """The text above the box's upper left corner, or inside where there is no room above."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    x, y = box[0], box[1] - height if box[1] >= height else box[1]
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + 2 - left, y + 2 - top), text, fill="black", font=font)


def scores_drawn(picture: np.ndarray, label: str, scores: Mapping[str, float]) -> bytes:
    """PNG of a picture (H, W, 3), small ones enlarged, with the answer and the likeliest labels' bars below."""
    from PIL import Image, ImageDraw

    image = _resized(Image.fromarray(picture))
    shown = sorted(sorted(scores, key=lambda name: -scores[name])[:_BARS])
    row = 22
    page = Image.new("RGB", (max(image.width, _SMALLEST_PX), image.height + 2 * row + row * len(shown)), "white")
    page.paste(image, ((page.width - image.width) // 2, 0))
    draw, y = ImageDraw.Draw(page), image.height + 6
    draw.text((8, y), f"{label}  {scores[label]:.3f}", fill="black", font=_font(20))
    font, names = _font(14), max((len(name) for name in shown), default=0)
    start = min(16 + 9 * names, page.width // 3)
    room = page.width - start - 60
    for name in shown:
        y += row
        draw.text((8, y + 6), name, fill="black", font=font)
        share, colour = scores[name], "#1f77b4" if name == label else "#b0bec5"
        draw.rectangle((start, y + 8, start + max(1, round(room * share)), y + row), fill=colour)
        draw.text((start + room + 8, y + 6), f"{share:.3f}", fill="black", font=font)
    return _png(page)


def _resized(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    longer = max(image.size)
    if longer < _SMALLEST_PX:
        times = -(-_SMALLEST_PX // longer)
        size = tuple(min(side * times, _LARGEST_PX) for side in image.size)
        return image.resize((size[0], size[1]), Image.Resampling.NEAREST)
    if longer > _LARGEST_PX:
        image.thumbnail((_LARGEST_PX, _LARGEST_PX))
    return image


def _font(size: int) -> "ImageFont.ImageFont | ImageFont.FreeTypeFont":
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _png(image: "Image.Image") -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)  # a person waits for it
    return file.getvalue()
