"""What can be measured in a picture without having learnt anything: a few numbers, and a descriptor for nearness.

Numpy alone; pictures of one size are measured together. Letters: N pictures, B of them of one size, H rows, W columns.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lepton_platform.data.images import Picture

    Floats = NDArray[np.float32]

BLOCK = 8  # JPEG's
RINGS = 12  # of the power spectrum
PATCH = 16  # of the dark channel
ORIENTATIONS = 8  # of gradients, without their sign
_PIXELS_AT_ONCE = 1_000_000
_TINY = 1e-12
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))  # once round


class _Stack:
    """Pictures of one size, (B, H, W, 3), and what several measures need of them."""

    def __init__(self, rgb_BHW3: "NDArray[np.uint8]") -> None:
        self.rgb = rgb_BHW3

    @cached_property
    def light(self) -> "Floats":
        return _luminance(self.rgb)

    @cached_property
    def channels(self) -> "list[Floats]":
        return [self.rgb[..., channel].astype(np.float32) for channel in range(3)]

    @cached_property
    def excess(self) -> "Floats":
        red, green, blue = self.channels
        index = (2 * green - red - blue) / np.maximum(red + green + blue, 1)
        return index.astype(np.float32, copy=False)

    @cached_property
    def rings(self) -> "Floats":
        return _rings(self.light)


def _mean(values: "NDArray") -> "NDArray[np.float64]":
    return values.mean(axis=(1, 2), dtype=np.float64)


# name: (what it is, how it is measured)
_MEASURES: "dict[str, tuple[str, Callable[[_Stack], NDArray]]]" = {
    "width": ("Pixels.", lambda s: np.full(len(s.rgb), s.rgb.shape[2])),
    "height": ("Pixels.", lambda s: np.full(len(s.rgb), s.rgb.shape[1])),
    "brightness": ("Mean luminance, 0 to 1.", lambda s: _mean(s.light) / 255),
    "contrast": (
        "Standard deviation of the luminance, 0 to 0.5.",
        lambda s: s.light.std(axis=(1, 2), dtype=np.float64) / 255,
    ),
    "sharpness": (
        "Variance of the luminance's Laplacian, in squared levels of 255.",
        lambda s: _laplacian(s.light).var(axis=(1, 2), dtype=np.float64),
    ),
    "fine_detail": (
        "Of the luminance's power (its mean left out), the share above a quarter of the sampling rate.",
        lambda s: s.rings[:, RINGS // 2 :].sum(axis=1),
    ),
    "texture": ("Entropy of the local binary patterns, in bits.", lambda s: _entropy(_patterns(s.light))),
    "blockiness": (
        "Steps on an 8 by 8 grid against those beside it, as JPEG leaves them; 1 where there is no grid.",
        lambda s: _blockiness(s.light),
    ),
    "haze": (
        "Mean over patches of the darkest channel of any of their pixels, 0 to 1: the dark channel of He et al. 2009.",
        lambda s: _dark_channel(s.rgb) / 255,
    ),
    "dark_share": ("Of the pixels, those of less than 1/16 of the luminance.", lambda s: _mean(s.light < 16)),
    "bright_share": ("Of the pixels, those of more than 15/16 of the luminance.", lambda s: _mean(s.light > 239)),
    "red": ("Mean of the channel, 0 to 1.", lambda s: _mean(s.channels[0]) / 255),
    "green": ("Mean of the channel, 0 to 1.", lambda s: _mean(s.channels[1]) / 255),
    "blue": ("Mean of the channel, 0 to 1.", lambda s: _mean(s.channels[2]) / 255),
    "saturation": (
        "Mean distance between the strongest and the weakest channel, 0 to 1.",
        lambda s: _mean(s.rgb.max(3) - s.rgb.min(3)) / 255,
    ),
    "colourfulness": (
        "Spread and strength of the opponent colours (Hasler and Süsstrunk 2003), in levels of 255.",
        lambda s: _colourfulness(*s.channels),
    ),
    "excess_green": (
        "Mean of (2g - r - b) / (r + g + b), the vegetation index of Woebbecke et al. 1995.",
        lambda s: _mean(s.excess),
    ),
    "green_share": ("Of the pixels, those whose excess green is above 0.1.", lambda s: _mean(s.excess > 0.1)),
}
STATISTICS = {name: description for name, (description, _) in _MEASURES.items()}


def statistics(pictures: "Sequence[Picture]", names: Iterable[str] = STATISTICS) -> "dict[str, NDArray[np.float64]]":
    """Name → (N,) of those of ``STATISTICS``, for pictures (H, W, 3) of any sizes."""
    found = {name: np.zeros(len(pictures)) for name in names}
    for places, rgb_BHW3 in _stacks(pictures):
        stack = _Stack(rgb_BHW3)
        for name, values in found.items():
            values[places] = _MEASURES[name][1](stack)
    return found


def descriptors(pictures: "Sequence[Picture]", cells: int = 1) -> "Floats":
    """(N, D) of length one: which colours, edges in which directions (in ``cells`` by ``cells`` parts of the picture),
    which small patterns, how much detail of which size.

    D = 64 + 8 cells² + 10 + 12. A fixed recipe, nothing learnt: a joint histogram of 4 levels a channel; gradient
    orientations weighted by strength (Dalal and Triggs 2005); rotation-invariant uniform local binary patterns (Ojala
    et al. 2002); logarithm of the power in rings of the spectrum. Of the first three the square roots, so that their
    inner product is Bhattacharyya's; each part has length one before they are joined.
    """
    size = 64 + ORIENTATIONS * cells * cells + 10 + RINGS
    found = np.zeros((len(pictures), size), dtype=np.float32)
    for places, rgb_BHW3 in _stacks(pictures):
        luminance = _luminance(rgb_BHW3)
        parts = [
            np.sqrt(_colours(rgb_BHW3)),
            np.sqrt(_orientations(luminance, cells)),
            np.sqrt(_patterns(luminance)),
            np.clip(1 + np.log10(_rings(luminance) + 1e-6) / 6, 0, 1),
        ]
        found[places] = _unit(np.concatenate([_unit(part) for part in parts], axis=1))
    return found


def _stacks(pictures: "Sequence[Picture]") -> "Iterator[tuple[list[int], NDArray[np.uint8]]]":
    """Pictures of one size together, (B, H, W, 3), and their places."""
    by_shape: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, picture in enumerate(pictures):
        by_shape[picture.shape].append(place)
    for (height, width, *_), places in by_shape.items():
        step = max(1, _PIXELS_AT_ONCE // (height * width))
        for start in range(0, len(places), step):
            some = places[start : start + step]
            yield some, np.stack([pictures[place] for place in some])


def _luminance(rgb_BHW3: "NDArray[np.uint8]") -> "Floats":
    """(B, H, W) of 0 to 255, ITU-R BT.601."""
    return (rgb_BHW3 @ np.array([0.299, 0.587, 0.114], dtype=np.float32)).astype(np.float32, copy=False)


def _laplacian(light: "Floats") -> "Floats":
    """Second differences to the four neighbours; edges continue outwards, so one row or column has some too."""
    padded = np.pad(light, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    return around - 4 * light


def _entropy(shares: "Floats") -> "NDArray[np.float64]":
    """(B,) bits of the rows of (B, K); nothing is minus zero."""
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.abs((shares * logs).sum(axis=1, dtype=np.float64))


def _colourfulness(red: "Floats", green: "Floats", blue: "Floats") -> "NDArray[np.float64]":
    opponents = red - green, (red + green) / 2 - blue
    spread = np.sqrt(sum(o.var(axis=(1, 2), dtype=np.float64) for o in opponents))
    return spread + 0.3 * np.sqrt(sum(_mean(o) ** 2 for o in opponents))


def _dark_channel(rgb_BHW3: "NDArray[np.uint8]") -> "NDArray[np.float64]":
    """Patches of 16 by 16, of the whole side where that is shorter; what is left over at the ends is left out."""
    darkest = rgb_BHW3.min(axis=3)
    count, height, width = darkest.shape
    high, wide = min(PATCH, height), min(PATCH, width)
    rows, columns = height // high, width // wide
    patches = darkest[:, : rows * high, : columns * wide].reshape(count, rows, high, columns, wide)
    return _mean(patches.min(axis=(2, 4)))


def _blockiness(light: "Floats") -> "NDArray[np.float64]":
    """Of the eight phases that a grid can have, the one with the largest steps, against the phases' median.

    Along rows and along columns, and of the two the mean. A grid that is cut in the middle of a block is found too.
    """
    found = [_strongest_phase(np.abs(np.diff(light, axis=axis)).mean(axis=3 - axis)) for axis in (1, 2)]
    return (found[0] + found[1]) / 2


def _strongest_phase(steps: "Floats") -> "NDArray[np.float64]":
    """``steps`` (B, L): mean step at each of L places along a side."""
    if steps.shape[1] < 2 * BLOCK:
        return np.ones(len(steps))
    phases = np.stack([steps[:, phase::BLOCK].mean(axis=1, dtype=np.float64) for phase in range(BLOCK)], axis=1)
    return (phases.max(axis=1) + 0.01) / (np.median(phases, axis=1) + 0.01)  # a hundredth of a level: flat is 1


def _colours(rgb_BHW3: "NDArray[np.uint8]") -> "Floats":
    """(B, 64) shares of the pixels."""
    r, g, b = (rgb_BHW3[..., channel] >> 6 for channel in range(3))
    return _shares((r << 4 | g << 2 | b).reshape(len(rgb_BHW3), -1), 64)


def _orientations(light: "Floats", cells: int) -> "Floats":
    """(B, 8 cells²) shares of the gradients' strength."""
    count, height, width = light.shape
    padded = np.pad(light, ((0, 0), (1, 1), (1, 1)), mode="edge")
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    right = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    angle = np.arctan2(down, right) % np.float32(np.pi)
    direction = (angle * (ORIENTATIONS / np.pi)).astype(np.int32) % ORIENTATIONS
    row, column = (np.arange(side) * cells // side for side in (height, width))
    place = (row[:, None] * cells + column[None]) * ORIENTATIONS
    codes = (place[None] + direction).reshape(count, -1)
    return _shares(codes, ORIENTATIONS * cells * cells, np.hypot(down, right).reshape(count, -1))


def _patterns(light: "Floats") -> "Floats":
    """(B, 10) shares: how many of the eight neighbours are not darker, 9 where they change more than twice round."""
    height, width = light.shape[1:]
    padded = np.pad(light, ((0, 0), (1, 1), (1, 1)), mode="edge")
    not_darker = [padded[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] >= light for dy, dx in _NEIGHBOURS]
    count = np.zeros(light.shape, dtype=np.uint8)
    changes = np.zeros(light.shape, dtype=np.uint8)
    for this, following in zip(not_darker, [*not_darker[1:], not_darker[0]], strict=True):
        count += this
        changes += this != following
    return _shares(np.where(changes <= 2, count, 9).reshape(len(light), -1), 10)


def _rings(light: "Floats") -> "Floats":
    """(B, 12) shares of the power of the spectrum, from large to small; beyond the sampling's half are corners: left out.

    A Hann window takes off the picture's edges, which would be detail of every size.
    """
    _, height, width = light.shape
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)
    mean = (light * window).sum(axis=(1, 2), keepdims=True) / window.sum()
    power = np.abs(np.fft.rfft2((light - mean) * window)) ** 2
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    codes = (radius * (2 * RINGS)).astype(np.int64).ravel()
    inside = codes < RINGS
    twice = np.ones(radius.shape)  # a real picture's spectrum is half stored: what is inside it counts twice
    twice[:, 1 : (width + 1) // 2] = 2
    flat = (power * twice).reshape(len(light), -1)[:, inside]
    return _shares(np.broadcast_to(codes[inside], flat.shape), RINGS, flat)


def _shares(codes: "NDArray", kinds: int, weights: "NDArray | None" = None) -> "Floats":
    """(B, kinds): what share of each row of ``codes`` (B, P) is of each kind; zeros in a row without weight."""
    count = len(codes)
    flat = (codes.astype(np.int64) + np.arange(count)[:, None] * kinds).ravel()
    summed = np.bincount(flat, None if weights is None else weights.ravel(), minlength=count * kinds)
    summed = summed.reshape(count, kinds)
    return (summed / np.maximum(summed.sum(axis=1, keepdims=True), _TINY)).astype(np.float32)


def _unit(rows: "Floats") -> "Floats":
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-6))
