"""Learning to find things in pictures: the learner that every task of this kind shares (see ``training/part.py``).

Importing this module is cheap: torch comes with the first network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lepton_platform.models import boxes as box_maths
from lepton_platform.models import matching
from lepton_platform.models.batch import Batch
from lepton_platform.models.boxes import IGNORED, NOTHING
from lepton_platform.models.image_input import pad
from lepton_platform.models.labelling import wrong_params
from lepton_platform.models.one_graph import OneGraph
from lepton_platform.models.pictures import Pictures
from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from lepton_platform.models.augment import Augmentation
    from lepton_platform.models.one_stage import OneStage
    from lepton_platform.models.pictures import Decode
    from lepton_platform.models.two_stage import TwoStage

Config = Mapping[str, Any]
MULTIPLE = 32  # of height and width: the coarsest stage's stride


class PostParams(BaseModel):
    """Which of a network's boxes are answers; the service reads them in ``config.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    score_threshold: float = Field(0.05, ge=0, lt=1, description="Boxes that are less sure are left out.")
    iou_threshold: float = Field(0.5, gt=0, le=1, description="Of two that overlap more, the surer one stays.")
    max_detections: int = Field(300, ge=1, description="The surest so many of a picture.")


class DetectionParams(BaseModel):
    """The section ``train.network`` of a task that finds things in pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["one_stage", "faster_rcnn"] = "one_stage"
    features: dict[str, Any] = Field(default_factory=dict, description="backbone, norm, widths, blocks, levels, width.")
    convolutions: int = Field(2, ge=1, description="one_stage: of the head, on the way to classes and to boxes.")
    prior_px: float | None = Field(
        None, gt=0, description="one_stage: a box's side before anything is learnt; None: the training boxes' median."
    )
    anchors: int = Field(3, ge=1, description="faster_rcnn: squares tried at a place of a level; sides are the boxes'.")
    proposals: int = Field(300, ge=1, description="faster_rcnn: places of a picture that are looked at twice.")
    hidden: int = Field(256, ge=1, description="faster_rcnn: width of the second look's linear layers.")
    weights: str | None = Field(
        None,
        description="Pretrained, to start from. efficientnet_lite0: efficientnet-lite0, which is packaged; a ResNet: a "
        "safetensors file, a folder, or a hub's name.",
    )
    views: int = Field(1, ge=1, description="Views of every training picture in an epoch.")
    augment: dict[str, Any] = Field(default_factory=dict, description="crop_px, zoom, flips, colours … of a view.")
    postprocess: dict[str, Any] = Field(
        default_factory=dict, description="score_threshold, iou_threshold, max_detections."
    )


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


@dataclass(frozen=True)
class Detection(OneGraph):
    """Learns boxes and their labels.

    ``content``: the column of files. ``target``: the column of boxes, lists of {x1, y1, x2, y2, label, crowd} in
    pixels. ``height`` and ``width`` are columns too. ``decode``: a file's bytes → (H, W, 3) RGB.
    """

    content: str
    target: str
    labels: tuple[str, ...]
    decode: Decode
    height: str = "height"
    width: str = "width"

    @property
    def columns(self) -> tuple[str, ...]:
        return self.content, self.height, self.width, self.target

    def configure(self, network: Mapping[str, Any], rows: pa.Table, folder: Path, cache: Path) -> dict[str, Any]:
        """See ``Learner.configure``; leaves no files."""
        params, features, augment, post = _parsed(network)
        sides = self._sides(rows)
        if params.kind == "one_stage":
            own = {
                "convolutions": params.convolutions,
                "prior_px": params.prior_px or round(float(np.median(sides)), 2),
            }
        else:
            levels = len(features["levels"])
            shares = (np.arange(levels * params.anchors) + 0.5) / (levels * params.anchors)
            anchors = np.quantile(sides, shares).round(1).reshape(levels, params.anchors)
            own = {"anchors_px": anchors.tolist(), "proposals": params.proposals, "hidden": params.hidden}
        return {
            "kind": params.kind,
            "features": features,
            **own,
            "weights": params.weights,
            "views": params.views,
            "augment": augment,
            "labels": list(self.labels),
            "input": {"channels": 3, "size": None, "multiple": MULTIPLE},
            "files": [],
            "inputs": ["image"],
            "postprocess": post,
        }

    def _sides(self, rows: pa.Table) -> np.ndarray:
        """Of the training boxes, in pixels: the root of the area."""
        found = [box_maths.area(truth.boxes[truth.labels >= 0]) for truth in self._truths(rows)]
        areas = np.concatenate(found)
        if not len(areas):
            raise StageFailed(f"No training row has a box in '{self.target}': there is nothing to find.")
        return np.sqrt(areas)

    def build(self, config: Config) -> OneStage | TwoStage:
        from lepton_platform.models.detector import FeatureParams

        features, classes = FeatureParams(**config["features"]), len(config["labels"])
        if config["kind"] == "one_stage":
            from lepton_platform.models.one_stage import OneStage

            return OneStage(features, classes, config["convolutions"], config["prior_px"])
        from lepton_platform.models.two_stage import TwoStage

        return TwoStage(features, classes, config["anchors_px"], config["proposals"], config["hidden"])

    def start(self, network: OneStage | TwoStage, config: Config, cache: Path) -> None:
        """Load a pretrained backbone, if the config names one."""
        if config["weights"] is not None:
            from lepton_platform.models.detector import load_pretrained

            load_pretrained(network.features, config["weights"], cache)

    def encode(self, config: Config, folder: Path, rows: pa.Table, *, training: bool = False) -> DetectionSamples:
        pictures = Pictures(rows[self.content], self.decode, config)
        shapes = np.column_stack([rows[self.height].to_numpy(), rows[self.width].to_numpy()]).astype(np.int64)
        truths = self._truths(rows) if self.target in rows.column_names else None
        strides = tuple(config["features"]["levels"])
        told = config["kind"] == "faster_rcnn"
        if not training:
            return DetectionSamples(pictures, shapes, truths, strides, told=told)
        from lepton_platform.models.augment import Augmentation

        how = Augmentation(**config["augment"])
        return DetectionSamples(pictures, shapes, truths, strides, config["views"], how, told)

    def _truths(self, rows: pa.Table) -> list[Truth]:
        number = {label: n for n, label in enumerate(self.labels)}
        found = []
        for row, boxes in enumerate(rows[self.target].to_pylist()):
            unknown = [box["label"] for box in boxes if box["label"] not in number]
            if unknown:
                raise StageFailed(
                    f"The column '{self.target}' says {unknown[0]!r} in row {row}; the labels are: "
                    f"{', '.join(self.labels)}."
                )
            corners = [[box[name] for name in ("x1", "y1", "x2", "y2")] for box in boxes]
            labels = [IGNORED if box["crowd"] else number[box["label"]] for box in boxes]
            found.append(Truth(np.array(corners, np.float32).reshape(-1, 4), np.array(labels, np.int64)))
        return found

    def losses(self, outputs: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
        """``label_smoothing`` is not used: a score learns to be an overlap."""
        from lepton_platform.models.one_stage import row_losses

        del label_smoothing
        if outputs.ndim == 1:  # the network has computed them
            return outputs
        return row_losses(outputs, batch.targets["places"], batch.targets["boxes"], batch.targets["labels"])

    def measures(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """``ap50`` and ``ap40``: the average precision in each picture alone, with the usual thresholds.

        Its mean over pictures is not the figure of all pictures together, and it is what can be had a row at a time.
        """
        import torch

        found = self.scores(outputs, {"postprocess": PostParams.model_validate({}).model_dump()}).cpu().numpy()
        truths = zip(batch.targets["boxes"].cpu().numpy(), batch.targets["labels"].cpu().numpy(), strict=True)
        precisions = [_row_precision(answers, *truth) for answers, truth in zip(found, truths, strict=True)]
        ap = torch.tensor(np.array(precisions), dtype=torch.float32, device=outputs.device)
        # Of a network that computes its own losses an answer tells none: what is missing stands for it.
        loss = self.losses(outputs, batch, 0.0) if "places" in batch.targets else 1 - ap.mean(1)
        return {"loss": loss, "ap50": ap[:, 0], "ap40": ap[:, 1]}

    def scores(self, outputs: Tensor, config: Config) -> Tensor:
        """(B, K, 6): x1, y1, x2, y2, score, class; the surest first, zeros beyond the last."""
        import torch

        post: dict[str, Any] = config["postprocess"]
        answers = np.zeros((len(outputs), post["max_detections"], 6), dtype=np.float32)
        for place, dense in enumerate(outputs.detach().float().cpu().numpy()):
            found = box_maths.detections(dense, **post)
            answers[place, : len(found)] = found
        return torch.from_numpy(answers)

    def examples(self, config: Config) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Black pictures of two sizes; height and width may differ from each other."""
        import torch

        small = torch.zeros(2, 3, 2 * MULTIPLE, 3 * MULTIPLE, dtype=torch.uint8)
        large = torch.zeros(3, 3, 3 * MULTIPLE, 5 * MULTIPLE, dtype=torch.uint8)
        return {"image": small}, {"image": large}

    def depths(self, network: OneStage | TwoStage) -> dict[str, int]:
        """0 the head, then branches, pyramid and the backbone's stages down to the pixels."""
        from lepton_platform.models.depths import depths

        stages = [f"features.backbone.stages.{n}" for n in (3, 2, 1, 0)]
        head, before = ("head", "roi.box_predictor"), ("class_branch", "box_branch", "roi.box_head", "rpn")
        return depths(network, [head, before, "features.pyramid", *stages, "features.backbone.stem"])


def _row_precision(answers: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(2,): one picture's average precision at IoU 0.5 and 0.4, over its labels; without boxes, less the surest answer."""
    answers = answers[answers[:, 4] > 0]
    crowd, present = labels == IGNORED, sorted(set(labels[labels >= 0].tolist()))
    if not present:
        return np.full(2, 1.0 - answers[:, 4].max(initial=0.0))
    found = []
    for label in present:
        mine, asked = answers[answers[:, 5] == label], (labels == label) | crowd
        matched = matching.match(mine[:, :4], mine[:, 4], boxes[asked], crowd[asked], (0.5, 0.4))
        truths = np.full(2, float((labels == label).sum()))
        found.append(matching.average_precision(mine[:, 4], matched.right, ~matched.ignored, truths))
    return np.mean(found, axis=0)


def _parsed(network: Mapping[str, Any]) -> tuple[DetectionParams, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The section, and what belongs to the network, to views and to answers, complete."""
    from lepton_platform.models.augment import Augmentation
    from lepton_platform.models.detector import FeatureParams

    where: str = "train.network"
    model: type[BaseModel] = DetectionParams
    try:
        params = DetectionParams.model_validate(network)
        parts = []
        for name, model in (("features", FeatureParams), ("augment", Augmentation), ("postprocess", PostParams)):
            where = f"train.network.{name}"
            parts.append(model.model_validate(getattr(params, name)).model_dump(mode="json"))
    except ValidationError as error:
        raise wrong_params(where, error, model) from None
    features, augment, post = parts
    if params.weights is not None and features["backbone"] == "small":
        raise StageFailed("train.network.weights goes with another backbone; the small one is trained from scratch.")
    return params, features, augment, post
