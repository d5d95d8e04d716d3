"""Which Bento serves: a table of deployments, and the rule by which a challenger takes the champion's place."""

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from lepton_platform.database import engine
from lepton_platform.serving.bundle import MANIFEST
from lepton_platform.serving.comparison import Comparison, Judge, compare, verdict
from lepton_platform.serving.params import RolloutParams
from lepton_platform.serving.store import import_bento, stored, tag_of
from lepton_platform.settings import Settings

State = Literal["champion", "retired", "refused"]
_metadata = sa.MetaData()
_table = sa.Table(
    "deployment",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("task", sa.String, nullable=False),
    sa.Column("tag", sa.String, nullable=False),
    sa.Column("path", sa.String, nullable=False),  # in the Bento store
    sa.Column("state", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("created_at", sa.String, nullable=False),
    sa.Column("ended_at", sa.String),
    sa.Column("run_id", sa.String),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("compared_with", sa.String),
    sa.Column("comparison", sa.JSON),
    sa.Index(
        "deployment_one_champion",
        "task",
        unique=True,
        sqlite_where=sa.text("state = 'champion'"),
        postgresql_where=sa.text("state = 'champion'"),
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


@dataclass(frozen=True)
class Decision:
    """What became of a Bento that was offered. ``changed``: another Bento serves now than before."""

    deployment: Deployment
    promoted: bool
    changed: bool
    reason: str


class Deployments:
    """The table, in the state database."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._engine = engine(settings.database_url)
        _metadata.create_all(self._engine)

    def _select(self, *where: sa.ColumnElement[bool], most: int | None = None) -> list[Deployment]:
        query = sa.select(_table).where(*where).order_by(_table.c.id.desc()).limit(most)
        with self._engine.connect() as connection:
            return [Deployment(**row) for row in connection.execute(query).mappings()]

    def history(self, task: str) -> list[Deployment]:
        """All of a task's, the latest first."""
        return self._select(_table.c.task == task)

    def champion(self, task: str) -> Deployment | None:
        found = self._select(_table.c.task == task, _table.c.state == "champion", most=1)
        return found[0] if found else None

    def by_tag(self, task: str, tag: str) -> Deployment | None:
        """The latest of this Bento that served, or else that was refused."""
        found = self._select(_table.c.task == task, _table.c.tag == tag)
        return next((d for d in found if d.state != "refused"), found[0] if found else None)

    def by_id(self, identifier: int) -> Deployment | None:
        found = self._select(_table.c.id == identifier)
        return found[0] if found else None

    def write(self, values: dict[str, Any], replacing: int | None) -> Deployment:
        """Add a row; a champion takes the place of the one that it was compared with, in one transaction.

        ``sqlalchemy.exc.IntegrityError`` where another has been promoted meanwhile.
        """
        now = values["created_at"]
        with self._engine.begin() as connection:
            if values["state"] == "champion" and replacing is not None:
                retire = _table.update().where(_table.c.id == replacing, _table.c.state == "champion")
                connection.execute(retire.values(state="retired", ended_at=now))
            inserted = connection.execute(_table.insert().values(**values)).inserted_primary_key
        assert inserted is not None
        written = self.by_id(int(inserted[0]))
        assert written is not None
        return written


def champion(settings: Settings, task: str) -> Deployment | None:
    """The deployment that serves this task, or ``None``."""
    return Deployments(settings).champion(task)


def deploy(
    settings: Settings,
    task: str,
    *,
    bento: Path,
    test: Path,
    params: RolloutParams,
    judge: Judge,
    run_id: str | None = None,
) -> Decision:
    """Offer a Bento: the first one serves; a later one takes over unless it is worse on the same ``test`` rows.

    ``judge``: the task's evaluator.

    The Bento is put into the store either way. Offering the champion again changes nothing; offering again what
    the same champion has beaten on as many rows gives the same answer without a new row.
    """
    table = Deployments(settings)
    for _ in range(3):
        decision = _decide(table, settings, task, bento, test, params, judge, run_id)
        if decision is not None:
            return decision
    raise RuntimeError(f"The champion of {task} changed three times while a challenger was being compared.")


def _decide(
    table: Deployments,
    settings: Settings,
    task: str,
    bento: Path,
    test: Path,
    params: RolloutParams,
    judge: Judge,
    run_id: str | None,
) -> Decision | None:
    """``None``: the champion changed meanwhile, compare anew."""
    tag, current = tag_of(bento), table.champion(task)
    place = import_bento(settings.bentoml_home, bento)
    if current is not None and current.tag == tag:
        return Decision(current, True, False, f"Nothing to do: {tag} serves already, since {current.created_at}.")
    promoted, reason, comparison = _judge(settings, current, place, test, params, judge)
    before = table.by_tag(task, tag)
    if not promoted and before is not None and before.reason == reason and before.state == "refused":
        return Decision(before, False, False, reason)
    values = {
        "task": task,
        "tag": tag,
        "path": str(place),
        "state": "champion" if promoted else "refused",
        "reason": reason,
        "created_at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "run_id": run_id,
        "metrics": _metrics(place),
        "compared_with": current.tag if current else None,
        "comparison": comparison.as_dict() if comparison else None,
    }
    try:
        written = table.write(values, current.id if current else None)
    except IntegrityError:
        return None
    return Decision(written, promoted, promoted, reason)


def _judge(
    settings: Settings, current: Deployment | None, challenger: Path, test: Path, params: RolloutParams, judge: Judge
) -> tuple[bool, str, Comparison | None]:
    if current is None:
        return True, "Promoted: there was no champion.", None
    place = stored(settings.bentoml_home, current.tag)
    if not place.is_dir():
        return True, f"Promoted: the champion {current.tag} is no longer in the Bento store.", None
    comparison = compare(place, challenger, test, params, judge)
    return *verdict(comparison, params.max_loss), comparison


def _metrics(bento: Path) -> dict[str, Any]:
    import json

    return json.loads((bento / MANIFEST).read_text("utf-8"))["metrics"]
