"""Drift: false alarms and power on real windows, ours beside Evidently's defaults, on the same signals and windows.

``python -m benchmarks.drift --workspace DIR [--task NAME …] [--write]`` after the tasks were built. Signals are computed
once a pool of rows and kept in the cache; windows are drawn from them. Ours judges as the check does
(``monitoring.drift``); Evidently's ``DataDriftPreset`` picks its tests by the reference's size and the column's type and
calls it drift where half of the columns drifted.
"""

import argparse
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.drift_pools import Pools, pools, split
from benchmarks.report import Others, machine, table, write_section
from lepton_platform.data.dataset import Dataset
from lepton_platform.monitoring import drift as check
from lepton_platform.monitoring.reference import (
    Reference,
    ReferenceParams,
    References,
    held_out_answers,
    load,
    measure,
    save,
)
from lepton_platform.monitoring.signals import Signals
from lepton_platform.monitoring.sketches import Sketches
from lepton_platform.pipeline.code import code_hash
from lepton_platform.pipeline.params import section
from lepton_platform.pipeline.stages import get_stage
from lepton_platform.settings import Settings, use_workspace
from lepton_platform.tasks import load_part

TASKS = ("sentiment", "trees", "prompts", "digits")
ROWS, HELD_OUT, SHIFTED, PRESETS = 200, 400, 100, 3
HELD_OUT_ROWS, WHOLE_GROUPS = "held-out rows", "held-out rows, whole groups"


@dataclass
class Judge:
    """The references of a task as the check has them."""

    known: References
    params: check.DriftParams

    def drifted(self, current: Signals, rows: NDArray[np.int_]) -> list[str]:
        """The signals that alarm in this window."""
        numbers = {name: values[rows] for name, values in current.numbers.items()}
        window = Signals(numbers, {name: values[rows] for name, values in current.classes.items()})
        both = (self.known.inputs, self.known.answers)
        found = [one for known in both for one in check.judged(known, window, Sketches(), self.params)]
        return [one.name for one in found if one.drifted]

    def columns(self) -> dict[str, NDArray[Any]]:
        """What Evidently is given as its reference: the signals that ours judges."""
        return {
            name: values_of(known.signals)[name]
            for known in (self.known.inputs, self.known.answers)
            for name in next(iter(known.thresholds.values()), {})
        }


def values_of(signals: Signals) -> Mapping[str, NDArray[Any]]:
    return {**signals.numbers, **signals.classes}


class Evidently:
    """Its default tests and share, by its own functions; ``preset`` runs the whole preset on one window."""

    def __init__(self, columns: Mapping[str, NDArray[Any]]) -> None:
        import pandas as pd
        from evidently.legacy.calculations import stattests
        from evidently.legacy.core import ColumnType

        self.reference, self.tests = {name: pd.Series(values) for name, values in columns.items()}, {}
        for name, values in self.reference.items():
            kind = ColumnType.Numerical if values.dtype.kind == "f" else ColumnType.Categorical
            self.tests[name] = (stattests.get_stattest(values, values, kind, None), kind)

    def share(self, current: Any) -> float:
        drifted = 0
        for name, (test, kind) in self.tests.items():
            drifted += bool(test(self.reference[name], current[name], kind, None).drifted)
        return drifted / len(self.tests)

    def preset(self, current: Any) -> float:
        import pandas as pd
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        numbers = [n for n, values in self.reference.items() if values.dtype.kind == "f"]
        definition = DataDefinition(
            numerical_columns=numbers, categorical_columns=[n for n in self.tests if n not in numbers]
        )
        now, then = (
            Dataset.from_pandas(frame, data_definition=definition) for frame in (current, pd.DataFrame(self.reference))
        )
        return Report([DataDriftPreset()]).run(now, then).dict()["metrics"][0]["value"]["share"]


class Kept:
    """The task's part, whose signals are kept in the cache: the same code has made them of the same rows."""

    def __init__(self, task: str, cache: Path) -> None:
        self.part, self.task, self.cache = load_part(task, "drift"), task, cache
        self.GROUP: str | None = self.part.GROUP
        if hasattr(self.part, "reference"):
            self.reference = self.part.reference

    def inputs(self, rows: pa.Table, downloads: Path) -> Signals:
        return self._kept(rows, "inputs", lambda: self.part.inputs(rows, downloads))

    def answers(self, rows: pa.Table) -> Signals:
        return self._kept(rows, "answers", lambda: self.part.answers(rows))

    def _kept(self, rows: pa.Table, kind: str, make: Callable[[], Signals]) -> Signals:
        digest = hashlib.sha256(f"{kind} {code_hash(get_stage('reference'), self.task)}".encode())
        sink = pa.BufferOutputStream()
        plain = rows.replace_schema_metadata(None).combine_chunks()
        with pa.ipc.new_stream(sink, plain.schema) as writer:
            writer.write_table(plain)
        digest.update(sink.getvalue())
        folder = self.cache / "benchmarks" / f"drift-{self.task}-{digest.hexdigest()[:16]}"
        if not folder.is_dir():
            made = Reference(make(), {}, 1)
            save(References(made, made), folder)
        return load(folder).inputs.signals


def judge_of(task: str, settings: Settings, part: Kept) -> Judge:
    chosen = section(settings.workspace, task, "reference", ReferenceParams)
    params = section(settings.workspace, task, "drift", check.DriftParams)
    assert isinstance(params, check.DriftParams) and isinstance(chosen, ReferenceParams)
    said = Dataset(settings.workspace / f"models/{task}/compressed/predictions").read()
    answers = held_out_answers(said, split(settings.workspace, task, "test"), part.GROUP)
    train = split(settings.workspace, task, "train")
    return Judge(measure(train, answers, part, chosen, settings.cache_dir), params)  # pyright: ignore[reportArgumentType]


def windows(pool: int, count: int, again: bool, groups: list[str] | None = None) -> Iterator[NDArray[np.int_]]:
    """``count`` windows of ``ROWS`` rows of the pool; of whole groups, where they are given."""
    rng = np.random.default_rng(7)
    for _ in range(count):
        if groups is None:
            yield rng.choice(pool, ROWS, replace=again)
            continue
        by_group: dict[str, list[int]] = {}
        for row, group in enumerate(groups):
            by_group.setdefault(group, []).append(row)
        rows = [row for g in rng.permutation(sorted(by_group)) for row in rng.permutation(by_group[str(g)])]
        yield np.asarray(rows[:ROWS])


def alarms(task: str, settings: Settings) -> tuple[list[list[str]], str]:
    """A line a kind of window: alarms of ours and of Evidently's, and the signals that raised ours most."""
    found, part = pools(task, settings.workspace, settings.cache_dir), Kept(task, settings.cache_dir)
    judge = judge_of(task, settings, part)
    other = Evidently(judge.columns())
    kinds: dict[str, tuple[pa.Table, int, list[str] | None]] = {HELD_OUT_ROWS: (found.held_out, HELD_OUT, None)}
    if found.groups and not found.again:
        kinds[WHOLE_GROUPS] = (found.held_out, HELD_OUT, list(found.groups))
    kinds |= {name: (rows, SHIFTED, None) for name, rows in found.shifts.items()}
    lines, agreed = [], [0, 0]
    for name, (rows, count, groups) in kinds.items():
        current = watched(part, judge, found, rows, settings.cache_dir)
        line, same = _line(name, windows(rows.num_rows, count, found.again, groups), count, judge, other, current)
        lines.append([task, *line])
        agreed = [agreed[0] + same[0], agreed[1] + same[1]]
    return lines, f"{task}: {found.note}; the preset itself agreed on {agreed[0]} of {agreed[1]} windows."


def watched(part: Kept, judge: Judge, found: Pools, rows: pa.Table, cache: Path) -> Signals:
    one = judge.known.inputs.watched(part.inputs(rows, cache))
    if not found.answered:
        return one
    other = part.answers(rows)
    return Signals({**one.numbers, **other.numbers}, {**one.classes, **other.classes})


def _line(
    name: str,
    drawn: Iterator[NDArray[np.int_]],
    count: int,
    judge: Judge,
    other: Evidently,
    current: Signals,
) -> tuple[list[str], tuple[int, int]]:
    import pandas as pd

    frame = pd.DataFrame({n: v for n, v in values_of(current).items() if n in other.tests})
    ours = theirs = same = 0
    by_signal: dict[str, int] = {}
    for number, rows in enumerate(drawn):
        far = judge.drifted(current, rows)
        ours += bool(far)
        for signal in far:
            by_signal[signal] = by_signal.get(signal, 0) + 1
        window = frame.iloc[rows].reset_index(drop=True)
        share = other.share(window)
        theirs += share >= 0.5
        same += number < PRESETS and abs(other.preset(window) - share) < 1e-9
    most = sorted(by_signal, key=lambda n: (-by_signal[n], n))[:3]
    said = ", ".join(f"{n} {by_signal[n]}" for n in most) or "–"
    cells = [name, str(count), f"{ours / count:.1%}", f"{theirs / count:.1%}", said]
    return cells, (same, min(PRESETS, count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--task", action="append", choices=TASKS)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md, a section a task")
    given = parser.parse_args()
    settings = use_workspace(given.workspace.resolve())
    for task in given.task or TASKS:
        begun, others = time.monotonic(), Others()
        lines, note = alarms(task, settings)
        head = ["task", f"windows of {ROWS} rows", "windows", "ours", "Evidently's defaults", "signals that ours saw"]
        text = f"{machine()} {others.words([])}\n\n{table(head, lines)}\n\nHeld out: {note} {time.monotonic() - begun:.0f} s."
        print(text, flush=True)
        if given.write:
            write_section(f"drift-{task}", text)


if __name__ == "__main__":
    main()
