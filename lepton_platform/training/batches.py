"""The order of the rows: a function of the seed and the epoch alone, so that a run can be resumed or shared out.

Rows of like size share a batch, which saves padding: an epoch's rows are shuffled, cut into pools, sorted by size
within a pool and cut into batches, which are shuffled again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

POOL_BATCHES = 50  # larger saves little more padding and makes batches more alike


def epoch_batches(sizes: NDArray, batch_rows: int, seed: int, epoch: int) -> list[NDArray]:
    """Batches of at most ``batch_rows`` row numbers; together every row once."""
    rng = np.random.default_rng([seed, epoch])
    rows = rng.permutation(len(sizes))
    pool = POOL_BATCHES * batch_rows
    batches: list[NDArray] = []
    for start in range(0, len(rows), pool):
        some = rows[start : start + pool]
        some = some[np.argsort(sizes[some], kind="stable")]
        batches += [some[i : i + batch_rows] for i in range(0, len(some), batch_rows)]
    return [batches[i] for i in rng.permutation(len(batches))]


def batches_in_epoch(rows: int, batch_rows: int) -> int:
    pool = POOL_BATCHES * batch_rows
    full, rest = divmod(rows, pool)
    return full * POOL_BATCHES + -(-rest // batch_rows)


def by_size(sizes: NDArray, batch_rows: int) -> list[NDArray]:
    """Batches for reading only: all rows, the smallest first; undo with the concatenated row numbers."""
    order = np.argsort(sizes, kind="stable")
    return [order[i : i + batch_rows] for i in range(0, len(order), batch_rows)]


def shares(batch: NDArray, parts: int) -> list[NDArray]:
    """The batch cut into ``parts`` runs whose lengths differ by one at most; some may be empty."""
    return np.array_split(batch, parts)


def mixed_seed(*numbers: int) -> int:
    """One well mixed 63-bit seed out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
