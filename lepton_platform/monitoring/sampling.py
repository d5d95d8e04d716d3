"""Which rows are looked at where not all can be: chosen by hash, so that they are the same every time."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ID = "id"
Hashes = NDArray[np.uint64]  # (N,)


def hashes_of(ids: Sequence[str]) -> Hashes:
    """(N,) the first eight bytes of each id's SHA-256: a row's place in every sample."""
    digests = b"".join(hashlib.sha256(identity.encode()).digest()[:8] for identity in ids)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def by_hash_of_id(rows: pa.Table, max_rows: int) -> pa.Table:
    """At most ``max_rows`` rows: those whose ids have the smallest hashes, in that order; the same ones every time."""
    hashes = hashes_of([str(identity) for identity in rows[ID].to_pylist()])
    return rows.take(np.argsort(hashes, kind="stable")[:max_rows])


def groups_of(table: pa.Table, column: str | None) -> list[str]:
    """The group of each row (N,); every row is its own where the table has no groups, or only one."""
    if column is not None and column in table.column_names:
        found = [str(value) for value in table[column].to_pylist()]
        if len(set(found)) > 1:
            return found
    return [str(row) for row in range(table.num_rows)]


def sample(table: pa.Table, groups: Sequence[str], max_rows: int) -> tuple[pa.Table, list[str]]:
    """At most ``max_rows`` rows, whole groups in the order of their hash while they fit: the same rows every time."""
    if table.num_rows <= max_rows:
        return table, list(groups)
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    chosen: set[str] = set()
    room = max_rows
    for group in sorted(sizes, key=lambda g: hashlib.sha256(g.encode()).digest()):
        if sizes[group] <= room:
            chosen.add(group)
            room -= sizes[group]
    if not chosen:  # one group is larger than the sample: a slice of it must do
        return table.slice(0, max_rows), list(groups[:max_rows])
    kept = [row for row, group in enumerate(groups) if group in chosen]
    return table.take(kept), [groups[row] for row in kept]
