"""What a network that finds things in pictures is made of, and which of its boxes are answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lepton_platform.models.labelling import wrong_params
from lepton_platform.stage import StageFailed


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


def parsed(network: Mapping[str, Any]) -> tuple[DetectionParams, dict[str, Any], dict[str, Any], dict[str, Any]]:
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
