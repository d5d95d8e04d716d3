"""What Dagster's UI shows of a stage: figures, tables, pictures, links; made from the stage's own words."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from lepton_platform.pipeline.run import Outcome
from lepton_platform.pipeline.stages import Stage
from lepton_platform.settings import Settings
from lepton_platform.stage import StageResult


def _value(name: str, value: Any) -> Any:
    if name.endswith("_md"):
        return dg.MetadataValue.md(str(value))
    if name.endswith("_png"):
        return dg.MetadataValue.md(f"![{name.removesuffix('_png')}](data:image/png;base64,{value})")
    if isinstance(value, bool | int | float | str):
        return value
    return dg.MetadataValue.json(value)


def check_metadata(result: StageResult) -> dict[str, Any]:
    """The result's metadata as Dagster's metadata values."""
    return {name.removesuffix("_md").removesuffix("_png"): _value(name, v) for name, v in result.metadata.items()}


def outcome_metadata(settings: Settings, stage: Stage, outcome: Outcome) -> dict[str, Any]:
    result = outcome.result
    found: dict[str, Any] = {
        "dvc_version": outcome.version,
        "seconds": round(outcome.seconds, 3),
        "reused": not outcome.ran,
        "output": dg.MetadataValue.path(str(settings.path(stage.path(outcome.task)))),
    }
    if result.rows is not None:
        found["dagster/row_count"] = result.rows
    found |= {name: float(value) for name, value in result.metrics.items()}
    found |= {k: v for k, v in check_metadata(result).items() if k not in found and not k.endswith("_path")}
    return found | _links(settings, stage, outcome.task, result.metadata) | output_schema(settings, stage, outcome.task)


def _links(settings: Settings, stage: Stage, task: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    folder = settings.path(stage.path(task))
    named = {k.removesuffix("_path"): v for k, v in metadata.items() if k.endswith("_path")}
    return {name: dg.MetadataValue.path(str(folder / str(path))) for name, path in named.items()}


def output_schema(settings: Settings, stage: Stage, task: str) -> dict[str, Any]:
    """The column schema of the stage's main table, read from the Parquet files where they are there."""
    folder = settings.path(stage.path(task))
    for candidate in (folder, folder / "rows", folder / "train"):
        shard = next(iter(sorted(candidate.glob("part-*.parquet"))), None)
        if shard is not None:
            import pyarrow.parquet as pq

            columns = [dg.TableColumn(field.name, str(field.type)) for field in pq.read_schema(shard)]
            return {"dagster/column_schema": dg.TableSchema(columns=columns)}
    return {}
