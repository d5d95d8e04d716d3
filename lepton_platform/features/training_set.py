"""The rows that a model learns from and is judged by: every feature as it was known at the row's time."""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field, model_validator

from lepton_platform.data.dataset import Dataset
from lepton_platform.data.records import ORIGIN
from lepton_platform.features.materialize import ROWS
from lepton_platform.features.split import PRODUCTION, SPLITS, Split, place, split_of
from lepton_platform.features.views import EVENT, FeatureView, Preprocess, arrow_type, read_declaration
from lepton_platform.stage import Params, Progress, StageFailed, StageResult

POSITION = "lepton_position"  # of the row in the clean table: brings Feast's answer back into order


class DatasetParams(Params):
    test_share: float = Field(0.15, gt=0, lt=1, description="Of all groups, chosen by a hash of their names.")
    validation_share: float = Field(0.15, gt=0, lt=1, description="Of the groups that are not in the test split.")
    salt: str = Field("lepton", description="Another salt, another draw. It is part of the test split: leave it.")
    test_groups: list[str] = Field(
        default_factory=list, description="If named, these and no others are the test split."
    )
    validation_groups: list[str] = Field(
        default_factory=list, description="If named, these and no others are the validation split."
    )
    production_share: float = Field(
        0.15, ge=0, lt=1, description="Of the groups known by labelled feedback alone: judges challengers, trains none."
    )
    rows_per_query: int = Field(100_000, ge=1, description="Rows asked of the feature store at a time.")

    @model_validator(mode="after")
    def _in_one_split(self) -> "DatasetParams":
        if twice := sorted(set(self.test_groups) & set(self.validation_groups)):
            raise ValueError(f"{', '.join(twice)} cannot be in test_groups and in validation_groups")
        return self

    def split_of(self, group: str) -> Split:
        """Its split: the one that names it; else by the hash of its name, among the splits that name no group."""
        if group in self.test_groups:
            return "test"
        if group in self.validation_groups:
            return "validation"
        return split_of(
            group,
            test_share=0 if self.test_groups else self.test_share,
            validation_share=0 if self.validation_groups else self.validation_share,
            salt=self.salt,
        )

    def is_held_out(self, group: str) -> bool:
        """Of a group that only labelled feedback has: is it kept from training?"""
        return place(group, f"{self.salt}/{PRODUCTION}") < self.production_share


def dataset(
    *,
    clean: Path,
    features: Path,
    out: Path,
    params: DatasetParams,
    preprocess: Preprocess,
    scratch: Path,
    progress: Progress,
) -> StageResult:
    """Write ``train``, ``validation``, ``test`` and ``splits.json``: the clean rows and ``<view>__<column>``.

    Rows out = rows in, each once, in the order of ``clean``; no group that is learnt from is in two splits. Labelled
    feedback never enters ``test``, which so stays the same bytes: a share of its groups, and what is of a group of
    the test split, is written as ``production``, where there is any. ``StageFailed`` if the feature store loses or
    doubles a row, if a complete view has no value for one, or if a split has no rows.
    """
    views = read_declaration(features)
    rows = Dataset(clean / ROWS).read()
    group, label = preprocess.GROUP, preprocess.LABEL
    splits = _assign(rows, group, params)
    names = [*SPLITS, *([PRODUCTION] if PRODUCTION in splits else [])]
    parts: dict[str, list[pa.Table]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(dir=scratch) as folder, _Store(views, features, Path(folder)) as store:
        for start in range(0, max(rows.num_rows, 1), params.rows_per_query):
            here = rows.slice(start, params.rows_per_query)
            whole = store.joined(here)
            for name in names:
                parts[name].append(whole.filter(pa.array([s == name for s in splits[start : start + here.num_rows]])))
            progress(start + here.num_rows, rows.num_rows)
    told: dict[str, Any] = {}
    for name in names:
        table = pa.concat_tables(parts[name])
        _require_rows(name, table, group, rows)
        Dataset(out / name).write(table)
        told[name] = _told(table, group, label)
    said = {
        "group": group,
        "salt": params.salt,
        "test_share": params.test_share,
        "validation_share": params.validation_share,
        "rows": rows.num_rows,
        **{name: groups for name in ("test_groups", "validation_groups") if (groups := getattr(params, name))},
        "splits": told,
    }
    (out / "splits.json").write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return StageResult(
        rows=rows.num_rows,
        metrics={f"{name}_rows": told[name]["rows"] for name in names},
        metadata={"splits_md": _table_md(told), "columns": [f"{f.name}: {f.type}" for f in parts["train"][0].schema]},
    )


def point_in_time(rows: pa.Table, views: Sequence[FeatureView], features: Path, scratch: Path) -> pa.Table:
    """``rows`` (with id, event_time and the entities' columns) beside every view's values as known at their times."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder, _Store(views, features, Path(folder)) as store:
        return store.joined(rows)


class _Store:
    """A feature store for one question: its registry lies in ``folder``, its data are the stage's inputs."""

    def __init__(self, views: Sequence[FeatureView], features: Path, folder: Path) -> None:
        from lepton_platform.features import feast_objects as fo

        self.views = list(views)
        self._engine = fo.engine(folder / "spill")
        config = {
            "project": "lepton",
            "provider": "local",
            "registry": str(folder / "registry.db"),
            "offline_store": {"type": "duckdb"},
            "online_store": None,
            "entity_key_serialization_version": 3,
        }
        self._store = fo.open_store(config, folder)
        objects = [fo.feature_view(view, str((features / view.name).resolve())) for view in views]
        if objects:
            self._store.apply([*fo.entities(self.views), *objects])

    def __enter__(self) -> "_Store":
        self._engine.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._engine.__exit__(*error)

    def joined(self, rows: pa.Table) -> pa.Table:
        """The rows, in their order, and the values of all views as they were known at each row's time."""
        if not self.views or not rows.num_rows:
            return self._empty(rows)
        answer = self._store.get_historical_features(
            entity_df=self._asked(rows).to_pandas(),
            features=[f"{view.name}:{column.name}" for view in self.views for column in view.columns],
            full_feature_names=True,
            filter_by_created_timestamp=True,  # without it a value that came late would be used
        ).to_arrow()
        answer = answer.sort_by(POSITION)
        expected = pa.array(range(rows.num_rows), pa.int64())
        if not answer[POSITION].combine_chunks().cast(pa.int64()).equals(expected):
            raise StageFailed(
                f"The feature store was asked for {rows.num_rows} rows and gave {answer.num_rows}, not each of them once. "
                "No training set was made of that.",
                {"asked": rows.num_rows, "given": answer.num_rows},
            )
        table = rows
        for view in self.views:
            for column in view.columns:
                values = answer[view.joined(column)].cast(arrow_type(column.type))
                _require_values(view, values, column.nullable, rows)
                table = table.append_column(view.joined(column), values.combine_chunks())
        return table.replace_schema_metadata(None)

    def _asked(self, rows: pa.Table) -> pa.Table:
        keys = {view.entity.key: rows[view.entity.column].cast(pa.string()) for view in self.views}
        return pa.table({POSITION: pa.array(range(rows.num_rows), pa.int64()), EVENT: rows["event_time"], **keys})

    def _empty(self, rows: pa.Table) -> pa.Table:
        for view in self.views:
            for column in view.columns:
                rows = rows.append_column(view.joined(column), pa.nulls(rows.num_rows, arrow_type(column.type)))
        return rows.replace_schema_metadata(None)


def _require_values(view: FeatureView, values: pa.ChunkedArray, nullable: bool, rows: pa.Table) -> None:
    if values.null_count and view.complete and not nullable:
        ids = rows.filter(values.combine_chunks().is_null())["id"].slice(0, 5).to_pylist()
        raise StageFailed(
            f"View '{view.name}' knows nothing of {values.null_count} rows at their time, ids {', '.join(ids)} first. "
            "Its values are missing, or came to be known only later: compute the features of the same rows anew.",
            {"view": view.name, "ids": ids},
        )


def _assign(rows: pa.Table, group: str, params: DatasetParams) -> list[str]:
    """Each row's split; a row without a group is a group of its own, by its id.

    Feedback on a group that the source has, too, goes where that is; the test split is the source's alone.
    """
    names = [g if g is not None else i for g, i in zip(_strings(rows, group), _strings(rows, "id"), strict=True)]
    known: dict[str, Split] = {name: params.split_of(name) for name in set(names)}
    _require_groups(params, known, group)
    fed = [origin == "feedback" for origin in _origins(rows)]
    of_source = {name for name, late in zip(names, fed, strict=True) if not late}
    held = {n for n in set(names) - of_source if params.is_held_out(n)} | {n for n in names if known[n] == "test"}
    return [PRODUCTION if late and name in held else known[name] for name, late in zip(names, fed, strict=True)]


def _origins(rows: pa.Table) -> list[str | None]:
    return rows[ORIGIN].to_pylist() if ORIGIN in rows.column_names else [None] * rows.num_rows


def _require_groups(params: DatasetParams, known: Mapping[str, Split], group: str) -> None:
    missing = sorted({*params.test_groups, *params.validation_groups} - set(known))
    if missing:
        there = sorted(known)
        more = f" and {len(there) - 20} more" if len(there) > 20 else ""
        raise StageFailed(
            f"dataset: no row has the {group} {', '.join(missing)}. The groups are: {', '.join(there[:20])}{more}.",
            {"missing": missing, "groups": there[:1_000]},
        )


def _strings(rows: pa.Table, name: str) -> list[str]:
    if name not in rows.column_names:
        raise StageFailed(f"The clean rows have no column '{name}'. They have: {', '.join(rows.column_names)}.")
    return rows[name].cast(pa.string()).to_pylist()


def _require_rows(name: str, table: pa.Table, group: str, rows: pa.Table) -> None:
    if not table.num_rows:
        groups = len(set(_strings(rows, group)))
        raise StageFailed(
            f"The {name} split has no rows: the {rows.num_rows} rows are of {groups} groups ({group}), too few to share "
            "out. Give more data, or another dataset.salt."
        )


def _told(table: pa.Table, group: str, label: str) -> dict[str, Any]:
    """Rows, groups and, where labels can be counted, how many rows each has."""
    said: dict[str, Any] = {"rows": table.num_rows, "groups": len(set(_strings(table, group)))}
    if label in table.column_names and not pa.types.is_nested(table[label].type):
        counted = Counter(str(value) for value in table[label].to_pylist())
        said["labels"] = dict(sorted(counted.items()))
    return said


def _table_md(told: dict[str, Any]) -> str:
    labels = sorted({label for split in told.values() for label in split.get("labels", {})})
    few = labels if len(labels) <= 12 else []
    lines = [
        f"| split | rows | groups |{''.join(f' {label} |' for label in few)}",
        f"|---|---:|---:|{'---:|' * len(few)}",
    ]
    for name, split in told.items():
        counts = "".join(f" {split['labels'].get(label, 0):,} |" for label in few)
        lines.append(f"| {name} | {split['rows']:,} | {split['groups']:,} |{counts}")
    return "\n".join(lines)
