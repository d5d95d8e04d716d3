"""A one-stage detector without anchors: every place of every level says what is there and which box goes round it.

The head is YOLOX's (Ge et al., 2021, arXiv:2107.08430): separate branches for classes and boxes, a box as the shift of
its centre and the logarithm of its sides. Which places learn a box is decided by how well they find it already
(task-aligned assignment: Feng et al., 2021, arXiv:2108.07755), and a class's score learns to be the box's overlap, so
that no other figure of merit is needed. Overlap is learnt by GIoU (Rezatofighi et al., 2019, arXiv:1902.09630).

Letters in names are shapes: B pictures, A places over all levels, M true boxes (padded), C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lepton_platform.models.boxes import IGNORED
from lepton_platform.models.detector import FeatureParams, Features, conv, initialise

_PRIOR = 0.01  # how likely a place holds a class, before anything is learnt (Lin et al., 2017, arXiv:1708.02002)
_LARGEST = 6.0  # of a side's logarithm: 400 strides


class OneStage(nn.Module):
    """``image`` (B, 3, H, W) uint8 → dense (B, A, 4 + C) float32: boxes xyxy in pixels, class logits."""

    def __init__(self, features: FeatureParams, classes: int, convolutions: int, prior_px: float) -> None:
        super().__init__()
        self.features = Features(features)
        self.strides = features.levels
        norm = "batch" if features.norm == "frozen" else features.norm
        width = features.width
        self.class_branch = nn.Sequential(*(conv(width, width, norm) for _ in range(convolutions)))
        self.box_branch = nn.Sequential(*(conv(width, width, norm) for _ in range(convolutions)))
        self.head = nn.ModuleDict({"classes": nn.Conv2d(width, classes, 1), "boxes": nn.Conv2d(width, 4, 1)})
        initialise(self)
        for module in self.head.values():
            nn.init.normal_(module.weight, std=0.01)  # pyright: ignore[reportArgumentType]
        nn.init.constant_(self.head["classes"].bias, -math.log((1 - _PRIOR) / _PRIOR))  # pyright: ignore[reportArgumentType]
        self.prior_px = prior_px

    def forward(self, image: Tensor) -> Tensor:
        dense = []
        for stride, level in zip(self.strides, self.features(image), strict=True):
            logits = self.head["classes"](self.class_branch(level)).float()
            raw = self.head["boxes"](self.box_branch(level)).float()
            boxes = self._boxes(raw.flatten(2).transpose(1, 2), level, stride)
            dense.append(torch.cat([boxes, logits.flatten(2).transpose(1, 2)], dim=2))
        return torch.cat(dense, dim=1)

    def _boxes(self, raw_BA4: Tensor, level: Tensor, stride: int) -> Tensor:
        """Shift and logarithms of sides → xyxy; an untrained head says squares of the training boxes' median side."""
        centre_A2 = grid(level.shape[2], level.shape[3], stride, level.device)
        centre_BA2 = centre_A2 + raw_BA4[:, :, :2] * stride
        half_BA2 = raw_BA4[:, :, 2:].clamp(-_LARGEST, _LARGEST).exp() * (self.prior_px / 2)
        return torch.cat([centre_BA2 - half_BA2, centre_BA2 + half_BA2], dim=2)


def grid(height: int, width: int, stride: int, device: torch.device | None = None) -> Tensor:
    """The centres x, y of a level's places in pixels, row by row: (height × width, 2)."""
    x = (torch.arange(width, device=device) + 0.5) * stride
    y = (torch.arange(height, device=device) + 0.5) * stride
    return torch.stack([x.repeat(height), y[:, None].expand(height, width).reshape(-1)], dim=1)


def places(height: int, width: int, strides: Sequence[int]) -> Tensor:
    """The centre and the stride of every place of a picture of that size: (A, 3)."""
    found = []
    for stride in strides:
        centre = grid(height // stride, width // stride, stride)
        found.append(torch.cat([centre, torch.full((len(centre), 1), float(stride))], dim=1))
    return torch.cat(found)


def pair_iou(a: Tensor, b: Tensor, generalised: bool = False) -> Tensor:
    """IoU (or GIoU) of boxes (…, 4) with boxes that broadcast against them."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    overlap = shared / union.clamp(min=1e-6)
    if not generalised:
        return overlap
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    return overlap - (hull - union) / hull.clamp(min=1e-6)


class Assignment:
    """Which box every place learns. ``box`` (B, A): its number; ``positive`` (B, A); ``score`` (B, A): what to say.

    ``counted`` (B, A) is False where nothing is learnt: in an ignored box, unless the place has a box of its own.
    """

    def __init__(self, box: Tensor, positive: Tensor, score: Tensor, counted: Tensor) -> None:
        self.box, self.positive, self.score, self.counted = box, positive, score, counted


@torch.no_grad()
def assign(
    dense: Tensor,
    places_BA3: Tensor,
    boxes_BM4: Tensor,
    labels_BM: Tensor,
    *,
    most: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> Assignment:
    """Task-aligned assignment: a box is learnt by the ``most`` places near it whose score^alpha × IoU^beta is highest.

    Near: the place's centre is inside the box, or at most a stride from its centre along both axes, so that boxes
    smaller than a stride are learnt too. A place that two boxes want goes to the one that it overlaps more.
    """
    centre_B1A2, stride_B1A = places_BA3[:, None, :, :2], places_BA3[:, None, :, 2]
    box_BM14 = boxes_BM4[:, :, None]
    inside_BMA = ((centre_B1A2 > box_BM14[..., :2]) & (centre_B1A2 < box_BM14[..., 2:])).all(-1)
    middle_BM12 = (box_BM14[..., :2] + box_BM14[..., 2:]) / 2
    close_BMA = ((centre_B1A2 - middle_BM12).abs() <= stride_B1A[..., None]).all(-1)
    real_BM1 = (labels_BM >= 0)[:, :, None]
    near_BMA = (inside_BMA | close_BMA) & real_BM1
    overlap_BMA = pair_iou(dense[:, None, :, :4], box_BM14).clamp(min=0) * near_BMA
    number_BMA = labels_BM.clamp(min=0)[:, :, None].expand(-1, -1, dense.shape[1])
    score_BMA = dense[:, :, 4:].sigmoid().transpose(1, 2).gather(1, number_BMA)
    merit_BMA = score_BMA**alpha * overlap_BMA**beta * near_BMA + 1e-12 * near_BMA
    best_BMK = merit_BMA.topk(min(most, merit_BMA.shape[2]), dim=2).indices
    chosen_BMA = torch.zeros_like(near_BMA).scatter_(2, best_BMK, True) & near_BMA
    claims_BMA = torch.where(chosen_BMA, overlap_BMA + 1e-9, torch.zeros_like(overlap_BMA))
    claim_BA, box_BA = claims_BMA.max(dim=1)
    positive_BA = claim_BA > 0
    mine_BMA = chosen_BMA & (torch.arange(chosen_BMA.shape[1], device=dense.device)[:, None] == box_BA[:, None])
    merit_BMA = merit_BMA * mine_BMA
    scale_BM1 = (overlap_BMA * mine_BMA).amax(2, keepdim=True) / merit_BMA.amax(2, keepdim=True).clamp(min=1e-12)
    target_BA = (merit_BMA * scale_BM1).sum(1)
    ignored_BA = (inside_BMA & (labels_BM == IGNORED)[:, :, None]).any(1)
    return Assignment(box_BA, positive_BA, target_BA, positive_BA | ~ignored_BA)


_PLACES_A_BOX = 32  # a row's loss is a mean over its places times this: of the order of one whatever the size
_BOX_WEIGHT = 8.0  # places that learn a box are few, and boxes are what takes longest to learn


def row_losses(dense: Tensor, places_BA3: Tensor, boxes_BM4: Tensor, labels_BM: Tensor) -> Tensor:
    """(B,): how wrong the classes' scores are at all places, and the boxes at those that learn one.

    A sum over the places divided by their number and not by the boxes': each place counts the same, in pictures full
    of boxes and in empty ones, and a row's loss is its own, whatever batch it is in.
    """
    found = assign(dense, places_BA3, boxes_BM4, labels_BM)
    logits_BAC = dense[:, :, 4:]
    label_BA = labels_BM.gather(1, found.box).clamp(min=0)
    target_BAC = F.one_hot(label_BA, logits_BAC.shape[2]) * (found.score * found.positive)[:, :, None]
    wanted = target_BAC.to(logits_BAC.dtype)
    classes = F.binary_cross_entropy_with_logits(logits_BAC, wanted, reduction="none").sum(2) * found.counted
    box_BA4 = boxes_BM4.gather(1, found.box[:, :, None].expand(-1, -1, 4))
    missing = (1 - pair_iou(dense[:, :, :4], box_BA4, generalised=True)) * found.score * found.positive
    return (classes + _BOX_WEIGHT * missing).mean(1) * _PLACES_A_BOX
