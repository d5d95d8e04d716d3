"""EfficientNet-Lite0 as a backbone, with the weights that ImageNet gave it.

EfficientNet: Tan & Le, 2019, arXiv:1905.11946. Lite: the same without squeeze-and-excitation and with ReLU6, made for
eight bits (tensorflow/tpu, models/official/efficientnet/lite). The packaged weights are those of its TensorFlow release.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lepton_platform.models.pretrained import efficientnet_lite0
from lepton_platform.stage import StageFailed

PACKAGED = "efficientnet-lite0"
MEAN, DEVIATION = (127 / 255,) * 3, (128 / 255,) * 3  # as the packaged weights expect
_EPSILON = 1e-3
# Of groups of blocks: how many, size of the kernel, stride of the first, how much wider inside, channels
_GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STAGES = ((1,), (2,), (3, 4), (5, 6))  # the groups of the stages of strides 4, 8, 16 and 32; the first is the stem's


class EfficientNetLite(nn.Module):
    """Pixels (B, 3, H, W), H and W multiples of 32 → the outputs of four stages, of strides 4, 8, 16 and 32."""

    widths = (24, 40, 112, 320)

    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        groups, inner = [], 32
        for many, size, stride, wider, outer in _GROUPS:
            blocks = [
                _Block(inner if n == 0 else outer, outer, size, 1 if n else stride, wider, norm) for n in range(many)
            ]
            groups.append(blocks)
            inner = outer
        self.stem = nn.Sequential(*_conv(3, 32, 3, norm, stride=2), nn.ReLU6(inplace=True), *groups[0])
        self.stages = nn.ModuleList(nn.Sequential(*(block for g in some for block in groups[g])) for some in _STAGES)

    def forward(self, x: Tensor) -> list[Tensor]:
        found, x = [], self.stem(x)
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class _Conv(nn.Conv2d):
    """TensorFlow's "same" padding: with an even size and a stride of two, one pixel less on the near side."""

    def forward(self, input: Tensor) -> Tensor:
        both = self.kernel_size[0] - self.stride[0]
        before = both // 2
        if both > 2 * before:
            padded = F.pad(input, (before, both - before, before, both - before))
            return F.conv2d(padded, self.weight, None, self.stride, 0, 1, self.groups)
        return F.conv2d(input, self.weight, None, self.stride, before, 1, self.groups)


def _conv(
    inner: int, outer: int, size: int, norm: Callable[[int], nn.Module], stride: int = 1, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    made = norm(outer)
    if hasattr(made, "eps"):
        setattr(made, "eps", _EPSILON)  # noqa: B010 - a norm's, whichever it is
    return _Conv(inner, outer, size, stride, groups=groups, bias=False), made


class _Block(nn.Module):
    """Widen, look at each channel alone, narrow; carried past where nothing changes its size (Sandler et al., 2018)."""

    def __init__(
        self, inner: int, outer: int, size: int, stride: int, wider: int, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        inside = inner * wider
        layers: list[nn.Module] = []
        if wider > 1:
            layers += [*_conv(inner, inside, 1, norm), nn.ReLU6(inplace=True)]
        layers += [*_conv(inside, inside, size, norm, stride, groups=inside), nn.ReLU6(inplace=True)]
        layers += _conv(inside, outer, 1, norm)
        self.layers = nn.Sequential(*layers)
        self.carried = stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        seen = self.layers(x)
        return x + seen if self.carried else seen


def load_lite(network: EfficientNetLite, name: str, cache: Path) -> None:
    """Fill ``network`` with the packaged weights. Both list their tensors from the pixels to the output."""
    if name != PACKAGED:
        raise StageFailed(f"train.network.weights: '{name}' is not known; of this backbone there is '{PACKAGED}'.")
    path = efficientnet_lite0(cache)
    arrays = iter(_arrays(path))
    state = {}
    for here, own in network.state_dict().items():
        if here.endswith("num_batches_tracked"):
            state[here] = own
            continue
        there, values = next(arrays)
        while there.endswith("num_batches_tracked"):
            there, values = next(arrays)
        if there.rpartition(".")[2] != here.rpartition(".")[2] or values.size != own.numel():
            raise StageFailed(f"{path} holds '{there}' where this backbone has '{here}': it is another network's.")
        state[here] = _placed(torch.from_numpy(values.copy()), own.shape)
    network.load_state_dict(state)


def _placed(numbers: Tensor, shape: torch.Size) -> Tensor:
    """Kernels lie as in TensorFlow: rows, columns, inputs, outputs; where each channel is alone, outputs are inputs."""
    if len(shape) < 4:
        return numbers.view(shape)
    outer, inner, height, width = shape
    if inner == 1:
        return numbers.view(height, width, outer, 1).permute(2, 3, 0, 1)
    return numbers.view(height, width, inner, outer).permute(3, 2, 0, 1)


def _arrays(path: Path) -> list[tuple[str, np.ndarray]]:
    """Name and numbers of each tensor in a file of torch's first format, which holds pickles and is not unpickled.

    A pickle is a program; here only its instructions are listed. After three pickles about the file the fourth names
    the tensors, each with the key of its numbers; the fifth has the keys in the order in which the numbers follow:
    their count in eight bytes, then the numbers.
    """
    stream = io.BytesIO(path.read_bytes())
    programs = [list(pickletools.genops(stream)) for _ in range(5)]
    texts = [
        argument for _, argument, _ in programs[3] if isinstance(argument, str) and argument not in ("storage", "cpu")
    ]
    texts = [text for text in texts if " " not in text]  # a global's name has one
    order = [argument for _, argument, _ in programs[4] if isinstance(argument, str)]
    names = dict(zip(texts[1 : 2 * len(order) : 2], texts[: 2 * len(order) : 2], strict=True))
    found = {}
    for key in order:
        many = int.from_bytes(stream.read(8), "little")
        kind = np.dtype("<i8" if names[key].endswith("num_batches_tracked") else "<f4")
        found[names[key]] = np.frombuffer(stream.read(many * kind.itemsize), kind)
    return [(name, found[name]) for name in names.values()]
