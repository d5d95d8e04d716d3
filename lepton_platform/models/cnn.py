"""Convolutional networks that label pictures: the Lepton CNN, and torchvision's ResNet-18 where there is a GPU.

The Lepton CNN is two convolutions, each halved by taking maxima, and two linear layers (LeCun et al., "Gradient-based
learning applied to document recognition", 1998), with batch norm (Ioffe & Szegedy, 2015) and ReLU.

Letters in names are shapes: B pictures, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from lepton_platform.models.resnet import Resnet


class CnnSizes(BaseModel):
    """What rebuilds the network; kept in the model's ``config.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["small", "resnet18"] = "small"
    widths: tuple[int, ...] = Field((32, 64), min_length=1, description="small: channels of each convolution.")
    hidden: int = Field(128, ge=1, description="small: width of the linear layer before the last.")
    dropout: float = Field(0.25, ge=0, lt=1, description="Before the last layer.")
    small_pictures: bool = Field(True, description="resnet18: keep the size at first; false for photos.")


class Normalise(nn.Module):
    """uint8 → float32 of mean zero and deviation one over the training pixels, channel by channel."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, -1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        scaled = (image.to(torch.float32) - self.mean) / self.deviation
        return scaled.contiguous(memory_format=torch.channels_last)


class Cnn(nn.Module):
    """``image`` (B, channels, H, W) uint8 → logits (B, classes) float32.

    ``mean`` and ``deviation`` are a channel's, of 255. ``size``: the only height and width that it reads.
    ``from_output`` names what learns, from the head down to the pixels.
    """

    def __init__(
        self, sizes: CnnSizes, size: tuple[int, int], mean: Sequence[float], deviation: Sequence[float], classes: int
    ) -> None:
        super().__init__()
        self.normalise = Normalise(mean, deviation)
        layers: list[nn.Module] = []
        inner = len(mean)
        if sizes.kind == "small":
            for width in sizes.widths:
                layers += [nn.Conv2d(inner, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                layers.append(nn.MaxPool2d(2))
                inner = width
            height, width = (side >> len(sizes.widths) for side in size)
            layers += [nn.Flatten(), nn.Linear(inner * height * width, sizes.hidden), nn.ReLU()]
            inner = sizes.hidden
        else:
            body = Resnet("resnet18", channels=inner, small_pictures=sizes.small_pictures)
            layers += [body, _Last(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
            inner = body.widths[-1]
        self.layers = nn.Sequential(*layers, nn.Dropout(sizes.dropout))
        self.head = nn.Linear(inner, classes)
        places = reversed(range(len(layers)))
        self.from_output = ["head", *(f"layers.{n}" for n in places if any(True for _ in layers[n].parameters()))]
        if sizes.kind == "resnet18":
            self.from_output[1:] = [*(f"layers.0.stages.{n}" for n in (3, 2, 1, 0)), "layers.0.stem"]

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.layers(self.normalise(image))).to(torch.float32)


class _Last(nn.Module):
    """Of several maps, the coarsest."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        return maps[-1]
