"""Media that people have beside or inside a table: its rows hold a file's bytes, or name it.

What is wrong with one row costs that row only, by its ``problem``.
"""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lepton_platform.data.records import short
from lepton_platform.data.tables import Row, located, read_rows

Content = bytes | Path  # what a row holds, or the file that it names


@dataclass(frozen=True)
class Medium:
    """What messages call a file of it, and the setting with the folder that paths count from."""

    noun: str  # "picture"
    setting: str  # "source.pictures"


@dataclass(frozen=True)
class MediaRow:
    """``content`` is null where the table says nothing; ``name``: the file's, where the table tells it."""

    where: str
    content: Content | None
    name: str | None
    values: dict[str, Any]
    problem: str | None = None


def media_rows(
    paths: Sequence[str],
    column: str,
    others: Sequence[str],
    medium: Medium,
    folder: str = "",
    delimiter: str | None = None,
) -> Iterator[MediaRow]:
    """The rows of CSV, JSON Lines or Parquet files whose ``column`` has a file's bytes, or its path in ``folder``.

    Bytes come as a binary column or as a model hub's struct of ``bytes`` and ``path``. ``values``: the columns ``others``.
    No file is opened yet: who wants few of the rows reads few.
    """
    root = Path(located(folder)) if folder else None
    for path in paths:
        for row in read_rows(path, list(dict.fromkeys((column, *others))), delimiter):
            yield _media_row(row, column, others, medium, root)


def file_within(folder: Path | None, name: str, medium: Medium) -> Path:
    """The file ``name`` of the folder; ``ValueError`` where there is none, or where it leads out of the folder."""
    if folder is None:
        raise ValueError(f"it is a path; set {medium.setting} to the folder that paths count from")
    if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute() or "\0" in name:
        raise ValueError(f"{short(name)} leads out of the folder {medium.setting}")
    path = folder / name
    try:
        there = path.is_file()
    except OSError:  # a name that is longer than names may be
        there = False
    if not there:
        raise ValueError(f"there is no {medium.noun} {short(name)} in the folder {medium.setting}")
    return path


def read_content(content: Content, max_bytes: int | None = None, noun: str = "file") -> bytes:
    """The bytes; ``ValueError`` where there are more than ``max_bytes`` (told before a file is read) or none can be had."""
    try:
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if max_bytes is not None and size > max_bytes:
            raise ValueError(
                f"the {noun} has {size / (1 << 20):.1f} MiB; at most {max_bytes / (1 << 20):g} MiB are read"
            )
        return content if isinstance(content, bytes) else content.read_bytes()
    except OSError as error:
        raise ValueError(f"the {noun} cannot be read ({error.strerror or error})") from None


def as_bytes(value: Any, field: str, noun: str) -> bytes:
    """The bytes of a file in a line of JSON, ``{"$base64": "…"}``; ``ValueError`` names the field otherwise."""
    if isinstance(value, bytes):
        return value
    text = value.get("$base64") if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(text, str):
        raise ValueError(f'{field}: the bytes of a {noun} are needed, as {{"$base64": "…"}}')
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError(f"{field}: what stands under $base64 is not base64") from None


def _media_row(row: Row, column: str, others: Sequence[str], medium: Medium, root: Path | None) -> MediaRow:
    values = {name: row.values.get(name) for name in others}
    content = name = None
    problem = row.problem
    if problem is None:
        try:
            content, name = _content(row.values.get(column), medium, root)
        except ValueError as error:
            problem = f"{column}: {error}"
    return MediaRow(row.where, content, name, values, f"{row.where}: {problem}" if problem else None)


def _content(value: Any, medium: Medium, root: Path | None) -> tuple[Content | None, str | None]:
    name = None
    if isinstance(value, dict):
        name = value.get("path") if isinstance(value.get("path"), str) else None
        value = value.get("bytes") or value.get("path")
    if value is None or isinstance(value, bytes):
        return value, name
    if not isinstance(value, str) or not value:
        raise ValueError(f"{short(value)} is neither a {medium.noun}'s bytes nor its path")
    return file_within(root, value, medium), value
