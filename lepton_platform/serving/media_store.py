"""Media of the prediction log: small ones lie in their row, larger ones in files named by what they hold.

``<task>/media/<2 hex digits>/<sha256>``; a row that was sent one has ``{"$media": sha256, "bytes": n}`` in its place,
or ``{"$base64": …}``. A file is written and flushed before a row that names it is, and the same content lies there
once. The hour's Parquet file takes the content in; ``sweep`` then removes the files that no segment needs any more.
"""

import base64
import contextlib
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

MEDIA = "media"  # the folder, beside the hours
INLINE_BYTES = 4096  # a smaller one lies in its row
NAME, BYTES, INLINE = "$media", "bytes", "$base64"
LONGEST_REQUEST = timedelta(hours=1)  # between a file and the row that names it
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GONE = ".gone-"
_counter = itertools.count()
Row = dict[str, Any]


def holds_media(rows: Iterable[Mapping[str, Any]]) -> bool:
    for row in rows:  # asked of every request: no generators
        for value in row.values():
            if type(value) is bytes:
                return True
    return False


def media_path(folder: Path, digest: str) -> Path:
    """``folder``: the task's, of the log."""
    return folder / MEDIA / digest[:2] / digest


class MediaStore:
    """Where a service keeps the media of its rows. Threads may keep side by side."""

    def __init__(self, folder: Path) -> None:
        """``folder``: the task's, of the log."""
        self.folder = folder
        self._durable: set[Path] = set()  # folders whose own names are on the disk

    def keep(self, rows: Sequence[Row]) -> list[Row]:
        """The rows as the log has them: media replaced by what stands for them, and on the disk. ``OSError`` if not."""
        folders: set[Path] = set()
        kept = [{name: self._kept(value, folders) for name, value in row.items()} for row in rows]
        for path in folders:  # also of what another request has just put there: its flush may still be on the way
            _sync(path)
        return kept

    def _kept(self, value: Any, folders: set[Path]) -> Any:
        if type(value) is not bytes:
            return value
        if len(value) < INLINE_BYTES:
            return {INLINE: base64.b64encode(value).decode("ascii")}
        digest = hashlib.sha256(value).hexdigest()
        path = media_path(self.folder, digest)
        folders.add(path.parent)
        if not _touched(path, len(value)):
            self._make(path.parent)
            _write(path, value)
        return {NAME: digest, BYTES: len(value)}

    def _make(self, folder: Path) -> None:
        if folder not in self._durable or not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            for parent in (folder.parent, folder.parent.parent):
                _sync(parent)
            self._durable.add(folder)


def _touched(path: Path, size: int) -> bool:
    """Is it there? If so it is used now: ``sweep`` goes by a file's time."""
    try:
        os.utime(path)
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}-{next(_counter)}")
    try:
        handle = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_media(value: Any) -> bool:
    """Does this value of a row stand for media?"""
    if type(value) is not dict:
        return False
    return (len(value) == 2 and _named(value)) or (len(value) == 1 and isinstance(value.get(INLINE), str))


def _named(value: Mapping[str, Any]) -> bool:
    return BYTES in value and isinstance(value.get(NAME), str) and bool(_SHA256.fullmatch(value[NAME]))


def content_of(folder: Path, value: Mapping[str, Any]) -> bytes | None:
    """The bytes that a row's value stands for, or ``None`` where their file is missing."""
    if INLINE in value:
        return base64.b64decode(value[INLINE])
    path = media_path(folder, value[NAME])
    for place in (path, _aside(path)):
        with contextlib.suppress(FileNotFoundError):
            return place.read_bytes()
    return None


def shortened(row: Row) -> Row:
    """The row for people: its media by name and size, never their bytes."""
    return {name: _short(value) if type(value) in (dict, bytes) else value for name, value in row.items()}


def _short(value: Any) -> Any:
    if type(value) is dict:
        if not is_media(value) or NAME in value:
            return value
        value = base64.b64decode(value[INLINE])
    return {NAME: hashlib.sha256(value).hexdigest(), BYTES: len(value)}


def sweep(folder: Path, first_open_hour: str | None, now: datetime) -> int:
    """Remove the media files that nothing but Parquet files needs; returns how many.

    ``first_open_hour``: the first (``2026-03-01T14``) that still has segments, or ``None``. Rows name a file within
    ``LONGEST_REQUEST`` after it was written or used again. A service that uses one just now wins: the file is put
    aside, looked at again and put back, or the service finds none and writes it anew.
    """
    removed = 0
    for aside in (folder / MEDIA).glob(f"??/{_GONE}*"):  # of a sweep that was killed
        aside.rename(aside.with_name(aside.name.removeprefix(_GONE)))
    for path in sorted((folder / MEDIA).glob("??/*")):
        try:
            seen = path.stat().st_mtime_ns
        except FileNotFoundError:
            continue
        last = datetime.fromtimestamp(seen / 1e9, UTC) + LONGEST_REQUEST
        if last >= now - LONGEST_REQUEST or (first_open_hour is not None and _hour(last) >= first_open_hour):
            continue
        removed += _removed(path, seen)
    return removed


def _removed(path: Path, seen: int) -> bool:
    if path.name.startswith("."):  # of a service that was killed
        path.unlink(missing_ok=True)
        return False
    aside = _aside(path)
    try:
        path.rename(aside)
    except FileNotFoundError:
        return False
    if aside.stat().st_mtime_ns != seen:
        aside.rename(path)
        return False
    aside.unlink()
    return True


def _aside(path: Path) -> Path:
    return path.with_name(f"{_GONE}{path.name}")


def _hour(moment: datetime) -> str:
    from lepton_platform.serving.ids import HOUR_FORMAT

    return moment.strftime(HOUR_FORMAT)
