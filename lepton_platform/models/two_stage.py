"""Faster R-CNN (Ren et al., 2015, arXiv:1506.01497): first where something is, then what it is and where exactly.

Training is torchvision's: matching, sampling and losses of the proposals and of the second stage. To answer, shapes are
fixed, so that the network exports and batches: the proposals are the places whose objectness is the highest among their
neighbours (max pooling in place of suppression: Zhou et al., 2019, arXiv:1904.07850), and suppression of the answers is
outside, as for the one-stage detector.

Letters in names are shapes: B pictures, A anchors over all levels, K proposals a picture, M true boxes, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import roi_align

from lepton_platform.models.detector import FeatureParams, Features, initialise
from lepton_platform.models.one_stage import grid

_POOLED = 7  # places along a side of what the second stage sees of a proposal
_STRIDES_A_SIDE = 8  # a proposal of so many strides, or more, is read on the next coarser level
_TRAINING_PROPOSALS = 500
_LARGEST_SHIFT = 4.135  # of a side's logarithm, as torchvision's


class Anchors(nn.Module):
    """Squares of some sides round every place; ``sides[level]`` in pixels."""

    def __init__(self, sides: Sequence[Sequence[float]], strides: Sequence[int]) -> None:
        super().__init__()
        self.sides, self.strides = sides, strides

    def num_anchors_per_location(self) -> list[int]:
        return [len(some) for some in self.sides]

    def level(self, number: int, height: int, width: int, device: torch.device) -> Tensor:
        """(height × width × sides, 4), the sides of one place next to each other."""
        centre = grid(height, width, self.strides[number], device)[:, None]
        half = torch.tensor(self.sides[number], device=device)[None, :, None] / 2
        return torch.cat([centre - half, centre + half], dim=2).reshape(-1, 4)

    def forward(self, images: ImageList, maps: Sequence[Tensor]) -> list[Tensor]:
        every = [self.level(n, m.shape[2], m.shape[3], m.device) for n, m in enumerate(maps)]
        return [torch.cat(every)] * len(images.image_sizes)


class ProposalHead(RPNHead):
    """torchvision's, with answers in float32 whatever they are computed in."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        objectness, shifts = super().forward(x)
        return [one.float() for one in objectness], [one.float() for one in shifts]


class Pool(nn.Module):
    """What every proposal covers, on the level whose stride goes with its size: (K, width, 7, 7).

    To answer, all levels are read and one is taken, so that shapes do not depend on where the boxes are.
    """

    def __init__(self, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = strides

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], shapes: Any) -> Tensor:
        del shapes
        every = torch.cat(boxes)
        row = torch.cat([torch.full_like(some[:, :1], n) for n, some in enumerate(boxes)])
        return self.pooled(list(maps.values()), torch.cat([row, every], dim=1))

    def pooled(self, maps: Sequence[Tensor], rois_K5: Tensor) -> Tensor:
        side_K = ((rois_K5[:, 3] - rois_K5[:, 1]) * (rois_K5[:, 4] - rois_K5[:, 2])).clamp(min=1.0).sqrt()
        level_K = (side_K / (_STRIDES_A_SIDE * self.strides[0])).log2().floor().add(1).clamp(0, len(maps) - 1)
        found = maps[0].new_zeros((len(rois_K5), maps[0].shape[1], _POOLED, _POOLED), dtype=torch.float32)
        for number, (stride, one) in enumerate(zip(self.strides, maps, strict=True)):
            mine = level_K == number
            if self.training:
                seen = roi_align(one.float(), rois_K5[mine], _POOLED, 1.0 / stride, sampling_ratio=1, aligned=True)
                found = found.index_put((mine.nonzero()[:, 0],), seen)
            else:
                seen = roi_align(one.float(), rois_K5, _POOLED, 1.0 / stride, sampling_ratio=1, aligned=True)
                found = found + seen * mine[:, None, None, None]
        return found


class BoxHead(nn.Module):
    """Two linear layers on what a proposal covers."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(width * _POOLED**2, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )

    def forward(self, seen: Tensor) -> Tensor:
        return self.layers(seen)


class Predictor(nn.Module):
    """Class logits (K, 1 + C), the first for nothing, and one shift of the box for all classes, repeated for each."""

    def __init__(self, hidden: int, classes: int) -> None:
        super().__init__()
        self.classes, self.shift = nn.Linear(hidden, 1 + classes), nn.Linear(hidden, 4)
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.normal_(self.shift.weight, std=0.001)
        nn.init.zeros_(self.classes.bias)
        nn.init.zeros_(self.shift.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.classes(x).float()
        return logits, self.shift(x).float().repeat(1, logits.shape[1])


class TwoStage(nn.Module):
    """``image`` (B, 3, H, W) uint8 → dense (B, K, 4 + C) float32: boxes xyxy in pixels, class logits.

    With ``boxes`` (B, M, 4) and ``labels`` (B, M), negative where there is none, it answers the rows' losses (B,).
    """

    opset = 21  # the newest version of ONNX's operators whose RoiAlign ONNX Runtime has

    def __init__(
        self, features: FeatureParams, classes: int, sides: Sequence[Sequence[float]], proposals: int, hidden: int
    ) -> None:
        super().__init__()
        self.features = Features(features)
        self.strides, self.proposals = features.levels, proposals
        width, many = features.width, len(sides[0])
        self.rpn = RegionProposalNetwork(
            Anchors(sides, features.levels),  # pyright: ignore[reportArgumentType] - of its kind
            ProposalHead(width, many),
            fg_iou_thresh=0.6,
            bg_iou_thresh=0.3,
            batch_size_per_image=128,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2 * _TRAINING_PROPOSALS, "testing": proposals},
            post_nms_top_n={"training": _TRAINING_PROPOSALS, "testing": proposals},
            nms_thresh=0.7,
        )
        self.roi = RoIHeads(
            Pool(features.levels),
            BoxHead(width, hidden),
            Predictor(hidden, classes),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=64,
            positive_fraction=0.33,
            bbox_reg_weights=None,
            score_thresh=0.0,
            nms_thresh=1.0,
            detections_per_img=proposals,
        )
        initialise(self.features)

    def forward(self, image: Tensor, boxes: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        maps = self.features(image)
        if boxes is None or labels is None:
            return self._answers(maps)
        rows = [self._loss([m[n : n + 1] for m in maps], image, boxes[n], labels[n]) for n in range(len(image))]
        return torch.stack(rows)

    def _loss(self, maps: list[Tensor], image: Tensor, boxes_M4: Tensor, labels_M: Tensor) -> Tensor:
        """One row's: its own, whatever batch it is in."""
        real = labels_M >= 0
        truth = [{"boxes": boxes_M4[real], "labels": labels_M[real] + 1}]
        height, width = image.shape[2:]
        pictures = ImageList(image[:1], [(height, width)])
        named = {str(n): m for n, m in enumerate(maps)}
        proposals, first = self.rpn(pictures, named, truth)
        _, second = self.roi(named, proposals, pictures.image_sizes, truth)
        return torch.stack([*first.values(), *second.values()]).float().sum()

    def _answers(self, maps: list[Tensor]) -> Tensor:
        proposals_BK4 = self._proposals(maps)
        rows, many = proposals_BK4.shape[:2]
        row_BK1 = torch.arange(rows, device=proposals_BK4.device)[:, None, None].expand(-1, many, 1)
        rois = torch.cat([row_BK1.to(proposals_BK4.dtype), proposals_BK4], dim=2).reshape(-1, 5)
        pool, predictor = self.roi.box_roi_pool, self.roi.box_predictor
        assert isinstance(pool, Pool) and isinstance(predictor, Predictor)
        hidden = self.roi.box_head(pool.pooled(maps, rois))
        logits = predictor.classes(hidden).float()
        boxes = shifted(rois[:, 1:], predictor.shift(hidden).float() / torch.tensor([10.0, 10.0, 5.0, 5.0]).to(rois))
        return torch.cat([boxes, against_all_others(logits)], dim=1).reshape(rows, many, -1)

    def _proposals(self, maps: list[Tensor]) -> Tensor:
        """(B, K, 4): the surest places among those surer than their neighbours; empty boxes where there are fewer.

        In the order of the places: what is equally sure to the last bit but one stays where it is.
        """
        anchors, head = self.rpn.anchor_generator, self.rpn.head
        assert isinstance(anchors, Anchors)
        scores, found = [], []
        for number, (objectness, shift) in enumerate(zip(*head(maps), strict=True)):
            many, height, width = objectness.shape[1:]
            peak = objectness >= F.max_pool2d(objectness, 3, 1, 1)
            scores.append(torch.where(peak, objectness, objectness - 100.0).permute(0, 2, 3, 1).flatten(1))
            at = anchors.level(number, height, width, objectness.device)
            by_place = shift.unflatten(1, (many, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
            found.append(shifted(at, by_place))
        score_BA = F.pad(torch.cat(scores, dim=1), (0, self.proposals), value=-1e4)
        box_BA4 = F.pad(torch.cat(found, dim=1), (0, 0, 0, self.proposals))
        best_BK = score_BA.topk(self.proposals, dim=1).indices.sort(dim=1).values
        return box_BA4.gather(1, best_BK[:, :, None].expand(-1, -1, 4))


def shifted(boxes: Tensor, shift: Tensor) -> Tensor:
    """Boxes (…, 4) xyxy moved by shares of their sides and grown by logarithms."""
    size = boxes[..., 2:] - boxes[..., :2]
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2 + shift[..., :2] * size
    half = size / 2 * shift[..., 2:].clamp(max=_LARGEST_SHIFT).exp()
    return torch.cat([centre - half, centre + half], dim=-1)


def against_all_others(logits: Tensor) -> Tensor:
    """Softmax logits (K, 1 + C), nothing first → (K, C) whose sigmoid is the softmax's probability."""
    found = []
    for number in range(1, logits.shape[1]):
        others = torch.cat([logits[:, :number], logits[:, number + 1 :]], dim=1)
        found.append(logits[:, number] - others.logsumexp(1))
    return torch.stack(found, dim=1)
