"""Distances between samples: what they are, whatever the samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from lepton_platform.monitoring.distances import ks_distance, novelty, total_variation
from lepton_platform.monitoring.signals import Signals

numbers = npst.arrays(np.float64, st.integers(1, 60), elements=st.integers(-5, 5).map(float) | st.floats(-1e9, 1e9))
names = st.lists(st.sampled_from("abcd"), min_size=1, max_size=40).map(np.array)


@settings(deadline=None)  # scipy's import is in the first one
@given(numbers, numbers)
def test_ks_is_scipys_statistic(a, b):
    from scipy.stats import ks_2samp

    with np.errstate(divide="ignore"):  # in its p-value
        assert ks_distance(a, b) == pytest.approx(ks_2samp(a, b, method="asymp").statistic, abs=1e-12)


@given(numbers, numbers, st.randoms(use_true_random=False))
def test_ks_sees_neither_order_nor_scale(a, b, order):
    shuffled = np.array(sorted(a, key=lambda _: order.random()))
    assert ks_distance(a, b) == ks_distance(b, a) == ks_distance(shuffled * 2, b * 2)
    assert 0 <= ks_distance(a, b) <= 1 and ks_distance(a, a) == 0


@given(names, names)
def test_total_variation_is_the_share_that_would_have_to_move(a, b):
    direct = sum(max(0.0, np.mean(a == c) - np.mean(b == c)) for c in "abcd")
    assert total_variation(a, b) == pytest.approx(direct)
    assert total_variation(a, a) == 0


def test_a_class_that_was_never_seen_is_as_far_as_can_be():
    assert total_variation(np.array(["a", "b"]), np.array(["c"])) == 1


def test_novelty_is_small_near_the_reference_and_grows_away_from_it():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(200, 8)).astype(np.float32) + np.eye(8, dtype=np.float32)[0] * 10
    near = reference[:5] + 0.01
    far = -reference[:5]
    assert novelty(near, reference, 3).max() < 0.2 < 1.5 < novelty(far, reference, 3).min()


def test_novelty_leaves_out_marked_pairs():
    vectors = np.eye(3, dtype=np.float32)
    assert novelty(vectors, vectors, 1) == pytest.approx([0, 0, 0])
    assert novelty(vectors, vectors, 1, np.eye(3, dtype=bool)) == pytest.approx([1, 1, 1])


def test_signals_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="different lengths"):
        Signals({"a": np.zeros(2)}, {"b": np.array(["x"])})
