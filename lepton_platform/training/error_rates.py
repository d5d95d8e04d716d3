"""Word and character errors: the least number of changes that make the answer of the truth (Levenshtein, 1966).

The alignments are jiwer's. Texts come as they are to be compared (``data.transcripts.normalise``); what stands between
two words counts as one space. The rate of a set of texts is the sum of errors by the sum of words (NIST's sclite; Morris,
Maier & Green 2004): it passes 1 where much is added that nobody said.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from jiwer import AlignmentChunk

Pair = tuple[str, str]  # a true word and what was answered for it; "" where the other has no counterpart

WORD_ERRORS = ("substitutions", "insertions", "deletions")
COUNTS = ("words", *WORD_ERRORS, "characters", "character_errors")
_LINE = 84  # characters of an aligned text
_NAMES = ("true", "said", "")


def pairs(truths: Sequence[str], answers: Sequence[str]) -> list[list[Pair]]:
    """The words of each truth beside those of its answer. Without a true word, all that was said is inserted."""
    from jiwer import process_words

    if not truths:
        return []
    found = process_words([_spaced(text) for text in truths], [_spaced(text) for text in answers])
    return [
        [pair for chunk in chunks for pair in _of_chunk(chunk, true, said)]
        for chunks, true, said in zip(found.alignments, found.references, found.hypotheses, strict=True)
    ]


def _of_chunk(chunk: "AlignmentChunk", true: Sequence[str], said: Sequence[str]) -> Iterator[Pair]:
    """jiwer's stretch of equal, substituted, inserted or deleted words."""
    wanted, answered = true[chunk.ref_start_idx : chunk.ref_end_idx], said[chunk.hyp_start_idx : chunk.hyp_end_idx]
    for number in range(max(len(wanted), len(answered))):
        yield wanted[number] if wanted else "", answered[number] if answered else ""


def counts(truths: Sequence[str], answers: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Of each of N texts, every one of ``COUNTS``: (N,). A space is a character."""
    from jiwer import process_characters

    aligned = pairs(truths, answers)
    spaced = [_spaced(text) for text in truths]
    found: dict[str, list[int]] = {
        "words": [len(text.split()) for text in spaced],
        **{kind: [sum(_kind(pair) == kind for pair in row) for row in aligned] for kind in WORD_ERRORS},
        "characters": [len(text) for text in spaced],
        "character_errors": [],
    }
    if spaced:
        chunks = process_characters(spaced, [_spaced(text) for text in answers]).alignments
        found["character_errors"] = [sum(_length(chunk) for chunk in row if chunk.type != "equal") for row in chunks]
    return {name: np.array(values, dtype=np.int64) for name, values in found.items()}


def confusions(aligned: Iterable[Sequence[Pair]]) -> list[tuple[Pair, int, int]]:
    """(pair, how often, the first row that has it) of all that is wrong, the most frequent first."""
    first: dict[Pair, int] = {}
    times: Counter[Pair] = Counter()
    for number, row in enumerate(aligned):
        for pair in row:
            if _kind(pair):
                times[pair] += 1
                first.setdefault(pair, number)
    return [(pair, times[pair], first[pair]) for pair in sorted(times, key=lambda pair: (-times[pair], pair))]


def written(aligned: Sequence[Pair], width: int = _LINE) -> str:
    """Truth over answer, word by word, with S, I or D under what is substituted, inserted or deleted.

    Lines of at most ``width`` characters, where no word is longer; for a font whose letters are all of one width.
    """
    blocks: list[list[str]] = []
    for pair in aligned:
        size = max(map(len, pair))
        cells = [(word or "*" * size).ljust(size) for word in pair] + [(_kind(pair) or " ")[0].upper().ljust(size)]
        if not blocks or len(blocks[-1][0]) + 1 + size > width:
            blocks.append([f"{name:4}" for name in _NAMES])
        blocks[-1] = [f"{line} {cell}" for line, cell in zip(blocks[-1], cells, strict=True)]
    return "\n\n".join("\n".join(line.rstrip() for line in block).rstrip() for block in blocks)


def _kind(pair: Pair) -> str:
    """Which of ``WORD_ERRORS``; "" where the answer is right."""
    true, said = pair
    if true == said:
        return ""
    return "insertions" if not true else "deletions" if not said else "substitutions"


def _length(chunk: "AlignmentChunk") -> int:
    return max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)


def _spaced(text: str) -> str:
    return " ".join(text.split())
