"""What sees: a backbone of residual blocks, and a feature pyramid on it, for every detector here.

Residual networks: He et al., 2015, arXiv:1512.03385. Feature pyramids: Lin et al., 2016, arXiv:1612.03144. ``small``
is the Lepton backbone, trained from scratch in minutes; ``efficientnet_lite0`` comes with packaged weights;
``resnet18`` and ``resnet50`` are torchvision's, whose pretrained weights can be loaded from a file.

Letters in names are shapes: B pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from lepton_platform.models import efficientnet_lite
from lepton_platform.models.efficientnet_lite import EfficientNetLite, load_lite
from lepton_platform.models.resnet import Resnet, load_resnet

Norm = Literal["batch", "group", "frozen"]
_STRIDES = (4, 8, 16, 32)  # of the backbone's four stages
_MEAN, _DEVIATION = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # of photographs (ImageNet), as pretrained weights expect


class FeatureParams(BaseModel):
    """The sizes of backbone and pyramid; kept in the model's ``config.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: Literal["small", "efficientnet_lite0", "resnet18", "resnet50"] = "small"
    norm: Norm = Field("batch", description="frozen: a pretrained network's own statistics, for small batches.")
    widths: tuple[int, int, int, int] = Field((32, 64, 128, 192), description="small: channels of the four stages.")
    blocks: tuple[int, int, int, int] = Field((1, 2, 2, 1), description="small: residual blocks of the four stages.")
    levels: tuple[int, ...] = Field((8, 16), description="Strides of the pyramid's levels, in pixels: of 4, 8, 16, 32.")
    width: int = Field(96, ge=8, description="Channels of the pyramid's levels.")

    @model_validator(mode="after")
    def _levels_are_stages(self) -> FeatureParams:
        if not self.levels or sorted(set(self.levels)) != list(self.levels) or not set(self.levels) <= set(_STRIDES):
            raise ValueError(f"levels are strides out of {_STRIDES}, in rising order, not {self.levels}")
        if self.norm == "frozen" and self.backbone == "small":
            raise ValueError("norm: frozen goes with pretrained weights; small is trained from scratch")
        return self


def norm_of(kind: Norm, width: int) -> nn.Module:
    """Batch norm (Ioffe & Szegedy, 2015), or group norm (Wu & He, 2018), which does not mind small batches."""
    if kind == "group":
        return nn.GroupNorm(max(1, width // 16), width)
    if kind == "frozen":
        from torchvision.ops import FrozenBatchNorm2d

        return FrozenBatchNorm2d(width)
    return nn.BatchNorm2d(width)


def conv(inner: int, outer: int, norm: Norm, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inner, outer, size, stride, size // 2, bias=False), norm_of(norm, outer), nn.ReLU(inplace=True)
    )


class Block(nn.Module):
    """Two convolutions round which the input is carried."""

    def __init__(self, inner: int, outer: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.first = conv(inner, outer, norm, stride=stride)
        self.second = nn.Sequential(nn.Conv2d(outer, outer, 3, padding=1, bias=False), norm_of(norm, outer))
        self.carry: nn.Module = nn.Identity()
        if stride > 1 or inner != outer:
            self.carry = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), norm_of(norm, outer))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x_BCHW)) + self.carry(x_BCHW))


class SmallBackbone(nn.Module):
    """Pixels → the outputs of four stages, of strides 4, 8, 16 and 32."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], norm: Norm) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv(3, widths[0] // 2, norm, stride=2), conv(widths[0] // 2, widths[0], norm, stride=2)
        )
        self.stages = nn.ModuleList()
        inner = widths[0]
        for number, (width, many) in enumerate(zip(widths, blocks, strict=True)):
            strides = [2 if number else 1] + [1] * (many - 1)
            self.stages.append(
                nn.Sequential(*(Block(inner if i == 0 else width, width, s, norm) for i, s in enumerate(strides)))
            )
            inner = width
        self.widths = tuple(widths)

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        found, x = [], self.stem(x_BCHW)
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class Pyramid(nn.Module):
    """Coarse levels, which know what there is, are added to fine ones, which know where."""

    def __init__(self, widths: Sequence[int], kept: Sequence[int], width: int, norm: Norm) -> None:
        super().__init__()
        norm = "batch" if norm == "frozen" else norm
        self.kept = tuple(kept)
        self.inner = nn.ModuleList(
            nn.Sequential(nn.Conv2d(w, width, 1, bias=False), norm_of(norm, width)) for w in widths
        )
        self.outer = nn.ModuleList(conv(width, width, norm) for _ in kept)

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """Stages fine to coarse, of which the next has half the height and width → the levels that are kept."""
        sums: list[Tensor] = []
        for inner, stage in zip(reversed(self.inner), reversed(stages), strict=True):
            level = inner(stage)
            if sums:
                level = level + F.interpolate(sums[-1], scale_factor=2.0, mode="nearest")
            sums.append(level)
        fine_first = sums[::-1]
        return [outer(fine_first[number]) for outer, number in zip(self.outer, self.kept, strict=True)]


def _backbone(params: FeatureParams) -> SmallBackbone | EfficientNetLite | Resnet:
    if params.backbone == "small":
        return SmallBackbone(params.widths, params.blocks, params.norm)
    norm = partial(norm_of, params.norm)
    return EfficientNetLite(norm) if params.backbone == "efficientnet_lite0" else Resnet(params.backbone, norm)


class Features(nn.Module):
    """Pictures (B, 3, H, W) uint8, H and W multiples of 32 → one map (B, width, H/stride, W/stride) a level."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, params: FeatureParams) -> None:
        super().__init__()
        lite = params.backbone == "efficientnet_lite0"
        mean, deviation = (efficientnet_lite.MEAN, efficientnet_lite.DEVIATION) if lite else (_MEAN, _DEVIATION)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, 3, 1, 1) * 255, persistent=False)
        self.backbone = _backbone(params)
        self.first = _STRIDES.index(params.levels[0])
        kept = [_STRIDES.index(stride) - self.first for stride in params.levels]
        self.pyramid = Pyramid(self.backbone.widths[self.first :], kept, params.width, params.norm)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        x = (image_BCHW.to(torch.float32) - self.mean) / self.deviation
        x = x.contiguous(memory_format=torch.channels_last)
        return self.pyramid(self.backbone(x)[self.first :])


def load_pretrained(features: Features, name_or_path: str, cache: Path) -> None:
    """Fill the backbone with weights learnt elsewhere; ``small`` has none."""
    if isinstance(features.backbone, EfficientNetLite):
        load_lite(features.backbone, name_or_path, cache)
    elif isinstance(features.backbone, Resnet):
        load_resnet(features.backbone, name_or_path, cache)


def initialise(network: nn.Module) -> None:
    """He et al., 2015, arXiv:1502.01852, for ReLU; every block starts as its carried input (Goyal et al., 2017)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, Block):
            last = module.second[1]
            assert isinstance(last, nn.BatchNorm2d | nn.GroupNorm)
            nn.init.zeros_(last.weight)
