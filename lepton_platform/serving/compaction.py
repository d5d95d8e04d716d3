"""An hour of the log as one Parquet file: what the hourly partition of the graph is made of."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lepton_platform.serving.ids import HOUR_FORMAT
from lepton_platform.serving.log_reader import (
    FEEDBACK,
    MIRRORED,
    PREDICTIONS,
    compacted,
    hours,
    read_log,
    read_pieces,
    segments,
)
from lepton_platform.serving.media_store import sweep
from lepton_platform.serving.prediction_log import sync_folder

SETTLED = timedelta(minutes=2)  # after its end an hour receives no more rows


def compact_hour(predictions: Path, task: str, hour: str, now: datetime | None = None) -> Path:
    """Write the hour's ``predictions.parquet`` (and those of feedback and mirrored answers), rows sorted by id; its path.

    Killed at any instant nothing is lost: the segments of an hour that is over are removed only when the Parquet
    file is durable, and a row in both counts once. Run again, it takes in what came since. Media go into the Parquet
    file with their rows; their files are removed when no segment can name them any more.
    """
    now = now or datetime.now(UTC)
    settled = now >= hour_end(hour) + SETTLED
    for kind in (PREDICTIONS, MIRRORED, FEEDBACK):
        _compact(predictions, task, hour, kind, settled)
    sweep(predictions / task, _first_with_segments(predictions, task), now)
    return compacted(predictions, task, hour)


def hour_end(hour: str) -> datetime:
    return datetime.strptime(hour, HOUR_FORMAT).replace(tzinfo=UTC) + timedelta(hours=1)


def _compact(predictions: Path, task: str, hour: str, kind: str, settled: bool) -> None:
    read = segments(predictions, task, hour, kind)
    target = compacted(predictions, task, hour, kind)
    if not read and (target.is_file() or kind != PREDICTIONS):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}-{time.monotonic_ns()}")
    try:
        _write(fresh, predictions, task, hour, kind)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(target.parent)
    if settled:
        for segment in read:
            segment.unlink()


def _write(path: Path, predictions: Path, task: str, hour: str, kind: str) -> None:
    """The hour in its order; where it holds media a row group for each ``PIECE_BYTES`` of them, one in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = read_log(predictions, task, hour, kind, media=False)
    if not any(pa.types.is_binary(field.type) for field in rows.schema):
        pq.write_table(rows, path, compression="zstd")
        return
    with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
        for piece in read_pieces(predictions, task, hour, kind, schema=rows.schema):
            writer.write_table(piece, row_group_size=piece.num_rows)


def _first_with_segments(predictions: Path, task: str) -> str | None:
    return next((hour for hour in hours(predictions, task) if _has_segments(predictions, task, hour)), None)


def _has_segments(predictions: Path, task: str, hour: str) -> bool:
    return any(segments(predictions, task, hour, kind) for kind in (PREDICTIONS, MIRRORED))
