"""Thresholds from windows of the reference: the false alarm rate they promise, and what they take into account."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from lepton_platform.monitoring.calibration import calibrate, family_thresholds, for_size
from lepton_platform.monitoring.distances import ks_distance, total_variation
from lepton_platform.monitoring.signals import Signals

RATE = 0.05


def limits(signals: Signals, groups, size: int, windows: int = 400) -> dict[str, float]:
    found = calibrate(signals, groups, windows=windows, false_alarm_rate=RATE, min_rows=50, seed=0)
    return dict(for_size(found, size))


def independent(rng: np.random.Generator, n: int) -> Signals:
    x = rng.normal(size=n)
    return Signals(
        {"x": x, "y": x + rng.normal(size=n), "count": rng.poisson(1, n).astype(float)},
        {"label": rng.choice(["a", "b", "c"], n, p=[0.7, 0.2, 0.1])},
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from([0.01, 0.05, 0.2]))
def test_no_more_windows_than_promised_exceed_any_threshold(seed, columns, rate):
    rng = np.random.default_rng(seed)
    distances = rng.gamma(2, size=(300, columns)).round(2)  # ties
    distances[:, -1] = distances[:, 0]  # and signals that say the same
    thresholds = family_thresholds(distances, rate)
    assert (distances > thresholds).any(axis=1).mean() <= rate


@pytest.mark.parametrize(("count", "rate"), [(1_000, 0.005), (400, 0.005), (300, 0.05), (1_000, 0.2), (100, 0.5)])
def test_so_few_windows_exceed_a_threshold_that_the_rate_is_sure(count, rate):
    distances = np.arange(count, dtype=float)[:, None]
    exceed = int((distances > family_thresholds(distances, rate)).sum())
    assert binom.cdf(exceed, count, rate) <= 0.05 or exceed == 0
    assert binom.cdf(exceed + 1, count, rate) > 0.05, "fewer than need be: power is lost"


def test_fresh_windows_of_the_same_source_keep_the_promise():
    rng = np.random.default_rng(1)
    reference = independent(rng, 1500)
    by_name = limits(reference, [str(i) for i in range(1500)], 100)
    alarms = 0
    for _ in range(300):
        fresh = independent(rng, 100)
        far = {n: ks_distance(reference.numbers[n], v) for n, v in fresh.numbers.items()}
        far["label"] = total_variation(reference.classes["label"], fresh.classes["label"])
        alarms += any(far[name] > limit for name, limit in by_name.items())
    assert alarms / 300 < 2 * RATE


def test_rows_that_come_in_groups_widen_the_thresholds():
    rng = np.random.default_rng(2)
    groups = [str(i // 25) for i in range(1000)]
    x = np.repeat(rng.normal(size=40), 25) + rng.normal(size=1000) * 0.3
    alone = limits(Signals({"x": x}), [str(i) for i in range(1000)], 100)["x"]
    assert limits(Signals({"x": x}), groups, 100)["x"] > 1.5 * alone


def test_larger_windows_are_held_to_narrower_thresholds():
    reference = independent(np.random.default_rng(3), 1000)
    by_size = [limits(reference, [str(i) for i in range(1000)], size)["x"] for size in (50, 100, 200, 500)]
    assert by_size == sorted(by_size, reverse=True)


def test_a_window_is_judged_by_the_largest_size_it_fills():
    known = {50: {"x": 0.3}, 100: {"x": 0.2}}
    assert [for_size(known, n)["x"] for n in (50, 99, 100, 10_000)] == [0.3, 0.3, 0.2, 0.2]


def test_a_reference_of_less_than_two_windows_tells_nothing():
    small = Signals({"x": np.arange(99.0)})
    assert calibrate(small, [str(i) for i in range(99)], windows=100, false_alarm_rate=RATE, min_rows=50, seed=0) == {}


def test_one_overwhelming_group_leaves_something_to_compare_with():
    rng = np.random.default_rng(4)
    groups = ["big"] * 190 + [str(i) for i in range(10)]
    found = limits(Signals({"x": rng.normal(size=200)}), groups, 100)
    assert 0 < found["x"] < 1


def test_thresholds_are_the_same_every_time():
    reference = independent(np.random.default_rng(5), 300)
    groups = [str(i // 3) for i in range(300)]
    first, second = (limits(reference, groups, 50, windows=100) for _ in range(2))
    assert first == second == pytest.approx(first)
