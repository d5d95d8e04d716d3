"""Learning to find things in pictures: the learner that every task of this kind shares (see ``training/part.py``).

Importing this module is cheap: torch comes with the first network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_platform.models import boxes as box_maths
from lepton_platform.models import matching
from lepton_platform.models.batch import Batch
from lepton_platform.models.boxes import IGNORED
from lepton_platform.models.detection_params import PostParams, parsed
from lepton_platform.models.detection_samples import MULTIPLE, DetectionSamples, Truth
from lepton_platform.models.one_graph import OneGraph
from lepton_platform.models.pictures import Pictures
from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from lepton_platform.models.one_stage import OneStage
    from lepton_platform.models.pictures import Decode
    from lepton_platform.models.two_stage import TwoStage

Config = Mapping[str, Any]


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
        params, features, augment, post = parsed(network)
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
