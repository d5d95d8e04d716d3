"""How good is good enough for digits: better than looking for the most alike among those seen."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lepton_platform.models.image_input import fit
from lepton_platform.tasks.digits.preprocess import CONTENT, LABEL, LABELS, decode
from lepton_platform.training.classification import Classification, Slice

_NEIGHBOURS = 3
_SIDE = 28
_INK = ((0.0, 0.08), (0.08, 0.12), (0.12, 0.16), (0.16, 1.0))  # mean brightness; the median is 0.13


def _pixels(rows: pa.Table) -> NDArray[np.float32]:
    """(N, 784) between 0 and 1."""
    found = [fit(decode(data), 1, (_SIDE, _SIDE)).ravel() for data in rows[CONTENT].to_pylist()]
    return np.stack(found).astype(np.float32) / 255.0


def nearest_neighbours(train: pa.Table, rows: pa.Table, labels: Sequence[str]) -> NDArray:
    """(N, C) shares of the labels among the nearest training pictures by pixels: what the network has to beat."""
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(min(_NEIGHBOURS, train.num_rows), weights="distance", algorithm="brute")
    model.fit(_pixels(train), train[LABEL].to_pylist())
    chances = np.zeros((rows.num_rows, len(labels)))
    columns = [list(labels).index(name) for name in model.classes_]
    chances[:, columns] = model.predict_proba(_pixels(rows))
    return chances


def slices(rows: pa.Table) -> list[Slice]:
    """By digit, and by how much ink there is."""
    label = np.array(rows[LABEL].to_pylist())
    ink = _pixels(rows).mean(axis=1)
    return [
        *(Slice("digit", name, label == name) for name in LABELS),
        *(Slice("ink", f"{low:.0%} to {high:.0%}", (ink >= low) & (ink < high)) for low, high in _INK),
    ]


def excerpt(rows: pa.Table) -> list[str]:
    """Where a digit is written in words: how much ink it has."""
    return [f"{ink:.0%} ink" for ink in _pixels(rows).mean(axis=1)]


EVALUATOR = Classification(
    label=LABEL,
    group=None,  # nobody knows which digits one hand wrote
    yardstick_name="3 nearest neighbours",
    yardstick_scores=nearest_neighbours,
    slices=slices,
    excerpt=excerpt,
    picture=lambda rows: rows[CONTENT].to_pylist(),
)
