"""What is watched of a batch of rows: numbers, classes and vectors, a value a row."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]  # (N,)
Vectors = NDArray[np.float32]  # (N, D)
Names = NDArray[np.str_]  # (N,)


@dataclass(frozen=True)
class Signals:
    """Signals of N rows by name: ``numbers`` (N,), ``classes`` (N,) of strings, ``vectors`` (N, D)."""

    numbers: Mapping[str, Numbers] = field(default_factory=dict)
    classes: Mapping[str, Names] = field(default_factory=dict)
    vectors: Mapping[str, Vectors] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {name: len(values) for kind in self._kinds() for name, values in kind.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"Signals of different lengths: {sizes}.")

    def _kinds(self) -> tuple[Mapping[str, NDArray], ...]:
        return (self.numbers, self.classes, self.vectors)

    def __len__(self) -> int:
        return next((len(values) for kind in self._kinds() for values in kind.values()), 0)
