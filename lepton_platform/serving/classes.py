"""Tasks whose answer is one label of several: from logits to what is answered and logged."""

from collections.abc import Sequence

import numpy as np

from lepton_platform.serving.protocols import Json

DIGITS = 6  # of a probability: finer than int8 arithmetic is


def softmax(logits: np.ndarray) -> np.ndarray:
    """(C,) → (C,) probabilities, in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return powers / powers.sum()


def label_answer(labels: Sequence[str], logits: np.ndarray) -> tuple[Json, Json]:
    """Logits (C,) → ({"label", "score"}, {"scores": {label: probability}}); no answer is made of what is not a number."""
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
