"""Millions of answers in a few kilobytes: sketches of signals that merge over hours and over versions.

Numbers are kept by Apache DataSketches' KLL (Karnin, Lang & Liberty, "Optimal Quantile Approximation in Streams", FOCS
2016): the share of rows below any value, right within ``RANK_ERROR``, and exactly while there are no more than ``K`` of
them. Classes are counted by its frequent-items sketch (Anderson et al., "A High-Performance Algorithm for Identifying
Frequent Items in Data Streams", IMC 2017): exactly up to three quarters of ``2 ** LG_CLASSES`` of them, and in bounded
memory whatever comes. KLL tosses coins: sketches of the same million rows differ within the error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_platform.monitoring.signals import Names, Numbers, Signals

K = 512  # 12 KB a signal
RANK_ERROR = 0.0053  # of a single share, in 99 of 100 sketches
LG_CLASSES = 10
NUMBERS, CLASSES = "numbers", "classes"


@dataclass
class Sketches:
    """Sketches of signals by name: ``numbers`` (KLL), ``classes`` (frequent items)."""

    numbers: dict[str, Any] = field(default_factory=dict)
    classes: dict[str, Any] = field(default_factory=dict)

    def update(self, found: Signals) -> None:
        """Take in a batch; what is not a number does not count."""
        for name, values in found.numbers.items():
            self._number(name).update(np.ascontiguousarray(values, dtype=np.float64))
        for name, values in found.classes.items():
            sketch = self._class(name)
            for one, count in zip(*np.unique(values, return_counts=True), strict=True):
                sketch.update(str(one), int(count))

    def merge(self, other: "Sketches") -> None:
        """Take in what another one has seen."""
        for name, sketch in other.numbers.items():
            self._number(name).merge(sketch)
        for name, sketch in other.classes.items():
            self._class(name).merge(sketch)

    def rows(self, name: str) -> int:
        """How many values of this signal were seen; 0 of one that is not known."""
        if name in self.numbers:
            return int(self.numbers[name].n)
        return int(self.classes[name].total_weight) if name in self.classes else 0

    def distance(self, name: str, reference: Numbers | Names) -> float:
        """As ``distances`` would measure it, Kolmogorov-Smirnov's or total variation, within the sketch's error."""
        if name in self.numbers:
            return _ks(reference, self.numbers[name])  # pyright: ignore[reportArgumentType]
        return _total_variation(reference, self.classes[name])  # pyright: ignore[reportArgumentType]

    def _number(self, name: str) -> Any:
        if name not in self.numbers:
            self.numbers[name] = _library().kll_doubles_sketch(K)
        return self.numbers[name]

    def _class(self, name: str) -> Any:
        if name not in self.classes:
            self.classes[name] = _library().frequent_strings_sketch(LG_CLASSES)
        return self.classes[name]

    def dump(self) -> list[dict[str, Any]]:
        """A row a sketch: ``signal``, ``kind``, ``data`` (the library's own portable bytes)."""
        kinds: dict[str, Mapping[str, Any]] = {NUMBERS: self.numbers, CLASSES: self.classes}
        return [
            {"signal": name, "kind": kind, "data": bytes(sketch.serialize())}
            for kind, sketches in kinds.items()
            for name, sketch in sorted(sketches.items())
        ]

    def take(self, row: Mapping[str, Any]) -> None:
        """Add a sketch that ``dump`` made, in the place of one of its name."""
        if row["kind"] == NUMBERS:
            self.numbers[row["signal"]] = _library().kll_doubles_sketch.deserialize(row["data"])
        else:
            self.classes[row["signal"]] = _library().frequent_strings_sketch.deserialize(row["data"])


def _library() -> Any:
    import datasketches  # its names come from C++: no type checker sees them

    return datasketches


def _ks(reference: Numbers, sketch: Any) -> float:
    """Between steps of the reference its share stands still: the largest gap is at a step, or just before one."""
    steps, counts = np.unique(reference, return_counts=True)
    upto = np.cumsum(counts) / counts.sum()
    gaps = [upto - _shares(sketch, steps, True), upto - counts / counts.sum() - _shares(sketch, steps, False)]
    return float(np.abs(np.concatenate(gaps)).max())


def _shares(sketch: Any, steps: NDArray[np.float64], inclusive: bool) -> NDArray[np.float64]:
    return np.asarray(sketch.get_cdf(steps, inclusive))[:-1]


def _total_variation(reference: Names, sketch: Any) -> float:
    names, counts = np.unique(reference, return_counts=True)
    then = dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))
    found = sketch.get_frequent_items(_library().frequent_items_error_type.NO_FALSE_NEGATIVES, 0)
    now = {name: lower / sketch.total_weight for name, _, lower, _ in found}
    rest = max(0.0, 1.0 - sum(now.values()))  # classes too rare to be told apart: the reference has none of them
    return (sum(abs(then.get(name, 0.0) - now.get(name, 0.0)) for name in {**then, **now}) + rest) / 2
