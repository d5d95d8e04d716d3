"""The gateway's connections to the workers, over Unix sockets that nobody else can open: a link, or HTTP/1.1.

Predictions go over the link (``link.py``) where the worker has one and where their body is no large one. All else, and
what comes before there is a link, goes over HTTP; so does everything to a worker whose Bento is older than the link.

Its client is the least that one can be: one request at a time on a connection, which is kept for the next; the parser is the
one that uvicorn reads requests with. With aiohttp's client a request cost the gateway 0.21 ms of CPU time, with this 0.10.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, cast

import httptools

from lepton_platform.gateway.link import Link, NoLink
from lepton_platform.gateway.routing import Target
from lepton_platform.serving.frames import MOST_REQUEST_BYTES
from lepton_platform.serving.replies import Answer

if TYPE_CHECKING:
    import aiohttp

KEEP_ALIVE_S = 4.0  # shorter than uvicorn's 5 s: the gateway lets go first, and no request meets a closing door
CONNECT_S = 2.0
TOGETHER_BYTES = 65_536  # head and body are copied into one write up to here
logger = logging.getLogger("lepton.gateway")
_PASSED_ON = frozenset({b"content-type", b"retry-after", b"x-prediction-id", b"x-model", b"allow"})


class Unreachable(Exception):
    """No whole answer came: the worker was too slow, or, if ``gone``, hung up or did not pick up."""

    def __init__(self, message: str, gone: bool) -> None:
        super().__init__(message)
        self.gone = gone


class _Connection(asyncio.Protocol):
    """One request at a time; ``open`` until either side ends it."""

    def __init__(self) -> None:
        self.open, self.idle_since = True, 0.0
        self._answer: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, head: bytes, body: bytes) -> "asyncio.Future[Answer]":
        """``OSError`` where the connection ends first, or no HTTP comes."""
        self._answer = asyncio.get_running_loop().create_future()
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)
        if len(body) <= TOGETHER_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return self._answer

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():  # nothing was asked
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"no HTTP: {error}"))
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _PASSED_ON:
            self._headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.close()
        if self._answer is not None and not self._answer.done():
            body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._answer.set_result(Answer(self._parser.get_status_code(), self._headers, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._fail(exc if isinstance(exc, OSError) else ConnectionResetError("the worker hung up"))

    def _fail(self, error: OSError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def close(self) -> None:
        self.open = False
        self._transport.close()


class Upstream:
    """Made in the event loop. The sockets are named relative to the working folder: a path of any length has room."""

    def __init__(self) -> None:
        self._idle: dict[str, deque[_Connection]] = {}
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._links: dict[str, Link | None] = {}  # by socket; ``None``: there is none, or none yet

    def session(self, target: Target) -> "aiohttp.ClientSession":
        """For WebSockets."""
        found = self._sessions.get(target.socket)
        if found is None:
            import aiohttp

            connector = aiohttp.UnixConnector(target.socket, limit=0, keepalive_timeout=KEEP_ALIVE_S)
            found = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
            self._sessions[target.socket] = found
        return found

    async def send(
        self, target: Target, method: str, path: str, headers: Mapping[str, str], body: bytes, within_s: float
    ) -> Answer:
        """``Unreachable`` where no answer came within so many seconds."""
        if path == "/predict" and len(body) <= MOST_REQUEST_BYTES and (link := self._link(target)) is not None:
            try:
                status, told, content = await link.ask(headers, body, within_s)
                return Answer(status, [header for header in told if header[0] in _PASSED_ON], content)
            except OSError as error:
                raise _unreachable(target, error) from None
            except ValueError as error:  # headers of no frame; what is to be said of them, the worker says
                logger.debug("%s is asked over HTTP: %s", target.tag, error)
        named = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        head = f"{method} {path} HTTP/1.1\r\nHost: worker\r\n{named}Content-Length: {len(body)}\r\n\r\n"
        connection: _Connection | None = None
        whole = False
        try:
            async with asyncio.timeout(within_s):
                connection = self._kept(target) or await self._connected(target)
                answer = await connection.ask(head.encode("latin-1"), body)
                whole = True
        except OSError as error:
            raise _unreachable(target, error) from None
        finally:
            if connection is not None and not whole:
                connection.close()
        assert connection is not None
        if connection.open:
            self._keep(target, connection)
        return answer

    def _link(self, target: Target) -> Link | None:
        """The link to a worker, if there is one; the first who asks has it made, and does not wait for it."""
        if target.socket not in self._links:
            self._links[target.socket] = None
            _beside(self._make_link(target))
        return self._links[target.socket]

    async def _make_link(self, target: Target) -> None:
        try:
            link = await Link.to(target.socket, self._unlinked)
        except NoLink:
            logger.info("%s is asked over HTTP: its Bento's code has no link", target.tag)
        except OSError:
            self._links.pop(target.socket, None)  # the next one tries again
        else:
            if link.open and target.socket in self._links:
                self._links[target.socket] = link
            else:  # it is wanted no more
                link.finish()

    def _unlinked(self, lost: Link) -> None:
        for name in [name for name, link in self._links.items() if link is lost]:
            del self._links[name]

    def _kept(self, target: Target) -> _Connection | None:
        """The one that was used last, so that those that are not needed grow old."""
        idle, oldest = self._idle.get(target.socket), time.monotonic() - KEEP_ALIVE_S
        while idle:
            connection = idle.pop()
            if connection.open and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    async def _connected(self, target: Target) -> _Connection:
        async with asyncio.timeout(CONNECT_S):
            _, made = await asyncio.get_running_loop().create_unix_connection(_Connection, target.socket)
        return made

    def _keep(self, target: Target, connection: _Connection) -> None:
        idle = self._idle.setdefault(target.socket, deque())
        while idle and not idle[0].open:
            idle.popleft()
        connection.idle_since = time.monotonic()
        idle.append(connection)

    def forget(self, kept: set[str]) -> None:
        """Let go of workers that answer no more."""
        for name in set(self._idle) - kept:
            for connection in self._idle.pop(name):
                connection.close()
        for name in set(self._sessions) - kept:
            _beside(self._sessions.pop(name).close())
        for name in set(self._links) - kept:
            if (link := self._links.pop(name)) is not None:
                link.finish()

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()
        self.forget(set())


def _unreachable(target: Target, error: OSError) -> Unreachable:
    return Unreachable(f"{target.tag}: {error!r}", not isinstance(error, TimeoutError))


_tasks: set["asyncio.Task[None]"] = set()  # one that nobody holds may be collected before it has run


def _beside(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
