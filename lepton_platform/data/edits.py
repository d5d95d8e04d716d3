"""Update and delete rows by id: a new version is written beside and renamed; nothing changes in place.

Two ways, the same rules. ``update`` and ``delete`` act on a table that people keep themselves. A stage's table would
be made anew without them, so its edits are noted in a journal (``note_updates``, ``note_deletions``), one JSON object
a line, which the stage ``raw`` applies whenever it runs:

    {"op": "update", "id": "3f…", "set": {"label": "rotten"}}
    {"op": "delete", "id": "9a…"}
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from lepton_platform.data.dataset import Dataset
from lepton_platform.data.records import ID, ORIGIN, PROBLEM, SUPERSEDED, parse_time, short, storable
from lepton_platform.stage import StageFailed

Changes = Mapping[str, Mapping[str, Any]]  # id → column → new value
_FIXED = (ID, ORIGIN, PROBLEM)


@dataclass(frozen=True)
class Applied:
    """What a journal did to a table; ``unmatched`` are ids that the table does not hold."""

    updated: int = 0
    deleted: int = 0
    unmatched: tuple[str, ...] = ()


def update(dataset: Path, changes: Changes) -> int:
    """A new version of the data set with those cells changed, rows in their order; returns how many rows changed.

    ``StageFailed``, and nothing written, if an id or a column is unknown or a value does not fit.
    """
    _recover(dataset)
    table = Dataset(dataset).read()
    _known(table, changes, dataset)
    _replace(dataset, changed(table, changes))
    return len(changes)


def delete(dataset: Path, ids: Sequence[str]) -> int:
    """A new version of the data set without those rows; ``StageFailed``, and nothing written, if one is unknown."""
    _recover(dataset)
    table = Dataset(dataset).read()
    _known(table, ids, dataset)
    _replace(dataset, without(table, ids))
    return len(set(ids))


def note_updates(journal: Path, dataset: Path, changes: Changes) -> int:
    """Check the changes against the stage's table and write them down; the stage applies them when it runs next."""
    table = Dataset(dataset).read()
    _known(table, changes, dataset)
    changed(table, changes)  # raises for what does not fit
    _append(journal, ({"op": "update", "id": i, "set": dict(values)} for i, values in changes.items()))
    return len(changes)


def note_deletions(journal: Path, dataset: Path, ids: Sequence[str]) -> int:
    """Check that the stage's table holds the ids and write down that they go."""
    unique = list(dict.fromkeys(ids))
    _known(Dataset(dataset).read([ID]), unique, dataset)
    _append(journal, ({"op": "delete", "id": i} for i in unique))
    return len(unique)


def apply_edits(table: pa.Table, journal: Path) -> tuple[pa.Table, Applied]:
    """The table as the journal wants it, line after line. No journal, no change.

    An id that the table does not hold is counted and no error: a smaller sample of the source holds fewer rows.
    """
    changes, deleted = _read(journal)
    if not changes and not deleted:
        return table, Applied()
    there = set(table[ID].to_pylist())
    unmatched = tuple(sorted((set(deleted) | set(changes)) - there))
    changes = {i: values for i, values in changes.items() if i in there}
    gone = {i for i in there if i.split(SUPERSEDED)[0] in deleted}  # with all that the row ever said
    return without(changed(table, changes), gone), Applied(len(changes), len(gone), unmatched)


def changed(table: pa.Table, changes: Changes) -> pa.Table:
    """The table with those cells changed. A row that a person corrected has no problem any more."""
    at = {identity: row for row, identity in enumerate(table[ID].to_pylist())}
    wanted: dict[str, dict[int, Any]] = {}
    for identity, values in changes.items():
        for column, value in values.items():
            _editable(table, column, identity)
            wanted.setdefault(column, {})[at[identity]] = value
        if values and PROBLEM in table.column_names:
            wanted.setdefault(PROBLEM, {})[at[identity]] = None
    for column, cells in wanted.items():
        field = table.schema.field(column)
        whole = table[column].to_pylist()
        for row, value in cells.items():
            whole[row] = _fitting(value, field, table[ID][row].as_py())
        table = table.set_column(table.column_names.index(column), field, pa.array(whole, field.type))
    return table


def without(table: pa.Table, ids: Iterable[str]) -> pa.Table:
    gone = set(ids)
    return table.filter(pa.array([i not in gone for i in table[ID].to_pylist()], pa.bool_()))


def _editable(table: pa.Table, column: str, identity: str) -> None:
    if column in _FIXED or column not in table.column_names:
        can = ", ".join(name for name in table.column_names if name not in _FIXED)
        why = "is not to be changed" if column in _FIXED else "is no column of this table"
        raise StageFailed(f"Row {identity}: '{column}' {why}. What can be changed: {can}.")


def _fitting(value: Any, field: pa.Field, identity: str) -> Any:
    try:
        if value is not None and pa.types.is_timestamp(field.type):
            value = parse_time(value)
        value = storable(value) if isinstance(value, str) else value
        return pa.array([value], field.type)[0].as_py()
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise StageFailed(f"Row {identity}: {short(value)} does not fit '{field.name}' ({field.type}).") from None


def _known(table: pa.Table, ids: Iterable[str], dataset: Path) -> None:
    unknown = sorted(set(ids) - set(table[ID].to_pylist()))
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise StageFailed(
            f"{dataset.name} has no row {', '.join(unknown[:5])}{more}. Nothing was changed. "
            "`lepton data query` shows the ids there are.",
            {"unknown_ids": unknown[:100]},
        )


def _recover(dataset: Path) -> None:
    """Put back the version that an edit, killed between its two renames, had moved aside."""
    old = dataset.with_name(f".{dataset.name}.replaced")
    if old.is_dir() and not dataset.exists():
        old.rename(dataset)
    shutil.rmtree(old, ignore_errors=True)


def _replace(dataset: Path, table: pa.Table) -> None:
    """Put the table in the data set's place; what it held stays aside until the new version stands."""
    fresh, old = (dataset.with_name(f".{dataset.name}.{kind}") for kind in ("edited", "replaced"))
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(dataset, fresh, ignore=shutil.ignore_patterns("part-*.parquet"))  # what else lies there stays
    Dataset(fresh).write(table)
    dataset.rename(old)
    fresh.rename(dataset)
    shutil.rmtree(old)


def _append(journal: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """All of the lines or none: a kill leaves no half of one. Of two at a time the second waits."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line, ensure_ascii=True, sort_keys=True, default=str) + "\n" for line in lines)
    with _alone(journal.parent):
        before = journal.read_bytes() if journal.exists() else b""
        if before and not before.endswith(b"\n"):
            before += b"\n"
        part = journal.with_name(f".{journal.name}.new")
        with part.open("wb") as stream:
            stream.write(before + text.encode("ascii"))
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(journal)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One writer at a time in the folder; no file is made for it, and the kernel frees it on a kill."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _read(journal: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Changes by id, later ones over earlier ones, and the ids to delete, in their order."""
    changes: dict[str, dict[str, Any]] = {}
    deleted: dict[str, None] = {}
    if not journal.is_file():
        return changes, []
    for number, line in enumerate(journal.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        edit = _edit(line, f"{journal.name} line {number}")
        if edit["op"] == "delete":
            deleted[edit[ID]] = None
        else:
            changes.setdefault(edit[ID], {}).update(edit["set"])
    return changes, list(deleted)


def _edit(line: bytes, where: str) -> dict[str, Any]:
    # An edit that cannot be read stops the stage: someone wanted a row gone, and it would silently stay.
    try:
        edit = json.loads(line)
        whole = isinstance(edit[ID], str) and (edit["op"] == "delete" or (edit["op"] == "update" and dict(edit["set"])))
    except (ValueError, TypeError, KeyError, RecursionError):
        whole = False
    if not whole:
        raise StageFailed(
            f'{where} is not an edit: {{"op": "update", "id": …, "set": {{column: value}}}} or '
            f'{{"op": "delete", "id": …}} is needed. It says: {short(line.decode("utf-8", "replace"))}'
        )
    return edit
