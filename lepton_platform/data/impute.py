"""Fill what may be missing in numeric columns, and bring numbers to a range: only where a task asks for it.

A row is filled from rows of its own group alone. A group is never in two splits (``features/split.py``), so nothing of
the test rows reaches the training rows. ``mean``, ``median`` and ``last`` know the group's rows before, in time;
``interpolate`` draws a line between the neighbours on both sides. Ranges are declared, not learned.
"""

from bisect import insort
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

Rules = Mapping[str, str | float]  # column → "mean", "median", "last", "interpolate", or the value itself
Ranges = Mapping[str, tuple[float, float]]  # column → what becomes 0 and what becomes 1


def impute(table: pa.Table, rules: Rules, order: str, groups: Sequence[Hashable]) -> tuple[pa.Table, dict[str, int]]:
    """The table with nulls filled by the rules, rows as they lie, and how many cells were filled, by column.

    ``order`` is the column of time; ``groups`` has a value a row. Where a rule has nothing to go by (no earlier value of
    the group), the cell stays null.
    """
    filled: dict[str, int] = {}
    times = table[order].to_pylist() if rules else []
    members: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place in sorted(range(len(times)), key=lambda place: (times[place] is not None, times[place] or 0)):
        members[groups[place]].append(place)
    for column, rule in rules.items():
        field = table.schema.field(column)
        values = table[column].to_pylist()
        for places in members.values():
            ordered = _fill([values[place] for place in places], rule)
            for place, value in zip(places, ordered, strict=True):
                values[place] = value
        new = pa.array(values, pa.float64() if pa.types.is_integer(field.type) else field.type)
        filled[column] = table[column].null_count - new.null_count
        table = table.set_column(table.column_names.index(column), column, new)
    return table, filled


def to_unit_range(table: pa.Table, ranges: Ranges) -> pa.Table:
    """The columns as float64 in [0, 1]: ``low`` becomes 0, ``high`` 1, what lies outside is clipped."""
    for column, (low, high) in ranges.items():
        if not low < high:
            raise ValueError(f"{column}: {low} is not below {high}")
        scaled = pc.divide(pc.subtract(pc.cast(table[column], pa.float64()), low), high - low)
        new = pc.max_element_wise(pc.min_element_wise(scaled, 1.0, skip_nulls=False), 0.0, skip_nulls=False)
        table = table.set_column(table.column_names.index(column), column, new)
    return table


def _fill(values: Sequence[float | None], rule: str | float) -> list[float | None]:
    if rule == "interpolate":
        return _interpolated(values)
    if isinstance(rule, str) and rule not in _PAST:
        raise ValueError(f"there is no rule {rule!r}: mean, median, last, interpolate or a number")
    known = _PAST[rule]() if isinstance(rule, str) else _Constant(rule)
    out: list[float | None] = []
    for value in values:
        out.append(known.value() if value is None else value)
        if value is not None:
            known.add(value)
    return out


class _Constant:
    def __init__(self, value: float) -> None:
        self._value = value

    def add(self, value: float) -> None: ...

    def value(self) -> float | None:
        return self._value


class _Last(_Constant):
    def __init__(self) -> None:
        self._seen: float | None = None

    def add(self, value: float) -> None:
        self._seen = value

    def value(self) -> float | None:
        return self._seen


class _Mean(_Constant):
    def __init__(self) -> None:
        self._count, self._mean = 0, 0.0

    def add(self, value: float) -> None:
        self._count += 1
        self._mean += (value - self._mean) / self._count

    def value(self) -> float | None:
        return self._mean if self._count else None


class _Median(_Constant):
    def __init__(self) -> None:
        self._sorted: list[float] = []

    def add(self, value: float) -> None:
        insort(self._sorted, value)

    def value(self) -> float | None:
        half = len(self._sorted) // 2
        if not self._sorted:
            return None
        return (self._sorted[half] + self._sorted[~half]) / 2


_PAST = {"last": _Last, "mean": _Mean, "median": _Median}


def _interpolated(values: Sequence[float | None]) -> list[float | None]:
    """Linear between the neighbours; before the first and after the last, their value."""
    known = [place for place, value in enumerate(values) if value is not None]
    if not known:
        return list(values)
    import numpy as np

    line = np.interp(range(len(values)), known, [values[place] for place in known])  # pyright: ignore
    return [float(x) if value is None else value for value, x in zip(values, line, strict=True)]
