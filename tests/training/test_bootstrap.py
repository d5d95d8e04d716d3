"""The bootstrap says what it claims: it covers, it is symmetric, it repeats itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lepton_platform.training import bootstrap
from lepton_platform.training.bootstrap import interval, paired_difference

ROWS = st.integers(1, 60)
SCORES = ROWS.flatmap(lambda n: st.tuples(*[arrays(np.float64, n, elements=st.floats(-5, 5, width=32))] * 2))


@settings(max_examples=60, deadline=None)
@given(SCORES)
def test_the_interval_holds_the_estimate_and_stays_within_the_data(scores):
    values, _ = scores
    found = interval(values, repeats=200)
    assert found.estimate == pytest.approx(values.mean(), abs=1e-9)
    assert values.min() - 1e-9 <= found.low <= found.high <= values.max() + 1e-9


@settings(max_examples=60, deadline=None)
@given(SCORES)
def test_swapping_the_models_mirrors_the_difference(scores):
    a, b = scores
    one, other = paired_difference(a, b, repeats=200), paired_difference(b, a, repeats=200)
    assert one.estimate == pytest.approx(-other.estimate, abs=1e-9)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(SCORES, st.integers(0, 5))
def test_equal_scores_never_differ_and_the_same_seed_says_the_same(scores, seed):
    a, b = scores
    assert paired_difference(a, a, seed=seed, repeats=50) == (0.0, 0.0, 0.0)
    assert paired_difference(a, b, seed=seed, repeats=50) == paired_difference(a, b, seed=seed, repeats=50)


@settings(max_examples=40, deadline=None)
@given(SCORES)
def test_groups_of_one_row_are_no_groups(scores):
    values, _ = scores
    names = [f"{i:04d}" for i in range(len(values))]
    assert interval(values, groups=names, repeats=100) == pytest.approx(interval(values, repeats=100), abs=1e-12)


def test_drawing_in_pieces_changes_nothing(monkeypatch):
    values = np.random.default_rng(0).normal(size=(50, 2))
    whole = interval(values, repeats=300)
    monkeypatch.setattr(bootstrap, "_DRAWN_AT_ONCE", 120)
    assert interval(values, repeats=300) == pytest.approx(whole, abs=1e-12)


def _coverage(draw, groups, truth, worlds=300):
    """In how many of the simulated worlds does the 95 % interval hold the truth?"""
    held = 0
    for world in range(worlds):
        found = interval(draw(np.random.default_rng(world)), groups=groups, repeats=400, seed=world)
        held += found.low <= truth <= found.high
    return held / worlds


def test_it_covers_what_it_says_for_independent_rows():
    assert 0.91 <= _coverage(lambda rng: rng.random(200) < 0.8, None, 0.8) <= 0.985


def test_groups_need_the_cluster_bootstrap():
    """60 films of 10 reviews, each film with its own difficulty: only drawing films covers."""
    films = np.repeat(np.arange(60), 10)

    def draw(rng):
        return rng.random(600) < rng.beta(4, 1, size=60)[films]

    assert _coverage(draw, films, 0.8) >= 0.90
    assert _coverage(draw, None, 0.8) <= 0.85


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(1)
    hard = rng.random(500)
    a, b = (hard < 0.8).astype(float), (hard < 0.75).astype(float)
    paired = paired_difference(a, b)
    apart = interval(a).high - interval(a).low + interval(b).high - interval(b).low
    assert paired.low > 0
    assert paired.high - paired.low < apart / 2


def test_a_statistic_of_several_totals():
    """A ratio of sums (word error rate): errors over words."""
    errors, words = np.array([1.0, 0, 2, 1]), np.array([5.0, 7, 4, 9])
    found = interval(np.column_stack([errors, words]), lambda t, _: t[:, 0] / t[:, 1])
    assert found.estimate == 4 / 25
    assert found.low < found.estimate < found.high


def test_draws_without_the_figure_are_left_out():
    """A slice with no row in a draw has no accuracy in it."""
    inside = np.array([1.0] + [0.0] * 9)
    found = interval(np.column_stack([inside, inside]), lambda t, _: t[:, 0] / np.where(t[:, 1] > 0, t[:, 1], np.nan))
    assert found == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0, 2.0]), ([], [])])
def test_what_cannot_be_compared_is_refused(a, b):
    with pytest.raises(ValueError, match=r"length|at least one row"):
        paired_difference(a, b)
