"""The same model served as people serve one without a platform."""

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Model(Protocol):
    """A task's model, as a peer calls it."""

    session: Any  # ONNX Runtime's

    def encode(self, values: list[str]) -> list[dict[str, np.ndarray]]:
        """The feeds of the calls that answer these values together."""
        ...

    def predict(self, values: list[str]) -> list[dict[str, Any]]: ...


def load(model: Path, threads: int = 0) -> Model:
    """The model in a Bento's ``src/model``: of texts where it has a tokenizer, else of pictures."""
    if (model / "tokenizer.json").is_file():
        from benchmarks.peers.classifier import Classifier

        return Classifier(model, threads)
    from benchmarks.peers.pictures import Pictures

    return Pictures(model, threads)


def field_of(model: Path) -> str:
    """The field of a request: a list of texts, or of pictures in base64."""
    return "texts" if (model / "tokenizer.json").is_file() else "images"


def told(prediction: dict[str, Any]) -> str:
    """What a prediction says, without its id: its label, or its likelier boxes."""
    if "label" in prediction:
        return prediction["label"]
    boxes = [(box["label"], [round(x) for x in box["box"]]) for box in prediction["boxes"] if box["score"] >= 0.3]
    return json.dumps(boxes)
