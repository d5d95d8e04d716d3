"""What the graphs are fed while training rows are answered: ranges of activations are measured on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lepton_platform.compression.params import CompressParams
from lepton_platform.compression.session import Session, runs
from lepton_platform.data.dataset import Dataset
from lepton_platform.models.graph import Run
from lepton_platform.stage import StageFailed
from lepton_platform.training.part import ModelPart
from lepton_platform.training.predict import as_arrays
from lepton_platform.training.weights import read_config

if TYPE_CHECKING:
    from numpy.typing import NDArray


def calibration(
    name: str, floats: Mapping[str, Session], dataset: Path, model: Path, params: CompressParams, part: ModelPart
) -> Iterator[Mapping[str, NDArray]]:
    """What the graph is fed while training rows, spread evenly, are answered one at a time."""
    rows = Dataset(dataset / "train").read(list(part.LEARNER.columns))
    if not rows.num_rows:
        raise StageFailed(f"There are no training rows in {dataset.name}/train to calibrate on.")
    many = min(params.calibration_rows, rows.num_rows)
    rows = rows.take(np.unique(np.linspace(0, rows.num_rows - 1, many).astype(np.int64)))
    config, learner = read_config(model), part.LEARNER
    samples = learner.encode(config, model, rows)
    for row in range(rows.num_rows):
        inputs = as_arrays(samples.batch([row]).inputs)
        if len(floats) == 1:
            yield inputs
            continue
        fed: list[Mapping[str, NDArray]] = []
        learner.answer(_noted(runs(floats), name, fed), inputs, config, model)
        yield from fed


def _noted(run: Mapping[str, Run], name: str, fed: list[Mapping[str, NDArray]]) -> dict[str, Run]:
    """The same graphs; what ``name`` is fed is written down."""

    def noting(feeds: Mapping[str, NDArray]) -> Sequence[NDArray]:
        fed.append(dict(feeds))
        return run[name](feeds)

    return {**run, name: noting}
