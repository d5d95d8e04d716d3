"""Great Expectations on DuckDB over the Parquet shards: the suite becomes SQL, no row enters pandas."""

import atexit
import json
import logging
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from lepton_platform.data.contracts.suite import Expectation
from lepton_platform.data.dataset import Dataset
from lepton_platform.data.records import ID

SAMPLES = 5
_TABLE = "dataset"
_DIGITS = 12  # sums over threads differ in the last bits from run to run
_DROPPED = {"batch_id", "unexpected_index_query", "partial_unexpected_list", "partial_unexpected_counts"}


def check(dataset: Path, expectations: Sequence[Expectation], name: str, docs: Path | None) -> list[dict[str, Any]]:
    """One verdict an expectation, in their order: type, kwargs, description, success, observed, sample, error.

    ``docs``: a folder that is replaced by the Data Docs of this run.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when it is imported
    import great_expectations as gx

    _release_duckdb_at_exit()
    with _batch(dataset) as (context, batch_definition), _buffered_results():
        suite = gx.ExpectationSuite(name=name, expectations=[_built(e, place) for place, e in enumerate(expectations)])
        suite = context.suites.add(suite)
        definition = gx.ValidationDefinition(name=name, data=batch_definition, suite=suite)
        definition = context.validation_definitions.add(definition)
        summary = {
            "result_format": "SUMMARY",
            "unexpected_index_column_names": [ID],
            "partial_unexpected_count": SAMPLES,
        }
        results = definition.run(result_format=summary).results
        if docs is not None:
            _write_docs(context, docs)
        verdicts = {r.expectation_config.meta["place"]: _verdict(r, expectations) for r in results}
        for place, verdict in verdicts.items():
            if not verdict["success"] and not verdict["error"] and not verdict["sample"]:
                complete = {"result_format": "COMPLETE"}
                result = batch_definition.get_batch().validate(
                    _built(expectations[place], place), result_format=complete
                )
                verdict["sample"] = _plain((result.result.get("details") or {}).get("unexpected_rows") or [])[:SAMPLES]
    return [verdicts[place] for place in sorted(verdicts)]


def _built(expectation: Expectation, place: int) -> Any:
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    kwargs = {key: value for key, value in expectation.items() if key not in {"type", "description"}}
    return ExpectationConfiguration(
        type=expectation["type"], kwargs=kwargs, meta={"place": place}, description=expectation.get("description")
    ).to_domain_obj()


def _verdict(result: Any, expectations: Sequence[Expectation]) -> dict[str, Any]:
    expectation = expectations[result.expectation_config.meta["place"]]
    found = dict(result.result or {})
    sample = _plain(found.pop("partial_unexpected_index_list", None) or [])[:SAMPLES]
    observed = {k: v for k, v in _plain(found).items() if k not in _DROPPED and v not in (None, [], {})}
    observed.pop("unexpected_index_column_names", None)
    info = result.exception_info or {}
    raised = info.get("exception_message") or next(
        (v["exception_message"] for v in info.values() if isinstance(v, dict) and v.get("raised_exception")), None
    )
    return {
        "type": expectation["type"],
        "kwargs": {k: v for k, v in expectation.items() if k not in {"type", "description"}},
        "description": expectation.get("description", expectation["type"]),
        "success": bool(result.success),
        "observed": observed,
        "sample": sample,
        "error": raised,
    }


@contextmanager
def _batch(dataset: Path) -> Iterator[tuple[Any, Any]]:
    """A context and the whole data set as a batch: a view in a DuckDB that lives in memory, as long as this does."""
    import great_expectations as gx
    import sqlalchemy as sa
    from great_expectations.data_context.types.base import ProgressBarsConfig

    # An in-memory database with a name is one for all connections of the process; this one is nobody else's.
    url = f"duckdb:///:memory:contract-{uuid.uuid4().hex}"
    engine = sa.create_engine(url)
    shards = ", ".join("'" + str(shard).replace("'", "''") + "'" for shard in Dataset(dataset).shards())
    with engine.connect() as connection, _quiet():
        connection.exec_driver_sql(f"CREATE VIEW {_TABLE} AS SELECT * FROM read_parquet([{shards}])")
        connection.commit()
        context = gx.get_context(mode="ephemeral")
        source = context.data_sources.add_sql("duckdb", connection_string=url)
        asset = source.add_table_asset(_TABLE, table_name=_TABLE)
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        try:
            yield context, asset.add_batch_definition_whole_table("all rows")
        finally:
            source.get_engine().dispose()
            gx.get_context(mode="ephemeral")  # the last context is held by the process; let it be an empty one
    engine.dispose()


@contextmanager
def _buffered_results() -> Iterator[None]:
    """Great Expectations reads a result after it has closed the connection, and duckdb-engine has dropped it by then.

    Results are buffered while the connection is open. They are aggregates and samples: a few rows each.
    """
    from great_expectations.execution_engine import SqlAlchemyExecutionEngine as Engine

    original = Engine.execute_query

    def execute_query(self: Any, query: Any) -> Any:
        with self.get_connection() as connection:
            return connection.execute(query).freeze()()

    Engine.execute_query = execute_query
    try:
        yield
    finally:
        Engine.execute_query = original


@cache
def _release_duckdb_at_exit() -> None:
    """Great Expectations keeps SQLAlchemy's dialects alive past the interpreter's end, and DuckDB then prints pages
    of "leaked instance" on stderr. Emptying the dialect's caches and modules, when nothing runs any more, lets go."""

    def release() -> None:
        from duckdb_engine import Dialect

        for member in (member for kind in Dialect.__mro__ for member in vars(kind).values()):
            if hasattr(member, "cache_clear"):
                member.cache_clear()
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] == "duckdb_engine":
                vars(module).clear()

    atexit.register(release)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no log lines of Great Expectations between ours."""
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _write_docs(context: Any, docs: Path) -> None:
    fresh = docs.with_name(f".{docs.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    site = {
        "class_name": "SiteBuilder",
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(fresh)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    for other in list(context.get_site_names() or []):
        context.delete_data_docs_site(other)
    context.add_data_docs_site(site_name="contract", site_config=site)
    context.build_data_docs(site_names=["contract"])
    shutil.rmtree(docs, ignore_errors=True)
    fresh.rename(docs)


def _plain(value: Any) -> Any:
    """As JSON, floats without the bits that depend on the order of a sum."""
    return json.loads(json.dumps(value, default=str), parse_float=lambda text: float(f"{float(text):.{_DIGITS}g}"))
