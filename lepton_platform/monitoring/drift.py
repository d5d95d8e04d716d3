"""Is what is served still what was trained on? Evidently's report, and a verdict that seldom cries wolf.

A signal has drifted when its distance from the reference is more than chance makes (``calibration``: at most
``false_alarm_rate`` of the windows of ordinary rows exceed any threshold) *and* more than matters
(``min_distance``). The check fails when a signal has drifted; a window of too few rows is not judged.

Where sketches have counted more rows of a signal than the sample has, the distance is theirs.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from lepton_platform.monitoring import calibration, distances
from lepton_platform.monitoring.evidently_report import KS, TV, Pair
from lepton_platform.monitoring.painter import Painter, Place
from lepton_platform.monitoring.reference import DriftPart, Reference, References
from lepton_platform.monitoring.sampling import by_hash_of_id
from lepton_platform.monitoring.signals import Signals
from lepton_platform.monitoring.sketches import Sketches
from lepton_platform.stage import Params

KEPT_REPORTS = 200  # eight days of hourly checks, some 0.7 MB each
ABOUT = "What is served compared with what was trained on."
logger = logging.getLogger("lepton.drift")


class DriftParams(Params):
    """The section ``drift`` of a task's parameters."""

    min_rows: int = Field(50, ge=20, description="A window of fewer rows is not judged.")
    max_rows: int = Field(1_000, ge=20, description="Rows whose inputs are looked at, chosen by the id's hash.")
    min_distance: float = Field(0.1, ge=0, le=1, description="Share of the rows that must have moved to matter.")


@dataclass(frozen=True)
class Window:
    """What was served. ``sample``: rows of the log with their inputs; all of them where ``n_served`` says no more.

    ``counted``: sketches of the signals that are cheap to tell, of more rows than the sample has.
    """

    sample: pa.Table
    n_served: int
    counted: Sketches = field(default_factory=Sketches)


@dataclass(frozen=True)
class SignalDrift:
    """One signal. ``chance``: the distance that windows of this size reach by chance. ``drifted``: beyond both.

    ``rows``: of the window, that its distance was measured on.
    """

    name: str
    method: str
    distance: float
    threshold: float
    chance: float
    drifted: bool
    rows: int


@dataclass(frozen=True)
class DriftResult:
    """The verdict, why, and where to read on. ``html``/``json``: the report's files, where one was written.

    ``n_served``: rows of the window; ``n_current``: those of them whose inputs were looked at.
    """

    state: Literal["passed", "failed", "not_judged"]
    why: str
    n_served: int
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


def drift(
    *,
    known: References,
    window: Window,
    part: DriftPart,
    params: DriftParams,
    downloads: Path,
    out: Path,
    at: datetime,
    workspace: Path | None = None,
    project: str = "drift",
    metadata: Mapping[str, str] | None = None,
    painter: Painter | None = None,
) -> DriftResult:
    """Compare what was served with what was trained on.

    ``known``: of the model that served. ``window.sample``: rows of the prediction log, with ``id``, the task's input
    columns, ``label`` and ``score``. ``out``: a folder for report.html, report.json and result.json. ``at``: the
    window's time. ``workspace``: Evidently's, to which the report is added under ``project``. ``painter``: draws it; one
    of the check's own otherwise.
    """
    sample = by_hash_of_id(window.sample, params.max_rows)
    n_reference, n_answers = len(known.inputs), len(known.answers)
    counted = DriftResult("not_judged", "", window.n_served, sample.num_rows, n_reference, n_answers)
    if why := _too_few(known, sample.num_rows, params):
        return _written(replace(counted, why=why), out)
    with nullcontext(painter) if painter is not None else Painter() as drawing:  # it gets ready meanwhile
        parts = [(known.inputs, known.inputs.watched(part.inputs(sample, downloads)))]
        parts.append((known.answers, part.answers(sample)))
        found = [one for reference, signals in parts for one in judged(reference, signals, window.counted, params)]
        result = _verdict(counted, found)
        if not _judges(known.answers, sample.num_rows):
            few = f" The answers were not judged: there are {n_answers} held-out rows to compare them with."
            result = replace(result, why=result.why + few)
        pairs = [_pair(reference, signals, found) for reference, signals in parts]
        told = _metadata(result, metadata or {})
        place = _place(result, out, workspace, project, told.get("rows", ""))
        try:
            saved = drawing.draw([pair for pair in pairs if pair.thresholds], place, at=at, metadata=told)
        except OSError as error:  # a verdict without a page is one all the same
            logger.warning("%s", error)
            return _written(result, out)
    return _written(replace(result, html=place.html, json=place.json, report_id=saved), out)


def judged(known: Reference, current: Signals, counted: Sketches, params: DriftParams) -> Iterator[SignalDrift]:
    """Each signal that the reference has thresholds for: from the sketches where they saw more rows, else the sample."""
    if not _judges(known, len(current)):
        return
    for name in next(iter(known.thresholds.values())):
        numbers = name in known.signals.numbers
        then = known.signals.numbers[name] if numbers else known.signals.classes[name]
        now = current.numbers.get(name) if numbers else current.classes.get(name)
        rows = max(counted.rows(name), 0 if now is None else len(now))
        if rows == 0:  # the part no longer measures it
            continue
        if now is None or len(now) < rows:
            distance = counted.distance(name, then)
        else:
            distance = (distances.ks_distance if numbers else distances.total_variation)(then, now)  # pyright: ignore[reportArgumentType]
        chance = calibration.for_size(known.thresholds, rows)[name]
        limit = max(chance, params.min_distance)
        yield SignalDrift(name, KS if numbers else TV, distance, limit, chance, distance > limit, rows)


def _judges(known: Reference, rows: int) -> bool:
    return bool(known.thresholds) and rows >= min(known.thresholds)


def _too_few(known: References, rows: int, params: DriftParams) -> str:
    """Why the window is not judged, or nothing."""
    if rows < params.min_rows:
        return f"{rows} rows are too few to judge; min_rows is {params.min_rows}."
    if not known.inputs.thresholds:
        return f"The reference has {len(known.inputs)} rows; twice reference.smallest_window are needed to judge."
    smallest = min(known.inputs.thresholds)
    if rows < smallest:
        return f"{rows} rows are too few to judge; the reference's smallest_window is {smallest}."
    return ""


def _pair(known: Reference, current: Signals, found: list[SignalDrift]) -> Pair:
    own = {one.name: one for one in found if one.name in known.signals.numbers or one.name in known.signals.classes}
    shown = {name for name in own if name in current.numbers or name in current.classes}
    limits = {name: own[name].threshold for name in own if name in shown}
    return Pair(known.signals, current, limits, {name: own[name].distance for name in limits})


def _metadata(result: DriftResult, more: Mapping[str, str]) -> dict[str, str]:
    """What the report's page says of where its figures are from."""
    told = {name: str(getattr(result, name)) for name in ("n_served", "n_current", "n_reference", "n_answers")}
    if result.n_served > result.n_current:
        counted = [f"{one.name} from {one.rows:,}" for one in result.signals if one.rows > result.n_current]
        also = f"; distances by sketches: {', '.join(counted)}" if counted else ""
        told["rows"] = f"The charts show {result.n_current:,} of {result.n_served:,} rows{also}."
    return {**more, **told}


def _place(result: DriftResult, out: Path, workspace: Path | None, project: str, note: str) -> Place:
    html, as_json = str(out / "report.html"), str(out / "report.json")
    if workspace is None:
        return Place(html, as_json, note)
    name = f"{result.state}: {_rows(result)}"
    return Place(html, as_json, note, str(workspace), project, name, ABOUT, KEPT_REPORTS)


def _rows(result: DriftResult) -> str:
    if result.n_served > result.n_current:
        return f"{result.n_current} of {result.n_served} rows"
    return f"{result.n_current} rows"


def _verdict(counted: DriftResult, found: list[SignalDrift]) -> DriftResult:
    found = sorted(found, key=lambda signal: (signal.threshold - signal.distance, signal.name))
    drifted = [signal for signal in found if signal.drifted]
    result = replace(counted, share=len(drifted) / len(found), signals=tuple(found))
    if drifted:
        listed = ", ".join(f"{s.name} {s.distance:.2f} (limit {s.threshold:.2f})" for s in drifted)
        return replace(result, state="failed", why=f"Drift in {len(drifted)} of {len(found)} signals: {listed}.")
    nearest = found[0]
    why = f"No signal has drifted; the nearest is {nearest.name}, {nearest.distance:.2f} of {nearest.threshold:.2f}."
    return replace(result, state="passed", why=why)


def _written(result: DriftResult, out: Path) -> DriftResult:
    out.mkdir(parents=True, exist_ok=True)
    part = out / ".result.json.new"
    part.write_text(json.dumps(result.as_dict(), indent=2), encoding="utf-8")
    part.replace(out / "result.json")
    return result
