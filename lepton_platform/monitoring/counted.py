"""What a Bento served in an hour, or in many: how many rows, sketches of what is cheap to tell of each, and a sample's ids.

Answers are counted of every row; what is cheap to tell of an input, of one row in sixteen (by the hash of its id): a text
takes some eighty microseconds. What needs the input itself, or a network, stays with the sample.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lepton_platform.monitoring.reference import DriftPart
from lepton_platform.monitoring.sampling import ID, hashes_of
from lepton_platform.monitoring.sketches import Sketches

CHEAP_ROWS = 16  # of so many rows one is looked at for what is cheap to tell of its input
IDS = "ids"
_SCHEMA = pa.schema(
    {"model": pa.string(), "rows": pa.int64(), "signal": pa.string(), "kind": pa.string(), "data": pa.binary()}
)


@dataclass
class Counted:
    """``ids``: of the rows with the smallest hashes, at most ``most``, in that order (``sampling.by_hash_of_id``)."""

    most: int
    rows: int = 0
    sketches: Sketches = field(default_factory=Sketches)
    ids: list[str] = field(default_factory=list)

    def update(self, rows: pa.Table, part: DriftPart) -> None:
        """Take in rows of the log, which may lack their media."""
        ids = rows[ID].to_pylist()
        hashes = hashes_of(ids)
        self.rows += len(ids)
        self._sample(np.asarray(ids, dtype=object)[np.argsort(hashes, kind="stable")[: self.most]].tolist())
        if (counted := getattr(part, "counted", None)) is not None:
            self.sketches.update(counted(rows))
        if (cheap := getattr(part, "cheap", None)) is not None:
            chosen = hashes < np.uint64(2**64 // CHEAP_ROWS)
            if chosen.any():
                self.sketches.update(cheap(rows.filter(pa.array(chosen))))

    def merge(self, other: "Counted") -> None:
        self.rows += other.rows
        self.sketches.merge(other.sketches)
        self._sample(other.ids)

    def _sample(self, ids: list[str]) -> None:
        together = [*self.ids, *ids]
        order = np.argsort(hashes_of(together), kind="stable")[: self.most]
        self.ids = [together[place] for place in order.tolist()]


def save(by_model: Mapping[str, Counted], path: Path, stamp: str) -> None:
    """In one file, whole or not at all. ``stamp``: says what was counted and how."""
    rows = []
    for model, one in sorted(by_model.items()):
        told = {"model": model, "rows": one.rows}
        rows.append({**told, "signal": "", "kind": IDS, "data": json.dumps(one.ids).encode()})
        rows += [{**told, **sketch} for sketch in one.sketches.dump()]
    table = pa.Table.from_pylist(rows, _SCHEMA).replace_schema_metadata({"stamp": stamp})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.new-{os.getpid()}")
    pq.write_table(table, part, compression="zstd")
    os.replace(part, path)


def load(path: Path, stamp: str, most: int) -> dict[str, Counted] | None:
    """By the model's tag; ``None`` where there is no such file, or one of another stamp."""
    try:
        table = pq.ParquetFile(path).read()  # `read_table` imports what reads folders, too
    except (OSError, pa.ArrowException):
        return None
    if (table.schema.metadata or {}).get(b"stamp") != stamp.encode():
        return None
    found: dict[str, Counted] = {}
    for row in table.to_pylist():
        one = found.setdefault(row["model"], Counted(most, row["rows"]))
        if row["kind"] == IDS:
            one.ids = json.loads(row["data"])
        else:
            one.sketches.take(row)
    return found
