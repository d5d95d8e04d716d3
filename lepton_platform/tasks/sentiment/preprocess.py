"""How a review is cleaned and turned into features: what training AND the service run.

Cheap to import: the service reads it at its start.
"""

import html
import re
from collections.abc import Mapping
from datetime import timedelta
from html.entities import html5
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from lepton_platform.features.views import Column, Entity, FeatureView, Given
from lepton_platform.stage import Params

if TYPE_CHECKING:
    import pyarrow as pa

CONTENT = "text"  # what is learnt from
LABEL = "label"
LABELS = ("rotten", "fresh")
GROUP = "film_id"  # all reviews of a film go to the same split
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


_STOPWORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a about above after again all am an and any are as at be because been before being below between both but by can
        could did do does doing down during each few for from further had has have having he her here hers him his how i
        if in into is it its itself just me more most my myself of off on once only or other our ours out over own same
        she should so some such than that the their theirs them then there these they this those through to too under
        until up very was we were what when where which while who whom why will with would you your yours
        """,
    )
)
_NEGATIONS = frozenset(
    re.findall(r"\w+", "no not never none nobody nothing neither nor nowhere hardly barely scarcely without")
)
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\u2018\u2019“”\u2013—…«»¡¿")


def statistics(text: str) -> dict[str, float]:
    """What can be counted in a text; shares are of the characters (or words) of it and 0 in an empty one."""
    found = words(text)
    characters, count = max(len(text), 1), max(len(found), 1)
    letters = max(sum(map(str.isalpha, text)), 1)
    return {
        "characters": len(text),
        "words": len(found),
        "mean_word_length": sum(map(len, found)) / count,
        "uppercase_share": sum(map(str.isupper, text)) / letters,
        "punctuation_share": sum(c in _PUNCTUATION for c in text) / characters,
        "digit_share": sum(map(str.isdigit, text)) / characters,
        "non_ascii_share": sum(c > "\x7f" for c in text) / characters,
        "exclamations": text.count("!"),
        "questions": text.count("?"),
        "type_token_ratio": len(set(found)) / count,
        "stopword_share": sum(word in _STOPWORDS for word in found) / count,
        "negations": sum(word in _NEGATIONS or word.endswith("n't") for word in found),
    }


def _statistics_of(rows: "pa.Table", given: Given) -> Mapping[str, Any]:
    counted = [statistics(text) for text in rows[CONTENT].to_pylist()]
    return {column.name: [one[column.name] for one in counted] for column in _STATISTICS}


class EmbeddingParams(Params):
    """How reviews are embedded."""

    encoder: str = "minilm"  # the packaged one; or a folder, or a hub's name
    max_tokens: int = 128  # what is beyond is not read; four reviews in five have fewer than 40
    batch: int = 32  # texts
    precision: Literal["float32", "bfloat16"] = "float32"


def _embedding_of(rows: "pa.Table", given: Given) -> Mapping[str, Any]:
    import pyarrow as pa

    from lepton_platform.models.embedding import embed
    from lepton_platform.models.pretrained import encoder

    p: EmbeddingParams = given.params
    vectors_ND = embed(
        rows[CONTENT].to_pylist(),
        encoder(p.encoder, given.cache),
        max_tokens=p.max_tokens,
        batch=p.batch,
        precision=p.precision,
        progress=given.progress,
    )
    return {"embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.ravel()), vectors_ND.shape[1])}


def _history_of(rows: "pa.Table", given: Given) -> "pa.Table":
    """For every film, a row that holds from its first review on, and one that holds just after each review.

    A review never counts in its own history, nor do others of the same moment: what it adds holds from a microsecond
    later. So the last row of a film is what is known of it now, and a join on ``<=`` cannot leak a label. Labels of
    a film's EARLIER reviews do count, also in the test split, as they would be known in service.
    """
    import pyarrow as pa

    names = ("film_id", "event_time", LABEL)
    reviews = sorted(zip(*(rows[name].to_pylist() for name in names), strict=True), key=lambda review: review[:2])
    history: list[dict[str, Any]] = []
    for film, of_film in groupby(reviews, key=lambda review: review[0]):
        fresh = count = 0
        for time, at_once in groupby(of_film, key=lambda review: review[1]):
            if not count:
                history.append({"film_id": film, "event_timestamp": time, "past_reviews": 0})
            labels = [label for _, _, label in at_once]
            fresh, count = fresh + labels.count("fresh"), count + len(labels)
            after = time + timedelta(microseconds=1)
            row = {"film_id": film, "event_timestamp": after, "past_reviews": count, "past_fresh_share": fresh / count}
            history.append(row)
    time = pa.timestamp("us", tz="UTC")
    types = {
        "film_id": pa.string(),
        "event_timestamp": time,
        "past_reviews": pa.int64(),
        "past_fresh_share": pa.float32(),
    }
    table = pa.Table.from_pylist(history, pa.schema(types))
    return table.append_column("created_timestamp", table["event_timestamp"])


_REVIEW = Entity("review_id", "id", "One review, by its stable id.")
_FILM = Entity("film_id", "film_id", "A film, whose reviews may be many.")
_STATISTICS = (
    Column("characters", "int64", "Length of the text."),
    Column("words", "int64", "Runs of letters and digits."),
    Column("mean_word_length", "float32", "Characters a word."),
    Column("uppercase_share", "float32", "Of the letters."),
    Column("punctuation_share", "float32", "Of the characters."),
    Column("digit_share", "float32", "Of the characters."),
    Column("non_ascii_share", "float32", "Of the characters."),
    Column("exclamations", "int64", "Exclamation marks."),
    Column("questions", "int64", "Question marks."),
    Column("type_token_ratio", "float32", "Different words, of all words."),
    Column("stopword_share", "float32", "Words that carry grammar, of all words."),
    Column("negations", "int64", "Words that turn a sentence round: not, never, isn't."),
)
FEATURE_VIEWS = (
    FeatureView(
        name="text_statistics",
        entity=_REVIEW,
        columns=_STATISTICS,
        function=_statistics_of,
        reads=(CONTENT,),
        description="What can be counted in a review's text.",
        owner="sentiment",
    ),
    FeatureView(
        name="text_embedding",
        entity=_REVIEW,
        columns=(Column("embedding", "float32[]", "Mean-pooled tokens of the encoder, of length one."),),
        function=_embedding_of,
        reads=(CONTENT,),
        description="What a review means, as a sentence encoder sees it.",
        owner="sentiment",
        params=EmbeddingParams,
    ),
    FeatureView(
        name="film_history",
        entity=_FILM,
        columns=(
            Column("past_reviews", "int64", "Reviews of the film before this moment."),
            Column("past_fresh_share", "float32", "Of them, the fresh; null before the first.", nullable=True),
        ),
        function=_history_of,
        reads=(LABEL,),
        description="What earlier reviews said of a film, as of a moment.",
        owner="sentiment",
        by_row=False,
    ),
)
