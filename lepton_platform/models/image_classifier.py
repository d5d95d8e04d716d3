"""Learning to label pictures: the learner that every task of this kind shares (see ``training/part.py``).

Importing this module is cheap: torch comes with the first network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lepton_platform.models.batch import Batch
from lepton_platform.models.image_input import pad
from lepton_platform.models.labelling import Labelling, wrong_params
from lepton_platform.models.pictures import Pictures
from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from lepton_platform.models.augment import Augmentation
    from lepton_platform.models.cnn import Cnn
    from lepton_platform.models.pictures import Decode

Config = Mapping[str, Any]
_MEASURED_PICTURES = 2_000  # whose pixels tell the mean: a sample says it to a thousandth


class ImageParams(BaseModel):
    """The section ``train.network`` of a task that labels pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int = Field(3, description="1: grey, 3: colour.")
    size_px: tuple[int, int] = Field((28, 28), description="Height and width that every picture is brought to.")
    weights: str | None = Field(
        None, description="resnet18: where it starts from; a safetensors file, a folder, or a hub's name."
    )
    sizes: dict[str, Any] = Field(default_factory=dict, description="kind (small, resnet18), widths, hidden, dropout …")
    augment: dict[str, Any] = Field(
        default_factory=dict, description="zoom, stretch, shift_px, degrees, shear_degrees, brightness … of a view."
    )


@dataclass(frozen=True)
class ImageSamples:
    """Pictures and, where they are known, the labels' numbers (N,); with ``how``, another view every time."""

    pictures: Pictures
    labels: np.ndarray | None
    how: Augmentation | None

    @property
    def sizes(self) -> np.ndarray:
        return np.ones(len(self.pictures), dtype=np.int64)  # all are brought to one size

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        import torch

        chosen = np.asarray(rows, np.int64)
        image = torch.from_numpy(pad([self.pictures[int(row)] for row in chosen]))
        if self.how is not None:
            from lepton_platform.models.augment import view

            nothing = torch.zeros(0, 4)
            image = torch.stack([view(one, nothing, self.how).image for one in image])
        targets = {} if self.labels is None else {"label": torch.from_numpy(self.labels[chosen])}
        return Batch({"image": image}, targets)


@dataclass(frozen=True)
class ImageClassifier(Labelling):
    """Learns the label of a picture. ``decode``: a file's bytes → (H, W, 3) RGB."""

    decode: Decode

    def configure(self, network: Mapping[str, Any], rows: pa.Table, folder: Path, cache: Path) -> dict[str, Any]:
        """See ``Learner.configure``; leaves no files."""
        params, sizes, augment = _parsed(network)
        given = {"channels": params.channels, "size": list(params.size_px)}
        mean, deviation = _statistics(Pictures(rows[self.content], self.decode, {"input": given}))
        return {
            "kind": sizes["kind"],
            "sizes": sizes,
            "weights": params.weights,
            "mean": mean,
            "deviation": deviation,
            "augment": augment,
            "labels": list(self.labels),
            "input": given,
            "files": [],
            "inputs": ["image"],
        }

    def build(self, config: Config) -> Cnn:
        from lepton_platform.models.cnn import Cnn, CnnSizes

        height, width = config["input"]["size"]
        sizes = CnnSizes(**config["sizes"])
        return Cnn(sizes, (height, width), config["mean"], config["deviation"], len(config["labels"]))

    def start(self, network: Cnn, config: Config, cache: Path) -> None:
        """Load pretrained weights, if the config names any."""
        if config["weights"] is not None:
            from lepton_platform.models.resnet import Resnet, load_resnet

            body = network.layers[0]
            assert isinstance(body, Resnet)
            load_resnet(body, config["weights"], cache)

    def encode(self, config: Config, folder: Path, rows: pa.Table, *, training: bool = False) -> ImageSamples:
        how = None
        if training and config["augment"]:
            from lepton_platform.models.augment import Augmentation

            how = Augmentation(**config["augment"])
        return ImageSamples(Pictures(rows[self.content], self.decode, config), self.numbers(rows), how)

    def examples(self, config: Config) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Two and three black pictures; their size is fixed."""
        import torch

        shape = (config["input"]["channels"], *config["input"]["size"])
        few, more = (torch.zeros(rows, *shape, dtype=torch.uint8) for rows in (2, 3))
        return {"image": few}, {"image": more}

    def depths(self, network: Cnn) -> dict[str, int]:
        """0 the head, then layer by layer down to the pixels."""
        from lepton_platform.models.depths import depths

        return depths(network, network.from_output)


def _parsed(network: Mapping[str, Any]) -> tuple[ImageParams, dict[str, Any], dict[str, Any]]:
    """The section, the network's sizes complete, and the augmentation (empty where there is none)."""
    from lepton_platform.models.augment import Augmentation
    from lepton_platform.models.cnn import CnnSizes

    where, model = "train.network", ImageParams
    try:
        params = ImageParams.model_validate(network)
        where, model = "train.network.sizes", CnnSizes
        sizes = CnnSizes.model_validate(params.sizes)
        where, model = "train.network.augment", Augmentation
        augment = Augmentation.model_validate(params.augment).model_dump() if params.augment else {}
    except ValidationError as error:
        raise wrong_params(where, error, model) from None
    if params.channels not in (1, 3):
        raise StageFailed(f"train.network.channels is 1 (grey) or 3 (colour), not {params.channels}.")
    smallest = 1 << len(sizes.widths)
    if min(params.size_px) < smallest:
        raise StageFailed(f"train.network.size_px: {len(sizes.widths)} convolutions need sides of {smallest} or more.")
    if augment.get("crop_px") is not None:
        raise StageFailed("train.network.augment.crop_px is a detector's: all pictures of a classifier have one size.")
    if params.weights is not None and sizes.kind != "resnet18":
        raise StageFailed(
            "train.network.weights goes with sizes.kind: resnet18; the small network starts from scratch."
        )
    return params, sizes.model_dump(mode="json"), augment


def _statistics(pictures: Pictures) -> tuple[list[float], list[float]]:
    """The pixels' mean and deviation, channel by channel, over rows spread evenly."""
    rows = np.unique(np.linspace(0, len(pictures) - 1, min(len(pictures), _MEASURED_PICTURES)).astype(int))
    counts = np.zeros((pictures[0].shape[0], 256), dtype=np.int64)
    for row in rows:
        for channel, values in enumerate(pictures[int(row)]):
            counts[channel] += np.bincount(values.ravel(), minlength=256)
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ np.arange(256)
    deviation = np.sqrt((share * (np.arange(256) - mean[:, None]) ** 2).sum(1))
    return [round(float(m), 3) for m in mean], [round(max(float(d), 1.0), 3) for d in deviation]
