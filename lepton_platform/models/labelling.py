"""What all learners share that give a row one of a few labels, whatever the row holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ValidationError

from lepton_platform.models.batch import Batch
from lepton_platform.models.one_graph import OneGraph
from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor


@dataclass(frozen=True)
class Labelling(OneGraph):
    """``content`` and ``target`` are columns of the training set; ``labels`` are the target's values, in order."""

    content: str
    target: str
    labels: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.content, self.target

    def numbers(self, rows: pa.Table) -> np.ndarray | None:
        """(N,) int64: the number of each row's label; ``None`` without the target's column."""
        if self.target not in rows.column_names:
            return None
        number = {label: n for n, label in enumerate(self.labels)}
        values = rows[self.target].to_pylist()
        unknown = [(row, value) for row, value in enumerate(values) if value not in number]
        if unknown:
            row, value = unknown[0]
            raise StageFailed(
                f"The column '{self.target}' says {value!r} in row {row} ({len(unknown)} such rows); the labels are: "
                f"{', '.join(self.labels)}."
            )
        return np.array([number[value] for value in values], dtype=np.int64)

    def losses(self, outputs: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
        from torch.nn import functional as F

        return F.cross_entropy(outputs, batch.targets["label"], reduction="none", label_smoothing=label_smoothing)

    def measures(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {
            "loss": self.losses(outputs, batch, 0.0),
            "accuracy": (outputs.argmax(1) == batch.targets["label"]).float(),
        }

    def scores(self, outputs: Tensor, config: Mapping[str, Any]) -> Tensor:
        del config
        return outputs.softmax(1)


def wrong_params(where: str, error: ValidationError, model: type[BaseModel]) -> StageFailed:
    """What is wrong with a section of the parameters, for the person who wrote it."""
    told = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in error.errors())
    return StageFailed(f"{where} is not valid. {told}. The names there are: {', '.join(model.model_fields)}.")
