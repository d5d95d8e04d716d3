"""What an evaluation says, and what a task's ``metrics.py`` brings to it.

The stages ``quality`` and ``compressed`` know nothing of classes, boxes or words: they ask the task's evaluator.
For answers that are classes there is one ready, ``classification.Classification``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
from numpy.typing import NDArray

from lepton_platform.training.bootstrap import Interval
from lepton_platform.training.calibration import Bin

HEADLINE = "headline.json"  # the few figures that `dvc metrics` shows and compares, named alike in every stage


@dataclass(frozen=True)
class Sampling:
    """How the 95 % intervals are made: ``repeats`` draws, from a seed."""

    repeats: int
    seed: int


@dataclass(frozen=True)
class Forest:
    """Figures side by side, each with its interval, and a figure of reference for each or none."""

    title: str
    note: str
    rows: Sequence[tuple[str, int, Interval, float | None]]  # name, rows, figure, reference
    reference: str = ""


@dataclass(frozen=True)
class Confusion:
    """``counts[i][j]``: rows that are ``labels[i]`` and were called ``labels[j]``."""

    title: str
    note: str
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Reliability:
    """Accuracy by confidence."""

    title: str
    note: str
    bins: Sequence[Bin]


@dataclass(frozen=True)
class Examples:
    """Single rows worth a look; every cell is plain text."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    monospace: bool = False  # the last column's lines are kept as they are, each letter below another


@dataclass(frozen=True)
class Curves:
    """Lines in the unit square; a line is its name and its points, x rising."""

    title: str
    note: str
    x: str
    y: str
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]]


@dataclass(frozen=True)
class Gallery:
    """Small pictures, each a PNG with a line of text below."""

    title: str
    note: str
    pictures: Sequence[tuple[bytes, str]]
    width: int = 240  # pixels that a picture is shown in


Section = Forest | Confusion | Reliability | Examples | Curves | Gallery


@dataclass(frozen=True)
class Evaluation:
    """All that is known of a model on the test rows.

    ``figures``: the content of metrics.json, JSON values. ``headline``: name and value of the figures that are
    named first. ``gain``: model less yardstick on the same rows, in units of the first headline figure. ``pngs``:
    pictures that sum it up, by name.
    """

    figures: Mapping[str, Any]
    headline: Sequence[tuple[str, Interval]]
    gain: Interval
    sections: Sequence[Section] = field(default=())
    pngs: Mapping[str, bytes] = field(default_factory=dict)


class Evaluator(Protocol):
    """Truth against answers, for one kind of answer."""

    @property
    def headline_name(self) -> str:
        """The name of the figure that decides, such as ``accuracy``."""
        ...

    def answers(self, rows: pa.Table, outputs: NDArray, labels: Sequence[str]) -> pa.Table:
        """The network's ``outputs`` on N ``rows`` as a table: id, what was true, what was answered, how surely."""
        ...

    def served(self, rows: pa.Table, answers: Sequence[Mapping[str, Any]]) -> pa.Table:
        """What a service answered to N ``rows``, as ``headline`` and ``compare`` take it.

        Answers are as the service gives them; an input that it refused has ``{"error": …}`` and counts as wrong.
        """
        ...

    def yardstick(self, train: pa.Table, rows: pa.Table, labels: Sequence[str]) -> pa.Table:
        """The answers of a simple method that learnt from ``train``; same columns as ``answers``."""
        ...

    def evaluate(self, rows: pa.Table, answers: pa.Table, yardstick: pa.Table, sampling: Sampling) -> Evaluation: ...

    def headline(self, answers: pa.Table) -> float:
        """The figure that decides; higher is better."""
        ...

    def compare(self, one: pa.Table, other: pa.Table, sampling: Sampling) -> Interval:
        """Headline of ``one`` - headline of ``other``, answers to the same rows: a paired bootstrap."""
        ...

    def agreement(self, one: pa.Table, other: pa.Table) -> float:
        """The share of rows on which two models give the same answer, from 0 to 1."""
        ...


class MetricsPart(Protocol):
    """A task's ``metrics.py``."""

    EVALUATOR: Evaluator
