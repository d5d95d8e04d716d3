"""Sketches against the distances they stand for: exact where rows are few, within their error where they are many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.monitoring.distances import ks_distance, total_variation
from lepton_platform.monitoring.signals import Signals
from lepton_platform.monitoring.sketches import RANK_ERROR, K, Sketches

some_numbers = st.lists(st.floats(-5, 5).map(lambda x: round(x, 1)), min_size=1, max_size=K)
some_names = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=60)


def sketched(found: Signals, *cuts: int) -> Sketches:
    """Of the pieces between the cuts, each through the library's bytes, merged."""
    total = Sketches()
    for start, stop in zip((0, *sorted(cuts)), (*sorted(cuts), len(found)), strict=True):
        one, read = Sketches(), Sketches()
        one.update(Signals(*({n: v[start:stop] for n, v in kind.items()} for kind in (found.numbers, found.classes))))
        for row in one.dump():
            read.take(row)
        total.merge(read)
    return total


@settings(max_examples=60, deadline=None)
@given(some_numbers, some_numbers, st.lists(st.integers(0, K), max_size=3))
def test_of_few_numbers_the_distance_is_exact_however_they_were_cut(then, now, cuts):
    then, now = np.array(then), np.array(now)
    found = sketched(Signals({"x": now}), *(min(cut, len(now)) for cut in cuts))
    assert found.rows("x") == len(now)
    assert found.distance("x", then) == pytest.approx(ks_distance(then, now), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(some_names, some_names, st.lists(st.integers(0, 60), max_size=3))
def test_of_few_classes_the_distance_is_exact_however_they_were_cut(then, now, cuts):
    then, now = np.array(then), np.array(now)
    found = sketched(Signals(classes={"label": now}), *(min(cut, len(now)) for cut in cuts))
    assert found.rows("label") == len(now)
    assert found.distance("label", then) == pytest.approx(total_variation(then, now), abs=1e-9)


@pytest.mark.parametrize("digits", [0, 1, 6])
def test_of_many_numbers_the_distance_is_within_the_error(digits):
    rng = np.random.default_rng(digits)
    then, now = rng.normal(0.3, 1, 2_000).round(digits), rng.normal(0, 1, 300_000).round(digits)
    found = sketched(Signals({"x": now}), *range(10_000, 300_000, 10_000))
    assert found.rows("x") == 300_000
    assert found.distance("x", then) == pytest.approx(ks_distance(then, now), abs=3 * RANK_ERROR)


def test_memory_is_bounded_whatever_classes_come():
    rng, found = np.random.default_rng(0), Sketches()
    for _ in range(10):
        often = np.where(rng.random(20_000) < 0.5, "often", rng.integers(0, 10**12, 20_000).astype(str))
        found.update(Signals({"x": rng.normal(size=20_000)}, {"label": often}))
    assert sum(len(row["data"]) for row in found.dump()) < 60_000
    assert found.rows("label") == 200_000
    assert found.distance("label", np.array(["often"] * 9 + ["seldom"])) == pytest.approx(0.5, abs=0.01)


def test_what_was_never_seen_has_no_rows_and_what_is_no_number_does_not_count():
    found = Sketches()
    found.update(Signals({"x": np.array([1.0, np.nan, 2.0])}))
    assert (found.rows("x"), found.rows("y")) == (2, 0)
