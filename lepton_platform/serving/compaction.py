"""An hour of the log as one Parquet file: what the hourly partition of the graph is made of."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lepton_platform.serving.ids import HOUR_FORMAT
from lepton_platform.serving.log_reader import FEEDBACK, PREDICTIONS, compacted, read_log, segments
from lepton_platform.serving.prediction_log import sync_folder

SETTLED = timedelta(minutes=2)  # after its end an hour receives no more rows


def compact_hour(predictions: Path, task: str, hour: str, now: datetime | None = None) -> Path:
    """Write the hour's ``predictions.parquet`` (and ``feedback.parquet``), rows sorted by id; returns the first.

    Killed at any instant nothing is lost: the segments of an hour that is over are removed only when the Parquet
    file is durable, and a row in both counts once. Run again, it takes in what came since.
    """
    settled = (now or datetime.now(UTC)) >= hour_end(hour) + SETTLED
    for kind in (PREDICTIONS, FEEDBACK):
        _compact(predictions, task, hour, kind, settled)
    return compacted(predictions, task, hour)


def hour_end(hour: str) -> datetime:
    return datetime.strptime(hour, HOUR_FORMAT).replace(tzinfo=UTC) + timedelta(hours=1)


def _compact(predictions: Path, task: str, hour: str, kind: str, settled: bool) -> None:
    import pyarrow.parquet as pq

    read = segments(predictions, task, hour, kind)
    target = compacted(predictions, task, hour, kind)
    if not read and (target.is_file() or kind == FEEDBACK):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}-{time.monotonic_ns()}")
    try:
        pq.write_table(read_log(predictions, task, hour, kind), fresh, compression="zstd")
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(target.parent)
    if settled:
        for segment in read:
            segment.unlink()
