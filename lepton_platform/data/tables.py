"""Tables that people have: CSV, Parquet, JSON Lines, here or behind any address that fsspec understands.

What is wrong with one row costs that row only. What makes the file unusable is a ``StageFailed`` that names it.
"""

import csv
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lepton_platform.data.records import short
from lepton_platform.settings import get_settings
from lepton_platform.stage import StageFailed

_LONGEST_FIELD = 2**31 - 1
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")


@dataclass(frozen=True)
class Row:
    """One row of a file. ``values`` holds the columns asked for; ``problem`` says why it could not be read."""

    where: str  # "reviews.csv row 12"
    values: dict[str, Any]
    problem: str | None = None


def located(path: str) -> str:
    """Where a path of ``params.yaml`` lies: relative ones count from the workspace, addresses are left alone."""
    return path if "://" in path or Path(path).is_absolute() else str(get_settings().path(path))


def is_local(path: str) -> bool:
    return "://" not in path


def read_rows(
    path: str, columns: Sequence[str], delimiter: str | None = None, encoding: str = "utf-8"
) -> Iterator[Row]:
    """The rows of a table, each with those of ``columns`` that it has; every column must be in the file.

    The kind of file is told by its name: .csv, .tsv, .jsonl, .ndjson, .json, .parquet, also compressed (.gz, .bz2 …).
    """
    name = path
    while name.endswith(_COMPRESSED):
        name = name.rsplit(".", 1)[0]
    suffix = name.rsplit(".", 1)[-1].lower()
    with _opened(path) as stream:
        try:
            if suffix in {"csv", "tsv", "txt"}:
                yield from _csv_rows(stream, path, columns, delimiter or ("\t" if suffix == "tsv" else ","), encoding)
            elif suffix in {"jsonl", "ndjson", "json"}:
                yield from _json_rows(stream, path, columns)
            elif suffix in {"parquet", "pq"}:
                yield from _parquet_rows(stream, path, columns)
            else:
                raise StageFailed(f"{path}: its name does not tell its kind; call it .csv, .tsv, .jsonl or .parquet.")
        except (OSError, EOFError, UnicodeError, zlib.error, lzma.LZMAError) as error:
            raise StageFailed(f"{path} ends or breaks off in the middle ({type(error).__name__}: {error}).") from None


def _opened(path: str) -> IO[bytes]:
    import fsspec

    try:
        return fsspec.open(located(path), "rb", compression="infer").open()  # pyright: ignore[reportReturnType]
    except FileNotFoundError:
        raise StageFailed(f"There is no file {path}; relative paths count from the workspace.") from None
    except IsADirectoryError:
        raise StageFailed(f"{path} is a folder; a file is needed here.") from None
    except Exception as error:  # each of fsspec's stores has errors of its own
        raise StageFailed(f"{path} cannot be opened ({type(error).__name__}: {error}).") from None


def _require(columns: Sequence[str], there: Sequence[str], path: str) -> None:
    missing = [name for name in columns if name not in there]
    if missing:
        raise StageFailed(
            f"{path} has no column {', '.join(map(repr, missing))}. It has: {', '.join(map(repr, there)) or 'none'}. "
            "Name the right ones in params.yaml.",
            {"file": path, "missing": missing, "columns": list(there)},
        )


def _csv_rows(stream: IO[bytes], path: str, columns: Sequence[str], delimiter: str, encoding: str) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        text = io.TextIOWrapper(stream, encoding=encoding, errors="surrogateescape", newline="")
    except LookupError:
        raise StageFailed(f"There is no encoding {encoding!r}; utf-8, cp1252 and latin-1 are usual.") from None
    reader = csv.reader(text, delimiter=delimiter)
    header = [name.strip().lstrip("\ufeff") for name in _next_line(reader, path) or []]
    _require(columns, header, path)
    twice = [name for name in columns if header.count(name) > 1]
    if twice:
        raise StageFailed(f"{path} has the column {twice[0]!r} twice: which one is meant cannot be told.")
    places = {name: header.index(name) for name in columns}
    number = 0
    while True:
        number += 1
        where = f"{Path(path).name} row {number}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(where, {}, f"not CSV: {error}")
            continue
        if cells:
            yield _csv_row(cells, places, len(header), where, encoding)


def _next_line(reader: Any, path: str) -> list[str] | None:
    try:
        return next(reader, None)
    except (csv.Error, OSError, EOFError) as error:
        raise StageFailed(f"{path} cannot be read as CSV: {error}.") from None


def _csv_row(cells: list[str], places: dict[str, int], width: int, where: str, encoding: str) -> Row:
    values: dict[str, Any] = {name: cells[at] if at < len(cells) else None for name, at in places.items()}
    if any("\udc80" <= c <= "\udcff" for v in values.values() if v and not v.isascii() for c in v):
        return Row(where, values, f"bytes that are not {encoding}: is `encoding` right?")
    if len(cells) != width:
        return Row(where, values, f"{len(cells)} cells under {width} headings")
    return Row(where, values)


def _json_rows(stream: IO[bytes], path: str, columns: Sequence[str]) -> Iterator[Row]:
    seen: set[str] = set()
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        if number == 1 and line.lstrip().startswith(b"["):
            raise StageFailed(f"{path} is one JSON array; one object a line is needed (jq -c '.[]' makes it so).")
        row = json_row(line, f"{Path(path).name} line {number}")
        seen.update(row.values)
        yield Row(row.where, {name: row.values.get(name) for name in columns}, row.problem)
    if seen:
        _require(columns, sorted(seen), path)


def json_row(line: bytes, where: str) -> Row:
    """One line of JSON Lines as a row with all of its fields."""
    try:
        found = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        return Row(where, {}, f"not JSON: {said}: {short(line.decode('utf-8', 'replace').strip())}")
    if not isinstance(found, dict):
        return Row(where, {}, f"not an object but {short(found)}")
    return Row(where, found)


def _parquet_rows(stream: IO[bytes], path: str, columns: Sequence[str]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(stream)
        _require(columns, file.schema_arrow.names, path)
        names = _class_names(file.schema_arrow.metadata)
        number = 0
        for batch in file.iter_batches(columns=list(columns)):
            for values in batch.to_pylist():
                number += 1
                for column, classes in names.items():
                    if isinstance(at := values.get(column), int) and 0 <= at < len(classes):
                        values[column] = classes[at]
                yield Row(f"{Path(path).name} row {number}", values)
    except (pa.ArrowException, OSError) as error:
        raise StageFailed(f"{path} cannot be read as Parquet: {error}.") from None


def _class_names(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """Names of numbered classes, column by column, where a model hub's Parquet carries them."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: list(f["names"]) for name, f in features.items() if isinstance(f, dict) and f.get("names")}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
