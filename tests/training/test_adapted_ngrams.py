"""The language model sums to one after whatever was said, and says what the decoder reads in it."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_platform.training.adapted_ngrams import END, START, arpa

GENERAL = {"press": 3.0, "one": 2.0, "you": 1.0}
SENTENCES = st.lists(st.lists(st.sampled_from(["press", "one", "pound", "key"]), max_size=5), min_size=1, max_size=6)


def read(text: str) -> tuple[dict[tuple[str, ...], float], dict[tuple[str, ...], float]]:
    """Logarithms of chances and of back-off weights, by n-gram, as an ARPA file says them."""
    chances, weights, order = {}, {}, 0
    for line in text.splitlines():
        if line.endswith("-grams:"):
            order = int(line[1])
        elif order and line and not line.startswith("\\"):
            chance, *words = line.split()
            gram = tuple(words[:order])
            chances[gram] = float(chance)
            weights[gram] = float(words[order]) if len(words) > order else 0.0
    return chances, weights


def chance(model, gram: tuple[str, ...]) -> float:
    """Katz's way down, as every reader of the format goes it."""
    chances, weights = model
    if gram in chances:
        return 10 ** chances[gram]
    return 10 ** weights.get(gram[:-1], 0.0) * chance(model, gram[1:])


@given(SENTENCES, st.integers(1, 3))
def test_chances_sum_to_one_after_any_words(sentences, order):
    model = read(arpa(sentences, GENERAL, order))
    words = {"press", "one", "you", END, *(word for sentence in sentences for word in sentence)}
    histories = [(), *product([START, *words], repeat=1), *product(words, repeat=2)] if order > 1 else [()]
    for history in histories:
        assert sum(chance(model, (*history[-order + 1 :], word)) for word in words) == pytest.approx(1, abs=1e-4)


def test_chances_by_hand():
    """After "press": "one" twice, "two" once, so two different words; Witten & Bell leave 2 of 5 to the lower order."""
    model = read(arpa([["press", "one"], ["press", "one"], ["press", "two"]], {"one": 1.0, "you": 1.0}, 2))
    one = 9 / 13 * 2 / 9 + 4 / 13 * 1 / 2  # 9 words and ends are said, 4 of them different
    assert chance(model, ("one",)) == pytest.approx(one, abs=1e-5)
    assert chance(model, ("press", "one")) == pytest.approx(3 / 5 * 2 / 3 + 2 / 5 * one, abs=1e-5)
    assert chance(model, ("press", "you")) == pytest.approx(2 / 5 * 4 / 13 * 1 / 2, abs=1e-5)


def test_the_decoder_reads_the_same_chances(tmp_path):
    from pocketsphinx import LogMath, NGramModel

    text = arpa([["press", "one", "you"], ["press", "the", "pound", "key"], ["you"]], GENERAL)
    file = tmp_path / "words.arpa"
    file.write_text(text)
    logarithms = LogMath()
    language = NGramModel.readfile(str(file))
    model = read(text)
    for gram in (("one",), ("press", "one"), ("press", "key"), ("press", "one", "you"), ("the", "pound", "you")):
        found = logarithms.exp(language.prob(list(reversed(gram))))  # it takes the last word first
        assert found == pytest.approx(chance(model, gram), rel=0.01)


def test_the_order_of_sentences_does_not_matter():
    sentences = [["press", "one"], ["you"], [], ["press", "the", "key"]]
    assert arpa(sentences, GENERAL) == arpa(sentences[::-1], dict(reversed(GENERAL.items())))


def test_nothing_to_learn_from_is_said():
    with pytest.raises(ValueError, match="at least one sentence"):
        arpa([], GENERAL)
