"""Evaluation of answers that are one of a few classes: accuracy, F1, calibration, slices, against a yardstick."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lepton_platform.stage import StageFailed
from lepton_platform.training import calibration
from lepton_platform.training.bootstrap import Floats, Interval, interval, paired_difference
from lepton_platform.training.evaluation import (
    Confusion,
    Evaluation,
    Examples,
    Forest,
    Gallery,
    Reliability,
    Sampling,
    Section,
)
from lepton_platform.training.figures import DECIMALS, Slice, check_same_rows, flat, groups_of, how_drawn, short

_PICTURE_PIXELS = 112  # that a small picture is shown in


@dataclass(frozen=True)
class Classification:
    """An ``Evaluator`` of classes.

    ``label``: the column of truths. ``group``: the column whose equal values mark rows that resemble each other, so
    that intervals are made by drawing whole groups; ``None`` where rows are independent. ``yardstick_scores``:
    (train rows, test rows, labels) → (N, C) probabilities of a simple method. ``slices``: parts of the rows.
    ``excerpt``: each row as a person is shown it. ``picture``: each row as a PNG, where rows are pictures.
    """

    label: str
    group: str | None
    yardstick_name: str
    yardstick_scores: Callable[[pa.Table, pa.Table, Sequence[str]], NDArray]
    slices: Callable[[pa.Table], Sequence[Slice]]
    excerpt: Callable[[pa.Table], Sequence[str]]
    picture: Callable[[pa.Table], Sequence[bytes]] | None = None
    mistakes: int = 20
    headline_name: str = "accuracy"

    def answers(self, rows: pa.Table, outputs: NDArray, labels: Sequence[str]) -> pa.Table:
        """(N, C) probabilities → id, event_time, group, label, predicted, score, p_<label>…; score is predicted's."""
        chances = np.round(np.asarray(outputs, dtype=np.float64), DECIMALS)
        if chances.shape != (rows.num_rows, len(labels)) or not np.isfinite(chances).all():
            raise StageFailed(
                f"The model answered {chances.shape} figures where {rows.num_rows} rows of {len(labels)} labels were "
                "asked, or some that are not numbers: its weights cannot be used. Train it again."
            )
        best = chances.argmax(axis=1)
        truth = rows[self.label].cast(pa.string())
        _check_labels(truth, labels, self.label)
        kept = [name for name in ("id", "event_time", self.group) if name and name in rows.column_names]
        table = {name: rows[name] for name in kept}
        table["label"] = truth
        table["predicted"] = pa.array([labels[i] for i in best], pa.string())
        table["score"] = pa.array(chances.max(axis=1).astype(np.float32))
        for number, name in enumerate(labels):
            table[f"p_{name}"] = pa.array(chances[:, number].astype(np.float32))
        return pa.table(table)

    def served(self, rows: pa.Table, answers: Sequence[Mapping[str, Any]]) -> pa.Table:
        """→ id, group, label, predicted (null where the input was refused)."""
        kept = [name for name in ("id", self.group) if name and name in rows.column_names]
        said = pa.array([answer.get("label") for answer in answers], pa.string())
        return pa.table({**{name: rows[name] for name in kept}, "label": rows[self.label], "predicted": said})

    def yardstick(self, train: pa.Table, rows: pa.Table, labels: Sequence[str]) -> pa.Table:
        return self.answers(rows, self.yardstick_scores(train, rows, labels), labels)

    def headline(self, answers: pa.Table) -> float:
        """Accuracy."""
        return float(_right(answers).mean())

    def compare(self, one: pa.Table, other: pa.Table, sampling: Sampling) -> Interval:
        """Difference in accuracy; groups, where there are any, are drawn whole."""
        check_same_rows(one, other)
        return paired_difference(_right(one), _right(other), groups_of(one, self.group), **vars(sampling))

    def agreement(self, one: pa.Table, other: pa.Table) -> float:
        check_same_rows(one, other)
        return float(np.mean(np.asarray(one["predicted"]) == np.asarray(other["predicted"])))

    def evaluate(self, rows: pa.Table, answers: pa.Table, yardstick: pa.Table, sampling: Sampling) -> Evaluation:
        measured = _Measured(self, rows, answers, yardstick, sampling)
        return Evaluation(
            figures=measured.figures(),
            headline=(
                ("accuracy", measured.accuracy),
                ("f1", measured.f1),
                ("ece", measured.ece),
                (f"accuracy of {self.yardstick_name}", measured.baseline),
            ),
            gain=measured.gain,
            sections=measured.sections(rows),
        )


class _Measured:
    """Every figure of one evaluation, computed once."""

    def __init__(
        self, kind: Classification, rows: pa.Table, answers: pa.Table, yardstick: pa.Table, sampling: Sampling
    ) -> None:
        self.kind, self.answers = kind, answers
        self.labels = [name[2:] for name in answers.column_names if name.startswith("p_")]
        self.right, self.baseline_right = _right(answers), _right(yardstick)
        self.confidence = np.asarray(answers["score"])
        self.groups = groups_of(rows, kind.group)
        options: dict[str, Any] = {"groups": self.groups, **vars(sampling)}

        self.counts = _confusion(answers, self.labels)
        self.accuracy = interval(self.right, **options)
        self.baseline = interval(self.baseline_right, **options)
        self.f1 = interval(_hits(answers, self.labels), macro_f1, **options)
        self.baseline_f1 = interval(_hits(yardstick, self.labels), macro_f1, **options)
        gaps = calibration.totals(self.confidence, self.right)
        low_ece = interval(gaps, calibration.error, reflected=True, **options)  # resampling inflates the error
        self.ece = Interval(low_ece.estimate, max(low_ece.low, 0.0), max(low_ece.high, 0.0))
        self.ece_by_chance = calibration.by_chance(self.confidence, seed=sampling.seed)
        self.gain = paired_difference(self.right, self.baseline_right, self.groups, **vars(sampling))
        self.slices = [
            (part, _share(self.right, part.inside, options), _share(self.baseline_right, part.inside, options))
            for part in kind.slices(rows)
            if part.inside.any()
        ]

    def figures(self) -> dict[str, Any]:
        named = {"accuracy": self.accuracy, "f1": self.f1, "ece": self.ece}
        against = {"baseline_accuracy": self.baseline, "baseline_f1": self.baseline_f1, "gain": self.gain}
        return {
            **flat(named | against),
            "ece_by_chance": round(self.ece_by_chance, DECIMALS),
            "baseline": self.kind.yardstick_name,
            "n_test": len(self.right),
            "n_groups": None if self.groups is None else len(set(self.groups)),
            "resampled": "rows" if self.groups is None else self.kind.group,
            "labels": self.labels,
            "confusion": self.counts.tolist(),
            "per_class": {name: _of_class(self.counts, i) for i, name in enumerate(self.labels)},
            "slices": [
                {
                    "dimension": part.dimension,
                    "name": part.name,
                    "n": int(part.inside.sum()),
                    **flat({"accuracy": mine, "baseline_accuracy": theirs}),
                }
                for part, mine, theirs in self.slices
            ],
        }

    def sections(self, rows: pa.Table) -> list[Section]:
        slices = [(f"{s.dimension}: {s.name}", int(s.inside.sum()), mine, b.estimate) for s, mine, b in self.slices]
        return [
            Forest(
                "Accuracy by slice",
                f"The dot is the model's accuracy, the line its interval; the diamond is {self.kind.yardstick_name}. "
                + how_drawn(self.groups, self.kind.group),
                [("all rows", len(self.right), self.accuracy, self.baseline.estimate), *slices],
                self.kind.yardstick_name,
            ),
            Confusion("Confusion", "Down: what is true. Across: what was answered.", self.labels, self.counts.tolist()),
            Reliability(
                "Reliability",
                f"How often answers of one confidence are right. The bars are where a perfectly calibrated model would "
                f"lie 95 % of the time. Expected calibration error {self.ece.estimate:.3f}; by chance alone up to "
                f"{self.ece_by_chance:.3f}.",
                calibration.reliability(self.confidence, self.right),
            ),
            self._mistakes(rows),
        ]

    def _mistakes(self, rows: pa.Table) -> Examples | Gallery:
        wrong = np.flatnonzero(self.right == 0)
        surest = wrong[np.argsort(-self.confidence[wrong], kind="stable")][: self.kind.mistakes]
        chosen = pa.array(surest)
        table, these = self.answers.take(chosen).to_pylist(), rows.take(chosen)
        title = "Most confident mistakes"
        note = "Where the model was surest and wrong: label errors, rare cases, and what it has yet to learn."
        told = [(str(r["id"]), r["label"], r["predicted"], f"{r['score']:.3f}") for r in table]
        if self.kind.picture is not None:
            captions = [f"{name}: {true}, answered {said} ({sure})" for name, true, said, sure in told]
            pictures = list(zip(self.kind.picture(these), captions, strict=True))
            return Gallery(title, note, pictures, _PICTURE_PIXELS)
        lines = [(*four, short(text)) for four, text in zip(told, self.kind.excerpt(these), strict=True)]
        return Examples(title, note, ("id", "true", "answered", "confidence", "row"), lines)


def macro_f1(totals: Floats, rows: Floats) -> Floats:
    """Summed ``_hits`` (B, 2C) → (B,): the classes' F1, averaged.

    A class that is neither true nor answered in a draw counts as 0, as in scikit-learn's ``f1_score``.
    """
    del rows
    hits, said_and_true = np.split(totals, 2, axis=1)
    f1 = np.divide(2 * hits, said_and_true, out=np.zeros_like(hits), where=said_and_true > 0)
    return f1.mean(axis=1)


def _right(answers: pa.Table) -> Floats:
    """(N,) 1.0 where the answer is true."""
    return (np.asarray(answers["predicted"]) == np.asarray(answers["label"])).astype(np.float64)


def _numbers(answers: pa.Table, column: str, labels: Sequence[str]) -> NDArray[np.intp]:
    order = {name: i for i, name in enumerate(labels)}
    return np.array([order[name] for name in answers[column].to_pylist()], dtype=np.intp)


def _confusion(answers: pa.Table, labels: Sequence[str]) -> NDArray[np.intp]:
    """(C, C) rows, by true label and answered label."""
    true, said = _numbers(answers, "label", labels), _numbers(answers, "predicted", labels)
    return np.bincount(true * len(labels) + said, minlength=len(labels) ** 2).reshape(len(labels), -1)


def _hits(answers: pa.Table, labels: Sequence[str]) -> Floats:
    """(N, 2C): by class, is the row a hit; how often the class is true or answered in it (0, 1, 2)."""
    one_hot = np.eye(len(labels))
    true, said = one_hot[_numbers(answers, "label", labels)], one_hot[_numbers(answers, "predicted", labels)]
    return np.hstack([true * said, true + said])


def _share(right: Floats, inside: NDArray[np.bool_], options: Mapping[str, Any]) -> Interval:
    """The accuracy inside a slice, with its interval."""
    counted = np.column_stack([right * inside, inside])

    def accuracy(totals: Floats, rows: Floats) -> Floats:
        del rows
        return np.divide(totals[:, 0], totals[:, 1], out=np.full(len(totals), np.nan), where=totals[:, 1] > 0)

    return interval(counted, accuracy, **options)


def _of_class(counts: NDArray, number: int) -> dict[str, float | int]:
    hits, said, true = counts[number, number], counts[:, number].sum(), counts[number].sum()
    return {
        "n": int(true),
        "precision": round(float(hits / said), DECIMALS) if said else 0.0,
        "recall": round(float(hits / true), DECIMALS) if true else 0.0,
    }


def _check_labels(truth: pa.ChunkedArray, labels: Sequence[str], column: str) -> None:
    unknown = sorted({str(name) for name in truth.unique().to_pylist()} - set(labels))
    if unknown:
        raise StageFailed(
            f"The test rows hold labels in '{column}' that the model never learnt: {', '.join(unknown[:5])}. "
            f"It knows {', '.join(labels)}. Check the split, or train again on rows that hold them."
        )
