"""The views in Feast's own words. Feast and DuckDB are imported here, and only when this module is."""

import io
import os
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_platform.features.views import CREATED, EVENT, ColumnType, FeatureView

if TYPE_CHECKING:
    from feast import Entity as FeastEntity
    from feast import FeatureService, FeatureStore
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


def feature_view(
    view: FeatureView, path: str, *, prefix: str = "", tags: Mapping[str, str] | None = None
) -> "FeastView":
    """The view over the Parquet shards in the folder ``path`` (or ``s3://…``); its name gets ``prefix``."""
    from feast.data_format import ParquetFormat

    f, name = feast(), prefix + view.name
    source = f.FileSource(
        name=name,
        path=path,
        file_format=ParquetFormat(),
        timestamp_field=EVENT,
        created_timestamp_column=CREATED,
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
        tags=dict(tags or {}),
        description=view.description,
        owner=view.owner,
    )


def entities(views: Sequence[FeatureView]) -> "list[FeastEntity]":
    """One entity a key, in the order of the views."""
    return list({view.entity.key: entity(view) for view in views}.values())


def service(name: str, views: "Sequence[FeastView]", description: str) -> "FeatureService":
    return feast().FeatureService(name=name, features=list(views), description=description, tags={"task": name})


@contextmanager
def engine(folder: Path, remote: str = "") -> Iterator[None]:
    """A DuckDB in memory for what the block asks of the offline store; what does not fit spills into ``folder``.

    Parquet below the address ``remote`` (``s3://…``) is read through fsspec, which needs no DuckDB extension.
    """
    import ibis

    connection, before = ibis.duckdb.connect(temp_directory=str(folder)), ibis.options.default_backend
    if "://" in remote:
        from fsspec.core import url_to_fs

        connection.register_filesystem(url_to_fs(remote)[0])
    ibis.set_backend(connection)
    try:
        yield
    finally:
        ibis.options.default_backend = before
        connection.disconnect()  # one that is open when the interpreter ends complains on stderr


def open_store(config: Mapping[str, Any], folder: Path) -> "FeatureStore":
    """The store of a ``feature_store.yaml`` given as values; relative paths count from ``folder``."""
    online = config["online_store"]
    if online and online["type"] == "sqlite":
        with closing(sqlite3.connect(folder / online["path"])) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # stays with the file: readers never wait for a writer
    # both are told the folder: what only one is told, the other looks for where the process happens to stand
    return feast().FeatureStore(repo_path=str(folder), config=feast().RepoConfig(**config, repo_path=folder))


def materialize(store: "FeatureStore", view: str, first: datetime, last: datetime) -> None:
    """Write the latest value of every key between the two times, both included."""
    second = timedelta(seconds=1)  # Feast's bounds lose the microseconds
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # its progress bars
        store.materialize(first - second, last + second, feature_views=[view])


def empty_online(store: "FeatureStore", view: str) -> None:
    """Drop all of a view's values from the online store."""
    provider, meant = store._get_provider(), [store.get_feature_view(view)]
    for deleted, kept in ((meant, []), ([], meant)):
        provider.update_infra(
            project=store.project,
            tables_to_delete=deleted,
            tables_to_keep=kept,
            entities_to_delete=[],
            entities_to_keep=[],
            partial=True,
        )
