"""Windows of served rows, judged as ``monitoring.drift`` judges them, without Evidently's page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lepton_platform.monitoring import calibration, distances, reference
from lepton_platform.monitoring.drift import DriftParams


class Windows:
    """The reference of a task's part, made of ``rows``, and windows compared with it."""

    def __init__(self, part: Any, rows: pa.Table, params: DriftParams) -> None:
        self.part, self.params = part, params
        made = part.reference(rows) if hasattr(part, "reference") else rows
        chosen = {name: getattr(params, name) for name in ("neighbours", "windows", "min_rows", "seed")}
        groups = reference.groups_of(made, part.GROUP)
        signals = part.inputs(made, Path())
        self.known = reference.build(signals, groups, false_alarm_rate=params.false_alarm_rate / 2, **chosen)

    def alarms(self, rows: pa.Table, sizes: Sequence[int], repeats: int, seed: int = 1) -> dict[int, int]:
        """Size of a window → how many of ``repeats`` windows of so many of the ``rows`` are drift."""
        whole = self.known.watched(self.part.inputs(rows, Path()), self.params.neighbours).numbers
        rng = np.random.default_rng(seed)
        found = {}
        for size in sizes:
            limits = calibration.for_size(self.known.thresholds, size)
            windows = [rng.choice(rows.num_rows, size, replace=False) for _ in range(repeats)]
            found[size] = sum(self._drifted(whole, window, limits) for window in windows)
        return found

    def _drifted(self, whole: Any, window: np.ndarray, limits: Any) -> bool:
        known = self.known.signals.numbers
        far = {name: distances.ks_distance(known[name], whole[name][window]) for name in limits}
        return any(far[name] > max(limit, self.params.min_distance) for name, limit in limits.items())
