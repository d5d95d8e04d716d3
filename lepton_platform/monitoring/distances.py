"""How far apart two samples lie: distances in [0, 1], each the share of rows that would have to move.

They are effect sizes, not p-values: they answer "how much", do not grow with the number of rows, and one floor
serves them all. Whether a distance is more than chance is asked in ``calibration``.
"""

import numpy as np
from numpy.typing import NDArray

from lepton_platform.monitoring.signals import Names, Numbers, Vectors

_TINY = 1e-12


def ks_distance(reference: Numbers, current: Numbers) -> float:
    """The largest gap between the two distribution functions (Kolmogorov-Smirnov's D); any order, ties allowed."""
    reference, current = np.sort(reference), np.sort(current)
    steps = np.concatenate([reference, current])
    below = np.searchsorted(reference, steps, "right") / len(reference)
    return float(np.abs(below - np.searchsorted(current, steps, "right") / len(current)).max())


def total_variation(reference: Names, current: Names) -> float:
    """Half the sum of the differences between the shares of each class; a class that one lacks counts as zero."""
    classes = np.union1d(reference, current)
    shares = [(np.asarray(sample)[:, None] == classes).mean(0) for sample in (reference, current)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def novelty(vectors: Vectors, reference: Vectors, neighbours: int, same: NDArray[np.bool_] | None = None) -> Numbers:
    """How unlike the reference each row is: one minus the mean cosine to its nearest ``neighbours`` there, (N,).

    ``same`` (N, R) marks pairs that do not count: a row and itself, rows of one group.
    The k-nearest-neighbour score of Ramaswamy et al. 2000, with the mean in place of the last distance.
    """
    cosines = unit(vectors) @ unit(reference).T
    if same is not None:
        cosines[same] = -1.0
    k = min(neighbours, cosines.shape[1])
    nearest = np.partition(cosines, -k, axis=1)[:, -k:]
    return 1.0 - nearest.mean(1).astype(np.float64)


def unit(vectors: Vectors) -> Vectors:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY)
