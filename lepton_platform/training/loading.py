"""Batches made ready beside the training: what is drawn for a batch depends on its own seed, not on who makes it when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from lepton_platform.models.batch import Batch
from lepton_platform.training.part import Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Part(NamedTuple):
    """What one forward pass learns from. ``rows``: numbers of the training rows; without ``weight`` they do not count."""

    rows: NDArray
    weight: bool
    seed: int
    last: bool  # of its step, in this process


class _Batches(Dataset[tuple[Part, Batch]]):
    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, part: Part) -> tuple[Part, Batch]:
        torch.manual_seed(part.seed)  # views of a picture are drawn
        return part, self.samples.batch(part.rows)


def load(samples: Samples, parts: Iterator[Part], processes: int) -> Iterator[tuple[Part, Batch]]:
    """The batch of each part, in order. ``processes``: that make them ahead, on cores of their own; 0: when asked for."""
    batches = _Batches(samples)
    if not processes:
        return (batches[part] for part in parts)
    options = {"batch_size": None, "collate_fn": _as_it_is}
    return iter(DataLoader(batches, sampler=parts, num_workers=processes, **options))


def _as_it_is(batch: tuple[Part, Batch]) -> tuple[Part, Batch]:
    return batch
