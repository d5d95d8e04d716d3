"""Drift: false alarms and power on real windows, ours beside Evidently's defaults, on the same signals and windows.

``python -m benchmarks.drift --workspace DIR [--task NAME …] [--write]`` after the tasks were built. Signals are computed
once a pool of rows and kept in the cache; windows are drawn from them. Ours judges as the check does
(``monitoring.drift``); Evidently's ``DataDriftPreset`` picks its tests by the reference's size and the column's type and
calls it drift where half of the columns drifted.
"""

import argparse
import hashlib
import inspect
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.drift_pools import Pools, pools, split
from benchmarks.report import Others, machine, table, write_section
from lepton_platform.data.dataset import Dataset
from lepton_platform.monitoring import calibration, distances
from lepton_platform.monitoring import drift as check
from lepton_platform.monitoring import reference as references
from lepton_platform.monitoring.reference import Reference
from lepton_platform.monitoring.signals import Signals
from lepton_platform.pipeline.params import section
from lepton_platform.settings import Settings, use_workspace
from lepton_platform.tasks import load_part

TASKS = ("sentiment", "trees", "prompts", "digits")
ROWS, HELD_OUT, SHIFTED, PRESETS = 200, 400, 100, 3
HELD_OUT_ROWS, WHOLE_GROUPS = "held-out rows", "held-out rows, whole groups"


@dataclass
class Judge:
    """The references of a task as the check has them."""

    inputs: Reference
    answers: Reference
    params: check.DriftParams

    def distances(self, current: Signals, rows: NDArray[np.int_]) -> dict[str, tuple[float, float]]:
        """Signal → its distance in this window and its limit."""
        found: dict[str, tuple[float, float]] = {}
        for known in (self.inputs, self.answers):
            limits = calibration.for_size(known.thresholds, len(rows)) if known.thresholds else {}
            for name, limit in limits.items():
                old, new = (values_of(signals)[name] for signals in (known.signals, current))
                measure = distances.ks_distance if old.dtype.kind == "f" else distances.total_variation
                found[name] = measure(old, new[rows]), max(limit, self.params.min_distance)
        return found

    def columns(self) -> dict[str, NDArray[Any]]:
        """What Evidently is given as its reference: the signals that ours judges."""
        return {
            name: values_of(known.signals)[name]
            for known in (self.inputs, self.answers)
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


def kept(rows: pa.Table, task: str, kind: str, cache: Path) -> Signals:
    """The part's signals of the rows, from the cache where the same code has made them of the same rows."""
    part = load_part(task, "drift")
    digest = hashlib.sha256(references.content_hash(rows).encode())
    package = Path(inspect.getfile(references)).parents[1]
    for path in sorted([*(package / f"tasks/{task}").glob("*.py"), *(package / "data").glob("*statistics.py")]):
        digest.update(path.read_bytes())
    path = cache / "benchmarks" / f"drift-{task}-{kind}-{digest.hexdigest()[:16]}.parquet"
    known = references.load(path)
    if known is None:
        made = part.inputs(rows, cache) if kind == "inputs" else part.answers(rows)
        known = Reference(made, {})
        references.save(known, path)
    return known.signals


def reference(rows: pa.Table, task: str, kind: str, params: check.DriftParams, cache: Path) -> Reference:
    part = load_part(task, "drift")
    sampled, groups = references.sample(rows, references.groups_of(rows, part.GROUP), params.max_reference_rows)
    if hasattr(part, "reference"):
        sampled = part.reference(sampled)
        groups = references.groups_of(sampled, part.GROUP)
    chosen = {name: getattr(params, name) for name in ("neighbours", "windows", "min_rows", "seed")}
    found = kept(sampled, task, kind, cache)
    return references.build(found, groups, false_alarm_rate=params.false_alarm_rate / 2, **chosen)


def judge_of(task: str, settings: Settings) -> Judge:
    params = section(settings.workspace, task, "drift", check.DriftParams)
    assert isinstance(params, check.DriftParams)
    part, workspace, cache = load_part(task, "drift"), settings.workspace, settings.cache_dir
    said = Dataset(workspace / f"models/{task}/compressed/predictions").read()
    answers = check.held_out_answers(said, split(workspace, task, "test"), part.GROUP)
    train = split(workspace, task, "train")
    inputs = reference(train, task, "inputs", params, cache)
    return Judge(inputs, reference(answers, task, "answers", params, cache), params)


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
    found, judge = pools(task, settings.workspace, settings.cache_dir), judge_of(task, settings)
    other = Evidently(judge.columns())
    kinds: dict[str, tuple[pa.Table, int, list[str] | None]] = {HELD_OUT_ROWS: (found.held_out, HELD_OUT, None)}
    if found.groups and not found.again:
        kinds[WHOLE_GROUPS] = (found.held_out, HELD_OUT, list(found.groups))
    kinds |= {name: (rows, SHIFTED, None) for name, rows in found.shifts.items()}
    lines, agreed = [], [0, 0]
    for name, (rows, count, groups) in kinds.items():
        current = watched(task, judge, found, rows, settings.cache_dir)
        line, same = _line(name, windows(rows.num_rows, count, found.again, groups), count, judge, other, current)
        lines.append([task, *line])
        agreed = [agreed[0] + same[0], agreed[1] + same[1]]
    return lines, f"{task}: {found.note}; the preset itself agreed on {agreed[0]} of {agreed[1]} windows."


def watched(task: str, judge: Judge, found: Pools, rows: pa.Table, cache: Path) -> Signals:
    one = judge.inputs.watched(kept(rows, task, "inputs", cache), judge.params.neighbours)
    if not found.answered:
        return one
    other = kept(rows, task, "answers", cache)
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
        far = [n for n, (distance, limit) in judge.distances(current, rows).items() if distance > limit]
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
