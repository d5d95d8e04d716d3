"""From a decoded picture to what a network is fed: learner and service both come through here, and import no torch.

Letters: H rows of pixels, W columns, C channels, B pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

_BT601 = np.array([19595, 38470, 7471], dtype=np.uint32)  # 65536 × (0.299, 0.587, 0.114): they sum to 65536


def fit(array: Pixels, channels: int, size: tuple[int, int] | None) -> Pixels:
    """A picture (H, W, 3) RGB → (channels, H, W) uint8.

    ``channels``: 3, or 1 for grey by ITU-R BT.601 (a grey picture keeps its very values). ``size``: (height, width)
    to stretch to, averaging over the area that becomes a pixel; ``None`` keeps the picture's own.
    """
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(f"A picture is (height, width, 3) of uint8, not {array.shape} of {array.dtype}.")
    if channels == 3:
        pixels = array
    elif channels == 1:
        pixels = (((array.astype(np.uint32) @ _BT601) + 32768) >> 16).astype(np.uint8)
    else:
        raise ValueError(f"A network reads 1 or 3 channels, not {channels}.")
    if size is not None and pixels.shape[:2] != tuple(size):
        from PIL import Image

        height, width = size
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))


def pad(arrays: Sequence[Pixels], multiple: int = 1) -> Pixels:
    """Pictures (C, H, W) of any sizes → (B, C, H, W), H and W the largest, rounded up to ``multiple``.

    Zeros are added right and below, so that a pixel keeps its coordinates.
    """
    height = -(-max(a.shape[1] for a in arrays) // multiple) * multiple
    width = -(-max(a.shape[2] for a in arrays) // multiple) * multiple
    batch = np.zeros((len(arrays), arrays[0].shape[0], height, width), dtype=np.uint8)
    for place, array in enumerate(arrays):
        batch[place, :, : array.shape[1], : array.shape[2]] = array
    return batch


def as_input(array: Pixels, config: Mapping[str, Any]) -> Pixels:
    """``fit`` by ``config["input"]`` of a model: ``channels``, and ``size`` or null."""
    size = config["size"]
    return fit(array, config["channels"], None if size is None else (size[0], size[1]))
