"""Figures from expositions: quantiles as Prometheus has them, counters that begin again, labels that come late."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_platform.database import engine
from lepton_platform.gateway import gpus, loop_metrics
from lepton_platform.gateway.labelled import Agreed, Labelled
from lepton_platform.gateway.loop import Loop, State, read_drift
from lepton_platform.gateway.metrics import Metrics, text
from lepton_platform.gateway.samples import Samples, quantile
from lepton_platform.monitoring.alerts import Alerts
from lepton_platform.serving.log_reader import FEEDBACK, PREDICTIONS
from lepton_platform.serving.prediction_log import DurableLog
from lepton_platform.settings import Settings
from tests.gateway.nvml import Nvml

BOUNDS = [0.1, 0.5, 1.0, 5.0, float("inf")]


@given(st.lists(st.integers(0, 50), min_size=5, max_size=5), st.integers(1, 99))
def test_a_quantile_lies_in_the_class_that_has_it(counts: list[int], percent: int) -> None:
    buckets = dict(zip(BOUNDS, map(float, accumulate(counts)), strict=True))
    found = quantile(percent / 100, buckets)
    if not sum(counts):
        assert found is None
        return
    assert found is not None
    rank = percent / 100 * sum(counts)
    place = next(i for i, total in enumerate(accumulate(counts)) if total >= rank)
    low, high = ([0.0, *BOUNDS][place], BOUNDS[place])
    assert low <= found <= (5.0 if place == 4 else high)
    if place < 4 and counts[place]:
        inside = rank - sum(counts[:place])
        assert found == pytest.approx(np.interp(inside, [0, counts[place]], [low, high]))


def test_a_process_that_began_again_counts_from_nothing() -> None:
    before = Samples.of([({"role": "champion"}, 'lepton_requests_total{route="/predict",status="200"} 90\n')])
    again = Samples.of([({"role": "champion"}, 'lepton_requests_total{route="/predict",status="200"} 7\n')])
    more = Samples.of([({"role": "champion"}, 'lepton_requests_total{route="/predict",status="200"} 95\n')])
    assert again.since(before).sum("lepton_requests_total") == 7
    assert more.since(before).sum("lepton_requests_total", role="champion") == 5
    assert more.since(Samples()).sum("lepton_requests_total") == 95
    assert more.since(before).sum("lepton_requests_total", role="canary") == 0


def test_what_was_rendered_is_read_back() -> None:
    metrics = Metrics()
    for seconds in (0.0004, 0.002, 0.2):
        metrics.request('a "task"', "/v1/{task}/predict", 200, seconds)
    found = Samples.of([({}, metrics.render()[0].decode())])
    buckets = found.buckets("lepton_gateway_request_seconds", task='a "task"')
    assert buckets[0.0005] == 1 and buckets[0.25] == buckets[float("inf")] == 3


# --- labels


def test_labels_are_counted_as_they_come_by_the_last_word(tmp_path: Path) -> None:
    with_log = tmp_path / "sentiment"
    answers, words = DurableLog(with_log, PREDICTIONS), DurableLog(with_log, FEEDBACK)
    rows = [{"model": f"sentiment:{name}", "text": "x", "label": "fresh"} for name in "aab"]
    ids = answers.append(rows)
    labelled, week = Labelled(tmp_path), datetime.now(UTC) - timedelta(days=7)
    assert labelled.of("sentiment", week) == {}
    words.append([{"prediction_id": ids[0], "label": "fresh"}, {"prediction_id": ids[2], "label": "rotten"}])
    words.append([{"prediction_id": "01a20d4c-c5bc-7471-b97d-133fa2be7c71", "label": "fresh"}])  # of no answer
    assert labelled.of("sentiment", week) == {"sentiment:a": Agreed(1, 1), "sentiment:b": Agreed(0, 1)}
    words.append([{"prediction_id": ids[0], "label": "rotten"}, {"prediction_id": ids[1], "label": "fresh"}])
    found = {"sentiment:a": Agreed(1, 2), "sentiment:b": Agreed(0, 1)}
    assert labelled.of("sentiment", week) == found == labelled.of("sentiment", week)
    assert Labelled(tmp_path).of("sentiment", datetime.now(UTC) + timedelta(seconds=1)) == {}
    for log in (answers, words):
        log.close()


# --- what is read defensively


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '"x"', '{"signals": 3}', '{"state": "passed", "n_current": "many"}']
)
def test_a_result_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "result.json"
    assert read_drift(path) is None
    path.write_text(content, "utf-8")
    assert read_drift(path) is None


def test_a_signal_without_its_figures_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(
        '{"state": "new", "signals": [{"name": "a"}, {"name": "b", "distance": 2, "threshold": 1}]}', "utf-8"
    )
    found = read_drift(path)
    assert found is not None and found.state == "not_judged"
    assert [(signal.name, signal.drifted) for signal in found.signals] == [("b", True)]


def test_a_state_that_cannot_be_read_stays_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(workspace=tmp_path)
    Alerts(settings, []).raised("trees", "drift", "fog")
    loop = Loop(settings)

    async def twice() -> tuple[State, State]:
        first = await loop.latest(["trees"])
        engine(settings.database_url).dispose()
        for path in settings.state_dir.glob("state.sqlite*"):
            path.write_bytes(b"This is no database, said the letter." * 100)
        loop._read_at = 0.0  # as if some seconds had passed
        return first, await loop.latest(["trees"])

    first, second = asyncio.run(twice())
    assert first is second and [alert.why for alert in first.alerts] == ["fog"] and first.read_at > 0
    assert "the state of the loop cannot be read" in caplog.text


# --- graphics processors


def test_a_card_has_its_series_and_no_card_has_none(tmp_path: Path) -> None:
    told = text(loop_metrics.machine(tmp_path, gpus.read(Nvml())))
    assert 'lepton_gpu_busy_ratio{gpu="0",name="A card"} 0.25' in told
    assert 'lepton_gpu_temperature_celsius{gpu="0",name="A card"} 41.0' in told
    assert 'lepton_gpu_power_watts{gpu="1",name="A card"} 75.0' in told and 'power_watts{gpu="0"' not in told
    assert "lepton_gpu" not in text(loop_metrics.machine(tmp_path, []))
