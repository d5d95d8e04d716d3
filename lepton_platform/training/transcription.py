"""Evaluation of answers that are texts of speech: word and character errors, slices, confusions, against a yardstick."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lepton_platform.models.transcription import Transcript
from lepton_platform.stage import StageFailed
from lepton_platform.training import error_rates
from lepton_platform.training.bootstrap import Floats, Interval, interval
from lepton_platform.training.error_rates import COUNTS, WORD_ERRORS
from lepton_platform.training.evaluation import Evaluation, Examples, Forest, Sampling, Section
from lepton_platform.training.figures import DECIMALS, Slice, check_same_rows, flat, groups_of, how_drawn, short

_SECONDS_DECIMALS = 3
_CONFUSIONS = 20  # that are written down
_MEANINGS = {
    "substitutions": "another word was said in a word's place",
    "insertions": "a word that nobody said",
    "deletions": "a word that is missing",
}


@dataclass(frozen=True)
class Transcription:
    """An ``Evaluator`` of texts.

    ``text``: the column of what was truly said. ``group``: the column whose equal values mark rows that resemble each
    other, so that intervals are made by drawing whole groups; ``None`` where rows are independent. ``normalise``: text
    → text as truths and answers are compared. ``yardstick_texts``: (train rows, test rows) → N texts of a simple
    method. ``slices``: parts of the rows. ``worst``: how many rows are shown.
    """

    text: str
    group: str | None
    normalise: Callable[[str], str]
    yardstick_name: str
    yardstick_texts: Callable[[pa.Table, pa.Table], Sequence[str]]
    slices: Callable[[pa.Table], Sequence[Slice]]
    worst: int = 10
    headline_name: str = "word_accuracy"

    def answers(self, rows: pa.Table, outputs: NDArray, labels: Sequence[str]) -> pa.Table:
        """(N,) ``Transcript`` → id, event_time, group, text, said, score, seconds of the recording, ``COUNTS``."""
        said = list(outputs)
        if len(said) != rows.num_rows or not all(
            isinstance(one, Transcript) and np.isfinite(one.score) for one in said
        ):
            raise StageFailed(
                f"The model answered {len(said)} values where {rows.num_rows} transcripts were asked, or some whose "
                "score is no number: its weights cannot be used. Train it again."
            )
        return self._table(
            rows,
            [one.text for one in said],
            score=pa.array([round(float(one.score), DECIMALS) for one in said], pa.float32()),
            seconds=pa.array([round(float(one.seconds), _SECONDS_DECIMALS) for one in said], pa.float32()),
        )

    def served(self, rows: pa.Table, answers: Sequence[Mapping[str, Any]]) -> pa.Table:
        """→ id, group, text, said (null where the input was refused: every word is missing), ``COUNTS``."""
        return self._table(rows, [answer.get("text") for answer in answers])

    def yardstick(self, train: pa.Table, rows: pa.Table, labels: Sequence[str]) -> pa.Table:
        """As ``answers``; ``score`` and ``seconds`` are null."""
        nothing = pa.nulls(rows.num_rows, pa.float32())
        return self._table(rows, self.yardstick_texts(train, rows), score=nothing, seconds=nothing)

    def _table(self, rows: pa.Table, said: Sequence[str | None], **more: pa.Array) -> pa.Table:
        kept = [name for name in ("id", "event_time", self.group) if name and name in rows.column_names]
        truths = rows[self.text].cast(pa.string())
        compared = [self.normalise(text or "") for text in truths.to_pylist()]
        found = error_rates.counts(compared, [self.normalise(text or "") for text in said])
        table = {**{name: rows[name] for name in kept}, "text": truths, "said": pa.array(said, pa.string())}
        return pa.table(table | more | {name: pa.array(found[name].astype(np.int32)) for name in COUNTS})

    def headline(self, answers: pa.Table) -> float:
        """Word accuracy: 1 - word error rate of all rows together. Below 0 where more is wrong than was said."""
        errors, words = _word_totals(answers).sum(axis=0)
        return float(1 - errors / max(words, 1))

    def compare(self, one: pa.Table, other: pa.Table, sampling: Sampling) -> Interval:
        """Difference in word accuracy; a draw takes the same rows for both, and groups, where there are any, whole."""
        check_same_rows(one, other)
        totals = np.hstack([_word_totals(other) - _word_totals(one), _word_totals(one)])[:, [0, 3]]
        return interval(totals, _rate, groups=groups_of(one, self.group), **vars(sampling))

    def agreement(self, one: pa.Table, other: pa.Table) -> float:
        """The share of rows of which both say the same, as texts are compared."""
        check_same_rows(one, other)
        return float(np.mean([a == b for a, b in zip(self._compared(one), self._compared(other), strict=True)]))

    def _compared(self, answers: pa.Table) -> list[str | None]:
        return [None if text is None else self.normalise(text) for text in answers["said"].to_pylist()]

    def evaluate(self, rows: pa.Table, answers: pa.Table, yardstick: pa.Table, sampling: Sampling) -> Evaluation:
        measured = _Measured(self, rows, answers, yardstick, sampling)
        return Evaluation(
            figures=measured.figures(),
            headline=(
                *((name, measured.mine[name]) for name in ("word_accuracy", "wer", "cer", "sentences_right")),
                (f"word accuracy of {self.yardstick_name}", measured.theirs["word_accuracy"]),
            ),
            gain=measured.gain,
            sections=measured.sections(),
        )


class _Measured:
    """Every figure of one evaluation, computed once."""

    def __init__(
        self, kind: Transcription, rows: pa.Table, answers: pa.Table, yardstick: pa.Table, sampling: Sampling
    ) -> None:
        self.kind, self.answers = kind, answers
        self.groups = groups_of(rows, kind.group)
        self.options: dict[str, Any] = {"groups": self.groups, **vars(sampling)}
        self.own, self.other = _word_totals(answers), _word_totals(yardstick)
        if not self.own[:, 1].any():
            raise StageFailed(
                f"No test row has a word in '{kind.text}': nothing can be said about the model. Check the split."
            )
        self.kinds, self.baseline_kinds = (
            [int(_column(t, n).sum()) for n in WORD_ERRORS] for t in (answers, yardstick)
        )
        self.mine, self.theirs = self._rates(answers), self._rates(yardstick)
        self.gain = kind.compare(answers, yardstick, sampling)
        self.slices = [
            (
                part,
                *(interval(totals * part.inside[:, None], _rate, **self.options) for totals in (self.own, self.other)),
            )
            for part in kind.slices(rows)
            if part.inside.any()
        ]
        truths, said = ([kind.normalise(text or "") for text in answers[name].to_pylist()] for name in ("text", "said"))
        self.aligned = error_rates.pairs(truths, said)
        self.confusions = error_rates.confusions(self.aligned)[:_CONFUSIONS]

    def _rates(self, answers: pa.Table) -> dict[str, Interval]:
        totals = _word_totals(answers)
        of_characters = np.column_stack([_column(answers, "character_errors"), _column(answers, "characters")])
        return {
            "word_accuracy": interval(totals, lambda drawn, rows: 1 - _rate(drawn, rows), **self.options),
            "wer": interval(totals, _rate, **self.options),
            "cer": interval(of_characters, _rate, **self.options),
            "sentences_right": interval(totals[:, 0] == 0, **self.options),
        }

    def figures(self) -> dict[str, Any]:
        theirs = {f"baseline_{name}": figure for name, figure in self.theirs.items()}
        return {
            **flat(self.mine | theirs | {"gain": self.gain}),
            "baseline": self.kind.yardstick_name,
            **dict(zip(WORD_ERRORS, self.kinds, strict=True)),
            **{f"baseline_{name}": many for name, many in zip(WORD_ERRORS, self.baseline_kinds, strict=True)},
            "n_test": len(self.own),
            "n_words": int(self.own[:, 1].sum()),
            "n_characters": int(_column(self.answers, "characters").sum()),
            "n_groups": None if self.groups is None else len(set(self.groups)),
            "resampled": "rows" if self.groups is None else self.kind.group,
            "confusions": [{"true": true, "said": said, "n": many} for (true, said), many, _ in self.confusions],
            "slices": [
                {
                    "dimension": part.dimension,
                    "name": part.name,
                    "n": int(part.inside.sum()),
                    "n_words": int(self.own[part.inside, 1].sum()),
                    **flat({"wer": mine, "baseline_wer": theirs}),
                }
                for part, mine, theirs in self.slices
            ],
        }

    def sections(self) -> list[Section]:
        slices = [(f"{s.dimension}: {s.name}", int(s.inside.sum()), mine, b.estimate) for s, mine, b in self.slices]
        wrong = zip(WORD_ERRORS, self.kinds, self.baseline_kinds, strict=True)
        return [
            Forest(
                "Word error rate by slice",
                "Errors by true words: less is better. The dot is the model's rate, the line its interval; the diamond "
                f"is {self.kind.yardstick_name}. {how_drawn(self.groups, self.kind.group)}",
                [("all rows", len(self.own), self.mine["wer"], self.theirs["wer"].estimate), *slices],
                self.kind.yardstick_name,
            ),
            Examples(
                "What is wrong",
                f"Of {int(self.own[:, 1].sum()):,} true words, by the alignment with the fewest errors.",
                ("kind", "errors", f"of {self.kind.yardstick_name}", "meaning"),
                [(name, str(mine), str(theirs), _MEANINGS[name]) for name, mine, theirs in wrong],
            ),
            self._worst(),
            self._confused(),
        ]

    def _worst(self) -> Examples:
        """By error rate, among equals by errors. A row without a true word counts as one of one word."""
        errors, words = self.own.T
        order = np.lexsort((-errors, -errors / np.maximum(words, 1)))
        shown = [n for n in order.tolist() if errors[n]][: self.kind.worst]
        names = self.answers["id"].to_pylist()
        return Examples(
            "The worst answers",
            "The rows with the highest error rates, as texts are compared: what was said over what was answered; "
            "S another word, I a word too many, D a word that is missing.",
            ("id", "errors", "words", "aligned"),
            [
                (str(names[n]), f"{errors[n]:.0f}", f"{words[n]:.0f}", error_rates.written(self.aligned[n]))
                for n in shown
            ],
            monospace=True,
        )

    def _confused(self) -> Examples:
        texts = self.answers["text"].to_pylist()
        return Examples(
            "Commonest confusions",
            "A dash where a word is missing or was never said.",
            ("times", "true", "answered", "first in"),
            [(str(many), true or "–", said or "–", short(texts[n] or "")) for (true, said), many, n in self.confusions],
        )


def _column(answers: pa.Table, name: str) -> Floats:
    return np.asarray(answers[name], dtype=np.float64)


def _word_totals(answers: pa.Table) -> Floats:
    """(N, 2): errors and true words of each row."""
    return np.column_stack([sum(_column(answers, name) for name in WORD_ERRORS), _column(answers, "words")])


def _rate(totals: Floats, rows: Floats) -> Floats:
    """Summed errors and words (B, 2) → (B,); NaN for a draw without a word."""
    del rows
    return np.divide(totals[:, 0], totals[:, 1], out=np.full(len(totals), np.nan), where=totals[:, 1] > 0)
