"""torchvision's residual networks (He et al., 2015, arXiv:1512.03385) as a backbone, and weights learnt elsewhere for it.

Weights are safetensors under torchvision's names: a file, a folder that holds ``model.safetensors``, or a hub's name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from lepton_platform.models.pretrained import from_hub
from lepton_platform.stage import StageFailed

Kind = Literal["resnet18", "resnet50"]
_PREFIXES = {"conv1": "stem.0", "bn1": "stem.1"} | {f"layer{n + 1}": f"stages.{n}" for n in range(4)}
_FILE = "model.safetensors"


class Resnet(nn.Module):
    """Pixels (B, channels, H, W) → the outputs of four stages, of strides 4, 8, 16 and 32; ``widths`` their channels.

    ``small_pictures``: a first layer that keeps the size, for pictures of a few dozen pixels: strides 1, 2, 4 and 8.
    """

    def __init__(
        self,
        kind: Kind,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        channels: int = 3,
        small_pictures: bool = False,
    ) -> None:
        super().__init__()
        from torchvision.models import resnet

        body = getattr(resnet, kind)(weights=None, norm_layer=norm)
        first = nn.Conv2d(channels, 64, 3, 1, 1, bias=False) if small_pictures else body.conv1
        if channels != 3 and not small_pictures:
            first = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        shrink = nn.Identity() if small_pictures else body.maxpool
        self.stem = nn.Sequential(first, body.bn1, body.relu, shrink)
        self.stages = nn.ModuleList([body.layer1, body.layer2, body.layer3, body.layer4])
        self.widths = tuple(width * (4 if kind == "resnet50" else 1) for width in (64, 128, 256, 512))

    def forward(self, x: Tensor) -> list[Tensor]:
        found, x = [], self.stem(x)
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


def load_resnet(network: Resnet, name_or_path: str, cache: Path) -> None:
    """Fill ``network`` with pretrained weights; a classifier's last layer among them is left out.

    A first layer that reads one channel gets the sum over the colours; one of another size stays as it is.
    """
    from safetensors.torch import load_file

    path = weights_file(name_or_path, cache)
    found: dict[str, Tensor] = {}
    for name, tensor in load_file(path).items():
        root, _, rest = name.partition(".")
        if root in _PREFIXES:
            found[f"{_PREFIXES[root]}.{rest}"] = tensor
    own: dict[str, Any] = network.state_dict()
    first = found.get("stem.0.weight")
    if first is not None and first.shape != own["stem.0.weight"].shape:
        summed = first.sum(1, keepdim=True)
        found["stem.0.weight"] = summed if summed.shape == own["stem.0.weight"].shape else own["stem.0.weight"]
    wrong = [
        n
        for n, t in own.items()
        if not n.endswith("num_batches_tracked") and getattr(found.get(n), "shape", 0) != t.shape
    ]
    if wrong:
        raise StageFailed(
            f"{path} does not hold the weights of this backbone: {len(wrong)} of {len(own)} are missing or of another "
            f"size, the first is '{wrong[0]}'. Weights under torchvision's names (conv1, layer1 …) are read."
        )
    network.load_state_dict({name: found.get(name, own[name]) for name in own})


def weights_file(name_or_path: str, cache: Path) -> Path:
    """The safetensors file that is meant; ``StageFailed`` names what there is not."""
    path = Path(name_or_path).expanduser()
    if not path.exists() and not path.is_absolute() and not name_or_path.startswith((".", "~")):
        if name_or_path.count("/") != 1:
            raise StageFailed(
                f"There are no weights '{name_or_path}': it is neither a safetensors file, nor a folder with {_FILE}, "
                "nor a hub's name of the form owner/name."
            )
        path = from_hub(name_or_path, cache)
    path = path / _FILE if path.is_dir() else path
    if not path.is_file() or path.suffix != ".safetensors":
        raise StageFailed(
            f"{path} is no safetensors file. Weights in pickle formats (.bin, .pth) are not read: save them with "
            "`safetensors.torch.save_file(network.state_dict(), …)` first."
        )
    return path
