"""Alerts: what people are told once when it begins and once when it is over, by log, webhook and e-mail.

An alert is a row: a task, a kind (``drift``, ``quality``, ``rollout``), open until it is resolved; a unique index keeps
one of a kind open. What was seen again while it is open is counted and not told. Each channel is told of each beginning
and each end at least once: what could not be sent is sent with the next word, or by ``deliver``.
"""

import logging
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from lepton_platform.database import engine
from lepton_platform.monitoring.channels import Channel, channels
from lepton_platform.settings import Settings

Kind = Literal["drift", "quality", "rollout"]
MOST_TRIED = 100  # alerts whose words a call looks at, the latest: older ones that could not be told stay untold
logger = logging.getLogger("lepton.alerts")

_metadata = sa.MetaData()
_alert = sa.Table(
    "alert",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("task", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("why", sa.String, nullable=False),
    sa.Column("opened_at", sa.String, nullable=False),
    sa.Column("seen", sa.Integer, nullable=False),
    sa.Column("seen_at", sa.String, nullable=False),
    sa.Column("resolved_at", sa.String),
    sa.Column("resolved_why", sa.String),
    sa.Column("told_opened", sa.JSON, nullable=False),  # names of channels
    sa.Column("told_resolved", sa.JSON, nullable=False),
)
_is_open = _alert.c.resolved_at.is_(None)
sa.Index("alert_open", _alert.c.task, _alert.c.kind, unique=True, sqlite_where=_is_open, postgresql_where=_is_open)


@dataclass(frozen=True)
class Alert:
    """One row. Times are ISO 8601, UTC; ``seen``: how often it was seen while open."""

    id: int
    task: str
    kind: Kind
    why: str
    opened_at: str
    seen: int
    seen_at: str
    resolved_at: str | None = None
    resolved_why: str | None = None
    told_opened: list[str] = field(default_factory=list)
    told_resolved: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def words(self, over: bool) -> str:
        """What is told of it, on a line."""
        if over:
            return f"[resolved] {self.task}: {self.kind}. {self.resolved_why}"
        return f"[alert] {self.task}: {self.kind}. {self.why}"


class Alerts:
    """The table in the state database, and the channels of the settings."""

    def __init__(self, settings: Settings, told: list[Channel] | None = None) -> None:
        self._engine = engine(settings.database_url)
        self._channels = channels(settings) if told is None else told
        _metadata.create_all(self._engine)

    def raised(self, task: str, kind: Kind, why: str, at: datetime | None = None) -> Alert:
        """It is so (still). Told if it was not so before."""
        when = _text(at)
        values = {"task": task, "kind": kind, "why": why, "opened_at": when, "seen": 1, "seen_at": when}
        try:
            with self._engine.begin() as connection:
                connection.execute(_alert.insert().values(**values, told_opened=[], told_resolved=[]))
        except IntegrityError:  # it is open already
            with self._engine.begin() as connection:
                connection.execute(
                    _alert.update().where(*_open(task, kind)).values(seen=_alert.c.seen + 1, seen_at=when)
                )
        self.deliver()
        return self.of(task, kind)[0]

    def cleared(self, task: str, kind: Kind, why: str, at: datetime | None = None) -> bool:
        """It is not so (any more). Told if it was so before; ``False`` where it was not."""
        with self._engine.begin() as connection:
            ended = connection.execute(
                _alert.update().where(*_open(task, kind)).values(resolved_at=_text(at), resolved_why=why)
            )
        self.deliver()
        return ended.rowcount > 0

    def of(self, task: str, kind: Kind | None = None) -> list[Alert]:
        """A task's, the latest first."""
        where = [_alert.c.task == task] + ([] if kind is None else [_alert.c.kind == kind])
        return self._select(*where)

    def open(self) -> list[Alert]:
        return self._select(_is_open)

    def deliver(self) -> None:
        """Tell every channel what it has not been told; one that fails is logged and tried again with the next word."""
        for alert in self._select(most=MOST_TRIED)[::-1]:
            for over, told in ((False, alert.told_opened), (True, alert.told_resolved)):
                if over and alert.resolved_at is None:
                    continue
                self._tell(alert, over, told)

    def _tell(self, alert: Alert, over: bool, told: list[str]) -> None:
        for channel in self._channels:
            if channel.name in told:
                continue
            try:
                channel.send(alert.words(over))
            except Exception as error:  # whatever a network may raise: the alert must not stop what it is about
                logger.warning("%s could not be told: %s", channel.name, error)
                continue
            told.append(channel.name)
            column = _alert.c.told_resolved if over else _alert.c.told_opened
            with self._engine.begin() as connection:
                connection.execute(_alert.update().where(_alert.c.id == alert.id).values({column: told}))

    def _select(self, *where: sa.ColumnElement[bool], most: int | None = None) -> list[Alert]:
        query = sa.select(_alert).where(*where).order_by(_alert.c.id.desc()).limit(most)
        with self._engine.connect() as connection:
            return [Alert(**row) for row in connection.execute(query).mappings()]


def _open(task: str, kind: Kind) -> tuple[sa.ColumnElement[bool], ...]:
    return _alert.c.task == task, _alert.c.kind == kind, _is_open


def _text(at: datetime | None) -> str:
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
