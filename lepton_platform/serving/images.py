"""Tasks whose input is a picture: the request's reading, its limits, what a network is fed.

A picture is a file: what it is, its content says. It is measured by its header before anything is decoded. Encoders
need the stage's own ``decode``, so that the service sees a picture as training did.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lepton_platform.data.images import FORMATS, MAX_PIXELS, size_of
from lepton_platform.data.tiling import Tile, tiles
from lepton_platform.models.image_input import as_input, pad
from lepton_platform.serving.media import files_schema
from lepton_platform.serving.protocols import Encoded, Json
from lepton_platform.serving.rejected import malformed, too_large

FIELD = "images"
MAX_FILE_BYTES = 20 << 20
MAX_PIXELS_TOGETHER = 2 * MAX_PIXELS  # of a request: what it makes of memory and of time is bounded
MAX_TILES_TOGETHER = 1_024
INLINE_BYTES = 0  # a small file may hold a large picture: none is decoded on the event loop
_ANY = 1 << 62

Decode = Callable[[bytes], np.ndarray]  # a file → (H, W, 3) uint8 RGB, upright; ValueError says why it is no picture


def images_schema(content_type: str, most_files: int) -> Json:
    """JSON Schema of a request with pictures."""
    about = (
        f"A picture ({', '.join(FORMATS)}, by its content) of at most {MAX_FILE_BYTES:,} bytes and {MAX_PIXELS:,} pixels; "
        f"the pictures of a request have at most {MAX_PIXELS_TOGETHER:,} together. It is turned as its EXIF says."
    )
    return files_schema(content_type, FIELD, most_files, MAX_FILE_BYTES, about)


def measured(files: Sequence[bytes]) -> list[tuple[int, int]]:
    """Width and height of each, from its header; ``Rejected`` names what is no picture, or too large."""
    sizes = [_understood(lambda data: size_of(data, max_pixels=_ANY), data, index) for index, data in enumerate(files)]
    for index, (width, height) in enumerate(sizes):
        if width * height > MAX_PIXELS:
            where = f"{FIELD}[{index}]"
            raise too_large(f"{where} has {width:,} x {height:,} pixels; the most is {MAX_PIXELS:,} of them.", where)
    together = sum(width * height for width, height in sizes)
    if together > MAX_PIXELS_TOGETHER:
        raise too_large(
            f'The pictures of "{FIELD}" have {together:,} pixels together; the most is {MAX_PIXELS_TOGETHER:,}. '
            "Send them in parts.",
            FIELD,
        )
    return sizes


def _understood(read: Callable[[bytes], Any], data: bytes, index: int) -> Any:
    try:
        return read(data)
    except ValueError as error:
        where = f"{FIELD}[{index}]"
        raise malformed(f"{where}: {error}.", where) from None


def _config(model: Path) -> dict[str, Any]:
    return json.loads((model / "config.json").read_text("utf-8"))


class ImageEncoder:
    """For networks that take whole pictures of one size: each is one item, (C, H, W) uint8."""

    def __init__(self, model: Path, decode: Decode) -> None:
        self.decode, self.input = decode, _config(model)["input"]

    def prepare(self, inputs: Sequence[bytes]) -> list[list[Encoded]]:
        measured(inputs)
        return [[self._encoded(data, index)] for index, data in enumerate(inputs)]

    def _encoded(self, data: bytes, index: int) -> Encoded:
        pixels = as_input(_understood(self.decode, data, index), self.input)
        return Encoded(pixels, pixels.shape[1] * pixels.shape[2])

    def collate(self, batch: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """→ image: uint8 (B, C, H, W)."""
        return {"image": np.stack([item.payload for item in batch])}


@dataclass(frozen=True)
class Piece:
    """A tile of a picture as it waits for the network. ``rules``: ``postprocess`` of the model's config."""

    pixels: np.ndarray  # (H, W, 3) uint8: a view of the picture, which all its tiles share
    tile: Tile
    rules: Json


class TiledEncoder:
    """For networks that look for things in pictures of any size: a large one is as many items as it has tiles.

    Tiles are views of the decoded picture, so that a picture is held once, as uint8; what the network is fed is made
    for a batch at a time.
    """

    def __init__(self, model: Path, decode: Decode, tile_px: int, margin_px: int) -> None:
        config = _config(model)
        self.decode, self.tile_px, self.margin_px = decode, tile_px, margin_px
        self.input, self.rules = config["input"], config["postprocess"]

    def prepare(self, inputs: Sequence[bytes]) -> list[list[Encoded]]:
        self._check_tiles(measured(inputs))
        return [self._pieces(_understood(self.decode, data, index)) for index, data in enumerate(inputs)]

    def _check_tiles(self, sizes: Sequence[tuple[int, int]]) -> None:
        """A picture that is long and thin has more tiles than one of its area should."""
        count = sum(-(-width // self.tile_px) * -(-height // self.tile_px) for width, height in sizes)
        if count > MAX_TILES_TOGETHER:
            raise too_large(
                f'The pictures of "{FIELD}" are {count:,} tiles of {self.tile_px} pixels; the most is '
                f"{MAX_TILES_TOGETHER:,}. Send them in parts.",
                FIELD,
            )

    def _pieces(self, picture: np.ndarray) -> list[Encoded]:
        height, width = picture.shape[:2]
        return [
            Encoded(
                Piece(picture[t.top : t.top + t.height, t.left : t.left + t.width], t, self.rules), t.width * t.height
            )
            for t in tiles(width, height, self.tile_px, self.margin_px)
        ]

    def collate(self, batch: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """→ image: uint8 (B, C, H, W), zeros right and below where a tile is smaller."""
        pixels = [as_input(item.payload.pixels, self.input) for item in batch]
        return {"image": pad(pixels, self.input.get("multiple", 1))}
