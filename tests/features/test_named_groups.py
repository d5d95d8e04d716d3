"""Groups that are named for a split go there, whatever their hash says, and leave that split to themselves."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lepton_platform.features.split import split_of
from lepton_platform.features.training_set import DatasetParams, _assign
from lepton_platform.stage import StageFailed

NAMES = st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=30, unique=True)


@given(NAMES, st.data())
def test_named_groups_are_their_split_and_others_never_are(names, data):
    chosen = data.draw(st.lists(st.sampled_from(names), unique=True))
    cut = data.draw(st.integers(0, len(chosen)))
    test, validation = chosen[:cut], chosen[cut:]
    params = DatasetParams(test_groups=test, validation_groups=validation, test_share=0.4, validation_share=0.4)
    found = {name: params.split_of(name) for name in names}
    for split, named in (("test", test), ("validation", validation)):
        there = {name for name, its in found.items() if its == split}
        assert set(named) <= there
        assert not named or there == set(named)


@given(NAMES, st.data())
def test_naming_moves_no_other_group_into_a_split_that_names_none(names, data):
    test = data.draw(st.lists(st.sampled_from(names), unique=True))
    params = DatasetParams(test_groups=test)
    for name in set(names) - set(test):
        before = split_of(name, test_share=0.15, validation_share=0.15, salt="lepton")
        after = params.split_of(name)
        assert after == before if before != "test" or not test else after != "test"


def table(*groups: str) -> pa.Table:
    return pa.table({"id": [f"r{n}" for n in range(len(groups))], "photo": list(groups)})


def test_rows_go_with_their_group():
    params = DatasetParams(test_groups=["b"], validation_groups=["c"])
    assert _assign(table("a", "b", "c", "b", "d"), "photo", params) == ["train", "test", "validation", "test", "train"]


def test_a_name_that_no_row_has_is_an_error_that_names_the_groups():
    with pytest.raises(StageFailed, match=r"no row has the photo x, y\. The groups are: a, b\.") as failed:
        _assign(table("b", "a"), "photo", DatasetParams(test_groups=["y", "a"], validation_groups=["x"]))
    assert failed.value.details == {"missing": ["x", "y"], "groups": ["a", "b"]}


def test_a_group_cannot_be_in_two_splits():
    with pytest.raises(ValidationError, match="a cannot be in test_groups and in validation_groups"):
        DatasetParams(test_groups=["a", "b"], validation_groups=["a"])
