"""What can drift in digits: how the pictures look, and what the model answers."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lepton_platform.data.image_statistics import descriptors, statistics
from lepton_platform.monitoring.signals import Signals
from lepton_platform.tasks.digits.preprocess import CELLS, CONTENT, LABEL, MEASURED, decode

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = None  # digits do not come in groups that are known
WATCHED = (*MEASURED, "saturation")  # a digit has no colours: who sends some sends something else


def inputs(rows: "pa.Table", downloads: Path) -> Signals:
    """What can be measured in a picture, colours too, and its descriptor; ``rows`` (N, …) has the column ``image``."""
    pictures = [decode(data) for data in rows[CONTENT].to_pylist()]  # the log has them as they were sent
    return Signals(statistics(pictures, WATCHED), vectors={"descriptor": descriptors(pictures, CELLS)})


def answers(rows: "pa.Table") -> Signals:
    """The label and how sure of it the model is."""
    score = rows["score"].to_numpy().astype(np.float64)
    return Signals({"score": score}, classes={LABEL: np.asarray(rows[LABEL].to_pylist(), dtype=str)})


def counted(rows: "pa.Table") -> Signals:
    """Of every row of the log."""
    return answers(rows)
