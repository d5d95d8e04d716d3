"""The durable log: a row is acknowledged only when the disk has it.

Group commit: one thread writes whatever is waiting as one append and one ``fdatasync``, so that a hundred answers
cost one flush. Rows are JSON lines in segments, ``<task>/<hour>/<kind>-<first id>.jsonl``, a segment written by one
process and never written again; ids increase, so that a segment is sorted and a row is found by bisection.

A segment's blocks are allocated ahead of what is written into them: a flush then writes data and no new file size,
which took 0.3 ms instead of 4 ms on ext4. Its end is therefore zeros until it is closed; a row cut short by a
power failure lacks its line end. Readers ignore both.
"""

import contextlib
import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_platform.serving.ids import Ids, hour_of, time_of

ALLOCATED_BYTES = 1 << 20
SEGMENT_BYTES = 64 << 20
MOST_ROWS = 4096  # of one commit
Row = dict[str, Any]
logger = logging.getLogger("lepton.serving")


class LogUnavailable(Exception):
    """The disk does not take rows: full, read-only, gone."""


class Segment:
    """One append-only file; closed, it is as long as its rows."""

    def __init__(self, path: Path) -> None:
        self.path, self.end, self._allocated = path, 0, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            self._allocate(ALLOCATED_BYTES)
            os.fsync(self._file)
            for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
                sync_folder(folder)
        except BaseException:
            os.close(self._file)
            raise

    def _allocate(self, size: int) -> None:
        with contextlib.suppress(OSError):  # a file system without it, or a full one: the write itself will tell
            os.posix_fallocate(self._file, self._allocated, size - self._allocated)
            self._allocated = size

    def append(self, data: bytes) -> None:
        """Write and flush; when it returns, the disk has it."""
        if self.end + len(data) > self._allocated:
            self._allocate(self.end + len(data) + ALLOCATED_BYTES)
        start, view = self.end, memoryview(data)
        while view:
            written = os.pwrite(self._file, view, start)
            start, view = start + written, view[written:]
        os.fdatasync(self._file)
        self.end = start

    def close(self) -> None:
        """Cut off what was allocated and not used; an error here costs no row."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, self.end)
        with contextlib.suppress(OSError):
            os.close(self._file)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass
class _Entry:
    rows: Sequence[str]  # a row's JSON without its id and time, ``,"model":…}``
    done: "Callable[[Future[list[str]]], None]"


class DurableLog:
    """Appends rows of one kind for one task. ``append`` gives ids once they are on disk."""

    def __init__(self, folder: Path, kind: str) -> None:
        """``folder``: the task's, ``<predictions_dir>/<task>``; ``kind``: ``predictions`` or ``feedback``."""
        self.folder, self.kind = folder, kind
        self._ids, self._segment, self._hour = Ids(), None, ""
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in missing:
            sync_folder(path.parent)
        self._thread = threading.Thread(target=self._write, name=f"log-{kind}", daemon=True)
        self._thread.start()

    def submit(self, rows: Sequence[Row], done: "Callable[[Future[list[str]]], None]") -> None:
        """Queue the rows; ``done`` is called from the writer's thread with a finished future of their ids.

        ``ValueError`` where a row is not JSON; it is raised here, so that it never reaches the others' rows.
        """
        self._queue.put(_Entry([_tail(row) for row in rows], done))

    def append(self, rows: Sequence[Row]) -> list[str]:
        """Wait until the rows are durable; their ids. ``LogUnavailable`` where the disk refuses."""
        waiting: Future[Future[list[str]]] = Future()
        self.submit(rows, waiting.set_result)
        return waiting.result().result()

    def close(self) -> None:
        """Write what waits, then close the segment."""
        self._queue.put(None)
        self._thread.join()

    def _write(self) -> None:
        stop = False
        while not stop:
            entries: list[_Entry] = []
            entry, rows = self._queue.get(), 0
            while True:
                if entry is None:
                    stop = True
                    break
                entries.append(entry)
                rows += len(entry.rows)
                if rows >= MOST_ROWS or self._queue.empty():
                    break
                entry = self._queue.get()
            if entries:
                self._commit(entries)
        self._close_segment()

    def _commit(self, entries: list[_Entry]) -> None:
        result: Future[list[str]]
        try:
            ids = self._ids.take(sum(len(entry.rows) for entry in entries))
            self._append(ids, [row for entry in entries for row in entry.rows])
        except Exception as error:
            logger.error("the %s log cannot be written: %r", self.kind, error)
            self._close_segment()  # what is half-written stays behind in a segment of its own
            reason = error.strerror if isinstance(error, OSError) else str(error)
            for entry in entries:
                result = Future()
                result.set_exception(LogUnavailable(f"The log cannot be written: {reason}."))
                self._hand_over(entry, result)
            return
        for entry in entries:
            result = Future()
            result.set_result(ids[: len(entry.rows)])
            del ids[: len(entry.rows)]
            self._hand_over(entry, result)

    def _hand_over(self, entry: _Entry, result: "Future[list[str]]") -> None:
        try:
            entry.done(result)
        except Exception:  # whoever waits is lost, the log is not
            logger.exception("an answer of the %s log could not be handed over", self.kind)

    def _append(self, ids: list[str], rows: list[str]) -> None:
        """Write rows into the segments of their ids' hours: nearly always one."""
        start = 0
        while start < len(ids):
            hour = hour_of(ids[start])
            assert hour is not None
            stop = start + 1
            while stop < len(ids) and hour_of(ids[stop]) == hour:
                stop += 1
            lines = [_line(i, row) for i, row in zip(ids[start:stop], rows[start:stop], strict=True)]
            self._segment_of(hour, ids[start]).append("".join(lines).encode())
            start = stop

    def _segment_of(self, hour: str, first: str) -> Segment:
        if self._segment is None or self._hour != hour or self._segment.end >= SEGMENT_BYTES:
            self._close_segment()
            self._segment = Segment(self.folder / hour / f"{self.kind}-{first}.jsonl")
            self._hour = hour
        return self._segment

    def _close_segment(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None


def _tail(row: Row) -> str:
    text = json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text.encode()  # a lone surrogate is no row
    return f",{text[1:]}" if row else text[1:]


def _line(identifier: str, tail: str) -> str:
    moment = time_of(identifier)
    assert moment is not None
    at = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f'{{"id":"{identifier}","at":"{at}"{tail}\n'
