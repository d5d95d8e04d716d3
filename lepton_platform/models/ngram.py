"""A language model of few texts: word n-grams by interpolated Kneser-Ney smoothing, as an ARPA file.

P(w | h) = (max(c(h w) − D, 0) + D · N(h) · P(w | h')) / c(h): N(h) is the number of different words seen after h, and h' is h
without its first word. The longest n-grams are counted as they occur; a shorter one counts how many different words
stand before it, since a word that follows one word only is no likely word elsewhere (Kneser & Ney 1995; Chen & Goodman
1998, §4.1.6). D = n1 / (n1 + 2 n2), n1 and n2 the numbers of n-grams that are counted once and twice (Ney, Essen & Kneser
1994). Where h is empty, h' stands for all words alike, the unknown one among them.

The lower order's weights are ARPA's back-off weights as they are, so that nothing is lost in writing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import log10

Gram = tuple[str, ...]

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
_NEVER = -99.0  # the logarithm that ARPA files write for no probability
_DISCOUNT = 0.5  # where too few n-grams occur once and twice to estimate it


def arpa(sentences: Iterable[Sequence[str]], order: int = 3) -> str:
    """The text of an ARPA file; the same sentences give the same one, whatever their order.

    ``sentences``: of words. ``ValueError`` where there is no word.
    """
    counts = adjusted_counts(sentences, order)
    chances, shares = probabilities(counts)
    lines = ["\\data\\", *(f"ngram {n}={sum(len(gram) == n for gram in chances)}" for n in range(1, order + 1))]
    for n in range(1, order + 1):
        lines += ["", f"\\{n}-grams:"]
        for gram in sorted(gram for gram in chances if len(gram) == n):
            line = f"{_logarithm(chances[gram])}\t{' '.join(gram)}"
            lines.append(line if n == order else f"{line}\t{_logarithm(shares.get(gram, 1.0))}")
    return "\n".join([*lines, "", "\\end\\", ""])


def vocabulary(arpa_file: str) -> list[str]:
    """The words that the text of an ARPA file knows, in its order."""
    _, _, behind = arpa_file.partition("\\1-grams:\n")
    lines = behind.partition("\n\n")[0].splitlines()
    return [word for line in lines if (word := line.split("\t")[1]) not in (START, END, UNKNOWN)]


def adjusted_counts(sentences: Iterable[Sequence[str]], order: int) -> list[Counter[Gram]]:
    """Of n-grams of 1 … ``order`` words: how often the longest occur, and how many words stand before a shorter one.

    What begins a sentence has no word before it: it is counted as it occurs.
    """
    occurring: list[Counter[Gram]] = [Counter() for _ in range(order)]
    for words in sentences:
        if reserved := {START, END, UNKNOWN}.intersection(words):
            raise ValueError(f"{min(reserved)} is no word: it has a meaning of its own in a language model")
        if words:
            padded = (START, *words, END)
            for n, counter in enumerate(occurring, start=1):
                counter.update(padded[i : i + n] for i in range(len(padded) - n + 1))
    if not occurring[0]:
        raise ValueError("a language model needs at least one sentence with a word")
    found = []
    for shorter, longer in pairwise(occurring):
        before = Counter(gram[1:] for gram in longer)
        found.append(Counter({gram: count if gram[0] == START else before[gram] for gram, count in shorter.items()}))
    found.append(occurring[-1])
    del found[0][START,]  # begins every sentence and is never said
    return found


def discount(counts: Counter[Gram]) -> float:
    """What is taken from every count of one order, and given to the lower order."""
    times = Counter(counts.values())
    once, twice = times[1], times[2]
    return once / (once + 2 * twice) if once and twice else _DISCOUNT


def probabilities(counts: Sequence[Counter[Gram]]) -> tuple[dict[Gram, float], dict[Gram, float]]:
    """The probability of each n-gram's last word after the others; of each history, the lower order's share."""
    words = sorted({gram[0] for gram in counts[0]} | {UNKNOWN})
    chances: dict[Gram, float] = {(): 1.0 / len(words)}  # of any word, where nothing is known
    shares: dict[Gram, float] = {}
    for grams in counts:
        taken = discount(grams)
        after: Counter[Gram] = Counter()
        different: Counter[Gram] = Counter()
        for gram, count in grams.items():
            after[gram[:-1]] += count
            different[gram[:-1]] += 1
        shares |= {history: taken * different[history] / after[history] for history in after}
        for gram, count in grams.items():
            history = gram[:-1]
            chances[gram] = (count - taken) / after[history] + shares[history] * chances[gram[1:]]
    chances[UNKNOWN,] = shares[()] * chances[()]
    chances[START,] = 0.0
    del chances[()]
    return chances, shares


def _logarithm(chance: float) -> str:
    return f"{log10(chance) if chance > 0 else _NEVER:.6f}"
