"""Filling what is missing, without a look at the row's own future or at another group."""

import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_platform.data.impute import impute, to_unit_range

TABLE = pa.table({"t": [3, 1, 2, 4], "x": [None, 2.0, None, 8.0], "n": pa.array([None, 1, None, 4], pa.int64())})


@pytest.mark.parametrize(
    ("rule", "x"),
    [
        ("mean", [2.0, 2.0, 2.0, 8.0]),
        ("last", [2.0, 2.0, 2.0, 8.0]),
        ("median", [2.0, 2.0, 2.0, 8.0]),
        ("interpolate", [6.0, 2.0, 4.0, 8.0]),
        (7.5, [7.5, 2.0, 7.5, 8.0]),
    ],
)
def test_each_rule_fills_in_the_order_of_time_and_leaves_the_rows_where_they_lie(rule, x):
    table, filled = impute(TABLE, {"x": rule}, "t", "gggg")
    assert table["x"].to_pylist() == x and table["t"].to_pylist() == [3, 1, 2, 4]
    assert filled == {"x": 2}


def test_nothing_before_means_nothing_filled():
    table, filled = impute(pa.table({"t": [1, 2], "x": [None, 5.0]}), {"x": "mean"}, "t", "gg")
    assert table["x"].to_pylist() == [None, 5.0] and filled == {"x": 0}


def test_whole_numbers_become_fractions_where_a_mean_fills_them():
    assert impute(TABLE, {"n": "interpolate"}, "t", "gggg")[0]["n"].to_pylist() == [3.0, 1.0, 2.0, 4.0]


def test_an_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="mean, median, last, interpolate"):
        impute(TABLE, {"x": "guess"}, "t", "gggg")


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1), st.sampled_from(["mean", "median", "last"]))
def test_what_comes_later_changes_nothing_before_it(values, rule):
    def filled(column: list[float | None]) -> list[float | None]:
        table = pa.table({"t": range(len(column)), "x": pa.array(column, pa.float64())})
        return impute(table, {"x": rule}, "t", [0] * len(column))[0]["x"].to_pylist()

    cut = len(values) // 2
    assert filled(values)[:cut] == filled(values[:cut])
    known = [v for v in values if v is not None]
    assert all(v is None or min(known) - 1e-6 <= v <= max(known) + 1e-6 for v in filled(values))


CELLS = st.lists(st.tuples(st.sampled_from("ab"), st.one_of(st.none(), st.floats(-1e6, 1e6))), min_size=1)


@given(CELLS, st.sampled_from(["mean", "median", "last", "interpolate"]))
def test_a_group_is_filled_as_if_the_others_were_not_there(cells, rule):
    def filled(rows: list[tuple[str, float | None]]) -> list[float | None]:
        table = pa.table({"t": range(len(rows)), "x": pa.array([x for _, x in rows], pa.float64())})
        return impute(table, {"x": rule}, "t", [group for group, _ in rows])[0]["x"].to_pylist()

    together = filled(cells)
    for group in "ab":
        mine = [n for n, (of, _) in enumerate(cells) if of == group]
        assert [together[n] for n in mine] == filled([cells[n] for n in mine])


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))))
def test_a_declared_range_becomes_zero_to_one(values):
    scaled = to_unit_range(pa.table({"x": pa.array(values, pa.float64())}), {"x": (-10, 30)})["x"].to_pylist()
    for before, after in zip(values, scaled, strict=True):
        assert (after is None) == (before is None)
        assert after is None or math.isclose(after, min(max((before + 10) / 40, 0), 1), abs_tol=1e-12)


def test_a_range_that_is_none_is_refused():
    with pytest.raises(ValueError, match="is not below"):
        to_unit_range(TABLE, {"x": (1, 1)})
