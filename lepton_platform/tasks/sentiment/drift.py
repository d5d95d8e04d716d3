"""What can drift in reviews: how they are written, what they are about, and what the model answers."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lepton_platform.monitoring.signals import Signals
from lepton_platform.tasks.sentiment.preprocess import CONTENT, LABEL, normalise, statistics

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = "film_id"  # reviews of one film resemble each other
MAX_TOKENS = 64  # of a text, to embed it: what it is about shows in its first sentences


def inputs(rows: "pa.Table", downloads: Path) -> Signals:
    """What can be counted in a text, and its embedding; ``rows`` (N, …) has the column ``text``."""
    from lepton_platform.models.embedding import embed
    from lepton_platform.models.pretrained import minilm

    texts = [normalise(text) for text in rows[CONTENT].to_pylist()]  # the log has them as they were sent
    counted = [statistics(text) for text in texts]
    numbers = {name: np.array([float(one[name]) for one in counted]) for name in counted[0]} if counted else {}
    return Signals(numbers, vectors={"embedding": embed(texts, minilm(downloads), max_tokens=MAX_TOKENS)})


def answers(rows: "pa.Table") -> Signals:
    """The label and how sure of it the model is."""
    score = rows["score"].to_numpy().astype(np.float64)
    return Signals({"score": score}, classes={LABEL: np.asarray(rows[LABEL].to_pylist(), dtype=str)})
