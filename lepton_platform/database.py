"""The state database: one SQLAlchemy engine a process, SQLite with a write-ahead log, or PostgreSQL by URL."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Engine


@cache
def engine(url: str) -> "Engine":
    """The engine for ``url``; a SQLite file's folder is made, and writers wait for each other up to 30 s."""
    from pathlib import Path

    import sqlalchemy as sa
    from sqlalchemy import event

    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(parsed, pool_pre_ping=True)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    made = sa.create_engine(parsed, connect_args={"timeout": 30})

    @event.listens_for(made, "connect")
    def _write_ahead(connection, _record) -> None:
        connection.execute("PRAGMA journal_mode=WAL")

    return made
