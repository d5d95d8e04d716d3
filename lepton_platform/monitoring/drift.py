"""Is what is served still what was trained on? Evidently's report, and a verdict that seldom cries wolf.

A signal has drifted when its distance from the reference is more than chance makes (``calibration``: at most
``false_alarm_rate`` of the windows of ordinary rows exceed any threshold) *and* more than matters
(``min_distance``). The check fails when a signal has drifted; a window of too few rows is not judged.
"""

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa
from pydantic import Field

from lepton_platform.monitoring import calibration
from lepton_platform.monitoring import reference as references
from lepton_platform.monitoring.evidently_report import DriftReport, Pair
from lepton_platform.monitoring.reference import Reference
from lepton_platform.monitoring.signals import Signals
from lepton_platform.stage import Params

ID, LABEL, PREDICTED = "id", "label", "predicted"
KEPT_REPORTS = 200  # eight days of hourly checks, some 0.7 MB each
ABOUT = "What is served compared with what was trained on."


class DriftParams(Params):
    """The section ``drift`` of a task's parameters."""

    min_rows: int = Field(50, ge=20, description="A window of fewer rows is not judged.")
    max_rows: int = Field(1_000, ge=20, description="Rows of a window that are looked at, chosen by the id's hash.")
    max_reference_rows: int = Field(2_000, ge=40, description="Training rows compared with; whole groups, by hash.")
    min_distance: float = Field(0.1, ge=0, le=1, description="Share of the rows that must have moved to matter.")
    false_alarm_rate: float = Field(0.01, gt=0, lt=1, description="Of windows in which nothing has changed.")
    windows: int = Field(1_000, ge=100, description="Windows of the reference that thresholds are measured on.")
    neighbours: int = Field(5, ge=1, description="Training rows that a row's novelty is measured by.")
    seed: int = 0


class DriftPart(Protocol):
    """A task's ``drift.py``: what can drift.

    It may also have ``reference(rows: pa.Table) -> pa.Table``: the rows that current ones are compared with, made of
    a sample of the training rows, or of the held-out answers, where these are too few, or not what a service is sent:
    parts of large pictures, say. ``GROUP`` is then a column of what it returns.
    """

    GROUP: str | None
    """The column of the training rows whose rows resemble each other; ``None`` where rows are independent."""

    def inputs(self, rows: pa.Table, downloads: Path) -> Signals:
        """Signals of what came in; ``rows`` has the task's input columns. ``downloads``: the cache of packages."""
        ...

    def answers(self, rows: pa.Table) -> Signals:
        """Signals of what was answered; ``rows`` has the columns ``label`` and ``score`` (or the task's own)."""
        ...


@dataclass(frozen=True)
class SignalDrift:
    """One signal. ``chance``: the distance that windows of this size reach by chance. ``drifted``: beyond both."""

    name: str
    method: str
    distance: float
    threshold: float
    chance: float
    drifted: bool


@dataclass(frozen=True)
class DriftResult:
    """The verdict, why, and where to read on. ``html``/``json``: the report's files, where one was written."""

    state: Literal["passed", "failed", "not_judged"]
    why: str
    n_current: int
    n_reference: int
    n_answers: int
    share: float = 0.0
    signals: tuple[SignalDrift, ...] = ()
    html: str | None = None
    json: str | None = None
    report_id: str | None = None

    @property
    def failed(self) -> bool:
        return self.state == "failed"

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def held_out_answers(predictions: pa.Table, rows: pa.Table, group: str | None) -> pa.Table:
    """What the model answers on rows it has not learnt from, as the log would have it: the answers' reference.

    ``predictions``: ``id``, what was answered (a label is called ``predicted`` there, and ``label`` in the log), and
    perhaps the group's column; ``rows``: the same ids, from which it is taken where the predictions lack it.
    """
    answers = predictions
    if PREDICTED in answers.column_names:
        answers = answers.drop_columns([LABEL])
        answers = answers.rename_columns([LABEL if name == PREDICTED else name for name in answers.column_names])
    if group is None or group in answers.column_names or group not in rows.column_names:
        return answers
    of_row = dict(zip(rows[ID].to_pylist(), rows[group].to_pylist(), strict=True))
    return answers.append_column(group, pa.array([of_row[i] for i in answers[ID].to_pylist()], rows[group].type))


def drift(
    *,
    reference: pa.Table,
    answers: pa.Table,
    current: pa.Table,
    part: DriftPart,
    params: DriftParams,
    downloads: Path,
    cache: Path,
    out: Path,
    at: datetime,
    workspace: Path | None = None,
    project: str = "drift",
    metadata: Mapping[str, str] | None = None,
) -> DriftResult:
    """Compare what was served with what was trained on.

    ``reference``: training rows. ``answers``: ``held_out_answers``. ``current``: rows of the prediction log, with
    ``id``, the task's input columns, ``label`` and ``score``. ``cache``: a folder for what the reference was measured
    to be. ``out``: a folder for report.html, report.json and result.json. ``at``: the window's time.
    ``workspace``: Evidently's, to which the report is added under ``project``.
    """
    nothing = DriftResult("not_judged", "", current.num_rows, 0, 0)
    if current.num_rows < params.min_rows:
        why = f"{current.num_rows} rows are too few to judge; min_rows is {params.min_rows}."
        return _written(replace(nothing, why=why), out)
    served = by_hash_of_id(current, params.max_rows)
    trained = _reference("inputs", reference, part, params, downloads, cache)
    answered = _reference("answers", answers, part, params, downloads, cache)
    n_current, n_reference, n_answers = served.num_rows, len(trained.signals), len(answered.signals)
    counted = replace(nothing, n_current=n_current, n_reference=n_reference, n_answers=n_answers)
    if not trained.thresholds:
        why = f"The reference has {n_reference} rows; twice min_rows ({params.min_rows}) are needed to judge."
        return _written(replace(counted, why=why), out)
    pairs, chance = [], {}
    for known, found in ((trained, part.inputs(served, downloads)), (answered, part.answers(served))):
        if known.thresholds:
            by_chance = calibration.for_size(known.thresholds, n_current)
            limits = {name: max(limit, params.min_distance) for name, limit in by_chance.items()}
            pairs.append(Pair(known.signals, known.watched(found, params.neighbours), limits))
            chance |= by_chance
    counts = {"n_current": str(n_current), "n_reference": str(n_reference), "n_answers": str(n_answers)}
    report = DriftReport(pairs, at=at, metadata={**(metadata or {}), **counts})
    result = _verdict(counted, report, chance)
    if not answered.thresholds:
        few = f" The answers were not judged: there are {n_answers} held-out rows to compare them with."
        result = replace(result, why=result.why + few)
    html, as_json = out / "report.html", out / "report.json"
    report.write(html, as_json)
    saved = None
    if workspace is not None:
        name = f"{result.state}: {n_current} rows"
        saved = report.save(workspace, project, name=name, description=ABOUT, keep=KEPT_REPORTS)
    return _written(replace(result, html=str(html), json=str(as_json), report_id=saved), out)


def _verdict(counted: DriftResult, report: DriftReport, chance: Mapping[str, float]) -> DriftResult:
    found = []
    for name, distance in report.scores().items():
        limit = report.thresholds[name]
        found.append(SignalDrift(name, report.methods[name], distance, limit, chance[name], distance > limit))
    found.sort(key=lambda signal: (signal.threshold - signal.distance, signal.name))
    drifted = [signal for signal in found if signal.drifted]
    result = replace(counted, share=len(drifted) / len(found), signals=tuple(found))
    if drifted:
        listed = ", ".join(f"{s.name} {s.distance:.2f} (limit {s.threshold:.2f})" for s in drifted)
        return replace(result, state="failed", why=f"Drift in {len(drifted)} of {len(found)} signals: {listed}.")
    nearest = found[0]
    why = f"No signal has drifted; the nearest is {nearest.name}, {nearest.distance:.2f} of {nearest.threshold:.2f}."
    return replace(result, state="passed", why=why)


def by_hash_of_id(rows: pa.Table, max_rows: int) -> pa.Table:
    """At most ``max_rows`` rows: those whose ids have the smallest hashes, in that order; the same ones every time."""
    hashes = [hashlib.sha256(str(identity).encode()).digest() for identity in rows[ID].to_pylist()]
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    return rows.take(order[:max_rows])


def _reference(
    kind: Literal["inputs", "answers"],
    table: pa.Table,
    part: DriftPart,
    params: DriftParams,
    downloads: Path,
    cache: Path,
) -> Reference:
    sampled, groups = references.sample(table, references.groups_of(table, part.GROUP), params.max_reference_rows)
    path = cache / f"{kind}-{_key(kind, sampled, part, params)}.parquet"
    known = references.load(path)
    if known is None:
        make = getattr(part, "reference", None)
        rows = sampled if make is None else make(sampled)
        groups = groups if make is None else references.groups_of(rows, part.GROUP)
        found = part.inputs(rows, downloads) if kind == "inputs" else part.answers(rows)
        known = references.build(
            found,
            groups,
            neighbours=params.neighbours,
            windows=params.windows,
            false_alarm_rate=params.false_alarm_rate / 2,  # inputs and answers share the rate
            min_rows=params.min_rows,
            seed=params.seed,
        )
        for old in cache.glob(f"{kind}-*.parquet"):
            old.unlink(missing_ok=True)
        references.save(known, path)
    return known


def _key(kind: str, sampled: pa.Table, part: DriftPart, params: DriftParams) -> str:
    """Of everything that the reference is made from: rows, parameters, the code of the task and of the rooms it may use."""
    digest = hashlib.sha256(json.dumps([kind, references.content_hash(sampled), params.model_dump()]).encode())
    room = Path(__file__).parent
    task = Path(inspect.getfile(part)).parent  # pyright: ignore[reportArgumentType]
    for folder in (task, room.with_name("data"), room.with_name("models"), room):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _written(result: DriftResult, out: Path) -> DriftResult:
    out.mkdir(parents=True, exist_ok=True)
    part = out / ".result.json.new"
    part.write_text(json.dumps(result.as_dict(), indent=2), encoding="utf-8")
    part.replace(out / "result.json")
    return result
