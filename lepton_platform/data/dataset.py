"""A data set is a folder of Parquet shards: few, large, the same bytes for the same rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_PER_SHARD = 100_000


@dataclass(frozen=True)
class Dataset:
    """Rows under ``path``: every one with a stable string ``id`` and a UTC ``event_time``."""

    path: Path

    def shards(self) -> list[Path]:
        return sorted(self.path.glob("part-*.parquet"))

    def __len__(self) -> int:
        return sum(pq.read_metadata(shard).num_rows for shard in self.shards())

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """All rows (N, columns), in the order in which they were written."""
        shards = self.shards()
        if not shards:
            raise FileNotFoundError(f"No Parquet shards (part-*.parquet) in {self.path}.")
        return pa.concat_tables(pq.read_table(shard, columns=columns) for shard in shards)

    def batches(self, rows: int = 10_000, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in batches of at most ``rows``, in constant memory."""
        for shard in self.shards():
            yield from pq.ParquetFile(shard).iter_batches(rows, columns=columns)

    def write(self, table: pa.Table | Iterable[pa.Table], rows_per_shard: int = ROWS_PER_SHARD) -> int:
        """Write the rows as shards of at most ``rows_per_shard``; returns how many rows.

        An empty table still leaves one shard: the schema is data too.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        shard = total = 0
        pieces: Iterable[pa.Table] = [table] if isinstance(table, pa.Table) else table
        for piece in pieces:
            for start in range(0, max(piece.num_rows, 1), rows_per_shard):
                part = piece.slice(start, rows_per_shard)
                pq.write_table(part, self.path / f"part-{shard:05d}.parquet", compression="zstd")
                shard, total = shard + 1, total + part.num_rows
        return total
