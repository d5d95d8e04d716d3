"""Who may do what: a request's key is looked for in memory, where a thread keeps the table's rows at most 2 s old."""

import functools
import hmac
import ipaddress
import logging
import re
import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import urlsplit

from lepton_platform.gateway.keys import FORM, SCOPES, SHOWN_CHARS, Key, Keys, Scope, whole
from lepton_platform.gateway.limits import Bucket, Wrongs, whole_seconds
from lepton_platform.serving.rejected import Rejected, overloaded
from lepton_platform.stage import StageFailed

REREAD_S = 1.0  # a revoked key is refused after this and the reading itself: 2 s at the latest
MOST_STALE_S = 300.0  # while the database cannot be read, what was known last holds for so long
NOTE_S = 60.0  # how often the table is told which keys were used
STOP_S = 2.0
ANYONE = Key(0, "anyone", "", SCOPES, None, None, "")
Headers = Iterable[tuple[bytes, bytes]]  # as ASGI has them; Starlette's `headers.raw`
logger = logging.getLogger("lepton.gateway")

_FORMS = {
    b"authorization": ("Authorization", re.compile(rb"(?i:bearer) +(%s)" % FORM.encode())),
    b"x-api-key": ("X-API-Key", re.compile(b"(%s)" % FORM.encode())),
}
_HOW = "Send it as `Authorization: Bearer lep_…` or `X-API-Key: lep_…`, nowhere else"
_LOOKS_LIKE_A_KEY = re.compile(r"(?i)lep(?:_|%5f)[0-9a-z]{7,}")


class _Wrong(Exception):
    """(message, field) of a 401 that counts against the address: something was sent, and it is not a key that holds."""


@dataclass(slots=True)
class _Known:
    digest: bytes
    key: Key
    expires_s: float  # seconds since 1970
    bucket: Bucket | None


@dataclass(frozen=True)
class _Snapshot:
    by_prefix: dict[bytes, list[_Known]]
    version: tuple[int, ...]
    read_s: float  # monotonic, before the reading began


# with whom a stranger's key is compared: no key has this hash, and who guessed it would find it revoked
_NOBODY = [_Known(secrets.token_bytes(32), Key(0, "", "", (), None, None, "", revoked_at="ever"), 0.0, None)]


class Access:
    """Answers whether a request may pass. ``check`` is called from one thread, the event loop's; it waits for nothing.

    Limits are this process's own. Enter it, or ``close`` it, to end its threads.
    """

    authentication = True

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._wrongs = Wrongs()
        self._buckets: dict[int, Bucket] = {}
        self._used: dict[int, float] = {}  # key id → seconds since 1970; what the table was told of is in `_noted`
        self._noted: dict[int, float] = {}
        self._readable = True
        self._snapshot = self._read()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._reread, name="keys", daemon=True),
            threading.Thread(target=self._note, name="keys-used", daemon=True),  # a locked database holds up only this
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def off(cls, host: str) -> "Access":
        """Everybody may do everything; ``StageFailed`` unless only this machine can reach ``host``."""
        if not loopback(host):
            raise StageFailed(
                f"LEPTON_AUTH=off would let everybody who reaches {host or 'any address'} use the models. Leave "
                "LEPTON_AUTH on and make keys with `lepton keys create NAME`, or set LEPTON_HOST=127.0.0.1."
            )
        return _Open()

    def check(self, headers: Headers, scope: Scope | None = None, address: str | None = None) -> Key:
        """The key that a request came with. ``scope``: what it must be allowed, if anything; ``address``: the client's.

        ``Rejected`` 401 without a key that holds, 403 without the scope, 429 over the key's rate or after too many
        wrong keys of the address; 503 if the table could not be read for ``MOST_STALE_S``.

        A right key passes whatever others at its address have sent: 256 bits are not guessed at any speed, and one
        client with an old key must not shut out all who share its proxy.
        """
        now_ns = time.monotonic_ns()
        try:
            known = self._authenticated(headers)
        except _Wrong as wrong:
            wait = self._wrongs.take(address, now_ns)
            if wait:
                raise _too_often("Too many wrong keys came from this address", wait) from None
            raise Rejected(401, *wrong.args) from None
        key = known.key
        if scope is not None and scope not in key.scopes:
            raise Rejected(
                403, f"The key '{key.name}' may {', '.join(key.scopes)}; this needs a key with the scope {scope}."
            )
        wait = 0 if known.bucket is None else known.bucket.take(now_ns)
        if wait:
            raise _too_often(f"The key '{key.name}' may ask {key.rate_per_minute} times a minute", wait)
        self._used[key.id] = time.time()
        return key

    def _authenticated(self, headers: Headers) -> _Known:
        secret = presented(headers)
        if secret is None:
            raise Rejected(401, f"This needs a key. {_HOW}; `lepton keys create NAME` makes one.")
        snapshot = self._snapshot
        if time.monotonic() - snapshot.read_s > MOST_STALE_S:
            raise overloaded("The database with the keys cannot be read.", REREAD_S)
        digest, found = sha256(secret).digest(), None
        for known in snapshot.by_prefix.get(secret[:SHOWN_CHARS], _NOBODY):  # its beginning is no secret
            if hmac.compare_digest(digest, known.digest):
                found = known
        if found is None:
            raise _Wrong("This key is not known here. `lepton keys list` shows those that are.")
        if found.key.revoked_at is not None:
            raise _Wrong(f"The key '{found.key.name}' was revoked at {found.key.revoked_at}.")
        if found.expires_s <= time.time():
            raise _Wrong(f"The key '{found.key.name}' expired at {found.key.expires_at}.")
        return found

    # --- the threads

    def _read(self, last: _Snapshot | None = None) -> _Snapshot:
        began, version = time.monotonic(), self._keys.version()
        if last is not None and last.version == version:  # thousands of rows are not read every second for nothing
            return replace(last, read_s=began)
        by_prefix: dict[bytes, list[_Known]] = {}
        for digest, key in self._keys.hashed():
            if key.rate_per_minute is not None and key.id not in self._buckets:
                self._buckets[key.id] = Bucket(key.rate_per_minute, key.burst or key.rate_per_minute)
            expires = float("inf") if key.expires_at is None else datetime.fromisoformat(key.expires_at).timestamp()
            known = _Known(digest, key, expires, self._buckets.get(key.id))
            by_prefix.setdefault(key.prefix.encode(), []).append(known)
        return _Snapshot(by_prefix, version, began)

    def _reread(self) -> None:
        while not self._stop.wait(REREAD_S):
            try:
                self._snapshot = self._read(self._snapshot)
            except Exception as error:
                if self._readable:
                    logger.error("The keys cannot be read; those known hold for %g s: %s", MOST_STALE_S, error)
                self._readable = False
            else:
                if not self._readable:
                    logger.info("The keys can be read again.")
                self._readable = True

    def _note(self) -> None:
        while not self._stop.wait(NOTE_S):
            self._note_used()
        self._note_used()

    def _note_used(self) -> None:
        used = dict(self._used)  # one step of the interpreter: `check` may be writing
        new = {key: at for key, at in used.items() if self._noted.get(key) != at}
        if not new:
            return
        try:
            self._keys.note_used({key: datetime.fromtimestamp(at, UTC) for key, at in new.items()})
            self._noted = used
        except Exception as error:
            logger.warning("When keys were last used could not be noted: %s", error)

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(STOP_S)

    def __enter__(self) -> "Access":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Open(Access):
    """No keys are asked for."""

    authentication = False

    def __init__(self) -> None:
        pass

    def check(self, headers: Headers, scope: Scope | None = None, address: str | None = None) -> Key:
        return ANYONE

    def close(self) -> None:
        pass


@functools.lru_cache(1024)
def loopback(host: str) -> bool:
    """Is it an address that only this machine reaches: 127.0.0.0/8, ::1, or ``localhost``?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@functools.lru_cache(1024)
def _here(host: str) -> bool:
    """Does a header `Host` name this machine alone?"""
    try:
        return loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:  # no address at all
        return False


def own_page(headers: Mapping[str, str]) -> None:
    """Where no keys are asked for, a page of another site must not ask in its reader's name. ``Rejected`` (403).

    Nor under another name for this address, which a name server can be made to give (DNS rebinding).
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    try:
        own = _here(host) and (origin is None or urlsplit(origin).netloc == host)
    except ValueError:
        own = False
    if not own:
        raise Rejected(403, "Without keys only this machine's own pages and programs are answered.", "origin")


def presented(headers: Headers) -> bytes | None:
    """The key in the headers, ``None`` without one; of the right form, checked by its own last characters alone."""
    found: bytes | None = None
    for name, value in headers:
        known = _FORMS.get(name.lower())
        if known is None:
            continue
        field, form = known
        match = form.fullmatch(value.strip(b" \t"))
        if match is None:
            raise _Wrong(f"What is in the header {field} is not a key. {_HOW}.", field)
        if not whole(match[1]):
            raise _Wrong("The key was not copied right: its last six characters do not fit the others.", field)
        if found is not None and found != match[1]:
            raise _Wrong("Two different keys were sent; one is wanted.", field)
        found = match[1]
    return found


def challenge(refused: Rejected) -> dict[str, str]:
    """The header that goes with a 401 (RFC 9110, §15.5.2)."""
    return {"WWW-Authenticate": "Bearer"} if refused.status == 401 else {}


def _too_often(what: str, wait_ns: int) -> Rejected:
    seconds = whole_seconds(wait_ns)
    return Rejected(429, f"{what}; come again in {seconds} s.", None, seconds)


def redact(text: str) -> str:
    """Without anything that looks like a key; the few characters by which one is recognised may stay."""
    return _LOOKS_LIKE_A_KEY.sub("lep_…", text)


class Redacting(logging.Filter):
    """Takes keys out of a record before anybody writes it: message, traceback, and what else it carries as text."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            text = record.getMessage()
        except Exception:  # arguments that do not fit; logging would print them as they are
            text = f"{record.msg!r} {record.args!r}"
            record.msg, record.args = text, ()
        if (clean := redact(text)) != text:
            record.msg, record.args = clean, ()
        if record.exc_info and not record.exc_text:
            record.exc_text = _formatter.formatException(record.exc_info)
        for name, value in list(vars(record).items()):
            if isinstance(value, str) and name != "msg" and (clean := redact(value)) != value:
                setattr(record, name, clean)
                if name == "exc_text":
                    record.exc_info = None  # a handler would format it anew
        return True


_formatter = logging.Formatter()


def redact_logs() -> None:
    """Every record that reaches the root's handlers goes through the filter: a logger's own would not see its children's."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(known, Redacting) for known in handler.filters):
            handler.addFilter(Redacting())
