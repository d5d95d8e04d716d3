"""Reading the durable log: an hour, one id, what was said of the answers since.

A row is looked for in the segments of its id's hour by bisection over the mapped file, so that finding one among
a million reads some twenty pages.
"""

import json
import logging
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_platform.serving.ids import hour_of

if TYPE_CHECKING:
    import pyarrow as pa

PREDICTIONS, FEEDBACK = "predictions", "feedback"
_ID_AT, _ID_LENGTH = len('{"id":"'), 36
Row = dict[str, Any]
logger = logging.getLogger("lepton.serving")


def hours(predictions: Path, task: str) -> list[str]:
    """The hours (UTC) that have a folder, in order."""
    folder = predictions / task
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def segments(predictions: Path, task: str, hour: str, kind: str = PREDICTIONS) -> list[Path]:
    return sorted((predictions / task / hour).glob(f"{kind}-*.jsonl"))


def compacted(predictions: Path, task: str, hour: str, kind: str = PREDICTIONS) -> Path:
    return predictions / task / hour / f"{kind}.parquet"


def rows_of(segment: Path) -> Iterator[Row]:
    """The whole rows of a segment: its unused end and a row cut short are not rows."""
    data = segment.read_bytes()
    data = data[: data.find(b"\0")] if b"\0" in data else data
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
        except ValueError:
            logger.warning("%s, line %d cannot be read and is left out", segment, number)
            continue
        yield row


def read_rows(predictions: Path, task: str, hour: str, kind: str = PREDICTIONS) -> list[Row]:
    """An hour's rows sorted by id, from its segments and its Parquet file; a row in both counts once."""
    found = {row["id"]: row for row in _compacted_rows(compacted(predictions, task, hour, kind))}
    for segment in segments(predictions, task, hour, kind):
        found |= {row["id"]: row for row in rows_of(segment)}
    return [found[key] for key in sorted(found)]


def _compacted_rows(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    import pyarrow.parquet as pq

    return [from_table_row(row) for row in pq.read_table(path).to_pylist()]


def read_log(predictions: Path, task: str, hour: str, kind: str = PREDICTIONS) -> "pa.Table":
    """An hour as a table in the order in which it happened.

    Predictions: ``id``, ``at`` (UTC), ``model``, ``deployment``, the input's columns as the training rows name them,
    ``label``, ``score``, a column ``p_<label>`` a label, ``latency_ms``. Feedback: ``id`` (of the prediction),
    ``label``, ``at``, ``feedback_id``. Without rows only ``id`` and ``at`` are there, and ``label`` of feedback.
    """
    import pyarrow as pa

    rows = read_rows(predictions, task, hour, kind)
    types = {"id": pa.string(), "at": pa.timestamp("us", tz="UTC")} | (
        {"label": pa.string()} if kind == FEEDBACK else {}
    )
    if not rows:
        return pa.schema(types.items()).empty_table()
    table = pa.Table.from_pylist([to_table_row(row) for row in rows])
    return table.set_column(table.schema.get_field_index("at"), "at", table["at"].cast(types["at"]))


def read_all(predictions: Path, task: str, kind: str = PREDICTIONS, since: str = "") -> "Iterator[pa.Table]":
    """The hours from ``since`` on, one table each, in constant memory; hours without rows are left out."""
    for hour in hours(predictions, task):
        if hour >= since and (table := read_log(predictions, task, hour, kind)).num_rows:
            yield table


def to_table_row(row: Row) -> Row:
    """A line of the log → a row of the table."""
    from datetime import datetime

    flat = {**row, "at": datetime.fromisoformat(row["at"])}
    flat |= {f"p_{label}": share for label, share in flat.pop("scores", {}).items()}
    if "prediction_id" in flat:
        flat["feedback_id"], flat["id"] = flat["id"], flat.pop("prediction_id")
    return flat


def from_table_row(flat: Mapping[str, Any]) -> Row:
    """And back."""
    row = {k: v for k, v in flat.items() if not k.startswith("p_")}
    row["at"] = flat["at"].isoformat(timespec="milliseconds").replace("+00:00", "Z")
    scores = {key[2:]: value for key, value in flat.items() if key.startswith("p_")}
    if "feedback_id" in row:
        row["prediction_id"], row["id"] = row["id"], row.pop("feedback_id")
    return {**row, "scores": scores} if scores else row


def find(predictions: Path, task: str, identifier: str, kind: str = PREDICTIONS) -> Row | None:
    """The row with this id, or ``None``."""
    hour = hour_of(identifier)
    if hour is None:
        return None
    for segment in segments(predictions, task, hour, kind):
        if segment.stem[len(kind) + 1 :] <= identifier and (row := _bisect(segment, identifier)):
            return row
    path = compacted(predictions, task, hour, kind)
    if not path.is_file():
        return None
    import pyarrow.parquet as pq

    rows = pq.read_table(path, filters=[("id", "==", identifier)]).to_pylist()
    return from_table_row(rows[0]) if rows else None


def _bisect(segment: Path, identifier: str) -> Row | None:
    key = identifier.encode()
    with segment.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return None
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
            low, high = 0, _end(data)  # both stand at the start of a line
            while low < high:
                middle = data.rfind(b"\n", low, (low + high) // 2) + 1 or low
                stop = data.find(b"\n", middle, high) + 1
                found = data[middle + _ID_AT : middle + _ID_AT + _ID_LENGTH]
                if found == key:
                    return json.loads(data[middle:stop])
                low, high = (stop, high) if found < key else (low, middle)
    return None


def _end(data: mmap.mmap) -> int:
    """Behind the last whole row; zeros follow what was written, and nothing follows zeros."""
    low, high = 0, len(data)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if data[middle] == 0 else (middle + 1, high)
    return data.rfind(b"\n", 0, low) + 1
