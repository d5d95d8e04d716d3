import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lepton_platform.tasks.sentiment.preprocess import identity, normalise, shingles

MARKUP = st.lists(
    st.sampled_from(
        ["&", "amp;", "lt;", "gt;", "#38;", "<", ">", "/", "br", "a ", "b", "\uff1c", "\ud800", "â€™", ";", " ", "R&B;"]
    )
).map("".join)


@given(st.one_of(st.text(), MARKUP))
@example("&amp;lt;br&amp;gt;")
@example("\ud83d")
def test_normalise_is_total_and_idempotent(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    once.encode("utf-8")  # whatever came in, it can be stored and sent
    assert once == once.strip()


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Lilo &amp; Stitch", "Lilo & Stitch"),
        ("two years ago rap and R&amp;B; names", "two years ago rap and R&B names"),
        ("It was<br /><br />great", "It was great"),
        ("donâ€™t  go\n", "don't go"),
        ("ambition\x85 whole subplots", "ambition… whole subplots"),
        ("I <3 it when x < y and y > z", "I <3 it when x < y and y > z"),
        ("love &notice", "love &notice"),
    ],
)
def test_normalise_mends_what_the_web_does_to_reviews(raw: str, clean: str) -> None:
    assert normalise(raw) == clean


@pytest.mark.parametrize("hostile", ["<a " * 3000 + ">" * 3000, "&" + "amp;" * 2500, "&lt;" * 2500, "\ud800" * 10000])
def test_normalise_takes_no_longer_for_markup_that_nests(hostile: str) -> None:
    started = time.perf_counter()
    assert normalise(normalise(hostile)) == normalise(hostile)
    assert time.perf_counter() - started < 1


@given(st.text(), st.text())
def test_texts_of_the_same_identity_have_the_same_shingles(a: str, b: str) -> None:
    assert shingles(a)
    assert identity(a.upper()) == identity(a.upper().lower())
    if identity(a) == identity(b):
        assert shingles(a) == shingles(b)
