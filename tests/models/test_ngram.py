"""Word n-grams: counts by hand, probabilities that sum to one, and an ARPA file that KenLM reads as it was meant."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.models.ngram import END, START, UNKNOWN, adjusted_counts, arpa, discount, vocabulary

TWO = [["a", "b"], ["a", "c", "b"]]


def read(file: str) -> tuple[dict[tuple[str, ...], float], dict[tuple[str, ...], float]]:
    """The logarithms of an ARPA file: of each n-gram, and of each history's back-off."""
    lines = [line.split("\t") for line in file.splitlines() if "\t" in line]
    return (
        {tuple(line[1].split()): float(line[0]) for line in lines},
        {tuple(line[1].split()): float(line[2]) for line in lines if len(line) == 3},
    )


def chance(file: str, history: tuple[str, ...], word: str) -> float:
    """The probability of a word, as everybody reads an ARPA file."""
    logarithms, backoffs = read(file)
    total = 0.0
    while (*history, word) not in logarithms:
        total += backoffs.get(history, 0.0)
        history = history[1:]
    return 10 ** (total + logarithms[*history, word])


def test_counts_by_hand():
    one, two, three = adjusted_counts(TWO, 3)
    assert one == {("a",): 1, ("b",): 2, ("c",): 1, (END,): 1}  # how many different words stand before
    assert two == {(START, "a"): 2, ("a", "b"): 1, ("a", "c"): 1, ("c", "b"): 1, ("b", END): 2}
    assert three[START, "a", "b"] == three["a", "c", "b"] == 1 and len(three) == 5


def test_probabilities_by_hand():
    file = arpa(TWO)
    taken = 3 / (3 + 2 * 1)  # three words are counted once, one twice
    share = taken * 4 / 5  # of five counts of four different words
    assert discount(adjusted_counts(TWO, 3)[0]) == pytest.approx(taken)
    unknown = share / 5  # four words and the unknown one
    assert chance(file, (), UNKNOWN) == pytest.approx(unknown, rel=1e-5)
    one = {word: (count - taken) / 5 + unknown for word, count in {"a": 1, "b": 2, "c": 1, END: 1}.items()}
    assert {word: chance(file, (), word) for word in one} == pytest.approx(one, rel=1e-5)
    taken_two = 3 / (3 + 2 * 2)
    after_a = (1 - taken_two) / 2 + taken_two * 2 / 2 * one["b"]
    assert chance(file, ("a",), "b") == pytest.approx(after_a, rel=1e-5)
    assert chance(file, (START, "a"), "b") == pytest.approx((1 - 0.5) / 2 + 0.5 * after_a, rel=1e-5)
    assert chance(file, ("c", "a"), "b") == pytest.approx(after_a, rel=1e-5)  # a history that was never seen


SENTENCES = st.lists(st.lists(st.sampled_from("abcde"), max_size=6), min_size=1, max_size=12).filter(any)


@settings(deadline=None)
@given(SENTENCES, st.integers(1, 4))
def test_the_words_after_any_history_are_certain_together(sentences, order):
    file = arpa(sentences, order)
    words = [*vocabulary(file), END, UNKNOWN]
    histories = {gram[:-1] for counts in adjusted_counts(sentences, order) for gram in counts}
    for history in [*sorted(histories), ("a", "nobody"), ("nobody",)]:
        assert sum(chance(file, history[-order + 1 :] if order > 1 else (), word) for word in words) == pytest.approx(
            1, abs=1e-4
        )


@given(SENTENCES, st.randoms())
def test_the_order_of_sentences_does_not_matter(sentences, random):
    mixed = list(sentences)
    random.shuffle(mixed)
    assert arpa(mixed) == arpa(sentences)


def test_sizes_are_told_as_they_are():
    file = arpa(TWO)
    told = [int(line.rpartition("=")[2]) for line in file.splitlines() if line.startswith("ngram ")]
    assert told == [Counter(map(len, read(file)[0]))[n] for n in (1, 2, 3)] == [6, 5, 5]
    assert vocabulary(file) == ["a", "b", "c"]


def test_kenlm_reads_it(tmp_path):
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    path = tmp_path / "words.arpa"
    path.write_text(arpa(TWO))
    words = Dictionary([*vocabulary(path.read_text()), UNKNOWN])
    model = KenLM(str(path), words)
    state, found = model.start(False), []
    for word in ("a", "c", "zebra", "b"):
        state, score = model.score(state, words.get_index(word) if word != "zebra" else words.get_index(UNKNOWN))
        found.append(score)
    ends = model.finish(state)[1]
    file, histories = path.read_text(), [(START,), (START, "a"), ("a", "c"), ("c", UNKNOWN), (UNKNOWN, "b")]
    wanted = [
        chance(file, history, word) for history, word in zip(histories, ["a", "c", UNKNOWN, "b", END], strict=True)
    ]
    assert [10**score for score in [*found, ends]] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("sentences", "said"), [([], "at least one"), ([[]], "at least one"), ([["a", END]], "is no word")]
)
def test_what_is_no_text_is_told(sentences, said):
    with pytest.raises(ValueError, match=said):
        arpa(sentences)
