"""Texts of speech: references and answers alike are brought to one form before they are compared.

That form is Whisper's (Radford et al. 2022, appendix C): lower case, no punctuation, numbers in figures, British and
American spelling alike, without hesitations ("uh") and without what stands in brackets. Before it, a telephone's keys
are written as they are said.
"""

import re
from collections.abc import Callable
from functools import cache

MAX_CHARACTERS = 5_000  # in a recording of a minute nobody says as much

_KEYS = {"#": " pound ", "*": " star "}  # of a telephone, as they are said
_KEY = re.compile(r"(?<!\w)[#*](?!\w)")
_BRACKETED = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_MOST_PASSES = 8


def normalise(text: str) -> str:
    """The text as transcripts are compared; of any string, and the same for what it gave already."""
    found = spoken(text)
    for _ in range(_MOST_PASSES):
        said = " ".join(word for word in _normaliser()(found).split() if _has_words(word))
        if said == found:
            break
        found = said
    return found


def spoken(text: str) -> str:
    """The text with signs that stand alone as they are said: press # is press pound."""
    return _KEY.sub(lambda key: _KEYS[key[0]], text)


def letters(text: str) -> str:
    """The text as it sounds, in letters alone: figures are read digit by digit, as telephones mostly do."""
    said = re.sub(r"\d", lambda digit: f" {_DIGITS[int(digit[0])]} ", spoken(text.lower()))
    return " ".join(re.findall(r"[a-z]+(?:'[a-z]+)*", said))


def words(text: str) -> list[str]:
    """The words of the text as ``normalise`` leaves it."""
    return normalise(text).split()


def speakable(text: str) -> str | None:
    """Why nobody can have said the text as it is written ("[beep]"); ``None`` where one can.

    Signs in brackets ("dollar [$]") only show how a word is written.
    """
    stripped = text.strip()
    if not stripped:
        return "the transcript is empty"
    if len(stripped) > MAX_CHARACTERS:
        return f"the transcript has {len(stripped):,} characters; nobody says more than {MAX_CHARACTERS:,}"
    if remark := next(filter(_has_words, _BRACKETED.findall(stripped)), None):
        return f"the transcript has a remark in brackets, {remark[:60]!r}, which nobody says"
    if not _has_words(stripped):
        return "the transcript has no letters and no figures"
    if not words(stripped):
        return "nothing is left of the transcript but hesitation"
    return None


def _has_words(text: str) -> bool:
    return any(letter.isalnum() for letter in text)


@cache
def _normaliser() -> Callable[[str], str]:
    """Made once: it compiles some two hundred expressions and reads a table of spellings."""
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()
