"""MinHash finds what comparing every pair finds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.data.duplicates import _bands, near_duplicates

WORDS = [f"w{n}" for n in range(12)]


def by_comparing_all(sets: list[set[str]], threshold: float) -> list[int]:
    kept: list[int] = []
    gone: list[int] = []
    for place, own in enumerate(sets):
        alike = any(len(own & sets[k]) / len(own | sets[k]) >= threshold for k in kept)
        (gone if alike else kept).append(place)
    return gone


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.sampled_from(WORDS), min_size=1), max_size=25), st.sampled_from([0.5, 0.7, 0.8, 0.9]))
def test_it_finds_what_comparing_all_pairs_finds(sets, threshold):
    assert [like.place for like in near_duplicates(sets, threshold)] == by_comparing_all(sets, threshold)


@given(st.floats(0.3, 0.95), st.sampled_from([64, 128, 256]))
def test_bands_miss_at_most_one_pair_in_ten_thousand_at_the_threshold(threshold, permutations):
    bands, rows = _bands(threshold, permutations)
    assert bands * rows <= permutations
    assert rows == 1 or (1 - threshold**rows) ** bands <= 1e-4


def test_the_likeness_names_the_earlier_one_and_its_similarity():
    (like,) = near_duplicates([{"a"}, {"x", "y", "z"}, {"x", "y", "z", "q"}], 0.7)
    assert (like.place, like.of, like.similarity) == (2, 1, 0.75)


@pytest.mark.parametrize("threshold", [0, 1, -1])
def test_a_threshold_outside_its_range_is_refused(threshold):
    with pytest.raises(ValueError, match="between 0 and 1"):
        list(near_duplicates([{"a"}], threshold))
