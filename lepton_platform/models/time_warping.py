"""Dynamic time warping (Sakoe & Chiba, 1978): the cheapest way through a matrix from its first corner to its last."""

import numpy as np
from numpy.typing import NDArray


def alignment(cost_TS: NDArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the way, from (0, 0) to (T - 1, S - 1), each step down, right or both.

    Computed diagonal by diagonal, whose cells do not depend on each other.
    """
    rows, columns = cost_TS.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    came = np.zeros((rows + 1, columns + 1), dtype=np.int8)
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        ways = np.stack([total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]])
        best = ways.argmin(axis=0)
        total[i, j] = cost_TS[i - 1, j - 1] + ways[best, np.arange(len(i))]
        came[i, j] = best
    return _traced(came)


def _traced(came: NDArray[np.int8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    i, j = came.shape[0] - 1, came.shape[1] - 1
    way = []
    while i > 0 and j > 0:
        way.append((i - 1, j - 1))
        step = came[i, j]
        i, j = i - (step != 2), j - (step != 1)
    found = np.array(way[::-1], dtype=np.intp)
    return found[:, 0], found[:, 1]
