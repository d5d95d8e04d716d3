"""What can drift in reviews: how they are written, what they are about, and what the model answers."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lepton_platform.monitoring.signals import Signals
from lepton_platform.tasks.sentiment.preprocess import CONTENT, LABEL, normalise, statistics

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

GROUP = "film_id"  # reviews of one film resemble each other
MAX_TOKENS = 64  # of a text, to embed it: what it is about shows in its first sentences


def inputs(rows: "pa.Table", downloads: Path) -> Signals:
    """What can be counted in a text, and its embedding; ``rows`` (N, …) has the column ``text``."""
    from lepton_platform.models.light_embedding import embed_light
    from lepton_platform.models.pretrained import minilm

    texts = _texts(rows)
    vectors_ND = embed_light(texts, minilm(downloads), max_tokens=MAX_TOKENS)
    return Signals(_numbers(texts), vectors={"embedding": vectors_ND})


def answers(rows: "pa.Table") -> Signals:
    """The label and how sure of it the model is."""
    score = rows["score"].to_numpy().astype(np.float64)
    return Signals({"score": score}, classes={LABEL: np.asarray(rows[LABEL].to_pylist(), dtype=str)})


def counted(rows: "pa.Table") -> Signals:
    """Of every row of the log."""
    return answers(rows)


def cheap(rows: "pa.Table") -> Signals:
    """Of one row in sixteen: what can be counted in a text takes 80 microseconds."""
    return Signals(_numbers(_texts(rows)))


def _texts(rows: "pa.Table") -> list[str]:
    """The log has them as they were sent."""
    return [normalise(text) for text in rows[CONTENT].to_pylist()]


def _numbers(texts: list[str]) -> dict[str, "NDArray[np.float64]"]:
    found = [statistics(text) for text in texts]
    return {name: np.array([float(one[name]) for one in found]) for name in found[0]} if found else {}
