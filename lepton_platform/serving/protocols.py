"""What the serving room asks of a task: its ``api`` module and its ``preprocess`` module.

An input travels so: body → ``decode`` → inputs → ``Encoder.prepare`` → the input's parts, ``Encoded`` → ``Encoder.collate``
→ the network's feeds → a row of its output a part → ``answer``. A review is one part; a large photo is as many as it
has tiles. Serving knows none of them from inside: reviews, photos and recordings go through the same queue.
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
    """One item as the network takes it; ``size`` is what it costs (tokens, pixels, frames).

    Many wait at a time, so a payload is small: token ids, pixels as uint8, never what ``collate`` can make of it.
    """

    payload: Any
    size: int


Parts = Sequence[Encoded]  # of one input


class Encoder(Protocol):
    """Turns inputs into arrays; made once, at the start of the service.

    Where the model is several graphs it also has ``answer(graphs, feeds)``: graphs by name (``models.graph.Run``) and what
    ``collate`` gave → an output an item (B, …), the learner's own ``answer`` without torch.
    """

    def prepare(self, inputs: Sequence[Any]) -> list[list[Encoded]]:
        """Preprocess and encode: the parts of each input, in order, at least one.

        ``Rejected`` names the field of an input that cannot be used.
        """
        ...

    def collate(self, batch: Sequence[Encoded]) -> Feeds:
        """Items of similar size as one batch, padded."""
        ...


class Stream(Protocol):
    """An input that comes bit by bit, and what has been understood of it so far; see ``stream_route.py``.

    Its methods may take their time (they have a thread) and are called one at a time. ``Rejected`` from one of them
    ends the stream.
    """

    def told(self, options: Json) -> None:
        """How what follows is to be read; at most once, before all else."""
        ...

    def take(self, data: bytes) -> None:
        """The next bytes of the input."""
        ...

    def end(self) -> None:
        """It is all there."""
        ...

    def due(self) -> Parts:
        """What the model should be asked now; nothing where too little has come since it was asked last."""
        ...

    def heard(self, outputs: Sequence[Any]) -> str:
        """The model's output for each part that was ``due`` last → what has been understood so far, as text."""
        ...

    def whole(self) -> tuple[Any, Parts, list[Any]]:
        """After the end, when nothing is due: the input as ``decode`` would have given it, its parts, an output each."""
        ...


class TaskApi(Protocol):
    """A task's ``api`` module: what a request and an answer are.

    It may also have: ``REQUIREMENTS``, what the Bento installs for it; ``INLINE_BYTES``, up to which a body is read
    and encoded on the event loop; ``MAX_FEEDBACK_BYTES``; ``TRUTH``, ``truth`` and ``truth_schema`` where what is
    true of an input is not a label (see ``feedback.Truth``); and ``annotated(value, answer) -> (bytes, media type)``,
    the input with its answer drawn on it. ``answer`` is then all that is known, what is logged beside it included.
    And ``stream(encoder) -> Stream``, where an input may come bit by bit.
    """

    KIND: str  # of what is sent: text, image, audio
    CONTENT_TYPES: tuple[str, ...]
    MAX_BODY_BYTES: int
    MAX_INPUTS: int
    EXAMPLE: Any  # a request, as JSON

    def decode(self, body: bytes, content_type: str) -> list[Any]:
        """The inputs of a request; ``content_type`` is the header's value. ``Rejected`` names what is wrong and where."""
        ...

    def encoder(self, model: Path, preprocess: ModuleType) -> Encoder:
        """The encoder for the model in this folder."""
        ...

    def answer(self, labels: Sequence[str], parts: Parts, outputs: Sequence[np.ndarray]) -> tuple[Json, Json]:
        """An input's parts and a row of the network's output for each → (what is answered, what is logged beside it)."""
        ...

    def logged(self, value: Any) -> Json:
        """What the log keeps of an input, named as the columns of the training rows are; ``bytes`` are media."""
        ...

    def from_row(self, row: Json) -> Any:
        """An input from a row of a data set: the same service answers frozen test rows."""
        ...

    def request_schema(self, content_type: str) -> Json:
        """JSON Schema of a request of one of the ``CONTENT_TYPES``."""
        ...

    def answer_schema(self, labels: Sequence[str]) -> Json: ...
