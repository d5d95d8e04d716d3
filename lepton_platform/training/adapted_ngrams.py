"""A general language adapted to few texts: n-grams by interpolated Witten-Bell smoothing, as an ARPA file.

P(w | h) = (count(h w) + T(h) P(w | h')) / (count(h) + T(h)): T(h) is the number of different words seen after h, and h' is
h without its first word (Witten & Bell 1991; Chen & Goodman 1998, §2.6). Where h is empty, h' stands for the general
language. The weights of the lower order are ARPA's back-off weights as they are, so that nothing is lost in writing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import log10

Gram = tuple[str, ...]

START, END = "<s>", "</s>"
_NEVER = -99.0  # the logarithm that ARPA files write for no probability


def arpa(sentences: Sequence[Sequence[str]], general: Mapping[str, float], order: int = 3) -> str:
    """The text of an ARPA file; the same sentences give the same one, whatever their order.

    ``sentences``: of words. ``general``: word → probability in the general language, in any unit. ``ValueError`` where
    there is no sentence.
    """
    if not sentences:
        raise ValueError("A language model needs at least one sentence.")
    chances, shares = _model(sentences, general, order)
    lines = ["\\data\\"]
    lines += [f"ngram {n}={sum(len(gram) == n for gram in chances)}" for n in range(1, order + 1)]
    for n in range(1, order + 1):
        lines += ["", f"\\{n}-grams:"]
        for gram in sorted(gram for gram in chances if len(gram) == n):
            line = f"{_logarithm(chances[gram])} {' '.join(gram)}"
            lines.append(line if n == order else f"{line} {_logarithm(shares.get(gram, 1.0))}")
    return "\n".join([*lines, "", "\\end\\", ""])


def _model(
    sentences: Sequence[Sequence[str]], general: Mapping[str, float], order: int
) -> tuple[dict[Gram, float], dict[Gram, float]]:
    """The probability of each n-gram's last word after the others; of each history, the lower order's share."""
    counts = Counter(gram for words in sentences for gram in _grams([START, *words, END], order))
    del counts[(START,)]  # begins every sentence and is never said
    after: Counter[Gram] = Counter()
    different: Counter[Gram] = Counter()
    for gram, count in counts.items():
        after[gram[:-1]] += count
        different[gram[:-1]] += 1
    shares = {history: different[history] / (after[history] + different[history]) for history in after}

    whole = sum(general.values())
    chances: dict[Gram, float] = {(word,): shares[()] * chance / whole for word, chance in general.items()}
    for gram in sorted(counts, key=len):  # the lower orders first
        history = gram[:-1]
        lower = chances[gram[1:]] if history else general.get(gram[0], 0.0) / whole
        chances[gram] = (1 - shares[history]) * counts[gram] / after[history] + shares[history] * lower
    chances[START,] = 0.0
    return chances, shares


def _grams(words: Sequence[str], order: int) -> list[Gram]:
    return [tuple(words[i : i + n]) for n in range(1, order + 1) for i in range(len(words) - n + 1)]


def _logarithm(chance: float) -> str:
    return f"{log10(chance) if chance > 0 else _NEVER:.6f}"
