"""A task's story from everything that wrote something down: trainings, alarms, requests, rollouts. In one order."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from lepton_platform.pipeline.ledger import Ledger
from lepton_platform.settings import Settings

TOLD = ("model", "quality")  # stages whose runs are events; the others are only so where they fail


@dataclass(frozen=True)
class Event:
    """``at``: ISO 8601, UTC, seconds. ``what``: a word or two. ``who``: a person, ramp, dagster, dvc."""

    at: str
    what: str
    why: str
    who: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def history(settings: Settings, task: str, most: int | None = None) -> list[Event]:
    """The latest ``most``, the oldest first."""
    found = [
        *_trainings(settings, task),
        *_alarms(settings, task),
        *_qualities(settings, task),
        *_requests(settings, task),
        *_rollouts(settings, task),
    ]
    found.sort(key=lambda event: event.at)
    return found if most is None else found[-most:]


def _trainings(settings: Settings, task: str) -> Iterator[Event]:
    labelled = 0.0
    for attempt in Ledger(settings).attempts(task):
        rows = attempt.metrics.get("feedback_rows", labelled) if attempt.stage == "raw" else labelled
        if rows != labelled:
            why = f"{rows:,.0f} labelled rows of the service are data now, {labelled:,.0f} were."
            details = {"version": attempt.version, "run_id": attempt.run_id}
            yield Event(_at(attempt.started_at), "labels taken in", why, attempt.face, details)
            labelled = rows
        if attempt.state == "failed":
            yield Event(_at(attempt.started_at), f"{attempt.stage} failed", attempt.message or "", attempt.face)
        elif attempt.stage in TOLD:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in list(attempt.metrics.items())[:3])
            details = {"version": attempt.version, "run_id": attempt.run_id, "metrics": dict(attempt.metrics)}
            what = "trained" if attempt.stage == "model" else "judged"
            yield Event(_at(attempt.started_at), what, figures, attempt.face, details)


def _alarms(settings: Settings, task: str) -> Iterator[Event]:
    from lepton_platform.monitoring.alerts import Alerts

    for alert in Alerts(settings, []).of(task):
        yield Event(_at(alert.opened_at), f"alert: {alert.kind}", alert.why, details={"seen": alert.seen})
        if alert.resolved_at is not None:
            yield Event(_at(alert.resolved_at), f"resolved: {alert.kind}", alert.resolved_why or "")


def _requests(settings: Settings, task: str) -> Iterator[Event]:
    from lepton_platform.monitoring.retraining import RetrainBook

    book = RetrainBook(settings)
    for request in book.requests(task):
        asked = [{"kind": wish.kind, "at": wish.at.isoformat(), "why": wish.why} for wish in book.reasons(request.id)]
        details = {"run_id": request.run_id, "state": request.state, "reasons": asked}
        why = f"{request.reason} ({request.state})"
        yield Event(_at(request.requested_at.isoformat()), "retrain asked for", why, details=details)


def _qualities(settings: Settings, task: str) -> Iterator[Event]:
    """The served quality whenever its verdict changed, or that of another model was judged."""
    from lepton_platform.monitoring.quality_book import QualityBook

    before = ("", "")
    for found in reversed(QualityBook(settings).of(task)):
        now = (found.state, found.model)
        if now != before and found.state != "not_judged":
            yield Event(_at(found.as_of), f"served quality {found.state}", found.why, "dagster", found.as_dict())
            before = now


def _rollouts(settings: Settings, task: str) -> Iterator[Event]:
    from lepton_platform.serving.audit import changes
    from lepton_platform.serving.deployments import Deployments

    for change in changes(Deployments(settings).engine, task):
        details = {"tag": change.tag, "run_id": change.run_id, **change.details}
        yield Event(
            _at(change.at), f"{change.action}: {change.tag.partition(':')[2][:8]}", change.why, change.who, details
        )


def _at(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
