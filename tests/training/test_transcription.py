"""Evaluation of texts: errors are jiwer's and countable by hand, draws are paired and whole groups, the page shows them."""

import json
from html.parser import HTMLParser

import jiwer
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_platform.data.transcripts import normalise
from lepton_platform.models.transcription import Transcript
from lepton_platform.stage import StageFailed
from lepton_platform.training import error_rates
from lepton_platform.training.error_rates import COUNTS, WORD_ERRORS
from lepton_platform.training.evaluation import Sampling
from lepton_platform.training.figures import Slice
from lepton_platform.training.page import page
from lepton_platform.training.transcription import Transcription

SAMPLING = Sampling(300, 0)
TEXTS = st.lists(st.sampled_from(["press", "one", "two", "the", "pound", "key", "o'clock", "é"]), max_size=8).map(
    " ".join
)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6)


def by_length(rows: pa.Table) -> list[Slice]:
    words = np.array([len(text.split()) for text in rows["text"].to_pylist()])
    return [Slice("words", "few", words < 3), Slice("words", "many", words >= 3), Slice("words", "none", words < 0)]


EVALUATOR = Transcription(
    "text", "sentence", normalise, "saying <much>", lambda train, rows: ["much"] * rows.num_rows, by_length
)


def rows_of(texts: list[str], sentences: list[str] | None = None) -> pa.Table:
    groups = [normalise(text) for text in texts] if sentences is None else sentences
    return pa.table({"id": [f"<b>{n}" for n in range(len(texts))], "text": texts, "sentence": groups})


def said(texts: list[str]) -> np.ndarray:
    outputs = np.empty(len(texts), dtype=object)
    outputs[:] = [Transcript(text, 0.5, seconds=1.25) for text in texts]
    return outputs


def answered(texts: list[str], answers: list[str], sentences: list[str] | None = None) -> pa.Table:
    return EVALUATOR.answers(rows_of(texts, sentences), said(answers), ())


def least_changes(true: list[str], answer: list[str]) -> int:
    """Wagner & Fischer (1974), nothing else."""
    costs = list(range(len(answer) + 1))
    for i, wanted in enumerate(true, 1):
        row = [i]
        for j, got in enumerate(answer, 1):
            row.append(min(costs[j] + 1, row[-1] + 1, costs[j - 1] + (wanted != got)))
        costs = row
    return costs[-1]


@pytest.mark.parametrize(
    ("true", "answer", "wanted"),
    [
        ("press one", "press one", (2, 0, 0, 0, 9, 0)),
        ("press one", "dress one", (2, 1, 0, 0, 9, 1)),
        ("press one", "press", (2, 0, 0, 1, 9, 4)),
        ("press one", "", (2, 0, 0, 2, 9, 9)),
        ("press one", "please press one now", (2, 0, 2, 0, 9, 11)),
        ("the pound key", "that town key now", (3, 2, 1, 0, 13, 9)),
        ("", "press one", (0, 0, 2, 0, 0, 9)),
        ("", "", (0, 0, 0, 0, 0, 0)),
        ("  press\tone ", "press  one", (2, 0, 0, 0, 9, 0)),
    ],
)
def test_errors_by_hand(true, answer, wanted):
    found = error_rates.counts([true], [answer])
    assert tuple(int(found[name][0]) for name in COUNTS) == wanted


@given(PAIRS)
def test_errors_are_jiwers_and_the_fewest(texts):
    truths, answers = map(list, zip(*texts, strict=True))
    found = error_rates.counts(truths, answers)
    for n, (true, answer) in enumerate(texts):
        alone = jiwer.process_words(true, answer)
        assert [found[kind][n] for kind in WORD_ERRORS] == [alone.substitutions, alone.insertions, alone.deletions]
        assert sum(found[kind][n] for kind in WORD_ERRORS) == least_changes(true.split(), answer.split())
        assert found["character_errors"][n] == least_changes(list(true), list(answer))
        assert (found["words"][n], found["characters"][n]) == (len(true.split()), len(true))
    if any(truths):
        errors = sum(found[kind].sum() for kind in WORD_ERRORS)
        assert errors / found["words"].sum() == pytest.approx(jiwer.process_words(truths, answers).wer)
        assert found["character_errors"].sum() / found["characters"].sum() == pytest.approx(
            jiwer.process_characters(truths, answers).cer
        )


@given(PAIRS)
def test_an_alignment_leaves_no_word_out(texts):
    truths, answers = map(list, zip(*texts, strict=True))
    for row, true, answer in zip(error_rates.pairs(truths, answers), truths, answers, strict=True):
        assert [word for word, _ in row if word] == true.split()
        assert [word for _, word in row if word] == answer.split()
        assert ("", "") not in row
    assert error_rates.pairs([], []) == []


def test_an_alignment_is_written_word_over_word():
    (row,) = error_rates.pairs(["press to toggle the pause"], ["to toggle a big pause now"])
    assert error_rates.written(row) == (
        "true press to toggle * the pause ***\n"  #
        "said ***** to toggle a big pause now\n"
        "     D               I S         I"
    )
    assert error_rates.written([("one", "one")]) == "true one\nsaid one"
    assert error_rates.written([]) == ""


@given(TEXTS, TEXTS, st.integers(12, 40))
def test_written_lines_fit_and_hold_every_word(true, answer, width):
    (row,) = error_rates.pairs([true], [answer])
    blocks = [block.split("\n") for block in error_rates.written(row, width).split("\n\n") if block]
    assert all(len(line) <= max(width, 5 + 7) for block in blocks for line in block)
    for number, text in ((0, true), (1, answer)):
        words = [word for block in blocks for word in block[number].split()[1:] if set(word) != {"*"}]
        assert words == text.split()
    marks = "".join(line for block in blocks for line in block[2:]).replace(" ", "")
    assert len(marks) == least_changes(true.split(), answer.split())


def test_confusions_are_counted_over_all_rows():
    aligned = error_rates.pairs(["press one", "one now", "no", "a"], ["press won", "won", "know", "a b"])
    assert error_rates.confusions(aligned) == [
        (("one", "won"), 2, 0),
        (("", "b"), 1, 3),
        (("no", "know"), 1, 2),
        (("now", ""), 1, 1),
    ]


def test_answers_are_compared_as_the_normaliser_says():
    answers = answered(["Press ONE, please!", "It's colour."], ["press 1 please", "it is color now"])
    assert answers.column_names == ["id", "sentence", "text", "said", "score", "seconds", *COUNTS]
    assert answers["said"].to_pylist() == ["press 1 please", "it is color now"]
    assert answers["seconds"].to_pylist() == [1.25, 1.25]
    assert answers["words"].to_pylist() == [3, 3]
    assert [sum(answers[kind].to_pylist()) for kind in WORD_ERRORS] == [0, 1, 0]
    assert EVALUATOR.headline(answers) == pytest.approx(1 - 1 / 6)


def test_word_accuracy_is_below_zero_where_more_is_wrong_than_was_said():
    assert EVALUATOR.headline(answered(["goodbye"], ["good bye and thank you"])) == -4
    assert EVALUATOR.headline(answered(["", "thank you"], ["so", "thank you"])) == 0.5
    assert EVALUATOR.headline(answered([""], [""])) == 1


@pytest.mark.parametrize(
    "outputs", [said(["a"]), np.array(["a", "b"], object), np.array([Transcript("a", np.nan)] * 2), np.zeros((2, 3))]
)
def test_outputs_that_are_no_transcripts_are_refused(outputs):
    with pytest.raises(StageFailed, match=r"2 transcripts were asked.*its weights cannot be used"):
        EVALUATOR.answers(rows_of(["a", "b"]), outputs, ())


def test_a_refused_input_has_all_its_words_missing():
    texts = ["press one", "goodbye"]
    served = EVALUATOR.served(rows_of(texts), [{"error": "no recording"}, {"text": "goodbye", "score": 0.9}])
    assert served["said"].to_pylist() == [None, "goodbye"]
    assert served["deletions"].to_pylist() == [2, 0]
    assert EVALUATOR.headline(served) == pytest.approx(1 / 3)
    full = answered(texts, texts)
    assert EVALUATOR.compare(full, served, SAMPLING).estimate == pytest.approx(2 / 3)
    assert EVALUATOR.agreement(full, served) == 0.5
    assert EVALUATOR.agreement(served, served) == 1
    nothing = EVALUATOR.served(rows_of(texts), [{"text": ""}, {"text": "Goodbye."}])
    assert EVALUATOR.agreement(served, nothing) == 0.5, "to hear nothing is not to refuse"


def many(rows: int, seed: int) -> tuple[list[str], list[str], list[str]]:
    """Texts, and two answers: the second makes the first's mistakes and a few of its own."""
    rng = np.random.default_rng(seed)
    texts, one, other = [], [], []
    for n in range(rows):
        words = [f"w{n}x{k}" for k in range(rng.integers(1, 9))]
        hard = rng.random() < 0.3
        wrong = [word if rng.random() < (0.2 if hard else 0.95) else "um" for word in words]
        texts.append(" ".join(words))
        one.append(" ".join(wrong))
        other.append(" ".join(word if rng.random() < 0.97 else "er" for word in wrong))
    return texts, one, other


def plain(text: str) -> str:
    return text


INDEPENDENT = Transcription("text", None, plain, "silence", lambda train, rows: [""] * rows.num_rows, by_length)


def test_a_comparison_is_paired():
    texts, one, other = many(120, 1)
    first, second = (INDEPENDENT.answers(rows_of(texts), said(answer), ()) for answer in (one, other))
    difference = INDEPENDENT.compare(first, second, SAMPLING)
    assert difference.estimate == pytest.approx(INDEPENDENT.headline(first) - INDEPENDENT.headline(second))
    assert 0 < difference.low < difference.estimate < difference.high
    alone = INDEPENDENT.evaluate(rows_of(texts), first, second, SAMPLING).figures["word_accuracy_ci95"]
    assert difference.high - difference.low < (alone[1] - alone[0]) / 2
    back = INDEPENDENT.compare(second, first, SAMPLING)
    assert (back.low, back.high) == pytest.approx((-difference.high, -difference.low))
    assert INDEPENDENT.compare(first, first, SAMPLING) == (0, 0, 0)
    with pytest.raises(ValueError, match="same rows in the same order"):
        INDEPENDENT.compare(first, second.slice(1), SAMPLING)


def test_groups_are_drawn_whole():
    """Forty sentences five times over say no more than forty sentences."""
    texts, one, other = many(40, 2)
    kind = Transcription("text", "sentence", plain, "silence", INDEPENDENT.yardstick_texts, by_length)
    once, often = rows_of(texts, texts), rows_of(texts * 5, texts * 5)
    figures = []
    for rows, times in ((once, 1), (often, 5)):
        answers, yardstick = (kind.answers(rows, said(answer * times), ()) for answer in (one, other))
        figures.append(kind.evaluate(rows, answers, yardstick, SAMPLING).figures)
    for name in ("wer", "cer", "word_accuracy", "sentences_right", "gain"):
        assert figures[0][f"{name}_ci95"] == pytest.approx(figures[1][f"{name}_ci95"])
    assert figures[1]["n_groups"] == 40 and figures[1]["n_test"] == 200 and figures[1]["resampled"] == "sentence"
    answers, yardstick = (INDEPENDENT.answers(often, said(answer * 5), ()) for answer in (one, other))
    low, high = INDEPENDENT.evaluate(often, answers, yardstick, SAMPLING).figures["wer_ci95"]
    assert high - low < (figures[1]["wer_ci95"][1] - figures[1]["wer_ci95"][0]) / 1.6


def test_the_figures_are_those_of_the_rows():
    texts, one, _ = many(60, 3)
    rows = rows_of([*texts, ""])
    answers = EVALUATOR.answers(rows, said([*one, "uh huh"]), ())
    yardstick = EVALUATOR.yardstick(rows, rows, ())
    assert yardstick.column_names == answers.column_names
    figures = EVALUATOR.evaluate(rows, answers, yardstick, SAMPLING).figures
    wanted = jiwer.process_words(list(map(normalise, rows["text"].to_pylist())), list(map(normalise, [*one, "uh huh"])))
    assert figures["wer"] == pytest.approx(wanted.wer, abs=1e-6)
    assert [figures[kind] for kind in WORD_ERRORS] == [wanted.substitutions, wanted.insertions, wanted.deletions]
    assert figures["word_accuracy"] == pytest.approx(1 - figures["wer"], abs=1e-6)
    assert figures["gain"] == pytest.approx(figures["word_accuracy"] - figures["baseline_word_accuracy"], abs=1e-6)
    assert figures["baseline_wer"] == pytest.approx(1, abs=0.05)
    for name in ("wer", "cer", "word_accuracy", "sentences_right", "baseline_wer", "gain"):
        low, high = figures[f"{name}_ci95"]
        assert low <= figures[name] <= high
    assert figures["sentences_right"] == pytest.approx(
        np.mean([t == s for t, s in zip(texts, one, strict=True)]), abs=0.02
    )
    few, several = figures["slices"]
    assert few["n"] + several["n"] == figures["n_test"] == 61
    assert few["n_words"] + several["n_words"] == figures["n_words"]
    whole = few["wer"] * few["n_words"] + several["wer"] * several["n_words"]
    assert whole == pytest.approx(figures["wer"] * figures["n_words"], abs=1e-3)
    assert figures["confusions"][0]["said"] == "" and len(figures["confusions"]) == 20, "hesitation is not compared"
    json.dumps(figures, allow_nan=False)


def test_no_true_word_at_all_is_said():
    rows = rows_of(["", "..."])
    answers = EVALUATOR.answers(rows, said(["one", "two"]), ())
    with pytest.raises(StageFailed, match="No test row has a word in 'text'"):
        EVALUATOR.evaluate(rows, answers, EVALUATOR.yardstick(rows, rows, ()), SAMPLING)


class _Seen(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.aligned: list[str] = []
        self.words = ""
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self._inside = ("class", "aligned") in attrs
        if self._inside:
            self.aligned.append("")

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        self.words += data
        if self._inside:
            self.aligned[-1] += data


def test_the_page_shows_the_worst_word_over_word_and_runs_nothing():
    texts = ["press one", "the pound <script> key", "thank you", *(f"word {n}a" for n in range(30))]
    heard = ["press won", "the town <script> tree and more", "thank you", *(f"sword {n}a" for n in range(30))]
    kind = Transcription("text", "sentence", plain, "saying <much>", EVALUATOR.yardstick_texts, by_length)
    rows = rows_of(texts)
    answers, yardstick = kind.answers(rows, said(heard), ()), kind.yardstick(rows, rows, ())
    text = page(kind.evaluate(rows, answers, yardstick, SAMPLING), "Prompts", "verdict", True)
    assert text == page(kind.evaluate(rows, answers, yardstick, SAMPLING), "Prompts", "verdict", True)
    seen = _Seen(text)
    assert not {"script", "b", "much", "img", "link"} & seen.tags
    assert len(seen.aligned) == kind.worst
    assert seen.aligned[0] == (
        "true the pound <script> **** *** key\n"  # by its rate the worst: 4 errors in 4 words
        "said the town  <script> tree and more\n"
        "         S              I    I   S"
    )
    assert all(shown.startswith("true ") and "\nsaid " in shown for shown in seen.aligned)
    for wanted in ("Word error rate by slice", "words: many", "saying <much>", "Commonest confusions", "sword", "<b>1"):
        assert wanted in seen.words
    assert "words: none" not in seen.words, "a slice without rows"
    perfect = kind.answers(rows, said(texts), ())
    assert _Seen(page(kind.evaluate(rows, perfect, yardstick, SAMPLING), "Prompts", "verdict", True)).aligned == []
