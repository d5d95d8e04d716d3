"""Alerts: what people are told once when it begins and once when it is over, by log, webhook and e-mail.

An alert is a row: a task (or ``machine``), a kind (``drift``, ``rollout`` …), open until it is resolved; a unique index
keeps one of a kind open. What was seen again while it is open is counted and not told. Each channel is told of each
beginning and each end: what could not be sent is sent with the next word, or by ``deliver``, which the gateway calls every
half minute. Who sends a word claims it first, so that of processes that want to tell it at once one does; the claim of a
process that died with it holds a minute.

What comes and goes is one alert: its end is told when it has stayed away for a while (``STAYS_AWAY``), and what comes back
before is the same, of which nobody hears twice.
"""

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from lepton_platform.database import engine
from lepton_platform.monitoring.advice import MACHINE as MACHINE  # with the alerts, for who raises them
from lepton_platform.monitoring.advice import advice
from lepton_platform.monitoring.channels import Channel, channels
from lepton_platform.settings import Settings

Kind = Literal["drift", "drift_check", "quality", "retrain", "rollout", "service", "errors", "disk"]
LATE = timedelta(days=1)  # what is over for longer is told no more: a channel that is new hears no old stories
CLAIMED = timedelta(seconds=60)  # longer than any channel takes
STAYS_AWAY: Mapping[Kind, timedelta] = {  # before its end is told; others end at once
    "drift": timedelta(hours=2),  # longer than from one check to the next
    "quality": timedelta(hours=2),
    "service": timedelta(minutes=5),
    "errors": timedelta(minutes=5),
    "disk": timedelta(minutes=5),
}
OF_A_BENTO: tuple[Kind, ...] = ("drift", "quality", "rollout")  # over with the next that serves, which is judged anew
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
_claim = sa.Table(
    "alert_claim",
    _metadata,
    sa.Column("alert", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("over", sa.Boolean, primary_key=True),
    sa.Column("channel", sa.String, primary_key=True),
    sa.Column("at", sa.String, nullable=False),
)


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

    def lasted(self) -> str:
        """How long it was so, in words; as long as it is so, nothing."""
        if self.resolved_at is None:
            return ""
        began, over = (datetime.fromisoformat(at) for at in (self.opened_at, self.resolved_at))
        return f"It lasted {(over - began).total_seconds() / 60:,.0f} min, and began with: {self.why}"


class Alerts:
    """The table in the state database, and the channels of the settings. ``stays_away``: by kind, see there."""

    def __init__(
        self,
        settings: Settings,
        told: list[Channel] | None = None,
        stays_away: Mapping[Kind, timedelta] = STAYS_AWAY,
    ) -> None:
        self._engine = engine(settings.database_url)
        self._channels = channels(settings) if told is None else told
        self._link = settings.alert_link or f"http://{settings.host}:{settings.service_port}"
        self._stays_away = stays_away
        _metadata.create_all(self._engine)

    def raised(self, task: str, kind: Kind, why: str, at: datetime | None = None) -> Alert:
        """It is so (still, or again). Told if it was not so before."""
        when = _text(at)
        self._reopen(task, kind, when)
        values = {"task": task, "kind": kind, "why": why, "opened_at": when, "seen": 1, "seen_at": when}
        try:
            with self._engine.begin() as connection:
                connection.execute(_alert.insert().values(**values, told_opened=[], told_resolved=[]))
        except IntegrityError:  # it is open already
            with self._engine.begin() as connection:
                connection.execute(
                    _alert.update().where(*_open(task, kind)).values(seen=_alert.c.seen + 1, seen_at=when)
                )
        self.deliver(at)
        return self.of(task, kind)[0]

    def cleared(self, task: str, kind: Kind, why: str, at: datetime | None = None) -> bool:
        """It is not so (any more). Told if it was so before; ``False`` where it was not."""
        with self._engine.begin() as connection:
            ended = connection.execute(
                _alert.update().where(*_open(task, kind)).values(resolved_at=_text(at), resolved_why=why)
            )
        self.deliver(at)
        return ended.rowcount > 0

    def promoted(self, task: str, tag: str) -> None:
        """Another Bento serves. Where its own checks find the same, it is one alert with what was open."""
        for kind in OF_A_BENTO:
            self.cleared(task, kind, f"{tag} was promoted.")

    def of(self, task: str, kind: Kind | None = None) -> list[Alert]:
        """A task's, the latest first."""
        where = [_alert.c.task == task] + ([] if kind is None else [_alert.c.kind == kind])
        return self._select(*where)

    def open(self) -> list[Alert]:
        return self._select(_is_open)

    def deliver(self, at: datetime | None = None) -> None:
        """Tell every channel what it has not been told; one that fails is logged, and left until the next call."""
        recent = sa.or_(_is_open, _alert.c.resolved_at > _text(datetime.now(UTC) - LATE))
        waiting = self._select(recent)[::-1]
        for channel in self._channels:
            for alert in waiting:
                if not self._told(alert, False, channel):
                    break  # in order: no end before its beginning
                if self._is_away(alert, _text(at)) and not self._told(alert, True, channel):
                    break

    def _is_away(self, alert: Alert, now: str) -> bool:
        """Is it over for so long that it may be told?"""
        stays = self._stays_away.get(alert.kind, timedelta(0))
        return alert.resolved_at is not None and _later(alert.resolved_at, stays) <= now

    def _reopen(self, task: str, kind: Kind, now: str) -> None:
        """The latest of the kind, if it is over and nobody has been told so yet."""
        last = next(iter(self.of(task, kind)), None)
        if last is None or last.resolved_at is None or last.told_resolved or self._is_away(last, now):
            return
        same = (_alert.c.id == last.id, _alert.c.resolved_at == last.resolved_at)
        with contextlib.suppress(IntegrityError), self._engine.begin() as connection:  # another may be open by now
            connection.execute(_alert.update().where(*same).values(resolved_at=None, resolved_why=None))

    def _told(self, alert: Alert, over: bool, channel: Channel) -> bool:
        """Tell one word, unless it was told or need not be; ``False`` where the channel fails."""
        told = alert.told_resolved if over else alert.told_opened
        if channel.name in told or not self._claimed(alert, over, channel):
            return True
        try:
            more = alert.lasted() if over else advice(alert.task, alert.kind, self._link)
            channel.send(f"{alert.words(over)}\n{more}")
        except Exception as error:  # whatever a network may raise: the alert must not stop what it is about
            logger.warning("%s could not be told: %s", channel.name, error)
            self._noted(alert, over, channel, told=False)
            return False
        self._noted(alert, over, channel, told=True)
        return True

    def _claimed(self, alert: Alert, over: bool, channel: Channel) -> bool:
        """Is it this process's to tell? Not while another does, nor when another just has."""
        mine = {"alert": alert.id, "over": over, "channel": channel.name}
        now = datetime.now(UTC)
        try:
            with self._engine.begin() as connection:
                stale = (*_same(mine), _claim.c.at <= _text(now - CLAIMED))
                connection.execute(_claim.delete().where(*stale))
                connection.execute(_claim.insert().values(**mine, at=_text(now)))
                [found] = connection.execute(sa.select(_column(over)).where(_alert.c.id == alert.id)).scalars()
                if channel.name in found:
                    connection.rollback()
                return channel.name not in found
        except IntegrityError:
            return False

    def _noted(self, alert: Alert, over: bool, channel: Channel, told: bool) -> None:
        """Give the claim back, with what came of it. Another channel's word may be noted at the same moment."""
        column = _column(over)
        with self._engine.begin() as connection:
            connection.execute(  # first, so that who comes second waits here and reads what the first has written
                _claim.delete().where(*_same({"alert": alert.id, "over": over, "channel": channel.name}))
            )
            if told:
                query = sa.select(column).where(_alert.c.id == alert.id).with_for_update()
                [found] = connection.execute(query).scalars()
                row = _alert.update().where(_alert.c.id == alert.id)
                connection.execute(row.values({column: [*found, channel.name]}))

    def _select(self, *where: sa.ColumnElement[bool]) -> list[Alert]:
        query = sa.select(_alert).where(*where).order_by(_alert.c.id.desc())
        with self._engine.connect() as connection:
            return [Alert(**row) for row in connection.execute(query).mappings()]


def _open(task: str, kind: Kind) -> tuple[sa.ColumnElement[bool], ...]:
    return _alert.c.task == task, _alert.c.kind == kind, _is_open


def _column(over: bool) -> sa.Column[Any]:
    return _alert.c.told_resolved if over else _alert.c.told_opened


def _same(claim: dict[str, Any]) -> list[sa.ColumnElement[bool]]:
    return [_claim.c[name] == value for name, value in claim.items()]


def _later(text: str, by: timedelta) -> str:
    return _text(datetime.fromisoformat(text) + by)


def _text(at: datetime | None) -> str:
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
