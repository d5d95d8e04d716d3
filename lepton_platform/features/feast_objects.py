"""The views in Feast's own words. Feast and DuckDB are imported here, and only when this module is."""

import os
import warnings
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lepton_platform.features.views import CREATED, EVENT, ColumnType, FeatureView

if TYPE_CHECKING:
    from feast import Entity as FeastEntity
    from feast import FeatureView as FeastView

os.environ["FEAST_USAGE"] = "False"  # before its import: no telemetry


def feast() -> Any:
    """Feast itself: 7 s or more to import, torch among what it brings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of its own dependencies
        import feast as module

    return module


def _field_type(kind: ColumnType) -> Any:
    from feast import types

    if kind.endswith("[]"):
        return types.Array(_field_type(kind.removesuffix("[]")))  # pyright: ignore[reportArgumentType]
    return {
        "float32": types.Float32,
        "float64": types.Float64,
        "int64": types.Int64,
        "string": types.String,
        "bool": types.Bool,
    }[kind]


def entity(view: FeatureView) -> "FeastEntity":
    return feast().Entity(
        name=view.entity.key,
        join_keys=[view.entity.key],
        value_type=feast().ValueType.STRING,
        description=view.entity.description,
    )


def feature_view(view: FeatureView, path: str, *, prefix: str = "", s3_endpoint: str = "") -> "FeastView":
    """The view over the Parquet shards in the folder ``path`` (or ``s3://…``); its name gets ``prefix``."""
    from feast.data_format import ParquetFormat

    f, name = feast(), prefix + view.name
    source = f.FileSource(
        name=name,
        path=path,
        file_format=ParquetFormat(),
        timestamp_field=EVENT,
        created_timestamp_column=CREATED,
        s3_endpoint_override=s3_endpoint or None,
        description=view.description,
        owner=view.owner,
    )
    columns = [f.Field(name=c.name, dtype=_field_type(c.type), description=c.description) for c in view.columns]
    return f.FeatureView(
        name=name,
        entities=[entity(view)],
        # the key is named too: what is not declared Feast infers, by reading the source
        schema=[f.Field(name=view.entity.key, dtype=_field_type("string")), *columns],
        source=source,
        ttl=view.ttl or timedelta(0),  # Feast's word for "for ever"
        online=view.online,
        description=view.description,
        owner=view.owner,
    )


def entities(views: Sequence[FeatureView]) -> "list[FeastEntity]":
    """One entity a key, in the order of the views."""
    return list({view.entity.key: entity(view) for view in views}.values())
