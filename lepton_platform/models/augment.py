"""Other views of a picture, its boxes with it: torchvision's transforms, drawn from torch's generator alone.

Importing this module is cheap; torchvision comes with the first view.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

if TYPE_CHECKING:
    from torchvision.tv_tensors import BoundingBoxes


class Augmentation(BaseModel):
    """How different a view may be from its picture; zeros and falses leave it as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    crop_px: int | None = Field(None, ge=32, description="Side of a view; None: the whole picture.")
    on_box_share: float = Field(
        0.8, ge=0, le=1, description="Views that hold a box drawn at random; others lie anywhere."
    )
    zoom: float = Field(1.0, ge=1, le=4, description="Larger or smaller by up to this factor.")
    stretch: float = Field(1.0, ge=1, le=2, description="Width against height by up to this factor.")
    shift_px: int = Field(0, ge=0, description="Without crop_px: moved by up to so many pixels.")
    degrees: float = Field(0.0, ge=0, le=45, description="Turned by up to so many degrees.")
    shear_degrees: float = Field(0.0, ge=0, le=30)
    flip_horizontal: bool = False
    flip_vertical: bool = False
    quarter_turns: bool = Field(False, description="Turned by 0, 90, 180 or 270 degrees; only square views.")
    brightness: float = Field(0.0, ge=0, lt=1, description="Factor from 1 - this to 1 + this; contrast … likewise.")
    contrast: float = Field(0.0, ge=0, lt=1)
    saturation: float = Field(0.0, ge=0, lt=1)
    hue: float = Field(0.0, ge=0, le=0.5, description="Of the whole circle, up to this much either way.")
    grey_share: float = Field(0.0, ge=0, le=1, description="Views without colour.")
    min_visible: float = Field(0.4, ge=0, le=1, description="A box of which less is left is not learnt, nor its place.")


_TURNING_MARGIN = 1.3  # of a view's side: what may come into its corners as it is turned


class View(NamedTuple):
    """``image`` (3, H, W) uint8; ``boxes`` (M, 4) float32 xyxy inside it; ``whole`` (M,): enough of the box is left.

    ``kept`` (M,): the numbers that the boxes had in the picture.
    """

    image: Tensor
    boxes: Tensor
    whole: Tensor
    kept: Tensor


def view(image: Tensor, boxes: Tensor, how: Augmentation) -> View:
    """One view of ``image`` (C, H, W) uint8 and its ``boxes`` (M, 4) xyxy; another one every time."""
    from torchvision.tv_tensors import BoundingBoxes

    made: Any = BoundingBoxes  # its overloads leave out the clamping mode
    at: BoundingBoxes = made(boxes, format="XYXY", canvas_size=tuple(image.shape[1:]), clamping_mode=None)
    image, at = _frame(image, at, how)
    if how.flip_horizontal and _chance(0.5):
        image, at = _both("horizontal_flip", image, at)
    if how.flip_vertical and _chance(0.5):
        image, at = _both("vertical_flip", image, at)
    if how.quarter_turns and image.shape[1] == image.shape[2]:
        image, at = _quarter_turns(image, at, int(torch.randint(4, ())))
    return _inside(_colours(image, how), at.as_subclass(Tensor), how.min_visible)


def _frame(image: Tensor, boxes: BoundingBoxes, how: Augmentation) -> tuple[Tensor, BoundingBoxes]:
    """Crop, zoom, stretch, shift, turn and shear. What lies outside the picture is black, boxes may lie there too."""
    height, width = image.shape[1:]
    crop_h, crop_w = (height, width) if how.crop_px is None else (how.crop_px, how.crop_px)
    zoom, stretch = _factor(how.zoom), math.sqrt(_factor(how.stretch))
    window_h, window_w = crop_h * stretch / zoom, crop_w / stretch / zoom
    x, y = _middle(boxes, how, (height, width), (window_h, window_w))
    turned = how.degrees > 0 or how.shear_degrees > 0
    margin = _TURNING_MARGIN if turned else 1.0
    size = [round(crop_h * margin), round(crop_w * margin)]
    h, w = round(window_h * margin), round(window_w * margin)
    top, left = round(y - h / 2), round(x - w / 2)
    if (top, left, h, w) != (0, 0, height, width) or size != [height, width]:
        image, boxes = _both("resized_crop", image, boxes, top, left, h, w, size)
    if turned:
        shear = [_between(how.shear_degrees), _between(how.shear_degrees)]
        angle = _between(how.degrees)
        image, boxes = _both("affine", image, boxes, angle=angle, translate=[0, 0], scale=1.0, shear=shear)
        image, boxes = _both("center_crop", image, boxes, [crop_h, crop_w])
    return image, boxes


def _middle(
    boxes: Tensor, how: Augmentation, picture: tuple[int, int], window: tuple[float, float]
) -> tuple[float, float]:
    """Where the view's middle x, y is: such that a box drawn at random is inside, or anywhere in the picture."""
    found = []
    aimed = how.crop_px is not None and len(boxes) > 0 and _chance(how.on_box_share)
    aim = boxes[int(torch.randint(len(boxes), ()))].tolist() if aimed else None
    for axis in (0, 1):  # x, y
        whole, part = float(picture[1 - axis]), window[1 - axis]
        if how.crop_px is None:
            found.append(whole / 2 + _between(how.shift_px))
            continue
        low, high = sorted((part / 2, whole - part / 2))  # a window larger than the picture may lie about it
        if aim is None:
            found.append(low + (high - low) * float(torch.rand(())))
        else:
            wanted = (aim[axis] + aim[axis + 2]) / 2 + _between(part / 2)
            found.append(min(max(wanted, low), high))
    return found[0], found[1]


def _both(name: str, image: Tensor, boxes: BoundingBoxes, *args: Any, **options: Any) -> tuple[Tensor, BoundingBoxes]:
    """The transform of that name on the picture and on its boxes."""
    from torchvision.transforms.v2 import InterpolationMode, functional

    transform = getattr(functional, name)
    smooth = {"interpolation": InterpolationMode.BILINEAR} if name in ("affine", "resized_crop") else {}
    return transform(image, *args, **options, **smooth), transform(boxes, *args, **options)


def _quarter_turns(image: Tensor, boxes: BoundingBoxes, turns: int) -> tuple[Tensor, BoundingBoxes]:
    """Anticlockwise, a square picture: exact, where a turn by an angle would interpolate."""
    side, made = image.shape[1], cast(Any, type(boxes))
    for _ in range(turns):
        x1, y1, x2, y2 = boxes.as_subclass(Tensor).unbind(1)
        turned = torch.stack([y1, side - x2, y2, side - x1], 1)
        boxes = made(turned, format="XYXY", canvas_size=(side, side), clamping_mode=None)
    return torch.rot90(image, turns, (1, 2)), boxes


def _colours(image: Tensor, how: Augmentation) -> Tensor:
    from torchvision.transforms.v2 import functional

    for name in ("brightness", "contrast", "saturation"):
        if strength := getattr(how, name):
            image = getattr(functional, f"adjust_{name}")(image, 1 + _between(strength))
    if how.hue:
        image = functional.adjust_hue(image, _between(how.hue))
    if how.grey_share and _chance(how.grey_share):
        image = functional.rgb_to_grayscale(image, image.shape[0])
    return image


def _inside(image: Tensor, boxes: Tensor, min_visible: float) -> View:
    """Cut the boxes to the view and leave out those outside."""
    height, width = image.shape[1:]
    edges = torch.tensor([width, height, width, height], dtype=boxes.dtype)
    cut = torch.minimum(boxes.clamp(min=0), edges)
    kept = ((cut[:, 2:] - cut[:, :2]) > 0).all(1).nonzero()[:, 0]
    whole = _area(cut) >= min_visible * _area(boxes)
    return View(image.contiguous(), cut[kept].contiguous(), whole[kept], kept)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def _chance(share: float) -> bool:
    return float(torch.rand(())) < share


def _between(most: float) -> float:
    """From -most to most."""
    return most * (2 * float(torch.rand(())) - 1) if most else 0.0


def _factor(most: float) -> float:
    """From 1/most to most, as often below one as above."""
    return math.exp(_between(math.log(most)))
