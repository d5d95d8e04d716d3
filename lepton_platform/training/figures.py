"""What every evaluation needs, whatever its answers are: parts of the rows, their groups, figures as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lepton_platform.training.bootstrap import Interval

DECIMALS = 6  # of probabilities and figures: what is beyond depends on the machine's order of summation
_FEW_GROUPS = 30  # below, intervals by group are too narrow; see ``bootstrap``
_EXCERPT_CHARACTERS = 300


class Slice(NamedTuple):
    """A part of the rows worth its own figure: ``inside`` is (N,) bool."""

    dimension: str
    name: str
    inside: NDArray[np.bool_]


def flat(figures: Mapping[str, Interval]) -> dict[str, Any]:
    """``{"accuracy": …}`` → ``accuracy`` and ``accuracy_ci95``; what is not a number becomes null."""
    flat: dict[str, Any] = {}
    for name, figure in figures.items():
        flat[name], *ends = (None if np.isnan(x) else round(x, DECIMALS) for x in figure)
        flat[f"{name}_ci95"] = ends
    return flat


def groups_of(rows: pa.Table, column: str | None) -> list[str] | None:
    """Each row's group; a row without one is a group of its own."""
    if column is None or column not in rows.column_names:
        return None
    names = rows[column].to_pylist()
    return [f"\0{i}" if name is None else str(name) for i, name in enumerate(names)]


def how_drawn(groups: Sequence[str] | None, column: str | None) -> str:
    """How the intervals were made, for the reader of a page."""
    if groups is None:
        return "Intervals are drawn by row."
    count = len(set(groups))
    few = "" if count >= _FEW_GROUPS else f" There are only {count} of them: the intervals are still too narrow."
    return (
        f"Intervals are made by drawing whole groups ({column}) with replacement: rows of one group "
        f"resemble each other, and drawing rows would make the intervals too narrow.{few}"
    )


def check_same_rows(one: pa.Table, other: pa.Table) -> None:
    if one["id"] != other["id"]:
        raise ValueError("Two models are compared on the same rows in the same order.")


def short(text: str) -> str:
    """On one line, and not too long for a table."""
    line = " ".join(text.split())
    return line if len(line) <= _EXCERPT_CHARACTERS else line[: _EXCERPT_CHARACTERS - 1] + "…"
