"""The state database: one SQLAlchemy engine a process, SQLite with a write-ahead log, or PostgreSQL by URL."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Engine


@cache
def engine(url: str) -> "Engine":
    """The engine for ``url``; a SQLite file's folder is made, and writers wait for each other up to 30 s.

    Where the disk takes no more, what is asked of it raises ``StageFailed`` with the file's name.
    """
    from pathlib import Path

    import sqlalchemy as sa
    from sqlalchemy import event

    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(parsed, pool_pre_ping=True)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    made = sa.create_engine(parsed, connect_args={"timeout": 30})

    def _full(error: BaseException) -> None:
        from lepton_platform.full_disk import explained
        from lepton_platform.stage import StageFailed

        if said := explained(error, parsed.database):
            raise StageFailed(said) from error

    @event.listens_for(made, "connect")
    def _write_ahead(connection, _record) -> None:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except Exception as error:
            _full(error)
            raise

    @event.listens_for(made, "handle_error")
    def _handle(context) -> None:
        _full(context.original_exception)

    return made
