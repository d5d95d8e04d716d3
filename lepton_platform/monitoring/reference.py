"""The stage ``reference``: what the model's service will be compared with, measured once, when the model is made.

Two references: of what comes in, a sample of the training rows; of what is answered, the model's answers on rows that
it has not learnt from. Of each: its signals and the distances that chance makes (``calibration``), in one Parquet file.
The Bento's manifest names the version, so that a check finds exactly the reference of the model that serves.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from lepton_platform.data.dataset import Dataset
from lepton_platform.monitoring import calibration, distances
from lepton_platform.monitoring.sampling import ID, groups_of, sample
from lepton_platform.monitoring.signals import Signals
from lepton_platform.stage import Params, StageFailed, StageResult

NOVELTY = "_novelty"  # of a vector: how unlike the training rows a row is
INPUTS, ANSWERS = "inputs", "answers"
LABEL, PREDICTED = "label", "predicted"
Kind = Literal["inputs", "answers"]


class ReferenceParams(Params):
    """The section ``reference`` of a task's parameters."""

    max_rows: int = Field(2_000, ge=40, description="Training rows compared with; whole groups, by hash.")
    smallest_window: int = Field(50, ge=20, description="Rows; windows of fewer are not judged.")
    false_alarm_rate: float = Field(0.01, gt=0, lt=1, description="Of windows in which nothing has changed.")
    windows: int = Field(1_000, ge=100, description="Windows of the reference that thresholds are measured on.")
    neighbours: int = Field(5, ge=1, description="Training rows that a row's novelty is measured by.")
    seed: int = 0


class DriftPart(Protocol):
    """A task's ``drift.py``: what can drift.

    It may also have ``reference(rows: pa.Table) -> pa.Table``: the rows that current ones are compared with, made of
    a sample of the training rows, or of the held-out answers, where these are too few, or not what a service is sent:
    parts of large pictures, say. ``GROUP`` is then a column of what it returns.

    And ``counted(rows: pa.Table) -> Signals``: those of its signals that the log tells of every row at the cost of some
    microseconds, media apart; and ``cheap``, likewise, at the cost of some hundred: of one row in sixteen.
    """

    GROUP: str | None
    """The column of the training rows whose rows resemble each other; ``None`` where rows are independent."""

    def inputs(self, rows: pa.Table, downloads: Path) -> Signals:
        """Signals of what came in; ``rows`` has the task's input columns. ``downloads``: the cache of packages."""
        ...

    def answers(self, rows: pa.Table) -> Signals:
        """Signals of what was answered; ``rows`` has the columns ``label`` and ``score`` (or the task's own)."""
        ...


@dataclass(frozen=True)
class Reference:
    """Signals of the reference rows, where each vector has become a number, its novelty; thresholds by window size.

    ``neighbours``: of the reference, that a row's novelty is measured by.
    """

    signals: Signals
    thresholds: Mapping[int, Mapping[str, float]]
    neighbours: int

    def watched(self, current: Signals) -> Signals:
        """The current rows' signals, their vectors turned into novelty against this reference."""
        new = {
            name + NOVELTY: distances.novelty(current.vectors[name], vectors, self.neighbours)
            for name, vectors in self.signals.vectors.items()
        }
        return Signals({**current.numbers, **new}, current.classes)

    def __len__(self) -> int:
        return len(self.signals)


@dataclass(frozen=True)
class References:
    inputs: Reference
    answers: Reference


def reference(
    *, dataset: Path, compressed: Path, out: Path, params: ReferenceParams, drift: DriftPart, cache: Path
) -> StageResult:
    """Measure what current rows will be compared with; ``inputs.parquet`` and ``answers.parquet`` in ``out``."""
    answers = held_out_answers(
        Dataset(compressed / "predictions").read(), _read(dataset / "test", [ID, drift.GROUP]), drift.GROUP
    )
    known = measure(_read(dataset / "train"), answers, drift, params, cache)
    save(known, out)
    sizes = {f"largest_window_{kind}": max(one.thresholds, default=0) for kind, one in _kinds(known).items()}
    counts = {f"{kind}_rows": len(one) for kind, one in _kinds(known).items()}
    return StageResult(rows=len(known.inputs), metrics={**counts, **sizes}, metadata={"thresholds": _shown(known)})


def measure(
    train: pa.Table, answers: pa.Table, part: DriftPart, params: ReferenceParams, downloads: Path
) -> References:
    """The references of a model that learnt from ``train`` and gave these ``answers`` (``held_out_answers``)."""
    made = []
    for kind, table in ((INPUTS, train), (ANSWERS, answers)):
        rows, groups = sample(table, groups_of(table, part.GROUP), params.max_rows)
        make = getattr(part, "reference", None)
        if make is not None:
            rows = make(rows)
            groups = groups_of(rows, part.GROUP)
        found = part.inputs(rows, downloads) if kind == INPUTS else part.answers(rows)
        made.append(build(found, groups, params))
    return References(*made)


def build(signals: Signals, groups: Sequence[str], params: ReferenceParams) -> Reference:
    """Measure one reference: novelty of each row against the other groups, and the thresholds.

    Inputs and answers share the rate of false alarms: half of it is each one's.
    """
    names = np.asarray(groups, dtype=str)
    same = names[:, None] == names
    new = {
        name + NOVELTY: distances.novelty(vectors, vectors, params.neighbours, same)
        for name, vectors in signals.vectors.items()
    }
    watched = Signals({**signals.numbers, **new}, signals.classes)
    thresholds = calibration.calibrate(
        watched,
        groups,
        windows=params.windows,
        false_alarm_rate=params.false_alarm_rate / 2,
        min_rows=params.smallest_window,
        seed=params.seed,
    )
    return Reference(Signals(watched.numbers, watched.classes, signals.vectors), thresholds, params.neighbours)


def held_out_answers(predictions: pa.Table, rows: pa.Table, group: str | None) -> pa.Table:
    """What the model answers on rows it has not learnt from, as the log would have it: the answers' reference.

    ``predictions``: ``id``, what was answered (a label is called ``predicted`` there, and ``label`` in the log), and
    perhaps the group's column; ``rows``: the same ids, from which it is taken where the predictions lack it.
    """
    answers = predictions
    if PREDICTED in answers.column_names:
        answers = answers.drop_columns([LABEL])
        answers = answers.rename_columns([LABEL if name == PREDICTED else name for name in answers.column_names])
    if group is None or group in answers.column_names or group not in rows.column_names:
        return answers
    of_row = dict(zip(rows[ID].to_pylist(), rows[group].to_pylist(), strict=True))
    return answers.append_column(group, pa.array([of_row[i] for i in answers[ID].to_pylist()], rows[group].type))


def load(folder: Path | Mapping[str, Path]) -> References:
    """What ``save`` left in a folder, or in the files named so; ``StageFailed`` where they are not a reference."""
    files = folder if isinstance(folder, Mapping) else {path.name: path for path in folder.glob("*.parquet")}
    try:
        return References(*(_load(files[_file(kind)]) for kind in (INPUTS, ANSWERS)))
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        where = folder if isinstance(folder, Path) else ", ".join(map(str, folder.values())) or "no files"
        raise StageFailed(f"{where} is no reference of the drift check ({error}). Run the stage `reference`.") from None


def save(known: References, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind, one in _kinds(known).items():
        _save(one, folder / _file(kind))


def _file(kind: str) -> str:
    return f"{kind}.parquet"


def _kinds(known: References) -> dict[str, Reference]:
    return {INPUTS: known.inputs, ANSWERS: known.answers}


def _load(path: Path) -> Reference:
    table = pq.ParquetFile(path).read()  # `read_table` imports what reads folders, too
    told = json.loads((table.schema.metadata or {})[b"reference"])
    numbers, classes, vectors = {}, {}, {}
    for field in table.schema:
        column = table[field.name].combine_chunks()
        if pa.types.is_fixed_size_list(field.type):
            vectors[field.name] = column.flatten().to_numpy().reshape(table.num_rows, -1)
        elif pa.types.is_string(field.type):
            classes[field.name] = np.asarray(column.to_pylist(), dtype=str)
        else:
            numbers[field.name] = column.to_numpy()
    thresholds = {int(size): by_signal for size, by_signal in told["thresholds"].items()}
    return Reference(Signals(numbers, classes, vectors), thresholds, told["neighbours"])


def _save(one: Reference, path: Path) -> None:
    """In one file, written beside it and renamed; the same reference is the same bytes."""
    signals = one.signals
    columns: dict[str, pa.Array] = {name: pa.array(values, pa.float64()) for name, values in signals.numbers.items()}
    columns |= {name: pa.array(values.tolist(), pa.string()) for name, values in signals.classes.items()}
    for name, vectors in signals.vectors.items():
        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    told = {"thresholds": one.thresholds, "neighbours": one.neighbours}
    table = pa.table(columns).replace_schema_metadata({"reference": json.dumps(told)})
    part = path.with_name(f".{path.name}.new-{os.getpid()}")
    pq.write_table(table, part, compression="zstd")
    os.replace(part, path)


def _read(folder: Path, columns: Sequence[str | None] | None = None) -> pa.Table:
    shards = Dataset(folder).shards()
    known = set(pq.read_schema(shards[0]).names) if shards else set()
    return Dataset(folder).read(None if columns is None else [name for name in columns if name and name in known])


def _shown(known: References) -> dict[str, Any]:
    """Thresholds as the ledger and the UI have them: rounded, windows by their size."""
    return {
        kind: {str(n): {name: round(t, 4) for name, t in found.items()} for n, found in one.thresholds.items()}
        for kind, one in _kinds(known).items()
    }
