"""A disk that takes no more, said to the person who can make room: whichever library met it first."""

import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of this user is used up",
    errno.EFBIG: "a file may not become so large here (ulimit -f)",
}
_SQLITE = {
    "SQLITE_FULL": "the disk is full",
    "SQLITE_IOERR": "the disk did not take it: it is full, a limit was reached (a quota, ulimit -f), or it is broken",
}


def explained(error: BaseException, file: str | Path | None = None) -> str | None:
    """What to say where a full disk is behind ``error`` or behind what it was raised from; ``None`` where none is.

    ``file``: what was written to, where the caller knows it; an ``OSError`` tells by itself.
    """
    for one in _causes(error):
        if isinstance(one, OSError) and one.errno in _FULL:
            return _said(_FULL[one.errno], one.filename or file)
        if isinstance(one, sqlite3.OperationalError):
            name = getattr(one, "sqlite_errorname", "")  # SQLITE_IOERR_WRITE, SQLITE_IOERR_SHMSIZE …
            for known, words in _SQLITE.items():
                if name.startswith(known):
                    return _said(words, file)
    return None


def _said(words: str, file: str | Path | bytes | int | None) -> str:
    what = f"{file} could not be written" if file else "A file could not be written"
    return (
        f"{what}: {words}. What was finished before stands, and nothing of it was lost. Make room, then run it again."
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
