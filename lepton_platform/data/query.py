"""SQL over data sets with DuckDB: what can be read is what was given, nothing can be written."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from lepton_platform.data.dataset import Dataset
from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class BadQuery(StageFailed):
    """The SQL cannot be run: the question is wrong, not the data."""


def find_datasets(folder: Path) -> dict[str, Path]:
    """The data sets that a stage left: its folder's own under the folder's name, the ones below under theirs."""
    found = {folder.name: folder} if Dataset(folder).shards() else {}
    below = sorted({shard.parent for shard in folder.glob("*/**/part-*.parquet")}) if folder.is_dir() else []
    return found | {"_".join(path.relative_to(folder).parts): path for path in below}


def query(datasets: Mapping[str, Path], sql: str) -> pa.Table:
    """The answer to one SELECT over the data sets, each a table of its name.

    The SQL reaches no file, no network and no other table; the shards are read as the query needs them, not loaded.
    ``BadQuery`` says what is wrong, in DuckDB's words.
    """
    import duckdb
    import pyarrow.dataset as ds

    connection = duckdb.connect(":memory:")
    try:
        for name, path in datasets.items():
            shards = Dataset(path).shards()
            if not shards:
                raise StageFailed(f"There is no data set in {path}; run the stage that leaves it first.")
            connection.register(name, ds.dataset([str(shard) for shard in shards], format="parquet"))
        for setting in (
            "enable_external_access = false",
            "python_enable_replacements = false",  # else a table's name may find a Python variable
            "TimeZone = 'UTC'",
            "lock_configuration = true",
        ):
            connection.execute(f"SET {setting}")
        return _answer(connection, sql, datasets)
    finally:
        connection.close()


def _answer(connection: "DuckDBPyConnection", sql: str, datasets: Mapping[str, Path]) -> pa.Table:
    import duckdb

    try:
        statements = connection.extract_statements(sql)
        reading = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
        if len(statements) != 1 or statements[0].type not in reading:
            raise BadQuery("One SELECT is needed; `lepton data update` and `delete` change rows.")
        return connection.sql(sql).to_arrow_table()
    except duckdb.Error as error:
        tables = ", ".join(datasets) or "none"
        raise BadQuery(f"{error}\nThe tables are: {tables}.") from None
