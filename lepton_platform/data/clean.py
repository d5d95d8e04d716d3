"""Stage ``clean``: mend what can be mended, set aside what cannot be used. Rows in = rows out + quarantined."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pydantic import Field

from lepton_platform.data.dataset import Dataset
from lepton_platform.data.duplicates import near_duplicates
from lepton_platform.data.impute import Ranges, Rules, impute, to_unit_range
from lepton_platform.data.records import ID, ORIGIN, PROBLEM, TIME, short
from lepton_platform.stage import Params, Progress, StageFailed, StageResult

ROWS, QUARANTINE = "rows", "quarantine"
SAMPLES = 5


class CleanParams(Params):
    """What is too small, too large or too alike. Sizes are in what the task's ``preprocess.size`` counts."""

    min_size: float = Field(2, ge=0, description="Smaller contents are set aside (a text: characters).")
    max_size: float = Field(20_000, gt=0, description="Larger contents are set aside (a text: characters).")
    near_duplicates: bool = Field(True, description="Also set aside what is nearly the same as an earlier row.")
    similarity: float = Field(0.7, gt=0, lt=1, description="Jaccard similarity from which two contents are the same.")
    permutations: int = Field(128, ge=16, le=1024, description="Length of the MinHash signatures.")


class Preprocess(Protocol):
    """The cleaning half of a task's ``preprocess.py``.

    It may also have ``usable(row: Mapping[str, Any]) -> tuple[str, str] | None``: called with the columns of every row
    that has what is required, before its content is mended. A reason (one lower_case word) and a detail set the row
    aside; ``None`` lets it pass. For what no other check sees: boxes, transcripts, columns that contradict each other.
    """

    CONTENT: str  # the column that is learnt from
    LABEL: str | None  # the column that is learnt; None where content has no one label
    LABELS: tuple[str, ...] | None  # what a label can be; None if anything
    REQUIRED: tuple[str, ...]  # columns that must not be null
    GROUP: str  # the column whose values share a split: what is missing is filled from rows of the same group
    IMPUTE: Rules
    RANGES: Ranges

    def normalise(self, content: Any) -> Any:
        """The content mended. Idempotent; the very function that the service runs."""
        ...

    def size(self, content: Any) -> float: ...

    def identity(self, content: Any) -> str:
        """Contents with the same identity are the same for a person."""
        ...

    def shingles(self, content: Any) -> set[str]:
        """The set whose overlap with another's says how alike two contents are."""
        ...


class _Rows:
    """Rows on their way through the checks: who is still in, and why the others are not."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.ids: list[str | None] = table[ID].to_pylist()
        self.feedback = [origin == "feedback" for origin in self.column(ORIGIN)]
        self.refused: dict[int, tuple[str, str]] = {}  # place → reason, detail
        times = table[TIME].cast(pa.int64()).to_pylist()
        # The source before what people sent, then the earlier before the later: nobody's label displaces the source.
        ranks = [(late, time is None, time or 0) for late, time in zip(self.feedback, times, strict=True)]
        self._order = sorted(range(len(ranks)), key=ranks.__getitem__)

    def column(self, name: str | None) -> list[Any]:
        there = name is not None and name in self.table.column_names
        return self.table[name].to_pylist() if there else [None] * self.table.num_rows

    def refuse(self, place: int, reason: str, detail: str) -> None:
        self.refused.setdefault(place, (reason, detail))

    def open(self) -> list[int]:
        """The places of the rows that are still in, those first that have the right to stay."""
        return [place for place in self._order if place not in self.refused]


def clean(
    *, raw: Path, out: Path, params: CleanParams, preprocess: Preprocess, progress: Progress | None = None
) -> StageResult:
    """Leave ``out/rows``, clean, and ``out/quarantine``, as it came with its ``reason`` and ``detail``, in raw's order.

    Of rows that say the same the first stays: the source before feedback, then by time. Where they contradict each
    other in their label none stays, except that feedback never displaces a row of the source.
    """
    rows = _Rows(Dataset(raw).read())
    _malformed(rows, preprocess)
    _unusable(rows, preprocess)
    contents = _mended(rows, preprocess, params)
    identities = {place: preprocess.identity(contents[place]) for place in rows.open()}
    _contradictions(rows, identities, preprocess.LABEL)
    _duplicates(rows, identities)
    if params.near_duplicates:
        _near_duplicates(rows, contents, preprocess, params, progress)
    return _write(rows, contents, out, preprocess)


def _malformed(rows: _Rows, preprocess: Preprocess) -> None:
    """What the source could not read, ids that are not ids, fields that are missing, labels that are none."""
    problems, labels = rows.column(PROBLEM), rows.column(preprocess.LABEL)
    required = {name: rows.column(name) for name in (ID, TIME, *preprocess.REQUIRED)}
    seen: set[str | None] = set()
    for place in rows.open():
        identity, label = rows.ids[place], labels[place]
        missing = [name for name, values in required.items() if values[place] is None]
        if problems[place]:
            rows.refuse(place, "malformed", problems[place])
        elif missing:
            rows.refuse(place, "missing_field", f"no {', '.join(missing)}")
        elif preprocess.LABEL is not None and preprocess.LABELS is not None and label not in preprocess.LABELS:
            rows.refuse(place, "unknown_label", f"{short(label)} is none of {', '.join(preprocess.LABELS)}")
        elif identity in seen:
            rows.refuse(place, "duplicate_id", f"an earlier row has the id {identity}")
        else:
            seen.add(identity)


def _unusable(rows: _Rows, preprocess: Preprocess) -> None:
    """What the task itself objects to."""
    usable: Callable[[Mapping[str, Any]], tuple[str, str] | None] | None = getattr(preprocess, "usable", None)
    if usable is None:
        return
    columns = {name: rows.column(name) for name in rows.table.column_names}
    for place in rows.open():
        if objection := usable({name: values[place] for name, values in columns.items()}):
            rows.refuse(place, *objection)


def _mended(rows: _Rows, preprocess: Preprocess, params: CleanParams) -> dict[int, Any]:
    """Place → content as the model will see it, for the rows whose content can be used."""
    raw, contents = rows.column(preprocess.CONTENT), {}
    for place in rows.open():
        try:
            content = preprocess.normalise(raw[place])
        except ValueError as error:
            rows.refuse(place, "unreadable", str(error))
            continue
        size = preprocess.size(content)
        if not size:
            rows.refuse(place, "empty", "nothing is left when it is cleaned")
        elif size < params.min_size:
            rows.refuse(place, "too_small", f"size {size:g} is below {params.min_size:g}")
        elif size > params.max_size:
            rows.refuse(place, "too_large", f"size {size:g} is above {params.max_size:g}")
        else:
            contents[place] = content
    return contents


def _contradictions(rows: _Rows, identities: Mapping[int, str], label: str | None) -> None:
    if label is None:
        return
    labels = rows.column(label)
    alike: defaultdict[str, list[int]] = defaultdict(list)
    for place in rows.open():
        alike[identities[place]].append(place)
    for places in alike.values():
        if len({labels[place] for place in places}) == 1:
            continue
        source = [place for place in places if not rows.feedback[place]]
        settled = {labels[place] for place in source}
        for place in places:
            if len(settled) == 1 and labels[place] in settled:
                continue  # the source agrees with itself; whoever says otherwise is set aside alone
            other = next(p for p in places if labels[p] != labels[place])
            rows.refuse(place, "contradiction", f"labelled {labels[place]}, and {labels[other]} in {rows.ids[other]}")


def _duplicates(rows: _Rows, identities: Mapping[int, str]) -> None:
    first: dict[str, int] = {}
    for place in rows.open():
        of = first.setdefault(identities[place], place)
        if of != place:
            rows.refuse(place, "duplicate", f"the same as {rows.ids[of]}")


def _near_duplicates(
    rows: _Rows, contents: Mapping[int, Any], preprocess: Preprocess, params: CleanParams, progress: Progress | None
) -> None:
    places, labels = rows.open(), rows.column(preprocess.LABEL)
    shingles = [preprocess.shingles(contents[place]) for place in places]
    for like in near_duplicates(shingles, params.similarity, params.permutations, progress):
        place, of = places[like.place], places[like.of]
        other = "" if labels[place] == labels[of] else f", which is labelled {labels[of]}"
        rows.refuse(place, "near_duplicate", f"{like.similarity:.2f} like {rows.ids[of]}{other}")


def _write(rows: _Rows, contents: Mapping[int, Any], out: Path, preprocess: Preprocess) -> StageResult:
    table, refused = rows.table, rows.refused
    kept = [place for place in range(table.num_rows) if place not in refused]
    aside = sorted(refused)
    reasons = Counter(reason for reason, _ in refused.values())
    if not kept:
        said = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        first = [{"id": rows.ids[place], "detail": refused[place][1]} for place in aside[:SAMPLES]]
        raise StageFailed(
            f"No row can be used: {said}. The first: {first[0]['detail'] if first else 'the table is empty'}.",
            {"reasons": dict(reasons), "sample": first},
        )
    clean_table, filled = _clean_table(table.take(kept), [contents[place] for place in kept], preprocess)
    Dataset(out / ROWS).write(clean_table)
    quarantine = table.take(pa.array(aside, pa.int64()))
    for at, name in enumerate(("reason", "detail")):
        quarantine = quarantine.append_column(name, pa.array([refused[place][at] for place in aside], pa.string()))
    Dataset(out / QUARANTINE).write(quarantine)
    _check_conserved(rows.ids, out)
    before = table[preprocess.CONTENT].to_pylist()
    mended = sum(before[place] != contents[place] for place in kept)
    metadata = {
        "reasons": dict(sorted(reasons.items())),
        "imputed_cells": filled,
        "quarantine_md": _sample_md(rows, aside),
    }
    return StageResult(len(kept), {"quarantined_rows": len(aside), "mended_rows": mended}, metadata)


def _clean_table(table: pa.Table, contents: list[Any], preprocess: Preprocess) -> tuple[pa.Table, dict[str, int]]:
    at, field = table.column_names.index(preprocess.CONTENT), table.schema.field(preprocess.CONTENT)
    table = table.set_column(at, field, pa.array(contents, field.type))
    if PROBLEM in table.column_names:
        table = table.drop_columns([PROBLEM])
    groups = _groups(table, preprocess.GROUP) if preprocess.IMPUTE else []
    table, filled = impute(table, preprocess.IMPUTE, TIME, groups)
    return to_unit_range(table, preprocess.RANGES), filled


def _groups(table: pa.Table, group: str) -> list[tuple[bool, Any]]:
    """A group a row; without one a row is its own. Feedback is apart: it alters no row of the source, so no test row."""
    missing = [None] * table.num_rows
    names, origins = (table[c].to_pylist() if c in table.column_names else missing for c in (group, ORIGIN))
    ids = table[ID].to_pylist()
    return [(o == "feedback", i if n is None else n) for n, o, i in zip(names, origins, ids, strict=True)]


def _check_conserved(ids: list[str | None], out: Path) -> None:
    """Rows in = rows out + quarantined, as they lie on the disk. Anything else is a fault of this stage."""
    left = Counter(_ids(out / ROWS)) + Counter(_ids(out / QUARANTINE))
    if left != Counter(ids):
        raise RuntimeError(f"clean took in {len(ids)} rows and left {left.total()}; it must not lose any.")


def _ids(dataset: Path) -> list[str | None]:
    return Dataset(dataset).read([ID])[ID].to_pylist()


def _sample_md(rows: _Rows, aside: list[int]) -> str:
    """A few rows of every reason, as a Markdown table for the UI."""
    by_reason: defaultdict[str, list[int]] = defaultdict(list)
    for place in aside:
        by_reason[rows.refused[place][0]].append(place)
    lines = ["| reason | rows | for example | why |", "|---|---|---|---|"]
    for reason, places in sorted(by_reason.items()):
        for place in places[:SAMPLES]:
            why = " ".join(rows.refused[place][1].split()).replace("|", "\\|")
            lines.append(f"| {reason} | {len(places)} | {rows.ids[place]} | {why} |")
    return "\n".join(lines)
