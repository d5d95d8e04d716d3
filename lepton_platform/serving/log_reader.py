"""Reading the durable log: an hour, one id, what was said of the answers since.

A row is looked for in the segments of its id's hour by bisection over the mapped file, so that finding one among
a million reads some twenty pages. Media are looked up where a table is made: a column of bytes, as in the training rows.
"""

import contextlib
import heapq
import json
import logging
import mmap
import os
import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_platform.serving.ids import hour_of
from lepton_platform.serving.media_store import NAME, content_of, is_media, media_path, shortened

if TYPE_CHECKING:
    import pyarrow as pa

PREDICTIONS, FEEDBACK = "predictions", "feedback"
MIRRORED = "mirrored"  # answers that nobody was given: a shadow's, and those that two versions are compared by
PIECE_BYTES = 64 << 20  # of media, in a piece of an hour
_HOUR = re.compile(r"\d{4}-\d\d-\d\dT\d\d")
_ID_AT, _ID_LENGTH = len('{"id":"'), 36
Row = dict[str, Any]
logger = logging.getLogger("lepton.serving")


def hours(predictions: Path, task: str) -> list[str]:
    """The hours (UTC) that have a folder, in order."""
    folder = predictions / task
    return sorted(path.name for path in folder.iterdir() if _HOUR.fullmatch(path.name)) if folder.is_dir() else []


def segments(predictions: Path, task: str, hour: str, kind: str = PREDICTIONS) -> list[Path]:
    return sorted((predictions / task / hour).glob(f"{kind}-*.jsonl"))


def compacted(predictions: Path, task: str, hour: str, kind: str = PREDICTIONS) -> Path:
    return predictions / task / hour / f"{kind}.parquet"


def rows_of(segment: Path, ids: AbstractSet[str] | None = None) -> Iterator[Row]:
    """The whole rows of a segment, or those with these ids: its unused end and a row cut short are not rows.

    None of one that is gone: its hour has been compacted since it was listed, and who reads the Parquet file after the
    segments finds its rows there.
    """
    try:
        data = segment.read_bytes()
    except FileNotFoundError:
        return
    data = data[: data.find(b"\0")] if b"\0" in data else data
    wanted = None if ids is None else {identifier.encode() for identifier in ids}
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        if wanted is not None and line[_ID_AT : _ID_AT + _ID_LENGTH] not in wanted:
            continue
        try:
            row = json.loads(line)
        except ValueError:
            logger.warning("%s, line %d cannot be read and is left out", segment, number)
            continue
        yield row


def read_rows(predictions: Path, task: str, hour: str, kind: str = PREDICTIONS) -> list[Row]:
    """An hour's rows sorted by id, from its segments and its Parquet file; a row in both counts once.

    Media are named, with their size; their bytes are in the tables.
    """
    fresh = {row["id"]: shortened(row) for s in segments(predictions, task, hour, kind) for row in rows_of(s)}
    old = map(
        from_table_row, _compacted_rows(compacted(predictions, task, hour, kind))
    )  # last: what it has, no segment need have
    found = {row["id"]: row for row in old} | fresh
    return [found[key] for key in sorted(found)]


def read_log(predictions: Path, task: str, hour: str, kind: str = PREDICTIONS, *, media: bool = True) -> "pa.Table":
    """An hour as a table in the order in which it happened.

    Predictions: ``id``, ``at`` (UTC), ``model``, ``deployment``, the input's columns as the training rows name them,
    what was answered, a column ``p_<label>`` a label where there are scores, ``latency_ms``. Feedback: ``id`` (of the
    prediction), the truth's column, ``at``, ``feedback_id``. Without rows only ``id`` and ``at`` are there, and
    ``label`` of feedback. Media are ``binary``; null where their file is missing (a warning names it), and everywhere
    without ``media``.
    """
    import pyarrow as pa

    pieces = list(read_pieces(predictions, task, hour, kind, media=media))
    if not pieces:
        columns = {"id": pa.string(), "at": pa.timestamp("us", tz="UTC")}
        return pa.schema((columns | ({"label": pa.string()} if kind == FEEDBACK else {})).items()).empty_table()
    return pieces[0] if len(pieces) == 1 else pa.concat_tables(pieces, promote_options="default")


def read_all(
    predictions: Path,
    task: str,
    kind: str = PREDICTIONS,
    since: str = "",
    *,
    ids: AbstractSet[str] | None = None,
    media: bool = True,
) -> "Iterator[pa.Table]":
    """The hours from ``since`` on, in constant memory: a table an hour, several where it holds many media.

    ``ids``: of the rows that are wanted (the log's own: of feedback, not those of its predictions); the media of no
    other are read.
    """
    for hour in hours(predictions, task):
        if hour >= since:
            yield from read_pieces(predictions, task, hour, kind, ids=ids, media=media)


def read_pieces(
    predictions: Path,
    task: str,
    hour: str,
    kind: str = PREDICTIONS,
    *,
    ids: AbstractSet[str] | None = None,
    media: bool = True,
    schema: "pa.Schema | None" = None,
) -> "Iterator[pa.Table]":
    """An hour in its order, cut where ``PIECE_BYTES`` of media have come together; nothing where there are no rows."""
    folder, path = predictions / task, compacted(predictions, task, hour, kind)
    fresh = {r["id"]: r for s in segments(predictions, task, hour, kind) for r in rows_of(s, ids)}
    # What is in both comes from the segments; rows with media may have theirs in the Parquet file alone by now.
    old = (row for row in _compacted_rows(path, ids, media) if _own_id(row) not in fresh)
    new = (_filled(to_table_row(fresh[key]), folder, path, media) for key in sorted(fresh))
    rows: list[Row] = []
    held = 0
    for row in heapq.merge(old, new, key=_own_id):
        rows.append(row)
        held += sum(len(value) for value in row.values() if type(value) is bytes)
        if held >= PIECE_BYTES:
            yield _table(rows, schema)
            rows, held = [], 0
    if rows:
        yield _table(rows, schema)


class _Unread:
    """Stands for media that were not asked for, or not found: null, in a column of bytes."""


UNREAD = _Unread()


def _own_id(flat: Row) -> str:
    """The id that the log gave a row of a table."""
    return flat.get("feedback_id") or flat["id"]


def _filled(flat: Row, folder: Path, path: Path, media: bool) -> Row:
    """A row with its media's bytes in place of what stands for them."""
    for name, value in flat.items():
        if type(value) is dict and is_media(value):
            content = content_of(folder, value) if media else UNREAD
            flat[name] = _swept(path, flat, name, value) if content is None else content
    return flat


def _swept(path: Path, flat: Row, name: str, value: Mapping[str, Any]) -> "bytes | _Unread":
    """The hour may have been compacted since its segments were read."""
    import pyarrow.parquet as pq

    if path.is_file():
        found = pq.read_table(path, columns=[name], filters=[("id", "==", flat["id"])])[name].to_pylist()
        if found and found[0] is not None:
            return found[0]
    logger.warning("row %s: the file %s of its %s is missing", flat["id"], value.get(NAME), name)
    return UNREAD


def _table(rows: list[Row], schema: "pa.Schema | None") -> "pa.Table":
    import pyarrow as pa

    if schema is not None:
        plain = [{n: None if v is UNREAD else v for n, v in row.items()} for row in rows]
        return pa.Table.from_pylist(plain, schema=schema)
    names = dict.fromkeys(name for shape in dict.fromkeys(map(tuple, rows)) for name in shape)
    return pa.table({name: _column(name, [row.get(name) for row in rows]) for name in names})


def _column(name: str, values: list[Any]) -> "pa.Array | pa.ChunkedArray":
    import pyarrow as pa

    if name == "at":
        return pa.array(values, pa.timestamp("us", tz="UTC"))
    if UNREAD in values:
        return pa.array([None if value is UNREAD else value for value in values], pa.binary())
    return pa.array(values)


def _compacted_rows(path: Path, ids: AbstractSet[str] | None = None, media: bool = True) -> Iterator[Row]:
    """Rows of the hour's Parquet file in its order, a row group at a time; media are bytes."""
    if not path.is_file():
        return
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        binary = [field.name for field in schema if pa.types.is_binary(field.type)]
        columns = [name for name in schema.names if media or name not in binary]
        unread = {} if media else dict.fromkeys(binary, UNREAD)
        own = "feedback_id" if "feedback_id" in schema.names else "id"
        wanted = None if ids is None else pc.field(own).isin(list(ids))
        for group in range(file.num_row_groups):
            if wanted is not None and not file.read_row_group(group, [own]).filter(wanted).num_rows:
                continue
            rows = file.read_row_group(group, columns)
            rows = rows if wanted is None else rows.filter(wanted)
            yield from ({**row, **unread} for row in rows.to_pylist())


def to_table_row(row: Row) -> Row:
    """A line of the log → a row of the table."""
    from datetime import datetime

    flat = {**row, "at": datetime.fromisoformat(row["at"])}
    flat |= {f"p_{label}": share for label, share in flat.pop("scores", {}).items()}
    if "prediction_id" in flat:
        flat["feedback_id"], flat["id"] = flat["id"], flat.pop("prediction_id")
    return flat


def from_table_row(flat: Mapping[str, Any]) -> Row:
    """And back, but for media: they are named."""
    row = {k: v for k, v in flat.items() if not k.startswith("p_")}
    row["at"] = flat["at"].isoformat(timespec="milliseconds").replace("+00:00", "Z")
    scores = {key[2:]: value for key, value in flat.items() if key.startswith("p_")}
    if "feedback_id" in row:
        row["prediction_id"], row["id"] = row["id"], row.pop("feedback_id")
    return shortened({**row, "scores": scores} if scores else row)


def find(predictions: Path, task: str, identifier: str, kind: str = PREDICTIONS) -> Row | None:
    """The row with this id, or ``None``. Media are named, with their size, and ``missing`` where their file is."""
    hour = hour_of(identifier)
    if hour is None:
        return None
    for segment in segments(predictions, task, hour, kind):
        with contextlib.suppress(FileNotFoundError):  # compacted meanwhile: the Parquet file has it
            if segment.stem[len(kind) + 1 :] <= identifier and (row := _bisect(segment, identifier)):
                return shortened({name: _checked(predictions / task, value) for name, value in row.items()})
    rows = list(_compacted_rows(compacted(predictions, task, hour, kind), {identifier}))
    return from_table_row(rows[0]) if rows else None


def _checked(folder: Path, value: Any) -> Any:
    named = type(value) is dict and NAME in value and is_media(value)
    return {**value, "missing": True} if named and not media_path(folder, value[NAME]).is_file() else value


def _bisect(segment: Path, identifier: str) -> Row | None:
    key = identifier.encode()
    with segment.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return None
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
            low, high = 0, end_of(data)  # both stand at the start of a line
            while low < high:
                middle = data.rfind(b"\n", low, (low + high) // 2) + 1 or low
                stop = data.find(b"\n", middle, high) + 1
                found = data[middle + _ID_AT : middle + _ID_AT + _ID_LENGTH]
                if found == key:
                    return json.loads(data[middle:stop])
                low, high = (stop, high) if found < key else (low, middle)
    return None


def end_of(data: mmap.mmap) -> int:
    """Behind the last whole row; zeros follow what was written, and nothing follows zeros."""
    low, high = 0, len(data)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if data[middle] == 0 else (middle + 1, high)
    return data.rfind(b"\n", 0, low) + 1
