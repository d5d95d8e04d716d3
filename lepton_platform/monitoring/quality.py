"""How good the service's answers are by what people said since: the task's own figure, with its interval.

Labels come late, twice, for ids that nobody knows, and contradict each other. A window is judged as of a time: what was
said later does not count, so that the same window as of the same time always has the same figure.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import compress
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field

from lepton_platform.data.records import TIME, content_id, raw_schema, to_table
from lepton_platform.monitoring.feedback import BASE64, ID, words_of
from lepton_platform.monitoring.words import Counts, Row, Words
from lepton_platform.stage import Params
from lepton_platform.training.bootstrap import REPEATS, Interval

if TYPE_CHECKING:
    import pyarrow as pa

    from lepton_platform.training.evaluation import Sampling

FEW_GROUPS = 30  # below, a bootstrap of groups is too sure of itself (Cameron, Gelbach & Miller 2008)


class FeedbackParams(Params):
    """The section ``feedback`` of a task's parameters: what is made of what people say."""

    min_rows: int = Field(100, ge=1, description="Labelled answers below which quality is not judged.")
    max_rows: int = Field(1_000, ge=1, description="Labelled answers that are judged at most, by the id's hash.")


class Judge(Protocol):
    """What is asked of a task's evaluator (``training.evaluation.Evaluator``)."""

    @property
    def headline_name(self) -> str: ...

    def served(self, rows: "pa.Table", answers: Sequence[Row]) -> "pa.Table": ...

    def compare(self, one: "pa.Table", other: "pa.Table", sampling: "Sampling") -> Interval: ...


def join(
    predictions: Iterable["pa.Table"],
    feedback: "pa.Table",
    *,
    since: datetime,
    until: datetime,
    as_of: datetime,
    model: str | None,
    truth: str,
) -> tuple[list[tuple[Row, Any]], Counts]:
    """Answers given in [since, until) by ``model`` (``None``: by any), each with what was known to be true at ``as_of``.

    ``predictions``: pieces of the log with ``id``, ``at``, ``model`` and more, which at least hold all that feedback is
    on. ``feedback``: as for ``feedback.words_of``. In the order of the log; no answer twice.
    """
    said = Words.of(words_of(feedback, truth), as_of)
    rows = (row for piece in predictions for row in piece.to_pylist())
    found, counts = said.on(rows, since=since, until=until, model=model)
    return [(row, one.truth) for row, one in found], counts


def figure(judge: Judge, rows: "pa.Table", answers: Sequence[Row]) -> Interval:
    """The figure that decides (accuracy, AP50, word accuracy) of ``answers`` to N ``rows``, with its 95 % interval.

    It is the evaluator's own paired bootstrap against a service that refuses everything, whose figure is 0.
    """
    return gain(judge, rows, answers, [{"error": "refused"}] * rows.num_rows)


def gain(judge: Judge, rows: "pa.Table", after: Sequence[Row], before: Sequence[Row]) -> Interval:
    """By how much ``after`` is better than ``before`` on the same rows: the paired bootstrap."""
    from lepton_platform.training.evaluation import Sampling

    return judge.compare(judge.served(rows, after), judge.served(rows, before), Sampling(REPEATS, seed=0))


def labelled_table(source: Any, lines: Sequence[Row]) -> "pa.Table":
    """Labelled inputs as rows of the task's columns, made as the stage ``raw`` makes them of ``labels.jsonl``.

    ``lines``: ``id``, the input's column (media as bytes), what is true. ``ValueError`` where one is not whole.
    """
    records = [{ID: line[ID], TIME: None, **source.labelled(_as_read(line))} for line in lines]
    return to_table(records, raw_schema(source.SCHEMA))


def _as_read(line: Row) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return {BASE64: base64.b64encode(value).decode("ascii")} if isinstance(value, bytes) else value

    return {name: plain(value) for name, value in line.items()}


@dataclass(frozen=True)
class ServedQuality:
    """A window's verdict. ``name`` and ``estimate`` [``low``, ``high``]: the figure; ``tested``: the frozen test's.

    ``broken``: labelled answers that nothing could be made of, such as those whose input is gone.
    """

    state: Literal["passed", "failed", "not_judged"]
    why: str
    model: str
    as_of: str
    name: str
    counts: Counts
    rows: int = 0
    broken: int = 0
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    tested: float | None = None
    tested_low: float | None = None

    @property
    def failed(self) -> bool:
        return self.state == "failed"

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def chosen(joined: Sequence[tuple[Row, Any]], most: int) -> list[tuple[Row, Any]]:
    """At most so many, by the hash of their ids: the same ones every time, in that order."""
    return sorted(joined, key=lambda pair: content_id("quality", pair[0][ID]))[:most]


def judged(
    joined: Sequence[tuple[Row, Any]],
    counts: Counts,
    *,
    judge: Judge,
    source: Any,
    content: str,
    truth: str,
    tested: Mapping[str, Any],
    params: FeedbackParams,
    model: str,
    as_of: datetime,
) -> ServedQuality:
    """Is the service as good as the frozen test said of its model? Not judged where few answers are labelled.

    ``joined``: ``chosen`` of ``join``, with their inputs. ``content``: the input's column. ``tested``: the model's
    figures, with ``<name>`` and ``<name>_ci95``. It fails where the window's interval lies below that of the test.
    """
    lines = [{ID: row[ID], content: row.get(content), truth: true} for row, true in joined]
    whole = [_whole(source, line) for line in lines]
    lines = list(compress(lines, whole))
    answers = [row for row, _ in compress(joined, whole)]
    name, broken = judge.headline_name, len(joined) - len(lines)
    result = ServedQuality("not_judged", "", model, as_of.isoformat(), name, counts, len(lines), broken)
    if len(lines) < params.min_rows:
        return replace(
            result, why=f"{len(lines)} labelled answers are too few to judge; min_rows is {params.min_rows}."
        )
    rows = labelled_table(source, lines)
    groups = len(set(rows[source.GROUP].to_pylist()))
    if groups < FEW_GROUPS:
        few = f"They are of {groups} different inputs or groups; an interval needs {FEW_GROUPS}."
        return replace(result, why=f"{len(lines)} labelled answers do not say enough. {few}")
    found = figure(judge, rows, answers)
    measured = replace(result, estimate=found.estimate, low=found.low, high=found.high)
    said = f"{name} {found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}] on {len(lines):,} labelled answers"
    before, ends = tested.get(name), tested.get(f"{name}_ci95")
    if before is None or not ends or ends[0] is None:
        return replace(measured, why=f"{said}; the frozen test says nothing to compare it with.")
    measured = replace(measured, tested=before, tested_low=ends[0])
    against = f"the frozen test said {before:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"
    if found.high < ends[0]:
        return replace(measured, state="failed", why=f"Worse than tested: {said}; {against}.")
    return replace(measured, state="passed", why=f"As good as tested: {said}; {against}.")


def _whole(source: Any, line: Row) -> bool:
    """Can the task make a row of it?"""
    try:
        source.labelled(_as_read(line))
    except (ValueError, TypeError):
        return False
    return True
