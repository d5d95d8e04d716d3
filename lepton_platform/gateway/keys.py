"""API keys: made, listed and revoked in the state database, which holds their hashes and never the keys.

A key is ``lep_``, then 43 characters that are 256 random bits, then 6 that are the CRC-32 of all before them; digits are
0-9, A-Z, a-z (base 62). So a typo is told from a key that is not known, and a scanner for leaked secrets is sure of what it
found. A plain SHA-256 is right for it: a salt and a slow hash protect what people choose and others can guess, and 256
random bits cannot be guessed; the hash of every request is then a microsecond's work.
"""

import re
import secrets
import string
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from lepton_platform.database import engine
from lepton_platform.gateway.limits import MOST_RATE
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed

Scope = Literal["predict", "feedback", "trace", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_HELD: dict[str, tuple[Scope, ...]] = {  # what a word in the table allows, where that is not itself
    "predict": ("predict", "trace"),  # of keys from before there was ``trace``: they were told that they may both
    "answers": ("predict",),
}
MARK = "lep_"
FORM = r"lep_[0-9A-Za-z]{49}"
SHOWN_CHARS = 10  # the mark and 6 more, by which a key is recognised; 220 bits stay unknown
MOST_LIFETIME = timedelta(days=36_500)
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET_DIGITS, _CHECK_DIGITS = 43, 6  # 62 ** 43 > 2 ** 256, 62 ** 6 > 2 ** 32
_NAME = re.compile(r"(?!lep_)(?!\d+\Z)\w[\w.@-]{0,63}")
_ID = re.compile(r"[0-9]{1,9}")

_metadata = sa.MetaData()
_table = sa.Table(
    "api_key",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("prefix", sa.String, nullable=False),
    sa.Column("sha256", sa.String, nullable=False, unique=True),  # hexadecimal
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("rate_per_minute", sa.Integer),
    sa.Column("burst", sa.Integer),
    sa.Column("created_at", sa.String, nullable=False),
    sa.Column("expires_at", sa.String),
    sa.Column("revoked_at", sa.String),
    sa.Column("last_used_at", sa.String),
    sa.Index(
        "api_key_one_name",  # of those that hold; a revoked key's name can be given again
        "name",
        unique=True,
        sqlite_where=sa.text("revoked_at IS NULL"),
        postgresql_where=sa.text("revoked_at IS NULL"),
    ),
)
_shown = [column for column in _table.c if column.name != "sha256"]


@dataclass(frozen=True)
class Key:
    """What is known of a key: neither the key nor its hash. Times are ISO 8601, UTC; no rate means no limit."""

    id: int
    name: str
    prefix: str
    scopes: tuple[Scope, ...]
    rate_per_minute: int | None
    burst: int | None
    created_at: str
    expires_at: str | None = None
    revoked_at: str | None = None
    last_used_at: str | None = None

    @property
    def state(self) -> Literal["active", "expired", "revoked"]:
        if self.revoked_at is not None:
            return "revoked"
        expired = self.expires_at is not None and datetime.fromisoformat(self.expires_at) <= datetime.now(UTC)
        return "expired" if expired else "active"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"state": self.state}


def new_secret() -> str:
    """A key: 256 bits of the system's randomness, marked and checked."""
    body = MARK + _base62(secrets.randbits(256), _SECRET_DIGITS)
    return body + _check(body.encode())


def whole(secret: bytes) -> bool:
    """Do the last characters of something of the form ``FORM`` fit the others? Says nothing of what keys there are."""
    return _check(secret[:-_CHECK_DIGITS]).encode() == secret[-_CHECK_DIGITS:]


def _check(body: bytes) -> str:
    return _base62(zlib.crc32(body), _CHECK_DIGITS)


def _base62(number: int, digits: int) -> str:
    found = ""
    for _ in range(digits):
        number, digit = divmod(number, 62)
        found = _DIGITS[digit] + found
    return found


class Keys:
    """The table, in the state database."""

    def __init__(self, settings: Settings) -> None:
        self._engine = engine(settings.database_url)
        _metadata.create_all(self._engine)

    def create(
        self,
        name: str,
        scopes: Iterable[str] = ("predict",),
        *,
        rate_per_minute: int | None = None,
        burst: int | None = None,
        lifetime: timedelta | None = None,
    ) -> tuple[Key, str]:
        """→ the key's row, and the key itself, which is told here and never again.

        Without ``burst``, ten seconds' worth of the rate may come at once. ``ValueError`` where a value cannot be,
        ``StageFailed`` where the name is taken.
        """
        secret, now = new_secret(), datetime.now(UTC)
        values = _values(name, scopes, rate_per_minute, burst, lifetime)
        values |= {
            "prefix": secret[:SHOWN_CHARS],
            "sha256": sha256(secret.encode()).hexdigest(),
            "created_at": as_text(now),
            "expires_at": None if lifetime is None else as_text(now + lifetime),
        }
        try:
            with self._engine.begin() as connection:
                inserted = connection.execute(_table.insert().values(**values)).inserted_primary_key
        except IntegrityError:
            raise StageFailed(
                f"There is a key '{name}' already. Choose another name, or `lepton keys revoke {name}` first."
            ) from None
        assert inserted is not None
        [written] = self._select(_table.c.id == int(inserted[0]))
        return written, secret

    def all(self) -> list[Key]:
        """All keys, the latest first."""
        return self._select()

    def revoke(self, wanted: str) -> tuple[Key, bool]:
        """By id, name, beginning, or the key itself as somebody found it. → the key, and whether it held until now.

        ``StageFailed`` where there is none.
        """
        wanted = wanted.removesuffix("…")  # as the list shows a beginning
        found = self._select(_wanted(wanted))
        if not found:  # what was found may be a key: it is not said again
            said = f"{wanted[:SHOWN_CHARS]}…" if wanted.startswith(MARK) and len(wanted) > SHOWN_CHARS else wanted
            raise StageFailed(f"There is no key '{said}'. `lepton keys list` shows the names and ids.")
        key = next((key for key in found if key.revoked_at is None), found[0])
        change = _table.update().where(_table.c.id == key.id, _table.c.revoked_at.is_(None))
        with self._engine.begin() as connection:
            held = connection.execute(change.values(revoked_at=as_text(datetime.now(UTC)))).rowcount == 1
        [key] = self._select(_table.c.id == key.id)
        return key, held

    def version(self) -> tuple[int, ...]:
        """Changes with every key that is made or revoked; nothing else of a row is ever changed but its last use."""
        query = sa.select(*(sa.func.count(column) for column in (_table.c.id, _table.c.revoked_at)))
        with self._engine.connect() as connection:
            return tuple(connection.execute(query).one())

    def hashed(self) -> list[tuple[bytes, Key]]:
        """All keys with their SHA-256."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_table)).mappings().all()
        return [(bytes.fromhex(row["sha256"]), _key({k: v for k, v in row.items() if k != "sha256"})) for row in rows]

    def note_used(self, at: Mapping[int, datetime]) -> None:
        """When keys were last used, by id; an earlier time than the one noted (another gateway's) changes nothing."""
        used = _table.c.last_used_at
        with self._engine.begin() as connection:
            for identifier, moment in sorted(at.items()):
                later = sa.or_(used.is_(None), used < as_text(moment))
                change = _table.update().where(_table.c.id == identifier, later)
                connection.execute(change.values(last_used_at=as_text(moment)))

    def _select(self, *where: sa.ColumnElement[bool]) -> list[Key]:
        query = sa.select(*_shown).where(*where).order_by(_table.c.id.desc())
        with self._engine.connect() as connection:
            return [_key(dict(row)) for row in connection.execute(query).mappings()]


def _key(row: Mapping[str, Any]) -> Key:
    held = {scope for word in row["scopes"] for scope in _HELD.get(word, (word,))}
    return Key(**{**row, "scopes": tuple(scope for scope in SCOPES if scope in held)})


def _wanted(wanted: str) -> sa.ColumnElement[bool]:
    if _ID.fullmatch(wanted):
        return _table.c.id == int(wanted)
    if wanted.startswith(MARK) and len(wanted) > SHOWN_CHARS:
        return _table.c.sha256 == sha256(wanted.encode(errors="replace")).hexdigest()
    if wanted.startswith(MARK):
        return _table.c.prefix == wanted
    return _table.c.name == wanted if _NAME.fullmatch(wanted) else sa.false()


def _values(
    name: str, scopes: Iterable[str], rate: int | None, burst: int | None, lifetime: timedelta | None
) -> dict[str, Any]:
    """The columns that people choose; ``ValueError`` where one cannot be."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            "A key's name is 1 to 64 letters, digits, '.', '_', '-' or '@', with something that is no digit, and does "
            f"not begin with {MARK}."
        )
    chosen = set(scopes)
    if not chosen or not chosen <= set(SCOPES):
        raise ValueError(f"A key has one or more of the scopes {', '.join(SCOPES)}; not {sorted(chosen)}.")
    if rate is None and burst is not None:
        raise ValueError("A burst needs a rate: without a rate there is no limit.")
    for number in (rate, burst):
        if number is not None and not 1 <= number <= MOST_RATE:
            raise ValueError(f"A rate and a burst are 1 to {MOST_RATE:,}, not {number}.")
    if lifetime is not None and not timedelta(0) < lifetime <= MOST_LIFETIME:
        raise ValueError("A key expires later than now, and within a hundred years.")
    if rate is not None and burst is None:
        burst = max(1, rate // 6)
    ordered = ["answers" if scope == "predict" else scope for scope in SCOPES if scope in chosen]
    return {"name": name, "scopes": ordered, "rate_per_minute": rate, "burst": burst}


def as_text(moment: datetime) -> str:
    """As it stands in the table: it sorts as the time does."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
