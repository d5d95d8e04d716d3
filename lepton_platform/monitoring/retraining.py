"""When to ask for a retraining, and the book of what was asked: many wishes make one request.

Drift, a loss of quality, enough new labels and the schedule wish for a retraining. ``decide`` is the policy and knows
neither clock nor database. ``RetrainBook`` keeps wishes and requests in the state database, where a unique index holds
what the policy promises even when two processes ask at the same moment.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, cast

import sqlalchemy as sa
from pydantic import Field

from lepton_platform.database import engine
from lepton_platform.settings import Settings
from lepton_platform.stage import Params

Kind = Literal["drift", "quality", "labels", "schedule"]
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
_wish = sa.Table(
    "retrain_wish",
    _metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("task", sa.String, nullable=False, index=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("at", sa.String, nullable=False),
    sa.Column("why", sa.String, nullable=False),
    sa.Column("request", sa.String, index=True),  # that answers it; none: it waits
)


class RetrainParams(Params):
    """The section ``retrain`` of a task's parameters."""

    new_labels: int | None = Field(
        500, ge=1, description="Answers labelled since the last retraining that ask for the next; none: no number does."
    )


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
class Wish:
    """Why one should retrain. ``at``: when that was so; a request that was made later answers it."""

    kind: Kind
    at: datetime
    why: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.why}"


@dataclass(frozen=True)
class Answer:
    """The request to run, or ``None`` and why not. A request that was never started is handed out again."""

    request: RetrainRequest | None
    why: str


def request_id(task: str, at: datetime) -> str:
    """The key of the request that a wish of this moment makes: the same wish always has the same one."""
    return f"{task}-{hashlib.sha256(f'{task} {at.astimezone(UTC).isoformat()}'.encode()).hexdigest()[:16]}"


def decide(
    *,
    task: str,
    wishes: Sequence[Wish],
    last: RetrainRequest | None,
    now: datetime,
    run_in_progress: bool,
    cooldown: timedelta,
) -> Answer:
    """Whether to ask, from what is known. ``wishes``: what no request has answered yet; ``last``: the task's latest.

    All wishes of the moment make one request; those that come while it waits to be started join it.
    """
    if run_in_progress:
        return Answer(None, "A run of this task is in progress.")
    if last is not None and last.state == "requested":
        return Answer(last, "Asked for already, and not started yet.")
    if not wishes:
        return Answer(None, "Nothing asks for a retraining.")
    if last is not None and last.state == "running":
        return Answer(None, f"The retraining asked for at {_minute(last.requested_at)} has not been closed.")
    new = [wish for wish in wishes if last is None or wish.at > last.requested_at]
    if not new:
        assert last is not None
        return Answer(None, f"What asks was answered at {_minute(last.requested_at)}.")
    if last is not None and now < last.requested_at + cooldown:
        until = _minute(last.requested_at + cooldown)
        return Answer(
            None, f"The last retraining was asked for at {_minute(last.requested_at)}; cooling down to {until}."
        )
    first = min(wish.at for wish in new)
    return Answer(RetrainRequest(request_id(task, first), task, _told(new), now), "Nothing speaks against it.")


def _told(wishes: Sequence[Wish]) -> str:
    """All reasons on a line, in the order in which they came."""
    return " | ".join(str(wish) for wish in sorted(wishes, key=lambda wish: (wish.at, wish.kind)))


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

    def wish(self, task: str, wish: Wish) -> None:
        """Write a wish down that nobody could know later; the same one twice is one."""
        with self._engine.begin() as connection:
            _note(connection, task, wish, None)

    def reasons(self, request: str) -> list[Wish]:
        """All wishes that a request answers, in the order in which they came."""
        return self._wishes(_wish.c.request == request)

    def ask(
        self, task: str, wishes: Sequence[Wish], now: datetime, run_in_progress: bool, cooldown: timedelta
    ) -> Answer:
        """Decide and write the request down; whoever comes second with the same wishes is given the first's request.

        Beside ``wishes`` those count that were written down. What a request answers is noted with it.
        """
        last = self.last(task)
        waiting = self._waiting(task, wishes)
        answer = decide(
            task=task, wishes=waiting, last=last, now=now, run_in_progress=run_in_progress, cooldown=cooldown
        )
        request = answer.request
        if request is None or request == last:  # a wish of before the last request is one that it answers
            joined = [w for w in waiting if last is not None and (request is not None or w.at <= last.requested_at)]
            if joined and last is not None:
                self._join(last, joined)
            return answer
        values = {**vars(request), "requested_at": _text(request.requested_at)}
        try:
            with self._engine.begin() as connection:
                connection.execute(_request.insert().values(**values))
                for wish in waiting:
                    _note(connection, task, wish, request.id)
        except sa.exc.IntegrityError:  # another process asked between our look and our word
            return Answer(None, "Another process has just asked for it.")
        return answer

    def _waiting(self, task: str, wishes: Sequence[Wish]) -> list[Wish]:
        """These and those in the book, without what has been answered."""
        known = {_wish_id(task, wish) for wish in self._wishes(_wish.c.task == task, _wish.c.request.is_not(None))}
        written = self._wishes(_wish.c.task == task, _wish.c.request.is_(None))
        every = {_wish_id(task, wish): wish for wish in (*written, *wishes)}
        return [wish for identifier, wish in every.items() if identifier not in known]

    def _wishes(self, *where: sa.ColumnElement[bool]) -> list[Wish]:
        query = sa.select(_wish).where(*where).order_by(_wish.c.at, _wish.c.kind)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return [Wish(cast("Kind", row["kind"]), datetime.fromisoformat(row["at"]), row["why"]) for row in rows]

    def _join(self, request: RetrainRequest, wishes: Sequence[Wish]) -> None:
        """More reasons for a request that was made already."""
        with self._engine.begin() as connection:
            for wish in wishes:
                _note(connection, request.task, wish, request.id)
        told = _told(self.reasons(request.id)) or request.reason
        with self._engine.begin() as connection:
            connection.execute(_request.update().where(_request.c.id == request.id).values(reason=told))

    def mark(self, request: str, state: State, run_id: str | None = None) -> None:
        """What became of a request; ``KeyError`` where there is none of that id. ``run_id`` stays once it is known."""
        values = {"state": state} | ({"run_id": run_id} if run_id else {})
        with self._engine.begin() as connection:
            done = connection.execute(_request.update().where(_request.c.id == request).values(**values))
        if done.rowcount != 1:
            raise KeyError(f"There is no retrain request {request!r}.")


def _wish_id(task: str, wish: Wish) -> str:
    return f"{task} {wish.kind} {_text(wish.at)}"


def _note(connection: sa.Connection, task: str, wish: Wish, request: str | None) -> None:
    """Write it down where it is not, and say which request answers it where none does; two processes may do so at once."""
    from sqlalchemy.dialects import postgresql, sqlite

    insert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(_wish)
    identifier = _wish_id(task, wish)
    values = {"id": identifier, "task": task, "kind": wish.kind, "at": _text(wish.at), "why": wish.why}
    connection.execute(insert.values(**values, request=request).on_conflict_do_nothing())
    if request is not None:
        waits = sa.and_(_wish.c.id == identifier, _wish.c.request.is_(None))
        connection.execute(_wish.update().where(waits).values(request=request))


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _from_row(row: sa.RowMapping) -> RetrainRequest:
    return RetrainRequest(**{**row, "requested_at": datetime.fromisoformat(row["requested_at"])})
