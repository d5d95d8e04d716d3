"""Tasks whose answer is one label of several: from logits to what is answered and logged; what feedback says."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lepton_platform.serving.jsonbody import kind, shown
from lepton_platform.serving.protocols import Json, Parts
from lepton_platform.serving.rejected import malformed

DIGITS = 6  # of a probability: finer than int8 arithmetic is


def softmax(logits: np.ndarray) -> np.ndarray:
    """(C,) → (C,) probabilities, in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return powers / powers.sum()


def label_answer(labels: Sequence[str], parts: Parts, outputs: Sequence[np.ndarray]) -> tuple[Json, Json]:
    """Logits [(C,)] of the one part → ({"label", "score"}, {"scores": {label: probability}}).

    No answer is made of what is not a number.
    """
    [logits] = outputs
    if not np.isfinite(logits).all():
        raise ValueError(f"The model's output is not finite: {logits}.")
    shares = [round(float(p), DIGITS) for p in softmax(logits)]
    best = int(logits.argmax())
    return {"label": labels[best], "score": shares[best]}, {"scores": dict(zip(labels, shares, strict=True))}


def label_schema(labels: Sequence[str]) -> Json:
    """JSON Schema of such an answer."""
    return {
        "type": "object",
        "properties": {
            "label": {"type": "string", "enum": list(labels)},
            "score": {"type": "number", "minimum": 0, "maximum": 1},
        },
        "required": ["label", "score"],
    }


def label_truth(value: Any, where: str, labels: Sequence[str]) -> str:
    """One of the labels; ``Rejected`` names what was sent instead."""
    if not isinstance(value, str):
        raise malformed(f"{where} must be a string, not {kind(value)}.", where)
    if value not in labels:
        raise malformed(f"{where}: there is no label {shown(value)}; the labels are: {', '.join(labels)}.", where)
    return value


def label_truth_schema(labels: Sequence[str]) -> Json:
    return {"type": "string", "enum": list(labels)}
