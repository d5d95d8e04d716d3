"""How the service does: how much it answers, how fast and, where somebody said what was right, how well."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lepton_platform.monitoring.feedback import words_of
from lepton_platform.monitoring.words import last_words

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Performance:
    """A window of the log. Rates are per second of the window; ``latency_ms`` has p50, p90, p99 and max.

    ``labelled`` answers are those that feedback was given on, its last word counts; who gives feedback chooses on
    what, so ``coverage`` (their share of all answers) says how far ``accuracy`` can be trusted.
    """

    since: str
    until: str
    answers: int
    answers_per_second: float
    busiest_minute_per_second: float
    by_model: dict[str, int] = field(default_factory=dict)
    by_label: dict[str, int] = field(default_factory=dict)
    latency_ms: dict[str, float] = field(default_factory=dict)
    labelled: int = 0
    coverage: float = 0.0
    accuracy: float | None = None
    accuracy_ci95: tuple[float, float] | None = None
    recall: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def wilson(right: float, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of a share (Wilson 1927): unlike resampling, it does not shrink to a point when all are right."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = right / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / total + spread / (4 * total)) ** 0.5
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def performance(
    *, predictions: Iterable[pa.Table], feedback: pa.Table, since: datetime, until: datetime
) -> Performance:
    """Figures of the answers given in [since, until).

    ``predictions``: pieces of the log with ``id``, ``at``, ``label``, ``model``, ``latency_ms``. ``feedback``: ``id``,
    ``label``, ``at``; feedback that came after the window on an answer in it counts.
    """
    said = {identity: word.truth for identity, word in last_words(words_of(feedback)).items()}
    models, labels, minutes = Counter(), Counter(), Counter()
    right, asked = Counter(), Counter()
    latencies = [np.empty(0)]
    for piece in predictions:
        piece = piece.filter((pc.field("at") >= _at(since)) & (pc.field("at") < _at(until)))
        models.update(piece["model"].to_pylist())
        labels.update(piece["label"].to_pylist())
        minutes.update((pc.cast(piece["at"], pa.int64()).to_numpy() // 60_000_000).tolist())
        latencies.append(piece["latency_ms"].to_numpy())
        for identity, label in zip(piece["id"].to_pylist(), piece["label"].to_pylist(), strict=True):
            if identity in said:
                asked[said[identity]] += 1
                right[said[identity]] += label == said[identity]
    answers, labelled = models.total(), asked.total()
    seconds = max((until - since).total_seconds(), 1e-9)
    return Performance(
        since=since.isoformat(),
        until=until.isoformat(),
        answers=answers,
        answers_per_second=answers / seconds,
        busiest_minute_per_second=max(minutes.values(), default=0) / min(60.0, seconds),
        by_model=dict(sorted(models.items())),
        by_label=dict(sorted(labels.items())),
        latency_ms=_percentiles(np.concatenate(latencies)),
        labelled=labelled,
        coverage=labelled / answers if answers else 0.0,
        accuracy=right.total() / labelled if labelled else None,
        accuracy_ci95=wilson(right.total(), labelled) if labelled else None,
        recall={label: right[label] / count for label, count in sorted(asked.items())},
    )


def _at(moment: datetime) -> pa.Scalar:
    return pa.scalar(moment, pa.timestamp("us", tz="UTC"))


def _percentiles(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    return {"p50": float(p50), "p90": float(p90), "p99": float(p99), "max": float(values.max())}
