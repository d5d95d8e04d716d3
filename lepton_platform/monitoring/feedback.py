"""Labelled feedback becomes rows of the next training set: predictions and labels joined into ``labels.jsonl``.

What is true may be a label or any other JSON value, such as boxes; media of the inputs are ``{"$base64": …}``. The file
is versioned with the data. It holds one JSON object a line, in the order of the ids, and the same feedback
always leaves the same bytes, whatever the order in which it came. What is in the file stays there, though the logs
that it came from are pruned one day.
"""

import base64
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lepton_platform.monitoring.words import Said, Word, last_words

ID, TIME, AT = "id", "event_time", "at"
LABEL = "label"  # what is true, where the task says nothing else
BASE64 = "$base64"


@dataclass(frozen=True)
class Exported:
    """What one export did. ``total``: lines in the file; ``contradicted``: ids that were given more than one truth.

    ``missing``: ids whose input the log no longer has, as when a media file was deleted; they wait like unknown ones.
    """

    added: int
    changed: int
    contradicted: int
    unknown: int
    total: int
    missing: int = 0


def words_of(feedback: pa.Table, truth: str = LABEL) -> Iterator[Word]:
    """The rows of ``feedback``: columns ``id`` (of the answer), ``at``, that of the ``truth``, perhaps ``feedback_id``."""
    if not feedback.num_rows:
        return
    own = feedback["feedback_id"].to_pylist() if "feedback_id" in feedback.column_names else [""] * feedback.num_rows
    columns = (feedback[name].to_pylist() for name in (ID, AT, truth))
    yield from (Word(*row) for row in zip(*columns, own, strict=True))


def export_labels(
    *,
    predictions: Iterable[pa.Table],
    feedback: pa.Table,
    labels: Path,
    inputs: Sequence[str],
    truth: str = LABEL,
) -> Exported:
    """Bring ``labels`` (``data/<task>/labels.jsonl``) up to date with the logs.

    ``predictions``: pieces of the log with ``id``, ``at`` and those of ``inputs`` that the log has; one at a time is
    held in memory. A line is ``{"id", "event_time", "<truth>"}`` and the input's columns.
    ``feedback``: as for ``words_of``. Feedback on an id that no log knows is counted and waits: it is taken as soon
    as its prediction is read. Written beside the file and renamed; not touched where nothing is new.
    """
    said = last_words(words_of(feedback, truth))
    lines, foreign = _read(labels)
    added = changed = 0
    found: set[str] = set()
    missing: set[str] = set()
    for row in _asked_for(predictions, said, inputs):
        identity = row[ID]
        if any(value is None for value in row.values()):
            missing.add(identity)
            continue
        found.add(identity)
        known = json.loads(lines[identity]) if identity in lines else {}  # a column that people added by hand stays
        line = _dump({**known, **_line(row), truth: said[identity].truth})
        added += identity not in lines
        changed += identity in lines and lines[identity] != line
        lines[identity] = line
    for identity in set(said) & set(lines) - found:  # the log was pruned, the line is here: a later label still counts
        line = _dump({**json.loads(lines[identity]), truth: said[identity].truth})
        changed += lines[identity] != line
        lines[identity] = line
        found.add(identity)
    if added or changed:
        _write(labels, [*foreign, *(lines[identity] for identity in sorted(lines))])
    contradicted = sum(word.contradicted for identity, word in said.items() if identity in found)
    unknown = len(set(said) - found - missing)
    return Exported(added, changed, contradicted, unknown, len(lines) + len(foreign), len(missing - found))


def _dump(value: Mapping[str, Any]) -> str:
    """One line of JSON, readable where it can be: lone surrogates stay escaped, UTF-8 has no place for them."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if text.isascii() or text.isprintable() else json.dumps(value, sort_keys=True)


def _asked_for(
    predictions: Iterable[pa.Table], said: Mapping[str, Said], inputs: Sequence[str]
) -> Iterable[dict[str, Any]]:
    wanted = pa.array(sorted(said), pa.string())
    for piece in predictions:
        piece = piece.select([ID, AT, *(name for name in inputs if name in piece.column_names)])
        yield from piece.filter(pc.is_in(piece[ID], value_set=wanted)).to_pylist()


def _line(row: Mapping[str, Any]) -> dict[str, Any]:
    at = row[AT].astimezone(UTC).isoformat(timespec="microseconds")
    return {**{name: _plain(value) for name, value in row.items() if name != AT}, TIME: at}


def _plain(value: Any) -> Any:
    return {BASE64: base64.b64encode(value).decode("ascii")} if isinstance(value, bytes) else value


def _read(path: Path) -> tuple[dict[str, str], list[str]]:
    """Lines by id, and those that are not ours to read (written by hand, say): they are kept as they are, on top."""
    lines: dict[str, str] = {}
    foreign: list[str] = []
    text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.is_file() else ""
    for line in filter(str.strip, text.split("\n")):
        try:
            identity = json.loads(line)[ID]
        except (ValueError, TypeError, KeyError, RecursionError):
            identity = None
        if not isinstance(identity, str):
            foreign.append(line)
            continue
        if identity in lines:
            foreign.append(lines[identity])  # whoever reads the file takes an id's last line
        lines[identity] = line
    return lines, foreign


def _write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.new-{os.getpid()}")
    with part.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as stream:
        stream.writelines(f"{line}\n" for line in lines)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, path)
