"""Learning what follows a frozen part: its vectors are computed once a row, without dropout, and not once an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from lepton_platform.models.batch import Batch
from lepton_platform.training.batches import by_size
from lepton_platform.training.devices import Precision
from lepton_platform.training.part import Samples
from lepton_platform.training.predict import in_order

if TYPE_CHECKING:
    from torch import Tensor

    from lepton_platform.models.settled import Settled


@dataclass(frozen=True)
class SettledSamples:
    """``samples`` of which the frozen part has been computed: ``vectors`` (N, D) float32, on the CPU."""

    samples: Samples
    vectors: Tensor

    @property
    def sizes(self) -> np.ndarray:
        return self.samples.sizes

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        chosen = torch.from_numpy(np.asarray(rows, np.int64))
        return Batch({"vectors": self.vectors[chosen]}, self.samples.batch(rows).targets)


@torch.no_grad()
def settle(
    found: Settled, samples: Samples, batch_rows: int, device: torch.device, precision: Precision
) -> SettledSamples:
    """``samples`` with their vectors, computed in batches of rows of like size."""
    found.rest.eval()
    batches, vectors = by_size(samples.sizes, batch_rows), []
    for rows in batches:
        with precision.autocast():
            vectors.append(found.first(**samples.batch(rows).to(device).inputs).float().cpu().numpy())
    return SettledSamples(samples, torch.from_numpy(in_order(vectors, batches)))
