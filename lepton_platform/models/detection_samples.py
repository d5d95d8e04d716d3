"""Pictures and the boxes in them, as every detector is given them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lepton_platform.models.batch import Batch
from lepton_platform.models.boxes import IGNORED, NOTHING
from lepton_platform.models.image_input import pad
from lepton_platform.models.pictures import Pictures

if TYPE_CHECKING:
    from lepton_platform.models.augment import Augmentation

MULTIPLE = 32  # of height and width: the coarsest stage's stride


@dataclass(frozen=True)
class Truth:
    """A row's boxes: ``boxes`` (M, 4) float32 xyxy, ``labels`` (M,) int64, ``IGNORED`` for a crowd."""

    boxes: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class DetectionSamples:
    """Pictures with their boxes, where these are known; with ``how``, other views of them every time."""

    pictures: Pictures
    shapes: np.ndarray  # (N, 2) height and width
    truths: list[Truth] | None
    strides: tuple[int, ...]
    views: int = 1
    how: Augmentation | None = None
    told: bool = False  # the network computes its losses: when it learns, boxes and labels are inputs

    @property
    def sizes(self) -> np.ndarray:
        """Blocks of 32 by 32 pixels; every view of a row is a row."""
        if self.how is not None and self.how.crop_px is not None:
            shapes = np.full_like(self.shapes, self.how.crop_px)
        else:
            shapes = self.shapes
        return np.tile(np.prod(-(-shapes // MULTIPLE), axis=1), self.views)

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """Pictures padded to one size; boxes (B, M, 4) and labels (B, M) padded to the most boxes.

        ``places`` (B, A, 3) are the same in every row: where a one-stage network looks, see ``one_stage.places``.
        """
        import torch

        from lepton_platform.models.one_stage import places

        chosen = [int(row) % len(self.pictures) for row in rows]
        if self.how is None:
            pictures = [self.pictures[row] for row in chosen]
            truths = None if self.truths is None else [self.truths[row] for row in chosen]
        else:
            assert self.truths is not None
            views = [_view(self.pictures[row], self.truths[row], self.how) for row in chosen]
            pictures, truths = [picture for picture, _ in views], [truth for _, truth in views]
        image = torch.from_numpy(pad(pictures, MULTIPLE))
        if truths is None:
            return Batch({"image": image}, {})
        most = max(1, *(len(truth.boxes) for truth in truths))
        boxes, labels = torch.zeros(len(chosen), most, 4), torch.full((len(chosen), most), NOTHING)
        for place, truth in enumerate(truths):
            boxes[place, : len(truth.boxes)] = torch.from_numpy(truth.boxes)
            labels[place, : len(truth.labels)] = torch.from_numpy(truth.labels)
        if self.told:
            named = {"boxes": boxes, "labels": labels}
            return Batch({"image": image}, named) if self.how is None else Batch({"image": image, **named}, {})
        where = places(image.shape[2], image.shape[3], self.strides).expand(len(chosen), -1, -1)
        return Batch({"image": image}, {"boxes": boxes, "labels": labels, "places": where})


def _view(picture: np.ndarray, truth: Truth, how: Augmentation) -> tuple[np.ndarray, Truth]:
    import torch

    from lepton_platform.models.augment import view

    seen = view(torch.from_numpy(picture), torch.from_numpy(truth.boxes), how)
    labels = np.where(seen.whole.numpy(), truth.labels[seen.kept.numpy()], IGNORED)
    return seen.image.numpy(), Truth(seen.boxes.numpy(), labels)
