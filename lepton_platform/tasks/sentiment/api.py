"""What the service takes and gives: reviews in, fresh or rotten out."""

from pathlib import Path
from types import ModuleType

from lepton_platform.serving.classes import label_answer as answer
from lepton_platform.serving.classes import label_schema as answer_schema
from lepton_platform.serving.protocols import Json
from lepton_platform.serving.texts import TextEncoder, decode_texts, texts_schema

__all__ = ["answer", "answer_schema", "decode", "encoder", "from_command_line", "from_row", "logged", "request_schema"]

FIELD = "texts"
CONTENT_TYPES = ("application/json",)
KIND = "text"
MAX_INPUTS = 256
MAX_CHARACTERS = 10_000  # of one text
MAX_BODY_BYTES = 1_048_576
REQUIREMENTS = ("ftfy", "tokenizers")  # what the Bento installs for this task
EXAMPLE = {FIELD: ["A charming, thoughtful film that stays with you.", "Two hours that I will never get back."]}


def decode(body: bytes, content_type: str) -> list[str]:
    """The reviews of a request."""
    return decode_texts(body, FIELD, MAX_INPUTS, MAX_CHARACTERS)


def encoder(model: Path, preprocess: ModuleType) -> TextEncoder:
    """Normalised as the training rows were."""
    return TextEncoder(model, preprocess.normalise, FIELD)


def logged(value: str) -> Json:
    return {"text": value}


def from_row(row: Json) -> str:
    return row["text"]


def request_schema(content_type: str) -> Json:
    return texts_schema(FIELD, MAX_INPUTS, MAX_CHARACTERS)


def from_command_line(given: str | bytes) -> Json:
    """What `lepton predict` was given, as the request to send: keywords of ``httpx.post``."""
    text = given.decode("utf-8", "replace") if isinstance(given, bytes) else given
    return {"json": {FIELD: [text]}}
