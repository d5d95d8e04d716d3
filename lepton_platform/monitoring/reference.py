"""What the current rows are compared with: a sample of the training rows, its signals and the thresholds they set.

Making it embeds a few thousand rows and measures hundreds of windows: it is kept under a key of everything that it
depends on, and read in milliseconds from then on.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lepton_platform.monitoring import calibration, distances
from lepton_platform.monitoring.signals import Signals

NOVELTY = "_novelty"  # of a vector: how unlike the training rows a row is


@dataclass(frozen=True)
class Reference:
    """Signals of the reference rows, where each vector has become a number, its novelty; thresholds by window size."""

    signals: Signals
    thresholds: Mapping[int, Mapping[str, float]]

    def watched(self, current: Signals, neighbours: int) -> Signals:
        """The current rows' signals, their vectors turned into novelty against this reference."""
        new = {
            name + NOVELTY: distances.novelty(current.vectors[name], vectors, neighbours)
            for name, vectors in self.signals.vectors.items()
        }
        return Signals({**current.numbers, **new}, current.classes)


def groups_of(table: pa.Table, column: str | None) -> list[str]:
    """The group of each row (N,); every row is its own where the table has no groups, or only one."""
    if column is not None and column in table.column_names:
        found = [str(value) for value in table[column].to_pylist()]
        if len(set(found)) > 1:
            return found
    return [str(row) for row in range(table.num_rows)]


def sample(table: pa.Table, groups: Sequence[str], max_rows: int) -> tuple[pa.Table, list[str]]:
    """At most ``max_rows`` rows, whole groups in the order of their hash while they fit: the same rows every time."""
    if table.num_rows <= max_rows:
        return table, list(groups)
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    chosen: set[str] = set()
    room = max_rows
    for group in sorted(sizes, key=lambda g: hashlib.sha256(g.encode()).digest()):
        if sizes[group] <= room:
            chosen.add(group)
            room -= sizes[group]
    if not chosen:  # one group is larger than the sample: a slice of it must do
        return table.slice(0, max_rows), list(groups[:max_rows])
    kept = [row for row, group in enumerate(groups) if group in chosen]
    return table.take(kept), [groups[row] for row in kept]


def build(
    signals: Signals,
    groups: Sequence[str],
    *,
    neighbours: int,
    windows: int,
    false_alarm_rate: float,
    min_rows: int,
    seed: int,
) -> Reference:
    """Measure the reference: novelty of each row against the other groups, and the thresholds."""
    names = np.asarray(groups, dtype=str)
    same = names[:, None] == names
    new = {
        name + NOVELTY: distances.novelty(vectors, vectors, neighbours, same)
        for name, vectors in signals.vectors.items()
    }
    watched = Signals({**signals.numbers, **new}, signals.classes)
    thresholds = calibration.calibrate(
        watched, groups, windows=windows, false_alarm_rate=false_alarm_rate, min_rows=min_rows, seed=seed
    )
    return Reference(Signals(watched.numbers, watched.classes, signals.vectors), thresholds)


def content_hash(table: pa.Table) -> str:
    """SHA-256 over the rows' values and types."""
    digest = hashlib.sha256(str(table.schema.remove_metadata()).encode())
    sink = pa.BufferOutputStream()
    combined = table.replace_schema_metadata(None).combine_chunks()
    with pa.ipc.new_stream(sink, combined.schema) as writer:
        writer.write_table(combined)
    digest.update(sink.getvalue())
    return digest.hexdigest()


def load(path: Path) -> Reference | None:
    """The reference kept in the file ``path``; ``None`` where there is none, or it cannot be read."""
    try:
        table = pq.read_table(path)
        thresholds = json.loads((table.schema.metadata or {})[b"thresholds"])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
    numbers, classes, vectors = {}, {}, {}
    for field in table.schema:
        column = table[field.name].combine_chunks()
        if pa.types.is_fixed_size_list(field.type):
            vectors[field.name] = column.flatten().to_numpy().reshape(table.num_rows, -1)
        elif pa.types.is_string(field.type):
            classes[field.name] = np.asarray(column.to_pylist(), dtype=str)
        else:
            numbers[field.name] = column.to_numpy()
    return Reference(Signals(numbers, classes, vectors), {int(n): by_signal for n, by_signal in thresholds.items()})


def save(reference: Reference, path: Path) -> None:
    """Keep the reference in one file, written beside it and renamed."""
    signals = reference.signals
    columns: dict[str, pa.Array] = {name: pa.array(values, pa.float64()) for name, values in signals.numbers.items()}
    columns |= {name: pa.array(values.tolist(), pa.string()) for name, values in signals.classes.items()}
    for name, vectors in signals.vectors.items():
        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    table = pa.table(columns).replace_schema_metadata({"thresholds": json.dumps(reference.thresholds)})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.new-{os.getpid()}")
    pq.write_table(table, part)
    os.replace(part, path)
