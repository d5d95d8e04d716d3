"""All rows of an hour at once, column by column, without their media: for counting, where ``log_reader`` is for reading.

Every row comes once, in no particular order, in constant memory.
"""

import io
import json
import logging
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_platform.serving.log_reader import PREDICTIONS, compacted, end_of, segments
from lepton_platform.serving.media_store import is_media

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 8 << 20
BATCH_ROWS = 32_768
_ID = slice(len('{"id":"'), len('{"id":"') + 36)
Extent = dict[str, list[int]]  # file → how much of it: of a segment its end, of a Parquet file its size and its time
logger = logging.getLogger("lepton.serving")


def extent(predictions: Path, task: str, hour: str) -> Extent:
    """What the hour's predictions are now: it changes when a row joins them."""
    found: Extent = {}
    path = compacted(predictions, task, hour)
    if path.is_file():
        stat = path.stat()
        found[path.name] = [stat.st_size, stat.st_mtime_ns]
    for segment in segments(predictions, task, hour):
        end = _end(segment)
        if end is not None:
            found[segment.name] = [end]
    return found


def scan(predictions: Path, task: str, hour: str, what: Extent) -> "Iterator[pa.Table]":
    """The rows in ``what`` (``extent``): the log's columns but media; ``FileNotFoundError`` where a file has gone since."""
    folder, packed = predictions / task / hour, f"{PREDICTIONS}.parquet"
    ends = {folder / name: told[0] for name, told in what.items() if name != packed}
    if packed in what:
        fresh = {
            line[_ID].decode() for path, end in ends.items() for block in _blocks(path, end) for line in _lines(block)
        }
        yield from _compacted(folder / packed, fresh)
    for path, end in ends.items():
        for block in _blocks(path, end):
            yield _table(block, path)


def _end(segment: Path) -> int | None:
    try:
        with segment.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return 0
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return end_of(data)
    except FileNotFoundError:  # compacted just now
        return None


def _blocks(segment: Path, end: int) -> Iterator[bytes]:
    """Whole lines, some ``BLOCK_BYTES`` at a time."""
    with segment.open("rb") as file:
        rest = end
        while rest > 0:
            block = file.read(min(rest, BLOCK_BYTES))
            if rest > len(block):
                block += file.readline()
            rest -= len(block)
            yield block


def _lines(block: bytes) -> Iterator[bytes]:
    return iter(block.split(b"\n")[:-1])


def _compacted(path: Path, but: set[str]) -> "Iterator[pa.Table]":
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        columns = [field.name for field in file.schema_arrow if not pa.types.is_binary(field.type)]
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            rows = pa.Table.from_batches([batch])
            yield (rows.filter(~pc.field("id").isin(list(but))) if but else rows)


def _table(block: bytes, segment: Path) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.json as pj

    try:
        rows = pj.read_json(io.BytesIO(block), pj.ReadOptions(use_threads=False, block_size=len(block) + 1))
    except pa.ArrowInvalid:  # one line that is no row, or a column of two minds
        rows = pa.Table.from_pylist(list(_read(block, segment)))
    return rows.drop_columns([field.name for field in rows.schema if _holds_media(field)])


def _read(block: bytes, segment: Path) -> Iterator[Mapping]:
    for line in _lines(block):
        try:
            row = json.loads(line)
        except ValueError:
            logger.warning("%s: a line cannot be read and is left out", segment)
            continue
        yield {name: value for name, value in row.items() if not is_media(value)}


def _holds_media(field: "pa.Field") -> bool:
    import pyarrow as pa

    return pa.types.is_struct(field.type) and any(child.name.startswith("$") for child in field.type)
