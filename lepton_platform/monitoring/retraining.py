"""When to ask for a retraining, and the book of what was asked: two alarms make one request.

``decide`` is the policy and knows neither clock nor database. ``RetrainBook`` keeps the requests in the state
database, where a unique index holds what the policy promises even when two processes ask at the same moment.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import sqlalchemy as sa

from lepton_platform.database import engine
from lepton_platform.settings import Settings

State = Literal["requested", "running", "done", "failed"]
OPEN: tuple[State, ...] = ("requested", "running")

_metadata = sa.MetaData()
_request = sa.Table(
    "retrain_request",
    _metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("task", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("requested_at", sa.String, nullable=False),  # ISO 8601, UTC, microseconds: sorts as text
    sa.Column("run_id", sa.String),
    sa.Column("state", sa.String, nullable=False),
)
_is_open = _request.c.state.in_(OPEN)
sa.Index("retrain_request_open", _request.c.task, unique=True, sqlite_where=_is_open, postgresql_where=_is_open)
sa.Index("retrain_request_time", _request.c.task, _request.c.requested_at)


@dataclass(frozen=True)
class RetrainRequest:
    """A retraining that was asked for. ``id`` is its key: an orchestrator that is given it twice runs it once."""

    id: str
    task: str
    reason: str
    requested_at: datetime
    run_id: str | None = None
    state: State = "requested"


@dataclass(frozen=True)
class Alarm:
    """The drift check's last word. ``at``: when it was said."""

    failed: bool
    at: datetime
    reason: str = ""


@dataclass(frozen=True)
class Answer:
    """The request to run, or ``None`` and why not. A request that was never started is handed out again."""

    request: RetrainRequest | None
    why: str


def request_id(task: str, alarm_at: datetime) -> str:
    """The key of the request that this alarm makes: the same alarm always has the same one."""
    return f"{task}-{hashlib.sha256(f'{task} {alarm_at.astimezone(UTC).isoformat()}'.encode()).hexdigest()[:16]}"


def decide(
    *,
    task: str,
    alarm: Alarm | None,
    last: RetrainRequest | None,
    now: datetime,
    run_in_progress: bool,
    cooldown: timedelta,
) -> Answer:
    """Whether to ask, from what is known; ``last`` is the task's latest request, whatever became of it."""
    if run_in_progress:
        return Answer(None, "A run of this task is in progress.")
    if last is not None and last.state == "requested":
        return Answer(last, "Asked for already, and not started yet.")
    if alarm is None:
        return Answer(None, "The drift check has not said anything yet.")
    if not alarm.failed:
        return Answer(None, "The drift check passed.")
    if last is not None and last.state == "running":
        return Answer(None, f"The retraining asked for at {_minute(last.requested_at)} has not been closed.")
    if last is not None and alarm.at <= last.requested_at:
        return Answer(None, f"This alarm was answered at {_minute(last.requested_at)}; no check has failed since.")
    if last is not None and now < last.requested_at + cooldown:
        until = _minute(last.requested_at + cooldown)
        return Answer(
            None, f"The last retraining was asked for at {_minute(last.requested_at)}; cooling down to {until}."
        )
    return Answer(
        RetrainRequest(request_id(task, alarm.at), task, alarm.reason, now), "Drift, and nothing speaks against it."
    )


def _minute(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


class RetrainBook:
    """The requests of all tasks, in the state database; at most one of a task is open."""

    def __init__(self, settings: Settings) -> None:
        self._engine = engine(settings.database_url)
        _metadata.create_all(self._engine)

    def last(self, task: str) -> RetrainRequest | None:
        found = self.requests(task, limit=1)
        return found[0] if found else None

    def requests(self, task: str, limit: int = 100) -> list[RetrainRequest]:
        """The task's latest requests, the newest first."""
        newest_first = (_request.c.requested_at.desc(), _request.c.id)
        query = sa.select(_request).where(_request.c.task == task).order_by(*newest_first).limit(limit)
        with self._engine.connect() as connection:
            return [_from_row(row) for row in connection.execute(query).mappings()]

    def ask(self, task: str, alarm: Alarm | None, now: datetime, run_in_progress: bool, cooldown: timedelta) -> Answer:
        """Decide and write the request down; whoever comes second with the same alarm is given the first's request."""
        last = self.last(task)
        answer = decide(task=task, alarm=alarm, last=last, now=now, run_in_progress=run_in_progress, cooldown=cooldown)
        if answer.request is None or answer.request == last:
            return answer
        values = {**vars(answer.request), "requested_at": _text(answer.request.requested_at)}
        try:
            with self._engine.begin() as connection:
                connection.execute(_request.insert().values(**values))
        except sa.exc.IntegrityError:  # another process asked between our look and our word
            return Answer(None, "Another process has just asked for it.")
        return answer

    def mark(self, request: str, state: State, run_id: str | None = None) -> None:
        """What became of a request; ``KeyError`` where there is none of that id. ``run_id`` stays once it is known."""
        values = {"state": state} | ({"run_id": run_id} if run_id else {})
        with self._engine.begin() as connection:
            done = connection.execute(_request.update().where(_request.c.id == request).values(**values))
        if done.rowcount != 1:
            raise KeyError(f"There is no retrain request {request!r}.")


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _from_row(row: sa.RowMapping) -> RetrainRequest:
    return RetrainRequest(**{**row, "requested_at": datetime.fromisoformat(row["requested_at"])})


def ask_for_retrain(
    settings: Settings, task: str, alarm: Alarm | None, *, now: datetime, run_in_progress: bool, cooldown: timedelta
) -> Answer:
    """What a sensor asks at every tick: the request to launch now, or why there is none."""
    return RetrainBook(settings).ask(task, alarm, now, run_in_progress, cooldown)
