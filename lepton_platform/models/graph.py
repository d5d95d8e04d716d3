"""What a network is exported as: one graph that answers, or several that are called in turn.

A detector or a classifier is one graph, ``model``. What speaks word by word is two: one that listens, one that says the next
word. How they are called is the learner's ``answer``: the same code for the trained network, for the compressed graphs
and in the service, so it knows arrays and nothing of what computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn

MODEL = "model"  # the name of the one graph
Run = Callable[[Mapping[str, NDArray]], Sequence[NDArray]]  # a graph's inputs by name → its outputs


@dataclass(frozen=True)
class Graph:
    """A part of a network that is exported by itself.

    ``short`` and ``long``: its inputs by name, for two batches that differ in every size that may differ, in rows first
    of all. ``outputs``: their names.
    """

    module: nn.Module
    short: Mapping[str, Tensor]
    long: Mapping[str, Tensor]
    outputs: tuple[str, ...] = ("logits",)
