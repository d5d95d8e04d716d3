"""The split: a group's name alone decides, so nothing that is added later moves a row."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from lepton_platform.features.split import SPLITS, place, split_of

SHARES: dict[str, Any] = {"test_share": 0.15, "validation_share": 0.15, "salt": "lepton"}


@given(st.text(), st.text())
@example("\ud800", "")
def test_every_name_has_a_place_and_one_split(name: str, salt: str) -> None:
    assert 0 <= place(name, salt) < 1
    assert split_of(name, test_share=0.2, validation_share=0.3, salt=salt) in SPLITS


@given(st.text(), st.floats(0.01, 0.98), st.floats(0.01, 0.98), st.floats(0.01, 0.98))
def test_a_larger_share_only_takes_and_validation_leaves_test_alone(name, share, more, other) -> None:
    small, large = sorted((share, more))
    before = split_of(name, test_share=small, validation_share=other, salt="s")
    after = split_of(name, test_share=large, validation_share=other, salt="s")
    assert before != "test" or after == "test"
    moved = split_of(name, test_share=small, validation_share=more, salt="s")
    assert (before == "test") == (moved == "test")


def test_the_shares_are_met_for_names_that_are_alike() -> None:
    found = [split_of(f"film-{n:05d}", **SHARES) for n in range(20_000)]
    assert abs(found.count("test") / 20_000 - 0.15) < 0.01
    assert abs(found.count("validation") / 20_000 - 0.85 * 0.15) < 0.01


def test_the_draw_is_the_one_that_models_were_judged_by() -> None:
    """Another answer here is another test split everywhere: models of before and after could not be compared."""
    drawn = {split: [n for n in range(30) if split_of(f"f{n}", **SHARES) == split] for split in SPLITS[1:]}
    assert drawn == {"validation": [0, 18, 19, 26], "test": [8, 11, 24, 27]}
