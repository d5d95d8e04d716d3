"""The ledger: what each attempt at a stage took, made and was called by; keyed by the hash of what it left.

Everything that depends on the clock, the machine or an earlier run lives here and never in a hashed output.
"""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from lepton_platform.database import engine
from lepton_platform.settings import Settings

_metadata = sa.MetaData()
_attempt = sa.Table(
    "stage_attempt",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("task", sa.String, nullable=False),
    sa.Column("stage", sa.String, nullable=False),
    sa.Column("version", sa.String),  # DVC hash of the output; null where the attempt failed
    sa.Column("state", sa.String, nullable=False),
    sa.Column("face", sa.String, nullable=False),
    sa.Column("run_id", sa.String),
    sa.Column("git_commit", sa.String),
    sa.Column("started_at", sa.String, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("rows", sa.Integer),
    sa.Column("inputs", sa.JSON, nullable=False),
    sa.Column("code", sa.String),
    sa.Column("params", sa.JSON, nullable=False),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("message", sa.String),
    sa.Index("stage_attempt_version", "task", "stage", "version"),
)


@dataclass(frozen=True)
class Attempt:
    """One attempt at a stage. ``inputs``: stage or file → DVC hash of what was read."""

    task: str
    stage: str
    state: Literal["done", "failed"]
    face: str  # "dagster" or "dvc"
    started_at: str  # ISO 8601, UTC
    seconds: float
    version: str | None = None
    run_id: str | None = None
    git_commit: str | None = None
    rows: int | None = None
    code: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    message: str | None = None


class Ledger:
    """Attempts in the state database; appended to, never changed."""

    def __init__(self, settings: Settings) -> None:
        self._engine = engine(settings.database_url)
        _metadata.create_all(self._engine)

    def write(self, attempt: Attempt) -> None:
        row = json.loads(json.dumps(asdict(attempt), default=str))
        with self._engine.begin() as connection:
            connection.execute(_attempt.insert().values(**row))

    def _one(self, *where: sa.ColumnElement[bool]) -> Attempt | None:
        query = sa.select(_attempt).where(*where).order_by(_attempt.c.id.desc()).limit(1)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return Attempt(**{k: v for k, v in row.items() if k != "id"}) if row else None

    def attempts(self, task: str) -> list[Attempt]:
        """All of a task's, the oldest first."""
        query = sa.select(_attempt).where(_attempt.c.task == task).order_by(_attempt.c.id)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return [Attempt(**{k: v for k, v in row.items() if k != "id"}) for row in rows]

    def latest(self, task: str, stage: str) -> Attempt | None:
        """The last attempt, whatever its end."""
        return self._one(_attempt.c.task == task, _attempt.c.stage == stage)

    def maker(self, task: str, stage: str, version: str) -> Attempt | None:
        """The last attempt that left these very bytes."""
        return self._one(_attempt.c.task == task, _attempt.c.stage == stage, _attempt.c.version == version)

    def last_done(self, task: str, stage: str) -> Attempt | None:
        return self._one(_attempt.c.task == task, _attempt.c.stage == stage, _attempt.c.state == "done")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def git_commit(folder: Path) -> str | None:
    """The commit that is checked out in ``folder``, ``-dirty`` where files differ; ``None`` outside git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
