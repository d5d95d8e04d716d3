"""Who changed what serves, when and why: a table that is only ever added to."""

import getpass
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData()  # of all tables about deployments
_table = sa.Table(
    "deployment_audit",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.String, nullable=False),
    sa.Column("task", sa.String, nullable=False, index=True),
    sa.Column("tag", sa.String, nullable=False),
    sa.Column("deployment", sa.Integer),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("who", sa.String, nullable=False),
    sa.Column("why", sa.String, nullable=False),
    sa.Column("run_id", sa.String),
    sa.Column("details", sa.JSON, nullable=False),
)


@dataclass(frozen=True)
class Change:
    """One row. ``at`` is ISO 8601, UTC; ``action`` a word or two: promoted, refused, canary, step, turned back …"""

    id: int
    at: str
    task: str
    tag: str
    deployment: int | None
    action: str
    who: str
    why: str
    run_id: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def user() -> str:
    """Who runs this process; a container may have no name for its user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def record(connection: sa.Connection, task: str, tag: str, deployment: int | None, action: str, **more: Any) -> None:
    """Add a row in the transaction that makes the change: there is none without the other."""
    values = {"at": now(), "task": task, "tag": tag, "deployment": deployment, "action": action, "who": user()}
    connection.execute(_table.insert().values(**{"details": {}, **values, **more}))


def changes(engine: sa.Engine, task: str | None = None, most: int | None = None) -> list[Change]:
    """The latest first."""
    query = sa.select(_table).order_by(_table.c.id.desc()).limit(most)
    if task is not None:
        query = query.where(_table.c.task == task)
    with engine.connect() as connection:
        return [Change(**row) for row in connection.execute(query).mappings()]
