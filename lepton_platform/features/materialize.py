"""Compute the features of every row, view by view, into Parquet that the feature store reads."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidationError

from lepton_platform.data.dataset import Dataset
from lepton_platform.features.views import (
    CREATED,
    DECLARATION,
    EVENT,
    FeatureView,
    Given,
    Preprocess,
    declared,
    view_schema,
)
from lepton_platform.stage import Params, Progress, StageFailed, StageResult

ROWS = "rows"  # the clean table, in its stage's folder
RESULT = "result.json"  # the contract's verdict, in its stage's folder


class FeaturesParams(Params):
    views: list[str] | None = Field(None, description="Only these views; all that the task declares if not given.")
    options: dict[str, dict[str, Any]] = Field(default_factory=dict, description="View → its own parameters.")
    rows_per_shard: int = Field(50_000, ge=1, description="Rows computed and written at a time: bounds the memory.")


def features(
    *,
    clean: Path,
    contract: Path,
    out: Path,
    params: FeaturesParams,
    preprocess: Preprocess,
    cache: Path,
    progress: Progress,
) -> StageResult:
    """Write ``<view>/part-*.parquet`` for each view: key, event and creation time, the view's columns.

    A view by row has a row for every row of ``clean``, in the same order. ``StageFailed`` if the contract did not
    hold, or a view's values are not what it declares.
    """
    _require(contract)
    rows = Dataset(clean / ROWS)
    views = _chosen(preprocess.FEATURE_VIEWS, params)
    options = {view.name: _options(view, params) for view in views}
    written: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for view in views:
        started = time.monotonic()
        given = Given(options[view.name], cache, progress)
        parts = _by_row(view, rows, given, params.rows_per_shard) if view.by_row else _whole(view, rows, given)
        written[view.name] = Dataset(out / view.name).write(parts, params.rows_per_shard)
        seconds[view.name] = time.monotonic() - started
    (out / DECLARATION).write_text(declared(views), encoding="utf-8")
    return StageResult(
        rows=len(rows),
        metrics={
            "views": len(views),
            **{f"{name}_rows_per_s": count / max(seconds[name], 1e-9) for name, count in written.items()},
        },
        metadata={"views_md": _described(views, written, seconds), "rows_per_view": written},
    )


def _require(contract: Path) -> None:
    verdict: dict[str, Any] = json.loads((contract / RESULT).read_text(encoding="utf-8"))
    if not verdict["success"]:
        raise StageFailed(
            "The contract did not hold for these rows: no features are made of them. Mend the data first."
        )


def _chosen(views: Sequence[FeatureView], params: FeaturesParams) -> list[FeatureView]:
    """The views to compute, in the order in which the task declares them."""
    names = [view.name for view in views]
    asked = params.views if params.views is not None else names
    unknown = [name for name in (*asked, *params.options) if name not in names]
    if unknown:
        raise StageFailed(f"features: there is no view {', '.join(unknown)}. The task's views are: {', '.join(names)}.")
    return [view for view in views if view.name in asked]


def _options(view: FeatureView, params: FeaturesParams) -> Params:
    try:
        return view.params.model_validate(params.options.get(view.name, {}))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise StageFailed(f"features.options.{view.name} is not right: {wrong}.") from None


def _columns(view: FeatureView) -> list[str]:
    return list(dict.fromkeys((view.entity.column, "event_time", *view.reads)))


def _by_row(view: FeatureView, rows: Dataset, given: Given, rows_per_part: int) -> Iterator[pa.Table]:
    assert view.function is not None, view.name
    total, before = len(rows), 0
    for part in _parts(rows, _columns(view), rows_per_part):
        values = view.function(part, Given(given.params, given.cache, _shifted(given.progress, before, total)))
        head = {view.entity.key: part[view.entity.column], EVENT: part["event_time"], CREATED: part["event_time"]}
        yield _checked(view, {**head, **_named(values)}, part.num_rows)
        before += part.num_rows
        given.progress(before, total)


def _shifted(progress: Progress, before: int, of_all: int) -> Progress:
    """Progress for a function that counts only the rows of its part."""

    def shifted(done: int, total: int, values: Mapping[str, float] | None = None) -> None:
        progress(before + done, of_all, values)

    return shifted


def _parts(rows: Dataset, columns: list[str], size: int) -> Iterator[pa.Table]:
    """The rows in parts of ``size`` (the last is smaller), whatever the shards; one empty part if there are none."""
    if not len(rows):
        yield rows.read(columns)
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in rows.batches(min(size, 10_000), columns):
        while batch.num_rows:
            taken = batch.slice(0, size - count)
            batch = batch.slice(taken.num_rows)
            held.append(taken)
            count += taken.num_rows
            if count == size:
                yield pa.Table.from_batches(held)
                held, count = [], 0
    if held:
        yield pa.Table.from_batches(held)


def _whole(view: FeatureView, rows: Dataset, given: Given) -> Iterator[pa.Table]:
    assert view.function is not None, view.name
    yield _checked(view, _named(view.function(rows.read(_columns(view)), given)), None)
    given.progress(len(rows), len(rows))


def _named(values: Mapping[str, Any] | pa.Table) -> dict[str, Any]:
    if isinstance(values, Mapping):
        return dict(values)
    return dict(zip(values.column_names, values.columns, strict=True))


def _checked(view: FeatureView, values: Mapping[str, Any], rows: int | None) -> pa.Table:
    """The values as the view declares them; ``StageFailed`` says which are not."""
    schema = view_schema(view)
    wrong = set(values) ^ set(schema.names)
    if wrong:
        raise StageFailed(f"View '{view.name}' does not give the columns it declares; they differ in {sorted(wrong)}.")
    try:
        table = pa.table({name: values[name] for name in schema.names}).cast(schema)
    except pa.ArrowException as error:
        raise StageFailed(f"View '{view.name}' does not give the types it declares: {error}") from None
    if rows is not None and table.num_rows != rows:
        raise StageFailed(f"View '{view.name}' gave {table.num_rows} values for {rows} rows; every row has one.")
    nullable = {column.name for column in view.columns if column.nullable}
    for name in schema.names:
        _no_holes(view, table, name, name in nullable)
    return table.replace_schema_metadata(None)


def _no_holes(view: FeatureView, table: pa.Table, name: str, nullable: bool) -> None:
    column = table[name].combine_chunks()
    flat = column.flatten() if isinstance(column, pa.ListArray) else column
    if pa.types.is_floating(flat.type):
        bad = int(np.count_nonzero(~np.isfinite(flat.drop_null().to_numpy())))
        if bad:
            raise StageFailed(f"View '{view.name}' gave {bad} values that are not finite numbers in '{name}'.")
    if column.null_count and not nullable:
        keys = table.filter(column.is_null())[view.entity.key].slice(0, 5).to_pylist()
        raise StageFailed(
            f"View '{view.name}' gave no value of '{name}' for {column.null_count} rows, {view.entity.key} {keys} first; "
            "declare the column nullable if that is meant.",
            {"view": view.name, "column": name, "keys": keys},
        )


def _described(views: Sequence[FeatureView], written: Mapping[str, int], seconds: Mapping[str, float]) -> str:
    lines = ["| view | entity | rows | rows/s | columns |", "|---|---|---:|---:|---|"]
    for view in views:
        columns = ", ".join(f"`{column.name}`" for column in view.columns)
        speed = written[view.name] / max(seconds[view.name], 1e-9)
        lines.append(f"| `{view.name}` | `{view.entity.key}` | {written[view.name]:,} | {speed:,.0f} | {columns} |")
    return "\n".join(lines)
