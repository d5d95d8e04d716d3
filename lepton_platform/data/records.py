"""A record on its way into a table: an id, a time, the task's own columns; what is wrong with it goes along."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

Record = dict[str, Any]

ID, TIME = "id", "event_time"
ORIGIN = "origin"  # "source", or "feedback" for labels that came in through the service
PROBLEM = "problem"  # why no whole record could be made of it; null where one could
SUPERSEDED = "-superseded-"  # what an id gets whose row was replaced by a later one
HEAD = [pa.field(ID, pa.string()), pa.field(TIME, pa.timestamp("us", tz="UTC"))]
TAIL = [pa.field(ORIGIN, pa.string()), pa.field(PROBLEM, pa.string())]

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_SPAN_S = 20 * 365 * 86_400


def raw_schema(columns: pa.Schema) -> pa.Schema:
    """The schema of the raw table: id and time, the task's ``columns``, origin and problem."""
    return pa.schema([*HEAD, *columns, *TAIL])


def content_id(*parts: str) -> str:
    """64 bits of SHA-256 over the parts, as 16 hex digits."""
    whole = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(whole).hexdigest()[:16]


class ContentIds:
    """Ids made of content: the same record always has the same one, a second copy gets ``-2``, a third ``-3``."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def __call__(self, *parts: str) -> str:
        identity = content_id(*parts)
        self._seen[identity] += 1
        copies = self._seen[identity]
        return identity if copies == 1 else f"{identity}-{copies}"


def order_time(position: int, step: timedelta, start: datetime = _EPOCH) -> datetime:
    """A time for a record that has none, where the order of the source means something."""
    return start + position * step


def hashed_time(identity: str) -> datetime:
    """A time for a record that has none and whose place in a file may tell its label.

    Spread over twenty years by the id's hash: it knows neither the label nor what else is in the file.
    """
    return _EPOCH + timedelta(seconds=int(content_id("time", identity), 16) % _SPAN_S)


def parse_time(value: Any, pattern: str | None = None) -> datetime:
    """A time in UTC from a datetime, seconds since 1970, or text (ISO 8601, or ``pattern`` for strptime).

    Without a zone it is taken for UTC. ``ValueError`` says what it could not read.
    """
    try:
        if isinstance(value, bool) or value is None:
            raise ValueError
        if isinstance(value, datetime):
            found = value
        elif isinstance(value, date):
            found = datetime(value.year, value.month, value.day)
        elif isinstance(value, int | float):
            found = datetime.fromtimestamp(value, UTC)
        else:
            text = str(value).strip()
            found = datetime.strptime(text, pattern) if pattern else datetime.fromisoformat(text)
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        return found.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{short(value)} is not a time") from None


def short(value: Any, length: int = 60) -> str:
    """A value for an error message: one line, cut where it is long."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= length else f"{text[:length]}…"


def storable(text: str) -> str:
    """Text that UTF-8 can hold: surrogate pairs joined, lone ones replaced."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def to_table(records: Sequence[Record], schema: pa.Schema) -> pa.Table:
    """The records as rows (N, columns of ``schema``), in their order.

    A value that a column cannot hold becomes null and is named in the row's problem: one bad cell costs neither its
    row nor its table.
    """
    problems: list[list[str]] = [[r[PROBLEM]] if r.get(PROBLEM) else [] for r in records]
    columns = {f.name: _column([r.get(f.name) for r in records], f, problems) for f in schema if f.name != PROBLEM}
    said = ["; ".join(map(storable, row)) or None for row in problems]
    if PROBLEM in schema.names:
        columns[PROBLEM] = pa.array(said, pa.string())
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _column(values: list[Any], field: pa.Field, problems: list[list[str]]) -> pa.Array:
    values = [storable(v) if isinstance(v, str) else v for v in values]
    try:
        return pa.array(values, field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    kept: list[Any] = []
    for value, row in zip(values, problems, strict=True):
        try:
            pa.array([value], field.type)
            kept.append(value)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            kept.append(None)
            row.append(f"{field.name}: {short(value)} is not of type {field.type}")
    return pa.array(kept, field.type)


def as_text(value: Any, field: str) -> str | None:
    """``value`` if it is text or nothing; ``ValueError`` names the field otherwise."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        return None
    raise ValueError(f"{field}: {short(value)} is not text")


def as_label(value: Any, names: Mapping[str, str], field: str) -> str | None:
    """A class's name from what a file says (1, "pos", true …); what ``names`` does not know stays as it is."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):  # True and False are ints too
        value = str(value).lower()
    text = as_text(value, field)
    if text is None:
        return None
    return names.get(text.strip(), text.strip())


def keep_groups(groups: Sequence[str | None], max_groups: int | None, max_rows: int | None) -> list[bool]:
    """Which rows stay when only so many groups or rows are wanted: whole groups, in the order of their hash.

    A group's place does not depend on the other groups, so a larger sample holds the smaller one. Rows without a
    group stay: they are few, and something is wrong with them.
    """
    if max_groups is None and max_rows is None:
        return [True] * len(groups)
    sizes = Counter(group for group in groups if group is not None)
    chosen: set[str] = set()
    rows = 0
    for group in sorted(sizes, key=lambda g: (content_id("sample", g), g)):
        if max_groups is not None and len(chosen) == max_groups:
            break
        if max_rows is not None and rows + sizes[group] > max_rows:
            break
        chosen.add(group)
        rows += sizes[group]
    return [group is None or group in chosen for group in groups]
