"""From probabilities to words: against all paths, one by one, where there are few."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.models.ctc import (
    BLANK,
    aligned,
    edit_distance,
    greedy,
    prefix_beam,
    transcript,
    transcripts,
)
from lepton_platform.models.ctc_words import word_beam
from lepton_platform.models.ngram import END, START, arpa
from tests.models.test_ngram import chance

ALPHABET = ["", " ", "a", "b"]
SENTENCES = [["a", "b"], ["ab"], ["ab", "a"], ["ba"], ["ba", "ab"]]


def collapsed(path) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label != BLANK)


def chances(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """Every labelling's probability, path by path."""
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        found[collapsed(path)] += math.exp(sum(log_probs[step, label] for step, label in enumerate(path)))
    return found


@st.composite
def log_probabilities(draw, characters: int, most_steps: int = 5) -> np.ndarray:
    steps = draw(st.integers(0, most_steps))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    x = rng.standard_normal((steps, characters)) * draw(st.sampled_from([0.3, 1.0, 4.0]))
    return (x - np.log(np.exp(x).sum(1, keepdims=True))).astype(np.float32)


@given(log_probabilities(3))
def test_greedy_is_the_likeliest_path(log_probs):
    paths = itertools.product(range(3), repeat=len(log_probs))
    best = max(paths, key=lambda path: sum(log_probs[step, label] for step, label in enumerate(path)))
    assert greedy(log_probs) == list(collapsed(best))


@given(log_probabilities(3))
def test_a_beam_that_keeps_all_finds_the_likeliest_labelling(log_probs):
    all_of_them = chances(log_probs)
    assert sum(all_of_them.values()) == pytest.approx(1, abs=1e-5)
    found = tuple(prefix_beam(log_probs, width=10_000, least=0.0))
    assert all_of_them[found] == pytest.approx(max(all_of_them.values()), rel=1e-5)


def test_paths_together_may_say_what_the_likeliest_path_does_not():
    log_probs = np.log(np.array([[0.6, 0.4], [0.6, 0.4]], dtype=np.float32))
    assert greedy(log_probs) == [] and prefix_beam(log_probs, 8) == [1]  # 0.36 against 0.64


@given(log_probabilities(3), st.lists(st.integers(1, 2), max_size=3))
def test_the_alignment_is_the_likeliest_path_that_says_it(log_probs, labels):
    paths = [p for p in itertools.product(range(3), repeat=len(log_probs)) if list(collapsed(p)) == labels]
    if not paths:
        with pytest.raises(ValueError, match="too few"):
            aligned(log_probs, labels)
        return

    def score(path) -> float:
        return sum(float(log_probs[step, label]) for step, label in enumerate(path))

    first, end = aligned(log_probs, labels)
    path = np.full(len(log_probs), BLANK)
    for label, begin, stop in zip(labels, first, end, strict=True):
        assert begin < stop
        path[begin:stop] = label
    assert list(collapsed(path)) == labels
    assert score(path) == pytest.approx(max(map(score, paths)), abs=1e-4)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("language") / "words.arpa"
    path.write_text(arpa(SENTENCES))
    return path


@settings(deadline=None)
@given(log_probabilities(4), st.sampled_from([0.0, 1.0, 2.3]), st.sampled_from([0.0, 1.0, -1.0]))
def test_words_are_the_best_of_sound_and_language(language_model, log_probs, lm_weight, word_score):
    file, known = language_model.read_text(), {word for words in SENTENCES for word in words}
    sound: dict[tuple[str, ...], float] = defaultdict(float)
    for labels, probability in chances(log_probs).items():
        words = tuple("".join(ALPHABET[label] for label in labels).split())
        if known.issuperset(words):
            sound[words] += probability

    def score(words: tuple[str, ...]) -> float:
        whole = (START, *words, END)
        said = sum(math.log10(chance(file, whole[max(n - 2, 0) : n], whole[n])) for n in range(1, len(whole)))
        return math.log(sound[words]) + lm_weight * said + word_score * len(words)

    decode = word_beam(language_model, ALPHABET, {"beam": 500, "lm_weight": lm_weight, "word_score": word_score})
    found = tuple("".join(ALPHABET[label] for label in decode(log_probs)).split())
    assert score(found) == pytest.approx(max(map(score, sound)), abs=1e-3)


def sure(characters: str) -> np.ndarray:
    """(T, C): each step says one of the alphabet's characters, or "_" for none, with probability 0.91."""
    probs = np.full((len(characters), len(ALPHABET)), 0.03, dtype=np.float32)
    for step, one in enumerate(characters):
        probs[step, BLANK if one == "_" else ALPHABET.index(one)] = 0.91
    return np.log(probs)


def test_words_have_times_and_scores():
    log_probs = sure("_a_ab__ bb_ _")
    for labels in (greedy(log_probs), prefix_beam(log_probs, 16)):
        found = transcript(log_probs, labels, ALPHABET, step_s=0.02, seconds=0.25)
        assert found.text == "aab b" and found.seconds == 0.25
        assert [(word.text, round(word.start_s, 3), round(word.end_s, 3)) for word in found.words] == [
            ("aab", 0.02, 0.1),
            ("b", 0.16, 0.2),
        ]
        assert found.score == pytest.approx(0.91) and found.words[0].score == pytest.approx(0.91)


def test_words_end_with_the_recording():
    [word] = transcript(sure("__a"), [2], ALPHABET, step_s=0.5, seconds=1.2).words
    assert (word.start_s, word.end_s) == (1.0, 1.2)


def test_nothing_is_said_in_silence():
    none = np.zeros((0, len(ALPHABET)), dtype=np.float32)
    for labels in (greedy(none), prefix_beam(none, 4)):
        assert labels == []
        found = transcript(none, labels, ALPHABET, 0.02, 0.0)
        assert (found.text, found.score, found.words) == ("", 0.0, ())
    assert transcript(sure(" _ "), [1, 1], ALPHABET, 0.02, 1.0).text == ""  # spaces alone are no word


@pytest.mark.parametrize("kind", ["greedy", "beam", "language_model"])
def test_what_lies_behind_a_rows_steps_is_not_read(kind, language_model):
    said, behind = sure("ba_ _ab"), sure("b_b_b_b")
    log_probs = np.stack([np.concatenate([said, behind]), np.concatenate([behind, said])])
    audio = np.ones((2, 100), dtype=np.int16)
    decoder = {"kind": kind, "beam": 20, "lm_weight": 0.1, "word_score": 0.0, "language_model": language_model.name}
    config = {"alphabet": ALPHABET, "step_s": 0.02, "decoder": decoder}
    run = {"model": lambda inputs: [log_probs, np.array([7, 0])]}
    found = transcripts(run, audio, config, language_model.parent)
    assert [one.text for one in found] == ["ba ab", ""]
    assert found.dtype == object and found[0].seconds == 100 / 16_000


@given(st.lists(st.integers(0, 3), max_size=7), st.lists(st.integers(0, 3), max_size=7))
def test_edits_are_counted_as_everybody_counts_them(said, true):
    grid = [[max(i, j) for j in range(len(true) + 1)] for i in range(len(said) + 1)]
    for i, j in itertools.product(range(1, len(said) + 1), range(1, len(true) + 1)):
        changed = grid[i - 1][j - 1] + (said[i - 1] != true[j - 1])
        grid[i][j] = min(grid[i - 1][j] + 1, grid[i][j - 1] + 1, changed)
    assert edit_distance(said, true) == grid[-1][-1]
