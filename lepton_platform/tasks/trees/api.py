"""What the service takes and gives: aerial pictures in, boxes round the trees out. Large ones are tiled and merged."""

from pathlib import Path
from types import ModuleType

from lepton_platform.serving.boxes import MAX_FEEDBACK_BYTES
from lepton_platform.serving.boxes import NAME as TRUTH
from lepton_platform.serving.boxes import boxes_answer as answer
from lepton_platform.serving.boxes import boxes_answer_schema as answer_schema
from lepton_platform.serving.boxes import boxes_truth as truth
from lepton_platform.serving.boxes import boxes_truth_schema as truth_schema
from lepton_platform.serving.images import FIELD, INLINE_BYTES, MAX_FILE_BYTES, TiledEncoder, images_schema
from lepton_platform.serving.media import CONTENT_TYPES, as_multipart, decode_files, file_of
from lepton_platform.serving.protocols import Json

__all__ = [
    "CONTENT_TYPES",
    "INLINE_BYTES",
    "MAX_FEEDBACK_BYTES",
    "TRUTH",
    "answer",
    "answer_schema",
    "truth",
    "truth_schema",
]

DRAWN_SCORE = 0.3  # the answer has every box that average precision counts; a person looks at the likely ones
KIND = "image"
MAX_INPUTS = 16
MAX_BODY_BYTES = 64 << 20
REQUIREMENTS = ("pillow", "python-multipart")  # what the Bento installs for this task
EXAMPLE = {  # one crown in grass
    FIELD: [
        "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAABNUlEQVR4nO2YOw7CMBBEE8QRUnMcak5CzTkoqDkCNcehziEoVopQftjeWYbI80SVRGae"
        "d7Fj2tv90myZHTuAFwmwkQAbCbCRABsJsJEAGwmw2cNHvD4f04vn4wn+RQZMYDb39C7cBNNClq87dJ+flSeBtM4j5RB96YH+1c9eR5XCVYGv6VfuokpR"
        "LpCS3gh12PwyWiiQPv1GXBFKBLAriXO0Wlvof8gWgO9EzjFdFVjapDxP5lJfC41Imdq46W8gFVjPF5q+Qb1OW8rRbhUd3UAeaH6TeER2C0WcrTxjVr8K"
        "0SkRwHaRc7TCCqAc/ONU2UKGf/IgZXRVwJMA1YTejcxyZL0PY9cAzG8gPRN8H4S9SgzJtvrf6EBc1lkqXkb/BAmwkQAbCbCRABsJsJEAGwmwkQCbN163"
        "WsMSUjSPAAAAAElFTkSuQmCC"
    ]
}


def decode(body: bytes, content_type: str) -> list[bytes]:
    """The files of a request."""
    return decode_files(body, content_type, FIELD, MAX_INPUTS, MAX_FILE_BYTES)


def encoder(model: Path, preprocess: ModuleType) -> TiledEncoder:
    """Decoded and cut as the training rows were."""
    return TiledEncoder(model, preprocess.decode, preprocess.TILE_PX, preprocess.MARGIN_PX)


def logged(value: bytes) -> Json:
    """The file as it was sent."""
    return {"image": value}


def from_row(row: Json) -> bytes:
    return row["image"]


def request_schema(content_type: str) -> Json:
    return images_schema(content_type, MAX_INPUTS)


def annotated(value: bytes, answer: Json) -> tuple[bytes, str]:
    """The picture with the boxes drawn on it, but for those that would only cover the surer ones."""
    from lepton_platform.serving.drawing import PNG, boxes_drawn
    from lepton_platform.tasks.trees.preprocess import decode as pixels

    drawn = [box for box in answer[TRUTH] if box["score"] >= DRAWN_SCORE]
    return boxes_drawn(pixels(value), drawn), PNG


def from_command_line(given: str | bytes) -> Json:
    """What `lepton predict` was given, as the request to send: keywords of ``httpx.post``."""
    return as_multipart(FIELD, file_of(given))
