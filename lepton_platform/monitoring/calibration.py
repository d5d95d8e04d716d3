"""How large a distance chance alone makes: thresholds measured on windows of the reference itself.

A window of n rows is drawn from the reference, whole groups at a time, and compared with the groups that were not
drawn; many times over, for every signal at once. A signal's threshold is the distance that its own windows exceed
with probability a, where a is chosen so that a window exceeds *any* threshold with at most the asked false alarm rate: the
step-down minP idea of Westfall & Young (Resampling-Based Multiple Testing, 1993, §2.3) in its single-step form. It
needs no distribution, no independence of the signals (Bonferroni would), and it knows that rows come in groups: fifty
reviews of two films lie further from the rest than fifty reviews of fifty films.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lepton_platform.monitoring.signals import Names, Numbers, Signals

SIZES = (50, 100, 200, 500, 1000, 2000)  # windows are judged by the largest of these that they fill
UNSURE = 0.05  # that the rate of false alarms is not above the one asked for
_DRAWN_AT_ONCE = 2_000_000  # rows × windows held in memory


def calibrate(
    signals: Signals, groups: Sequence[str], *, windows: int, false_alarm_rate: float, min_rows: int, seed: int
) -> dict[int, dict[str, float]]:
    """Size of a window → signal → threshold, for the sizes that the reference can tell of: at most half of it.

    ``signals``: numbers and classes of the R reference rows. ``groups``: (R,) names; rows of one name are drawn
    together. Empty where the reference is too small for a window of ``min_rows``.
    """
    _, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    sizes = [n for n in sorted({min_rows, *SIZES}) if min_rows <= n <= len(signals) // 2]
    names = [*signals.numbers, *signals.classes]
    found: dict[int, dict[str, float]] = {}
    for size in sizes:
        rng = np.random.default_rng([seed, size])
        by_signal = _null_distances(signals, codes, size, windows, rng)
        thresholds = family_thresholds(np.stack([by_signal[n] for n in names], axis=1), false_alarm_rate)
        found[size] = dict(zip(names, thresholds.tolist(), strict=True))
    return found


def family_thresholds(distances: NDArray[np.float64], rate: float) -> Numbers:
    """(S,) thresholds, from the distances (W, S) of W windows, that at most ``rate`` of the windows exceed somewhere.

    Of so many windows as few exceed them as makes it 95 % sure that no more than ``rate`` of all windows would: the
    binomial bound of Clopper & Pearson 1934. Where W is too small to be so sure, none exceeds.
    """
    count = len(distances)
    ordered = np.sort(distances, axis=0)
    above = count - np.stack(
        [np.searchsorted(ordered[:, s], distances[:, s], "left") for s in range(ordered.shape[1])], 1
    )
    rarest = np.sort(above.min(axis=1))  # (W,): on how many windows the window's rarest distance is reached
    allowed = int(rarest[_exceeding(count, rate)])
    return ordered[count - allowed]


def _exceeding(count: int, rate: float) -> int:
    """The largest k for which k or fewer of ``count`` have a probability of at most 5 % where each has ``rate``; or 0."""
    k, term = 0, (1 - rate) ** count  # of exactly k
    below = term
    while True:
        term *= (count - k) / (k + 1) * rate / (1 - rate)
        if below + term > UNSURE:
            return k
        k, below = k + 1, below + term


def for_size(thresholds: Mapping[int, Mapping[str, float]], rows: int) -> Mapping[str, float]:
    """The thresholds for a window of ``rows``: those of the largest size that it fills (a larger window strays less)."""
    return thresholds[max(size for size in thresholds if size <= rows)]


def _null_distances(
    signals: Signals, codes: NDArray[np.int_], size: int, windows: int, rng: np.random.Generator
) -> dict[str, Numbers]:
    step = max(1, _DRAWN_AT_ONCE // len(codes))
    parts: list[dict[str, Numbers]] = []
    for start in range(0, windows, step):
        inside, outside = _draw(codes, size, min(step, windows - start), rng)
        numbers = {name: _ks_of_windows(values, inside, outside) for name, values in signals.numbers.items()}
        classes = {name: _tv_of_windows(values, inside, outside) for name, values in signals.classes.items()}
        parts.append({**numbers, **classes})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _draw(
    codes: NDArray[np.int_], size: int, windows: int, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(W, R) masks: the ``size`` rows of each window, and the rows of all groups that the window did not touch."""
    inside = np.zeros((windows, len(codes)), dtype=bool)
    outside = np.zeros_like(inside)
    by_group = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    for window in range(windows):
        rows: list[int] = []
        rest = rng.permutation(len(by_group))
        while len(rows) < size:
            rows.extend(rng.permutation(by_group[rest[0]]).tolist())
            rest = rest[1:]
        inside[window, rows[:size]] = True
        # one group that is larger than the window leaves nothing outside it: the rest of its rows must do then
        outside[window] = np.isin(codes, rest) if len(rest) else ~inside[window]
    return inside, outside


def _ks_of_windows(values: Numbers, inside: NDArray[np.bool_], outside: NDArray[np.bool_]) -> Numbers:
    order = np.argsort(values, kind="stable")
    ends = np.append(np.diff(values[order]) != 0, True)  # of runs of equal values: between them there is no step
    gap = _shares(inside[:, order])[:, ends] - _shares(outside[:, order])[:, ends]
    return np.abs(gap).max(axis=1)


def _shares(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    return mask.cumsum(axis=1) / mask.sum(axis=1, keepdims=True)


def _tv_of_windows(values: Names, inside: NDArray[np.bool_], outside: NDArray[np.bool_]) -> Numbers:
    _, codes = np.unique(values, return_inverse=True)
    one_hot = np.eye(codes.max() + 1)[codes]
    shares = [mask.astype(np.float64) @ one_hot / mask.sum(axis=1, keepdims=True) for mask in (inside, outside)]
    return np.abs(shares[0] - shares[1]).sum(axis=1) / 2
