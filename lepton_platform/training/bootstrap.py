"""Intervals by resampling: how far a figure could move had other rows been drawn.

The percentile bootstrap of Efron & Tibshirani (An Introduction to the Bootstrap, 1993, ch. 13) and, where rows
come in groups whose members resemble each other (the reviews of one film), the cluster bootstrap (Davison &
Hinkley, Bootstrap Methods and their Application, 1997, §3.8): whole groups are drawn with replacement, so that
their likeness widens the interval as it should. With fewer than some 30 groups it is still too narrow
(Cameron, Gelbach & Miller 2008, Review of Economics and Statistics 90).

Everything here is a function of *totals*: a row brings K additive quantities (1 if right; a cell of the confusion
matrix), a group the sum of its rows', and a draw is a weighted sum of groups: one matrix product for all draws.
Pure numpy; the same seed gives the same interval.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats, Floats], Floats]
"""(totals (B, K), rows (B,)) -> (B,): the figure of each of B draws."""

REPEATS = 2_000
CONFIDENCE = 0.95
_DRAWN_AT_ONCE = 4_000_000  # group draws held in memory at a time: 32 MB


class Interval(NamedTuple):
    """A figure and the interval it lies in with the asked confidence."""

    estimate: float
    low: float
    high: float


def mean(totals: Floats, rows: Floats) -> Floats:
    """The mean of the first quantity; NaN for a draw without rows."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return totals[:, 0] / rows


def interval(
    values: ArrayLike,
    statistic: Statistic = mean,
    *,
    groups: Sequence[Hashable] | NDArray | None = None,
    repeats: int = REPEATS,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    reflected: bool = False,
) -> Interval:
    """``statistic`` of the rows, with its percentile interval.

    ``values``: (N,) or (N, K) additive quantities of each row. ``groups``: (N,) names; rows of one name are drawn
    together. ``reflected`` gives the basic interval (2·estimate - quantile, Davison & Hinkley §5.2):
    for a figure that resampling itself inflates, such as a calibration error. Draws in which the figure is not
    defined (NaN) are left out; ``ValueError`` where there is nothing to draw from.
    """
    totals, rows = _by_group(_columns(values), groups)
    estimate = float(statistic(totals.sum(axis=0, keepdims=True), rows.sum(keepdims=True))[0])
    drawn = np.concatenate([statistic(t, n) for t, n in _draws(totals, rows, repeats, seed)])
    drawn = drawn[~np.isnan(drawn)]
    if not drawn.size:
        return Interval(estimate, float("nan"), float("nan"))
    tail = (1 - confidence) / 2
    low, high = (float(q) for q in np.quantile(drawn, [tail, 1 - tail]))
    if reflected:
        low, high = 2 * estimate - high, 2 * estimate - low
    return Interval(estimate, low, high)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    groups: Sequence[Hashable] | NDArray | None = None,
    *,
    repeats: int = REPEATS,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Mean of ``a`` - mean of ``b`` on the same rows: (difference, low, high).

    ``a``, ``b``: (N,) each row's score (1.0 right, 0.0 wrong; or any other mean). A draw takes the same rows for
    both, so what is hard for both cancels out, and the interval is far narrower than two intervals side by side.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"Paired scores are one-dimensional and of one length, not {first.shape} and {second.shape}.")
    return interval(first - second, groups=groups, repeats=repeats, confidence=confidence, seed=seed)


def _columns(values: ArrayLike) -> Floats:
    """(N,) or (N, K) → (N, K)."""
    array = np.asarray(values, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or not len(array):
        raise ValueError(f"A bootstrap needs at least one row, of shape (N,) or (N, K); got {array.shape}.")
    return array


def _by_group(values: Floats, groups: Sequence[Hashable] | NDArray | None) -> tuple[Floats, Floats]:
    """The groups' totals (G, K) and numbers of rows (G,); without ``groups`` every row is its own."""
    if groups is None:
        return values, np.ones(len(values))
    if len(groups) != len(values):
        raise ValueError(f"{len(values)} rows have {len(groups)} group names.")
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    count = int(index.max()) + 1
    totals = np.stack([np.bincount(index, column, count) for column in values.T], axis=1)
    return totals, np.bincount(index, minlength=count).astype(np.float64)


def _draws(totals: Floats, rows: Floats, repeats: int, seed: int) -> Iterator[tuple[Floats, Floats]]:
    """``repeats`` draws of G of the G groups, as totals (b, K) and rows (b,), some draws at a time."""
    if repeats < 1:
        raise ValueError(f"A bootstrap needs at least one repeat, not {repeats}.")
    rng, count = np.random.default_rng(seed), len(totals)
    step = max(1, _DRAWN_AT_ONCE // count)
    for start in range(0, repeats, step):
        batch = min(step, repeats - start)
        drawn = rng.integers(0, count, size=(batch, count))
        drawn += np.arange(batch)[:, None] * count
        weights = np.bincount(drawn.ravel(), minlength=batch * count).reshape(batch, count).astype(np.float64)
        yield weights @ totals, weights @ rows
