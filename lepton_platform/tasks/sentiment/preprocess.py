"""How a review is cleaned and turned into features: what training AND the service run.

Cheap to import: the service reads it at its start.
"""

import html
import re
from collections.abc import Mapping
from html.entities import html5

CONTENT = "text"  # what is learnt from
LABEL = "label"
LABELS = ("rotten", "fresh")
REQUIRED = ("text", "label", "film_id")
IMPUTE: Mapping[str, str] = {}  # a review has no numbers to fill in
RANGES: Mapping[str, tuple[float, float]] = {}  # nor to bring to a range

_TAG = re.compile(
    r"</?(?:a|abbr|b|big|blockquote|br|center|cite|code|dd|del|div|dl|dt|em|font|h[1-6]|hr|i|img|ins|li|ol|p|pre|"
    r"q|s|small|span|strike|strong|sub|sup|table|tbody|td|th|tr|tt|u|ul)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_ENTITY = re.compile(r"&(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_STRAY_SEMICOLON = re.compile(r"(&[A-Za-z]);(?=\W|$)")  # "R&B;": what a web page once took for an entity
_WORD = re.compile(r"\w+(?:'\w+)*")
_PASSES = 6  # markup inside markup inside markup: a text that needs more was made to need it
_SHINGLE_WORDS = 2


def normalise(text: str) -> str:
    """The review as people wrote it: broken encodings mended, HTML taken out, white space made single.

    Total (any string gives a string, lone surrogates included) and idempotent.
    """
    for _ in range(_PASSES):
        mended = _mend(text)
        if mended == text:
            return text
        text = mended
    # Nested on purpose: without its signs nothing can be markup, and what is left settles at once.
    while True:
        mended = _mend(text).replace("<", " ").replace("&", " ").strip()
        if mended == text:
            return text
        text = mended


def _mend(text: str) -> str:
    import ftfy

    text = _TAG.sub(" ", _ENTITY.sub(_character, ftfy.fix_text(text, unescape_html=False)))
    return " ".join(_STRAY_SEMICOLON.sub(r"\1", text).split())


def _character(entity: re.Match[str]) -> str:
    """What an entity stands for; what is not one stays as it is."""
    known = entity[1].startswith("#") or f"{entity[1]};" in html5
    return html.unescape(entity[0]) if known else entity[0]


def size(text: str) -> int:
    """Characters: what ``clean.min_size`` and ``max_size`` count."""
    return len(text)


def words(text: str) -> list[str]:
    """The words of a text, case folded, without punctuation."""
    return _WORD.findall(text.casefold())


def identity(text: str) -> str:
    """Texts with the same identity say the same: case, punctuation and white space do not count."""
    return " ".join(words(text)) or text


def shingles(text: str) -> set[str]:
    """Pairs of neighbouring words, ends marked: the sets whose overlap says how alike two texts are."""
    found = ["", *words(text), ""]
    if len(found) == _SHINGLE_WORDS:
        return {text}
    return {" ".join(found[i : i + _SHINGLE_WORDS]) for i in range(len(found) - _SHINGLE_WORDS + 1)}
