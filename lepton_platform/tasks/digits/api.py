"""What the service takes and gives: pictures of one digit in, a label and how likely each was out."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from lepton_platform.serving.classes import label_answer, label_schema
from lepton_platform.serving.images import FIELD, INLINE_BYTES, MAX_FILE_BYTES, ImageEncoder, images_schema
from lepton_platform.serving.media import CONTENT_TYPES, as_multipart, decode_files, file_of
from lepton_platform.serving.protocols import Json, Parts

__all__ = ["CONTENT_TYPES", "INLINE_BYTES"]

KIND = "image"
MAX_INPUTS = 64
MAX_BODY_BYTES = 32 << 20
REQUIREMENTS = ("pillow", "python-multipart")  # what the Bento installs for this task
EXAMPLE = {  # a seven
    FIELD: [
        "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAANklEQVR4nGNgGBmAEUr/xybMhFcLFvD/PzFy2I0lxlDSdBLnGhKNRTWUBJ1oriFe"
        "Jz5vDAoAAJ6lEP/F+TOBAAAAAElFTkSuQmCC"
    ]
}


def decode(body: bytes, content_type: str) -> list[bytes]:
    """The files of a request."""
    return decode_files(body, content_type, FIELD, MAX_INPUTS, MAX_FILE_BYTES)


def encoder(model: Path, preprocess: ModuleType) -> ImageEncoder:
    """Decoded as the training rows were."""
    return ImageEncoder(model, preprocess.decode)


def answer(labels: Sequence[str], parts: Parts, outputs: Sequence[np.ndarray]) -> tuple[Json, Json]:
    """All labels' probabilities are part of the answer: there are few."""
    said, beside = label_answer(labels, parts, outputs)
    return {**said, **beside}, {}


def answer_schema(labels: Sequence[str]) -> Json:
    schema = label_schema(labels)
    share = schema["properties"]["score"]
    schema["properties"]["scores"] = {"type": "object", "properties": dict.fromkeys(labels, share)}
    schema["required"] = [*schema["required"], "scores"]
    return schema


def logged(value: bytes) -> Json:
    """The file as it was sent."""
    return {"image": value}


def from_row(row: Json) -> bytes:
    return row["image"]


def request_schema(content_type: str) -> Json:
    return images_schema(content_type, MAX_INPUTS)


def annotated(value: bytes, answer: Json) -> tuple[bytes, str]:
    """The picture, the label and the scores below it."""
    from lepton_platform.serving.drawing import PNG, scores_drawn
    from lepton_platform.tasks.digits.preprocess import decode as pixels

    return scores_drawn(pixels(value), answer["label"], answer["scores"]), PNG


def from_command_line(given: str | bytes) -> Json:
    """What `lepton predict` was given, as the request to send: keywords of ``httpx.post``."""
    return as_multipart(FIELD, file_of(given))
