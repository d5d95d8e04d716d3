"""Which Bento serves: the table of deployments."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from lepton_platform.database import engine
from lepton_platform.serving import audit
from lepton_platform.settings import Settings

State = Literal[
    "champion", "canary", "shadow", "retired", "turned back", "ended", "refused"
]  # ended: a shadow, superseded
LIVE: tuple[State, ...] = ("champion", "canary", "shadow")  # have a process; one of each a task
row_table = sa.Table(
    "deployment",
    audit.metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("task", sa.String, nullable=False),
    sa.Column("tag", sa.String, nullable=False),
    sa.Column("path", sa.String, nullable=False),  # in the Bento store, then; the store is asked by tag
    sa.Column("state", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("created_at", sa.String, nullable=False),
    sa.Column("ended_at", sa.String),
    sa.Column("run_id", sa.String),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("compared_with", sa.String),
    sa.Column("comparison", sa.JSON),
    *(
        sa.Index(
            f"deployment_one_{state}",
            "task",
            unique=True,
            sqlite_where=sa.text(f"state = '{state}'"),
            postgresql_where=sa.text(f"state = '{state}'"),
        )
        for state in LIVE
    ),
)


@dataclass(frozen=True)
class Deployment:
    """One row: a Bento that serves, served, or was refused. Times are ISO 8601, UTC."""

    id: int
    task: str
    tag: str
    path: str
    state: State
    reason: str
    created_at: str
    ended_at: str | None = None
    run_id: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    compared_with: str | None = None
    comparison: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Deployments:
    """The table, in the state database."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine = engine(settings.database_url)
        audit.metadata.create_all(self.engine)
        for index in row_table.indexes:  # a table of before there were canaries has one of them
            index.create(self.engine, checkfirst=True)

    def _select(self, *where: sa.ColumnElement[bool], most: int | None = None) -> list[Deployment]:
        query = sa.select(row_table).where(*where).order_by(row_table.c.id.desc()).limit(most)
        with self.engine.connect() as connection:
            return [Deployment(**row) for row in connection.execute(query).mappings()]

    def history(self, task: str) -> list[Deployment]:
        """All of a task's, the latest first."""
        return self._select(row_table.c.task == task)

    def live(self) -> list[Deployment]:
        """Those of all tasks that have a process, in the order in which they came."""
        return self._select(row_table.c.state.in_(LIVE))[::-1]

    def in_state(self, task: str, state: State) -> Deployment | None:
        """The latest of a task's in this state; of the ``LIVE`` ones there is one at most."""
        found = self._select(row_table.c.task == task, row_table.c.state == state, most=1)
        return found[0] if found else None

    def champion(self, task: str) -> Deployment | None:
        return self.in_state(task, "champion")

    def by_tag(self, task: str, tag: str) -> Deployment | None:
        """The latest of this Bento that served, or else that was refused."""
        found = self._select(row_table.c.task == task, row_table.c.tag == tag)
        return next((d for d in found if d.state != "refused"), found[0] if found else None)

    def by_id(self, identifier: int) -> Deployment | None:
        found = self._select(row_table.c.id == identifier)
        return found[0] if found else None

    def known(self, identifier: int) -> Deployment:
        found = self.by_id(identifier)
        assert found is not None
        return found

    def insert(self, connection: sa.Connection, values: dict[str, Any]) -> int:
        """Add a row in an open transaction; its id."""
        inserted = connection.execute(row_table.insert().values(**values)).inserted_primary_key
        assert inserted is not None
        return int(inserted[0])

    def supersede(self, connection: sa.Connection, values: dict[str, Any]) -> None:
        """End the task's canary, if there is one, in an open transaction: what ``values`` describes takes its place.

        It is not turned back, since nothing was found against it: it may be offered again.
        """
        why = f"Superseded: {values['tag']} was offered meanwhile."
        end = row_table.update().where(row_table.c.task == values["task"], row_table.c.state == "canary")
        end = end.values(state="ended", reason=why, ended_at=audit.now())
        told = {"why": why, "run_id": values["run_id"]}
        for found in connection.execute(end.returning(row_table.c.id, row_table.c.tag)).all():
            audit.record(connection, values["task"], found.tag, found.id, "superseded", **told)

    def write(self, values: dict[str, Any], replacing: int | None) -> Deployment:
        """Add a row; a champion takes the place of the one that it was compared with, in one transaction.

        A canary ends with that: it was compared with a champion that is none any more.

        ``sqlalchemy.exc.IntegrityError`` where another has been promoted meanwhile.
        """
        now = values["created_at"]
        with self.engine.begin() as connection:
            if values["state"] == "champion":
                self.supersede(connection, values)
            if values["state"] == "champion" and replacing is not None:
                retire = row_table.update().where(row_table.c.id == replacing, row_table.c.state == "champion")
                connection.execute(retire.values(state="retired", ended_at=now))
            identifier = self.insert(connection, values)
            action = "promoted" if values["state"] == "champion" else str(values["state"])
            told = {"why": values["reason"], "run_id": values["run_id"]}
            audit.record(connection, values["task"], values["tag"], identifier, action, **told)
        return self.known(identifier)


def champion(settings: Settings, task: str) -> Deployment | None:
    """The deployment that serves this task, or ``None``."""
    return Deployments(settings).champion(task)
