"""How often a model is asked for the figure of its speed: often where it is fast, once where it is slow."""

import time
from collections.abc import Mapping

import numpy as np
import pytest

from lepton_platform.compression import measure


@pytest.mark.parametrize(
    ("seconds", "least", "most"),
    [(0.0, measure._CALLS + measure._BATCHES + 2, measure._CALLS + measure._BATCHES + 2), (0.15, 2, 2), (0.04, 4, 6)],
)
def test_a_slow_model_is_asked_less_often(
    monkeypatch: pytest.MonkeyPatch, seconds: float, least: int, most: int
) -> None:
    monkeypatch.setattr(measure, "_ENOUGH_S", 0.1)
    asked = []

    def answer(inputs: Mapping[str, np.ndarray]) -> None:
        asked.append(len(inputs["x"]))
        time.sleep(seconds)

    found = measure.latency(answer, {"x": np.zeros(1)}, {"x": np.zeros(8)})
    assert least <= len(asked) <= most and set(asked) == {1, 8}
    assert found["p50_ms"] >= 1e3 * seconds and found["batch_rows"] == 8
    if seconds:
        assert found["rows_per_s"] <= 8 / seconds
