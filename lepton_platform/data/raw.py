"""Stage ``raw``: records as they come from the source, labelled feedback and people's edits, as one table."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pydantic import ConfigDict, Field, ValidationError

from lepton_platform.data.dataset import Dataset
from lepton_platform.data.edits import apply_edits
from lepton_platform.data.records import (
    ID,
    ORIGIN,
    PROBLEM,
    SUPERSEDED,
    TIME,
    Record,
    content_id,
    keep_groups,
    parse_time,
    raw_schema,
    short,
    to_table,
)
from lepton_platform.data.tables import json_row
from lepton_platform.stage import Params, StageFailed, StageResult


class SourceParams(Params):
    """What every source can be asked; a task's own ``SourceParams`` adds where its data come from."""

    limit: int | None = Field(None, ge=1, description="At most so many rows: whole groups, chosen by hash.")
    limit_groups: int | None = Field(None, ge=1, description="At most so many groups, chosen by hash.")


class RawParams(SourceParams):
    """The section as the stage gets it; the task's ``source.SourceParams`` checks the rest of it."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Source(Protocol):
    """A task's ``source.py``. It also has ``files(params) -> list[str]``: the workspace's files that it reads."""

    SCHEMA: pa.Schema  # the task's own columns
    GROUP: str  # the column whose rows must stay together
    SourceParams: type[SourceParams]

    def records(self, params: Any, cache: Path) -> Iterable[Record]:
        """Every record: ``id``, ``event_time``, the columns of ``SCHEMA``, ``problem`` where something is wrong."""
        ...

    def labelled(self, line: Mapping[str, Any]) -> Record:
        """The columns of ``SCHEMA`` for a line of labelled feedback; ``ValueError`` says what it lacks."""
        ...


def raw(*, out: Path, params: RawParams, source: Source, cache: Path, labels: Path) -> StageResult:
    """Write ``out`` as a data set: ``id``, ``event_time``, the task's columns, ``origin``, ``problem``.

    Rows in the source's order, then feedback in the order in which it came. A record that is not whole is a row like
    the others with its problem named; the stage ``clean`` sets it aside.
    """
    schema = raw_schema(source.SCHEMA)
    found = [{ORIGIN: "source", **record} for record in source.records(_checked(params, source), cache)]
    if not found:
        raise StageFailed("The source has no records. See the section `source` of params.yaml.")
    table = to_table(found, schema)
    table = table.filter(pa.array(keep_groups(table[source.GROUP].to_pylist(), params.limit_groups, params.limit)))
    if not table.num_rows:
        raise StageFailed(f"limit: {params.limit} is smaller than the first group; give at least a group's size.")
    feedback = to_table(_feedback(labels, source), schema)
    table, edits = apply_edits(pa.concat_tables([table, feedback]), labels.with_name("edits.jsonl"))
    rows = Dataset(out).write(table)
    broken = table.num_rows - table[PROBLEM].null_count
    metadata = {
        "records_in_source": len(found),
        "feedback": feedback.num_rows,
        "edits": {"updated": edits.updated, "deleted": edits.deleted, "unmatched": list(edits.unmatched[:100])},
        "groups": len(set(table[source.GROUP].to_pylist()) - {None}),
    }
    return StageResult(rows, {"malformed_rows": broken, "feedback_rows": feedback.num_rows}, metadata)


def _checked(params: RawParams, source: Source) -> SourceParams:
    try:
        return source.SourceParams.model_validate(params.model_dump(exclude_unset=True))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in error.errors())
        known = ", ".join(source.SourceParams.model_fields)
        raise StageFailed(f"The section `source` of params.yaml: {wrong}. The names there are: {known}.") from None


def _feedback(labels: Path, source: Source) -> list[Record]:
    """Labelled rows that came in through the service, one JSON object a line; a later line of an id replaces it."""
    if not labels.is_file():
        return []
    lines = [line for line in enumerate(labels.read_bytes().splitlines(), start=1) if line[1].strip()]
    records = [_feedback_record(line, f"{labels.name} line {number}", source) for number, line in lines]
    last = {record[ID]: place for place, record in enumerate(records)}
    copies: Counter[str] = Counter()
    for place, record in enumerate(records):
        identity = record[ID]
        if place != last[identity]:
            record[PROBLEM] = record[PROBLEM] or f"{labels.name}: labelled anew further down"
            copies[identity] += 1
            record[ID] = f"{identity}{SUPERSEDED}{copies[identity]}"  # an id names one row
    return records


def _feedback_record(line: bytes, where: str, source: Source) -> Record:
    row = json_row(line, where)
    problems = [row.problem] if row.problem else []
    record: Record = {}
    if not problems:
        for step in (lambda: source.labelled(row.values), lambda: {TIME: parse_time(row.values.get(TIME))}):
            try:
                record.update(step())
            except ValueError as error:
                problems.append(str(error))
    identity = row.values.get(ID)
    if not isinstance(identity, str) or not identity:
        if not row.problem:
            problems.append(f"{ID}: {short(identity)} is not an id")
        identity = content_id(line.decode("utf-8", "replace"))
    said = f"{where}: {'; '.join(problems)}" if problems else None
    return {**record, ID: f"feedback-{identity}", ORIGIN: "feedback", PROBLEM: said}
