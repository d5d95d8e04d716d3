"""Does a model that says 80 % come true eight times in ten?

Expected calibration error over bins of equal width of the confidence in the answer given (Naeini, Cooper &
Hauskrecht 2015; Guo, Pleiss, Sun & Weinberger 2017, "On Calibration of Modern Neural Networks"). Even a perfectly
calibrated model shows some error on finitely many rows; how much is simulated (consistency resampling, Bröcker &
Smith 2007, "Increasing the Reliability of Reliability Diagrams"), so that the figure can be read.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BINS = 15  # as in Guo et al.


@dataclass(frozen=True)
class Bin:
    """The rows whose confidence lies in (low, high]."""

    low: float
    high: float
    rows: int
    confidence: float  # mean
    accuracy: float
    consistent: tuple[float, float]  # where the accuracy of a calibrated model lies, 95 % of the time


def totals(confidence: NDArray, right: NDArray, bins: int = BINS) -> Floats:
    """What each row brings to the error: (N, bins), its confidence less its rightness, in its bin's column.

    Confidences count in millionths, so that sums of them are exact whatever their order.
    """
    millionths = np.rint(np.asarray(confidence, dtype=np.float64) * 1e6)
    gap = millionths - np.asarray(right, dtype=np.float64) * 1e6
    placed = np.zeros((len(gap), bins))
    placed[np.arange(len(gap)), place(confidence, bins)] = gap
    return placed


def place(confidence: NDArray, bins: int = BINS) -> NDArray[np.intp]:
    """The bin, 0 … bins - 1, of each confidence in [0, 1]."""
    found = np.ceil(np.asarray(confidence, dtype=np.float64) * bins).astype(np.intp) - 1
    return np.clip(found, 0, bins - 1)


def error(summed: Floats, rows: Floats) -> Floats:
    """Summed ``totals`` (B, bins) and rows (B,) → expected calibration error (B,), from 0 (best) to 1."""
    return np.abs(summed).sum(axis=1) / (1e6 * rows)


def expected_calibration_error(confidence: NDArray, right: NDArray, bins: int = BINS) -> float:
    """Mean over rows of |confidence - accuracy| of the row's bin."""
    placed = totals(confidence, right, bins)
    return float(error(placed.sum(axis=0, keepdims=True), np.array([float(len(placed))]))[0])


def by_chance(confidence: NDArray, bins: int = BINS, *, repeats: int = 1_000, seed: int = 0) -> float:
    """The error that a perfectly calibrated model with these confidences stays below, 95 times in 100."""
    sure, where = np.asarray(confidence, dtype=np.float64), place(confidence, bins)
    rng = np.random.default_rng(seed)
    drawn = [np.bincount(where, sure - (rng.random(len(sure)) < sure), bins) for _ in range(repeats)]
    return float(np.quantile(np.abs(drawn).sum(axis=1) / len(sure), 0.95))


def reliability(confidence: NDArray, right: NDArray, bins: int = BINS, *, seed: int = 0) -> list[Bin]:
    """The bins that hold rows, by rising confidence."""
    sure, correct = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    rng, where, found = np.random.default_rng(seed), place(confidence, bins), []
    for number in range(bins):
        inside = where == number
        if not (rows := int(inside.sum())):
            continue
        chance = (rng.random((1_000, rows)) < sure[inside]).mean(axis=1)
        low, high = np.quantile(chance, [0.025, 0.975])
        found.append(
            Bin(
                low=number / bins,
                high=(number + 1) / bins,
                rows=rows,
                confidence=float(sure[inside].mean()),
                accuracy=float(correct[inside].mean()),
                consistent=(float(low), float(high)),
            )
        )
    return found
