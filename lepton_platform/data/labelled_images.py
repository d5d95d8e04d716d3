"""Pictures with one label each, as people have them: a folder a label, or a table that names or holds the pictures.

What is wrong with one picture costs that picture only, by its ``problem``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lepton_platform.data.annotations import SUFFIXES
from lepton_platform.data.records import short
from lepton_platform.data.tables import Row, located, read_rows
from lepton_platform.stage import StageFailed


@dataclass(frozen=True)
class Labelled:
    """``data``: the file's bytes. ``values``: the other columns that were asked for. ``where``: for a person to find it."""

    where: str
    data: bytes | None
    label: Any
    values: dict[str, Any]
    problem: str | None = None


def pictures_by_label(folder: str) -> list[tuple[str, str, Path]]:
    """(label, name, file) of ``folder/<label>/…/<picture>``, sorted; the name is the path within ``folder``."""
    root = Path(located(folder))
    found = sorted(path for path in root.glob("*/**/*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise StageFailed(f"{folder} holds no <label>/<picture>, with pictures in {', '.join(SUFFIXES)}.")
    names = [path.relative_to(root) for path in found]
    return [(name.parts[0], name.as_posix(), path) for name, path in zip(names, found, strict=True)]


def manifest(
    paths: Sequence[str],
    image: str,
    label: str,
    others: Sequence[str] = (),
    pictures: str = "",
    delimiter: str | None = None,
) -> Iterator[Labelled]:
    """The rows of CSV, JSON Lines or Parquet files whose column ``image`` has a picture's bytes, or its path.

    Paths count from the folder ``pictures``. Bytes come as a binary column or as a model hub's struct of ``bytes``
    and ``path``.
    """
    folder = Path(located(pictures)) if pictures else None
    columns = list(dict.fromkeys((image, label, *others)))
    for path in paths:
        for row in read_rows(path, columns, delimiter):
            yield _labelled(row, image, label, others, folder)


def _labelled(row: Row, image: str, label: str, others: Sequence[str], folder: Path | None) -> Labelled:
    values = {name: row.values.get(name) for name in others}
    data, problem = None, row.problem
    if problem is None:
        try:
            data = _bytes(row.values.get(image), folder)
        except (ValueError, OSError) as error:
            problem = f"{image}: {error}"
    said = f"{row.where}: {problem}" if problem else None
    return Labelled(row.where, data, row.values.get(label), values, said)


def _bytes(value: Any, folder: Path | None) -> bytes | None:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if value is None or isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError(f"{short(value)} is neither a picture's bytes nor its path")
    if folder is None:
        raise ValueError("it is a path; set source.pictures to the folder that paths count from")
    if ".." in PurePosixPath(value).parts or PurePosixPath(value).is_absolute():
        raise ValueError(f"{short(value)} leads out of the folder source.pictures")
    if not (folder / value).is_file():
        raise ValueError(f"there is no picture {short(value)} in the folder source.pictures")
    return (folder / value).read_bytes()
