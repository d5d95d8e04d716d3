"""Windows of served rows, judged as ``monitoring.drift`` judges them, without Evidently's page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lepton_platform.monitoring.drift import DriftParams, judged
from lepton_platform.monitoring.reference import ReferenceParams, build
from lepton_platform.monitoring.sampling import groups_of
from lepton_platform.monitoring.signals import Signals
from lepton_platform.monitoring.sketches import Sketches


class Windows:
    """The reference of a task's part, made of ``rows``, and windows compared with it."""

    def __init__(self, part: Any, rows: pa.Table, params: ReferenceParams, min_distance: float = 0.1) -> None:
        self.part, self.params = part, DriftParams(min_distance=min_distance)
        made = part.reference(rows) if hasattr(part, "reference") else rows
        self.known = build(part.inputs(made, Path()), groups_of(made, part.GROUP), params)

    def alarms(self, rows: pa.Table, sizes: Sequence[int], repeats: int, seed: int = 1) -> dict[int, int]:
        """Size of a window → how many of ``repeats`` windows of so many of the ``rows`` are drift."""
        whole = self.known.watched(self.part.inputs(rows, Path()))
        rng = np.random.default_rng(seed)
        return {size: sum(self._drifted(whole, size, rng) for _ in range(repeats)) for size in sizes}

    def _drifted(self, whole: Signals, size: int, rng: np.random.Generator) -> bool:
        rows = rng.choice(len(whole), size, replace=False)
        window = Signals({name: values[rows] for name, values in whole.numbers.items()})
        return any(one.drifted for one in judged(self.known, window, Sketches(), self.params))
