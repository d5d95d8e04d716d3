"""What the serving room asks of a task: its ``api`` module and its ``preprocess`` module.

An input travels so: body → ``decode`` → inputs → ``Encoder.prepare`` → ``Encoded`` → ``Encoder.collate`` → the
network's feeds → one row of its output → ``answer``. Serving knows none of them from inside: reviews, photos and
recordings go through the same queue.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

Json = dict[str, Any]
Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Encoded:
    """One input as the network takes it; ``size`` is what it costs (tokens, pixels, frames)."""

    payload: Any
    size: int


class Encoder(Protocol):
    """Turns inputs into arrays; made once, at the start of the service."""

    def prepare(self, inputs: Sequence[Any]) -> list[Encoded]:
        """Preprocess and encode, in order. ``Rejected`` names the field of an input that cannot be used."""
        ...

    def collate(self, batch: Sequence[Encoded]) -> Feeds:
        """Inputs of similar size as one batch, padded."""
        ...


class TaskApi(Protocol):
    """A task's ``api`` module: what a request and an answer are."""

    CONTENT_TYPE: str
    MAX_BODY_BYTES: int
    MAX_INPUTS: int
    EXAMPLE: Any

    def decode(self, body: bytes) -> list[Any]:
        """The inputs of a request; ``Rejected`` names what is wrong and where."""
        ...

    def encoder(self, model: Path, preprocess: ModuleType) -> Encoder:
        """The encoder for the model in this folder."""
        ...

    def answer(self, labels: Sequence[str], output: np.ndarray) -> tuple[Json, Json]:
        """One row of the network's output → (what is answered, what is logged beside it)."""
        ...

    def logged(self, value: Any) -> Json:
        """What the log keeps of an input, named as the columns of the training rows are."""
        ...

    def from_row(self, row: Json) -> Any:
        """An input from a row of a data set: the same service answers frozen test rows."""
        ...

    def request_schema(self) -> Json: ...

    def answer_schema(self, labels: Sequence[str]) -> Json: ...
