"""Transcripts are compared in one form, and what nobody can have said is told."""

import subprocess
import sys
import time
from string import ascii_letters, digits

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.data.transcripts import MAX_CHARACTERS, letters, normalise, speakable, words

HARD = "one oh and a half point hundred twenty-five uh mister mr. it's 1 2 3.5 0.1 £ $ % -5 ½ ² ٣ ( ) [ ] < > é ß"


@pytest.mark.parametrize(
    ("said", "form"),
    [
        ("Your call cannot be completed as dialed.", "your call cannot be completed as dialed"),
        ("It's  uh 25 dollars...", "it is $25"),
        ("twenty-five hundred", "2500"),
        ("Colour the theatre", "color the theater"),
        ("Mr. Smith won't", "mister smith will not"),
        ("dollar [$]", "dollar"),
        ("", ""),
    ],
)
def test_texts_that_sound_the_same_get_one_form(said, form):
    assert normalise(said) == form
    assert words(said) == form.split()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(HARD.split()), max_size=9).map(" ".join))
def test_any_text_has_a_form_that_stays(text):
    once = normalise(text)
    assert normalise(once) == once == once.strip()
    assert "  " not in once and words(once) == words(text)


def test_a_long_row_of_brackets_takes_no_longer_than_it_should():
    start = time.perf_counter()
    assert speakable("[a" * (MAX_CHARACTERS // 2)) is None
    assert time.perf_counter() - start < 5


def test_lone_surrogates_are_texts_too():
    assert normalise("press \ud800 one") == normalise(normalise("press \ud800 one"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  ", "is empty"),
        ("[beep]", "has a remark in brackets"),
        ("<beep ascending>", "has a remark in brackets"),
        ("(10 seconds of silence)", "has a remark in brackets"),
        ("After the tone. (simple tone\nsound plays)", "has a remark in brackets"),
        ("a < b and b > c", "has a remark in brackets"),  # and no form of it would have the middle
        ("?!", "no letters and no figures"),
        ("uh, um", "nothing is left"),
        ("a" * (MAX_CHARACTERS + 1), "5,001 characters"),
    ],
)
def test_what_nobody_says_is_told(text, said):
    assert said in (speakable(text) or "")


def test_what_people_say_passes():
    for text in (
        "Activated.",
        "7",
        "dollar [$]",
        "less than [<]",
        "at [@]",
        "I have a caller, who is:",
    ):
        assert speakable(text) is None, text


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="[]()<> \n" + digits + ascii_letters, max_size=40))
def test_what_can_be_spoken_has_words(text):
    if speakable(text) is None:
        assert words(text)


def test_importing_it_opens_no_library():
    code = "import sys, lepton_platform.data.transcripts; print({'whisper_normalizer', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_keys_of_a_telephone_are_words_and_stray_points_are_none():
    assert (
        normalise("Press * to toggle pause, or just # to exit.") == "press star to toggle pause or just pound to exit"
    )
    assert normalise("... to the other participants ...") == "to the other participants"
    assert normalise("C# and 2*3") == normalise("c# and 2*3") and "pound" not in normalise("C#")


def test_letters_are_what_is_heard():
    assert letters("Press 2 or #, it's 4:10 [sic]") == "press two or pound it's four one zero sic"
    assert letters("...") == ""
